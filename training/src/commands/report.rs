//! `callosity-train report`.

use std::path::PathBuf;

use anyhow::Context;

use crate::cache::Cache;
use crate::index::Index;
use crate::recipe::Task;
use crate::report::{Boxes, Report, render};
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Compare classifiers on the same photographs, as one HTML page.
///
/// The page needs nothing but a browser: a table of all runs, the photographs of a whale, learning curves,
/// reliability, and what the best of them confuses, with the photographs side by side. It shows
/// photographs: mind their licence before you publish it. Localisers are measured on composed frames and get a
/// table and histograms of their own.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of classifiers and localisers that were trained on one split
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Index of the photographs
    #[arg(long, default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split that the runs were trained on
    #[arg(long, default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Folder for decoded photographs, from which frames are composed for networks that see such
    #[arg(long, default_value = "runs/data/cache")]
    cache: PathBuf,
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
    let cache = runs
        .iter()
        .any(|run| run.recipe.composes_frames())
        .then(|| Cache::open_or_build(&index, &args.cache))
        .transpose()?;
    let (localisers, classifiers): (Vec<TrainedRun>, Vec<TrainedRun>) = runs
        .into_iter()
        .partition(|run| run.recipe.task == Task::Localiser);
    let mut report = Report::new(&classifiers, &index, &split, cache.as_ref())?;
    if let Some(cache) = &cache {
        report.boxes = Boxes::measure(&localisers, &index, &split, cache)?;
    }
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
