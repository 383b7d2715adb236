use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ::ground::web::Access;
use ::ground::{Commands, Listener, Received};
use anyhow::{Context, bail, ensure};
use callosity::archive::{Store, Worth};
use callosity::camera::{Camera as _, Replay};
use callosity::outbox::{Kind, Limits, Outbox};
use callosity::rehearsal::{
    Score, TrueHead, Truth, VirtualGround, VirtualReceiver, draw_photographs, landmarks, mounting,
};
use callosity::settings::{self, CameraSettings, Settings};
use callosity::sighting::{FrameRecord, HeadRecord, Named};
use indicatif::ProgressIterator;
use jiff::Timestamp;
use link::BrokerAddress;
use link::message::{
    Command as MessageCommand, Decision, Effort, EffortReason, Health, Place, Presence, Sighting,
    SightingState, Watch,
};
use rayon::prelude::*;
use recognition::annotate::{self, Annotation};
use recognition::bundle::Bundle;
use recognition::geometry::HeadCrop;
use recognition::identify;
use recognition::pixels::{EncodedPhotograph, encode_jpeg};
use recognition::virtual_survey::{
    Catalogue, FlightPath, FlownFrame, SurveyCamera, VirtualFlight, VirtualHead,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::camera::Camera;
use super::ground::{self, Ground, Heard, Kept};
use super::{INTERRUPTED, engine, interrupt};

const VIRTUAL_BUNDLE: &str = "models/virtual-survey";

/// Seed of the population whose known individuals `models/virtual-survey` was trained on.
const POPULATION: u64 = 1;

/// Whales in the virtual sea that no bundle knows.
const STRANGERS: usize = 6;

/// Size of virtual frames in pixels.
const FRAME: (u32, u32) = (3072, 2048);

/// Folder of virtual frames, with one for each camera.
const FRAMES: &str = "virtual-frames";

/// The virtual cameras.
const CAMERAS: [SurveyCamera; 2] = [SurveyCamera::BELLY, SurveyCamera::WINDOW];

/// The one that is unplugged for a while.
const UNPLUGGED: &str = SurveyCamera::WINDOW.name;

/// Frames a second of each camera, by default: virtual cameras, and a folder of photographs.
const RATES: (f64, f64) = (2.0, 1.0);

/// Time from starting the program to the flight's first frame: in it the program loads its networks.
const UNTIL_FLIGHT: Duration = Duration::from_secs(4);

/// Frames that are drawn at once.
const DRAWN_AT_ONCE: usize = 4;

/// File with what the program flies with.
const SETTINGS: &str = "callosity.toml";

/// What the aircraft is called.
const PLATFORM: &str = "demo";

/// What the names of virtual frames begin with.
const FRAME_NAME: &str = "virtual-frame-";

/// Folder of the archive, below that of the demo's output.
const ARCHIVE: &str = "archive";

const JPEG_QUALITY: u8 = 90;

/// Of latitude, nearly.
const METERS_IN_A_DEGREE: f64 = 111_120.0;

/// Fly a virtual survey on this machine, with a ground station of its own.
///
/// The same `run` as in an aircraft looks at the frames of two cameras, joins what it sees to sightings of animals, gives
/// them the places that a virtual receiver tells, and says them over MQTT; the ground sets the watch and a mark. One virtual
/// aircraft flies over and circles groups of whales, with a camera in its belly and one in its left window. What
/// arrives is printed, drawn into pictures, and compared with the truth, frame by frame and pass by pass. One camera is
/// unplugged for a while. In the middle of the flight the program is killed as a loss of power would kill it, and started
/// again: nothing is lost. Frames with whales, crops and some empty frames are kept in an archive. With --frames it flies
/// with one camera over photographs of yours; a `frames.csv` in that folder or beside it (image, whale, bonnet_x, bonnet_y,
/// blowhead_x, blowhead_y, and where it numbers passes over the same animals, pass) is taken as the truth.
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
    /// Frames a second of each camera [default: 2, with --frames 1]
    #[arg(long, value_name = "HZ")]
    rate: Option<f64>,
    /// Virtual frames of all cameras together
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// The same seed gives the same flight
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// What the cameras are like that take the virtual frames
    #[arg(long, value_enum, default_value_t = Camera::AsIs, conflicts_with = "frames")]
    camera: Camera,
    /// Let the flight come to its end in one piece, without killing the program in the middle
    #[arg(long)]
    uninterrupted: bool,
    /// Store what arrives in a ground station too, whose page stays open until Ctrl-C
    #[arg(long)]
    ground: bool,
    #[command(flatten)]
    engine: engine::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let bundle_folder = args.bundle.clone().unwrap_or_else(|| match args.frames {
        Some(_) => settings::default_bundle(),
        None => VIRTUAL_BUNDLE.into(),
    });
    let bundle_folder = bundle_folder.as_path();
    let bundle = Bundle::open(bundle_folder)?;
    let catalogue = &bundle.manifest().catalogue.individuals;
    let pictures = args.out.join("annotated");
    fs::create_dir_all(&pictures)
        .with_context(|| format!("cannot make the folder {}", pictures.display()))?;
    let state = args.out.join("state");
    match fs::remove_dir_all(&state) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", state.display()));
        }
        _ => {}
    }
    let record = args.out.join("frames.jsonl");
    fs::write(&record, "").with_context(|| format!("cannot write {}", record.display()))?;
    let rate = args.rate.unwrap_or(match args.frames {
        None => RATES.0,
        Some(_) => RATES.1,
    });
    ensure!(
        (0.01..=100.0).contains(&rate),
        "--rate {rate}: it is 0.01 to 100"
    );
    let (cameras, truth, drawn) = match &args.frames {
        Some(frames) => (vec![DemoCamera::over(frames)?], read_truth(frames)?, None),
        None => {
            let (cameras, truth, drawn) = draw_survey(catalogue, rate, &args)?;
            (cameras, Some(truth), Some(drawn))
        }
    };
    let frames: u64 = cameras.iter().map(|camera| camera.frames).sum();
    let (page, heard) = if args.ground {
        let (page, heard) = open_page(&args, catalogue)?;
        (Some(page), heard)
    } else {
        let heard = VirtualGround::start().context("cannot start a ground station")?;
        (None, heard)
    };
    println!(
        "{frames} frames of {}, {} a second each; {}; the ground listens at {}",
        in_words(cameras.iter().map(|camera| camera.name.as_str())),
        rate,
        bundle.manifest().name,
        heard.address()
    );
    if let Some(page) = &page {
        println!("the ground station's page: {}", page.address);
    }
    let begins = Timestamp::now() + UNTIL_FLIGHT;
    let receiver = drawn
        .as_ref()
        .map(|drawn| VirtualReceiver::start(drawn.path.clone(), begins));
    let flight = Program {
        bundle: std::path::absolute(bundle_folder)?,
        ground: heard.address(),
        receiver: receiver
            .transpose()
            .context("cannot start a virtual receiver")?,
        begins,
        rate,
        cameras: &cameras,
        args: &args,
    };
    flight.write_settings()?;
    let most = cameras.iter().map(|camera| camera.frames).max();
    let kill_at = most.filter(|_| !args.uninterrupted).map(|most| most / 2);
    let flown = watch(&flight, &heard, kill_at)?;
    let records = read_records(&record)?;
    draw_all(&records, &flown.sightings, &cameras, &pictures);

    let outbox = Outbox::open(&state, Limits::default())?;
    let looked_at = cameras.iter().map(|camera| camera.looked_at(&outbox));
    println!();
    println!(
        "{frames} frames: {} looked at; {} sightings; {} messages on them decided, {} arrived, {} left in the outbox; \
         pictures in {}",
        looked_at.sum::<u64>(),
        flown.sightings.len(),
        outbox.ever_stored(Kind::Sighting),
        flown.arrived,
        outbox.depth().sightings,
        pictures.display()
    );
    let archive = Store::open_existing(&args.out.join(ARCHIVE))?;
    println!(
        "{} frames with a whale, {} without and {} crops, of this flight and earlier ones, in {}",
        archive.total(Worth::Whale)?.pictures,
        archive.total(Worth::Empty)?.pictures,
        archive.total(Worth::Crop)?.pictures,
        args.out.join(ARCHIVE).display()
    );
    if let Some(drawn) = &drawn {
        println!(
            "{} positions of the aircraft and {} messages on effort arrived",
            flown.tracks, flown.efforts
        );
        println!("{}", drawn.compare_places(&flown.sightings));
    }
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
    if let Some(page) = page {
        page.stay()?;
    }
    let code = flown.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(super::FAILED)))
}

