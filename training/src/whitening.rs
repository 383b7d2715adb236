//! Features in which the photographs of one whale vary alike in all directions, so that the cosine between two of
//! them looks less at what differs between photographs of one whale: light, angle, waves.
//!
//! Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006, "Within-class covariance normalization
//! for SVM-based speaker recognition"): features are multiplied with `(C + λ c I)^(−1/2)`, where `C` is the
//! covariance of features about their whale's mean and `c` its mean eigenvalue.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array2, Axis};

use crate::neighbours::photographs_of_whales;

/// λ: how much every direction is taken to vary at least, in units of what they vary on average. From 0.1 to 1
/// it hardly matters.
const SHRINKAGE: f64 = 0.25;

/// The symmetric matrix with which features are multiplied, `features × features`. `features` is
/// `photographs × features`, `whales` says whose each photograph is. The identity where no whale has two
/// photographs that differ.
pub fn within_whales(features: &Array2<f64>, whales: &[usize]) -> Array2<f64> {
    let width = features.ncols();
    let mut covariance = Array2::<f64>::zeros((width, width));
    for photographs in photographs_of_whales(whales).values() {
        let own = features.select(Axis(0), photographs);
        if let Some(mean) = own.mean_axis(Axis(0)) {
            let about_mean = own - mean;
            covariance += &about_mean.t().dot(&about_mean);
        }
    }
    covariance /= features.nrows().max(1) as f64;
    let least = SHRINKAGE * covariance.diag().mean().unwrap_or(0.0);
    if least <= 0.0 {
        return Array2::eye(width);
    }
    let eigen = SymmetricEigen::new(DMatrix::from_fn(width, width, |i, j| covariance[[i, j]]));
    let scales = eigen
        .eigenvalues
        .map(|variance| 1.0 / (variance.max(0.0) + least).sqrt());
    let whitening =
        &eigen.eigenvectors * DMatrix::from_diagonal(&scales) * eigen.eigenvectors.transpose();
    Array2::from_shape_fn((width, width), |(i, j)| whitening[(i, j)])
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    /// By hand: two whales, each seen twice along either axis, ±2 and ±√2 from its mean. The covariance is
    /// diagonal (2, 1).
    #[test]
    fn two_whales_by_hand() {
        let features = array![
            [12.0, 5.0],
            [8.0, 5.0],
            [10.0, 5.0 + 2f64.sqrt()],
            [10.0, 5.0 - 2f64.sqrt()],
            [-1.0, 7.0],
            [-5.0, 7.0],
            [-3.0, 7.0 + 2f64.sqrt()],
            [-3.0, 7.0 - 2f64.sqrt()],
        ];
        let found = within_whales(&features, &[3, 3, 3, 3, 0, 0, 0, 0]);
        let of = |variance: f64| 1.0 / (variance + SHRINKAGE * 1.5).sqrt();
        let expected = array![[of(2.0), 0.0], [0.0, of(1.0)]];
        assert!(
            (&found - &expected).iter().all(|d| d.abs() < 1e-12),
            "{found}"
        );
    }

    #[test]
    fn nothing_is_known_of_whales_seen_once() {
        let features = array![[1.0, 2.0], [3.0, 4.0]];
        assert_eq!(within_whales(&features, &[0, 1]), Array2::<f64>::eye(2));
        assert_eq!(
            within_whales(&Array2::zeros((0, 2)), &[]),
            Array2::<f64>::eye(2)
        );
    }

    /// Whales that differ along few directions and vary most along others are told apart better.
    #[test]
    fn neighbours_are_of_the_whale_more_often() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let (whales, each, width) = (20, 6, 8);
        let mut normal = || -> f64 { StandardNormal.sample(&mut random) };
        let centres = Array2::from_shape_simple_fn((whales, width), &mut normal);
        let labels: Vec<usize> = (0..whales * each).map(|i| i % whales).collect();
        let features = Array2::from_shape_fn((labels.len(), width), |(i, j)| {
            centres[[labels[i], j]] + if j < 3 { 4.0 } else { 0.4 } * normal()
        });
        let right = |features: &Array2<f64>| {
            let units = features
                / &features
                    .map_axis(Axis(1), |r| r.dot(&r).sqrt())
                    .insert_axis(Axis(1));
            let cosines = units.dot(&units.t());
            let nearest = |i: usize| {
                (0..labels.len())
                    .filter(|&j| j != i)
                    .max_by(|&a, &b| cosines[[i, a]].total_cmp(&cosines[[i, b]]))
                    .unwrap()
            };
            (0..labels.len())
                .filter(|&i| labels[nearest(i)] == labels[i])
                .count()
        };
        let (before, after) = (
            right(&features),
            right(&features.dot(&within_whales(&features, &labels))),
        );
        assert!(after > before + 20, "{before} {after} of {}", labels.len());
    }
}
