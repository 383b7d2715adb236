//! `callosity-train report`.

use std::path::PathBuf;

use anyhow::Context;

use crate::index::Index;
use crate::report::{Report, render};
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Compare classifiers on the same photographs, as one HTML page.
///
/// The page needs nothing but a browser: a table of all runs, the photographs of a whale, learning curves,
/// reliability, and what the best of them confuses, with the photographs side by side. It shows
/// photographs: mind their licence before you publish it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of classifiers that were trained on one split
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Index of the photographs
    #[arg(long, default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split that the runs were trained on
    #[arg(long, default_value = "runs/data/split.json")]
    split: PathBuf,
    /// The page
    #[arg(long, default_value = "runs/report.html")]
    out: PathBuf,
    /// The table's rows as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let runs: Vec<TrainedRun> = args
        .runs
        .iter()
        .map(|folder| TrainedRun::open(folder))
        .collect::<anyhow::Result<_>>()?;
    let report = Report::new(&runs, &index, &split)?;
    let write = |path: &PathBuf, text: &str| {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    };
    write(&args.out, &render(&report)?)?;
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string_pretty(report.rows())?)?;
    }
    println!("{}", args.out.display());
    Ok(())
}
