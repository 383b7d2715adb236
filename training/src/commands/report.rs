//! `callosity-train report`.

use std::path::PathBuf;

use tch::Device;

use crate::commands::export::write;
use crate::conditions::ConditionsReport;
use crate::index::Index;
use crate::report::{Report, Table, render};
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Compare classifiers, and aligners and localisers, on the same photographs, as one HTML page.
///
/// The page needs nothing but a browser: a table of all runs, the photographs of a whale, learning curves,
/// reliability, what the best classifier confuses, with the photographs side by side, on what it relies,
/// whom it takes unknown whales for, and the errors of landmarks. Each classifier is measured as it names by
/// its own outputs, by its nearest neighbours, and by both; with --stack stacks of them too. It shows
/// photographs: mind their licence before you publish it.
///
/// With --table the rows are kept in a file too, which needs no run folders any more: a table can be
/// completed run by run, and the page and the Markdown show all of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of classifiers, aligners and localisers that were trained on one split; none is needed to show a
    /// table that is there, or conditions
    #[arg(value_name = "RUN", required_unless_present_any = ["table", "conditions"])]
    runs: Vec<PathBuf>,
    /// Stacks whose classifiers are among the runs, as `callosity-train stack` writes them
    #[arg(long = "stack", value_name = "FILE")]
    stacks: Vec<PathBuf>,
    /// What `evaluate --conditions --out` measured of a bundle in other light and by other cameras
    #[arg(long = "conditions", value_name = "FILE")]
    conditions: Vec<PathBuf>,
    /// Index of the photographs
    #[arg(long, default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split that the runs were trained on
    #[arg(long, default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Folder of decoded photographs, from which pictures are composed for networks that see such
    #[arg(long, default_value = "runs/data/cache")]
    cache: PathBuf,
    /// The page
    #[arg(long, default_value = "runs/report.html")]
    out: PathBuf,
    /// JSON file of all rows, made where it is missing: rows of these runs, by the names of their folders, are
    /// replaced, others stay
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The rows as tables in Markdown too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A run does not belong here, the table is of another split, or something cannot be read or written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let conditions: Vec<ConditionsReport> = args
        .conditions
        .iter()
        .map(|path| ConditionsReport::load(path))
        .collect::<anyhow::Result<_>>()?;
    let mut table = match &args.table {
        Some(path) => Table::load(path, &split)?,
        None => Table::default(),
    };
    let runs: Vec<TrainedRun> = args
        .runs
        .iter()
        .map(|folder| TrainedRun::open(folder, Device::cuda_if_available()))
        .collect::<anyhow::Result<_>>()?;
    let report = Report::new(&runs, &args.stacks, &index, &split, &args.cache)?;
    table.update(report.measured());
    if let Some(path) = &args.table {
        table.save(path)?;
    }
    if let Some(path) = &args.markdown {
        write(path, table.markdown()?.as_bytes())?;
    }
    write(&args.out, render(&report, &table, &conditions)?.as_bytes())?;
    println!("{}", args.out.display());
    Ok(())
}
