use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callosity::bundles::{Bundles, TRIAL};
use callosity::service::{FlightReport, FlownWell, fly, warming_up};
use callosity::settings::{CameraArgument, Layers, Loaded, SettingsError};
use clap::ArgAction;
use recognition::bundle::Bundle;
use recognition::identify::Identifier;
use recognition::inference::EngineConfig;
use tracing::{info, warn};

use super::{FAILED, PARTLY_FAILED, engine, interrupt, settings_arguments};

/// Fly: name whales as frames come and say so over MQTT.
///
/// What is decided is on the disk, in the state folder, before anything else is done with it, and stays there until the
/// broker has acknowledged it: a crash, a loss of power or hours without a link lose nothing, and the next run sends what
/// is left.
///
/// Ends after the last photograph, when everything is delivered; on Ctrl-C or SIGTERM it stops by a deadline and says what
/// was not delivered (exit code 2). Log messages go to standard error; CALLOSITY_LOG chooses them, such as
/// CALLOSITY_LOG=debug.
///
/// A box flies with a settings file, which `callosity settings` shows with every key and `callosity check` walks through;
/// the options below are for trials without one, and win over it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: settings_arguments::Args,
    #[command(flatten)]
    shortcuts: Shortcuts,
    #[command(flatten)]
    engine: engine::Args,
}

