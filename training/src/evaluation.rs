//! Measures of identification and detection, from what was said and what is true.

use std::cmp::Ordering;

use callosity::geometry::Landmarks;
use serde::Serialize;

/// What was said of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Candidates by falling probability.
    pub candidates: Vec<(String, f64)>,
    /// Probability of being none of the catalogue.
    pub unknown: f64,
    /// Who it is.
    pub truth: String,
    /// Whether the catalogue has that individual.
    pub catalogued: bool,
}

impl Answer {
    fn rank(&self) -> Option<usize> {
        self.candidates.iter().position(|(c, _)| *c == self.truth)
    }
}

/// How well heads are named.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamingMetrics {
    /// Heads of catalogued individuals; the first five measures are over these.
    pub known: usize,
    /// Heads of individuals that the catalogue lacks.
    pub unknown: usize,
    /// Share whose first candidate is right.
    pub top1: Option<f64>,
    /// Share with the right one among the first five.
    pub top5: Option<f64>,
    /// Mean of 1 / rank, 0 below rank 5.
    pub map5: Option<f64>,
    /// Mean of −ln of the right one's probability, which counts as at least 1e-15.
    pub log_loss: Option<f64>,
    /// Expected calibration error of the first candidate, 15 bins of equal width.
    pub calibration_error: Option<f64>,
    /// Probability that a head that the catalogue lacks has a higher probability of "unknown" than one
    /// that it has; ties count half.
    pub unknown_auroc: Option<f64>,
}

const CALIBRATION_BINS: usize = 15;

/// Measures answers. Measures over no heads are absent.
pub fn naming(answers: &[Answer]) -> NamingMetrics {
    let known: Vec<&Answer> = answers.iter().filter(|a| a.catalogued).collect();
    let mean = |of: &dyn Fn(&Answer) -> f64| {
        let sum: f64 = known.iter().map(|a| of(a)).sum();
        (!known.is_empty()).then(|| sum / known.len() as f64)
    };
    let within = |a: &Answer, places: usize| a.rank().is_some_and(|r| r < places);
    let score = |catalogued: bool| -> Vec<f64> {
        let each = answers.iter().filter(|a| a.catalogued == catalogued);
        each.map(|a| a.unknown).collect()
    };
    NamingMetrics {
        known: known.len(),
        unknown: answers.len() - known.len(),
        top1: mean(&|a| f64::from(u8::from(within(a, 1)))),
        top5: mean(&|a| f64::from(u8::from(within(a, 5)))),
        map5: mean(&|a| match a.rank() {
            Some(rank) if rank < 5 => 1.0 / (rank + 1) as f64,
            _ => 0.0,
        }),
        log_loss: mean(&|a| -a.rank().map_or(0.0, |r| a.candidates[r].1).max(1e-15).ln()),
        calibration_error: calibration_error(&known),
        unknown_auroc: auroc(&score(false), &score(true)),
    }
}

