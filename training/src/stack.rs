//! The ensemble's last layer and its decisions: a multinomial logistic regression on the standardised
//! pooled features of all classifiers, a temperature, a model of "unknown", and thresholds.
//!
//! All of it is fitted on the held-out fold: photographs that no network of the ensemble was trained
//! on. On its own training photographs a network's features separate the individuals almost perfectly,
//! and a regression on those would learn to trust them.
//!
//! # A prior instead of zero
//! The held-out fold is small: some hundred photographs against individuals × features weights, and
//! most individuals do not occur in it. L2 towards zero would forget them. So L2 pulls **towards the
//! weights that reproduce the mean of the members' own last layers**, at the temperature that suits
//! that mean best: the regression is the maximum a posteriori estimate under a normal prior around
//! plain averaging. The strength is chosen by cross-validation within the fold; averaging itself
//! (infinite strength) is among the candidates, so stacking falls back to it where it gains nothing.
//!
//! # Components and power
//! Two options of published stacks. The features may be reduced to their first principal components; the
//! prior is then what averaging says through these, and the projection is multiplied into the exported
//! layer. Probabilities averaged over views may be raised to a power: averaging blurs them.
//!
//! Temperature, power, unknown model and [thresholds](crate::decisions) use the cross-validated logits, so that they see
//! the regression as new photographs will.

use std::cell::RefCell;

use argmin::core::{CostFunction, Executor, Gradient, State};
use argmin::solver::brent::BrentOpt;
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use nalgebra::{DMatrix, SVD};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::bundle::{
    Confidence, DecisionRule, UnknownFeature, UnknownModel, UnknownScore, WeightedFeature,
};
use recognition::identify::{Evidence, concentration, raise_probabilities};
use serde::{Deserialize, Serialize};

use crate::decisions::{self, Aims, Judged, JudgedHeads, Part, Separation};
use crate::onnx::Head;

/// Candidates for the strength of L2, in units of the number of features: at strength 1 the prior
/// lets each logit stray by about 1 from averaging.
const STRENGTHS: [f64; 9] = [100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01];
/// The strength is not lowered any more after it was worse this often.
const PATIENCE: usize = 2;
/// A feature that varies less than this over the fold is not scaled.
const LEAST_DEVIATION: f64 = 1e-6;
/// Range in which temperatures are sought: those of logits, and those of cosines, which are small.
const TEMPERATURES: (f64, f64) = (0.002, 50.0);
/// Range in which powers are sought.
const POWERS: (f64, f64) = (0.1, 10.0);

/// Why a stack cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StackError {
    #[error(
        "the held-out fold has {found} photographs; at least {wanted} are needed, make the fold larger"
    )]
    TooFew { found: usize, wanted: usize },
    #[error("photograph {index} of the held-out fold has a feature that is no finite number")]
    NotFinite { index: usize },
    #[error("the share of unknown whales is {0}; it must lie between 0 and 1")]
    Share(f64),
    #[error("the power is {0}; it must be a finite number above 0")]
    Power(f64),
    #[error(
        "{asked} principal components are asked for; {photographs} photographs of {features} features have \
         {most}, ask for 1 to {most}"
    )]
    Components {
        asked: usize,
        photographs: usize,
        features: usize,
        most: usize,
    },
    #[error("the share of enrolled whales is {0}; it must lie between 0 and 1")]
    EnrolledShare(f64),
    #[error("the rate of known whales called unknown is {0}; it must lie between 0 and 1")]
    Rate(f64),
    #[error("the aimed share of {what} is {value}; it must lie between 0 and 1")]
    Aim { what: &'static str, value: f64 },
    #[error(
        "none of the features of \"unknown\" can be worked out without a gallery; name one that can, or make a gallery"
    )]
    NoFeature,
    #[error("{what} did not converge: {source}")]
    Optimiser {
        what: &'static str,
        source: argmin::core::Error,
    },
}

