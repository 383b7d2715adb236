use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use clap::ValueEnum;
use recognition::annotate::{self, Annotation};
use recognition::bundle::Bundle;
use recognition::geometry::HeadCrop;
use recognition::identify::{
    FrameIdentification, FrameReport, HeadIdentification, Identifier, IdentifyError,
};
use recognition::inference::EngineConfig;
use recognition::pixels::{EncodedPhotograph, Folder, READ_ENDINGS, encode_jpeg};

use super::{FAILED, INTERRUPTED, PARTLY_FAILED, USAGE, engine, interrupt, progress_bar};

/// Pixels across a head picture that `--annotate` writes.
const HEAD_PICTURE_WIDTH: u32 = 512;

const JPEG_QUALITY: u8 = 90;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: a line for each head
    Table,
    /// A line of JSON for each photograph
    Jsonl,
    /// A row for each head, or with --distribution for each photograph
    Csv,
}

/// How photographs are taken as they come.
const PHOTOGRAPHS: &str = "\
JPEG, PNG and TIFF are read, and of raw files that are built like a TIFF (DNG, NEF, NRW, CR2, ARW, SR2, PEF, SRW) the \
JPEG of full size that is embedded in them; convert others. In a folder, other photographs and raw files beside a \
photograph of the same name are passed over, which is said, and hidden files are skipped.

A JPEG that ends early is looked at as far as it goes, if that is at least half of its rows, and is called incomplete, \
with the share that was read; heads in what is missing are not seen. One that the decoder warns of is looked at and \
called damaged, with the reason: look at the photograph before you trust a name. Both are said at the end of a line \
of the table, in JSON as \"incomplete\" with its \"share_read\" and as \"damaged\", and in the CSV columns share_read \
and damaged. They are no failures.";

/// How probabilities are to be read.
const UNKNOWN: &str = "\
Beside each head's candidates stands the probability of \"unknown\": that the bundle does not know the whale. A \
candidate's probability is given that the bundle does know it, so over all individuals they add up to 1; that a head is \
a candidate's is as probable as the candidate's probability times 1 − that of \"unknown\".";

#[derive(clap::Args)]
#[command(after_help = UNKNOWN, after_long_help = format!("{UNKNOWN}\n\n{PHOTOGRAPHS}"))]
pub struct Args {
    /// Photographs and folders of them, which are searched to the bottom
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directory of the model bundle
    #[arg(long, value_name = "DIR", default_value_os_t = callosity::settings::default_bundle())]
    bundle: PathBuf,
    /// The photographs are heads, already cut and turned as the bundle's head crop says
    #[arg(long)]
    aligned: bool,
    /// How results are written [default: table, with --distribution csv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// With csv: a row for each photograph with the probability of every individual and of "unknown",
    /// for the head that the finder is surest of. Here alone those of individuals are not given that the whale is
    /// known: with "unknown" they add up to 1
    #[arg(long)]
    distribution: bool,
    /// Write each photograph with what was seen drawn on it, and each head, into this folder
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
    /// Candidates reported for each head
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Say how many hidden files and folders were skipped
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    engine: engine::Args,
}

