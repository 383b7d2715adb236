//! How good predictions are: rank metrics, log loss, calibration, known against unknown, landmarks.
//!
//! Probabilities of photographs are slices with one entry for each class, in 0…1. Means over no
//! photographs are NaN.

/// Probabilities below it, and above one minus it, are clipped in the [`log_loss`]: as the 2015 right
/// whale challenge did.
pub const CLIP: f64 = 1e-15;

/// Number of bins of the [`expected_calibration_error`] (Guo et al. 2017).
pub const CALIBRATION_BINS: usize = 15;

/// Place of the true class among all, from 0, by descending score. Ties count against the true class,
/// so that equal scores for all are no success; a true class whose score is NaN comes last.
pub fn rank(scores: &[f64], truth: usize) -> usize {
    let own = scores[truth];
    if own.is_nan() {
        return scores.len() - 1;
    }
    let ahead = scores
        .iter()
        .enumerate()
        .filter(|&(class, &score)| class != truth && (score >= own || score.is_nan()));
    ahead.count()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    sum / n as f64
}

/// Fraction of photographs whose true class is among the first `k`, from their [ranks](rank).
pub fn top_k(ranks: &[usize], k: usize) -> f64 {
    mean(ranks.iter().map(|&r| f64::from(u8::from(r < k))))
}

/// Mean average precision among the first `k` with one right answer each: the mean of 1 / (rank + 1)
/// where the rank is below `k`, else 0.
pub fn mean_average_precision(ranks: &[usize], k: usize) -> f64 {
    let precision = |r: usize| if r < k { 1.0 / (r + 1) as f64 } else { 0.0 };
    mean(ranks.iter().map(|&r| precision(r)))
}

/// Mean of minus the natural logarithm of the true class's probability, each distribution scaled to
/// sum 1 and clipped to [`CLIP`].
pub fn log_loss<'a>(predictions: impl IntoIterator<Item = (&'a [f64], usize)>) -> f64 {
    mean(predictions.into_iter().map(|(probabilities, truth)| {
        let p = probabilities[truth] / probabilities.iter().sum::<f64>();
        // A NaN (as of a distribution of zeros) is the worst answer, not an undefined mean.
        let p = if p.is_nan() { CLIP } else { p };
        -p.clamp(CLIP, 1.0 - CLIP).ln()
    }))
}

/// Predictions of similar confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReliabilityBin {
    /// Lower edge of the confidence, exclusive (inclusive in the first bin).
    pub from: f64,
    /// Upper edge, inclusive.
    pub to: f64,
    /// How many predictions.
    pub count: usize,
    /// Their mean confidence; 0 where there is none.
    pub confidence: f64,
    /// Fraction of them that is right; 0 where there is none.
    pub accuracy: f64,
}

/// Predictions, each a confidence in 0…1 and whether it is right, in `bins` bins of equal width.
pub fn reliability(predictions: &[(f64, bool)], bins: usize) -> Vec<ReliabilityBin> {
    let width = 1.0 / bins as f64;
    let mut result: Vec<_> = (0..bins)
        .map(|i| ReliabilityBin {
            from: i as f64 * width,
            to: (i + 1) as f64 * width,
            ..ReliabilityBin::default()
        })
        .collect();
    for &(confidence, right) in predictions {
        let i = (confidence * bins as f64).ceil() as usize;
        let bin = &mut result[i.clamp(1, bins) - 1];
        bin.count += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(right));
    }
    for bin in &mut result {
        if bin.count > 0 {
            bin.confidence /= bin.count as f64;
            bin.accuracy /= bin.count as f64;
        }
    }
    result
}

/// Expected calibration error: mean distance of confidence and accuracy over [`CALIBRATION_BINS`]
/// bins, weighted by their predictions.
pub fn expected_calibration_error(predictions: &[(f64, bool)]) -> f64 {
    let gap: f64 = reliability(predictions, CALIBRATION_BINS)
        .iter()
        .map(|bin| bin.count as f64 * (bin.confidence - bin.accuracy).abs())
        .sum();
    gap / predictions.len() as f64
}

