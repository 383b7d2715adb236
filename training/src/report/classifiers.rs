//! One classifier measured: by its own outputs, by its nearest neighbours, and by both.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use ndarray::{Array1, Array2, Axis, s};

use super::table::{ClassifierRow, NamedBy, Trained};
use super::{CLASSES, trained_on};
use crate::evaluation::{Answer, NamingMetrics, naming};
use crate::features::{HeadPhotograph, pass};
use crate::framing::Framer;
use crate::index::{Index, IndexedPhotograph};
use crate::neighbours::{NearestNeighbours, blend, fit_share, strangeness};
use crate::run_folder::TrainedRun;
use crate::split::Split;
use crate::stack::{Opinions, fit_temperature, most_probable};

/// A photograph with its whale.
pub(super) type Labelled<'a> = (&'a IndexedPhotograph, &'a str);

/// What a classifier says of one photograph that it was not trained on.
pub(super) struct Prediction<'a> {
    pub photograph: &'a IndexedPhotograph,
    pub whale: &'a str,
    /// Its place in the catalogue; `None` where the catalogue lacks it.
    pub class: Option<usize>,
    /// One for each individual of the catalogue.
    pub probabilities: Vec<f64>,
    /// Place in the catalogue of the most probable one, and its probability.
    pub best: (usize, f64),
    /// How strange the whale is, the higher the more.
    strangeness: f64,
}

/// A way of naming with what it says of the measured photographs.
pub(super) struct Naming<'a> {
    pub row: ClassifierRow,
    pub predictions: Vec<Prediction<'a>>,
}

/// A classifier on the photographs that are measured.
pub(super) struct Measured<'a> {
    pub namings: Vec<Naming<'a>>,
    /// The photographs that it was trained on.
    pub gallery: Vec<Labelled<'a>>,
    /// Cosine of each measured photograph with each of the gallery.
    pub similarities: Array2<f64>,
}

impl<'a> Prediction<'a> {
    /// `probabilities` has one for each individual of the split's catalogue.
    pub fn new(
        split: &Split,
        photograph: &'a IndexedPhotograph,
        whale: &'a str,
        probabilities: Vec<f64>,
        strangeness: f64,
    ) -> Self {
        Self {
            photograph,
            whale,
            class: split.individual_index(whale),
            best: most_probable(probabilities.iter().copied()),
            probabilities,
            strangeness,
        }
    }
}

