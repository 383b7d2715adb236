//! What each stage of identification costs in time and memory, and how much of it is the networks' own.
//!
//! `benches/compare.py` runs it and prints its table; by hand:
//! `cargo bench --bench stages -- --bundle models/right-whales --threads 2 FRAME…`

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use recognition::bundle::Bundle;
use recognition::identify::Identifier;
use recognition::inference::EngineConfig;
use recognition::pixels::{EncodedPhotograph, reduce_to_fit};

#[derive(Parser)]
struct Args {
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long)]
    bundle: PathBuf,
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Times that each frame is looked at, after one that is not counted
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(required = true)]
    frames: Vec<PathBuf>,
}

/// Most memory that this process held since the last call, in bytes; `None` where the system does not
/// tell.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    // 5 resets the mark.
    fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kilobytes * 1024)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let config = EngineConfig {
        library: args.onnxruntime.clone(),
        threads: args.threads,
        ..EngineConfig::default()
    };
    peak_memory();
    let start = Instant::now();
    let bundle = Bundle::open(&args.bundle)?;
    let identifier = Identifier::new(&bundle, &config)?;
    let loading = milliseconds(start);
    let loaded = peak_memory();

    let names = ["decode", "find", "align", "identify"];
    let mut times: [Vec<f64>; 4] = Default::default();
    let mut peaks = [loaded; 4];
    let (mut totals, mut inference, mut heads) = (Vec::new(), Vec::new(), 0);
    for path in &args.frames {
        let frame = EncodedPhotograph::open(path)?;
        let input = finder_input(&bundle, path)?;
        for round in 0..=args.rounds {
            let clock = Instant::now();
            let seen = identifier.identify_frame(&EncodedPhotograph::open(path)?)?;
            let total = milliseconds(clock);
            if round == 0 {
                // Memory is looked at once a frame: each stage after all that comes before it.
                peak_memory();
                let scale = reduce_to_fit(frame.size(), input.0, input.1).xx;
                drop(frame.decode(scale)?);
                peaks[0] = peaks[0].max(peak_memory());
                identifier.locate(&frame, false)?;
                peaks[1] = peaks[1].max(peak_memory());
                identifier.locate(&frame, true)?;
                peaks[2] = peaks[2].max(peak_memory());
                identifier.identify_frame(&frame)?;
                peaks[3] = peaks[3].max(peak_memory());
                heads += seen.heads.len();
                continue;
            }
            let stages = seen.stages_ms;
            let spent = [stages.decode, stages.find, stages.align, stages.identify];
            for (times, spent) in times.iter_mut().zip(spent) {
                times.push(spent);
            }
            totals.push(total);
            inference.push(stages.inference);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (frame, in_networks) = (mean(&totals), mean(&inference));
    let megabytes = |bytes: Option<u64>| bytes.map(|bytes| (bytes as f64 / 1e5).round() / 10.0);
    let mut stages = vec![serde_json::json!({
        "stage": "load", "ms": loading, "peak_mb": megabytes(loaded),
    })];
    for ((name, times), peak) in names.iter().zip(&mut times).zip(peaks) {
        stages.push(serde_json::json!({
            "stage": name, "ms": median(times), "peak_mb": megabytes(peak),
        }));
    }
    let report = serde_json::json!({
        "frames": args.frames.len(),
        "heads": heads,
        "threads": args.threads,
        "stages": stages,
        "frame_ms": frame,
        "inference_ms": in_networks,
        "outside_networks": 1.0 - in_networks / frame,
    });
    println!("{report}");
    Ok(())
}

fn finder_input(bundle: &Bundle, frame: &Path) -> anyhow::Result<(u32, u32)> {
    let finder = bundle.manifest().finder.as_ref();
    let input = &finder
        .with_context(|| format!("the bundle has no finder to look at {}", frame.display()))?
        .network
        .input;
    Ok((input.width, input.height))
}