/// Place and probability of the most probable individual; 0 and 0 where there is none.
pub(crate) fn most_probable(probabilities: impl Iterator<Item = f64>) -> (usize, f64) {
    let each = probabilities.enumerate();
    each.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Multinomial logistic regression: `logits = features · weight + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// `features × individuals`.
    pub weight: Array2<f64>,
    /// One for each individual.
    pub bias: Array1<f64>,
}

impl Regression {
    /// Logits, `photographs × individuals`, of `photographs × features`.
    pub fn logits(&self, features: &ArrayView2<'_, f64>) -> Array2<f64> {
        features.dot(&self.weight) + &self.bias
    }

    /// The mean of the members' own last layers, as one regression on their features side by side.
    /// Each member is its weight, `individuals × features`, and its bias.
    ///
    /// # Panics
    /// Where there are no members or they know different numbers of individuals.
    pub fn mean_of(members: &[(Array2<f64>, Array1<f64>)]) -> Self {
        let share = 1.0 / members.len() as f64;
        let weights: Vec<_> = members.iter().map(|(w, _)| w.t()).collect();
        let weight = concatenate(Axis(0), &weights).expect("as many individuals in each") * share;
        let mut bias = Array1::zeros(weight.ncols());
        for (_, b) in members {
            bias.scaled_add(share, b);
        }
        Self { weight, bias }
    }

    /// Logits `factor` times as large.
    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            weight: &self.weight * factor,
            bias: &self.bias * factor,
        }
    }
}

/// Mean and standard deviation of each feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardisation {
    /// Means.
    pub mean: Array1<f64>,
    /// Standard deviations; 1 where a feature does not vary.
    pub std: Array1<f64>,
}

impl Standardisation {
    /// Of the rows of `features`, of which there is at least one.
    pub fn of(features: &ArrayView2<'_, f64>) -> Self {
        let mean = features.mean_axis(Axis(0)).expect("at least one row");
        let std = features.std_axis(Axis(0), 0.0);
        let std = std.mapv(|s| if s < LEAST_DEVIATION { 1.0 } else { s });
        Self { mean, std }
    }

    /// Standardised features.
    pub fn apply(&self, features: &ArrayView2<'_, f64>) -> Array2<f64> {
        (features - &self.mean) / &self.std
    }

    /// The regression that does to standardised features what `raw` does to features as they are.
    pub fn carry(&self, raw: &Regression) -> Regression {
        let weight = &raw.weight * &self.std.view().insert_axis(Axis(1));
        let bias = &raw.bias + &self.mean.dot(&raw.weight);
        Regression { weight, bias }
    }

    /// The last layer that applies `regression` to standardised features. Its embedding is not whitened.
    pub fn head(&self, regression: &Regression) -> Head {
        let narrow = |values: &mut dyn Iterator<Item = &f64>| values.map(|v| *v as f32).collect();
        Head {
            mean: narrow(&mut self.mean.iter()),
            std: narrow(&mut self.std.iter()),
            whitening: None,
            weight: narrow(&mut regression.weight.t().iter()),
            bias: narrow(&mut regression.bias.iter()),
        }
    }
}

impl From<&Head> for Standardisation {
    fn from(head: &Head) -> Self {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        Self {
            mean: wide(&head.mean),
            std: wide(&head.std),
        }
    }
}

impl From<&Head> for Regression {
    /// # Panics
    /// Where the head's lengths do not go together.
    fn from(head: &Head) -> Self {
        let shape = (head.bias.len(), head.mean.len());
        let weight = Array2::from_shape_fn(shape, |(i, j)| f64::from(head.weight[i * shape.1 + j]));
        Self {
            weight: weight.reversed_axes(),
            bias: head.bias.iter().map(|b| f64::from(*b)).collect(),
        }
    }
}

/// The first principal components of standardised features.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// `features × components`, orthonormal columns.
    pub components: Array2<f64>,
    /// Share of the variance of the features that lies in the components.
    pub explained_variance: f64,
}

impl Projection {
    /// The `count` components of the rows of `features`, whose columns have mean 0, by singular value
    /// decomposition.
    ///
    /// # Errors
    /// There are not so many.
    pub fn of(features: &ArrayView2<'_, f64>, count: usize) -> Result<Self, StackError> {
        let (rows, columns) = features.dim();
        // Columns of mean 0 take one dimension from the rows.
        let most = rows.saturating_sub(1).min(columns);
        if count == 0 || count > most {
            return Err(StackError::Components {
                asked: count,
                photographs: rows,
                features: columns,
                most,
            });
        }
        let matrix = DMatrix::from_fn(rows, columns, |i, j| features[[i, j]]);
        let decomposed = SVD::new(matrix, false, true);
        let right = decomposed.v_t.expect("asked for");
        let variances = decomposed.singular_values.map(|s| s * s);
        Ok(Self {
            components: Array2::from_shape_fn((columns, count), |(j, k)| right[(k, j)]),
            explained_variance: variances.rows(0, count).sum()
                / variances.sum().max(f64::MIN_POSITIVE),
        })
    }

    /// The components of features, `photographs × components`.
    pub fn apply(&self, features: &ArrayView2<'_, f64>) -> Array2<f64> {
        features.dot(&self.components)
    }

    /// What a regression on the features says of their components alone.
    pub fn carry(&self, of_features: &Regression) -> Regression {
        Regression {
            weight: self.components.t().dot(&of_features.weight),
            bias: of_features.bias.clone(),
        }
    }

    /// The regression on the features that is one on their components.
    pub fn unfold(&self, of_components: &Regression) -> Regression {
        Regression {
            weight: self.components.dot(&of_components.weight),
            bias: of_components.bias.clone(),
        }
    }
}

/// Logarithm of the sum of the exponentials of each row.
fn log_sum_exp(logits: &Array2<f64>) -> Array1<f64> {
    logits.map_axis(Axis(1), |row| {
        let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        largest + row.mapv(|v| (v - largest).exp()).sum().ln()
    })
}

/// A function with its gradient, in `argmin`'s terms.
struct Smooth<F> {
    function: F,
    /// The line search asks for cost and gradient at the same place, one after the other.
    last: RefCell<Option<Evaluated>>,
}

/// A place with its cost and gradient.
type Evaluated = (Vec<f64>, f64, Vec<f64>);

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Smooth<F> {
    fn evaluate<T>(&self, place: &[f64], read: impl Fn(f64, &Vec<f64>) -> T) -> T {
        if let Some((at, cost, gradient)) = &*self.last.borrow()
            && at == place
        {
            return read(*cost, gradient);
        }
        let (cost, gradient) = (self.function)(place);
        let result = read(cost, &gradient);
        *self.last.borrow_mut() = Some((place.to_vec(), cost, gradient));
        result
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> CostFunction for Smooth<F> {
    type Param = Vec<f64>;
    type Output = f64;
    fn cost(&self, place: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.evaluate(place, |cost, _| cost))
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Gradient for Smooth<F> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;
    fn gradient(&self, place: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.evaluate(place, |_, gradient| gradient.clone()))
    }
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Minimises a function, which gives its value and its gradient, from `start` by L-BFGS until the gradient's
/// norm is below `tolerance`.
pub(crate) fn minimise(
    what: &'static str,
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    start: Vec<f64>,
    tolerance: f64,
) -> Result<Vec<f64>, StackError> {
    let problem = Smooth {
        function,
        last: RefCell::new(None),
    };
    let failed = |source| StackError::Optimiser { what, source };
    // At an optimum there is no direction in which a line search could go.
    if norm(&problem.gradient(&start).map_err(failed)?) < tolerance {
        return Ok(start);
    }
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), 10)
        .with_tolerance_grad(tolerance)
        .and_then(|solver| solver.with_tolerance_cost(1e-12))
        .map_err(failed)?;
    let result = Executor::new(problem, solver)
        .configure(|state| state.param(start.clone()).max_iters(300))
        .run()
        .map_err(failed)?;
    Ok(result.state.get_best_param().cloned().unwrap_or(start))
}

/// The regression that minimises `Σ −log p(label) + strength / 2 · ‖θ − prior‖²` over weights and
/// biases θ. `start` is where the search begins.
pub fn fit(
    features: &ArrayView2<'_, f64>,
    labels: &[usize],
    prior: &Regression,
    strength: f64,
    start: &Regression,
) -> Result<Regression, StackError> {
    if strength.is_infinite() {
        return Ok(prior.clone());
    }
    let ones = Array2::ones((features.nrows(), 1));
    // With a last column of ones, for the bias.
    let with_ones = concatenate(Axis(1), &[*features, ones.view()]).expect("as many rows");
    // Logits under the prior.
    let offset = prior.logits(features);
    // A place is the deviation of `weight` (row by row) and then of `bias` from the prior.
    let loss = |place: &[f64]| {
        let shape = (with_ones.ncols(), offset.ncols());
        let deviation = ArrayView2::from_shape(shape, place).expect("as long as it started");
        let mut logits = with_ones.dot(&deviation) + &offset;
        let normaliser = log_sum_exp(&logits);
        let mut cost = 0.0;
        for (i, &label) in labels.iter().enumerate() {
            cost += normaliser[i] - logits[[i, label]];
            let mut row = logits.row_mut(i);
            row.mapv_inplace(|v| (v - normaliser[i]).exp());
            row[label] -= 1.0;
        }
        let mut gradient = with_ones.t().dot(&logits);
        gradient.scaled_add(strength, &deviation);
        cost += strength / 2.0 * place.iter().map(|v| v * v).sum::<f64>();
        (
            cost,
            gradient.as_standard_layout().iter().copied().collect(),
        )
    };
    let weight = &start.weight - &prior.weight;
    let bias = &start.bias - &prior.bias;
    let mut from: Vec<f64> = weight.iter().copied().collect();
    from.extend(bias.iter());
    let tolerance = 1e-5 * (labels.len() as f64).max(1.0);
    let found = minimise("the logistic regression", loss, from, tolerance)?;
    let shape = (features.ncols() + 1, prior.bias.len());
    let found = Array2::from_shape_vec(shape, found).expect("as long as it started");
    let last = features.ncols();
    Ok(Regression {
        weight: &prior.weight + &found.slice(s![..last, ..]),
        bias: &prior.bias + &found.row(last),
    })
}

/// A function of one variable, for `argmin`.
struct Scalar<F>(F);

impl<F: Fn(f64) -> f64> CostFunction for Scalar<F> {
    type Param = f64;
    type Output = f64;
    fn cost(&self, x: &f64) -> Result<f64, argmin::core::Error> {
        Ok(self.0(*x))
    }
}

/// What an ensemble says of photographs, as the decision in flight works it out: probabilities averaged
/// over views, and the scores that tell whales of the catalogue from others.
#[derive(Clone, Debug)]
pub struct Opinions {
    /// `photographs × individuals`.
    pub probabilities: Array2<f64>,
    /// [`UnknownScore::FreeEnergy`] of each photograph.
    pub free_energies: Array1<f64>,
    /// [`UnknownScore::Concentration`] of each photograph.
    pub concentrations: Array1<f64>,
}

impl Opinions {
    /// From the logits of each view, `photographs × individuals`, of which there is at least one.
    pub fn of(views: &[Array2<f64>], temperature: f64) -> Self {
        let share = 1.0 / views.len() as f64;
        let mut probabilities = Array2::zeros(views[0].dim());
        let mut free_energies = Array1::zeros(views[0].nrows());
        for logits in views {
            let scaled = logits / temperature;
            let normaliser = log_sum_exp(&scaled);
            let each = (&scaled - &normaliser.view().insert_axis(Axis(1))).mapv(f64::exp);
            probabilities.scaled_add(share, &each);
            free_energies.scaled_add(share, &normaliser);
        }
        Self {
            concentrations: probabilities
                .map_axis(Axis(1), |row| concentration(row.iter().copied())),
            free_energies,
            probabilities,
        }
    }

    /// One score for each photograph; high where the whale is of the catalogue.
    pub fn scores(&self, kind: UnknownScore) -> &Array1<f64> {
        match kind {
            UnknownScore::FreeEnergy => &self.free_energies,
            // Of the features, the one that is a score of its own.
            UnknownScore::Concentration | UnknownScore::Features => &self.concentrations,
        }
    }

    /// Probabilities raised to a power and scaled to sum 1, as in flight; scores as they are.
    pub fn raised(&self, power: f64) -> Self {
        let mut raised = self.clone();
        for mut row in raised.probabilities.rows_mut() {
            raise_probabilities(row.as_slice_mut().expect("rows lie together"), power);
        }
        raised
    }

    /// Mean of `−log p(label)`.
    pub fn log_loss(&self, labels: &[usize]) -> f64 {
        let each = labels.iter().enumerate();
        let sum: f64 = each
            .map(|(i, &label)| -self.probabilities[[i, label]].max(1e-15).ln())
            .sum();
        sum / labels.len() as f64
    }

    /// Most probable individual of each photograph, and its probability.
    pub fn best(&self) -> Vec<(usize, f64)> {
        let rows = self.probabilities.rows();
        rows.into_iter()
            .map(|row| most_probable(row.iter().copied()))
            .collect()
    }

    /// Share of photographs whose most probable individual is the right one.
    pub fn top1(&self, labels: &[usize]) -> f64 {
        let right = self
            .best()
            .iter()
            .zip(labels)
            .filter(|(b, l)| b.0 == **l)
            .count();
        right as f64 / labels.len() as f64
    }
}

/// Where between `least` and `most` a function of one variable is least, by Brent's method.
pub(crate) fn minimise_scalar(
    what: &'static str,
    function: impl Fn(f64) -> f64,
    least: f64,
    most: f64,
) -> Result<f64, StackError> {
    let result = Executor::new(Scalar(function), BrentOpt::new(least, most))
        .configure(|state| state.max_iters(100))
        .run()
        .map_err(|source| StackError::Optimiser { what, source })?;
    Ok(result.state.get_best_param().copied().unwrap_or(least))
}

/// The temperature at which the views' logits have the least log loss.
pub fn fit_temperature(views: &[Array2<f64>], labels: &[usize]) -> Result<f64, StackError> {
    let loss = |log_t: f64| Opinions::of(views, log_t.exp()).log_loss(labels);
    let (least, most) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    Ok(minimise_scalar("the temperature", loss, least, most)?.exp())
}

/// The power of the probabilities at which they have the least log loss.
///
/// # Errors
/// The search fails.
pub fn fit_power(opinions: &Opinions, labels: &[usize]) -> Result<f64, StackError> {
    let loss = |log_power: f64| opinions.raised(log_power.exp()).log_loss(labels);
    let (least, most) = (POWERS.0.ln(), POWERS.1.ln());
    Ok(minimise_scalar("the power", loss, least, most)?.exp())
}

/// L2 on the weights of a logistic model whose samples weigh 1 together and whose features are standardised: a little,
/// so that separable data have an answer.
const LOGISTIC_L2: f64 = 1e-3;

/// `1 / (1 + e⁻ˣ)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln (1 + eˣ)`, also where eˣ is too large a number.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// What a logistic model learns from.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticSample {
    /// As many in each sample.
    pub features: Vec<f64>,
    /// What the model gives the probability of.
    pub positive: bool,
    /// All samples' weights sum to 1.
    pub weight: f64,
}

/// A logistic model of standardised features.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// Of each feature: mean, standard deviation, weight of a deviation more in the log odds.
    pub features: Vec<(f64, f64, f64)>,
    /// Log odds where all features have their means.
    pub intercept: f64,
}

impl Logistic {
    /// Probability of a positive.
    pub fn probability(&self, features: &[f64]) -> f64 {
        let each = self.features.iter().zip(features);
        let moved = each.map(|((mean, deviation, weight), x)| weight * (x - mean) / deviation);
        sigmoid(self.intercept + moved.sum::<f64>())
    }
}

/// The logistic model of least weighted log loss with a little L2 on its weights.
///
/// # Errors
/// The search does not converge.
pub fn fit_logistic(
    what: &'static str,
    samples: &[LogisticSample],
) -> Result<Logistic, StackError> {
    let width = samples.first().map_or(0, |sample| sample.features.len());
    let total = samples.len() as f64;
    let scales: Vec<(f64, f64)> = (0..width)
        .map(|k| {
            let of = || samples.iter().map(move |sample| sample.features[k]);
            let mean = of().sum::<f64>() / total;
            let variance = of().map(|x| (x - mean).powi(2)).sum::<f64>() / total;
            (mean, variance.sqrt().max(LEAST_DEVIATION))
        })
        .collect();
    let standardised: Vec<Vec<f64>> = samples
        .iter()
        .map(|sample| {
            let each = sample.features.iter().zip(&scales);
            each.map(|(x, (mean, deviation))| (x - mean) / deviation)
                .collect()
        })
        .collect();
    // A place is the weights and then the intercept.
    let loss = |p: &[f64]| {
        let (weights, intercept) = p.split_at(width);
        let mut cost = LOGISTIC_L2 / 2.0 * weights.iter().map(|w| w * w).sum::<f64>();
        let mut gradient: Vec<f64> = weights.iter().map(|w| LOGISTIC_L2 * w).collect();
        gradient.push(0.0);
        for (x, sample) in standardised.iter().zip(samples) {
            let odds = intercept[0] + x.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
            let signed = if sample.positive { -odds } else { odds };
            cost += sample.weight * softplus(signed);
            let truth = if sample.positive { 1.0 } else { 0.0 };
            let residual = sample.weight * (sigmoid(odds) - truth);
            for (gradient, x) in gradient.iter_mut().zip(x) {
                *gradient += residual * x;
            }
            gradient[width] += residual;
        }
        (cost, gradient)
    };
    let p = minimise(what, loss, vec![0.0; width + 1], 1e-9)?;
    let features = scales.into_iter().zip(&p);
    Ok(Logistic {
        features: features
            .map(|((mean, deviation), weight)| (mean, deviation, *weight))
            .collect(),
        intercept: p[width],
    })
}

/// Samples of both kinds, weighted so that strangers have a share `prior`.
fn samples_of_kinds(
    known: Vec<Vec<f64>>,
    unknown: Vec<Vec<f64>>,
    prior: f64,
) -> Result<Vec<LogisticSample>, StackError> {
    if !(prior > 0.0 && prior < 1.0) {
        return Err(StackError::Share(prior));
    }
    let of_kind = |rows: Vec<Vec<f64>>, positive: bool, share: f64| {
        let weight = share / rows.len() as f64;
        rows.into_iter().map(move |features| LogisticSample {
            features,
            positive,
            weight,
        })
    };
    let known = of_kind(known, false, 1.0 - prior);
    Ok(known.chain(of_kind(unknown, true, prior)).collect())
}

/// How likely a whale of a given score is none of the catalogue, if a share `prior` of the whales that
/// are met is: both kinds are weighted so that the samples have that share.
///
/// # Errors
/// The share lies not between 0 and 1, or the search does not converge.
pub fn fit_unknown(
    score: UnknownScore,
    known: &[f64],
    unknown: &[f64],
    prior: f64,
) -> Result<UnknownModel, StackError> {
    let rows = |scores: &[f64]| scores.iter().map(|score| vec![*score]).collect();
    let samples = samples_of_kinds(rows(known), rows(unknown), prior)?;
    let model = fit_logistic("the model of unknown whales", &samples)?;
    let (mean, deviation, weight) = model.features[0];
    Ok(UnknownModel {
        score,
        slope: (weight / deviation) as f32,
        intercept: (model.intercept - weight * mean / deviation) as f32,
        features: Vec::new(),
    })
}

/// The model of "unknown" on several features, each sample with the features in their order. What a photograph has not
/// (`None`) is taken for the mean, as in flight.
///
/// # Errors
/// The search does not converge.
pub fn fit_unknown_features(
    features: &[UnknownFeature],
    samples: Vec<(Vec<Option<f64>>, bool, f64)>,
) -> Result<UnknownModel, StackError> {
    let means: Vec<f64> = (0..features.len())
        .map(|k| {
            let there: Vec<f64> = samples.iter().filter_map(|(x, ..)| x[k]).collect();
            there.iter().sum::<f64>() / there.len().max(1) as f64
        })
        .collect();
    let samples: Vec<LogisticSample> = samples
        .into_iter()
        .map(|(features, positive, weight)| LogisticSample {
            features: features
                .into_iter()
                .zip(&means)
                .map(|(x, mean)| x.unwrap_or(*mean))
                .collect(),
            positive,
            weight,
        })
        .collect();
    let model = fit_logistic("the model of unknown whales", &samples)?;
    Ok(UnknownModel {
        score: UnknownScore::Features,
        // The score is higher for whales of the catalogue.
        slope: -1.0,
        intercept: model.intercept as f32,
        features: features
            .iter()
            .zip(model.features)
            .map(|(&feature, (mean, deviation, weight))| WeightedFeature {
                feature,
                mean: mean as f32,
                deviation: deviation as f32,
                weight: -weight as f32,
            })
            .collect(),
    })
}

/// Probability that a whale of this score is unknown.
pub fn unknown_probability(model: &UnknownModel, score: f64) -> f64 {
    sigmoid(f64::from(model.intercept) + f64::from(model.slope) * score)
}

/// The power to which probabilities averaged over views are raised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// This one; 1 changes nothing.
    Fixed(f64),
    /// The one with the least log loss on the held-out fold, cross-validated.
    Fitted,
}

impl Default for Power {
    fn default() -> Self {
        Self::Fixed(1.0)
    }
}

impl std::str::FromStr for Power {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "fit" {
            return Ok(Self::Fitted);
        }
        let power = text
            .parse()
            .ok()
            .filter(|p: &f64| p.is_finite() && *p > 0.0);
        power.map(Self::Fixed).ok_or_else(|| {
            "a number above 0, or `fit` for the best one on the held-out fold".to_owned()
        })
    }
}

/// How a stack is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackOptions {
    /// Parts of the cross-validation within the fold.
    pub parts: usize,
    /// From which the parts are drawn.
    pub seed: u64,
    /// Share of unknown whales among those that are met, between 0 and 1.
    #[serde(alias = "unknown_share")]
    pub stranger_share: f64,
    /// Share of whales enrolled after training among those that are met and not unknown, when as many are
    /// enrolled as were held out to fit on; between 0 and 1.
    #[serde(default = "enrolled_share")]
    pub enrolled_share: f64,
    /// Share of known whales that may be called unknown; where absent, the threshold is 0.5.
    pub false_unknown_rate: Option<f64>,
    /// Least share of right names among heads called identified, strangers among them.
    #[serde(alias = "identified_precision")]
    pub aim_precision: f64,
    /// Greatest share of strangers called identified.
    #[serde(default = "aim_strangers")]
    pub aim_strangers: f64,
    /// Principal components that the regression sees instead of the features; all features where absent.
    #[serde(default)]
    pub components: Option<usize>,
    /// What probabilities averaged over views are raised to.
    #[serde(default)]
    pub power: Power,
    /// By what unknown whales are told.
    #[serde(default)]
    pub unknown_score: UnknownScore,
    /// Of what the score [`UnknownScore::Features`] is made; without a gallery, of those that need none.
    #[serde(default = "unknown_features")]
    pub unknown_features: Vec<UnknownFeature>,
    /// Whether the members are averaged and no regression is fitted, even if one would be better.
    #[serde(default)]
    pub average: bool,
}

fn enrolled_share() -> f64 {
    0.2
}

fn aim_strangers() -> f64 {
    0.1
}

/// Those that tell strangers best together, on fold 0 and strangers (see `training/RESULTS.md`).
fn unknown_features() -> Vec<UnknownFeature> {
    vec![
        UnknownFeature::Concentration,
        UnknownFeature::RelativeSimilarity,
        UnknownFeature::MeanDistance,
        UnknownFeature::MahalanobisDistance,
    ]
}

impl StackOptions {
    /// For what thresholds are chosen.
    pub fn aims(&self) -> Aims {
        Aims {
            precision: self.aim_precision,
            strangers: self.aim_strangers,
            stranger_share: self.stranger_share,
        }
    }

    /// The first value that is no share.
    fn check(&self) -> Result<(), StackError> {
        if let Some(rate) = self.false_unknown_rate.filter(|r| !(0.0..1.0).contains(r)) {
            return Err(StackError::Rate(rate));
        }
        if !(self.enrolled_share > 0.0 && self.enrolled_share < 1.0) {
            return Err(StackError::EnrolledShare(self.enrolled_share));
        }
        let aims = [
            (
                "heads called identified that are named rightly",
                self.aim_precision,
            ),
            ("strangers called identified", self.aim_strangers),
        ];
        for (what, value) in aims {
            if !(0.0..=1.0).contains(&value) {
                return Err(StackError::Aim { what, value });
            }
        }
        match self.power {
            Power::Fixed(power) if !(power > 0.0 && power.is_finite()) => {
                Err(StackError::Power(power))
            }
            _ => Ok(()),
        }
    }
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            parts: 5,
            seed: 0,
            stranger_share: 0.2,
            enrolled_share: enrolled_share(),
            false_unknown_rate: Some(0.1),
            aim_precision: 0.95,
            aim_strangers: aim_strangers(),
            components: None,
            power: Power::default(),
            unknown_score: UnknownScore::default(),
            unknown_features: unknown_features(),
            average: false,
        }
    }
}

/// What reducing the features to principal components does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComponentsReport {
    /// How many.
    pub components: usize,
    /// Share of the features' variance in them, over the fold.
    pub explained_variance: f64,
    /// Strength of L2 with all features; absent where averaging won.
    pub strength_without: Option<f64>,
    /// Log loss with all features.
    pub log_loss_without: f64,
    /// Share of right first candidates with all features.
    pub top1_without: f64,
}

/// What raising the probabilities to a power does. It changes no order, so no top-1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerReport {
    /// The power.
    pub power: f64,
    /// Log loss of the probabilities as they are.
    pub log_loss_without: f64,
}

/// What the fold says of a stack; all but the averaging's numbers by cross-validation within it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackReport {
    /// Photographs of the fold.
    pub photographs: usize,
    /// Photographs of unknown whales.
    pub unknown_photographs: usize,
    /// Strength of L2; absent where averaging won.
    pub strength: Option<f64>,
    /// Log loss of the chosen regression at its temperature, with components and power as asked for.
    pub log_loss: f64,
    /// Its share of right first candidates.
    pub top1: f64,
    /// Log loss of averaging the members, at its best temperature.
    pub averaging_log_loss: f64,
    /// Its share of right first candidates.
    pub averaging_top1: f64,
    /// That temperature; the last layer, where averaging won, is the members' mean over it.
    pub averaging_temperature: f64,
    /// Where the features were reduced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<ComponentsReport>,
    /// Where the power is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerReport>,
    /// How well known whales and strangers, each judged by what saw neither photograph nor stranger, can be decided.
    #[serde(default)]
    pub separation: Separation,
}

/// A fitted stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// For the ensemble's ONNX file.
    pub head: Head,
    /// For the manifest.
    pub decision: DecisionRule,
    /// How good it is on the fold.
    pub report: StackReport,
    /// Of each view, the fold's logits by regressions that did not see the photograph.
    pub held_out: Vec<Array2<f64>>,
    /// Of each view, the logits of the unknown whales.
    pub strangers: Vec<Array2<f64>>,
}

/// Fits everything. `known` holds each view's features of the fold, `photographs × features`, the
/// unmoved view first; `unknown` the same of unknown whales (no rows where there are none), `whales` says whose these
/// are, by any numbers; `average` is the members' mean ([`Regression::mean_of`]).
pub fn stack(
    known: &[Array2<f64>],
    labels: &[usize],
    unknown: &[Array2<f64>],
    whales: &[usize],
    average: &Regression,
    options: &StackOptions,
) -> Result<Fitted, StackError> {
    let count = labels.len();
    let wanted = options.parts.max(2);
    if count < wanted {
        return Err(StackError::TooFew {
            found: count,
            wanted,
        });
    }
    options.check()?;
    for view in known.iter().chain(unknown) {
        let rows = view.rows().into_iter();
        if let Some(index) = rows
            .into_iter()
            .position(|r| r.iter().any(|v| !v.is_finite()))
        {
            return Err(StackError::NotFinite { index });
        }
    }
    let standardisation = Standardisation::of(&known[0].view());
    let standardise = |views: &[Array2<f64>]| -> Vec<Array2<f64>> {
        let each = views.iter();
        each.map(|v| standardisation.apply(&v.view())).collect()
    };
    let (known, unknown) = (standardise(known), standardise(unknown));
    let plain = standardisation.carry(average);
    let averaged = logits_of(&plain, &known);
    let averaging_temperature = fit_temperature(&averaged, labels)?;
    let averaging = Opinions::of(&averaged, averaging_temperature);

    let parts = cross_validation_parts(count, wanted, options.seed);
    let strengths: &[f64] = if options.average { &[] } else { &STRENGTHS };
    let of_features = cross_validate(&known, labels, &plain, &parts, strengths)?;
    let (chosen, projection, components) = match options.components {
        None => (of_features, None, None),
        Some(components) => {
            let projection = Projection::of(&known[0].view(), components)?;
            let project: Vec<Array2<f64>> =
                known.iter().map(|v| projection.apply(&v.view())).collect();
            let carried = projection.carry(&plain);
            let chosen = cross_validate(&project, labels, &carried, &parts, strengths)?;
            let without = Opinions::of(&of_features.held_out, of_features.temperature);
            let report = ComponentsReport {
                components,
                explained_variance: projection.explained_variance,
                strength_without: of_features.strength(),
                log_loss_without: without.log_loss(labels),
                top1_without: without.top1(labels),
            };
            (chosen, Some(projection), Some(report))
        }
    };
    let strength = chosen.strength();
    let temperature = chosen.temperature;
    let regression = match &projection {
        None => chosen.regression,
        Some(projection) => projection.unfold(&chosen.regression),
    };
    let as_they_are = Opinions::of(&chosen.held_out, temperature);
    let power = match options.power {
        Power::Fixed(power) => power,
        Power::Fitted => fit_power(&as_they_are, labels)?,
    };
    let opinions = as_they_are.raised(power);

    let strangers = logits_of(&regression, &unknown);
    let unknown_photographs = unknown.first().map_or(0, Array2::nrows);
    let evidence = AloneEvidence {
        known: evidence_of(&chosen.held_out, temperature),
        strangers: evidence_of(&strangers, temperature),
        labels,
        power,
        options,
    };
    let everything = [
        (0..count).collect::<Vec<_>>(),
        (0..unknown_photographs).collect(),
    ];
    let mut decision = DecisionRule {
        temperature: temperature as f32,
        power: power as f32,
        unknown: evidence.fit(&everything)?,
        unknown_threshold: 0.5,
        identified_threshold: 1.0,
        confidence: Confidence::KnownCandidate,
        aims: None,
    };
    let judge = |part: &Part| -> Result<Option<[Vec<Judged>; 2]>, StackError> {
        Ok(Some(evidence.judge(&evidence.fit(&part.fit)?, &part.judge)))
    };
    let judged = match decisions::cross_validate(count, whales, options, judge)? {
        Some(judged) => judged,
        None => {
            let [known, strangers] = evidence.judge(&decision.unknown, &everything);
            JudgedHeads {
                known,
                strangers,
                stranger_individuals: decisions::count_different(whales),
            }
        }
    };
    let separation = judged.separation(decision.confidence, &options.aims());
    let rate = options.false_unknown_rate;
    decisions::choose(&judged, decision.confidence, &options.aims(), rate)?.apply(&mut decision);
    Ok(Fitted {
        head: standardisation.head(&regression),
        decision,
        report: StackReport {
            photographs: count,
            unknown_photographs,
            strength,
            log_loss: opinions.log_loss(labels),
            top1: opinions.top1(labels),
            averaging_log_loss: averaging.log_loss(labels),
            averaging_top1: averaging.top1(labels),
            averaging_temperature,
            components,
            power: (power != 1.0).then(|| PowerReport {
                power,
                log_loss_without: as_they_are.log_loss(labels),
            }),
            separation,
        },
        held_out: chosen.held_out,
        strangers,
    })
}

fn logits_of(regression: &Regression, views: &[Array2<f64>]) -> Vec<Array2<f64>> {
    let each = views.iter();
    each.map(|v| regression.logits(&v.view())).collect()
}

/// A regression of the strength that cross-validation chose.
struct CrossValidated {
    /// Infinite where averaging won.
    strength: f64,
    /// Fitted on the whole fold.
    regression: Regression,
    /// For each view the logits of photographs by the regression that did not see them.
    held_out: Vec<Array2<f64>>,
    /// The temperature that suits these.
    temperature: f64,
}

impl CrossValidated {
    fn strength(&self) -> Option<f64> {
        self.strength.is_finite().then_some(self.strength)
    }
}

/// Chooses one of the strengths, or averaging, and fits. `known` holds each view's features, `plain` says the same of
/// them as the members' mean.
fn cross_validate(
    known: &[Array2<f64>],
    labels: &[usize],
    plain: &Regression,
    parts: &[Vec<usize>],
    strengths: &[f64],
) -> Result<CrossValidated, StackError> {
    let count = labels.len();
    let averaged = logits_of(plain, known);
    let temperature = fit_temperature(&averaged, labels)?;
    let prior = plain.scaled(1.0 / temperature);
    let mut starts = vec![prior.clone(); parts.len()];
    let mut best = (
        f64::INFINITY,
        Opinions::of(&averaged, temperature).log_loss(labels),
        logits_of(&prior, known),
    );
    let mut worse = 0;
    for unit in strengths {
        let strength = *unit * prior.weight.nrows() as f64;
        let fitted: Result<Vec<Regression>, StackError> = parts
            .par_iter()
            .zip(&starts)
            .map(|(part, start)| {
                let rest: Vec<usize> = (0..count).filter(|i| !part.contains(i)).collect();
                let features = known[0].select(Axis(0), &rest);
                let labels: Vec<usize> = rest.iter().map(|&i| labels[i]).collect();
                fit(&features.view(), &labels, &prior, strength, start)
            })
            .collect();
        starts = fitted?;
        let mut views: Vec<Array2<f64>> =
            vec![Array2::zeros((count, prior.bias.len())); known.len()];
        for (part, regression) in parts.iter().zip(&starts) {
            for (view, features) in views.iter_mut().zip(known) {
                for &i in part {
                    let one = features.slice(s![i..=i, ..]);
                    view.row_mut(i).assign(&regression.logits(&one).row(0));
                }
            }
        }
        let loss = Opinions::of(&views, fit_temperature(&views, labels)?).log_loss(labels);
        tracing::debug!(strength, loss, "cross-validated");
        if loss < best.1 {
            best = (strength, loss, views);
            worse = 0;
        } else {
            worse += 1;
            if worse == PATIENCE {
                break;
            }
        }
    }
    let (strength, _, held_out) = best;
    Ok(CrossValidated {
        strength,
        regression: fit(&known[0].view(), labels, &prior, strength, &prior)?,
        temperature: fit_temperature(&held_out, labels)?,
        held_out,
    })
}

/// What the views say of each photograph, as in flight.
pub(crate) fn evidence_of(views: &[Array2<f64>], temperature: f64) -> Vec<Evidence> {
    let narrow: Vec<Array2<f32>> = views.iter().map(|v| v.mapv(|l| l as f32)).collect();
    let photographs = views.first().map_or(0, Array2::nrows);
    (0..photographs)
        .map(|row| {
            let own: Vec<Vec<f32>> = narrow.iter().map(|v| v.row(row).to_vec()).collect();
            Evidence::of(temperature, None, own.iter().map(Vec::as_slice))
                .expect("there are views and individuals")
        })
        .collect()
}

/// What is known of photographs without a gallery.
struct AloneEvidence<'a> {
    known: Vec<Evidence>,
    strangers: Vec<Evidence>,
    labels: &'a [usize],
    power: f64,
    options: &'a StackOptions,
}

impl AloneEvidence<'_> {
    /// The model of "unknown" of some known photographs and some of strangers.
    fn fit(&self, [known, strangers]: &[Vec<usize>; 2]) -> Result<UnknownModel, StackError> {
        let score = self.options.unknown_score;
        if known.is_empty() || strangers.is_empty() {
            // Nothing to learn from: nobody is called unknown.
            return Ok(UnknownModel {
                score: match score {
                    UnknownScore::Features => UnknownScore::default(),
                    score => score,
                },
                slope: 0.0,
                intercept: -20.0,
                features: Vec::new(),
            });
        }
        let features: Vec<UnknownFeature> = match score {
            UnknownScore::FreeEnergy => vec![UnknownFeature::FreeEnergy],
            UnknownScore::Concentration => vec![UnknownFeature::Concentration],
            UnknownScore::Features => {
                let all = self.options.unknown_features.iter().copied();
                all.filter(|feature| !feature.needs_gallery()).collect()
            }
        };
        if features.is_empty() {
            return Err(StackError::NoFeature);
        }
        let of = |evidence: &[Evidence], rows: &[usize]| -> Vec<Vec<f64>> {
            let row = |&row: &usize| {
                let each = features.iter().filter_map(|f| evidence[row].feature(*f));
                each.collect()
            };
            rows.iter().map(row).collect()
        };
        let (known, strangers) = (of(&self.known, known), of(&self.strangers, strangers));
        let share = self.options.stranger_share;
        if score != UnknownScore::Features {
            let flat = |rows: Vec<Vec<f64>>| rows.concat();
            return fit_unknown(score, &flat(known), &flat(strangers), share);
        }
        let samples = samples_of_kinds(known, strangers, share)?;
        let there = samples.into_iter().map(|sample| {
            let features = sample.features.into_iter().map(Some).collect();
            (features, sample.positive, sample.weight)
        });
        fit_unknown_features(&features, there.collect())
    }

    fn judge(
        &self,
        model: &UnknownModel,
        [known, strangers]: &[Vec<usize>; 2],
    ) -> [Vec<Judged>; 2] {
        let judged = |evidence: &Evidence, label: Option<usize>| {
            judged(evidence.clone(), model, self.power, label)
        };
        [
            known
                .iter()
                .map(|&row| judged(&self.known[row], Some(self.labels[row])))
                .collect(),
            strangers
                .iter()
                .map(|&row| judged(&self.strangers[row], None))
                .collect(),
        ]
    }
}

/// A head with a label, where it is of a known whale, as it is judged in flight.
pub(crate) fn judged(
    evidence: Evidence,
    model: &UnknownModel,
    power: f64,
    label: Option<usize>,
) -> Judged {
    let unknown = evidence.unknown(model);
    let (individual, best) = most_probable(evidence.raised(power).into_iter());
    Judged {
        unknown,
        best,
        right: label == Some(individual),
    }
}

/// Indices below `count`, dealt at random into `parts`.
fn cross_validation_parts(count: usize, parts: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    (0..parts)
        .map(|part| order.iter().copied().skip(part).step_by(parts).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn normal(random: &mut ChaCha8Rng, shape: (usize, usize)) -> Array2<f64> {
        Array2::from_shape_simple_fn(shape, || StandardNormal.sample(&mut *random))
    }

    fn problem(seed: u64, strength: f64) -> (Array2<f64>, Vec<usize>, Regression, f64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let features = normal(&mut random, (30, 6));
        let labels = (0..30).map(|_| random.random_range(0..4)).collect();
        let prior = Regression {
            weight: normal(&mut random, (6, 4)),
            bias: normal(&mut random, (1, 4)).row(0).to_owned(),
        };
        (features, labels, prior, strength)
    }

    /// −log likelihood plus penalty, written down once more from its definition.
    fn objective(
        features: &Array2<f64>,
        labels: &[usize],
        prior: &Regression,
        strength: f64,
        at: &Regression,
    ) -> f64 {
        let mut sum = 0.0;
        for (row, &label) in features.rows().into_iter().zip(labels) {
            let odds: Vec<f64> = (0..at.bias.len())
                .map(|k| row.dot(&at.weight.column(k)) + at.bias[k])
                .collect();
            sum -= odds[label] - odds.iter().map(|o| o.exp()).sum::<f64>().ln();
        }
        let square = |a: f64| a * a;
        let weights = (&at.weight - &prior.weight).mapv(square).sum();
        sum + strength / 2.0 * (weights + (&at.bias - &prior.bias).mapv(square).sum())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        /// At the solution every partial derivative of the objective is 0, by central differences of an
        /// objective that shares no code with the solver.
        #[test]
        fn the_regression_is_optimal(seed in 0..1000u64, strength in 0.05..20.0f64) {
            let (features, labels, prior, strength) = problem(seed, strength);
            let found = fit(&features.view(), &labels, &prior, strength, &prior).unwrap();
            let at = |change: &dyn Fn(&mut Regression)| {
                let mut moved = found.clone();
                change(&mut moved);
                objective(&features, &labels, &prior, strength, &moved)
            };
            let h = 1e-4;
            for k in 0..4 {
                for d in 0..6 {
                    let up = at(&|r| r.weight[[d, k]] += h);
                    let down = at(&|r| r.weight[[d, k]] -= h);
                    prop_assert!(((up - down) / (2.0 * h)).abs() < 2e-3);
                }
                let up = at(&|r| r.bias[k] += h);
                let down = at(&|r| r.bias[k] -= h);
                prop_assert!(((up - down) / (2.0 * h)).abs() < 2e-3);
            }
        }

        #[test]
        fn standardising_carries_a_regression_unchanged(seed in 0..1000u64) {
            let (features, _, raw, _) = problem(seed, 1.0);
            let features = features * 3.0 + 2.0;
            let standardisation = Standardisation::of(&features.view());
            let there = standardisation.carry(&raw);
            let standardised = standardisation.apply(&features.view());
            let difference = there.logits(&standardised.view()) - raw.logits(&features.view());
            prop_assert!(difference.iter().all(|d| d.abs() < 1e-9));
        }

        /// Components are orthonormal and by falling variance, what is left of the features is as much as the
        /// explained variance says, and a regression on them is one on the features.
        #[test]
        fn components_fold_into_the_regression(seed in 0..1000u64, count in 1..7usize) {
            let (features, _, raw, _) = problem(seed, 1.0);
            // Some directions matter more than others.
            let mixed = features.dot(&normal(&mut ChaCha8Rng::seed_from_u64(seed + 1), (6, 6)));
            let features = Standardisation::of(&mixed.view()).apply(&mixed.view());
            let projection = Projection::of(&features.view(), count).unwrap();
            let v = &projection.components;
            let identity = v.t().dot(v) - Array2::<f64>::eye(count);
            prop_assert!(identity.iter().all(|d| d.abs() < 1e-9));
            let seen = projection.apply(&features.view());
            let squares = |a: &Array2<f64>| a.mapv(|x| x * x).sum();
            let variances: Vec<f64> = seen.columns().into_iter().map(|c| c.dot(&c)).collect();
            prop_assert!(variances.is_sorted_by(|a, b| a >= &(b - 1e-9)));
            let left = squares(&(&features - seen.dot(&v.t())));
            let share = 1.0 - left / squares(&features);
            prop_assert!((share - projection.explained_variance).abs() < 1e-9);

            let carried = projection.carry(&raw);
            let unfolded = projection.unfold(&carried);
            let there = carried.logits(&seen.view());
            let back = unfolded.logits(&features.view());
            prop_assert!((&there - &back).iter().all(|d| d.abs() < 1e-9));
            if count == 6 {
                let same = raw.logits(&features.view());
                prop_assert!((&back - &same).iter().all(|d| d.abs() < 1e-9));
            }
        }

        /// No power on a fine grid beats the fitted one, and top-1 stays.
        #[test]
        fn the_power_is_the_best_there_is(seed in 0..1000u64, sharpness in 0.3..3.0f64) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let views = [normal(&mut random, (80, 4)), normal(&mut random, (80, 4))];
            let labels: Vec<usize> = (0..80).map(|_| random.random_range(0..4)).collect();
            let views = views.map(|mut view| {
                labels.iter().enumerate().for_each(|(i, &label)| view[[i, label]] += 1.0);
                view * sharpness
            });
            let opinions = Opinions::of(&views, 1.0);
            let power = fit_power(&opinions, &labels).unwrap();
            let loss = |p: f64| opinions.raised(p).log_loss(&labels);
            for k in 0..60 {
                let other = POWERS.0 * (POWERS.1 / POWERS.0).powf(f64::from(k) / 60.0);
                prop_assert!(loss(power) <= loss(other) + 1e-6);
            }
            prop_assert_eq!(opinions.raised(power).top1(&labels), opinions.top1(&labels));
            let raised = opinions.raised(power);
            prop_assert_eq!(raised.free_energies, opinions.free_energies);
            prop_assert_eq!(raised.concentrations, opinions.concentrations);
        }
    }

    #[test]
    fn infinite_strength_is_the_prior_and_great_strength_nearly() {
        let (features, labels, prior, _) = problem(3, 1.0);
        let fitted = |strength| fit(&features.view(), &labels, &prior, strength, &prior).unwrap();
        assert_eq!(fitted(f64::INFINITY), prior);
        let strays = |r: &Regression| norm((&r.weight - &prior.weight).as_slice().unwrap());
        assert!(strays(&fitted(1e5)) < 1e-2);
        assert!(strays(&fitted(1.0)) > 0.1);
    }

    #[test]
    fn the_mean_of_members_is_the_mean_of_their_logits() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (a, b) = (normal(&mut random, (7, 3)), normal(&mut random, (7, 2)));
        let member = |random: &mut ChaCha8Rng, width| {
            (
                normal(random, (4, width)),
                normal(random, (1, 4)).row(0).to_owned(),
            )
        };
        let members = [member(&mut random, 3), member(&mut random, 2)];
        let both = concatenate(Axis(1), &[a.view(), b.view()]).unwrap();
        let mean = Regression::mean_of(&members).logits(&both.view());
        let own = |x: &Array2<f64>, m: &(Array2<f64>, Array1<f64>)| x.dot(&m.0.t()) + &m.1;
        let expected = (own(&a, &members[0]) + own(&b, &members[1])) / 2.0;
        assert!((mean - expected).iter().all(|d| d.abs() < 1e-12));
    }

    #[test]
    fn the_temperature_undoes_overconfidence() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let honest = normal(&mut random, (4000, 5)) * 1.5;
        let labels: Vec<usize> = Opinions::of(std::slice::from_ref(&honest), 1.0)
            .probabilities
            .rows()
            .into_iter()
            .map(|row| {
                let mut left: f64 = random.random();
                let drawn = row.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                drawn.unwrap_or(4)
            })
            .collect();
        let temperature = fit_temperature(&[honest * 3.0], &labels).unwrap();
        assert!((temperature - 3.0).abs() < 0.2, "{temperature}");
    }

    /// Two normal distributions of one variance have linear log odds, known in closed form.
    #[test]
    fn the_unknown_model_finds_the_odds_of_normal_scores() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut draw = |mean: f64, count: usize| -> Vec<f64> {
            let noise = normal(&mut random, (1, count));
            noise.iter().map(|v| v + mean).collect()
        };
        let (known, unknown) = (draw(2.0, 6000), draw(0.0, 2000));
        let model = fit_unknown(UnknownScore::default(), &known, &unknown, 0.5).unwrap();
        assert!((model.slope + 2.0).abs() < 0.2, "{model:?}");
        assert!((model.intercept - 2.0).abs() < 0.2, "{model:?}");
        // A share of 1 in 5 lowers the odds by ln 4.
        let rarer = fit_unknown(UnknownScore::default(), &known, &unknown, 0.2).unwrap();
        let lowered = f64::from(model.intercept - rarer.intercept);
        assert!((lowered - 4.0_f64.ln()).abs() < 0.2, "{lowered}");
        assert!(matches!(
            fit_unknown(UnknownScore::default(), &known, &unknown, 1.0),
            Err(StackError::Share(_))
        ));
        // Separable scores have an answer too.
        let model = fit_unknown(UnknownScore::default(), &[5.0, 6.0], &[1.0, 2.0], 0.5).unwrap();
        assert!(unknown_probability(&model, 1.0) > 0.9 && unknown_probability(&model, 6.0) < 0.1);
    }

    /// Features of two members: class centres plus noise; the second one is pure noise, but its own
    /// last layer does not know.
    fn synthetic(
        random: &mut ChaCha8Rng,
        count: usize,
        strangers: bool,
    ) -> (Array2<f64>, Vec<usize>) {
        let individuals = 6;
        let labels: Vec<usize> = (0..count)
            .map(|_| random.random_range(0..individuals))
            .collect();
        let mut features = normal(random, (count, 2 * individuals));
        for (i, &label) in labels.iter().enumerate() {
            if !strangers {
                features[[i, label]] += 4.0;
            }
        }
        (features, labels)
    }

    /// Ten strangers, photographed in turn.
    fn whales_of(photographs: usize) -> Vec<usize> {
        (0..photographs).map(|i| i % 10).collect()
    }

    #[test]
    fn stacking_learns_which_member_to_trust() {
        let mut random = ChaCha8Rng::seed_from_u64(13);
        let (known, labels) = synthetic(&mut random, 200, false);
        let (unknown, _) = synthetic(&mut random, 80, true);
        let own = (Array2::eye(6), Array1::zeros(6));
        let average = Regression::mean_of(&[own.clone(), own]);
        let options = StackOptions::default();
        let known = [known];
        let fitted = stack(
            &known,
            &labels,
            &[unknown],
            &whales_of(80),
            &average,
            &options,
        )
        .unwrap();
        let report = &fitted.report;
        assert!(report.strength.is_some());
        assert!(
            report.log_loss < 0.8 * report.averaging_log_loss,
            "{report:?}"
        );
        assert!(report.top1 > report.averaging_top1, "{report:?}");
        assert!(fitted.decision.unknown.slope < 0.0, "{:?}", fitted.decision);
        let aims = fitted.decision.aims.as_ref().unwrap();
        assert!(aims.met && aims.reached.precision >= Some(0.95), "{aims:?}");
        assert!(aims.reached.strangers_identified <= Some(0.1), "{aims:?}");
        assert_eq!(
            (
                aims.reached.known_photographs,
                aims.reached.stranger_photographs
            ),
            (200, 80)
        );
        assert_eq!(aims.reached.stranger_individuals, 10);
        assert!(report.separation.unknown_auroc > Some(0.8), "{report:?}");
        assert_eq!(fitted.head.weight.len(), 6 * 12);
        assert!(fitted.decision.temperature > 0.3 && fitted.decision.temperature < 3.0);

        // The head reproduces the regression on features as they are.
        let head = &fitted.head;
        let first = known[0].row(0);
        let logits: Vec<f64> = (0..6)
            .map(|k| {
                let terms = (0..12).map(|d| {
                    let z = (first[d] - f64::from(head.mean[d])) / f64::from(head.std[d]);
                    z * f64::from(head.weight[k * 12 + d])
                });
                terms.sum::<f64>() + f64::from(head.bias[k])
            })
            .collect();
        let best = (0..6)
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        assert_eq!(best, labels[0]);
    }

    /// What is exported works on features as they are.
    #[test]
    fn components_and_power_reach_the_exported_layer_and_the_report() {
        let mut random = ChaCha8Rng::seed_from_u64(19);
        let (known, labels) = synthetic(&mut random, 120, false);
        let moved = |random: &mut ChaCha8Rng| &known + &(normal(random, (120, 12)) * 0.5);
        let views = [known.clone(), moved(&mut random), moved(&mut random)];
        let (unknown, _) = synthetic(&mut random, 40, true);
        let unknown = vec![unknown; 3];
        let own = (Array2::eye(6), Array1::zeros(6));
        let average = Regression::mean_of(&[own.clone(), own]);
        let fitted = |components, power| {
            let options = StackOptions {
                components,
                power,
                ..StackOptions::default()
            };
            stack(
                &views,
                &labels,
                &unknown,
                &whales_of(40),
                &average,
                &options,
            )
        };
        let plain = fitted(None, Power::default()).unwrap();
        assert_eq!(
            (&plain.report.components, &plain.report.power),
            (&None, &None)
        );
        let both = fitted(Some(8), Power::Fitted).unwrap();
        let of_components = both.report.components.as_ref().unwrap();
        assert_eq!(of_components.components, 8);
        assert!(of_components.explained_variance > 0.6 && of_components.explained_variance < 1.0);
        assert_eq!(of_components.log_loss_without, plain.report.log_loss);
        assert_eq!(of_components.top1_without, plain.report.top1);
        let of_power = both.report.power.as_ref().unwrap();
        assert!(both.report.log_loss <= of_power.log_loss_without + 1e-9);
        assert_eq!(both.decision.power, of_power.power as f32);

        // The layer's weights on standardised features lie in the space of the components.
        let standardised = Standardisation::of(&known.view()).apply(&known.view());
        let projection = Projection::of(&standardised.view(), 8).unwrap();
        let weight: Vec<f64> = both.head.weight.iter().map(|w| f64::from(*w)).collect();
        let weight = Array2::from_shape_vec((6, 12), weight).unwrap();
        let within = weight
            .dot(&projection.components)
            .dot(&projection.components.t());
        assert!((&weight - &within).iter().all(|d| d.abs() < 1e-5));
        // All components are all features.
        let all = fitted(Some(12), Power::default()).unwrap();
        assert!((all.report.log_loss - plain.report.log_loss).abs() < 1e-3);

        let error = fitted(Some(13), Power::default()).unwrap_err();
        assert!(error.to_string().contains("ask for 1 to 12"), "{error}");
        let error = fitted(None, Power::Fixed(0.0)).unwrap_err();
        assert!(matches!(error, StackError::Power(_)), "{error}");
        assert_eq!("fit".parse(), Ok(Power::Fitted));
        assert_eq!("1.5".parse(), Ok(Power::Fixed(1.5)));
        assert!("-1".parse::<Power>().is_err());
    }

    #[test]
    fn data_that_cannot_be_stacked_are_refused() {
        let average = Regression {
            weight: Array2::zeros((12, 6)),
            bias: Array1::zeros(6),
        };
        let options = StackOptions::default();
        let mut random = ChaCha8Rng::seed_from_u64(17);
        let (few, labels) = synthetic(&mut random, 3, false);
        let error = stack(&[few], &labels, &[], &[], &average, &options).unwrap_err();
        assert!(
            matches!(error, StackError::TooFew { found: 3, .. }),
            "{error}"
        );
        let (mut broken, labels) = synthetic(&mut random, 30, false);
        broken[[7, 2]] = f64::NAN;
        let error = stack(&[broken], &labels, &[], &[], &average, &options).unwrap_err();
        assert!(
            matches!(error, StackError::NotFinite { index: 7 }),
            "{error}"
        );
    }
}
