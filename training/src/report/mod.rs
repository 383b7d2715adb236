//! What the classifiers of several runs reach on the same photographs, as one self-contained HTML page.
//!
//! Every number follows from the run folders, the index and the split; none is typed.

mod boxes;
mod page;
mod plots;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::cache::Cache;
use crate::compose::Composer;
use crate::evaluation::{Answer, NamingMetrics, naming};
use crate::features::{HeadPhotograph, extract_framed, last_layer};
use crate::framing::Framer;
use crate::index::{Index, IndexedPhotograph};
use crate::metrics::{CALIBRATION_BINS, reliability};
use crate::run_folder::TrainedRun;
use crate::split::{Role, Split};
use crate::stack::Opinions;

pub use boxes::{BoxRow, Boxes};
pub use page::render;

/// Confusions and mistakes that are shown.
const SHOWN: usize = 12;

/// Whales by how many photographs they were trained on: name, fewest, most.
const CLASSES: [(&str, usize, usize); 4] = [
    ("1", 1, 1),
    ("2 to 5", 2, 5),
    ("6 to 15", 6, 15),
    ("more", 16, usize::MAX),
];

/// What a classifier says of one photograph that it was not trained on.
struct Prediction<'a> {
    photograph: &'a IndexedPhotograph,
    whale: &'a str,
    /// Its place in the catalogue; `None` where the catalogue lacks it.
    class: Option<usize>,
    /// One for each individual of the catalogue.
    probabilities: Vec<f64>,
    /// Place in the catalogue of the most probable one, and its probability.
    best: (usize, f64),
}

/// One run's row in the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Name of the recipe.
    pub recipe: String,
    /// Trainable parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Epochs that were trained.
    pub epochs: u32,
    /// Epochs of the recipe's schedule; more than `epochs` where the run has not come to its end.
    pub scheduled_epochs: u32,
    /// Images trained in a second, in the last epoch.
    pub images_per_second: Option<f64>,
    /// On validation photographs, and on those of unknown whales.
    pub naming: NamingMetrics,
    /// Top-1 of whales by their number of training photographs: 1, 2 to 5, 6 to 15, more.
    pub top1_by_photographs: Vec<Option<f64>>,
}

/// Everything that the page shows.
pub struct Report {
    rows: Vec<Row>,
    /// What localisers reach.
    pub boxes: Boxes,
    classes: Vec<&'static str>,
    validation: usize,
    unknown: usize,
    photographs_a_whale: String,
    curves: Vec<(String, String)>,
    reliability: Vec<(String, String)>,
    best: String,
    confusions: Vec<Confusion>,
    mistakes: Vec<Mistake>,
}

/// A whale that was taken for another one.
struct Confusion {
    whale: String,
    named: String,
    times: usize,
    seen: HeadPhotograph,
    /// A training photograph of the whale that was named.
    like: HeadPhotograph,
}

/// A photograph whose whale was thought unlikely.
struct Mistake {
    photograph: HeadPhotograph,
    whale: String,
    /// Probability of the true whale.
    probability: f64,
    named: String,
    named_probability: f64,
    like: HeadPhotograph,
}

impl Report {
    /// Measures the runs, one view of each photograph, no temperature. `cache` is needed only where a run
    /// [composes frames](crate::recipe::Recipe::composes_frames).
    ///
    /// # Errors
    /// A run is no classifier of this data and split, or a photograph cannot be read.
    pub fn new(
        runs: &[TrainedRun],
        index: &Index,
        split: &Split,
        cache: Option<&Cache>,
    ) -> anyhow::Result<Self> {
        let measured = |role| matches!(role, Role::Validation | Role::Unknown);
        let photographs: Vec<(&IndexedPhotograph, &str, Role)> =
            split.labelled(index, measured).collect();
        ensure!(
            !photographs.is_empty(),
            "the split has no validation photographs"
        );
        let mut trained_on: BTreeMap<&str, usize> = BTreeMap::new();
        let mut example: HashMap<&str, &IndexedPhotograph> = HashMap::new();
        for (photograph, whale, _) in
            split.labelled(index, |role| matches!(role, Role::Training { .. }))
        {
            *trained_on.entry(whale).or_default() += 1;
            example.entry(whale).or_insert(photograph);
        }

        let mut report = Self {
            rows: Vec::new(),
            boxes: Boxes::default(),
            classes: CLASSES.iter().map(|class| class.0).collect(),
            validation: photographs
                .iter()
                .filter(|p| p.2 == Role::Validation)
                .count(),
            unknown: photographs.iter().filter(|p| p.2 == Role::Unknown).count(),
            photographs_a_whale: plots::histogram(
                "training photographs of a whale",
                "whales",
                trained_on.values().copied(),
            )?,
            curves: Vec::new(),
            reliability: Vec::new(),
            best: String::new(),
            confusions: Vec::new(),
            mistakes: Vec::new(),
        };
        let mut best_loss = f64::INFINITY;
        for run in runs {
            let predictions = predict(run, index, split, cache, &photographs)?;
            let row = row(run, split, &predictions, &trained_on);
            let name = row.recipe.clone();
            let curves = run.folder.join("learning_curves.svg");
            let svg = std::fs::read_to_string(&curves)
                .with_context(|| format!("reading {}", curves.display()))?;
            report.curves.push((name.clone(), svg));
            let confident: Vec<(f64, bool)> = predictions
                .iter()
                .filter_map(|p| Some((p.best.1, p.class? == p.best.0)))
                .collect();
            let bins = reliability(&confident, CALIBRATION_BINS);
            report
                .reliability
                .push((name.clone(), plots::reliability(&bins)?));
            let loss = row.naming.log_loss.unwrap_or(f64::INFINITY);
            report.rows.push(row);
            if loss < best_loss {
                best_loss = loss;
                report.best = name;
                report.confusions = confusions(&predictions, split, index, &example);
                report.mistakes = mistakes(&predictions, split, index, &example);
            }
        }
        Ok(report)
    }

