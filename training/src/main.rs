//! `callosity-train`: trains Callosity's networks and makes model bundles of them.

use callosity_training::commands;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(commands::bench::Args),
    Bundle(Box<commands::bundle::Args>),
    Evaluate(commands::evaluate::Args),
    Export(commands::export::Args),
    Import(commands::import::Args),
    Split(commands::split::Args),
    Stack(commands::stack::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => commands::bench::run(args),
        Command::Bundle(args) => commands::bundle::run(*args),
        Command::Evaluate(args) => commands::evaluate::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Split(args) => commands::split::run(args),
        Command::Stack(args) => commands::stack::run(args),
    }
}
