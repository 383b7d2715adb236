//! What the classifiers and aligners of several runs reach on the same photographs, as one self-contained
//! HTML page and as a [`Table`] whose rows outlive the run folders.
//!
//! Every number follows from the run folders, the index and the split; none is typed.

mod boxes;
mod classifiers;
mod landmarks;
mod page;
mod plots;
mod stacks;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::features::HeadPhotograph;
use crate::framing::{Framer, HeldOutComposers};
use crate::index::{Index, IndexedPhotograph};
use crate::metrics::{CALIBRATION_BINS, ReliabilityBin, reliability};
use crate::neighbours::nearest;
use crate::progress::progress_bar;
use crate::recipe::Task;
use crate::run_folder::{TrainedRun, check_names};
use crate::saliency::{Figure, Occlusion, places};
use crate::split::{Role, Split};

use boxes::MeasuredLocaliser;
use classifiers::{Labelled, Measured, Prediction};
use landmarks::MeasuredAligner;
use stacks::OpenStack;

pub use boxes::LocaliserRow;
pub use page::render;
pub use table::{AlignerRow, ClassifierRow, NamedBy, StackRow, Table, Trained, ViewsError};

/// Confusions and mistakes that are shown.
const SHOWN: usize = 12;
/// Unknown whales that are shown with the photographs most similar to them, and how many of these.
const STRANGERS: usize = 8;
const NEIGHBOURS: usize = 4;
/// Photographs whose saliency is shown, the seed by which they are drawn, and the height of a map in pixels.
const SALIENT: usize = 4;
const SALIENT_SEED: u64 = 0;
const SALIENT_HEIGHT: u32 = 150;
/// Coarser than the saliency command's, of which the page is a glimpse.
const OCCLUSION: Occlusion = Occlusion {
    patch: 0.2,
    stride: 0.08,
};

/// Whales by how many photographs they were trained on: name, fewest, most.
const CLASSES: [(&str, usize, usize); 4] = [
    ("1", 1, 1),
    ("2 to 5", 2, 5),
    ("6 to 15", 6, 15),
    ("more", 16, usize::MAX),
];

/// What the page shows of the runs beside the table.
#[derive(Default)]
pub struct Report {
    measured: Table,
    photographs_a_whale: String,
    curves: Vec<(String, String)>,
    reliability: Vec<(String, String)>,
    best: Option<Best>,
    saliency: Vec<Figure>,
    /// Shares of crops over their error, and the error over the number of views.
    landmarks: Vec<String>,
    /// For each localiser how many frames have which intersection over union.
    overlaps: Vec<(String, String)>,
}

/// The way of naming with the least log loss, of all runs.
struct Best {
    /// Place of its run among those that were given.
    run: usize,
    name: String,
    named_by: NamedBy,
    confusions: Vec<Confusion>,
    mistakes: Vec<Mistake>,
    strangers: Vec<Stranger>,
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

/// A photograph of an unknown whale.
struct Stranger {
    photograph: HeadPhotograph,
    whale: String,
    /// The most similar training photographs, their whales, and the cosines.
    nearest: Vec<(HeadPhotograph, String, f64)>,
}

/// How many photographs of each whale a network was trained on that holds out this fold.
fn trained_on<'s>(index: &'s Index, split: &'s Split, fold: u32) -> BTreeMap<&'s str, usize> {
    let mut counts = BTreeMap::new();
    for (_, whale, _) in split.labelled(index, move |role| role.trains_outside(fold)) {
        *counts.entry(whale).or_default() += 1;
    }
    counts
}

/// The photographs of the validation part and of unknown whales.
fn measured_photographs<'i>(
    index: &'i Index,
    split: &'i Split,
) -> anyhow::Result<Vec<Labelled<'i>>> {
    let measured = |role| matches!(role, Role::Validation | Role::Unknown);
    let photographs: Vec<Labelled<'_>> = split
        .labelled(index, measured)
        .map(|(photograph, whale, _)| (photograph, whale))
        .collect();
    ensure!(
        photographs
            .iter()
            .any(|p| split.individual_index(p.1).is_some()),
        "the split has no validation photographs"
    );
    Ok(photographs)
}

