use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use callosity::camera::Replay;
use callosity::ground::{Received, Receiver};
use callosity::link::BrokerOptions;
use callosity::link::message::{Decision, Presence, Sighting};
use callosity::outbox::Limits;
use callosity::rehearsal::{EmbeddedBroker, Score, TrueHead, Truth};
use callosity::service::{Flight, HEALTH_INTERVAL, STOP_DEADLINE, fly};
use indicatif::ProgressIterator;
use recognition::annotate::{self, Annotation};
use recognition::bundle::Bundle;
use recognition::geometry::{HeadCrop, Landmarks};
use recognition::identify::{Identifier, Verdict};
use recognition::pixels::{EncodedPhotograph, encode_jpeg};
use recognition::virtual_survey::{Catalogue, Survey};
use tokio_util::sync::CancellationToken;

use super::camera::Camera;
use super::identify::DEFAULT_BUNDLE;
use super::run::{exit_code, runtime, stop_on_signal};
use super::{INTERRUPTED, engine};

const VIRTUAL_BUNDLE: &str = "models/virtual-survey";

/// Seed of the population whose known individuals `models/virtual-survey` was trained on.
const POPULATION: u64 = 1;

/// Whales in the virtual sea that no bundle knows.
const STRANGERS: usize = 6;

/// Size of virtual frames in pixels.
const FRAME: (u32, u32) = (3072, 2048);

/// What the names of virtual frames begin with.
const FRAME_NAME: &str = "virtual-frame-";

const JPEG_QUALITY: u8 = 90;

/// Fly a virtual survey on this machine, with a broker and a ground station of its own.
///
/// The same service as `run` looks at the frames and says over MQTT what it sees; what arrives is
/// printed, drawn into pictures, and compared with the truth. With --frames it flies over photographs
/// of yours; a `frames.csv` in that folder or beside it (image, whale, bonnet_x, bonnet_y, blowhead_x,
/// blowhead_y) is taken as the truth.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of photographs to fly over instead of virtual ones
    #[arg(long, value_name = "DIR")]
    frames: Option<PathBuf>,
    /// Directory of the model bundle [default: models/virtual-survey, with --frames models/right-whales]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Folder for annotated pictures and virtual frames
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Frames a second
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    rate: f64,
    /// Virtual frames
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// The same seed gives the same flight
    #[arg(long, value_name = "S", default_value_t = 7)]
    seed: u64,
    /// The camera that takes the virtual frames
    #[arg(long, value_enum, default_value_t = Camera::AsIs, conflicts_with = "frames")]
    camera: Camera,
    #[command(flatten)]
    engine: engine::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let default_bundle = match args.frames {
        Some(_) => DEFAULT_BUNDLE,
        None => VIRTUAL_BUNDLE,
    };
    let bundle = args.bundle.as_deref().unwrap_or(Path::new(default_bundle));
    let bundle = Bundle::open(bundle)?;
    let catalogue = &bundle.manifest().catalogue.individuals;
    let crop = HeadCrop::RIGHT_WHALE;
    let pictures = args.out.join("annotated");
    fs::create_dir_all(&pictures)
        .with_context(|| format!("cannot make the folder {}", pictures.display()))?;
    let (frames, truth) = match &args.frames {
        Some(frames) => (frames.clone(), read_truth(frames)?),
        None => {
            let folder = args.out.join("virtual-frames");
            let truth = draw_survey(&folder, catalogue, &args)?;
            (folder, Some(truth))
        }
    };
    let camera = Replay::open(&frames, args.rate, false)?;
    let identifier = Identifier::new(&bundle, &args.engine.config(None))?;
    let broker = EmbeddedBroker::start()?;
    println!(
        "{} frames at {} a second; {} on {}; broker {}",
        camera.len(),
        args.rate,
        bundle.manifest().name,
        identifier.engine(),
        broker.address()
    );
    let options = BrokerOptions::new(broker.address(), None, None)?;
    let flight = Flight {
        camera,
        identifier,
        broker: options.clone(),
        platform: "demo".parse()?,
        frame_queue: 64,
        outbox: Limits::default(),
        health_interval: HEALTH_INTERVAL,
        stop_deadline: STOP_DEADLINE,
    };
    let stop = CancellationToken::new();
    let runtime = runtime()?;
    stop_on_signal(&runtime, &stop)?;
    let (report, sightings) = runtime.block_on(async {
        let receiver = Receiver::connect(options, "callosity-demo-ground").await?;
        let ground = tokio::spawn(listen(receiver, frames.clone(), pictures.clone(), crop));
        let report = fly(flight, stop.clone()).await?;
        // The last status may never come when the flight was cut off.
        let heard = tokio::time::timeout(Duration::from_secs(10), ground).await;
        let sightings =
            heard.context("the ground station did not hear the end of the flight")??;
        anyhow::Ok((report, sightings))
    })?;
    runtime.shutdown_background();

    let faulty = match (report.frames.incomplete, report.frames.damaged) {
        (0, 0) => String::new(),
        (incomplete, damaged) => format!(" ({incomplete} incomplete, {damaged} damaged)"),
    };
    println!();
    println!(
        "{} frames: {} looked at{faulty}, {} dropped, {} unusable; {} sightings decided, {} arrived; pictures in {}",
        report.frames.captured,
        report.frames.identified,
        report.frames.dropped,
        report.frames.failed,
        report.frames.heads,
        sightings.len(),
        pictures.display()
    );
    match truth {
        Some(truth) => {
            let known = catalogue.iter().cloned().collect();
            if args.frames.is_none() {
                println!("camera: {} ({})", args.camera, args.camera.condition());
            }
            println!("{}", Score::new(&truth, &sightings, &known));
        }
        None => summary(&sightings),
    }
    if stop.is_cancelled() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(exit_code(&report, false))
}