fn calibration_error(answers: &[&Answer]) -> Option<f64> {
    let mut bins = [(0.0, 0.0); CALIBRATION_BINS];
    for answer in answers {
        let confidence = answer.candidates.first().map_or(0.0, |c| c.1);
        let bin = ((confidence * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
        bins[bin].0 += confidence;
        bins[bin].1 += f64::from(u8::from(answer.rank() == Some(0)));
    }
    let gaps: f64 = bins
        .iter()
        .map(|(confidence, right)| (confidence - right).abs())
        .sum();
    (!answers.is_empty()).then(|| gaps / answers.len() as f64)
}

/// Probability that a positive scores above a negative (Mann & Whitney); `None` where either lacks.
pub fn auroc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    for p in positive {
        for n in negative {
            sum += match p.total_cmp(n) {
                Ordering::Greater => 1.0,
                Ordering::Equal => 0.5,
                Ordering::Less => 0.0,
            };
        }
    }
    Some(sum / (positive.len() * negative.len()) as f64)
}

/// For each true head the found one that matches it, and how many found ones match none. A match has
/// both landmarks within half a head length; nearest pairs first, each head once.
pub fn match_heads(truth: &[Landmarks], found: &[Landmarks]) -> (Vec<Option<usize>>, usize) {
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (t, true_head) in truth.iter().enumerate() {
        let reach = true_head.head_length() / 2.0;
        for (f, head) in found.iter().enumerate() {
            let bonnet = head.bonnet.distance(true_head.bonnet);
            let blowhead = head.blowhead.distance(true_head.blowhead);
            if bonnet <= reach && blowhead <= reach {
                pairs.push((head.error(true_head), t, f));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut matched = vec![None; truth.len()];
    let mut taken = vec![false; found.len()];
    for (_, t, f) in pairs {
        if matched[t].is_none() && !taken[f] {
            matched[t] = Some(f);
            taken[f] = true;
        }
    }
    let unmatched = taken.iter().filter(|t| !**t).count();
    (matched, unmatched)
}

/// The value below which a share of the values lies, interpolated; `None` of nothing.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use callosity::geometry::Point;
    use proptest::prelude::*;

    use super::*;

    fn answer(truth: &str, catalogued: bool, probabilities: &[f64], unknown: f64) -> Answer {
        let names = ["a", "b", "c", "d", "e", "f"];
        let each = names.iter().zip(probabilities);
        let mut candidates: Vec<_> = each.map(|(n, p)| ((*n).to_owned(), *p)).collect();
        candidates.sort_by(|x, y| y.1.total_cmp(&x.1));
        Answer {
            candidates,
            unknown,
            truth: truth.to_owned(),
            catalogued,
        }
    }

    #[test]
    fn naming_by_hand() {
        let answers = [
            answer("a", true, &[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], 0.1),
            answer("b", true, &[0.5, 0.25, 0.1, 0.08, 0.05, 0.02], 0.3),
            answer("f", true, &[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], 0.6),
            answer("z", false, &[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], 0.5),
        ];
        let m = naming(&answers);
        assert_eq!((m.known, m.unknown), (3, 1));
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?} {b}");
        near(m.top1, 1.0 / 3.0);
        near(m.top5, 2.0 / 3.0);
        near(m.map5, 0.5);
        near(
            m.log_loss,
            -(0.5f64.ln() + 0.25f64.ln() + 0.04f64.ln()) / 3.0,
        );
        // All three say 0.5 and one is right: |1.5 − 1| / 3.
        near(m.calibration_error, 1.0 / 6.0);
        near(m.unknown_auroc, 2.0 / 3.0);
        let nothing = naming(&[]);
        assert_eq!((nothing.top1, nothing.unknown_auroc), (None, None));
    }

    fn head(x: f64) -> Landmarks {
        Landmarks {
            bonnet: Point::new(x + 100.0, 50.0),
            blowhead: Point::new(x, 50.0),
        }
    }

    #[test]
    fn heads_are_matched_once_and_only_near_ones() {
        let truth = [head(0.0), head(500.0), head(1000.0)];
        let found = [head(30.0), head(10.0), head(551.0), head(2000.0)];
        let (matched, unmatched) = match_heads(&truth, &found);
        assert_eq!(matched, [Some(1), None, None]);
        assert_eq!(unmatched, 3);
        // Turned round, a head is not found: both landmarks are a head length off.
        let turned = Landmarks {
            bonnet: head(0.0).blowhead,
            blowhead: head(0.0).bonnet,
        };
        assert_eq!(match_heads(&truth[..1], &[turned]), (vec![None], 1));
    }

    proptest! {
        #[test]
        fn auroc_is_symmetric_and_quantiles_are_ordered(
            a in prop::collection::vec(0.0..1.0f64, 1..30),
            b in prop::collection::vec(0.0..1.0f64, 1..30),
        ) {
            let sum = auroc(&a, &b).unwrap() + auroc(&b, &a).unwrap();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            let (median, high) = (quantile(&a, 0.5).unwrap(), quantile(&a, 0.9).unwrap());
            prop_assert!(median <= high);
            let below = a.iter().filter(|v| **v <= high).count();
            prop_assert!(below as f64 >= (0.9 * a.len() as f64).floor());
        }
    }
}