impl Report {
    /// Measures the runs, of classifiers, aligners and localisers, and the stacks in these files, whose classifiers
    /// are among the runs. `cache` is the folder of decoded
    /// photographs from which pictures are composed; it is built where a network sees such and it is not
    /// there.
    ///
    /// # Errors
    /// A run is no classifier, aligner or localiser of this data and split, two run folders have one name, the run of a
    /// stack's classifier is missing, or a photograph cannot be read.
    pub fn new(
        runs: &[TrainedRun],
        stacks: &[PathBuf],
        index: &Index,
        split: &Split,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        for run in runs {
            run.expect_split(split)?;
            ensure!(
                matches!(
                    run.recipe.task,
                    Task::Classifier | Task::Aligner | Task::Localiser
                ),
                "{}: a report compares classifiers, aligners and localisers, this run trained a {:?}; give the \
                 classifier that started from it, or for a finder `evaluate` its bundle on frames",
                run.folder.display(),
                run.recipe.task
            );
        }
        check_names(runs)?;
        let stacks: Vec<OpenStack<'_>> = stacks
            .iter()
            .map(|path| OpenStack::open(path, runs, split))
            .collect::<anyhow::Result<_>>()?;
        let mut of_training: BTreeMap<&str, usize> = BTreeMap::new();
        let training = |role| matches!(role, Role::Training { .. });
        for (_, whale, _) in split.labelled(index, training) {
            *of_training.entry(whale).or_default() += 1;
        }
        let mut report = Self {
            photographs_a_whale: plots::histogram(
                "training photographs of a whale",
                "whales",
                of_training.values().copied(),
            )?,
            ..Self::default()
        };
        for run in runs {
            let curves = run.folder.join("learning_curves.svg");
            let svg = std::fs::read_to_string(&curves)
                .with_context(|| format!("reading {}", curves.display()))?;
            report.curves.push((run.name.clone(), svg));
        }
        let of = |task| -> Vec<&TrainedRun> {
            runs.iter().filter(|run| run.recipe.task == task).collect()
        };
        let mut composers = HeldOutComposers::new(index, split, cache);
        report.add_classifiers(&of(Task::Classifier), &mut composers)?;
        if !stacks.is_empty() {
            let photographs = measured_photographs(index, split)?;
            for stack in &stacks {
                let rows = stack.measure(index, split, &photographs)?;
                report.measured.stacks.extend(rows);
            }
        }
        report.add_aligners(&of(Task::Aligner), &mut composers)?;
        report.add_localisers(&of(Task::Localiser), &mut composers)?;
        Ok(report)
    }

    /// The rows of the runs, in their order.
    pub fn measured(&self) -> &Table {
        &self.measured
    }