/// A ground station with its page.
struct Page {
    address: String,
    serving: thread::JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Page {
    /// Until somebody asks for an end.
    fn stay(self) -> anyhow::Result<()> {
        println!("\nthe page stays open until Ctrl-C: {}", self.address);
        while !self.stop.is_cancelled() && !self.serving.is_finished() {
            thread::sleep(Duration::from_millis(100));
        }
        let served = self.serving.join();
        served.unwrap_or_else(|_| bail!("the ground station panicked"))
    }
}

/// Begins a ground station that shows what it stores to whoever sits at this machine. Of known virtual whales it has
/// reference photographs.
fn open_page(args: &Args, catalogue: &[String]) -> anyhow::Result<(Page, VirtualGround)> {
    let data = args.out.join("ground");
    match fs::remove_dir_all(&data) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", data.display()));
        }
        _ => {}
    }
    let photographs = match args.frames {
        None => {
            let folder = args.out.join("catalogue");
            let population = Catalogue::new(POPULATION, catalogue.len(), 0);
            draw_photographs(&folder, population.individuals())?;
            Some(folder)
        }
        Some(_) => None,
    };
    let stop = interrupt::install()?;
    let runtime = ground::runtime()?;
    let mut aircraft = runtime
        .block_on(Listener::start((Ipv4Addr::LOCALHOST, 0).into()))
        .context("cannot start a ground station")?;
    let heard = VirtualGround::beside(&mut aircraft);
    let station = Ground {
        heard: Heard::Aircraft(aircraft),
        kept: Kept::in_folder(data),
        catalogue: photographs,
        access: Access::ThisMachine,
    };
    let (opened, listener) = runtime.block_on(async {
        let opened = station.open().await?;
        // Where another program has the usual port.
        let listener = match TcpListener::bind(ground::PAGE).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((ground::PAGE.ip(), 0)).await?,
        };
        anyhow::Ok((opened, listener))
    })?;
    let address = ground::address_of(&listener)?;
    let until = stop.clone();
    let serving = thread::spawn(move || runtime.block_on(station.serve(opened, listener, &until)));
    let page = Page {
        address,
        serving,
        stop,
    };
    Ok((page, heard))
}

