//! Which photographs a bundle's gallery keeps, and what similarity to them is worth.
//!
//! # The model
//! [`NeighbourModel`] says how neighbours enter the logits `l_k(θ)` of the catalogue and of who is enrolled. Its
//! slope, intercept and share, the temperature, and the model of "unknown" are fitted together, by the greatest
//! likelihood of what the decision in flight says of photographs that no network saw: with
//! the [score](recognition::bundle::UnknownScore) `S` and `u = 1 / (1 + exp(−(a + b·S)))`,
//!
//! - a photograph of a catalogued whale `y` of the held-out fold has the loss `−ln (1 − u) − ln p(y)`, where
//!   `p` is the softmax of `l`, averaged over views, of the catalogue **and** all whales that are enrolled below;
//! - whales held out whole stand for those that will be enrolled: each that has at least two photographs is
//!   enrolled by up to five of them, drawn for each photograph that is looked at, but never by that one, and the
//!   photograph has the loss `−ln (1 − u) − ln p(y)` as well;
//! - the same photographs stand for whales that nobody knows: its whale is not enrolled, the others are, and
//!   the loss is `−ln u`.
//!
//! So an enrolled whale's logit is fitted against the catalogue's (whom it must not take photographs from),
//! against the other enrolled ones, and against strangers (who must stay unknown though somebody like them is
//! enrolled). One likelihood holds all of it, and so one softmax. The three kinds are weighted by how often
//! they are met: strangers by [`StackOptions::stranger_share`], enrolled whales, each whale alike, by
//! [`StackOptions::enrolled_share`] of the rest. Slope and `−b` are fitted as exponentials, so that a nearer
//! photograph always speaks for its whale, and against "unknown".
//!
//! The likelihood is that of one whale, on average, and there may be few of them: whales, not photographs, are
//! what the parameters must hold for. So it is the posterior that is greatest, under a normal prior about where
//! an enrolled whale that is seen again is about as likely as the whole catalogue; the prior weighs as much as
//! one of the enrolled whales.
//!
//! # Telling strangers by more
//! The [features](UnknownFeature) of [`StackOptions::unknown_features`] are not all smooth in the parameters, so their
//! weights are fitted afterwards, by a logistic regression on the same photographs in the same parts with the same
//! weights; before, the concentration stands for them. Catalogued whales and strangers are taken as they are met while
//! nobody is enrolled.
//!
//! # What is measured
//! Thresholds, and how well strangers are told, come of a cross-validation: photographs of the held-out fold and the
//! whales held out whole are dealt into parts, and all of the above is fitted anew without each part, whose photographs
//! it then judges ([`decisions`]).
//!
//! One temperature serves two ends here: how sure a name is, and how far a score tells a stranger. Where
//! [`StackOptions::power`] is fitted, the power is what brings the first right afterwards: it is fitted on the
//! catalogued photographs as the gallery names them, and moves no score.
//!
//! Nothing of this is fitted where fewer than two whales that were held out have two photographs.
//!
//! # Which photographs
//! Of each whale those that stand best for all it has: greedily the one more that raises the sum over its
//! photographs of the similarity to the nearest one chosen the most (facility location; Nemhauser, Wolsey &
//! Fisher 1978, within 1 − 1/e of the best choice). Photographs far from all others, which are mostly bad ones,
//! come last.

use ndarray::{Array1, Array2, ArrayView1, Axis, concatenate};
use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::bundle::{
    Confidence, DecisionRule, Gallery, GalleryError, NeighbourModel, UnknownFeature, UnknownModel,
    UnknownScore,
};
use recognition::identify::{
    Cohort, Compared, Evidence, Familiarity, GalleryStatistics, Similarities, concentration,
    mean_embedding, relation,
};
use serde::{Deserialize, Serialize};

use crate::decisions::{self, Judged, JudgedHeads, Separation, count_different};
use crate::neighbours::photographs_of_whales;
use crate::onnx::Head;
use crate::stack::{
    Fitted, Opinions, Power, StackError, StackOptions, Standardisation, fit_power,
    fit_unknown_features, judged, minimise, sigmoid, softplus,
};

/// Fewest whales that are enrolled for the fit.
const FEWEST_WHALES: usize = 2;
/// Most photographs by which one of them is enrolled: the more there are the likelier is one of them near.
const PHOTOGRAPHS_ENROLLED: usize = 5;
/// Share of the neighbours, and how fast their logit rises with the cosine, before anything was seen.
const SHARE: f64 = 0.3;
const SLOPE: f64 = 10.0;
/// How far each parameter may well lie from where the search starts, in its own unit: see [`PARAMETERS`].
const PRIOR_DEVIATIONS: [f64; PARAMETERS] = [0.5, 2.0, 1.0, 2.0, 1.0, 1.0];

/// Embeddings of photographs, one a row, from their [features](crate::features::extract) in each view: as
/// the exported ensemble computes them.
///
/// # Panics
/// Where the head's lengths do not go together.
pub fn embeddings(views: &[Array2<f64>], head: &Head) -> Array2<f32> {
    let standardisation = Standardisation::from(head);
    let width = head.mean.len();
    let whitening = head.whitening.as_ref().map(|values| {
        Array2::from_shape_fn((width, width), |(i, j)| f64::from(values[i * width + j]))
    });
    let views: Vec<Array2<f32>> = views
        .iter()
        .map(|view| {
            let standardised = standardisation.apply(&view.view());
            let whitened = match &whitening {
                Some(whitening) => standardised.dot(whitening),
                None => standardised,
            };
            whitened.mapv(|v| v as f32)
        })
        .collect();
    let photographs = views.first().map_or(0, Array2::nrows);
    let mut result = Array2::zeros((photographs, width));
    for (photograph, mut row) in result.rows_mut().into_iter().enumerate() {
        let units = views.iter().map(|view| {
            let features = view.row(photograph).to_vec();
            mean_embedding(std::iter::once(features.as_slice()))
        });
        let units: Vec<Vec<f32>> = units.collect();
        let mean = mean_embedding(units.iter().map(Vec::as_slice));
        row.assign(&ArrayView1::from(&mean));
    }
    result
}

