//! The command line: arguments become validated settings, errors become words and an exit code.
//!
//! A command is a module with `Args` (clap) and `run(Args) -> anyhow::Result<ExitCode>`; to add one,
//! name the module here and give it a line in `commands!`.

mod archive;
mod bundle;
mod bundle_install;
mod camera;
mod cameras;
mod check;
mod demo;
mod engine;
mod ground;
mod ground_enroll;
mod ground_export;
mod ground_import;
mod identify;
mod interrupt;
mod manual;
mod run;
mod settings;
mod settings_arguments;
mod virtual_survey;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Nothing could be done.
const FAILED: u8 = 1;
/// Done, but not for everything that was asked for.
const PARTLY_FAILED: u8 = 2;
/// The command line makes no sense (`EX_USAGE`; clap's own 2 would read as "partly failed").
const USAGE: u8 = 64;
/// Ended by Ctrl-C or a request to terminate, as a shell would report it.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "\
Exit codes:
  0    everything was done
  1    nothing could be done (no bundle, no engine, no photograph)
  2    some photographs failed or a check did not pass; the rest was done
  64   the command line makes no sense
  130  ended by Ctrl-C; what was finished before has been written";

/// Recognises individual North Atlantic right whales from survey aircraft.
#[derive(Parser)]
#[command(name = "callosity", version, after_help = EXIT_CODES)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

/// Declares the commands: for each a variant that carries its module's `Args`, and its call.
macro_rules! commands {
    ($($(#[doc = $about:literal])+ $variant:ident => $module:ident),+ $(,)?) => {
        #[derive(Subcommand)]
        enum Command {
            $($(#[doc = $about])+ $variant(Box<$module::Args>),)+
        }

        fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
            match command {
                $(Command::$variant(args) => $module::run(*args),)+
            }
        }
    };
}

commands! {
    /// Name the whales in photographs
    Identify => identify,
    /// Look into model bundles, teach them whales, install them
    Bundle => bundle,
    /// Fly: name whales as frames come and say so over MQTT
    Run => run,
    /// Receive sightings, store them, and show them to those who decide who it is
    Ground => ground,
    /// Look into the pictures that were kept in flight
    Archive => archive,
    /// Tell whether this box is fit to fly
    Check => check,
    /// Show the settings of a box, with every key there is
    Settings => settings,
    /// List the cameras that are plugged in
    Cameras => cameras,
    /// Fly a virtual survey on this machine, with a broker and a ground station of its own
    Demo => demo,
    /// Write a data set of drawn right whales, with truth
    VirtualSurvey => virtual_survey,
    /// Write manual pages and completions of shells
    Manual => manual,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => {
            // Help and version are no errors and go to standard output.
            let usage = error.use_stderr();
            // Nobody is left to tell when standard error is closed.
            let _ = error.print();
            return if usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    log_to_journal_or_standard_error(default_log(&program.command));
    match dispatch(program.command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callosity: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Under systemd the journal gets messages with their levels and fields; elsewhere they go to standard error.
fn log_to_journal_or_standard_error(default: &str) {
    let filter =
        EnvFilter::try_from_env("CALLOSITY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    #[cfg(target_os = "linux")]
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && !io::stderr().is_terminal()
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal).init();
        return;
    }
    let lines = tracing_subscriber::fmt::layer()
        // A file is no place for colours.
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    registry.with(lines).init();
}

/// Progress over so many, with room for a message.
fn progress_bar(length: u64) -> ProgressBar {
    ProgressBar::new(length).with_style(
        ProgressStyle::with_template("{bar:32} {pos}/{len}  {per_sec}  {eta} left  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

/// What is logged unless `CALLOSITY_LOG` says otherwise: nobody watches a service but through its log,
/// while a command that prints results is silent unless something is wrong.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Run(_) => "warn,callosity=info",
        Command::Ground(_) => "warn,callosity=info,callosity_ground=info",
        _ => "error",
    }
}

/// `callosity identify … | head` has got what it wanted.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = match cause.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(io)) => Some(io),
            _ => cause.downcast_ref::<io::Error>(),
        };
        io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