/// A camera of the flight.
struct DemoCamera {
    name: String,
    folder: PathBuf,
    /// How many it would take.
    frames: u64,
    /// Numbers of those that it does not take, since it is unplugged.
    unplugged: Range<u64>,
    bookmark: Option<String>,
}

impl DemoCamera {
    /// One that replays a folder.
    fn over(folder: &Path) -> anyhow::Result<Self> {
        let replay = Replay::open(folder, 1.0, false)?.resuming();
        Ok(Self {
            name: replay.name().to_owned(),
            folder: folder.to_owned(),
            frames: replay.len() as u64,
            unplugged: 0..0,
            bookmark: replay.bookmark(),
        })
    }

    fn looked_at(&self, outbox: &Outbox) -> u64 {
        let next = self.bookmark.as_ref().and_then(|b| outbox.bookmark(b));
        let next = next.and_then(|next| next.parse().ok()).unwrap_or(0);
        let unplugged = self.unplugged.end.min(next) - self.unplugged.start.min(next);
        next - unplugged
    }
}

/// How `callosity run` is started.
struct Program<'a> {
    bundle: PathBuf,
    /// Where it sends.
    ground: BrokerAddress,
    /// Tells the positions, where the flight is virtual.
    receiver: Option<VirtualReceiver>,
    /// When a virtual flight begins.
    begins: Timestamp,
    rate: f64,
    cameras: &'a [DemoCamera],
    args: &'a Args,
}