/// Of each whale at most `limit` photographs, in rising order. `whales` says whose each row of `embeddings` is.
pub fn choose(embeddings: &Array2<f32>, whales: &[usize], limit: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = photographs_of_whales(whales)
        .into_values()
        .flat_map(|photographs| {
            if photographs.len() <= limit {
                return photographs;
            }
            let own = embeddings.select(Axis(0), &photographs);
            let cosines = own.dot(&own.t());
            let mut best = vec![-1.0_f32; photographs.len()];
            let mut left: Vec<usize> = (0..photographs.len()).collect();
            let mut taken = Vec::with_capacity(limit);
            while taken.len() < limit {
                let gain = |candidate: usize| -> f32 {
                    let pairs = best.iter().zip(cosines.row(candidate));
                    pairs.map(|(best, cosine)| (cosine - best).max(0.0)).sum()
                };
                let gains = left.iter().map(|&candidate| gain(candidate));
                // Of equals the first, so that the choice does not depend on how a maximum is sought.
                let (at, _) = gains.enumerate().fold((0, f32::NEG_INFINITY), |most, one| {
                    if one.1 > most.1 { one } else { most }
                });
                let candidate = left.remove(at);
                for (best, cosine) in best.iter_mut().zip(cosines.row(candidate)) {
                    *best = best.max(*cosine);
                }
                taken.push(photographs[candidate]);
            }
            taken
        })
        .collect();
    chosen.sort_unstable();
    chosen
}

/// The gallery of some rows of embeddings.
///
/// # Errors
/// An embedding is no unit vector.
pub fn gallery(
    embeddings: &Array2<f32>,
    whales: &[usize],
    rows: &[usize],
) -> Result<Gallery, GalleryError> {
    let mut gallery = Gallery::new(embeddings.ncols());
    for &row in rows {
        gallery.push(&embeddings.row(row).to_vec(), whales[row] as u32)?;
    }
    Ok(gallery)
}

/// What the fit learns from.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The stack, with the logits of all photographs.
    pub stack: &'a Fitted,
    /// Whose the photographs of the held-out fold are, in the catalogue.
    pub labels: &'a [usize],
    /// Their embeddings.
    pub known: &'a Array2<f32>,
    /// Whose the photographs of the whales held out whole are: any numbers.
    pub whales: &'a [usize],
    /// Their embeddings.
    pub strangers: &'a Array2<f32>,
}

/// What the held-out photographs say of a gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GalleryReport {
    /// Log loss of catalogued whales, nobody enrolled.
    pub log_loss: f64,
    /// Share of them whose first candidate is right.
    pub top1: f64,
    /// Whales that were enrolled, all together.
    pub enrolled_whales: usize,
    /// Their photographs, each left out in turn.
    pub enrolled_photographs: usize,
    /// Share of these whose first candidate is right.
    pub enrolled_top1: f64,
    /// Share of these that are called unknown, before their whale is enrolled and after.
    pub unknown_before: f64,
    /// The same after.
    pub unknown_after: f64,
    /// Share of catalogued whales whose first candidate is right when the others are enrolled.
    pub top1_after: f64,
    /// How well known whales and strangers, each judged by what saw neither photograph nor stranger, can be decided.
    #[serde(default)]
    pub separation: Separation,
}

/// What similarity is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedGallery {
    /// For the manifest.
    pub neighbours: NeighbourModel,
    /// For the manifest, in place of the stack's.
    pub decision: DecisionRule,
    /// How good it is.
    pub report: GalleryReport,
}

impl Held<'_> {
    /// Some of the photographs: rows of the fold, and of the strangers'.
    fn select(&self, [known, strangers]: &[Vec<usize>; 2]) -> Selection {
        let rows = |views: &[Array2<f64>], rows: &[usize]| -> Vec<Array2<f64>> {
            views.iter().map(|v| v.select(Axis(0), rows)).collect()
        };
        let of = |all: &[usize], rows: &[usize]| rows.iter().map(|&row| all[row]).collect();
        Selection {
            stack: Fitted {
                held_out: rows(&self.stack.held_out, known),
                strangers: rows(&self.stack.strangers, strangers),
                ..self.stack.clone()
            },
            labels: of(self.labels, known),
            known: self.known.select(Axis(0), known),
            whales: of(self.whales, strangers),
            strangers: self.strangers.select(Axis(0), strangers),
        }
    }
}

/// Some of the photographs that are held.
struct Selection {
    stack: Fitted,
    labels: Vec<usize>,
    known: Array2<f32>,
    whales: Vec<usize>,
    strangers: Array2<f32>,
}

impl Selection {
    fn held(&self) -> Held<'_> {
        Held {
            stack: &self.stack,
            labels: &self.labels,
            known: &self.known,
            whales: &self.whales,
            strangers: &self.strangers,
        }
    }
}

/// What can be looked up of a gallery.
struct Reference<'a> {
    gallery: &'a Gallery,
    catalogue: usize,
    /// Where the features ask for them.
    statistics: Option<GalleryStatistics>,
}

impl<'a> Reference<'a> {
    fn new(gallery: &'a Gallery, catalogue: usize, options: &StackOptions) -> Self {
        let asked = options.unknown_score == UnknownScore::Features
            && options
                .unknown_features
                .iter()
                .any(|f| f.needs_statistics());
        Self {
            gallery,
            catalogue,
            statistics: asked
                .then(|| GalleryStatistics::of(gallery, catalogue))
                .flatten(),
        }
    }

    /// What the catalogue's photographs say of a head.
    fn familiarity(&self, embedding: ArrayView1<'_, f32>) -> Option<Familiarity> {
        self.statistics.as_ref().map(|s| s.familiarity(embedding))
    }

    /// What is said of photographs while nobody is enrolled: rows of `embeddings`, with each view's logits.
    fn judge(
        &self,
        views: &[Array2<f64>],
        embeddings: &Array2<f32>,
        labels: Option<&[usize]>,
        fitted: &Named,
    ) -> Vec<Judged> {
        embeddings
            .rows()
            .into_iter()
            .enumerate()
            .map(|(row, embedding)| {
                let nearest = self
                    .gallery
                    .similarities(&embedding.to_vec(), self.catalogue);
                let similarities = Similarities {
                    model: &fitted.neighbours,
                    nearest: &nearest,
                    familiarity: self.familiarity(embedding),
                };
                let decision = &fitted.decision;
                let evidence = evidence(views, row, decision.temperature.into(), similarities);
                let label = labels.map(|labels| labels[row]);
                judged(evidence, &decision.unknown, decision.power.into(), label)
            })
            .collect()
    }
}