    /// The table's rows, in the order of the runs.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

fn predict<'a>(
    run: &TrainedRun,
    index: &'a Index,
    split: &'a Split,
    cache: Option<&Cache>,
    photographs: &[(&'a IndexedPhotograph, &'a str, Role)],
) -> anyhow::Result<Vec<Prediction<'a>>> {
    run.expect(crate::recipe::Task::Classifier)?;
    ensure!(
        run.record.split_digest == split.digest(),
        "{} was trained on split {}, this is {}: a photograph that is measured here may have trained it",
        run.folder.display(),
        run.record.split_digest,
        split.digest()
    );
    let heads: Vec<HeadPhotograph> = photographs
        .iter()
        .map(|(photograph, ..)| HeadPhotograph::of(index, photograph))
        .collect();
    let framer = Framer::new(&run.recipe.input, || -> anyhow::Result<Composer> {
        let cache = cache.context("composing frames needs the cache of photographs")?;
        let fold = run.record.held_out_fold;
        Ok(Composer::of_held_out_fold(index, split, cache, fold)?)
    })?;
    let features = extract_framed(&[&run.network], &framer, &heads, 1)?.swap_remove(0);
    let (weight, bias) = last_layer(&run.network)?;
    let logits = features.dot(&weight.t()) + &bias;
    let opinions = Opinions::of(&[logits], 1.0);
    Ok(photographs
        .iter()
        .zip(opinions.probabilities.rows())
        .zip(opinions.best())
        .map(
            |((&(photograph, whale, _), probabilities), best)| Prediction {
                photograph,
                whale,
                class: split.individual_index(whale),
                probabilities: probabilities.to_vec(),
                best,
            },
        )
        .collect())
}

fn row(
    run: &TrainedRun,
    split: &Split,
    predictions: &[Prediction<'_>],
    trained_on: &BTreeMap<&str, usize>,
) -> Row {
    let answers: Vec<Answer> = predictions
        .iter()
        .map(|p| {
            let mut candidates: Vec<(String, f64)> = split
                .individuals
                .iter()
                .cloned()
                .zip(p.probabilities.iter().copied())
                .collect();
            candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
            Answer {
                unknown: 1.0 - p.best.1,
                candidates,
                truth: p.whale.to_owned(),
                catalogued: p.class.is_some(),
            }
        })
        .collect();
    let top1_by_photographs = CLASSES
        .iter()
        .map(|&(_, fewest, most)| {
            let of_class: Vec<bool> = predictions
                .iter()
                .filter(|p| {
                    let n = trained_on.get(p.whale).copied().unwrap_or(0);
                    (fewest..=most).contains(&n)
                })
                .filter_map(|p| Some(p.class? == p.best.0))
                .collect();
            let right = of_class.iter().filter(|right| **right).count();
            (!of_class.is_empty()).then(|| right as f64 / of_class.len() as f64)
        })
        .collect();
    Row {
        recipe: run.recipe.name.clone(),
        parameters: run.record.parameters,
        multiply_adds: run.record.multiply_adds,
        epochs: run.record.epochs_completed,
        scheduled_epochs: run.recipe.schedule.epochs,
        images_per_second: run.record.metrics.get("images_per_second").copied(),
        naming: naming(&answers),
        top1_by_photographs,
    }
}

fn confusions(
    predictions: &[Prediction<'_>],
    split: &Split,
    index: &Index,
    example: &HashMap<&str, &IndexedPhotograph>,
) -> Vec<Confusion> {
    let mut pairs: BTreeMap<(usize, usize), Vec<&Prediction<'_>>> = BTreeMap::new();
    for prediction in predictions {
        let best = prediction.best.0;
        if let Some(class) = prediction.class
            && class != best
        {
            pairs.entry((class, best)).or_default().push(prediction);
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.len()));
    pairs
        .into_iter()
        .filter_map(|((class, best), seen)| {
            let named = split.individuals[best].as_str();
            Some(Confusion {
                whale: split.individuals[class].clone(),
                named: named.to_owned(),
                times: seen.len(),
                seen: HeadPhotograph::of(index, seen.first()?.photograph),
                like: HeadPhotograph::of(index, example.get(named)?),
            })
        })
        .take(SHOWN)
        .collect()
}

fn mistakes(
    predictions: &[Prediction<'_>],
    split: &Split,
    index: &Index,
    example: &HashMap<&str, &IndexedPhotograph>,
) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = predictions
        .iter()
        .filter_map(|p| {
            let (class, (best, named_probability)) = (p.class?, p.best);
            let named = split.individuals[best].as_str();
            (class != best).then_some(())?;
            Some(Mistake {
                photograph: HeadPhotograph::of(index, p.photograph),
                whale: p.whale.to_owned(),
                probability: p.probabilities[class],
                named: named.to_owned(),
                named_probability,
                like: HeadPhotograph::of(index, example.get(named)?),
            })
        })
        .collect();
    mistakes.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    mistakes.truncate(SHOWN);
    mistakes
}