/// A share; `None` where the whole is nothing.
pub fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The 95 % interval of a share of `part` of `whole`, by Wilson's score (Wilson 1927): it stays within 0…1 and is honest
/// for few. `None` where the whole is nothing.
pub fn wilson(part: f64, whole: f64) -> Option<[f64; 2]> {
    /// The standard normal distribution's 97.5th percentile.
    const Z: f64 = 1.959_963_984_540_054;
    if whole <= 0.0 {
        return None;
    }
    let share = part / whole;
    let z2 = Z * Z / whole;
    let middle = share + z2 / 2.0;
    let reach = Z
        * (share * (1.0 - share) / whole + z2 / (4.0 * whole))
            .max(0.0)
            .sqrt();
    let bound = |value: f64| (value / (1.0 + z2)).clamp(0.0, 1.0);
    Some([bound(middle - reach), bound(middle + reach)])
}

/// Area under the receiver operating characteristic: the probability that a positive scores above a
/// negative, ties counting half. `None` where there is no positive or no negative, or a score is NaN.
pub fn auroc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let tagged = |scores: &[f64], positive| -> Vec<(f64, bool)> {
        scores.iter().map(|&score| (score, positive)).collect()
    };
    let mut all = tagged(positives, true);
    all.extend(tagged(negatives, false));
    if all.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rank_sum = 0.0;
    let mut below = 0;
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let mean_rank = below as f64 + (tied.len() + 1) as f64 / 2.0;
        let tied_positives = tied.iter().filter(|(_, positive)| *positive).count();
        rank_sum += mean_rank * tied_positives as f64;
        below += tied.len();
    }
    let (p, n) = (positives.len() as f64, negatives.len() as f64);
    Some((rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}

/// Landmark errors over heads, as fractions of the head's length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LandmarkErrors {
    /// How many heads.
    pub count: usize,
    /// Median.
    pub median: f64,
    /// 90th percentile.
    pub percentile_90: f64,
}

impl LandmarkErrors {
    /// Sums up the errors of heads ([`recognition::geometry::Landmarks::error`]); `None` without any.
    pub fn of(errors: &[f64]) -> Option<Self> {
        Some(Self {
            count: errors.len(),
            median: quantile(errors, 0.5)?,
            percentile_90: quantile(errors, 0.9)?,
        })
    }
}

