//! From which probabilities on a head is identified, or unknown: thresholds chosen for stated aims.
//!
//! # The aims
//! Of heads that are called identified at least [`Aims::precision`] shall be named rightly where
//! [`Aims::stranger_share`] of the heads are of whales that the bundle does not know, and of those at most
//! [`Aims::strangers`] shall be called identified. Among the thresholds that keep both, the least is taken: it calls
//! most heads identified. Photographs of both kinds are weighted so that the strangers have their share.
//!
//! # Few photographs
//! There are some hundred, of which a few are named wrongly with confidence: how many of these lie above a threshold is
//! mostly chance, and the least threshold that happens to have few of them is one that was lucky. So a threshold must
//! keep the aim twice: as counted, and as a calibration says, a logistic regression of "named rightly" on the log odds
//! of the confidence, which has two parameters that all photographs fit together. On other heads,
//! thresholds that only counted kept an aim of 95 % in 60 % of draws, those that keep both in 92 %
//! (`training/RESULTS.md`). A lower bound of a proportion was tried too and calls few heads identified: to be 95 % sure
//! of 95 % takes 73 heads without one error.
//!
//! What thresholds are chosen on was named, and told from strangers, by models that saw neither these photographs nor,
//! of strangers, their whales.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recognition::bundle::{Confidence, DecisionAims, DecisionRule, ReachedAims};
use serde::{Deserialize, Serialize};

use crate::metrics::auroc;
use crate::stack::{LogisticSample, StackError, StackOptions, fit_logistic};

/// Slack in comparing sums of weights with aims.
const ROUNDING: f64 = 1e-9;
/// Confidences are kept this far from 0 and 1 where their log odds are taken.
const LEAST_DOUBT: f64 = 1e-6;

/// For what thresholds are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aims {
    /// Least share of right names among heads that are called identified, 0…1.
    pub precision: f64,
    /// Greatest share of heads of strangers that are called identified, 0…1.
    pub strangers: f64,
    /// Share of heads of strangers among those that are met, 0…1.
    pub stranger_share: f64,
}

/// What is said of a head whose whale is known to who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Probability of "unknown".
    pub unknown: f64,
    /// Probability of the best candidate, given that the whale is known.
    pub best: f64,
    /// Whether the best candidate is right; never of a stranger.
    pub right: bool,
}

/// Photographs of known whales and of strangers, as judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgedHeads {
    /// Of whales of the bundle.
    pub known: Vec<Judged>,
    /// Of others.
    pub strangers: Vec<Judged>,
    /// How many these whales are.
    pub stranger_individuals: usize,
}

/// How well heads could be decided, whatever the thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Separation {
    /// Probability that a stranger has a higher probability of "unknown" than a known whale.
    pub unknown_auroc: Option<f64>,
    /// [`coverage`] at the aims.
    pub coverage: Option<f64>,
}

/// A head's confidence with its weight and whether it is named rightly.
struct Weighted {
    confidence: f64,
    weight: f64,
    right: bool,
    stranger: bool,
}

impl JudgedHeads {
    /// Heads that are not called unknown, by falling confidence, weighted so that strangers have `share` of all. Where
    /// there are none, known whales have all of it.
    fn weighted(&self, kind: Confidence, unknown_threshold: f64, share: f64) -> Vec<Weighted> {
        let share = if self.strangers.is_empty() {
            0.0
        } else {
            share
        };
        let kinds = [
            (&self.known, 1.0 - share, false),
            (&self.strangers, share, true),
        ];
        let mut weighted: Vec<Weighted> = kinds
            .into_iter()
            .flat_map(|(heads, share, stranger)| {
                let weight = share / heads.len().max(1) as f64;
                let named = heads.iter().filter(|h| h.unknown < unknown_threshold);
                named.map(move |head| Weighted {
                    confidence: kind.of(head.best, head.unknown),
                    weight,
                    right: head.right && !stranger,
                    stranger,
                })
            })
            .collect();
        weighted.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        weighted
    }

