use super::ensemble::Opinion;
use super::report::{Candidate, Decision};
use crate::bundle::DecisionRule;

/// Individuals by falling probability; of equals, the first in the catalogue first.
pub(super) fn candidates(individuals: &[String], opinion: &Opinion) -> Vec<Candidate> {
    let mut candidates: Vec<_> = individuals
        .iter()
        .zip(&opinion.probabilities)
        .map(|(individual, &probability)| Candidate {
            individual: individual.clone(),
            probability,
        })
        .collect();
    candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    candidates
}

/// What is said of a head. "Unknown" is asked first: a whale that is probably nobody of the catalogue
/// is not named, however like one of them it looks among them.
pub(super) fn decide(decision: &DecisionRule, opinion: &Opinion) -> Decision {
    let best = opinion.probabilities.iter().copied().fold(0.0, f32::max);
    if opinion.unknown >= decision.unknown_threshold {
        Decision::Unknown
    } else if decision.confidence.of(best.into(), opinion.unknown.into())
        >= decision.identified_threshold.into()
    {
        Decision::Identified
    } else {
        Decision::Uncertain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Confidence, UnknownModel, UnknownScore};

    #[test]
    fn thresholds_decide_and_unknown_comes_first() {
        let mut decision = DecisionRule {
            temperature: 1.0,
            power: 1.0,
            unknown: UnknownModel {
                score: UnknownScore::default(),
                slope: -1.0,
                intercept: 0.0,
                features: Vec::new(),
            },
            unknown_threshold: 0.5,
            identified_threshold: 0.8,
            confidence: Confidence::Candidate,
            aims: None,
        };
        let decided = |decision: &DecisionRule, best: f32, unknown: f32| {
            let opinion = Opinion {
                probabilities: vec![1.0 - best, best],
                unknown,
            };
            decide(decision, &opinion)
        };
        assert_eq!(decided(&decision, 0.8, 0.49), Decision::Identified);
        assert_eq!(decided(&decision, 0.79, 0.49), Decision::Uncertain);
        assert_eq!(decided(&decision, 0.99, 0.5), Decision::Unknown);
        // Half a doubt whether the whale is known at all is too much for a name.
        decision.confidence = Confidence::KnownCandidate;
        assert_eq!(decided(&decision, 0.99, 0.49), Decision::Uncertain);
        assert_eq!(decided(&decision, 0.99, 0.1), Decision::Identified);
        assert_eq!(decided(&decision, 0.99, 0.5), Decision::Unknown);
    }

    #[test]
    fn candidates_fall_and_keep_the_catalogues_order_among_equals() {
        let individuals = ["a", "b", "c", "d"].map(String::from);
        let opinion = Opinion {
            probabilities: vec![0.2, 0.4, 0.2, 0.2],
            unknown: 0.0,
        };
        let order: Vec<_> = candidates(&individuals, &opinion)
            .into_iter()
            .map(|c| c.individual)
            .collect();
        assert_eq!(order, ["b", "a", "c", "d"]);
    }
}
