//! `callosity-train pseudo-label`: names for photographs without names.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::features::{HeadPhotograph, extract};
use crate::index::{Index, IndexedPhotograph, write_json};
use crate::neighbours::NearestNeighbours;
use crate::pseudo_labels::{PseudoLabel, PseudoLabels, choose_threshold, name_by_nearest};
use crate::recipe::Task;
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Name photographs without names by a trained classifier's embedding, to train on them too.
///
/// Each gets the whale of the most similar photograph that the classifier was trained on, where the
/// similarity is high enough: the threshold is the lowest at which the classifier names its held-out fold
/// as precisely as asked. `callosity-train train RECIPE --pseudo-labels FILE` then trains on them too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder of the classifier
    run: PathBuf,
    /// Index of the photographs
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split on which the classifier was trained
    #[arg(long, value_name = "FILE", default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Share of the held-out photographs above the threshold that must be named rightly, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    precision: f64,
    /// Where the names are written
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "runs/data/pseudo_labels.json"
    )]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The run is no classifier of this split, a photograph cannot be read, or no threshold is precise enough.
pub fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        (0.0..=1.0).contains(&args.precision),
        "--precision {}: a share is from 0 to 1",
        args.precision
    );
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let run = TrainedRun::open(&args.run)?;
    run.expect(Task::Classifier)?;
    run.expect_split(&split)?;
    let fold = run.record.held_out_fold;
    let (trained, whales) = split.catalogued(&index, |role| role.trains_outside(fold));
    let (held_out, truth) = split.catalogued(&index, |role| role.trains_in(fold));
    let unnamed: Vec<&IndexedPhotograph> = split.unlabelled(&index).collect();
    ensure!(
        !unnamed.is_empty(),
        "{} has no photographs without names to train on",
        args.index.display()
    );
    let embed = |photographs: &[&IndexedPhotograph]| {
        let heads: Vec<HeadPhotograph> = photographs
            .iter()
            .map(|p| HeadPhotograph::of(&index, p))
            .collect();
        extract(&[&run], &heads, 1).map(|mut views| views.swap_remove(0))
    };
    let neighbours = NearestNeighbours::new(&embed(&trained)?, whales, split.individuals.len());
    let named = name_by_nearest(&neighbours, &embed(&held_out)?);
    let judged: Vec<(f64, bool)> = named
        .iter()
        .zip(&truth)
        .map(|(&(whale, similarity), &truth)| (similarity, whale == truth))
        .collect();
    let threshold = choose_threshold(&judged, args.precision).with_context(|| {
        format!(
            "at no similarity {} names {:.0} % of at least ten photographs of fold {fold} rightly; lower \
             --precision",
            args.run.display(),
            100.0 * args.precision
        )
    })?;
    let labels: Vec<PseudoLabel> = unnamed
        .iter()
        .zip(name_by_nearest(&neighbours, &embed(&unnamed)?))
        .filter(|(_, (_, similarity))| *similarity >= threshold.similarity)
        .map(|(photograph, (whale, similarity))| PseudoLabel {
            image: photograph.image.clone(),
            individual: split.individuals[whale].clone(),
            similarity,
        })
        .collect();
    println!(
        "similarity from {:.3} on: {:.1} % of the {} photographs of fold {fold} named, {:.1} % of those \
         rightly",
        threshold.similarity,
        100.0 * threshold.named,
        truth.len(),
        100.0 * threshold.precision
    );
    println!(
        "{}: {} of {} photographs without names named",
        args.out.display(),
        labels.len(),
        unnamed.len()
    );
    write_json(&args.out, &PseudoLabels::new(&run, threshold, labels))?;
    Ok(())
}
