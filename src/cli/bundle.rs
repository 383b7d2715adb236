use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use callosity::bundle::{Bundle, Role};
use callosity::inference::{self, Engine};
use clap::Subcommand;

use super::{PARTLY_FAILED, engine};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a bundle's manifest and files, and run its self-tests on this machine
    Check {
        /// The bundle's directory
        #[arg(value_name = "DIR", default_value = super::identify::DEFAULT_BUNDLE)]
        directory: PathBuf,
        /// Threads for each network [default: one for each core]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        threads: Option<u16>,
        #[command(flatten)]
        engine: engine::Args,
    },
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check {
            directory,
            threads,
            engine,
        } => check(directory, threads, &engine),
    }
}

fn check(
    directory: PathBuf,
    threads: Option<u16>,
    engine: &engine::Args,
) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let bundle = Bundle::open(directory)?;
    let manifest = bundle.manifest();
    writeln!(
        out,
        "{} {}, made {}: {} individuals of {}",
        manifest.name,
        manifest.version,
        manifest.created,
        manifest.catalogue.individuals.len(),
        manifest.catalogue.scientific_name,
    )?;
    for role in Role::ALL {
        match manifest.network(role) {
            Some(network) => writeln!(
                out,
                "{:9} {}, {} × {} pixels, SHA-256 as in the manifest",
                role.name(),
                network.file,
                network.input.width,
                network.input.height
            )?,
            None => writeln!(out, "{:9} none", role.name())?,
        }
    }
    let engine = Engine::start(&engine.config(threads.map(usize::from)))?;
    match engine.library() {
        Some(library) => writeln!(out, "engine    {} ({})", engine.name(), library.display())?,
        None => writeln!(out, "engine    {}", engine.name())?,
    }
    let outcomes = inference::run_self_tests(&engine, &bundle).context("self-test")?;
    if outcomes.is_empty() {
        writeln!(out, "self-test none in the bundle; every network loads")?;
    }
    for outcome in &outcomes {
        writeln!(
            out,
            "self-test {} on {}: differs by {:.1e}, allowed {:.1e}: {}",
            outcome.role,
            outcome.engine,
            outcome.difference,
            outcome.tolerance,
            if outcome.passed() { "passed" } else { "FAILED" }
        )?;
    }
    Ok(if outcomes.iter().all(|outcome| outcome.passed()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}
