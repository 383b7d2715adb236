//! Losses on embeddings: what the same whale's photographs have in common, and others' have not.
//!
//! Embeddings are unit vectors, `N × channels` float32; labels are `N` whole numbers. All losses compare
//! the photographs of one batch with each other, so a batch must hold several of a whale.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A loss on the embeddings of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum MetricLoss {
    /// FaceNet's triplets with online semi-hard mining (Schroff et al. 2015): every pair of a whale with
    /// the nearest other whale that is further away than the pair; with the furthest other whale where all
    /// are nearer. The squared distance of the pair must be smaller by `margin`.
    Triplet {
        /// In squared distances of unit vectors, 0…4.
        margin: f64,
    },
    /// Pairs (Hadsell et al. 2006): the same whale's as near as possible, others' at least `margin` apart.
    /// The two kinds count equally, however many there are.
    Contrastive {
        /// In distances of unit vectors, 0…2.
        margin: f64,
    },
    /// The other photographs of a whale are told from all others in the batch by a softmax over cosines
    /// (Chen et al. 2020, "SimCLR", NT-Xent; with several of a whale Khosla et al. 2020, "Supervised
    /// contrastive learning", their equation 2).
    NtXent {
        /// By which cosines are divided; above 0.
        temperature: f64,
    },
}

/// Which pairs of a batch show the same whale, and which another; both `N × N`, never a photograph with
/// itself.
fn pairs(labels: &Tensor) -> (Tensor, Tensor) {
    let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1));
    let itself = Tensor::eye(labels.size()[0], (Kind::Bool, labels.device()));
    (same.logical_and(&itself.logical_not()), same.logical_not())
}

/// Squared distances of unit vectors, `N × N`, each at least 0.
fn squared_distances(embeddings: &Tensor) -> Tensor {
    (embeddings.matmul(&embeddings.tr()) * -2.0 + 2.0).clamp_min(0.0)
}

/// Mean of `values` where `mask` holds; 0 where it holds nowhere.
fn masked_mean(values: &Tensor, mask: &Tensor) -> Tensor {
    let mask = mask.to_kind(Kind::Float);
    (values * &mask).sum(Kind::Float) / mask.sum(Kind::Float).clamp_min(1.0)
}

impl MetricLoss {
    /// The loss of a batch. 0 where no whale has two photographs in it.
    pub fn of(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let (same, other) = pairs(labels);
        match *self {
            Self::Triplet { margin } => {
                let d = squared_distances(embeddings);
                // anchor × positive × negative
                let of_pair = d.unsqueeze(2);
                let of_other = d.unsqueeze(1);
                let others = other.unsqueeze(1);
                let further = of_other.gt_tensor(&of_pair).logical_and(&others);
                let semi_hard = of_other
                    .expand_as(&further)
                    .masked_fill(&further.logical_not(), f64::INFINITY)
                    .amin([2i64].as_slice(), false);
                let furthest = d
                    .masked_fill(&other.logical_not(), f64::NEG_INFINITY)
                    .amax([1i64].as_slice(), true);
                let negative = semi_hard.where_self(&semi_hard.isfinite(), &furthest);
                let has_other = other.any_dim(1, true);
                let valid = same.logical_and(&has_other);
                // Infinities where there is no triplet must not reach the gradient.
                let violation = (&d - negative + margin).masked_fill(&valid.logical_not(), 0.0);
                masked_mean(&violation.clamp_min(0.0), &valid)
            }
            Self::Contrastive { margin } => {
                let squared = squared_distances(embeddings);
                let distance = (&squared + 1e-12).sqrt();
                let gap = (margin - distance).clamp_min(0.0).square();
                masked_mean(&squared, &same) + masked_mean(&gap, &other)
            }
            Self::NtXent { temperature } => {
                let itself = same.logical_or(&other).logical_not();
                let scores = (embeddings.matmul(&embeddings.tr()) / temperature)
                    .masked_fill(&itself, f64::NEG_INFINITY);
                let log_share = scores.log_softmax(1, Kind::Float).masked_fill(&itself, 0.0);
                let of_anchor = same.to_kind(Kind::Float);
                let count = of_anchor.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
                let each =
                    (log_share * &of_anchor).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
                        / count.clamp_min(1.0);
                -masked_mean(&each, &count.gt(0.0))
            }
        }
    }
}

/// Logits of a [`Cosine`](crate::graph::Layer::Cosine) layer with `margin`, in radians, added to the angle
/// between each photograph and its own whale (Deng et al. 2019, "ArcFace", equation 3). Beyond an angle of
/// π − margin, where that would be no monotonous function, a line goes on from it.
pub fn with_angular_margin(logits: &Tensor, labels: &Tensor, scale: f64, margin: f64) -> Tensor {
    let own = labels.unsqueeze(1);
    let cosine = logits.gather(1, &own, false) / scale;
    let cosine = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6);
    let sine = (-cosine.square() + 1.0).sqrt();
    let turned = &cosine * margin.cos() - sine * margin.sin();
    let line = &cosine - margin * margin.sin();
    let near = cosine.gt((std::f64::consts::PI - margin).cos());
    let harder = turned.where_self(&near, &line) * scale;
    logits.scatter(1, &own, &harder)
}

