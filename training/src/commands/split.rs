//! `callosity-train split`: which photograph trains and which one is held out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::index::{Index, PhotographKind};
use crate::split::{Role, Split, SplitOptions};

/// Say which photographs train, which are only measured on, and which whales stay unknown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The index that `import` wrote
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,

    /// Where the split is written; tables for `evaluate --labels` are written beside it
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "runs/data/split.json"
    )]
    output: PathBuf,

    /// Seed of everything drawn
    #[arg(long, default_value_t = SplitOptions::default().seed)]
    seed: u64,

    /// Train on all labelled heads: no validation, no whale held out, and fold 0, which no network sees, is empty.
    /// For the networks that fly, once those of another split have said how good they are
    #[arg(long, conflicts_with_all = ["validation", "unknown_whales"])]
    hold_nothing_out: bool,

    /// Fraction of the labelled photographs for validation
    #[arg(long, value_name = "FRACTION", default_value_t = SplitOptions::default().validation_fraction)]
    validation: f64,

    /// Number of folds of the training photographs
    #[arg(long, default_value_t = SplitOptions::default().folds)]
    folds: u32,

    /// Whales held out whole as unknown
    #[arg(long, value_name = "N", default_value_t = SplitOptions::default().unknown_whales)]
    unknown_whales: usize,

    /// Fewest photographs of a whale held out as unknown
    #[arg(long, value_name = "N", default_value_t = SplitOptions::default().unknown_minimum)]
    unknown_minimum: usize,

    /// Most photographs of a whale held out as unknown
    #[arg(long, value_name = "N", default_value_t = SplitOptions::default().unknown_maximum)]
    unknown_maximum: usize,
}

/// Splits the data of an index.
///
/// # Errors
/// Where the index cannot be read, the options cannot be met, or a file cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let options = SplitOptions {
        seed: args.seed,
        validation_fraction: args.validation,
        folds: args.folds,
        unknown_whales: args.unknown_whales,
        unknown_minimum: args.unknown_minimum,
        unknown_maximum: args.unknown_maximum,
        hold_nothing_out: false,
    };
    let options = if args.hold_nothing_out {
        options.holding_nothing_out()
    } else {
        options
    };
    let split = Split::make(&index, options)?;
    split.save(&args.output)?;
    if !args.hold_nothing_out {
        write_labels(&index, &split, &args.output)?;
    }
    report(&index, &split);
    println!("{}: digest {}", args.output.display(), split.digest());
    Ok(())
}

/// `image,whale` tables of the held-out heads.
fn write_labels(index: &Index, split: &Split, beside: &Path) -> anyhow::Result<()> {
    type Wanted = fn(Role) -> bool;
    let wanted: [(&str, Wanted); 3] = [
        ("validation.csv", |role| role == Role::Validation),
        ("unknown.csv", |role| role == Role::Unknown),
        ("validation_and_unknown.csv", |role| {
            role == Role::Validation || role == Role::Unknown
        }),
    ];
    for (name, wanted) in wanted {
        let path = beside.with_file_name(name);
        let context = || path.display().to_string();
        let mut table = csv::Writer::from_path(&path).with_context(context)?;
        table
            .write_record(["image", "whale"])
            .with_context(context)?;
        let heads = split
            .labelled(index, wanted)
            .filter(|(photograph, ..)| photograph.kind == PhotographKind::Head);
        for (photograph, whale, _) in heads {
            let file = photograph.file.file_name().unwrap_or_default();
            table
                .write_record([&*file.to_string_lossy(), whale])
                .with_context(context)?;
        }
        table.flush().with_context(context)?;
    }
    Ok(())
}

fn report(index: &Index, split: &Split) {
    let mut counts: BTreeMap<(PhotographKind, &str), usize> = BTreeMap::new();
    for photograph in &index.photographs {
        let role = match split.role(&photograph.image) {
            Some(Role::Training { .. }) => "training",
            Some(Role::Validation) => "validation",
            Some(Role::Unknown) => "unknown",
            None => "not used",
        };
        *counts.entry((photograph.kind, role)).or_default() += 1;
    }
    for ((kind, role), count) in &counts {
        let kind = match kind {
            PhotographKind::Head => "heads",
            PhotographKind::UnlabelledHead => "unlabelled heads",
            PhotographKind::Frame => "frames",
        };
        println!("{kind}, {role}: {count}");
    }
    let mut photographs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut covered = BTreeSet::new();
    for (_, whale, role) in split.labelled(index, |_| true) {
        *photographs.entry(whale).or_default() += 1;
        if role == Role::Validation {
            covered.insert(whale);
        }
    }
    let singles = split
        .individuals
        .iter()
        .filter(|whale| photographs.get(whale.as_str()) == Some(&1))
        .count();
    println!(
        "whales in the catalogue: {}; with one photograph: {singles}; in validation: {}; \
         that validation does not cover: {}",
        split.individuals.len(),
        covered.len(),
        split.individuals.len() - covered.len()
    );
    println!(
        "whales held out as unknown: {} ({})",
        split.unknown_individuals.len(),
        split.unknown_individuals.join(", ")
    );
    println!(
        "heads in training whose frame is measured on (hidden from finder and aligner): {}",
        split.hidden_from_finder.len()
    );
    println!(
        "unlabelled heads left out because they show the same as a held-out one: {}",
        split.excluded.len()
    );
}
