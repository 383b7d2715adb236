use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callosity::camera::{Camera as _, Replay};
use callosity::outbox::{Kind, Limits, Outbox};
use callosity::rehearsal::{EmbeddedBroker, Score, TrueHead, Truth, landmarks};
use callosity::sighting::{FrameRecord, HeadRecord, Named};
use ground::{Received, Receiver};
use indicatif::ProgressIterator;
use link::message::{Decision, Presence, Sighting, SightingState};
use link::{BrokerAddress, BrokerOptions};
use rayon::prelude::*;
use recognition::annotate::{self, Annotation};
use recognition::bundle::Bundle;
use recognition::geometry::HeadCrop;
use recognition::identify;
use recognition::pixels::{EncodedPhotograph, encode_jpeg};
use recognition::virtual_survey::{Catalogue, RevisitingSurvey};
use uuid::Uuid;

use super::camera::Camera;
use super::identify::DEFAULT_BUNDLE;
use super::{INTERRUPTED, engine, interrupt};

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
/// The same `run` as in an aircraft looks at the frames, joins what it sees to sightings of animals and says them over
/// MQTT; what arrives is printed, drawn into pictures, and compared with the truth, frame by frame and pass by pass. In the middle of the flight it is killed as a loss of
/// power would kill it, and started again: nothing is lost. With --frames it flies over photographs
/// of yours; a `frames.csv` in that folder or beside it (image, whale, bonnet_x, bonnet_y, blowhead_x,
/// blowhead_y, and where it numbers passes over the same animals, pass) is taken as the truth.
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
    /// Let the flight come to its end in one piece, without killing the program in the middle
    #[arg(long)]
    uninterrupted: bool,
    #[command(flatten)]
    engine: engine::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let default_bundle = match args.frames {
        Some(_) => DEFAULT_BUNDLE,
        None => VIRTUAL_BUNDLE,
    };
    let bundle_folder = args.bundle.as_deref().unwrap_or(Path::new(default_bundle));
    let bundle = Bundle::open(bundle_folder)?;
    let catalogue = &bundle.manifest().catalogue.individuals;
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
    let replay = Replay::open(&frames, args.rate, false)?.resuming();
    let state = args.out.join("state");
    match fs::remove_dir_all(&state) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", state.display()));
        }
        _ => {}
    }
    let record = args.out.join("frames.jsonl");
    fs::write(&record, "").with_context(|| format!("cannot write {}", record.display()))?;
    let broker = EmbeddedBroker::start()?;
    println!(
        "{} frames at {} a second; {}; broker {}",
        replay.len(),
        args.rate,
        bundle.manifest().name,
        broker.address()
    );
    let paths = Paths {
        frames: &frames,
        bundle: bundle_folder,
        state: &state,
        record: &record,
    };
    let program = || program(&args, &paths, &broker.address());
    let kill_at = (!args.uninterrupted).then(|| replay.len() as u64 / 2);
    let flown = watch(program, &broker.address(), kill_at)?;
    let records = read_records(&record)?;
    draw_all(&records, &flown.sightings, &frames, &pictures);

    let outbox = Outbox::open(&state, Limits::default())?;
    let bookmark = replay.bookmark().and_then(|name| outbox.bookmark(&name));
    println!();
    println!(
        "{} frames: {} looked at; {} sightings; {} messages on them decided, {} arrived, {} left in the outbox; \
         pictures in {}",
        replay.len(),
        bookmark.as_deref().unwrap_or("0"),
        flown.sightings.len(),
        outbox.ever_stored(Kind::Sighting),
        flown.arrived,
        outbox.depth().sightings,
        pictures.display()
    );
    match truth {
        Some(truth) => {
            let known = catalogue.iter().cloned().collect();
            if args.frames.is_none() {
                println!("camera: {} ({})", args.camera, args.camera.condition());
            }
            let finally = flown.sightings.iter().map(|(id, s)| (*id, Named::from(s)));
            let finally = finally.collect();
            println!("{}", Score::new(&truth, &records, &finally, &known));
        }
        None => summary(&flown.sightings),
    }
    if flown.interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let code = flown.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(super::FAILED)))
}

/// What `callosity run` reads and writes.
struct Paths<'a> {
    frames: &'a Path,
    bundle: &'a Path,
    state: &'a Path,
    record: &'a Path,
}