impl Program<'_> {
    /// Writes what the program flies with, as an engineer would for a box.
    fn write_settings(&self) -> anyhow::Result<()> {
        let camera = |camera: &DemoCamera| {
            let folder = std::path::absolute(&camera.folder)?;
            let last = camera.unplugged.clone().last();
            let virtual_camera = CAMERAS.iter().find(|virtual_| virtual_.name == camera.name);
            let virtual_camera = virtual_camera.filter(|_| self.receiver.is_some());
            let settings = CameraSettings {
                source: format!("replay:{}", folder.display()),
                rate: Some(self.rate),
                resume: true,
                unplugged: last.map(|last| format!("{}-{last}", camera.unplugged.start)),
                begun: virtual_camera.map(|_| self.begins.to_string()),
                mounting: virtual_camera.map(mounting),
                ..CameraSettings::default()
            };
            anyhow::Ok((camera.name.clone(), settings))
        };
        let settings = Settings {
            platform: PLATFORM.to_owned(),
            bundle: self.bundle.clone(),
            state: Some("state".into()),
            record: Some("frames.jsonl".into()),
            camera: self
                .cameras
                .iter()
                .map(camera)
                .collect::<anyhow::Result<_>>()?,
            broker: settings::Broker {
                url: self.ground.to_string(),
                health_interval_seconds: 1,
                ..settings::Broker::default()
            },
            archive: settings::Archive {
                folder: Some(ARCHIVE.into()),
                budget: Some("1GB".to_owned()),
                ..settings::Archive::default()
            },
            position: settings::Position {
                gpsd: self.receiver.as_ref().map(VirtualReceiver::address),
                track_interval_seconds: 1,
            },
            survey: match &self.receiver {
                Some(_) => settings::SurveySettings {
                    observers: vec!["nobody".to_owned()],
                    project: Some("virtual survey".to_owned()),
                    aircraft: None,
                    commands: true,
                },
                None => settings::SurveySettings::default(),
            },
            ..Settings::default()
        };
        let path = self.args.out.join(SETTINGS);
        let text = toml::to_string(&settings).context("cannot write the settings down")?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn start(&self) -> anyhow::Result<Flying> {
        let this = std::env::current_exe().context("cannot find this program to start it again")?;
        let log = std::env::var("CALLOSITY_LOG").unwrap_or_else(|_| "error".to_owned());
        let mut command = Command::new(this);
        command
            .args(["run", "--settings", SETTINGS])
            .args(self.args.engine.to_arguments())
            // What is named without a folder lies there.
            .current_dir(&self.args.out)
            .env("CALLOSITY_LOG", log)
            .stdin(Stdio::null());
        Ok(Flying(
            command.spawn().context("cannot start callosity run")?,
        ))
    }
}

/// What was seen of a flight from the ground.
struct Flown {
    /// As each was told last.
    sightings: BTreeMap<Uuid, Sighting>,
    /// Messages on them.
    arrived: usize,
    /// Messages on where the aircraft was.
    tracks: usize,
    /// Messages on how the survey was flown.
    efforts: usize,
    /// Of the last process.
    status: ExitStatus,
    /// Whether somebody asked for an end.
    interrupted: bool,
}