    fn add_classifiers(
        &mut self,
        runs: &[&TrainedRun],
        composers: &mut HeldOutComposers<'_>,
    ) -> anyhow::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let (index, split) = (composers.index, composers.split);
        let photographs = measured_photographs(index, split)?;
        let mut best_loss = f64::INFINITY;
        for (place, run) in runs.iter().enumerate() {
            let framer = composers.framer(run)?;
            let measured = Measured::new(run, &framer, index, split, &photographs)?;
            let bins: Vec<(String, Vec<ReliabilityBin>)> = measured
                .namings
                .iter()
                .map(|naming| {
                    let confident: Vec<(f64, bool)> = naming
                        .predictions
                        .iter()
                        .filter_map(|p| Some((p.best.1, p.class? == p.best.0)))
                        .collect();
                    let bins = reliability(&confident, CALIBRATION_BINS);
                    (naming.row.named_by.to_string(), bins)
                })
                .collect();
            self.reliability
                .push((run.name.clone(), plots::reliability(&bins)?));
            for naming in &measured.namings {
                let row = &naming.row;
                let loss = row.naming.log_loss.unwrap_or(f64::INFINITY);
                if self.best.is_none() || loss < best_loss {
                    best_loss = loss;
                    let example = examples(&measured.gallery);
                    self.best = Some(Best {
                        run: place,
                        name: row.trained.name().to_owned(),
                        named_by: row.named_by,
                        confusions: confusions(&naming.predictions, split, index, &example),
                        mistakes: mistakes(&naming.predictions, split, index, &example),
                        strangers: strangers(&measured, &photographs, split, index),
                    });
                }
            }
            let rows = measured.namings.into_iter().map(|naming| naming.row);
            self.measured.classifiers.extend(rows);
        }
        self.add_saliency(runs, composers)
    }

    /// Maps of the first run and of the best one, of those that have logits.
    fn add_saliency(
        &mut self,
        runs: &[&TrainedRun],
        composers: &mut HeldOutComposers<'_>,
    ) -> anyhow::Result<()> {
        let (index, split) = (composers.index, composers.split);
        let best = self.best.as_ref().map_or(0, |best| best.run);
        let mut shown = vec![runs[0]];
        if best != 0 {
            shown.push(runs[best]);
        }
        shown.retain(|run| run.recipe.outputs_logits());
        if shown.is_empty() {
            return Ok(());
        }
        let shown: Vec<(&TrainedRun, Framer)> = shown
            .into_iter()
            .map(|run| Ok((run, composers.framer(run)?)))
            .collect::<anyhow::Result<_>>()?;
        let validation: Vec<_> = split.labelled(index, |r| r == Role::Validation).collect();
        let mut random = ChaCha8Rng::seed_from_u64(SALIENT_SEED);
        let chosen: Vec<_> = validation.choose_multiple(&mut random, SALIENT).collect();
        let bar = progress_bar("patches", places(&OCCLUSION) * chosen.len() * shown.len());
        for (photograph, whale, _) in chosen {
            let head = HeadPhotograph::of(index, photograph);
            let figure = Figure::new(&shown, &head, whale, &OCCLUSION, SALIENT_HEIGHT, &bar)?;
            self.saliency.push(figure);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn add_localisers(
        &mut self,
        runs: &[&TrainedRun],
        composers: &mut HeldOutComposers<'_>,
    ) -> anyhow::Result<()> {
        for run in runs {
            let measured = MeasuredLocaliser::new(run, &composers.of(run)?)?;
            let histogram = measured.histogram()?;
            self.overlaps.push((run.name.clone(), histogram));
            self.measured.localisers.push(measured.row);
        }
        Ok(())
    }

    fn add_aligners(
        &mut self,
        runs: &[&TrainedRun],
        composers: &mut HeldOutComposers<'_>,
    ) -> anyhow::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let (mut cumulative, mut by_views) = (Vec::new(), Vec::new());
        for run in runs {
            let composer = composers.of(run)?;
            let measured = MeasuredAligner::new(run, &composer)?;
            let name = &run.name;
            cumulative.push((name.clone(), measured.cumulative()));
            let of_views = |end: &str, error: fn(&ViewsError) -> f64| {
                let points = measured.row.by_views.iter();
                let points = points.map(|v| (f64::from(v.views), error(v)));
                (format!("{name}, {end}"), points.collect::<Vec<_>>())
            };
            by_views.push(of_views("median", |v| v.median));
            by_views.push(of_views("90th percentile", |v| v.percentile_90));
            self.measured.aligners.push(measured.row);
        }
        self.landmarks = vec![
            plots::lines("error, head lengths", "share of crops", &cumulative)?,
            plots::lines("views averaged", "error, head lengths", &by_views)?,
        ];
        Ok(())
    }
}

/// A photograph of each whale of a gallery.
fn examples<'a>(gallery: &[Labelled<'a>]) -> HashMap<&'a str, &'a IndexedPhotograph> {
    let mut example = HashMap::new();
    for &(photograph, whale) in gallery {
        example.entry(whale).or_insert(photograph);
    }
    example
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

/// The first photograph of some unknown whales with its neighbours.
fn strangers(
    measured: &Measured<'_>,
    photographs: &[Labelled<'_>],
    split: &Split,
    index: &Index,
) -> Vec<Stranger> {
    let mut seen = HashSet::new();
    photographs
        .iter()
        .zip(measured.similarities.rows())
        .filter(|((_, whale), _)| split.individual_index(whale).is_none() && seen.insert(*whale))
        .map(|((photograph, whale), similarities)| Stranger {
            photograph: HeadPhotograph::of(index, photograph),
            whale: (*whale).to_owned(),
            nearest: nearest(similarities, NEIGHBOURS)
                .into_iter()
                .map(|(place, similarity)| {
                    let (photograph, whale) = measured.gallery[place];
                    let head = HeadPhotograph::of(index, photograph);
                    (head, whale.to_owned(), similarity)
                })
                .collect(),
        })
        .take(STRANGERS)
        .collect()
}