/// What views of a photograph and its neighbours say, as in flight.
fn evidence(
    views: &[Array2<f64>],
    row: usize,
    temperature: f64,
    similarities: Similarities<'_>,
) -> Evidence {
    let logits: Vec<Vec<f32>> = views
        .iter()
        .map(|view| view.row(row).iter().map(|l| *l as f32).collect())
        .collect();
    Evidence::of(
        temperature,
        Some(similarities),
        logits.iter().map(Vec::as_slice),
    )
    .expect("there are views and individuals")
}

/// How heads are named and strangers told; thresholds are not chosen yet.
#[derive(Clone, Debug, PartialEq)]
struct Named {
    neighbours: NeighbourModel,
    decision: DecisionRule,
}

/// Fits what similarity to `gallery` is worth. `None` where too few whales were held out to simulate enrollment.
///
/// # Errors
/// The search does not converge.
pub fn fit(
    held: &Held<'_>,
    gallery: &Gallery,
    options: &StackOptions,
) -> Result<Option<FittedGallery>, StackError> {
    let Some(catalogue) = held.stack.held_out.first().map(Array2::ncols) else {
        return Ok(None);
    };
    let reference = Reference::new(gallery, catalogue, options);
    let Some(problem) = Problem::new(held, &reference, options) else {
        return Ok(None);
    };
    let parameters = problem.solve(held)?;
    let named = problem.named(&parameters, held, options)?;
    let judge = |held: &Held<'_>, named: &Named| {
        [
            reference.judge(&held.stack.held_out, held.known, Some(held.labels), named),
            reference.judge(&held.stack.strangers, held.strangers, None, named),
        ]
    };
    let (known, whales) = (held.labels.len(), held.whales);
    let cross_validated = decisions::cross_validate(known, whales, options, |part| {
        let fit = held.select(&part.fit);
        let Some(problem) = Problem::new(&fit.held(), &reference, options) else {
            return Ok(None);
        };
        let parameters = problem.solve(&fit.held())?;
        let named = problem.named(&parameters, &fit.held(), options)?;
        Ok(Some(judge(&held.select(&part.judge).held(), &named)))
    })?;
    let heads = cross_validated.unwrap_or_else(|| {
        let [known, strangers] = judge(held, &named);
        JudgedHeads {
            known,
            strangers,
            stranger_individuals: count_different(whales),
        }
    });
    problem
        .result(&parameters, named, &heads, held, options)
        .map(Some)
}

/// Number of parameters: ln temperature, log odds of the share, ln slope, neighbour logit at the centre, ln of how
/// much a deviation of the score tells against "unknown", log odds of "unknown" at the mean score.
const PARAMETERS: usize = 6;
/// The first of them move logits.
const OF_LOGITS: usize = 4;

/// Parameters as they enter the model.
struct Model {
    inverse_temperature: f64,
    share: f64,
    slope: f64,
    level: f64,
    steepness: f64,
    odds: f64,
}

impl Model {
    fn of(parameters: &[f64]) -> Self {
        Self {
            inverse_temperature: (-parameters[0]).exp(),
            share: sigmoid(parameters[1]),
            slope: parameters[2].exp(),
            level: parameters[3],
            steepness: parameters[4].exp(),
            odds: parameters[5],
        }
    }
}

/// Who is on a photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    Catalogue(usize),
    Enrolled(usize),
    Nobody,
}

/// A photograph in one part that it plays.
struct Sample {
    /// Row of the held-out fold's logits, or of the strangers'.
    row: usize,
    truth: Truth,
    weight: f64,
    /// Similarity to each whale of the catalogue and then to each enrolled one; NaN to one without photographs
    /// or one that is not enrolled in this part.
    nearest: Array1<f64>,
    /// What the gallery as a whole says, with those enrolled of whom the photograph is one seen again, else with nobody.
    familiarity: Option<Familiarity>,
}

struct Problem<'a> {
    known: &'a [Array2<f64>],
    strangers: &'a [Array2<f64>],
    samples: Vec<Sample>,
    catalogue: usize,
    enrolled: usize,
    /// Similarity about which the neighbour logit is written, so that slope and level vary alone.
    centre: f64,
    /// What tells strangers.
    unknown_score: UnknownScore,
    /// Mean and deviation of the scores where the search starts, for the same reason.
    scores: (f64, f64),
}