    /// What a decision with these thresholds does.
    pub fn reached(
        &self,
        kind: Confidence,
        unknown_threshold: f64,
        identified_threshold: f64,
        stranger_share: f64,
    ) -> ReachedAims {
        let weighted = self.weighted(kind, unknown_threshold, stranger_share);
        let identified: Vec<&Weighted> = weighted
            .iter()
            .filter(|head| head.confidence >= identified_threshold)
            .collect();
        let sum = |wanted: &dyn Fn(&Weighted) -> bool| -> f64 {
            let wanted = identified.iter().filter(|head| wanted(head));
            wanted.map(|head| head.weight).sum()
        };
        let strangers = identified.iter().filter(|head| head.stranger).count();
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        ReachedAims {
            precision: (!identified.is_empty()).then(|| sum(&|h| h.right) / sum(&|_| true)),
            known_identified: share(identified.len() - strangers, self.known.len()),
            strangers_identified: (!self.strangers.is_empty())
                .then(|| share(strangers, self.strangers.len())),
            known_photographs: self.known.len(),
            stranger_photographs: self.strangers.len(),
            stranger_individuals: self.stranger_individuals,
        }
    }

    /// AUROC and coverage.
    pub fn separation(&self, kind: Confidence, aims: &Aims) -> Separation {
        let unknown =
            |heads: &[Judged]| -> Vec<f64> { heads.iter().map(|head| head.unknown).collect() };
        Separation {
            unknown_auroc: auroc(&unknown(&self.strangers), &unknown(&self.known)),
            coverage: coverage(self, kind, f64::INFINITY, aims),
        }
    }
}

/// The greatest share of the heads of known whales that can be called identified by one threshold of the confidence while
/// the aimed share of the heads called identified, strangers among them, is named rightly, as counted: 0 where none can.
/// Absent where there is no head of a known whale or of a stranger.
pub fn coverage(
    heads: &JudgedHeads,
    kind: Confidence,
    unknown_threshold: f64,
    aims: &Aims,
) -> Option<f64> {
    if heads.known.is_empty() || heads.strangers.is_empty() {
        return None;
    }
    let weighted = heads.weighted(kind, unknown_threshold, aims.stranger_share);
    let (mut all, mut right, mut known, mut most) = (0.0, 0.0, 0, 0);
    for alike in weighted.chunk_by(|a, b| a.confidence == b.confidence) {
        for head in alike {
            all += head.weight;
            right += if head.right { head.weight } else { 0.0 };
            known += usize::from(!head.stranger);
        }
        if right + ROUNDING >= aims.precision * all {
            most = known;
        }
    }
    Some(most as f64 / heads.known.len() as f64)
}

/// Thresholds and what they reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// For [`DecisionRule::unknown_threshold`].
    pub unknown: f64,
    /// For [`DecisionRule::identified_threshold`].
    pub identified: f64,
    /// For [`DecisionRule::aims`].
    pub aims: DecisionAims,
}

impl Thresholds {
    /// Writes them into a decision.
    pub fn apply(self, decision: &mut DecisionRule) {
        decision.unknown_threshold = self.unknown as f32;
        decision.identified_threshold = self.identified as f32;
        decision.aims = Some(self.aims);
    }
}

/// Chooses thresholds: that of "unknown" so that the share `false_unknown_rate` of the known heads is called unknown, or at
/// even odds where there is none, and that of "identified" for the aims.
///
/// # Errors
/// The calibration does not converge.
pub fn choose(
    heads: &JudgedHeads,
    kind: Confidence,
    aims: &Aims,
    false_unknown_rate: Option<f64>,
) -> Result<Thresholds, StackError> {
    let strange: Vec<f64> = heads.known.iter().map(|head| head.unknown).collect();
    let unknown = match false_unknown_rate {
        Some(rate) if !heads.strangers.is_empty() => upper_quantile(&strange, rate).min(1.0),
        _ => 0.5,
    };
    let identified = identified_threshold(heads, kind, unknown, aims)?;
    let threshold = identified.unwrap_or(1.0);
    Ok(Thresholds {
        unknown,
        identified: threshold,
        aims: DecisionAims {
            precision: aims.precision,
            strangers: aims.strangers,
            stranger_share: aims.stranger_share,
            met: identified.is_some(),
            reached: heads.reached(kind, unknown, threshold, aims.stranger_share),
        },
    })
}

/// The least confidence from which on both aims hold; `None` where there is none.
fn identified_threshold(
    heads: &JudgedHeads,
    kind: Confidence,
    unknown_threshold: f64,
    aims: &Aims,
) -> Result<Option<f64>, StackError> {
    let weighted = heads.weighted(kind, unknown_threshold, aims.stranger_share);
    let calibrated = calibrate(&weighted)?;
    let (mut all, mut right, mut expected, mut strangers) = (0.0, 0.0, 0.0, 0);
    let mut least = None;
    let mut at = 0;
    for alike in weighted.chunk_by(|a, b| a.confidence == b.confidence) {
        for head in alike {
            all += head.weight;
            right += if head.right { head.weight } else { 0.0 };
            expected += head.weight * calibrated[at];
            strangers += usize::from(head.stranger);
            at += 1;
        }
        let precise = |right: f64| right + ROUNDING >= aims.precision * all;
        let most = aims.strangers * heads.strangers.len() as f64 + ROUNDING;
        if precise(right) && precise(expected) && strangers as f64 <= most {
            least = Some(alike[0].confidence);
        }
    }
    Ok(least)
}