#[derive(clap::Args)]
struct Shortcuts {
    /// Camera, as KIND:WHICH[,OPTION]…; may be given several times. Those of the settings file are then left out
    ///
    /// v4l2:PATH-OR-SERIAL is a video device as `callosity cameras` names it, with format=MJPG, size=1920x1080, rate=5
    /// and settings in the driver's units: exposure=, gain=, white-balance=, focus= (a number or auto), control.NAME=.
    /// folder:DIR is a folder that other software fills, with watch=poll where its changes are not told and all where no
    /// photograph may be passed over. replay:DIR is a folder of photographs, with rate=, loop, live, resume (as --resume)
    /// and unplugged=FIRST-LAST, numbers of frames that it does not take, to rehearse a loose cable. Each takes name= and
    /// mask=X:Y/X:Y/X:Y, a polygon in shares of the frame's width and height where the aircraft is seen: heads with their
    /// centre in it are dropped
    #[arg(long = "camera", value_name = "CAMERA")]
    cameras: Vec<CameraArgument>,
    /// Folder of photographs that are replayed in the order of their names
    #[arg(long, visible_alias = "source", value_name = "DIR")]
    replay: Option<PathBuf>,
    /// Frames a second of --replay [default: 1]
    #[arg(long, value_name = "HZ", requires = "replay")]
    rate: Option<f64>,
    /// Begin again after the last photograph of --replay, without end
    #[arg(long = "loop", requires = "replay")]
    again_and_again: bool,
    /// --replay as a live camera: look at the newest photograph only, and drop those for which there was no time
    #[arg(long, requires = "replay")]
    live: bool,
    /// Go on after the last photograph of --replay that an earlier run with this --state looked at
    #[arg(long, requires = "replay")]
    resume: bool,
    /// Folder for what must outlive the program, such as the outbox
    /// [default: $STATE_DIRECTORY, as systemd sets it, or ~/.local/state/callosity]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// MQTT 5 broker: mqtt://HOST[:PORT], with TLS mqtts://HOST[:PORT], as WebSocket ws:// or wss://HOST[:PORT]/PATH
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Name of this aircraft in topics; each needs its own
    #[arg(long, value_name = "NAME")]
    platform: Option<String>,
    /// Directory of the model bundle [default: models/right-whales]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// PEM file with the certificate authorities that may vouch for the broker
    /// [default: those that this system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// User name at the broker; the password comes from CALLOSITY_MQTT_PASSWORD or --password-file
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where gpsd listens, which tells the position: HOST[:PORT], such as localhost
    #[arg(long, value_name = "HOST:PORT")]
    gpsd: Option<String>,
    /// Let the ground set effort and marks, by messages to callosity/v1/PLATFORM/command
    #[arg(long, action = ArgAction::SetTrue)]
    commands: bool,
    /// Folder in which pictures are kept: every frame with a whale, some without, and crops, each with a JSON file that
    /// says why
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// File to which a line of JSON is added for each frame: its heads, the sighting each was taken for, and whom the
    /// frame alone names
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Shortcuts {
    /// Sets what is given over what the settings say.
    fn set(self, layers: &mut Layers) -> Result<(), SettingsError> {
        let path = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
        for (option, key, value) in [
            ("state", "state", path(self.state)),
            ("broker", "broker.url", self.broker),
            ("platform", "platform", self.platform),
            ("bundle", "bundle", path(self.bundle)),
            ("ca", "broker.ca", path(self.ca)),
            ("username", "broker.username", self.username),
            (
                "password-file",
                "broker.password_file",
                path(self.password_file),
            ),
            ("gpsd", "position.gpsd", self.gpsd),
            ("archive", "archive.folder", path(self.archive)),
            ("record", "record", path(self.record)),
            (
                "commands",
                "survey.commands",
                self.commands.then(|| "true".to_owned()),
            ),
        ] {
            if let Some(value) = value {
                layers.set_text(key, &value, &format!("argument --{option}"))?;
            }
        }
        let mut cameras = self.cameras;
        if let Some(folder) = self.replay {
            let source = format!("replay:{}", folder.display());
            let mut settings = toml::Table::from_iter([("source".to_owned(), source.into())]);
            settings.extend(self.rate.map(|rate| ("rate".to_owned(), rate.into())));
            for (name, is_set) in [
                ("loop", self.again_and_again),
                ("live", self.live),
                ("resume", self.resume),
            ] {
                settings.extend(is_set.then(|| (name.to_owned(), true.into())));
            }
            let name = "replay".to_owned();
            cameras.push(CameraArgument { name, settings });
        }
        layers.add_cameras(cameras)
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut layers = args.settings.layers()?;
    args.shortcuts.set(&mut layers)?;
    args.engine.set(&mut layers)?;
    args.settings.set(&mut layers)?;
    let settings = layers.load()?;
    let engine = settings.engine(None)?;
    let mut trial = begin_trial(&settings);
    let mut flight = settings.flight(|| {
        warming_up("loading networks");
        match (load(&settings, &engine), &mut trial) {
            (Err(error), Some(bundles)) => {
                bundles.reject(&format!("{error:#}"))?;
                trial = None;
                load(&settings, &engine)
            }
            (loaded, _) => loaded,
        }
    })?;
    let trial = trial.map(|bundles| Arc::new(Mutex::new(bundles)));
    flight.flown_well = trial.clone().map(|bundles| FlownWell {
        after: TRIAL,
        tell: Box::new(move || {
            if let Err(error) = lock(&bundles).commit() {
                warn!("{error}");
            }
        }),
    });
    let stop = interrupt::install()?;
    let report = fly(flight, &stop)?;
    info!(?report, "ended");
    if let (Some(bundles), Some(failure)) = (trial, &report.failure) {
        let mut bundles = lock(&bundles);
        if bundles.is_on_trial() {
            bundles.reject(failure)?;
        }
    }
    Ok(exit_code(&report, stop.is_cancelled()))
}

fn load(settings: &Loaded, engine: &EngineConfig) -> anyhow::Result<Identifier> {
    let bundle = Bundle::open(settings.bundle())?;
    Ok(Identifier::new(&bundle, engine)?)
}

/// The box's bundles, if the current one has still to show that it flies well.
fn begin_trial(settings: &Loaded) -> Option<Bundles> {
    let mut bundles = settings.bundles()?;
    match bundles.begin() {
        Ok(trial) => trial.map(|_| bundles),
        Err(error) => {
            warn!("{error}");
            None
        }
    }
}

fn lock(bundles: &Mutex<Bundles>) -> MutexGuard<'_, Bundles> {
    // What is on the disk is whole after each step.
    bundles.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the program says of a flight when it ends. A flight that failed is begun anew by whoever watches the service.
fn exit_code(report: &FlightReport, interrupted: bool) -> ExitCode {
    if report.failure.is_some() {
        return ExitCode::from(FAILED);
    }
    let left = report.messages.messages + report.messages.set_aside;
    if left > 0 || !report.stragglers.is_empty() {
        ExitCode::from(PARTLY_FAILED)
    } else if interrupted || report.frames.failed == 0 {
        // A service that is asked to stop and does has not failed.
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    }
}