/// Quantile `q` in 0…1, interpolated linearly between the neighbouring values; `None` without values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Against R's `prop.test(…, correct = FALSE)`, and by hand at the ends: 0 of n has the upper bound z² / (n + z²).
    #[test]
    fn intervals_of_shares() {
        let near = |found: Option<[f64; 2]>, low: f64, high: f64| {
            let found = found.unwrap();
            assert!((found[0] - low).abs() < 1e-6, "{found:?}");
            assert!((found[1] - high).abs() < 1e-6, "{found:?}");
        };
        near(wilson(50.0, 100.0), 0.403_831_5, 0.596_168_5);
        let z2 = 1.959_963_984_540_054_f64.powi(2);
        near(wilson(0.0, 20.0), 0.0, z2 / (20.0 + z2));
        near(wilson(20.0, 20.0), 20.0 / (20.0 + z2), 1.0);
        assert_eq!(wilson(0.0, 0.0), None);
    }

    /// Numbers that scikit-learn and NumPy give for the same input (`training/tests/metrics.py`).
    #[test]
    fn agrees_with_scikit_learn() {
        let text = include_str!("../tests/metrics.json");
        let cases: serde_json::Value = serde_json::from_str(text).expect("committed JSON");
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            serde_json::from_value(value.clone()).expect("numbers")
        };
        let near = |a: f64, b: &serde_json::Value| {
            let b = b.as_f64().expect("a number");
            assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        };
        let probabilities: Vec<Vec<f64>> = cases["probabilities"]
            .as_array()
            .expect("rows")
            .iter()
            .map(numbers)
            .collect();
        let truth: Vec<usize> =
            serde_json::from_value(cases["truth"].clone()).expect("class numbers");
        let pairs = || {
            probabilities
                .iter()
                .map(Vec::as_slice)
                .zip(truth.iter().copied())
        };
        let ranks: Vec<usize> = pairs().map(|(p, t)| rank(p, t)).collect();
        near(top_k(&ranks, 1), &cases["top_1"]);
        near(top_k(&ranks, 5), &cases["top_5"]);
        near(mean_average_precision(&ranks, 5), &cases["map_5"]);
        near(log_loss(pairs()), &cases["log_loss"]);
        let confident: Vec<(f64, bool)> = pairs()
            .zip(&ranks)
            .map(|((p, _), &r)| (p.iter().copied().fold(0.0, f64::max), r == 0))
            .collect();
        near(
            expected_calibration_error(&confident),
            &cases["calibration_error"],
        );
        let (positives, negatives) = (numbers(&cases["positives"]), numbers(&cases["negatives"]));
        let area = auroc(&positives, &negatives).expect("both kinds are there");
        near(area, &cases["auroc"]);
        let errors = LandmarkErrors::of(&positives).expect("not empty");
        near(errors.median, &cases["median"]);
        near(errors.percentile_90, &cases["percentile_90"]);
    }

    #[test]
    fn worst_answers_stay_finite() {
        let zero = [0.0, 1.0];
        assert!((log_loss([(&zero[..], 0)]) + CLIP.ln()).abs() < 1e-9);
        assert!((log_loss([(&[0.0, 0.0][..], 0)]) + CLIP.ln()).abs() < 1e-9);
        assert_eq!(rank(&[f64::NAN, 0.5], 0), 1);
        assert_eq!(rank(&[0.5, f64::NAN], 0), 1);
        assert_eq!(rank(&[0.5, 0.5, 0.5], 1), 2);
        assert_eq!(auroc(&[1.0], &[]), None);
        assert_eq!(auroc(&[f64::NAN], &[1.0]), None);
        assert_eq!(LandmarkErrors::of(&[]), None);
    }

    proptest! {
        #[test]
        fn auroc_is_the_fraction_of_ordered_pairs(
            positives in prop::collection::vec(0..8i32, 1..30),
            negatives in prop::collection::vec(0..8i32, 1..30),
        ) {
            let [p, n] = [&positives, &negatives]
                .map(|v| v.iter().copied().map(f64::from).collect::<Vec<_>>());
            let mut wins = 0.0;
            for a in &p {
                for b in &n {
                    wins += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            let naive = wins / (p.len() * n.len()) as f64;
            prop_assert!((auroc(&p, &n).expect("not empty") - naive).abs() < 1e-12);
        }

        #[test]
        fn every_prediction_is_in_its_bin(
            predictions in prop::collection::vec((0.0..=1.0f64, any::<bool>()), 0..60),
        ) {
            let bins = reliability(&predictions, CALIBRATION_BINS);
            prop_assert_eq!(bins.iter().map(|b| b.count).sum::<usize>(), predictions.len());
            for bin in bins.iter().filter(|b| b.count > 0) {
                prop_assert!(bin.from - 1e-9 <= bin.confidence && bin.confidence <= bin.to + 1e-9);
            }
        }

        #[test]
        fn rank_without_ties_is_the_place_in_sorted_order(
            scores in prop::collection::hash_set(0..1000i32, 1..40),
            pick in any::<prop::sample::Index>(),
        ) {
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let truth = pick.index(scores.len());
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(sorted.iter().position(|&s| s == scores[truth]), Some(rank(&scores, truth)));
        }
    }
}
