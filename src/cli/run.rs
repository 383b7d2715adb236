use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use callosity::camera::Replay;
use callosity::effort::EffortSettings;
use callosity::outbox::Limits;
use callosity::position::{GpsdAddress, Mounting};
use callosity::service::{Flight, FlightReport, Survey, fly};
use callosity::sighting::LOST_AFTER;
use clap::ValueEnum;
use link::broker::{Credentials, Timing};
use link::codec::Encoding;
use link::topic::Platform;
use link::{BrokerAddress, BrokerOptions};
use recognition::bundle::Bundle;
use recognition::identify::Identifier;
use tracing::info;

use super::camera_argument::{self, CameraArgument};
use super::identify::DEFAULT_BUNDLE;
use super::{FAILED, PARTLY_FAILED, archive_argument, engine, interrupt};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MessageEncoding {
    /// Readable by everything
    Json,
    /// For thin links: a third of the size
    Cbor,
}

/// Fly: name whales as frames come and say so over MQTT.
///
/// What is decided is on the disk, in --state, before anything else is done with it, and stays there until the broker
/// has acknowledged it: a crash, a loss of power or hours without a link lose nothing, and the next run sends what is
/// left.
///
/// Ends after the last photograph, when everything is delivered; on Ctrl-C or SIGTERM it stops by a
/// deadline and says what was not delivered (exit code 2). Log messages go to standard error;
/// CALLOSITY_LOG chooses them, such as CALLOSITY_LOG=debug.
#[derive(clap::Args)]
pub struct Args {
    /// Camera, as KIND:WHICH[,OPTION]…; may be given several times
    ///
    /// v4l2:PATH-OR-SERIAL is a video device as `callosity cameras` names it, with format=MJPG, size=1920x1080, rate=5
    /// and settings in the driver's units: exposure=, gain=, white-balance=, focus= (a number or auto), control.NAME=.
    /// folder:DIR is a folder that other software fills, with watch=poll where its changes are not told and all where no
    /// photograph may be passed over. replay:DIR is a folder of photographs, with rate=, loop, live, resume (as --resume)
    /// and unplugged=FIRST-LAST, numbers of frames that it does not take, to rehearse a loose cable. Each takes name= and mask=X:Y/X:Y/X:Y, a polygon in shares of the frame's width and height where the aircraft is seen: heads with
    /// their centre in it are dropped
    #[arg(long = "camera", value_name = "CAMERA")]
    cameras: Vec<CameraArgument>,
    /// Folder of photographs that are replayed in the order of their names
    #[arg(
        long,
        visible_alias = "source",
        value_name = "DIR",
        required_unless_present = "cameras"
    )]
    replay: Option<PathBuf>,
    /// Frames a second of --replay
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    rate: f64,
    /// Begin again after the last photograph of --replay, without end
    #[arg(long = "loop")]
    again_and_again: bool,
    /// --replay as a live camera: look at the newest photograph only, and drop those for which there was no time
    #[arg(long)]
    live: bool,
    /// Go on after the last photograph of --replay that an earlier run with this --state looked at
    #[arg(long)]
    resume: bool,
    /// Folder for what must outlive the program, such as the outbox
    /// [default: $STATE_DIRECTORY, as systemd sets it, or ~/.local/state/callosity]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Most megabytes that wait for the broker; above it the oldest crops go, sightings never do
    #[arg(long, value_name = "MB", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    outbox_megabytes: u64,
    /// MQTT 5 broker: mqtt://HOST[:PORT], with TLS mqtts://HOST[:PORT], as WebSocket ws:// or wss://HOST[:PORT]/PATH
    #[arg(long, value_name = "URL")]
    broker: BrokerAddress,
    /// Name of this aircraft in topics; each needs its own
    #[arg(long, value_name = "NAME")]
    platform: Platform,
    /// Directory of the model bundle
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BUNDLE)]
    bundle: PathBuf,
    /// PEM file with the certificate authorities that may vouch for the broker
    /// [default: those that this system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with the certificate that shows the broker who we are
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// PEM file with the private key of --client-certificate
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// Seconds between pings of a silent link; more than the largest message takes
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(5..=3600))]
    keep_alive: u32,
    /// Seconds that the broker has for its welcome
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    connect_timeout: u32,
    /// How messages are encoded
    #[arg(long, value_enum, default_value_t = MessageEncoding::Json)]
    encoding: MessageEncoding,
    /// Largest message in bytes: on a thin link crops stay behind, while sightings go (a CBOR one has 340 bytes)
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1000..))]
    largest_message: Option<u32>,
    /// User name at the broker; the password comes from CALLOSITY_MQTT_PASSWORD or --password-file
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Seconds between health messages
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    health_interval: u32,
    /// Seconds after which an animal that is not seen any more is left behind; at 0 each head in each frame is a sighting
    #[arg(long, value_name = "SECONDS", default_value_t = LOST_AFTER.as_secs_f64(), value_parser = seconds)]
    lost_after: f64,
    /// File to which a line of JSON is added for each frame: its heads, the sighting each was taken for, and whom the
    /// frame alone names
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Seconds from being asked to stop to the end
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    stop_deadline: u32,
    #[command(flatten)]
    archive: archive_argument::Args,
    #[command(flatten)]
    survey: SurveyArgs,
    #[command(flatten)]
    engine: engine::Args,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Where, when and how the survey is flown")]