/// How probably each is named rightly, by its confidence.
fn calibrate(heads: &[Weighted]) -> Result<Vec<f64>, StackError> {
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let total: f64 = heads.iter().map(|head| head.weight).sum();
    let samples: Vec<LogisticSample> = heads
        .iter()
        .map(|head| {
            let confidence = head.confidence.clamp(LEAST_DOUBT, 1.0 - LEAST_DOUBT);
            LogisticSample {
                features: vec![(confidence / (1.0 - confidence)).ln()],
                positive: head.right,
                weight: head.weight / total,
            }
        })
        .collect();
    let model = fit_logistic("the calibration of confidences", &samples)?;
    Ok(samples
        .iter()
        .map(|s| model.probability(&s.features))
        .collect())
}

/// The threshold that a share `rate` of the values reaches.
fn upper_quantile(values: &[f64], rate: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = (rate * sorted.len() as f64).floor() as usize;
    match sorted.len().checked_sub(above + 1) {
        // Just above the largest value that must stay below.
        Some(i) => sorted[i] + 1e-6,
        None => 0.0,
    }
}

/// A part of a cross-validation, by rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Photographs of known whales and of strangers to fit on.
    pub fit: [Vec<usize>; 2],
    /// Those that are judged by what was fitted.
    pub judge: [Vec<usize>; 2],
}

/// Deals photographs of known whales, and strangers by whales, into parts. `whales` says whose each photograph of a
/// stranger is. There are fewer parts than asked for where there are fewer strangers, and none where there is but one.
pub fn parts(known: usize, whales: &[usize], wanted: usize, seed: u64) -> Vec<Part> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut different: Vec<usize> = whales.to_vec();
    different.sort_unstable();
    different.dedup();
    let wanted = wanted.min(different.len()).min(known);
    if wanted < 2 {
        return Vec::new();
    }
    different.shuffle(&mut random);
    let mut rows: Vec<usize> = (0..known).collect();
    rows.shuffle(&mut random);
    let mut part_of_known = vec![0; known];
    for (place, row) in rows.into_iter().enumerate() {
        part_of_known[row] = place % wanted;
    }
    let part_of_whale = |whale: &usize| {
        let place = different.iter().position(|w| w == whale);
        place.map_or(0, |place| place % wanted)
    };
    let part_of_stranger: Vec<usize> = whales.iter().map(part_of_whale).collect();
    (0..wanted)
        .map(|part| {
            let rows = |of: &[usize], own: bool| -> Vec<usize> {
                let each = of.iter().enumerate();
                each.filter(|(_, p)| (**p == part) == own)
                    .map(|(row, _)| row)
                    .collect()
            };
            Part {
                fit: [rows(&part_of_known, false), rows(&part_of_stranger, false)],
                judge: [rows(&part_of_known, true), rows(&part_of_stranger, true)],
            }
        })
        .collect()
}

/// Judges each photograph by what was fitted without it and, of strangers, without its whale. `None` where a part cannot be
/// fitted.
///
/// # Errors
/// As `judge`, which fits and judges one part.
pub fn cross_validate(
    known: usize,
    whales: &[usize],
    options: &StackOptions,
    mut judge: impl FnMut(&Part) -> Result<Option<[Vec<Judged>; 2]>, StackError>,
) -> Result<Option<JudgedHeads>, StackError> {
    let parts = parts(known, whales, options.parts.max(2), options.seed);
    if parts.is_empty() {
        return Ok(None);
    }
    let nothing = Judged {
        unknown: 0.0,
        best: 0.0,
        right: false,
    };
    let mut heads = [vec![nothing; known], vec![nothing; whales.len()]];
    for part in &parts {
        let Some(judged) = judge(part)? else {
            return Ok(None);
        };
        for ((heads, judged), rows) in heads.iter_mut().zip(judged).zip(&part.judge) {
            for (&row, judged) in rows.iter().zip(judged) {
                heads[row] = judged;
            }
        }
    }
    let [known, strangers] = heads;
    Ok(Some(JudgedHeads {
        known,
        strangers,
        stranger_individuals: count_different(whales),
    }))
}

