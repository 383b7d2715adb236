use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use callosity::camera::Replay;
use callosity::link::broker::Credentials;
use callosity::link::topic::Platform;
use callosity::link::{BrokerAddress, BrokerOptions};
use callosity::outbox::Limits;
use callosity::service::{FRAME_QUEUE, Flight, FlightReport, fly};
use recognition::bundle::Bundle;
use recognition::identify::Identifier;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::identify::DEFAULT_BUNDLE;
use super::{INTERRUPTED, PARTLY_FAILED, engine};

/// Fly: name whales as frames come and say so over MQTT.
///
/// Ends after the last photograph, when everything is delivered; on Ctrl-C or SIGTERM it stops by a
/// deadline and says what was not delivered (exit code 2). Log messages go to standard error;
/// CALLOSITY_LOG chooses them, such as CALLOSITY_LOG=debug.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of photographs that are replayed in the order of their names
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// Frames a second
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    rate: f64,
    /// Begin again after the last photograph, without end
    #[arg(long = "loop")]
    again_and_again: bool,
    /// MQTT 5 broker: mqtt://HOST[:PORT], or with TLS mqtts://HOST[:PORT]
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
    /// User name at the broker; the password comes from CALLOSITY_MQTT_PASSWORD or --password-file
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Seconds between health messages
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    health_interval: u32,
    /// Seconds from being asked to stop to the end
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    stop_deadline: u32,
    #[command(flatten)]
    engine: engine::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let credentials = Credentials::gather(args.username, args.password_file.as_deref())?;
    let broker = BrokerOptions::new(args.broker, credentials, args.ca.as_deref())?;
    let camera = Replay::open(&args.source, args.rate, args.again_and_again)?;
    let bundle = Bundle::open(&args.bundle)?;
    let identifier = Identifier::new(&bundle, &args.engine.config(None))?;
    let flight = Flight {
        camera,
        identifier,
        broker,
        platform: args.platform,
        frame_queue: FRAME_QUEUE,
        outbox: Limits::default(),
        health_interval: Duration::from_secs(args.health_interval.into()),
        stop_deadline: Duration::from_secs(args.stop_deadline.into()),
    };
    let stop = CancellationToken::new();
    let runtime = runtime()?;
    stop_on_signal(&runtime, &stop)?;
    let report = runtime.block_on(fly(flight, stop.clone()));
    // A network that still runs after the deadline is not waited for.
    runtime.shutdown_background();
    let report = report?;
    info!(?report, "ended");
    Ok(exit_code(&report, stop.is_cancelled()))
}

pub fn exit_code(report: &FlightReport, interrupted: bool) -> ExitCode {
    let lost = !report.messages.is_empty() || report.messages.refused > 0;
    if lost || report.straggler.is_some() {
        ExitCode::from(PARTLY_FAILED)
    } else if interrupted || report.frames.failed == 0 {
        // A service that is asked to stop and does has not failed.
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    }
}

pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

/// The first Ctrl-C or SIGTERM asks to stop, a second ends the program at once.
pub fn stop_on_signal(runtime: &Runtime, stop: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = stop.clone();
    let _context = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot prepare for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot prepare for SIGTERM")?;
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(i32::from(INTERRUPTED));
            }
            stop.cancel();
        }
    });
    Ok(())
}