struct SurveyArgs {
    /// Where gpsd listens, which tells the position: HOST[:PORT], such as localhost
    #[arg(long, value_name = "HOST:PORT")]
    gpsd: Option<GpsdAddress>,
    /// TOML file with a table for each camera: focal_length_millimeters, sensor_width_millimeters, and from straight
    /// down with the frame's top ahead roll_degrees, pitch_degrees, yaw_degrees
    #[arg(long, value_name = "FILE")]
    camera_mounting: Option<PathBuf>,
    /// Seconds between messages that say where the aircraft is
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    track_interval: u32,
    /// Who observes; once for each. This and the options below have effort messages sent
    #[arg(long, value_name = "NAME")]
    observer: Vec<String>,
    /// The survey that this flight belongs to
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Registration or type of the aircraft
    #[arg(long, value_name = "NAME")]
    aircraft: Option<String>,
    /// Address of this machine's own, such as 127.0.0.1:8080, at which effort and marks are set over HTTP
    #[arg(long, value_name = "ADDRESS", value_parser = own_address)]
    control: Option<SocketAddr>,
    /// Let the ground set effort and marks, by messages to callosity/v1/PLATFORM/command
    #[arg(long)]
    commands: bool,
}

/// Whoever reaches the address sets the effort without a password, so it has to be this machine's own.
fn own_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it is ADDRESS:PORT, such as 127.0.0.1:8080".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("other machines could set the effort there: use 127.0.0.1 or [::1]".to_owned())
    }
}

impl SurveyArgs {
    /// Where position and effort come from.
    fn survey(self) -> anyhow::Result<Survey> {
        let mountings = self.camera_mounting.as_deref().map(Mounting::read_all);
        let has_effort = !self.observer.is_empty()
            || self.project.is_some()
            || self.aircraft.is_some()
            || self.control.is_some()
            || self.commands;
        Ok(Survey {
            gpsd: self.gpsd,
            mountings: mountings.transpose()?.unwrap_or_default(),
            track_interval: Duration::from_secs(self.track_interval.into()),
            effort: has_effort.then_some(EffortSettings {
                observers: self.observer,
                project: self.project,
                aircraft: self.aircraft,
            }),
            control: self.control,
            commands: self.commands,
            ..Survey::default()
        })
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let survey = args.survey.survey()?;
    let credentials = Credentials::gather(args.username, args.password_file.as_deref())?;
    let mut broker =
        BrokerOptions::new(args.broker, credentials, args.ca.as_deref())?.with_timing(Timing {
            keep_alive: Duration::from_secs(args.keep_alive.into()),
            connect_timeout: Duration::from_secs(args.connect_timeout.into()),
            ..Timing::default()
        });
    if let (Some(certificate), Some(key)) = (&args.client_certificate, &args.client_key) {
        broker = broker.with_client_certificate(certificate, key)?;
    }
    let mut cameras = camera_argument::mount(args.cameras)?;
    if let Some(folder) = &args.replay {
        let mut camera = Replay::open(folder, args.rate, args.again_and_again)?;
        if args.live {
            camera = camera.as_live();
        }
        if args.resume {
            camera = camera.resuming();
        }
        cameras.push(camera.into());
    }
    let bundle = Bundle::open(&args.bundle)?;
    let flight = Flight {
        cameras,
        recogniser: Identifier::new(&bundle, &args.engine.config(None))?,
        broker,
        platform: args.platform,
        state: args.state.map_or_else(state_folder, Ok)?,
        outbox: Limits {
            bytes: args.outbox_megabytes * 1_000_000,
        },
        encoding: match args.encoding {
            MessageEncoding::Json => Encoding::Json,
            MessageEncoding::Cbor => Encoding::Cbor,
        },
        largest_message: args.largest_message.map(|bytes| bytes as usize),
        health_interval: Duration::from_secs(args.health_interval.into()),
        stop_deadline: Duration::from_secs(args.stop_deadline.into()),
        lost_after: Duration::from_secs_f64(args.lost_after),
        record: args.record,
        survey,
        archive: args.archive.settings(),
    };
    let stop = interrupt::install()?;
    let report = fly(flight, &stop)?;
    info!(?report, "ended");
    Ok(exit_code(&report, stop.is_cancelled()))
}

/// A time from 0 to an hour.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0 to 3600 is needed".to_owned()),
    }
}

/// Where state lies when nobody says where.
fn state_folder() -> anyhow::Result<PathBuf> {
    // systemd gives a list where a unit has several.
    if let Some(folders) = std::env::var_os("STATE_DIRECTORY")
        && let Some(first) = std::env::split_paths(&folders).next()
    {
        return Ok(first);
    }
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = named("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(named("HOME")?).join(".local/state")));
    let base = base.context("there is no home folder for the outbox: name one with --state")?;
    Ok(base.join("callosity"))
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