/// A photograph to look at.
struct Photograph {
    path: PathBuf,
    /// Under this name, without ending, `--annotate` writes.
    output: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let format = match (args.format, args.distribution) {
        (None, false) => Format::Table,
        (None, true) => Format::Csv,
        (Some(Format::Csv), _) => Format::Csv,
        (Some(format), false) => format,
        (Some(_), true) => {
            eprintln!("callosity: --distribution is a table of its own and needs --format csv");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let threads = args.threads.map_or_else(
        || thread::available_parallelism().map_or(1, Into::into),
        usize::from,
    );
    interrupt::install()?;
    let Collected {
        photographs,
        mut failed,
        passed_over,
        hidden,
    } = collect(&args.paths);
    for said in &passed_over {
        eprintln!("callosity: {said}");
    }
    if args.verbose {
        eprintln!("callosity: {hidden} hidden files and folders skipped");
    }
    for failure in &failed {
        eprintln!("callosity: {failure}");
    }
    if photographs.is_empty() {
        return Ok(ExitCode::from(FAILED));
    }
    let bundle = Bundle::open(&args.bundle)?;
    let config = EngineConfig {
        at_once: threads.min(photographs.len()),
        ..args.engine.config(Some(threads))
    };
    let identifier = Identifier::new(&bundle, &config)?;
    if let Some(folder) = &args.annotate {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut writer = Writer::new(format, args.distribution, args.top.into(), &identifier)?;

    let bar = progress_bar(photographs.len() as u64);
    let look = |photograph: &Photograph| {
        look(
            photograph,
            &identifier,
            args.aligned,
            args.annotate.as_deref(),
        )
    };
    let (mut done, mut incomplete, mut damaged, mut written) = (0, 0, 0, Ok(()));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(2 * threads);
        for _ in 0..threads.min(photographs.len()) {
            let (sender, next, photographs, look) = (sender.clone(), &next, &photographs, &look);
            scope.spawn(move || {
                while !interrupt::asked() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(photograph) = photographs.get(index) else {
                        return;
                    };
                    if sender.send((index, look(photograph))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Photographs end in any order and are written in that of the command line.
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (index, result) in receiver {
            waiting.insert(index, result);
            while written.is_ok()
                && let Some(result) = waiting.remove(&due)
            {
                due += 1;
                match result {
                    Ok(frame) => {
                        done += 1;
                        incomplete += usize::from(frame.faults.incomplete.is_some());
                        damaged += usize::from(frame.faults.damaged.is_some());
                        let path = &photographs[due - 1].path;
                        // Rows of a CSV are of heads, of which there may be none.
                        if format == Format::Csv && !frame.faults.is_empty() {
                            let said = format!("{}: {}", path.display(), frame.faults);
                            bar.suspend(|| eprintln!("callosity: {said}"));
                        }
                        written = writer.write(path, frame);
                    }
                    Err(error) => {
                        let message = format!("{error:#}");
                        bar.suspend(|| eprintln!("callosity: {message}"));
                        failed.push(message);
                    }
                }
                bar.inc(1);
            }
            if written.is_err() {
                // The receiver goes, and with it the workers.
                break;
            }
        }
    });
    bar.finish_and_clear();
    written?;
    writer.finish()?;
    if interrupt::asked() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let counts = [
        (failed.len(), "failed"),
        (incomplete, "incomplete"),
        (damaged, "damaged"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !counts.is_empty() {
        eprintln!(
            "callosity: looked at {done} photographs; {}",
            counts.join(", ")
        );
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}

/// What lies under the paths of the command line.
#[derive(Default)]
struct Collected {
    /// In the order of the command line and by name within a folder.
    photographs: Vec<Photograph>,
    /// In words, what cannot be looked at.
    failed: Vec<String>,
    /// In words, photographs that are of a kind that is not read, for each folder of the command line.
    passed_over: Vec<String>,
    /// How many files and folders are hidden.
    hidden: usize,
}

fn collect(paths: &[PathBuf]) -> Collected {
    let mut collected = Collected::default();
    let mut outputs = HashSet::new();
    for path in paths {
        let mut folder = Folder::default();
        let failures = &mut collected.failed;
        let from = failures.len();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                search(path, &mut folder, failures);
                folder.photographs.sort();
                let said = folder.passed_over();
                if folder.photographs.is_empty() && failures.len() == from {
                    failures.push(format!(
                        "{}: no photographs in this folder (looked for {}, and raw files with a JPEG in them)",
                        path.display(),
                        READ_ENDINGS.join(", ")
                    ));
                }
                let said = said.map(|said| format!("{}: {said}", path.display()));
                collected.passed_over.extend(said);
                collected.hidden += folder.hidden;
            }
            Ok(_) => folder.photographs.push(path.clone()),
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
        for file in folder.photographs {
            let inside = file
                .strip_prefix(path)
                .ok()
                .filter(|p| !p.as_os_str().is_empty());
            let name = inside.map_or_else(
                || PathBuf::from(file.file_name().unwrap_or_default()),
                Path::to_owned,
            );
            let mut output = name.with_extension("");
            // Two photographs of one name must not overwrite each other's pictures.
            for copy in 2.. {
                if outputs.insert(output.clone()) {
                    break;
                }
                let stem = name.file_stem().unwrap_or_default().to_string_lossy();
                output = name.with_file_name(format!("{stem}-{copy}"));
            }
            let photograph = Photograph { path: file, output };
            collected.photographs.push(photograph);
        }
    }
    collected
}

fn search(folder: &Path, found: &mut Folder, failures: &mut Vec<String>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            failures.push(format!("{}: {error}", folder.display()));
            return;
        }
    };
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        let path = entry.path();
        // A link to a folder is not followed: it may lead back up.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(path);
        } else if !path.is_dir() {
            files.push(path);
        }
    }
    found.add(files);
    folders.sort();
    for folder in folders {
        if !found.leaves_hidden(&folder) {
            search(&folder, found, failures);
        }
    }
}

fn look(
    photograph: &Photograph,
    identifier: &Identifier,
    aligned: bool,
    annotate: Option<&Path>,
) -> anyhow::Result<FrameIdentification> {
    let encoded = EncodedPhotograph::open(&photograph.path)?.accepting_incomplete();
    let identified = if aligned {
        identifier.identify_head(&encoded)
    } else {
        identifier.identify_frame(&encoded)
    };
    let frame = identified.map_err(|error| match error {
        // It names the photograph.
        IdentifyError::Decode(error) => anyhow::Error::from(error),
        error => anyhow::Error::from(error).context(photograph.path.display().to_string()),
    })?;
    if let Some(folder) = annotate {
        draw(&encoded, &frame, &folder.join(&photograph.output))?;
    }
    Ok(frame)
}

/// Writes `<output>.annotated.jpg` and a picture of each head, `<output>.head-1.jpg` and so on.
fn draw(
    encoded: &EncodedPhotograph,
    frame: &FrameIdentification,
    output: &Path,
) -> anyhow::Result<()> {
    let crop = HeadCrop::RIGHT_WHALE;
    let heads: Vec<Annotation> = frame.heads.iter().map(Annotation::from).collect();
    let head_scale = |head: &HeadIdentification| {
        // The crop shows this many head lengths in its width.
        let lengths = 1.0 / (crop.bonnet_x - crop.blowhead_x);
        f64::from(HEAD_PICTURE_WIDTH) / (lengths * head.landmarks().head_length())
    };
    let frame_scale = f64::from(annotate::LARGEST_WIDTH) / f64::from(frame.width.max(1));
    let scale = frame
        .heads
        .iter()
        .map(head_scale)
        .fold(frame_scale, f64::max);
    let pixels = encoded.decode(scale.min(1.0))?;

    let name = |end: &str| {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(end);
        output.with_file_name(name)
    };
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let save = |image: &image::RgbImage, path: PathBuf| {
        let failed = || format!("cannot write {}", path.display());
        let bytes = encode_jpeg(image, JPEG_QUALITY).with_context(failed)?;
        fs::write(&path, bytes).with_context(failed)
    };
    save(
        &annotate::annotate_photograph(&pixels, &crop, &heads),
        name(".annotated.jpg"),
    )?;
    for (i, head) in frame.heads.iter().enumerate() {
        let picture = annotate::head_picture(&pixels, &crop, &head.landmarks(), HEAD_PICTURE_WIDTH);
        if let Some(picture) = picture {
            save(&picture, name(&format!(".head-{}.jpg", i + 1)))?;
        }
    }
    Ok(())
}

/// Writes results to standard output as they come.
enum Writer {
    Table {
        out: BufWriter<io::Stdout>,
        top: usize,
    },
    Jsonl {
        out: BufWriter<io::Stdout>,
        top: usize,
    },
    Heads {
        csv: csv::Writer<io::Stdout>,
        top: usize,
    },
    Distribution {
        csv: csv::Writer<io::Stdout>,
        individuals: Vec<String>,
    },
}

impl Writer {
    fn new(
        format: Format,
        distribution: bool,
        top: usize,
        identifier: &Identifier,
    ) -> anyhow::Result<Self> {
        let out = || BufWriter::new(io::stdout());
        Ok(match (format, distribution) {
            (Format::Table, _) => {
                let mut out = out();
                writeln!(
                    out,
                    "{:<40} {:>4}  {:<10} {:>7}  {:<16} {:>7}  other candidates",
                    "photograph", "head", "decision", "unknown", "individual", "prob."
                )?;
                Self::Table { out, top }
            }
            (Format::Jsonl, _) => Self::Jsonl { out: out(), top },
            (Format::Csv, false) => {
                let mut csv = csv::Writer::from_writer(io::stdout());
                csv.write_record([
                    "image",
                    "head",
                    "bonnet_x",
                    "bonnet_y",
                    "blowhead_x",
                    "blowhead_y",
                    "confidence",
                    "decision",
                    "rank",
                    "individual",
                    "probability",
                    "unknown_probability",
                    "share_read",
                    "damaged",
                ])?;
                Self::Heads { csv, top }
            }
            (Format::Csv, true) => {
                let individuals: Vec<String> =
                    identifier.manifest().individuals().cloned().collect();
                let mut csv = csv::Writer::from_writer(io::stdout());
                let columns = individuals.iter().map(String::as_str);
                let last = ["unknown", "share_read", "damaged"];
                csv.write_record(["image"].into_iter().chain(columns).chain(last))?;
                Self::Distribution { csv, individuals }
            }
        })
    }

    fn write(&mut self, path: &Path, mut frame: FrameIdentification) -> anyhow::Result<()> {
        let image = path.display().to_string();
        let share_read = frame.faults.share_read().to_string();
        let damaged = frame.faults.damaged.clone().unwrap_or_default();
        match self {
            Self::Table { out, top } => {
                let faults = if frame.faults.is_empty() {
                    String::new()
                } else {
                    format!("  [{}]", frame.faults)
                };
                if frame.heads.is_empty() {
                    writeln!(out, "{image:<40} {:>4}  no head found{faults}", 0)?;
                }
                for (i, head) in frame.heads.iter().enumerate() {
                    let percent = |p: f32| format!("{:.1} %", 100.0 * p);
                    let best = head.best();
                    let others: Vec<_> = head
                        .candidates
                        .iter()
                        .take(*top)
                        .skip(1)
                        .map(|c| format!("{} {}", c.individual, percent(c.probability)))
                        .collect();
                    writeln!(
                        out,
                        "{image:<40} {:>4}  {:<10} {:>7}  {:<16} {:>7}  {}{faults}",
                        i + 1,
                        head.decision.name(),
                        percent(head.unknown_probability),
                        best.map_or("", |c| c.individual.as_str()),
                        best.map_or_else(String::new, |c| percent(c.probability)),
                        others.join(", ")
                    )?;
                }
                out.flush()?;
            }
            Self::Jsonl { out, top } => {
                frame.keep_top(*top);
                serde_json::to_writer(&mut *out, &FrameReport { image, frame })
                    .map_err(io::Error::from)?;
                writeln!(out)?;
                out.flush()?;
            }
            Self::Heads { csv, top } => {
                for (i, head) in frame.heads.iter().enumerate() {
                    for (rank, candidate) in head.candidates.iter().take(*top).enumerate() {
                        csv.write_record([
                            image.clone(),
                            (i + 1).to_string(),
                            format!("{:.1}", head.bonnet.x),
                            format!("{:.1}", head.bonnet.y),
                            format!("{:.1}", head.blowhead.x),
                            format!("{:.1}", head.blowhead.y),
                            head.confidence.to_string(),
                            head.decision.name().to_owned(),
                            (rank + 1).to_string(),
                            candidate.individual.clone(),
                            candidate.probability.to_string(),
                            head.unknown_probability.to_string(),
                            share_read.clone(),
                            damaged.clone(),
                        ])?;
                    }
                }
            }
            Self::Distribution { csv, individuals } => {
                let values = match frame.heads.first() {
                    // No head is no statement about anybody: the cells stay empty.
                    None => vec![String::new(); individuals.len() + 1],
                    Some(head) => {
                        let known = 1.0 - head.unknown_probability;
                        let probabilities: BTreeMap<&str, f32> = head
                            .candidates
                            .iter()
                            .map(|c| (c.individual.as_str(), c.probability))
                            .collect();
                        individuals
                            .iter()
                            .map(|i| probabilities.get(i.as_str()).map_or(0.0, |p| p * known))
                            .chain([head.unknown_probability])
                            .map(|p| p.to_string())
                            .collect()
                    }
                };
                let last = [share_read, damaged];
                csv.write_record([image].into_iter().chain(values).chain(last))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Table { out, .. } | Self::Jsonl { out, .. } => out.flush()?,
            Self::Heads { csv, .. } | Self::Distribution { csv, .. } => csv.flush()?,
        }
        Ok(())
    }
}