/// `callosity run` over the frames.
fn program(args: &Args, paths: &Paths, broker: &BrokerAddress) -> anyhow::Result<Child> {
    let this = std::env::current_exe().context("cannot find this program to start it again")?;
    Command::new(this)
        .args([
            "run",
            "--platform",
            "demo",
            "--resume",
            "--health-interval",
            "1",
        ])
        .args(["--rate", &args.rate.to_string()])
        .args(["--broker", &broker.to_string()])
        .arg("--source")
        .arg(paths.frames)
        .arg("--bundle")
        .arg(paths.bundle)
        .arg("--state")
        .arg(paths.state)
        .arg("--record")
        .arg(paths.record)
        .args(args.engine.to_arguments())
        .env(
            "CALLOSITY_LOG",
            std::env::var("CALLOSITY_LOG").unwrap_or_else(|_| "error".to_owned()),
        )
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start callosity run")
}

/// What was seen of a flight from the ground.
struct Flown {
    /// As each was told last.
    sightings: BTreeMap<Uuid, Sighting>,
    /// Messages on them.
    arrived: usize,
    /// Of the last process.
    status: ExitStatus,
    /// Whether somebody asked for an end.
    interrupted: bool,
}

/// Starts the program and hears the flight to its end. Once about `kill_at` frames were looked at, the
/// program is killed and started again.
fn watch(
    program: impl Fn() -> anyhow::Result<Child>,
    broker: &BrokerAddress,
    mut kill_at: Option<u64>,
) -> anyhow::Result<Flown> {
    let stop = interrupt::install()?;
    let heard = listen(BrokerOptions::new(broker.clone(), None, None)?)?;
    println!(
        "{:<8}  {:<22} {:<7} {:>6}  {:<14} {:>7}  decision",
        "sighting", "best frame", "state", "frames", "whale", "prob."
    );
    let mut flying = Flying(program()?);
    let mut sightings: BTreeMap<Uuid, Sighting> = BTreeMap::new();
    // In the order in which they began.
    let mut numbers: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut arrived = 0;
    let mut asked = false;
    let status = loop {
        if stop.is_cancelled() && !asked {
            asked = true;
            flying.ask_to_stop();
        }
        let mut frame = None;
        match heard.recv_timeout(Duration::from_millis(100)) {
            Ok(Received::Sighting(sighting)) => {
                frame = Some(sighting.frame.number);
                arrived += 1;
                let next = numbers.len() + 1;
                let number = numbers.entry(sighting.occurrence_id).or_insert(next);
                print_sighting(*number, &sighting);
                let told = sightings.get(&sighting.occurrence_id);
                if told.is_none_or(|told| told.revision < sighting.revision) {
                    sightings.insert(sighting.occurrence_id, *sighting);
                }
            }
            Ok(Received::Health(health)) => frame = health.frames.captured.checked_sub(1),
            Ok(Received::Status(status)) if status.status == Presence::Stopped => {
                break flying.0.wait().context("callosity run does not end")?;
            }
            Ok(Received::Malformed { topic, reason }) => eprintln!("callosity: {topic}: {reason}"),
            Ok(
                Received::Status(_)
                | Received::Crop { .. }
                | Received::Track(_)
                | Received::Effort(_),
            ) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(status) = flying.0.try_wait()? {
                    if status.success() || asked {
                        break status;
                    }
                    bail!("callosity run ended before its flight did: {status}");
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the ground station ended"),
        }
        if let (Some(frame), Some(at)) = (frame, kill_at)
            && frame >= at
            && !asked
        {
            kill_at = None;
            flying.0.kill().context("cannot kill callosity run")?;
            flying.0.wait()?;
            println!("--- killed (kill -9) in the middle of its work, and started again ---");
            flying = Flying(program()?);
        }
    };
    Ok(Flown {
        sightings,
        arrived,
        status,
        interrupted: stop.is_cancelled(),
    })
}

/// A process that does not outlive this one.
struct Flying(Child);

impl Flying {
    /// As `kill -TERM` does.
    fn ask_to_stop(&self) {
        let pid = self.0.id().to_string();
        if let Err(e) = Command::new("kill").args(["-TERM", &pid]).status() {
            eprintln!("callosity: cannot ask callosity run to stop: {e}");
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Subscribes, and from then on hears everything.
fn listen(broker: BrokerOptions) -> anyhow::Result<mpsc::Receiver<Received>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the ground station")?;
    let (say, heard) = mpsc::channel();
    let mut receiver = runtime.block_on(Receiver::connect(broker, "callosity-demo-ground"))?;
    thread::spawn(move || {
        runtime.block_on(async { while say.send(receiver.next().await).is_ok() {} });
    });
    Ok(heard)
}

/// What was seen in each frame. A frame that was looked at again, since the program was killed over it, counts once.
fn read_records(path: &Path) -> anyhow::Result<Vec<FrameRecord>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // A line that was not written to its end belongs to such a frame.
    let records = text.lines().filter_map(|line| {
        let record: FrameRecord = serde_json::from_str(line).ok()?;
        Some((record.frame.number, record))
    });
    Ok(records.collect::<BTreeMap<_, _>>().into_values().collect())
}

/// Draws each frame's heads with the names that their sightings have in the end.
fn draw_all(
    records: &[FrameRecord],
    sightings: &BTreeMap<Uuid, Sighting>,
    frames: &Path,
    pictures: &Path,
) {
    records.par_iter().for_each(|record| {
        let Some(file) = record
            .frame
            .file
            .as_ref()
            .filter(|_| !record.heads.is_empty())
        else {
            return;
        };
        let picture = pictures.join(Path::new(file).with_extension("jpg"));
        let drawn = draw(
            &frames.join(file),
            record,
            sightings,
            &HeadCrop::RIGHT_WHALE,
            &picture,
        );
        if let Err(e) = drawn {
            eprintln!("callosity: no picture of {file}: {e:#}");
        }
    });
}

/// What an animal is called: its provisional name, or the individual that is likest.
fn called(sighting: &Sighting) -> &str {
    let likest = sighting.candidates.first().map(|c| c.organism_id.as_str());
    sighting.provisional_id.as_deref().or(likest).unwrap_or("-")
}

fn print_sighting(number: usize, sighting: &Sighting) {
    let best = sighting.candidates.first();
    let best = best.filter(|_| sighting.provisional_id.is_none());
    println!(
        "{:<8}  {:<22} {:<7} {:>6}  {:<14} {:>7}  {}",
        number,
        sighting.frame.file.as_deref().unwrap_or("-"),
        match sighting.state {
            SightingState::New => "new",
            SightingState::Update => "update",
            SightingState::End => "end",
            SightingState::Other => "other",
        },
        sighting.frames_seen.unwrap_or(1),
        called(sighting),
        best.map_or_else(String::new, |c| format!("{:.1} %", 100.0 * c.probability)),
        name(sighting.decision),
    );
}

fn name(decision: Decision) -> &'static str {
    match decision {
        Decision::Identified => "identified",
        Decision::Uncertain => "uncertain",
        Decision::Unknown => "unknown",
        Decision::Other => "other",
    }
}

fn draw(
    frame: &Path,
    record: &FrameRecord,
    sightings: &BTreeMap<Uuid, Sighting>,
    crop: &HeadCrop,
    picture: &Path,
) -> anyhow::Result<()> {
    let encoded = EncodedPhotograph::open(frame)?.accepting_incomplete();
    let scale = f64::from(annotate::LARGEST_WIDTH) / f64::from(encoded.size().0.max(1));
    let photograph = encoded.decode(scale.min(1.0))?;
    let annotation = |head: &HeadRecord| {
        let sighting = sightings.get(&head.occurrence_id)?;
        let probability = sighting.candidates.first().map_or(0.0, |c| c.probability);
        Some(Annotation {
            landmarks: landmarks(&head.head),
            label: match sighting.decision {
                Decision::Unknown => called(sighting).to_owned(),
                _ => format!("{}  {:.0} %", called(sighting), 100.0 * probability),
            },
            decision: match sighting.decision {
                Decision::Identified => identify::Decision::Identified,
                Decision::Uncertain | Decision::Other => identify::Decision::Uncertain,
                Decision::Unknown => identify::Decision::Unknown,
            },
        })
    };
    let heads: Vec<_> = record.heads.iter().filter_map(annotation).collect();
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
    let plans = RevisitingSurvey::new(&population, args.seed).take(args.count as usize);
    eprintln!("drawing {} frames", args.count);
    for plan in plans.progress_count(args.count.into()) {
        let frame = plan.photograph(&population, FRAME.0, FRAME.1, &camera)?;
        let file = format!("{FRAME_NAME}{:04}.jpg", frame.number);
        let path = folder.join(&file);
        fs::write(&path, encode_jpeg(&frame.image, JPEG_QUALITY)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let pass = frame.pass.unwrap_or_default();
        let heads = frame.heads.into_iter().map(|h| TrueHead {
            individual: h.individual,
            landmarks: h.landmarks,
            pass,
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
fn summary(sightings: &BTreeMap<Uuid, Sighting>) {
    let mut decisions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut individuals: BTreeMap<&str, usize> = BTreeMap::new();
    for sighting in sightings.values() {
        *decisions.entry(name(sighting.decision)).or_default() += 1;
        let provisional = sighting.provisional_id.as_ref();
        if let Some(individual) = sighting.organism_id.as_ref().or(provisional) {
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
