//! `callosity-train pseudo-label`: names for photographs without names.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use ndarray::{Array2, Axis};
use tch::Device;

use crate::features::{HeadPhotograph, pass};
use crate::framing::Framer;
use crate::index::{Index, IndexedPhotograph, write_json};
use crate::pseudo_labels::{Namer, PseudoLabel, PseudoLabels, Seen, choose_threshold};
use crate::recipe::Task;
use crate::run_folder::{TrainedRun, check_together};
use crate::split::Split;

/// Name photographs without names by trained classifiers, to train on them too.
///
/// Named by both: the classifiers' logits, and the most similar photographs that they were trained on. A
/// photograph gets the most probable whale where that is probable enough: the threshold is the lowest at which
/// the held-out fold is named as precisely as asked. `callosity-train train RECIPE --pseudo-labels FILE` then
/// trains on them too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of the classifiers
    #[arg(required = true, value_name = "RUN")]
    classifiers: Vec<PathBuf>,
    /// Index of the photographs
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split on which the classifiers were trained
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
/// The runs are no classifiers of this split, or do not belong together, a photograph cannot be read, or no threshold is precise enough.
pub fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        (0.0..=1.0).contains(&args.precision),
        "--precision {}: a share is from 0 to 1",
        args.precision
    );
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let runs = args
        .classifiers
        .iter()
        .map(|folder| TrainedRun::open(folder, Device::cuda_if_available()));
    let runs = runs.collect::<anyhow::Result<Vec<_>>>()?;
    for run in &runs {
        run.expect(Task::Classifier)?;
    }
    check_together(&runs)?;
    let first = &runs[0];
    first.expect_split(&split)?;
    let fold = first.record.held_out_fold;
    let (trained, whales) = split.catalogued(&index, |role| role.trains_outside(fold));
    let (held_out, truth) = split.catalogued(&index, |role| role.trains_in(fold));
    let unnamed: Vec<&IndexedPhotograph> = split.unlabelled(&index).collect();
    ensure!(
        !unnamed.is_empty(),
        "{} has no photographs without names to train on",
        args.index.display()
    );
    let members: Vec<&TrainedRun> = runs.iter().collect();
    let framer = Framer::HeadCrop(first.recipe.input.clone());
    let individuals = split.individuals.len();
    let see = |photographs: &[&IndexedPhotograph]| -> anyhow::Result<Seen> {
        let heads: Vec<HeadPhotograph> = photographs
            .iter()
            .map(|p| HeadPhotograph::of(&index, p))
            .collect();
        let mut passes = pass(&members, &framer, &heads, 1)?;
        let logits = runs.iter().all(|run| run.recipe.outputs_logits()).then(|| {
            let side_by_side = passes.outputs.swap_remove(0);
            let of_members = side_by_side.axis_chunks_iter(Axis(1), individuals);
            of_members.fold(
                Array2::zeros((heads.len(), individuals)),
                |sum, of_member| sum + of_member,
            ) / runs.len() as f64
        });
        Ok(Seen {
            features: passes.features.swap_remove(0),
            logits,
        })
    };
    let seen = see(&held_out)?;
    let namer = Namer::fit(&see(&trained)?.features, whales, individuals, &seen, &truth)?;
    let named = namer.name(&seen);
    let judged: Vec<(f64, bool)> = named
        .iter()
        .zip(&truth)
        .map(|(&(whale, probability), &truth)| (probability, whale == truth))
        .collect();
    let threshold = choose_threshold(&judged, args.precision).with_context(|| {
        format!(
            "from no probability on {:.0} % of at least ten photographs of fold {fold} are named rightly; lower \
             --precision",
            100.0 * args.precision
        )
    })?;
    let labels: Vec<PseudoLabel> = unnamed
        .iter()
        .zip(namer.name(&see(&unnamed)?))
        .filter(|(_, (_, probability))| *probability >= threshold.probability)
        .map(|(photograph, (whale, probability))| PseudoLabel {
            image: photograph.image.clone(),
            individual: split.individuals[whale].clone(),
            probability,
        })
        .collect();
    println!(
        "probability from {:.3} on: {:.1} % of the {} photographs of fold {fold} named, {:.1} % of those \
         rightly",
        threshold.probability,
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
    write_json(&args.out, &PseudoLabels::new(&runs, threshold, labels))?;
    Ok(())
}
