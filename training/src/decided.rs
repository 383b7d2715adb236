//! What decisions are worth: how often each is taken, and how often rightly, with intervals.

use recognition::bundle::Confidence;
use recognition::identify::Decision;
use serde::{Deserialize, Serialize};

use crate::decisions::{Aims, Judged, JudgedHeads, coverage};
use crate::evaluation::Answer;
use crate::metrics::{share, wilson};

/// A share of heads with its 95 % interval (Wilson). Photographs of one whale are alike, so the truth lies outside it more
/// often than that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// The share; absent where the whole is nothing.
    pub share: Option<f64>,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
}

impl Share {
    /// `count` of `of`.
    pub fn new(count: usize, of: usize) -> Self {
        Self {
            count,
            of,
            share: share(count, of),
            interval: wilson(count as f64, of as f64),
        }
    }
}

/// A share that weighted heads have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedShare {
    /// The share.
    pub share: f64,
    /// Its interval, as of so many heads of equal weight as say as much (Kish's effective sample size).
    pub interval: Option<[f64; 2]>,
}

impl WeightedShare {
    /// From the weight of each head and whether it counts; `None` where there are none.
    fn new(heads: &[(f64, bool)]) -> Option<Self> {
        let sum: f64 = heads.iter().map(|h| h.0).sum();
        if sum <= 0.0 {
            return None;
        }
        let squares: f64 = heads.iter().map(|h| h.0 * h.0).sum();
        let share = heads.iter().filter(|h| h.1).map(|h| h.0).sum::<f64>() / sum;
        let effective = sum * sum / squares;
        Some(Self {
            share,
            interval: wilson(share * effective, effective),
        })
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfDecision {
    /// Which.
    pub decision: Decision,
    /// Heads of known whales about which it was taken, of all such.
    pub known: Share,
    /// Heads of other whales about which it was taken, of all such.
    pub strangers: Share,
    /// Of the heads of known whales about which it was taken, those whose first candidate is right.
    pub known_right: Share,
    /// How precise it is: of all heads about which it was taken those of which it is true, that is the first candidate is
    /// right, or for "unknown" the whale is none of the bundle's.
    pub precise: Share,
    /// The same where other whales have their [share](DecisionMetrics::stranger_share); absent without heads of both
    /// kinds, or where it was never taken.
    pub precise_in_the_mix: Option<WeightedShare>,
}

/// What is decided of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionMetrics {
    /// Share of other whales in the mix.
    pub stranger_share: f64,
    /// Precision of the coverage.
    pub aim_precision: f64,
    /// [`coverage`] by a threshold chosen on these very heads: what the ranking of heads allows, not what the bundle does.
    pub coverage: Option<f64>,
    /// Identified, uncertain, unknown.
    pub decisions: Vec<OfDecision>,
}

/// Measures decisions.
pub fn decided(
    answers: &[(Answer, Decision)],
    confidence: Confidence,
    aims: &Aims,
) -> DecisionMetrics {
    let right = |answer: &Answer| {
        let first = answer.candidates.first();
        answer.catalogued && first.is_some_and(|c| c.0 == answer.truth)
    };
    let all = |catalogued: bool| {
        let each = answers.iter();
        each.filter(move |(answer, _)| answer.catalogued == catalogued)
    };
    let (known, strangers) = (all(true).count(), all(false).count());
    let decisions =
        [Decision::Identified, Decision::Uncertain, Decision::Unknown].map(|decision| {
            let of = |catalogued: bool| all(catalogued).filter(|(_, v)| *v == decision);
            let (own, others) = (of(true).count(), of(false).count());
            let known_right = of(true).filter(|(answer, _)| right(answer)).count();
            let is_true = |answer: &Answer| match decision {
                Decision::Unknown => !answer.catalogued,
                Decision::Identified | Decision::Uncertain => right(answer),
            };
            let weighted: Vec<(f64, bool)> = [(true, 1.0 - aims.stranger_share, known)]
                .into_iter()
                .chain([(false, aims.stranger_share, strangers)])
                .flat_map(|(catalogued, share, count)| {
                    let weight = share / count.max(1) as f64;
                    of(catalogued).map(move |(answer, _)| (weight, is_true(answer)))
                })
                .collect();
            OfDecision {
                decision,
                known: Share::new(own, known),
                strangers: Share::new(others, strangers),
                known_right: Share::new(known_right, own),
                precise: Share::new(
                    of(true)
                        .chain(of(false))
                        .filter(|(answer, _)| is_true(answer))
                        .count(),
                    own + others,
                ),
                precise_in_the_mix: (known > 0 && strangers > 0)
                    .then(|| WeightedShare::new(&weighted))
                    .flatten(),
            }
        });
    let judged = |catalogued: bool| -> Vec<Judged> {
        all(catalogued)
            .map(|(answer, _)| Judged {
                unknown: answer.unknown,
                best: answer.candidates.first().map_or(0.0, |c| c.1),
                right: right(answer),
            })
            .collect()
    };
    let heads = JudgedHeads {
        known: judged(true),
        strangers: judged(false),
        stranger_individuals: 0,
    };
    DecisionMetrics {
        stranger_share: aims.stranger_share,
        aim_precision: aims.precision,
        coverage: coverage(&heads, confidence, f64::INFINITY, aims),
        decisions: decisions.into(),
    }
}

/// Prints them for people.
pub fn print(metrics: &DecisionMetrics) {
    let interval = |interval: Option<[f64; 2]>| {
        interval.map_or(String::new(), |[low, high]| {
            format!(" [{low:.3}, {high:.3}]")
        })
    };
    let share = |s: &Share| {
        let value = s.share.map_or("-".to_owned(), |v| format!("{v:.3}"));
        format!("{value}{} {} of {}", interval(s.interval), s.count, s.of)
    };
    println!("decisions, shares with their 95 % intervals (Wilson):");
    for of in &metrics.decisions {
        let is_true = match of.decision {
            Decision::Unknown => "of another whale",
            Decision::Identified | Decision::Uncertain => "named rightly",
        };
        println!("  {}", of.decision.name());
        println!(
            "    {:<42} {}",
            "of heads of known whales",
            share(&of.known)
        );
        println!(
            "    {:<42} {}",
            "of heads of other whales",
            share(&of.strangers)
        );
        println!(
            "    {:<42} {}",
            format!("of all so decided, {is_true}"),
            share(&of.precise)
        );
        let mix = of.precise_in_the_mix.map_or("-".to_owned(), |mix| {
            format!("{:.3}{}", mix.share, interval(mix.interval))
        });
        let others = 100.0 * metrics.stranger_share;
        println!(
            "    {:<42} {mix}",
            format!("the same with {others:.0} % of others")
        );
    }
    let coverage = metrics
        .coverage
        .map_or("-".to_owned(), |c| format!("{c:.3}"));
    println!(
        "  {:<44} {coverage}",
        format!(
            "known ones at {:.0} % right, {:.0} % others, at best",
            100.0 * metrics.aim_precision,
            100.0 * metrics.stranger_share
        )
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(truth: &str, catalogued: bool, best: f64, unknown: f64) -> Answer {
        Answer {
            candidates: vec![("a".to_owned(), best)],
            unknown,
            truth: truth.to_owned(),
            catalogued,
        }
    }

    /// By hand: of four known heads two are identified, one of them rightly, one is uncertain and one unknown; of two
    /// others one is identified and one unknown. Strangers have half the weight: a known head an eighth, another a quarter.
    #[test]
    fn decisions_by_hand() {
        let answers = [
            (answer("a", true, 0.9, 0.0), Decision::Identified),
            (answer("b", true, 0.8, 0.0), Decision::Identified),
            (answer("a", true, 0.3, 0.2), Decision::Uncertain),
            (answer("a", true, 0.3, 0.9), Decision::Unknown),
            (answer("y", false, 0.7, 0.0), Decision::Identified),
            (answer("z", false, 0.3, 0.8), Decision::Unknown),
        ];
        let aims = Aims {
            precision: 0.95,
            strangers: 0.1,
            stranger_share: 0.5,
        };
        let found = decided(&answers, Confidence::KnownCandidate, &aims);
        let [identified, uncertain, unknown] = &found.decisions[..] else {
            panic!("three");
        };
        let counts = |s: &Share| (s.count, s.of);
        assert_eq!(counts(&identified.known), (2, 4));
        assert_eq!(counts(&identified.strangers), (1, 2));
        assert_eq!(counts(&identified.known_right), (1, 2));
        assert_eq!(counts(&identified.precise), (1, 3));
        let mix = identified.precise_in_the_mix.unwrap();
        assert!((mix.share - 0.25).abs() < 1e-12, "{mix:?}");
        let [low, high] = mix.interval.unwrap();
        assert!(low > 0.0 && low < 0.25 && high > 0.25 && high < 1.0);
        assert_eq!(counts(&uncertain.precise), (1, 1));
        assert_eq!(counts(&unknown.precise), (1, 2));
        assert!((unknown.precise_in_the_mix.unwrap().share - 2.0 / 3.0).abs() < 1e-12);
        // The surest head alone is right; the next is not.
        assert_eq!(found.coverage, Some(0.25));

        let known = decided(&answers[..4], Confidence::Candidate, &aims);
        assert_eq!(known.decisions[0].precise_in_the_mix, None);
        assert_eq!(
            (known.decisions[0].strangers.share, known.coverage),
            (None, None)
        );
    }
}