/// How many photographs of a batch have the same whale's as nearest other photograph.
pub fn nearest_is_same(embeddings: &Tensor, labels: &Tensor) -> f64 {
    let itself = Tensor::eye(labels.size()[0], (Kind::Bool, labels.device()));
    let similarity = embeddings.matmul(&embeddings.tr());
    let nearest = similarity
        .masked_fill(&itself, f64::NEG_INFINITY)
        .argmax(1, false);
    labels
        .index_select(0, &nearest)
        .eq_tensor(labels)
        .sum(Kind::Double)
        .double_value(&[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Device;

    use super::*;
    use crate::network::unit;

    fn batch(seed: i64, labels: &[i64]) -> (Tensor, Tensor, Vec<Vec<f64>>) {
        tch::manual_seed(seed);
        let n = labels.len() as i64;
        let embeddings = unit(&Tensor::randn([n, 3], (Kind::Float, Device::Cpu)));
        let rows = (0..n)
            .map(|i| Vec::<f64>::try_from(embeddings.get(i).to_kind(Kind::Double)).unwrap())
            .collect();
        (embeddings, Tensor::from_slice(labels), rows)
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    fn check(loss: MetricLoss, embeddings: &Tensor, labels: &Tensor, expected: f64) {
        let found = loss.of(embeddings, labels).double_value(&[]);
        assert!(
            (found - expected).abs() < 1e-4,
            "{loss:?}: {found} {expected}"
        );
        let leaf = embeddings.detach().copy().set_requires_grad(true);
        loss.of(&leaf, labels).backward();
        assert!(crate::network::tensor_is_finite(&leaf.grad()));
    }

    proptest! {
        /// Against the definitions, pair by pair.
        #[test]
        fn losses_are_those_of_the_papers(
            seed in 0..1000i64, labels in prop::collection::vec(0..4i64, 2..10), margin in 0.05..1.0f64,
        ) {
            let (embeddings, tensor, rows) = batch(seed, &labels);
            let n = labels.len();
            let squared = |i: usize, j: usize| (2.0 - 2.0 * dot(&rows[i], &rows[j])).max(0.0);
            let others = |i: usize| (0..n).filter(|&k| labels[k] != labels[i]).collect::<Vec<_>>();
            let (mut triplets, mut near, mut apart, mut shares) = (vec![], vec![], vec![], vec![]);
            for i in 0..n {
                let mut share = vec![];
                for j in (0..n).filter(|&j| j != i) {
                    let exp = |k: usize| (dot(&rows[i], &rows[k]) / margin).exp();
                    if labels[i] != labels[j] {
                        apart.push((margin - squared(i, j).sqrt()).max(0.0).powi(2));
                        continue;
                    }
                    near.push(squared(i, j));
                    let all: f64 = (0..n).filter(|&k| k != i).map(exp).sum();
                    share.push(-(exp(j) / all).ln());
                    let distances: Vec<f64> = others(i).iter().map(|&k| squared(i, k)).collect();
                    if distances.is_empty() {
                        continue;
                    }
                    let further = distances.iter().copied().filter(|&d| d > squared(i, j));
                    let semi_hard = further.fold(f64::INFINITY, f64::min);
                    let furthest = distances.iter().copied().fold(0.0, f64::max);
                    let negative = if semi_hard.is_finite() { semi_hard } else { furthest };
                    triplets.push((squared(i, j) - negative + margin).max(0.0));
                }
                if !share.is_empty() {
                    shares.push(mean(&share));
                }
            }
            check(MetricLoss::Triplet { margin }, &embeddings, &tensor, mean(&triplets));
            check(MetricLoss::Contrastive { margin }, &embeddings, &tensor, mean(&near) + mean(&apart));
            check(MetricLoss::NtXent { temperature: margin }, &embeddings, &tensor, mean(&shares));
        }

        #[test]
        fn a_margin_turns_the_own_angle_alone(
            angle in 0.01..3.13f64, other in -1.0..1.0f64, margin in 0.0..0.9f64, scale in 1.0..40.0f64,
        ) {
            let logits = Tensor::from_slice(&[scale * angle.cos(), scale * other]).view([1, 2]);
            let found = with_angular_margin(&logits, &Tensor::from_slice(&[0i64]), scale, margin);
            prop_assert!((found.double_value(&[0, 1]) - scale * other).abs() < 1e-9);
            let own = found.double_value(&[0, 0]) / scale;
            if angle + margin < std::f64::consts::PI {
                prop_assert!((own - (angle + margin).cos()).abs() < 1e-3);
            }
            prop_assert!(own <= angle.cos() + 1e-3, "never easier");
        }
    }

    #[test]
    fn neighbours_by_hand() {
        let rows = [[1.0f32, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]];
        let embeddings = Tensor::from_slice2(&rows);
        let count = |labels: &[i64]| nearest_is_same(&embeddings, &Tensor::from_slice(labels));
        // The nearest to each: 1, 0, 1, 2.
        assert_eq!(count(&[5, 5, 7, 7]), 3.0);
        assert_eq!(count(&[5, 7, 5, 7]), 0.0);
    }
}
