//! `callosity-train import`: a folder of photographs becomes an index.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::index::{self, PhotographKind, Resemblance};

/// Make an index of a folder of photographs, and report what is wrong with them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with photographs and tables: heads/ and heads.csv, frames/ and frames.csv, or the
    /// original challenge's imgs/ and train.csv
    data: PathBuf,

    /// Where the index is written
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "runs/data/index.json"
    )]
    output: PathBuf,

    /// Fail on the first kind of fault that would otherwise be reported and left out
    #[arg(long)]
    strict: bool,

    /// How many problems and duplicates are printed of each kind
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
}

/// Imports a folder.
///
/// # Errors
/// Where the layout is not recognised, a file cannot be read or written, or `--strict` is given and
/// anything is wrong with the data.
pub fn run(args: Args) -> anyhow::Result<()> {
    let progress = ProgressBar::no_length().with_style(
        ProgressStyle::with_template(
            "reading photographs {bar:40} {pos}/{len} {per_sec} {eta} left",
        )
        .context("progress bar")?,
    );
    let import = index::import(&args.data, &progress)?;
    progress.finish_and_clear();

    let mut problems: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for problem in &import.problems {
        problems.entry(problem.kind).or_default().push(problem);
    }
    for (kind, of_kind) in &problems {
        eprintln!("{kind}: {}", of_kind.len());
        for problem in of_kind.iter().take(args.show) {
            eprintln!("  {problem}");
        }
        if of_kind.len() > args.show {
            eprintln!("  and {} more (--show N)", of_kind.len() - args.show);
        }
    }
    if args.strict && !import.problems.is_empty() {
        bail!(
            "{} problems in {}; without --strict they are left out",
            import.problems.len(),
            args.data.display()
        );
    }

    let index = &import.index;
    let exact = import
        .duplicates
        .iter()
        .filter(|d| d.resemblance == Resemblance::Exact)
        .count();
    println!(
        "photographs with the same content: {} pairs by bytes, {} by pixels",
        exact,
        import.duplicates.len() - exact
    );
    for pair in import.duplicates.iter().take(args.show) {
        let how = match pair.resemblance {
            Resemblance::Exact => "same bytes".to_owned(),
            Resemblance::Near(correlation) => format!("correlation {correlation:.3}"),
        };
        println!("  {} is {} ({how})", pair.image, pair.of);
    }
    if import.duplicates.len() > args.show {
        println!(
            "  and {} more (--show N)",
            import.duplicates.len() - args.show
        );
    }
    for (kind, name) in [
        (PhotographKind::Head, "heads"),
        (PhotographKind::UnlabelledHead, "unlabelled heads"),
        (PhotographKind::Frame, "frames"),
    ] {
        let of_kind = || index.photographs.iter().filter(|p| p.kind == kind);
        let mut whales: Vec<_> = of_kind().filter_map(|p| p.individual.as_ref()).collect();
        let named = whales.len();
        whales.sort();
        whales.dedup();
        println!(
            "{name}: {}, named {named} ({} whales), with landmarks {}",
            of_kind().count(),
            whales.len(),
            of_kind().filter(|p| !p.landmarks.is_empty()).count()
        );
    }
    index.save(&args.output)?;
    println!("{}: digest {}", args.output.display(), index.digest());
    Ok(())
}