/// How many different whales there are.
pub fn count_different(whales: &[usize]) -> usize {
    let different: std::collections::BTreeSet<&usize> = whales.iter().collect();
    different.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;

    const AIMS: Aims = Aims {
        precision: 0.95,
        strangers: 0.1,
        stranger_share: 0.2,
    };

    /// Heads whose probabilities are the truth: a known whale is named rightly as often as its best candidate's
    /// probability says, and a head is a stranger's as often as "unknown" says. `sure` is how sure the probabilities are.
    fn honest(seed: u64, count: usize, sure: f64) -> JudgedHeads {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut heads = JudgedHeads {
            stranger_individuals: 9,
            ..JudgedHeads::default()
        };
        for _ in 0..count {
            let unknown = random.random::<f64>().powf(3.0 * sure);
            let best = 1.0 - random.random::<f64>().powf(2.0 * sure);
            let stranger = random.random::<f64>() < unknown;
            let right = !stranger && random.random::<f64>() < best;
            let judged = Judged {
                unknown,
                best,
                right,
            };
            if stranger {
                heads.strangers.push(judged);
            } else {
                heads.known.push(judged);
            }
        }
        heads
    }

    /// On heads with a known truth: the aims are kept on other heads of the same kind, not only on those that the
    /// thresholds were chosen on, and no more is thrown away than must be.
    #[test]
    fn both_aims_are_met_on_other_heads() {
        for (precision, strangers) in [(0.95, 1.0), (0.9, 1.0), (0.6, 0.1), (0.6, 0.03)] {
            let aims = Aims {
                precision,
                strangers,
                ..AIMS
            };
            let kind = Confidence::KnownCandidate;
            let chosen = choose(&honest(1, 20_000, 1.0), kind, &aims, None).unwrap();
            assert!(chosen.aims.met);
            let others = honest(2, 20_000, 1.0);
            let reached = others.reached(kind, chosen.unknown, chosen.identified, 0.2);
            let precise = reached.precision.unwrap() - precision;
            let called = reached.strangers_identified.unwrap() - strangers;
            assert!(precise > -0.01 && called < 0.01, "{reached:?}");
            // One of them binds.
            assert!(precise < 0.01 || called > -0.01, "{reached:?}");
            assert!(reached.known_identified > 0.1, "{reached:?}");
            assert_eq!(reached.stranger_individuals, 9);
        }
    }

    /// Where few photographs choose, the aim is about kept on others in nearly all draws.
    #[test]
    fn few_photographs_choose_with_care() {
        let mut reached: Vec<f64> = (0..60)
            .map(|seed| {
                let kind = Confidence::KnownCandidate;
                let chosen = choose(&honest(seed, 350, 1.5), kind, &AIMS, None).unwrap();
                let others = honest(1000 + seed, 5000, 1.5);
                let reached = others.reached(kind, chosen.unknown, chosen.identified, 0.2);
                reached.precision.unwrap_or(1.0)
            })
            .collect();
        reached.sort_by(f64::total_cmp);
        assert!(reached[6] > 0.92 && reached[30] > 0.945, "{reached:?}");
    }

    #[test]
    fn an_aim_that_cannot_be_met_gives_the_strictest_threshold() {
        let wrong = Judged {
            unknown: 0.0,
            best: 0.9,
            right: false,
        };
        let heads = JudgedHeads {
            known: vec![wrong; 20],
            strangers: vec![wrong; 5],
            stranger_individuals: 2,
        };
        let chosen = choose(&heads, Confidence::KnownCandidate, &AIMS, None).unwrap();
        assert_eq!((chosen.identified, chosen.aims.met), (1.0, false));
        assert_eq!(chosen.aims.reached.precision, None);
        assert_eq!(chosen.aims.reached.known_identified, 0.0);
        assert_eq!(chosen.aims.reached.stranger_photographs, 5);
    }

    /// By hand: four known heads at 0.9, 0.8, 0.7 (wrong), 0.6 and one stranger at 0.75, with a fifth of all. Known heads
    /// weigh 0.2 each. From 0.8 on all are right, from 0.6 on 0.6 of 1.
    #[test]
    fn what_is_reached_by_hand() {
        let head = |best, right| Judged {
            unknown: 0.0,
            best,
            right,
        };
        let heads = JudgedHeads {
            known: vec![
                head(0.9, true),
                head(0.8, true),
                head(0.7, false),
                head(0.6, true),
            ],
            strangers: vec![head(0.75, false)],
            stranger_individuals: 1,
        };
        let kind = Confidence::KnownCandidate;
        let at = |threshold| heads.reached(kind, 0.5, threshold, 0.2);
        assert!((at(0.6).precision.unwrap() - 0.6).abs() < 1e-9);
        assert!((at(0.75).precision.unwrap() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(at(0.75).strangers_identified, Some(1.0));
        assert_eq!(at(0.8).precision, Some(1.0));
        assert_eq!((at(0.8).known_identified, at(0.95).precision), (0.5, None));
        let aims = |precision| Aims { precision, ..AIMS };
        let of = |precision| coverage(&heads, kind, 0.5, &aims(precision));
        assert_eq!((of(0.95), of(0.6)), (Some(0.5), Some(1.0)));
        let separation = heads.separation(kind, &AIMS);
        assert_eq!(separation.unknown_auroc, Some(0.5));
        assert_eq!(separation.coverage, Some(0.5));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

        /// A stricter aim never calls more heads identified.
        #[test]
        fn a_stricter_aim_never_identifies_more(
            seed in 0..500u64,
            count in 5..300usize,
            sure in 0.5..3.0f64,
            (precision, strangers) in (0.5..0.95f64, 0.05..1.0f64),
            (more, fewer) in (0.0..0.05f64, 0.0..1.0f64),
            candidate in any::<bool>(),
        ) {
            let heads = honest(seed, count, sure);
            let kind = if candidate { Confidence::Candidate } else { Confidence::KnownCandidate };
            let aims = Aims { precision, strangers, ..AIMS };
            let strict = Aims { precision: precision + more, strangers: strangers * fewer, ..AIMS };
            let loose = choose(&heads, kind, &aims, Some(0.1)).unwrap();
            let strict = choose(&heads, kind, &strict, Some(0.1)).unwrap();
            prop_assert_eq!(strict.unknown, loose.unknown);
            prop_assert!(strict.identified >= loose.identified);
            let (a, b) = (&strict.aims.reached, &loose.aims.reached);
            prop_assert!(a.known_identified <= b.known_identified);
            prop_assert!(a.strangers_identified <= b.strangers_identified);
            prop_assert!(!strict.aims.met || loose.aims.met);
        }

        /// Where aims are said to be met they are, on the heads that were chosen on.
        #[test]
        fn aims_that_are_met_are_kept(seed in 0..500u64, count in 5..300usize, sure in 0.5..3.0f64) {
            let heads = honest(seed, count, sure);
            let chosen = choose(&heads, Confidence::KnownCandidate, &AIMS, Some(0.1)).unwrap();
            let reached = &chosen.aims.reached;
            if chosen.aims.met {
                prop_assert!(reached.precision.unwrap() >= AIMS.precision - 1e-6);
                prop_assert!(reached.strangers_identified.unwrap_or(0.0) <= AIMS.strangers + 1e-6);
            }
            let called = heads.known.iter().filter(|h| h.unknown >= chosen.unknown).count();
            prop_assert!(heads.strangers.is_empty() || called as f64 <= 0.1 * heads.known.len() as f64);
        }

        /// Each photograph is judged once, and by what saw neither it nor, of a stranger, its whale.
        #[test]
        fn nothing_is_judged_by_what_saw_it(
            known in 0..60usize,
            whales in prop::collection::vec(0..12usize, 0..80),
            wanted in 2..8usize,
            seed in any::<u64>(),
        ) {
            let parts = parts(known, &whales, wanted, seed);
            prop_assert_eq!(parts.is_empty(), known < 2 || count_different(&whales) < 2);
            for (kind, count) in [(0, known), (1, whales.len())] {
                let mut judged: Vec<usize> = parts.iter().flat_map(|p| p.judge[kind].clone()).collect();
                judged.sort_unstable();
                prop_assert!(parts.is_empty() || judged == (0..count).collect::<Vec<_>>());
                for part in &parts {
                    prop_assert_eq!(part.fit[kind].len() + part.judge[kind].len(), count);
                    prop_assert!(part.judge[kind].iter().all(|row| !part.fit[kind].contains(row)));
                }
            }
            for part in &parts {
                let of = |rows: &[usize]| -> Vec<usize> { rows.iter().map(|&r| whales[r]).collect() };
                let fitted = of(&part.fit[1]);
                prop_assert!(of(&part.judge[1]).iter().all(|whale| !fitted.contains(whale)));
            }
        }
    }
}