/// Hears the flight to its end.
async fn listen(
    mut receiver: Receiver,
    frames: PathBuf,
    pictures: PathBuf,
    crop: HeadCrop,
) -> Vec<Sighting> {
    let mut by_frame: BTreeMap<String, Vec<Sighting>> = BTreeMap::new();
    let mut all = Vec::new();
    println!(
        "{:<12}  {:<20} {:<20} {:>6}  decision",
        "time", "frame", "whale", "prob."
    );
    loop {
        match receiver.next().await {
            Received::Sighting(sighting) => {
                print_sighting(&sighting);
                if let Some(file) = &sighting.frame.file {
                    let heads = by_frame.entry(file.clone()).or_default();
                    heads.push((*sighting).clone());
                    let picture = pictures.join(Path::new(file).with_extension("jpg"));
                    if let Err(e) = draw(&frames.join(file), heads, &crop, &picture) {
                        eprintln!("callosity: no picture of {file}: {e:#}");
                    }
                }
                all.push(*sighting);
            }
            Received::Status(status) if status.status == Presence::Stopped => return all,
            Received::Malformed { topic, reason } => eprintln!("callosity: {topic}: {reason}"),
            Received::Status(_) | Received::Crop { .. } | Received::Health(_) => {}
        }
    }
}

fn print_sighting(sighting: &Sighting) {
    let best = sighting.candidates.first();
    println!(
        "{:<12}  {:<20} {:<20} {:>6}  {}",
        sighting.event_date.strftime("%H:%M:%S%.3f"),
        sighting.frame.file.as_deref().unwrap_or("-"),
        best.map_or("-", |c| &c.organism_id),
        best.map_or_else(String::new, |c| format!("{:.1} %", 100.0 * c.probability)),
        name(sighting.decision),
    );
}

fn name(decision: Decision) -> &'static str {
    match decision {
        Decision::Identified => "identified",
        Decision::Uncertain => "uncertain",
        Decision::Unknown => "unknown",
    }
}

fn draw(frame: &Path, heads: &[Sighting], crop: &HeadCrop, picture: &Path) -> anyhow::Result<()> {
    let encoded = EncodedPhotograph::open(frame)?.accepting_incomplete();
    let scale = f64::from(annotate::LARGEST_WIDTH) / f64::from(encoded.size().0.max(1));
    let photograph = encoded.decode(scale.min(1.0))?;
    let annotation = |s: &Sighting| Annotation {
        landmarks: Landmarks {
            bonnet: s.head.bonnet_pixels,
            blowhead: s.head.blowhead_pixels,
        },
        label: match (s.decision, s.candidates.first()) {
            (Decision::Unknown, _) | (_, None) => "unknown".to_owned(),
            (_, Some(c)) => format!("{}  {:.0} %", c.organism_id, 100.0 * c.probability),
        },
        verdict: match s.decision {
            Decision::Identified => Verdict::Identified,
            Decision::Uncertain => Verdict::Uncertain,
            Decision::Unknown => Verdict::Unknown,
        },
    };
    let heads: Vec<_> = heads.iter().map(annotation).collect();
    let image = annotate::annotate_photograph(&photograph, crop, &heads);
    fs::write(picture, encode_jpeg(&image, JPEG_QUALITY)?)
        .with_context(|| format!("cannot write {}", picture.display()))
}

/// Draws a flight into a folder, in place of what an earlier demo left there.
fn draw_survey(folder: &Path, catalogue: &[String], args: &Args) -> anyhow::Result<Truth> {
    let population = Catalogue::new(POPULATION, catalogue.len(), STRANGERS);
    ensure!(
        population.names() == catalogue,
        "this bundle does not know the whales of the virtual survey (it knows {} others): \
         name photographs with --frames, or another bundle",
        catalogue.len()
    );
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with(FRAME_NAME) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let mut truth = Truth::default();
    let camera = args.camera.condition();
    let plans = Survey::new(&population, args.seed).take(args.count as usize);
    eprintln!("drawing {} frames", args.count);
    for plan in plans.progress_count(args.count.into()) {
        let frame = plan.photograph(&population, FRAME.0, FRAME.1, &camera)?;
        let file = format!("{FRAME_NAME}{:04}.jpg", frame.number);
        let path = folder.join(&file);
        fs::write(&path, encode_jpeg(&frame.image, JPEG_QUALITY)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let heads = frame.heads.into_iter().map(|h| TrueHead {
            individual: h.individual,
            landmarks: h.landmarks,
        });
        truth.frames.insert(file, heads.collect());
    }
    Ok(truth)
}

fn read_truth(frames: &Path) -> anyhow::Result<Option<Truth>> {
    let inside = frames.join("frames.csv");
    let beside = frames
        .canonicalize()
        .ok()
        .and_then(|f| Some(f.parent()?.join("frames.csv")));
    let found = [Some(inside), beside]
        .into_iter()
        .flatten()
        .find(|p| p.exists());
    Ok(found.map(|path| Truth::read(&path)).transpose()?)
}

/// Without truth: how many of each decision, and who was seen.
fn summary(sightings: &[Sighting]) {
    let mut decisions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut individuals: BTreeMap<&str, usize> = BTreeMap::new();
    for sighting in sightings {
        *decisions.entry(name(sighting.decision)).or_default() += 1;
        if let Some(individual) = &sighting.organism_id {
            *individuals.entry(individual).or_default() += 1;
        }
    }
    for (decision, n) in decisions {
        println!("  {decision:<18} {n:>5}");
    }
    for (individual, n) in individuals {
        println!("  {individual:<18} {n:>5} sightings");
    }
}
