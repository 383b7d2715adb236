use serde::{Deserialize, Serialize};

use super::Opinion;

/// How much two frames of one pass repeat each other, 0 (independent) to 1 (the same photograph twice).
///
/// Frames of one pass share pose, light and water, and the network errs on them alike. With a correlation ρ, `n` frames
/// weigh as much as `n / (1 + (n - 1) ρ)` independent ones (Kish, Survey Sampling, 1965, §8.2: the design effect).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameCorrelation {
    /// Of what frames say of the name.
    pub name: f64,
    /// Of what they say of "unknown": whether a whale is like those of the catalogue is a matter of the whale, and
    /// another frame says little more.
    pub unknown: f64,
}

impl FrameCorrelation {
    /// Where the log loss is least, as `tests/frame_evidence.rs` prints it. The name: at 0.4 for 204 animals that a
    /// virtual flight saw in several frames (0.076; 0.085 at 0 and 0.096 at 1), at 0.3 for 173 real whales with several
    /// photographs that no network was trained on (0.215; 0.296 at 0 and 0.317 at 1). "Unknown": at 1.0 and 0.7.
    /// The real photographs of a whale are of several encounters, so those of one pass repeat each other more.
    pub const FITTED: Self = Self {
        name: 0.4,
        unknown: 0.8,
    };

    /// What each of `frames` weighs, as a share of an independent one.
    fn weight(correlation: f64, frames: u32) -> f64 {
        1.0 / (1.0 + f64::from(frames.saturating_sub(1)) * correlation)
    }
}

/// Probabilities below this say no more than this: a network is sometimes sure and wrong.
const LEAST: f64 = 1e-6;

/// What several frames say of one head: the sum of their log-probabilities, whatever their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PooledOpinion {
    /// For each individual, the sum over frames of the logarithm of its probability.
    log_probabilities: Vec<f64>,
    /// The sum over frames of the log-odds of "unknown".
    unknown_log_odds: f64,
    frames: u32,
}

impl PooledOpinion {
    /// What one frame says.
    pub fn of(opinion: &Opinion) -> Self {
        let log = |&p: &f32| f64::from(p).max(LEAST).ln();
        Self {
            log_probabilities: opinion.probabilities.iter().map(log).collect(),
            unknown_log_odds: log_odds(opinion.unknown),
            frames: 1,
        }
    }

    /// Adds what another frame says. One over other individuals, as after another bundle was loaded, takes the place of
    /// all before it.
    pub fn add(&mut self, opinion: &Opinion) {
        let one = Self::of(opinion);
        if one.log_probabilities.len() != self.log_probabilities.len() {
            *self = one;
            return;
        }
        let sums = self.log_probabilities.iter_mut();
        sums.zip(&one.log_probabilities)
            .for_each(|(sum, log)| *sum += log);
        self.unknown_log_odds += one.unknown_log_odds;
        self.frames += 1;
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// What the frames say together, their correlation being [fitted](FrameCorrelation::FITTED).
    pub fn opinion(&self) -> Opinion {
        self.opinion_at(FrameCorrelation::FITTED)
    }

    /// What the frames say together. That of one frame is what was said.
    pub fn opinion_at(&self, correlation: FrameCorrelation) -> Opinion {
        let weight = FrameCorrelation::weight(correlation.name, self.frames);
        let largest = self
            .log_probabilities
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let mut probabilities: Vec<f64> = self
            .log_probabilities
            .iter()
            .map(|sum| (weight * (sum - largest)).exp())
            .collect();
        let total: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= total);
        let weight = FrameCorrelation::weight(correlation.unknown, self.frames);
        Opinion {
            probabilities: probabilities.into_iter().map(|p| p as f32).collect(),
            unknown: (1.0 / (1.0 + (-weight * self.unknown_log_odds).exp())) as f32,
        }
    }
}

fn log_odds(probability: f32) -> f64 {
    let p = f64::from(probability).clamp(LEAST, 1.0 - LEAST);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opinion(individuals: usize) -> impl Strategy<Value = Opinion> {
        let weights = prop::collection::vec(0.001..1.0_f32, individuals);
        (weights, 0.001..0.999_f32).prop_map(|(weights, unknown)| {
            let sum: f32 = weights.iter().sum();
            Opinion {
                probabilities: weights.iter().map(|w| w / sum).collect(),
                unknown,
            }
        })
    }

    fn both(correlation: f64) -> FrameCorrelation {
        FrameCorrelation {
            name: correlation,
            unknown: correlation,
        }
    }

    fn pool(opinions: &[Opinion]) -> PooledOpinion {
        let mut pooled = PooledOpinion::of(&opinions[0]);
        opinions[1..].iter().for_each(|o| pooled.add(o));
        pooled
    }

    fn close(a: &Opinion, b: &Opinion) -> bool {
        let pairs = a.probabilities.iter().zip(&b.probabilities);
        pairs
            .chain([(&a.unknown, &b.unknown)])
            .all(|(a, b)| (a - b).abs() < 1e-4)
    }

    proptest! {
        #[test]
        fn frames_say_the_same_in_any_order(
            (opinions, shuffled) in prop::collection::vec(opinion(5), 1..7)
                .prop_flat_map(|o| (Just(o.clone()), Just(o).prop_shuffle())),
        ) {
            prop_assert!(close(&pool(&opinions).opinion(), &pool(&shuffled).opinion()));
        }

        /// The same photograph again and again is one photograph where frames are wholly correlated.
        #[test]
        fn repetition_says_nothing_new(one in opinion(5), times in 1..9_usize) {
            let repeated = pool(&vec![one.clone(); times]);
            prop_assert_eq!(repeated.frames() as usize, times);
            prop_assert!(close(&repeated.opinion_at(both(1.0)), &one));
        }

        /// Bayes' rule for independent frames and equal priors, written out.
        #[test]
        fn independent_frames_multiply(a in opinion(4), b in opinion(4)) {
            let together = pool(&[a.clone(), b.clone()]).opinion_at(both(0.0));
            let products: Vec<f32> = a.probabilities.iter().zip(&b.probabilities).map(|(a, b)| a * b).collect();
            let odds = a.unknown * b.unknown / ((1.0 - a.unknown) * (1.0 - b.unknown));
            let expected = Opinion {
                probabilities: products.iter().map(|p| p / products.iter().sum::<f32>()).collect(),
                unknown: odds / (1.0 + odds),
            };
            prop_assert!(close(&together, &expected), "{:?} {:?}", together, expected);
        }

        #[test]
        fn any_probabilities_give_probabilities(
            opinions in prop::collection::vec(
                (prop::collection::vec(prop_oneof![Just(0.0_f32), Just(1.0), 0.0..1.0_f32], 3), 0.0..=1.0_f32),
                1..5,
            ),
            correlation in 0.0..=1.0_f64,
        ) {
            let opinions: Vec<Opinion> = opinions
                .into_iter()
                .map(|(probabilities, unknown)| Opinion { probabilities, unknown })
                .collect();
            let said = pool(&opinions).opinion_at(both(correlation));
            prop_assert!((said.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            prop_assert!((0.0..=1.0).contains(&said.unknown));
        }
    }

    #[test]
    fn an_opinion_over_other_individuals_begins_anew() {
        let of = |n: usize| Opinion {
            probabilities: vec![1.0 / n as f32; n],
            unknown: 0.5,
        };
        let mut pooled = PooledOpinion::of(&of(3));
        pooled.add(&of(4));
        assert_eq!(pooled.opinion().probabilities.len(), 4);
        assert_eq!(pooled.frames(), 1);
    }
}