/// Starts the program and hears the flight to its end. Once a camera has given `kill_at` frames, the program is killed and
/// started again.
fn watch(
    program: &Program,
    ground: &VirtualGround,
    mut kill_at: Option<u64>,
) -> anyhow::Result<Flown> {
    let stop = interrupt::install()?;
    println!(
        "{:<8}  {:<6}  {:<22} {:<7} {:>6}  {:<14} {:>7}  {:<11} place",
        "sighting", "camera", "best frame", "state", "frames", "whale", "prob.", "decision"
    );
    let mut flying = program.start()?;
    let mut told = Told::default();
    let receiver = program.receiver.as_ref();
    let mut observer = receiver.map(|_| Observer::new(ground.commands().clone()));
    let mut asked = false;
    let status = loop {
        if stop.is_cancelled() && !asked {
            asked = true;
            flying.ask_to_stop();
        }
        let mut frame = None;
        match ground.heard().recv_timeout(Duration::from_millis(100)) {
            Ok(Received::Status(status)) if status.status == Presence::Stopped => {
                break flying.0.wait().context("callosity run does not end")?;
            }
            Ok(received) => {
                if let (Received::Effort(effort), Some(observer)) = (&received, &mut observer) {
                    observer.hear(effort);
                }
                frame = told.take(received);
            }
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
        if let (Some(frame), Some(observer)) = (frame, &mut observer) {
            observer.see(frame)?;
        }
        if let (Some(frame), Some(at)) = (frame, kill_at)
            && frame >= at
            && !asked
        {
            kill_at = None;
            flying.0.kill().context("cannot kill callosity run")?;
            flying.0.wait()?;
            println!("--- killed (kill -9) in the middle of its work, and started again ---");
            flying = program.start()?;
        }
    };
    Ok(Flown {
        sightings: told.sightings,
        arrived: told.arrived,
        tracks: told.tracks,
        efforts: told.efforts,
        status,
        interrupted: stop.is_cancelled(),
    })
}

/// What arrived so far; it is printed as it comes.
#[derive(Default)]
struct Told {
    sightings: BTreeMap<Uuid, Sighting>,
    /// In the order in which they began.
    numbers: BTreeMap<Uuid, usize>,
    /// Messages come at least once.
    heard: BTreeSet<(Uuid, u32)>,
    arrived: usize,
    tracks: usize,
    efforts: usize,
    /// What is wrong, by part.
    problems: BTreeMap<String, String>,
}

impl Told {
    /// Returns about how many frames a camera has given.
    fn take(&mut self, received: Received) -> Option<u64> {
        match received {
            Received::Sighting(sighting) => {
                let frame = sighting.frame.number;
                if !self
                    .heard
                    .insert((sighting.occurrence_id, sighting.revision))
                {
                    return Some(frame);
                }
                self.arrived += 1;
                let next = self.numbers.len() + 1;
                let number = self.numbers.entry(sighting.occurrence_id).or_insert(next);
                print_sighting(*number, &sighting);
                let told = self.sightings.get(&sighting.occurrence_id);
                if told.is_none_or(|told| told.revision < sighting.revision) {
                    self.sightings.insert(sighting.occurrence_id, *sighting);
                }
                Some(frame)
            }
            Received::Health(health) => {
                self.print_problems(&health);
                let captured = health.cameras.iter().map(|camera| camera.captured);
                Some(captured.max().unwrap_or(health.frames.captured))
            }
            Received::Effort(effort) => {
                if self.heard.insert((effort.event_id, effort.revision)) {
                    self.efforts += 1;
                    print_effort(&effort);
                }
                None
            }
            Received::Track(_) => {
                self.tracks += 1;
                None
            }
            Received::Malformed { topic, reason } => {
                eprintln!("callosity: {topic}: {reason}");
                None
            }
            Received::Status(_) | Received::Crop { .. } => None,
        }
    }

    /// Tells of cameras that fail and come back, and of commands that cannot be done.
    fn print_problems(&mut self, health: &Health) {
        let shown = |part: &str| part.starts_with("camera ") || part == "command";
        let problems = health.problems.iter();
        let now: BTreeMap<_, _> = problems
            .filter(|problem| shown(&problem.part))
            .map(|problem| (problem.part.clone(), problem.reason.clone()))
            .collect();
        for (part, reason) in &now {
            if !self.problems.contains_key(part) {
                println!("--- {part}: {reason} ---");
            }
        }
        let ended = self.problems.keys();
        for part in ended.filter(|part| !now.contains_key(*part)) {
            println!("--- {part}: is well again ---");
        }
        self.problems = now;
    }
}

/// Who tells the aircraft, from the ground, how the survey is flown.
struct Observer {
    commands: Commands,
    /// What is to be said, with the number of the frame at which and the reason of the answer. It is said again until it is
    /// answered: an aircraft that has just connected does not listen yet, and does what it hears twice only once.
    due: VecDeque<(u64, MessageCommand, EffortReason)>,
    said: Option<Instant>,
}

/// Time in which an aircraft answers a command.
const ANSWERED_AFTER: Duration = Duration::from_secs(1);

impl Observer {
    fn new(commands: Commands) -> Self {
        let command = |effort, mark| MessageCommand {
            command_id: Uuid::now_v7(),
            effort,
            mark,
        };
        let effort = json!({"watch": "online", "beaufort": 2, "visibilityKilometers": 15});
        let mark = json!({"scientificName": "Caretta caretta", "individualCount": 1});
        let due = [
            (0, command(Some(effort), None), EffortReason::Change),
            (5, command(None, Some(mark)), EffortReason::Mark),
        ];
        Self {
            commands,
            due: due.into(),
            said: None,
        }
    }

    /// A camera has given so many frames.
    fn see(&mut self, frame: u64) -> anyhow::Result<()> {
        let waits = self
            .said
            .is_some_and(|said| said.elapsed() < ANSWERED_AFTER);
        if let Some((at, command, _)) = self.due.front()
            && *at <= frame
            && !waits
        {
            self.commands.send(&PLATFORM.parse()?, command)?;
            self.said = Some(Instant::now());
        }
        Ok(())
    }

    fn hear(&mut self, effort: &Effort) {
        if self
            .due
            .front()
            .is_some_and(|(_, _, answer)| *answer == effort.reason)
        {
            self.due.pop_front();
            self.said = None;
        }
    }
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

/// What was seen in each frame. A frame that was looked at again, since the program was killed over it, counts once.
fn read_records(path: &Path) -> anyhow::Result<Vec<FrameRecord>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // A line that was not written to its end belongs to such a frame.
    let records = text.lines().filter_map(|line| {
        let record: FrameRecord = serde_json::from_str(line).ok()?;
        Some(((record.camera.clone(), record.frame.number), record))
    });
    let records: BTreeMap<_, _> = records.collect();
    let mut records: Vec<_> = records.into_values().collect();
    records.sort_by_key(|record| record.time);
    Ok(records)
}

/// Draws each frame's heads with the names that their sightings have in the end.
fn draw_all(
    records: &[FrameRecord],
    sightings: &BTreeMap<Uuid, Sighting>,
    cameras: &[DemoCamera],
    pictures: &Path,
) {
    records.par_iter().for_each(|record| {
        let file = record.frame.file.as_ref();
        let camera = cameras.iter().find(|camera| camera.name == record.camera);
        let (Some(file), Some(camera), false) = (file, camera, record.heads.is_empty()) else {
            return;
        };
        let picture = pictures.join(Path::new(file).with_extension("jpg"));
        let drawn = draw(
            &camera.folder.join(file),
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
        "{:<8}  {:<6}  {:<22} {:<7} {:>6}  {:<14} {:>7}  {:<11} {}",
        number,
        sighting.camera.as_deref().unwrap_or("-"),
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
        sighting
            .georeference
            .place
            .as_ref()
            .map_or_else(|| "-".to_owned(), in_degrees),
    );
}

fn in_degrees(place: &Place) -> String {
    let (latitude, longitude) = (place.decimal_latitude, place.decimal_longitude);
    format!(
        "{:.4}° {} {:.4}° {} ± {:.0} m",
        latitude.abs(),
        if latitude < 0.0 { "S" } else { "N" },
        longitude.abs(),
        if longitude < 0.0 { "W" } else { "E" },
        place.coordinate_uncertainty_in_meters,
    )
}

fn print_effort(effort: &Effort) {
    let watch = match effort.watch {
        Watch::Off => "off watch",
        Watch::Transit => "in transit",
        Watch::OnLine => "on line",
        Watch::Circling => "circling",
        Watch::Other => "other",
    };
    let beaufort = effort.weather.beaufort;
    let weather = beaufort.map_or_else(String::new, |n| format!(", Beaufort {n}"));
    let place = effort.place.as_ref().map(in_degrees);
    let place = place.map_or_else(String::new, |place| format!(", {place}"));
    let what = match (&effort.reason, &effort.mark) {
        (EffortReason::Begin, _) => "begins".to_owned(),
        (EffortReason::End, _) => "ends".to_owned(),
        (EffortReason::Mark, Some(mark)) => {
            let what = mark.scientific_name.as_deref().unwrap_or("something");
            let count = mark.individual_count.unwrap_or(1);
            format!("marks {count} {what}")
        }
        _ => "goes on".to_owned(),
    };
    println!("--- the survey {what}: {watch}{weather}{place} ---");
}

fn in_words<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" and ")
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

/// A virtual flight that was drawn.
struct Drawn {
    path: FlightPath,
    /// By file.
    heads: BTreeMap<String, Vec<VirtualHead>>,
}

impl Drawn {
    /// How far the places that sightings have are from where the animals were.
    fn compare_places(&self, sightings: &BTreeMap<Uuid, Sighting>) -> String {
        let mut off: Vec<f64> = Vec::new();
        let mut within = 0;
        for sighting in sightings.values() {
            let heads = sighting.frame.file.as_ref().and_then(|f| self.heads.get(f));
            let seen = landmarks(&sighting.head).centre();
            let own = heads.into_iter().flatten().find(|head| {
                seen.distance(head.landmarks.centre()) < 0.5 * head.landmarks.head_length()
            });
            let (Some(told), Some(truth)) = (
                &sighting.georeference.place,
                own.and_then(|head| head.place),
            ) else {
                continue;
            };
            let north = METERS_IN_A_DEGREE * (told.decimal_latitude - truth.latitude);
            let east = METERS_IN_A_DEGREE
                * truth.latitude.to_radians().cos()
                * (told.decimal_longitude - truth.longitude);
            let away = north.hypot(east);
            within += usize::from(away <= told.coordinate_uncertainty_in_meters);
            off.push(away);
        }
        off.sort_by(f64::total_cmp);
        let median = off.get(off.len() / 2).copied().unwrap_or(f64::NAN);
        format!(
            "places: {within} of {} animals were within the uncertainty that was told, half of them within {median:.1} m",
            off.len()
        )
    }
}

/// Draws a flight into folders, in place of what an earlier demo left there.
fn draw_survey(
    catalogue: &[String],
    rate: f64,
    args: &Args,
) -> anyhow::Result<(Vec<DemoCamera>, Truth, Drawn)> {
    let population = Catalogue::new(POPULATION, catalogue.len(), STRANGERS);
    ensure!(
        population.names() == catalogue,
        "this bundle does not know the whales of the virtual survey (it knows {} others): \
         name photographs with --frames, or another bundle",
        catalogue.len()
    );
    let folders = CAMERAS.map(|camera| args.out.join(FRAMES).join(camera.name));
    for folder in &folders {
        empty_folder(folder)?;
    }
    let condition = args.camera.condition();
    let exposures = u64::from(args.count).div_ceil(CAMERAS.len() as u64);
    let flight = VirtualFlight::new(&population, args.seed, &CAMERAS, 1.0 / rate, exposures);
    let frames: Vec<FlownFrame> = flight.frames().take(args.count as usize).collect();
    eprintln!("drawing {} frames", args.count);
    let draw = |flown: &FlownFrame| -> anyhow::Result<(String, Vec<VirtualHead>)> {
        let plan = &flown.plan;
        let frame = plan.photograph(&population, FRAME.0, FRAME.1, &condition)?;
        let file = format!("{FRAME_NAME}{:04}.jpg", frame.number);
        let path = folders[flown.camera].join(&file);
        fs::write(&path, encode_jpeg(&frame.image, JPEG_QUALITY)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok((file, frame.heads))
    };
    // Of each camera: its files.
    let mut taken: [Vec<String>; CAMERAS.len()] = Default::default();
    let mut truth = Truth::default();
    let mut heads = BTreeMap::new();
    // A few at once: each needs memory.
    let parts = frames.chunks(DRAWN_AT_ONCE);
    for part in parts.progress_count(frames.len().div_ceil(DRAWN_AT_ONCE) as u64) {
        let drawn: Vec<_> = part.par_iter().map(draw).collect::<anyhow::Result<_>>()?;
        for (flown, (file, of_frame)) in part.iter().zip(drawn) {
            let true_head = |head: &VirtualHead| TrueHead {
                individual: head.individual.clone(),
                landmarks: head.landmarks,
                pass: flown.plan.pass.unwrap_or_default(),
            };
            let true_heads = of_frame.iter().map(true_head).collect();
            truth.frames.insert(file.clone(), true_heads);
            heads.insert(file.clone(), of_frame);
            taken[flown.camera].push(file);
        }
    }
    let mut cameras = Vec::new();
    for ((camera, folder), taken) in CAMERAS.iter().zip(folders).zip(taken) {
        if taken.is_empty() {
            continue;
        }
        let frames = taken.len() as u64;
        // A cable is loose.
        let unplugged = if camera.name == UNPLUGGED && frames >= 10 {
            frames / 5..2 * frames / 5
        } else {
            0..0
        };
        for unseen in &taken[unplugged.start as usize..unplugged.end as usize] {
            truth.frames.remove(unseen);
        }
        cameras.push(DemoCamera {
            name: camera.name.to_owned(),
            unplugged,
            ..DemoCamera::over(&folder)?
        });
    }
    let path = flight.path().clone();
    Ok((cameras, truth, Drawn { path, heads }))
}

/// Makes it, or removes the frames that an earlier demo left there.
fn empty_folder(folder: &Path) -> anyhow::Result<()> {
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
    Ok(())
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