impl<'a> Measured<'a> {
    /// Measures a run on `photographs`, which are of the validation part or of unknown whales: one view of
    /// each, as `framer` frames it, logits as they come out of training. What the other ways of naming need
    /// is fitted on the run's held-out fold; without one there is naming by logits alone.
    pub fn new(
        run: &TrainedRun,
        framer: &Framer,
        index: &'a Index,
        split: &'a Split,
        photographs: &[Labelled<'a>],
    ) -> anyhow::Result<Self> {
        let fold = run.record.held_out_fold;
        let without_role = |(photograph, whale, _)| (photograph, whale);
        let gallery = split.labelled(index, move |role| role.trains_outside(fold));
        let held_out = split.labelled(index, move |role| role.trains_in(fold));
        let gallery: Vec<Labelled<'a>> = gallery.map(without_role).collect();
        let held_out: Vec<Labelled<'a>> = held_out.map(without_role).collect();
        let heads: Vec<HeadPhotograph> = [photographs, &gallery, &held_out]
            .into_iter()
            .flatten()
            .map(|(photograph, _)| HeadPhotograph::of(index, photograph))
            .collect();
        let mut passes =
            pass(&[run], framer, &heads, 1).with_context(|| run.folder.display().to_string())?;
        let (features, outputs) = (
            passes.features.swap_remove(0),
            passes.outputs.swap_remove(0),
        );
        let (first, second) = (photographs.len(), photographs.len() + gallery.len());

        let class = |&(_, whale): &Labelled<'_>| {
            let class = split.individual_index(whale);
            class.with_context(|| format!("{whale} trains but is not in the split's catalogue"))
        };
        let classes =
            |of: &[Labelled<'_>]| of.iter().map(class).collect::<anyhow::Result<Vec<_>>>();
        let neighbours = NearestNeighbours::new(
            &features.slice(s![first..second, ..]).to_owned(),
            classes(&gallery)?,
            split.individuals.len(),
        );
        let labels = classes(&held_out)?;
        let of_measured = neighbours.similarities(&features.slice(s![..first, ..]).to_owned());
        let of_held_out = neighbours.similarities(&features.slice(s![second.., ..]).to_owned());

        let trained_on = trained_on(index, split, fold);
        let named =
            |named_by, temperature, share, logits: &Array2<f64>, strangeness: Array1<f64>| {
                let predictions = predictions(split, photographs, logits, &strangeness);
                let row = row(run, split, &predictions, &trained_on);
                let row = ClassifierRow {
                    named_by,
                    neighbour_temperature: temperature,
                    neighbour_share: share,
                    ..row
                };
                Naming { row, predictions }
            };
        let probabilities =
            |logits: &Array2<f64>| Opinions::of(std::slice::from_ref(logits), 1.0).probabilities;
        let mut namings = Vec::new();
        // A network without a classification loss has outputs that are no logits: it names by its
        // neighbours alone.
        let logits = run.recipe.outputs_logits().then(|| {
            (
                outputs.slice(s![..first, ..]).to_owned(),
                outputs.slice(s![second.., ..]).to_owned(),
            )
        });
        if let Some((logits, _)) = &logits {
            let doubt = strangeness(&probabilities(logits));
            namings.push(named(NamedBy::Logits, None, None, logits, doubt));
        }
        if !held_out.is_empty() {
            let scores = neighbours.scores(&of_measured);
            let fold_scores = neighbours.scores(&of_held_out);
            let temperature = fit_temperature(std::slice::from_ref(&fold_scores), &labels)?;
            let far = strangeness(&scores);
            let (scores, fold_scores) = (scores / temperature, fold_scores / temperature);
            let by = NamedBy::Neighbours;
            namings.push(named(by, Some(temperature), None, &scores, far.clone()));
            if let Some((logits, fold_logits)) = &logits {
                let share = fit_share(fold_logits, &fold_scores, &labels)?;
                // At its ends the blend is one of the rows above.
                if share > 0.0 && share < 1.0 {
                    let blended = blend(logits, &scores, share);
                    let doubt = strangeness(&probabilities(logits)) * (1.0 - share) + far * share;
                    let (by, temperature) = (NamedBy::Both, Some(temperature));
                    namings.push(named(by, temperature, Some(share), &blended, doubt));
                }
            }
        }
        ensure!(
            !namings.is_empty(),
            "{}: fold {} has no photographs, so that nothing can be fitted by which it would name",
            run.folder.display(),
            run.record.held_out_fold
        );
        Ok(Self {
            namings,
            gallery,
            similarities: of_measured,
        })
    }
}

fn predictions<'a>(
    split: &Split,
    photographs: &[Labelled<'a>],
    logits: &Array2<f64>,
    strangeness: &Array1<f64>,
) -> Vec<Prediction<'a>> {
    let opinions = Opinions::of(std::slice::from_ref(logits), 1.0);
    let rows = opinions.probabilities.axis_iter(Axis(0));
    let each = photographs.iter().zip(rows.zip(strangeness));
    each.map(|(&(photograph, whale), (probabilities, &strangeness))| {
        Prediction::new(
            split,
            photograph,
            whale,
            probabilities.to_vec(),
            strangeness,
        )
    })
    .collect()
}

fn row(
    run: &TrainedRun,
    split: &Split,
    predictions: &[Prediction<'_>],
    trained_on: &BTreeMap<&str, usize>,
) -> ClassifierRow {
    let (naming, top1_by_photographs) =
        naming_and_top1_by_photographs(split, predictions, trained_on);
    ClassifierRow {
        trained: Trained::of(run),
        named_by: NamedBy::Logits,
        neighbour_temperature: None,
        neighbour_share: None,
        naming,
        top1_by_photographs,
    }
}

/// How well whales are named, and the top-1 of those in each of [`CLASSES`]. `trained_on` counts training
/// photographs of each whale.
pub(super) fn naming_and_top1_by_photographs(
    split: &Split,
    predictions: &[Prediction<'_>],
    trained_on: &BTreeMap<&str, usize>,
) -> (NamingMetrics, Vec<Option<f64>>) {
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
                unknown: p.strangeness,
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
    (naming(&answers), top1_by_photographs)
}
