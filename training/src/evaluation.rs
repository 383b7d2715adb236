//! Measures of identification and detection, from what was said and what is true.

use recognition::geometry::Landmarks;
use recognition::identify::HeadIdentification;
use serde::{Deserialize, Serialize};

use crate::metrics;

/// What was said of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Candidates by falling probability.
    pub candidates: Vec<(String, f64)>,
    /// Probability of being none of the catalogue.
    pub unknown: f64,
    /// Who it is.
    pub truth: String,
    /// Whether the bundle knows that individual: its catalogue has it, or it is enrolled.
    pub catalogued: bool,
}

impl Answer {
    /// What was said of a head of the whale `truth`.
    pub fn new(said: HeadIdentification, truth: String, catalogued: bool) -> Self {
        Self {
            unknown: f64::from(said.unknown_probability),
            candidates: said
                .candidates
                .into_iter()
                .map(|c| (c.individual, f64::from(c.probability)))
                .collect(),
            truth,
            catalogued,
        }
    }

    /// Probabilities of the candidates, and which of them is the right one; one more of probability 0
    /// where it was not named.
    fn prediction(&self) -> (Vec<f64>, usize) {
        let mut probabilities: Vec<f64> = self.candidates.iter().map(|c| c.1).collect();
        let named = self.candidates.iter().position(|c| c.0 == self.truth);
        let truth = named.unwrap_or_else(|| {
            probabilities.push(0.0);
            probabilities.len() - 1
        });
        (probabilities, truth)
    }
}

/// How well heads are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Mean of −ln of the right one's probability, as [`metrics::log_loss`] clips it.
    pub log_loss: Option<f64>,
    /// [Expected calibration error](metrics::expected_calibration_error) of the first candidate.
    pub calibration_error: Option<f64>,
    /// Probability that a head that the catalogue lacks has a higher probability of "unknown" than one
    /// that it has; ties count half.
    pub unknown_auroc: Option<f64>,
}

/// Measures answers. Measures over no heads are absent.
pub fn naming(answers: &[Answer]) -> NamingMetrics {
    let known: Vec<&Answer> = answers.iter().filter(|a| a.catalogued).collect();
    let predictions: Vec<(Vec<f64>, usize)> = known.iter().map(|a| a.prediction()).collect();
    let ranks: Vec<usize> = predictions
        .iter()
        .map(|(probabilities, truth)| metrics::rank(probabilities, *truth))
        .collect();
    let confident: Vec<(f64, bool)> = known
        .iter()
        .zip(&ranks)
        .map(|(a, &rank)| (a.candidates.first().map_or(0.0, |c| c.1), rank == 0))
        .collect();
    let unknown = |catalogued: bool| -> Vec<f64> {
        let each = answers.iter().filter(|a| a.catalogued == catalogued);
        each.map(|a| a.unknown).collect()
    };
    let of_some = |value: f64| (!known.is_empty()).then_some(value);
    NamingMetrics {
        known: known.len(),
        unknown: answers.len() - known.len(),
        top1: of_some(metrics::top_k(&ranks, 1)),
        top5: of_some(metrics::top_k(&ranks, 5)),
        map5: of_some(metrics::mean_average_precision(&ranks, 5)),
        log_loss: of_some(metrics::log_loss(
            predictions.iter().map(|(p, truth)| (p.as_slice(), *truth)),
        )),
        calibration_error: of_some(metrics::expected_calibration_error(&confident)),
        unknown_auroc: metrics::auroc(&unknown(false), &unknown(true)),
    }
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

#[cfg(test)]
mod tests {
    use recognition::geometry::Point;

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
}
