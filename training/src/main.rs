//! `callosity-train`: trains Callosity's networks and makes model bundles of them.

use callosity_training::commands;
use clap::{Parser, Subcommand};

/// Train Callosity's networks on photographs of known whales, and make a model bundle of them.
///
/// The usual order is import, split, train (once for each network), stack, bundle, evaluate;
/// report compares networks, saliency shows on what classifiers rely.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(commands::import::Args),
    Split(commands::split::Args),
    Compose(commands::compose::Args),
    Train(commands::train::Args),
    PseudoLabel(commands::pseudo_label::Args),
    Stack(commands::stack::Args),
    Export(commands::export::Args),
    Bundle(Box<commands::bundle::Args>),
    Evaluate(commands::evaluate::Args),
    Report(commands::report::Args),
    Saliency(commands::saliency::Args),
    Bench(commands::bench::Args),
}

fn main() -> anyhow::Result<()> {
    // `callosity-train evaluate … | head` has got what it wanted.
    sigpipe::reset();
    match Cli::parse().command {
        Command::Import(args) => commands::import::run(args),
        Command::Split(args) => commands::split::run(args),
        Command::Compose(args) => commands::compose::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::PseudoLabel(args) => commands::pseudo_label::run(args),
        Command::Stack(args) => commands::stack::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Bundle(args) => commands::bundle::run(*args),
        Command::Evaluate(args) => commands::evaluate::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Saliency(args) => commands::saliency::run(args),
        Command::Bench(args) => commands::bench::run(args),
    }
}