impl<'a> Problem<'a> {
    fn new(held: &Held<'a>, reference: &Reference<'_>, options: &StackOptions) -> Option<Self> {
        let stack = held.stack;
        let (gallery, catalogue) = (reference.gallery, reference.catalogue);
        let enrolled: Vec<Vec<usize>> = photographs_of_whales(held.whales)
            .into_values()
            .filter(|p| p.len() > 1)
            .collect();
        if enrolled.len() < FEWEST_WHALES || stack.strangers.is_empty() {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        // Of each enrolled whale the photographs by which it is enrolled, as many as a person would take and never the
        // one that is looked at.
        let mut draw = |itself: Option<usize>| -> Vec<Vec<usize>> {
            enrolled
                .iter()
                .map(|own| {
                    let others = own.iter().copied().filter(|row| Some(*row) != itself);
                    others.choose_multiple(&mut random, PHOTOGRAPHS_ENROLLED)
                })
                .collect()
        };
        let to_enrolled = |embedding: ArrayView1<'_, f32>, drawn: &[Vec<usize>]| -> Vec<f64> {
            let cosines = held.strangers.dot(&embedding);
            let nearest = |rows: &Vec<usize>| {
                let own = rows.iter().map(|&row| f64::from(cosines[row]));
                own.fold(f64::NAN, f64::max)
            };
            drawn.iter().map(nearest).collect()
        };
        let cohorts: Option<Vec<Cohort>> = reference.statistics.as_ref().map(|statistics| {
            let rows = held.strangers.rows().into_iter();
            rows.map(|row| statistics.cohort(row, None)).collect()
        });
        let with_enrolled = |embedding: ArrayView1<'_, f32>, drawn: &[Vec<usize>]| {
            let alone = reference.familiarity(embedding)?;
            let cohorts = cohorts.as_ref()?;
            let each = drawn.iter().filter(|rows| !rows.is_empty()).map(|rows| {
                let compared: Vec<Compared<'_>> = rows
                    .iter()
                    .map(|&row| Compared {
                        embedding: held.strangers.row(row),
                        cohort: cohorts[row],
                    })
                    .collect();
                relation(embedding, &compared)
            });
            Some(each.fold(alone, |familiarity, (similarity, distance)| {
                familiarity.with(similarity, distance)
            }))
        };
        let nearest = |embedding: ArrayView1<'_, f32>, enrolled: &[f64]| -> Array1<f64> {
            let to_catalogue = gallery.similarities(&embedding.to_vec(), catalogue);
            let to_catalogue = to_catalogue
                .into_iter()
                .map(|s| s.map_or(f64::NAN, f64::from));
            to_catalogue.chain(enrolled.iter().copied()).collect()
        };
        let share = options.stranger_share;
        let mut samples = Vec::new();
        for (row, (&label, embedding)) in held.labels.iter().zip(held.known.rows()).enumerate() {
            samples.push(Sample {
                row,
                truth: Truth::Catalogue(label),
                weight: (1.0 - share) * (1.0 - options.enrolled_share) / held.labels.len() as f64,
                nearest: nearest(embedding, &to_enrolled(embedding, &draw(None))),
                familiarity: reference.familiarity(embedding),
            });
        }
        let (mut own, mut seen_again) = (0.0, 0.0);
        for (row, embedding) in held.strangers.rows().into_iter().enumerate() {
            let drawn = draw(Some(row));
            let mut similar = to_enrolled(embedding, &drawn);
            let whale = enrolled.iter().position(|rows| rows.contains(&row));
            if let Some(whale) = whale {
                own += similar[whale];
                seen_again += 1.0;
                let each = (enrolled.len() * enrolled[whale].len()) as f64;
                samples.push(Sample {
                    row,
                    truth: Truth::Enrolled(whale),
                    weight: (1.0 - share) * options.enrolled_share / each,
                    nearest: nearest(embedding, &similar),
                    familiarity: with_enrolled(embedding, &drawn),
                });
                similar[whale] = f64::NAN;
            }
            samples.push(Sample {
                row,
                truth: Truth::Nobody,
                weight: share / held.whales.len() as f64,
                nearest: nearest(embedding, &similar),
                familiarity: reference.familiarity(embedding),
            });
        }
        let mut problem = Self {
            known: &stack.held_out,
            strangers: &stack.strangers,
            samples,
            catalogue,
            enrolled: enrolled.len(),
            centre: own / seen_again,
            unknown_score: match options.unknown_score {
                UnknownScore::Features => UnknownScore::Concentration,
                score => score,
            },
            scores: (0.0, 1.0),
        };
        let start = Model::of(&problem.start(held));
        let scores_of = |wanted: fn(Truth) -> bool| {
            let samples: Vec<&Sample> = problem.of(&wanted);
            let opinions = Opinions::of(&problem.blended(&samples, &start), 1.0);
            opinions.scores(problem.unknown_score).clone()
        };
        let scores = concatenate(
            Axis(0),
            &[
                scores_of(|truth| matches!(truth, Truth::Catalogue(_))).view(),
                scores_of(|truth| !matches!(truth, Truth::Catalogue(_))).view(),
            ],
        )
        .expect("both are vectors");
        problem.scores = (scores.mean().unwrap_or(0.0), scores.std(0.0).max(1e-6));
        Some(problem)
    }

    /// The parameters of greatest posterior.
    fn solve(&self, held: &Held<'_>) -> Result<Vec<f64>, StackError> {
        let start = self.start(held);
        let strength = 1.0 / self.enrolled as f64;
        let posterior = |parameters: &[f64]| {
            let (mut cost, gradient) = self.loss(parameters);
            let mut gradient = gradient.to_vec();
            let places = parameters.iter().zip(&start).zip(PRIOR_DEVIATIONS);
            for (gradient, ((parameter, start), deviation)) in gradient.iter_mut().zip(places) {
                let stray = (parameter - start) / deviation;
                cost += strength / 2.0 * stray * stray;
                *gradient += strength * stray / deviation;
            }
            (cost, gradient)
        };
        minimise("the gallery", posterior, start.clone(), 1e-6)
    }

    fn of(&self, wanted: &dyn Fn(Truth) -> bool) -> Vec<&Sample> {
        self.samples.iter().filter(|s| wanted(s.truth)).collect()
    }

    /// Where an enrolled whale that is seen again is about as likely as the whole catalogue.
    fn start(&self, held: &Held<'_>) -> Vec<f64> {
        let temperature = f64::from(held.stack.decision.temperature);
        let strangers = Opinions::of(self.strangers, temperature).free_energies;
        vec![
            temperature.ln(),
            (SHARE / (1.0 - SHARE)).ln(),
            SLOPE.ln(),
            strangers.mean().unwrap_or(0.0),
            0.0,
            0.0,
        ]
    }

    fn views(&self, sample: &Sample) -> &'a [Array2<f64>] {
        match sample.truth {
            Truth::Catalogue(_) => self.known,
            Truth::Enrolled(_) | Truth::Nobody => self.strangers,
        }
    }

    /// Loss and gradient.
    fn loss(&self, parameters: &[f64]) -> (f64, [f64; PARAMETERS]) {
        let model = Model::of(parameters);
        let none = || (0.0, [0.0; PARAMETERS]);
        let add = |mut a: (f64, [f64; PARAMETERS]), b: (f64, [f64; PARAMETERS])| {
            a.0 += b.0;
            a.1.iter_mut().zip(b.1).for_each(|(a, b)| *a += b);
            a
        };
        self.samples
            .par_iter()
            .map(|sample| {
                let (mut loss, mut gradient) = self.loss_of(sample, &model);
                loss *= sample.weight;
                gradient.iter_mut().for_each(|g| *g *= sample.weight);
                (loss, gradient)
            })
            .collect::<Vec<_>>()
            .into_iter()
            // In one order, so that the same data give the same bundle.
            .fold(none(), add)
    }

    fn loss_of(&self, sample: &Sample, model: &Model) -> (f64, [f64; PARAMETERS]) {
        let views = self.views(sample);
        let truth = match sample.truth {
            Truth::Catalogue(whale) => Some(whale),
            Truth::Enrolled(whale) => Some(self.catalogue + whale),
            Truth::Nobody => None,
        };
        let share_of_view = 1.0 / views.len() as f64;
        // Of the true individual: ln p in each view and its gradient.
        let mut of_truth: Vec<(f64, [f64; OF_LOGITS])> = Vec::with_capacity(views.len());
        let (mut free_energy, mut free_energy_gradient) = (0.0, [0.0; OF_LOGITS]);
        // Averaged over views, each individual's probability and its gradient.
        let mut averaged: Vec<(f64, [f64; OF_LOGITS])> = Vec::new();
        let mut logits: Vec<(f64, [f64; OF_LOGITS])> = Vec::with_capacity(sample.nearest.len());
        for view in views {
            let own = view.row(sample.row);
            logits.clear();
            for (k, &similarity) in sample.nearest.iter().enumerate() {
                let moved = model.slope * (similarity - self.centre);
                let neighbour = moved + model.level;
                let entry = match own.get(k) {
                    Some(logit) => {
                        let scaled = logit * model.inverse_temperature;
                        if similarity.is_nan() {
                            (scaled, [-scaled, 0.0, 0.0, 0.0])
                        } else {
                            let (a, rest) = (model.share, 1.0 - model.share);
                            let by_share = a * rest * (neighbour - scaled);
                            let gradient = [-rest * scaled, by_share, a * moved, a];
                            (rest * scaled + a * neighbour, gradient)
                        }
                    }
                    None if similarity.is_nan() => continue,
                    None => (neighbour, [0.0, 0.0, moved, 1.0]),
                };
                if truth == Some(k) {
                    of_truth.push(entry);
                }
                logits.push(entry);
            }
            let largest = logits.iter().map(|l| l.0).fold(f64::NEG_INFINITY, f64::max);
            let (mut sum, mut mean) = (0.0, [0.0; OF_LOGITS]);
            for (logit, gradient) in &logits {
                let p = (logit - largest).exp();
                sum += p;
                mean.iter_mut().zip(gradient).for_each(|(m, g)| *m += p * g);
            }
            mean.iter_mut().for_each(|m| *m /= sum);
            let normaliser = largest + sum.ln();
            free_energy += normaliser * share_of_view;
            for (total, mean) in free_energy_gradient.iter_mut().zip(mean) {
                *total += mean * share_of_view;
            }
            averaged.resize(logits.len(), (0.0, [0.0; OF_LOGITS]));
            for (total, (logit, gradient)) in averaged.iter_mut().zip(&logits) {
                let p = (logit - normaliser).exp() * share_of_view;
                total.0 += p;
                for (total, (gradient, mean)) in total.1.iter_mut().zip(gradient.iter().zip(mean)) {
                    *total += p * (gradient - mean);
                }
            }
            if let (Some(_), Some((log_p, gradient))) = (truth, of_truth.last_mut()) {
                *log_p -= normaliser;
                gradient.iter_mut().zip(mean).for_each(|(g, m)| *g -= m);
            }
        }
        let (score, score_gradient) = match self.unknown_score {
            UnknownScore::FreeEnergy => (free_energy, free_energy_gradient),
            // `new` lets the concentration stand for features.
            UnknownScore::Concentration | UnknownScore::Features => {
                let score = concentration(averaged.iter().map(|(p, _)| *p));
                let mut score_gradient = [0.0; OF_LOGITS];
                for (p, gradient) in &averaged {
                    let weight = 2.0 * p / score.exp();
                    let each = score_gradient.iter_mut().zip(gradient);
                    each.for_each(|(total, g)| *total += weight * g);
                }
                (score, score_gradient)
            }
        };
        let (mean, deviation) = self.scores;
        let away = (score - mean) / deviation;
        let odds = model.odds - model.steepness * away;
        // Derivative of the loss by the odds of "unknown".
        let (mut loss, by_odds) = match truth {
            Some(_) => (softplus(odds), sigmoid(odds)),
            None => (softplus(-odds), -sigmoid(-odds)),
        };
        let mut gradient = [0.0; PARAMETERS];
        for (total, by_parameter) in gradient.iter_mut().zip(score_gradient) {
            *total = -by_odds * model.steepness / deviation * by_parameter;
        }
        gradient[OF_LOGITS] = -by_odds * model.steepness * away;
        gradient[OF_LOGITS + 1] = by_odds;
        if truth.is_some() {
            let largest = of_truth
                .iter()
                .map(|t| t.0)
                .fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = of_truth.iter().map(|t| (t.0 - largest).exp()).sum();
            loss -= largest + (sum / of_truth.len() as f64).ln();
            for (log_p, by_parameter) in &of_truth {
                let share = (log_p - largest).exp() / sum;
                for (total, by_parameter) in gradient.iter_mut().zip(by_parameter) {
                    *total -= share * by_parameter;
                }
            }
        }
        (loss, gradient)
    }

    /// Blended logits of each view, of the catalogue and then of who is enrolled; −∞ where nobody is.
    fn blended(&self, samples: &[&Sample], model: &Model) -> Vec<Array2<f64>> {
        let views = samples.first().map_or(&[][..], |sample| self.views(sample));
        let columns = self.catalogue + self.enrolled;
        views
            .iter()
            .map(|view| {
                Array2::from_shape_fn((samples.len(), columns), |(i, k)| {
                    let similarity = samples[i].nearest[k];
                    let neighbour = model.slope * (similarity - self.centre) + model.level;
                    let own = view.row(samples[i].row);
                    match own.get(k).map(|logit| logit * model.inverse_temperature) {
                        Some(scaled) if similarity.is_nan() => scaled,
                        Some(scaled) => (1.0 - model.share) * scaled + model.share * neighbour,
                        None if similarity.is_nan() => f64::NEG_INFINITY,
                        None => neighbour,
                    }
                })
            })
            .collect()
    }

    /// Probabilities of samples, with those who are enrolled or without.
    fn opinions(&self, samples: &[&Sample], model: &Model, enrolled: bool) -> Opinions {
        let columns = self.catalogue + if enrolled { self.enrolled } else { 0 };
        let views: Vec<Array2<f64>> = self
            .blended(samples, model)
            .iter()
            .map(|view| view.slice(ndarray::s![.., ..columns]).to_owned())
            .collect();
        Opinions::of(&views, 1.0)
    }

    /// What a sample's views and neighbours say, as in flight: with those enrolled where it is a photograph of one of
    /// them, else with nobody.
    fn evidence_of(&self, sample: &Sample, named: &Named) -> Evidence {
        let columns = match sample.truth {
            Truth::Enrolled(_) => sample.nearest.len(),
            Truth::Catalogue(_) | Truth::Nobody => self.catalogue,
        };
        let nearest: Vec<Option<f32>> = sample
            .nearest
            .iter()
            .take(columns)
            .map(|s| (!s.is_nan()).then_some(*s as f32))
            .collect();
        let similarities = Similarities {
            model: &named.neighbours,
            nearest: &nearest,
            familiarity: sample.familiarity,
        };
        let temperature = f64::from(named.decision.temperature);
        evidence(self.views(sample), sample.row, temperature, similarities)
    }

    /// How heads are named and strangers told with these parameters.
    fn named(
        &self,
        parameters: &[f64],
        held: &Held<'_>,
        options: &StackOptions,
    ) -> Result<Named, StackError> {
        let model = Model::of(parameters);
        let power = match options.power {
            Power::Fixed(power) => power,
            Power::Fitted => {
                let known = self.of(&|truth| matches!(truth, Truth::Catalogue(_)));
                fit_power(&self.opinions(&known, &model, false), held.labels)?
            }
        };
        let by_score = model.steepness / self.scores.1;
        let mut named = Named {
            neighbours: NeighbourModel {
                slope: model.slope as f32,
                intercept: (model.level - model.slope * self.centre) as f32,
                share: model.share as f32,
            },
            decision: DecisionRule {
                temperature: (1.0 / model.inverse_temperature) as f32,
                power: power as f32,
                unknown: UnknownModel {
                    score: self.unknown_score,
                    slope: -by_score as f32,
                    intercept: (model.odds + by_score * self.scores.0) as f32,
                    features: Vec::new(),
                },
                unknown_threshold: 0.5,
                identified_threshold: 1.0,
                confidence: Confidence::KnownCandidate,
                aims: None,
            },
        };
        if options.unknown_score == UnknownScore::Features {
            named.decision.unknown =
                self.fit_unknown_features(&named, &options.unknown_features)?;
        }
        Ok(named)
    }

    fn fit_unknown_features(
        &self,
        named: &Named,
        features: &[UnknownFeature],
    ) -> Result<UnknownModel, StackError> {
        let samples = self.samples.iter().map(|sample| {
            let evidence = self.evidence_of(sample, named);
            let values = features.iter().map(|f| evidence.feature(*f)).collect();
            (values, sample.truth == Truth::Nobody, sample.weight)
        });
        fit_unknown_features(features, samples.collect())
    }

    fn result(
        &self,
        parameters: &[f64],
        mut named: Named,
        heads: &JudgedHeads,
        held: &Held<'_>,
        options: &StackOptions,
    ) -> Result<FittedGallery, StackError> {
        let (kind, aims) = (named.decision.confidence, options.aims());
        let rate = options.false_unknown_rate;
        decisions::choose(heads, kind, &aims, rate)?.apply(&mut named.decision);
        let model = Model::of(parameters);
        let power = f64::from(named.decision.power);
        let known = self.of(&|truth| matches!(truth, Truth::Catalogue(_)));
        let again = self.of(&|truth| matches!(truth, Truth::Enrolled(_)));
        let opinions =
            |samples: &[&Sample], enrolled| self.opinions(samples, &model, enrolled).raised(power);
        let places: Vec<usize> = again
            .iter()
            .filter_map(|sample| match sample.truth {
                Truth::Enrolled(whale) => Some(self.catalogue + whale),
                Truth::Catalogue(_) | Truth::Nobody => None,
            })
            .collect();
        let threshold = f64::from(named.decision.unknown_threshold);
        let share = |unknown: Vec<f64>| {
            let called = unknown.iter().filter(|p| **p >= threshold).count();
            called as f64 / unknown.len() as f64
        };
        let unknown = |samples: &[&Sample]| -> Vec<f64> {
            let each = samples.iter();
            each.map(|s| self.evidence_of(s, &named).unknown(&named.decision.unknown))
                .collect()
        };
        // The same photographs as those of whales that nobody knows.
        let rows: Vec<usize> = again.iter().map(|sample| sample.row).collect();
        let mut unenrolled = self.of(&|truth| truth == Truth::Nobody);
        unenrolled.retain(|sample| rows.contains(&sample.row));
        let (before, after) = (unknown(&unenrolled), unknown(&again));
        let alone = opinions(&known, false);
        Ok(FittedGallery {
            report: GalleryReport {
                log_loss: alone.log_loss(held.labels),
                top1: alone.top1(held.labels),
                enrolled_whales: self.enrolled,
                enrolled_photographs: again.len(),
                enrolled_top1: opinions(&again, true).top1(&places),
                unknown_before: share(before),
                unknown_after: share(after),
                top1_after: opinions(&known, true).top1(held.labels),
                separation: heads.separation(kind, &aims),
            },
            neighbours: named.neighbours,
            decision: named.decision,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};
    use recognition::identify::{Similarities, opinion};

    use super::*;
    use crate::stack::{Regression, stack};

    const CATALOGUE: usize = 6;
    const STRANGERS: usize = 5;
    const FEATURES: usize = 24;
    const VIEWS: usize = 2;

    /// Photographs in each view: a direction of their whale's own, and noise that is partly the view's.
    fn photographs(random: &mut ChaCha8Rng, whales: &[usize], noise: f64) -> Vec<Array2<f64>> {
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        let own: Vec<Vec<f64>> = whales
            .iter()
            .map(|whale| {
                let mut direction = ChaCha8Rng::seed_from_u64(1000 + *whale as u64);
                (0..FEATURES)
                    .map(|_| {
                        let centre: f64 = StandardNormal.sample(&mut direction);
                        centre + noise * normal()
                    })
                    .collect()
            })
            .collect();
        (0..VIEWS)
            .map(|_| {
                Array2::from_shape_fn((whales.len(), FEATURES), |(i, j)| {
                    own[i][j] + 0.1 * normal()
                })
            })
            .collect()
    }

    struct Data {
        photographs: Selection,
        gallery: Gallery,
        options: StackOptions,
    }

    impl Data {
        /// Whales of one size, some of them unknown to a regression that knows the directions of the others
        /// but roughly.
        fn new(seed: u64, noise: f64) -> Self {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let labels: Vec<usize> = (0..90).map(|_| random.random_range(0..CATALOGUE)).collect();
            let whales: Vec<usize> = (0..40).map(|i| CATALOGUE + i % STRANGERS).collect();
            let known = photographs(&mut random, &labels, noise);
            let strangers = photographs(&mut random, &whales, noise);
            let shown: Vec<usize> = (0..5 * CATALOGUE).map(|i| i % CATALOGUE).collect();
            let gallery_views = photographs(&mut random, &shown, noise);
            let centres = photographs(&mut random, &(0..CATALOGUE).collect::<Vec<_>>(), 0.8);
            let average = Regression {
                weight: centres[0].t().to_owned() / FEATURES as f64,
                bias: Array1::zeros(CATALOGUE),
            };
            let options = StackOptions::default();
            let stack = stack(&known, &labels, &strangers, &whales, &average, &options).unwrap();
            let of = |views: &[Array2<f64>]| embeddings(views, &stack.head);
            let rows: Vec<usize> = (0..shown.len()).collect();
            Self {
                gallery: gallery(&of(&gallery_views), &shown, &rows).unwrap(),
                photographs: Selection {
                    known: of(&known),
                    strangers: of(&strangers),
                    stack,
                    labels,
                    whales,
                },
                options,
            }
        }

        fn held(&self) -> Held<'_> {
            self.photographs.held()
        }

        fn reference(&self) -> Reference<'_> {
            Reference::new(&self.gallery, CATALOGUE, &self.options)
        }

        fn problem(&self) -> Problem<'_> {
            Problem::new(&self.held(), &self.reference(), &self.options).unwrap()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

        /// Against central differences.
        #[test]
        fn the_gradient_is_the_losss(
            seed in 0..1000u64,
            parameters in prop::collection::vec(-1.0..1.0f64, PARAMETERS),
            concentration in any::<bool>(),
        ) {
            let mut data = Data::new(seed, 0.6);
            if concentration {
                data.options.unknown_score = UnknownScore::Concentration;
            }
            let problem = data.problem();
            let (_, gradient) = problem.loss(&parameters);
            let h = 1e-5;
            for (i, expected) in gradient.into_iter().enumerate() {
                let at = |change: f64| {
                    let mut moved = parameters.clone();
                    moved[i] += change;
                    problem.loss(&moved).0
                };
                let found = (at(h) - at(-h)) / (2.0 * h);
                prop_assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{i}: {found} {expected}");
            }
        }

        /// The loss is of what the program that flies says, photograph by photograph.
        #[test]
        fn the_loss_is_of_what_is_said_in_flight(
            seed in 0..1000u64,
            parameters in prop::collection::vec(-1.0..1.0f64, PARAMETERS),
            concentration in any::<bool>(),
        ) {
            let mut data = Data::new(seed, 0.6);
            if concentration {
                data.options.unknown_score = UnknownScore::Concentration;
            }
            let problem = data.problem();
            let fitted = problem.named(&parameters, &data.held(), &data.options).unwrap();
            for sample in &problem.samples {
                let (loss, _) = problem.loss_of(sample, &Model::of(&parameters));
                let narrow = |value: &f64| *value as f32;
                let views: Vec<Vec<f32>> = problem
                    .views(sample)
                    .iter()
                    .map(|view| view.row(sample.row).iter().map(narrow).collect())
                    .collect();
                let nearest: Vec<Option<f32>> = sample
                    .nearest
                    .iter()
                    .map(|s| (!s.is_nan()).then_some(*s as f32))
                    .collect();
                let similarities = Similarities {
                    model: &fitted.neighbours,
                    nearest: &nearest,
                    familiarity: None,
                };
                let said = opinion(
                    &fitted.decision,
                    Some(similarities),
                    views.iter().map(Vec::as_slice),
                )
                .unwrap();
                let unknown = f64::from(said.unknown);
                let of = |k: usize| f64::from(said.probabilities[k]);
                let own = match sample.truth {
                    Truth::Catalogue(k) => of(k) * (1.0 - unknown),
                    Truth::Enrolled(k) => of(CATALOGUE + k) * (1.0 - unknown),
                    Truth::Nobody => unknown,
                };
                // Below this what is said in single precision is rounded to nothing.
                if own < 1e-4 {
                    continue;
                }
                let expected = match sample.truth {
                    Truth::Catalogue(k) => -(1.0 - unknown).ln() - of(k).ln(),
                    Truth::Enrolled(k) => -(1.0 - unknown).ln() - of(CATALOGUE + k).ln(),
                    Truth::Nobody => -unknown.ln(),
                };
                prop_assert!((loss - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{loss} {expected}");
            }
        }

        #[test]
        fn photographs_are_chosen_within_the_limit_and_from_each_whale(
            seed in 0..1000u64,
            limit in 1..6usize,
            whales in prop::collection::vec(0..4usize, 1..30),
        ) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let views = photographs(&mut random, &whales, 1.0);
            let head = Head {
                mean: vec![0.0; FEATURES],
                std: vec![1.0; FEATURES],
                whitening: None,
                weight: vec![],
                bias: vec![],
            };
            let embeddings = embeddings(&views, &head);
            let chosen = choose(&embeddings, &whales, limit);
            prop_assert!(chosen.is_sorted_by(|a, b| a < b));
            for whale in 0..4 {
                let of = |rows: &mut dyn Iterator<Item = usize>| rows.filter(|&r| whales[r] == whale).count();
                let all = of(&mut (0..whales.len()));
                prop_assert_eq!(of(&mut chosen.iter().copied()), all.min(limit));
            }
            for row in embeddings.rows() {
                prop_assert!((row.dot(&row) - 1.0).abs() < 1e-5);
            }
        }
    }

    /// Of ten photographs that are alike and one that is like none, one of the ten.
    #[test]
    fn an_odd_photograph_is_chosen_last() {
        let mut embeddings = Array2::zeros((11, 3));
        for (i, mut row) in embeddings.rows_mut().into_iter().enumerate() {
            let alike = ArrayView1::from(&[0.8, 0.6, 0.0]);
            let odd = ArrayView1::from(&[0.0, 0.0, 1.0]);
            row.assign(if i == 4 { &odd } else { &alike });
        }
        assert_eq!(choose(&embeddings, &[7; 11], 1), [0]);
        assert_eq!(choose(&embeddings, &[7; 11], 2), [0, 4]);
    }

    #[test]
    fn whales_that_are_enrolled_are_named_and_strangers_stay_unknown() {
        let data = Data::new(5, 0.6);
        let fitted = fit(&data.held(), &data.gallery, &data.options)
            .unwrap()
            .unwrap();
        let report = &fitted.report;
        eprintln!("{fitted:#?} {:#?}", data.photographs.stack.report);
        assert_eq!(report.enrolled_whales, STRANGERS);
        assert_eq!(report.enrolled_photographs, 40);
        assert!(report.enrolled_top1 > 0.9, "{report:?}");
        assert!(report.unknown_after < report.unknown_before, "{report:?}");
        assert!(report.unknown_before > 0.7, "{report:?}");
        // The regression knows the whales roughly, their photographs better.
        assert!(
            report.log_loss < data.photographs.stack.report.log_loss,
            "{report:?}"
        );
        assert!(report.top1_after > report.top1 - 0.05, "{report:?}");
        assert!(fitted.neighbours.slope > 0.0 && fitted.decision.unknown.slope < 0.0);
    }

    /// The model on features tells strangers at least as well as the score that it starts from, and what training says of
    /// a photograph is what the bundle will say in flight, gallery and all.
    #[test]
    fn features_tell_strangers_in_flight_as_in_training() {
        let mut data = Data::new(7, 0.9);
        data.options.unknown_score = UnknownScore::Concentration;
        let alone = fit(&data.held(), &data.gallery, &data.options)
            .unwrap()
            .unwrap();
        data.options.unknown_score = UnknownScore::Features;
        let features = fit(&data.held(), &data.gallery, &data.options)
            .unwrap()
            .unwrap();
        let auroc = |fitted: &FittedGallery| fitted.report.separation.unknown_auroc.unwrap();
        eprintln!("{:?} {:?}", alone.report, features.report);
        assert!(auroc(&features) > auroc(&alone) - 0.01);
        assert_eq!(features.neighbours, alone.neighbours);
        let model = &features.decision.unknown;
        let named: Vec<UnknownFeature> = model.features.iter().map(|f| f.feature).collect();
        assert_eq!(named, data.options.unknown_features);

        let problem = data.problem();
        let parameters = problem.solve(&data.held()).unwrap();
        let fitted = problem
            .named(&parameters, &data.held(), &data.options)
            .unwrap();
        assert_eq!(&fitted.decision.unknown, model);
        let reference = data.reference();
        let said = reference.judge(
            &data.photographs.stack.strangers,
            &data.photographs.strangers,
            None,
            &fitted,
        );
        let statistics = GalleryStatistics::of(&data.gallery, CATALOGUE).unwrap();
        for (row, said) in said.iter().enumerate() {
            let embedding = data.photographs.strangers.row(row).to_vec();
            let nearest = data.gallery.similarities(&embedding, CATALOGUE);
            let similarities = Similarities {
                model: &features.neighbours,
                nearest: &nearest,
                familiarity: Some(statistics.familiarity(data.photographs.strangers.row(row))),
            };
            let views: Vec<Vec<f32>> = data
                .photographs
                .stack
                .strangers
                .iter()
                .map(|view| view.row(row).iter().map(|l| *l as f32).collect())
                .collect();
            let views = views.iter().map(Vec::as_slice);
            let flown = opinion(&features.decision, Some(similarities), views).unwrap();
            assert!((f64::from(flown.unknown) - said.unknown).abs() < 1e-6);
            let best = flown.probabilities.iter().copied().fold(0.0, f32::max);
            assert!((f64::from(best) - said.best).abs() < 1e-6);
        }
    }

    /// A whale that is enrolled for the fit is as familiar as it is once it is in the gallery.
    #[test]
    fn who_is_enrolled_for_the_fit_is_as_familiar_as_in_flight() {
        let mut data = Data::new(3, 0.6);
        data.options.unknown_score = UnknownScore::Features;
        // Two photographs of each whale: the other one is drawn.
        let few: Vec<usize> = (0..2 * STRANGERS).collect();
        let known: Vec<usize> = (0..data.photographs.labels.len()).collect();
        let selected = data.held().select(&[known, few]);
        let held = selected.held();
        let problem = Problem::new(&held, &data.reference(), &data.options).unwrap();
        let mut compared = 0;
        for sample in problem.of(&|truth| matches!(truth, Truth::Enrolled(_))) {
            let mut gallery = data.gallery.clone();
            for (whale, photographs) in photographs_of_whales(held.whales).values().enumerate() {
                let shown: Vec<usize> = photographs
                    .iter()
                    .copied()
                    .filter(|r| *r != sample.row)
                    .collect();
                for row in shown {
                    let embedding = held.strangers.row(row).to_vec();
                    gallery
                        .push(&embedding, (CATALOGUE + whale) as u32)
                        .unwrap();
                }
            }
            let flown = GalleryStatistics::of(&gallery, CATALOGUE).unwrap();
            let flown = flown.familiarity(held.strangers.row(sample.row));
            let fitted = sample.familiarity.unwrap();
            // The gallery keeps half precision.
            let near = |a: f64, b: f64| (a - b).abs() < 0.02 * (1.0 + a.abs());
            assert!(near(flown.relative_similarity, fitted.relative_similarity));
            assert!(near(flown.mean_distance, fitted.mean_distance));
            assert_eq!(flown.mahalanobis_distance, fitted.mahalanobis_distance);
            compared += 1;
        }
        assert_eq!(compared, 2 * STRANGERS);
    }

    #[test]
    fn nothing_is_fitted_on_too_few_whales() {
        let mut data = Data::new(5, 0.6);
        for whale in &mut data.photographs.whales {
            *whale = 0;
        }
        let fitted = fit(&data.held(), &data.gallery, &data.options).unwrap();
        assert_eq!(fitted, None);
    }
}
