//! Which head of a frame belongs to which animal.
//!
//! Each pair of an open sighting and a head gets the log-likelihood ratio (in nats) of "the same animal" against "two
//! animals, of which the second lies anywhere in the frame": by place, heading, size and looks. The sum over all pairs
//! is made as large as it can be, where no animal has two heads and a head may be nobody's (Kuhn and Munkres).
//!
//! How far the sea moved between the frames is mostly unknown beforehand and the same for all. So every pair's way is
//! tried as the sea's, the one on which most others agree is taken, and then each pair is judged by the way of the
//! *others*: a pair on its own cannot speak for itself.

use std::f64::consts::{PI, TAU};

use jiff::Timestamp;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use recognition::geometry::{Landmarks, Point};
use recognition::identify::Appearance;

use super::motion::{Expected, Place, Sea};

/// The least that place says: animals dive and come up elsewhere, and landmarks err.
const PLACE_FLOOR: f64 = -6.0;
/// Prior log-odds that a head in the frame is an open sighting's and not a new animal's, apart from where it lies. To
/// take two animals for one is worse than to begin a second sighting of one. On virtual flights of 131 passes over an animal
/// (`tests/frame_evidence.rs`; none of those that are measured) -1.5, -0.5 and 0.5 gave 45, 28 and 20 second sightings in 100
/// passes without position, and 0.8, 0.8 and 3 times a sighting went over to another animal.
const PRIOR: f64 = -0.5;
/// Likewise, where position tells where the animal would be: there 0.5 led to no more of the latter than lower values.
const PRIOR_BY_POSITION: f64 = 0.5;
/// By so much looks must speak for a head being an animal that another camera sees, whose place tells nothing.
const ACROSS_CAMERAS: f64 = 3.0;
/// Standard deviation of a head's heading from frame to frame in radians, and how it grows in a second.
const HEADING: (f64, f64) = (0.2, 0.15);
/// Share of heads of which the heading is wrong altogether.
const HEADING_WRONG: f64 = 0.05;
/// Standard deviation of the logarithm of a head's length from frame to frame.
const LENGTH: f64 = 0.2;
/// Pairs whose way is tried as the sea's.
const MOST_WAYS: usize = 150;
/// Weights are whole numbers, as the assignment needs them to be exact: thousandths of a nat.
const WEIGHT: f64 = 1000.0;

/// An open sighting.
pub(super) struct Candidate<'a> {
    /// Where this camera saw it.
    pub place: Option<&'a Place>,
    /// Whether position has carried that place to where it is in this frame. Then the sea's speed is by how much that errs, in
    /// pixels, however long ago the animal was seen.
    pub by_position: bool,
    pub appearance: Option<&'a Appearance>,
}

/// A head of the frame.
pub(super) struct Head<'a> {
    pub landmarks: &'a Landmarks,
    pub appearance: Option<&'a Appearance>,
}

/// Which head is whose.
pub(super) struct Association {
    /// The candidate of each head; none where the animal is new.
    pub of_heads: Vec<Option<usize>>,
    /// What is known of the sea's speed after it.
    pub sea: Sea,
}

/// A pair of candidate and head.
struct Pair {
    candidate: usize,
    head: usize,
    /// What heading, size and looks say.
    likeness: f64,
    way: Way,
}

enum Way {
    /// The camera has not seen the animal.
    Unknown,
    /// `offset` is from where the animal would be, were it not for the sea, to the head; `variance` is that of each
    /// coordinate.
    Known {
        offset: Point,
        variance: f64,
        /// For so long the sea's speed counts: seconds, or 1 where that is no speed.
        elapsed: f64,
        prior: f64,
    },
}

impl Pair {
    fn new(candidate: (usize, &Candidate), head: (usize, &Head), time: Timestamp) -> Self {
        let looks = match (candidate.1.appearance, head.1.appearance) {
            (Some(a), Some(b)) => a.same_animal(b),
            _ => 0.0,
        };
        let (likeness, way) = match candidate.1.place {
            None => (looks - ACROSS_CAMERAS, Way::Unknown),
            Some(place) => {
                let Expected {
                    centre,
                    variance,
                    elapsed,
                } = place.expected(time);
                let pose = pose_likeness(&place.landmarks, head.1.landmarks, elapsed);
                let (elapsed, prior) = if candidate.1.by_position {
                    (1.0, PRIOR_BY_POSITION)
                } else {
                    (elapsed, PRIOR)
                };
                let way = Way::Known {
                    offset: head.1.landmarks.centre() - centre,
                    variance,
                    elapsed,
                    prior,
                };
                (looks + pose, way)
            }
        };
        Self {
            candidate: candidate.0,
            head: head.0,
            likeness,
            way,
        }
    }

    /// The sea's speed if this pair is one animal, with its variance.
    fn sea_speed(&self) -> Option<(Point, f64)> {
        match self.way {
            Way::Known {
                offset,
                variance,
                elapsed,
                ..
            } if elapsed.abs() > 1e-3 => {
                Some((offset * (1.0 / elapsed), variance / (elapsed * elapsed)))
            }
            _ => None,
        }
    }

    /// The log-likelihood ratio where the sea moves so.
    fn score(&self, sea: &Sea, frame_area: f64) -> f64 {
        match self.way {
            Way::Unknown => self.likeness,
            Way::Known {
                offset,
                variance,
                elapsed,
                prior,
            } => {
                let variance = variance + sea.variance * elapsed * elapsed;
                let away = (offset - sea.speed * elapsed).length();
                let place = (frame_area / (TAU * variance)).ln() - away * away / (2.0 * variance);
                self.likeness + prior + place.max(PLACE_FLOOR)
            }
        }
    }
}

/// What heading and size say: nats for "the same animal".
fn pose_likeness(before: &Landmarks, now: &Landmarks, elapsed: f64) -> f64 {
    let heading = |l: &Landmarks| {
        let along = l.bonnet - l.blowhead;
        along.y.atan2(along.x)
    };
    let turn = (heading(now) - heading(before) + PI).rem_euclid(TAU) - PI;
    let deviation = HEADING.0.hypot(HEADING.1 * elapsed);
    let density = (-0.5 * (turn / deviation).powi(2)).exp() / (TAU.sqrt() * deviation);
    let heading = ((1.0 - HEADING_WRONG) * density * TAU + HEADING_WRONG).ln();
    // Animals of a frame are of about one size, so a like size says nothing; an unlike one speaks against.
    let growth = (now.head_length() / before.head_length()).ln() / LENGTH;
    let size = (1.0 - 0.5 * growth * growth).clamp(-4.0, 0.0);
    heading + size
}

/// Assigns heads to candidates. `sea` is what is known of the sea's speed beforehand.
pub(super) fn associate(
    candidates: &[Candidate],
    heads: &[Head],
    sea: Sea,
    time: Timestamp,
    frame_area: f64,
) -> Association {
    let pairs: Vec<Pair> = candidates
        .iter()
        .enumerate()
        .flat_map(|c| heads.iter().enumerate().map(move |h| Pair::new(c, h, time)))
        .collect();
    let common = consensus(&pairs, &sea, frame_area);
    let agreeing = assign(&pairs, candidates.len(), heads.len(), |pair| {
        pair.score(&common, frame_area)
    });
    let by_others = |pair: &Pair| {
        let others = agreeing
            .iter()
            .map(|&k| &pairs[k])
            .filter(|o| o.candidate != pair.candidate && o.head != pair.head);
        pair.score(&informed(&sea, others), frame_area)
    };
    let chosen = assign(&pairs, candidates.len(), heads.len(), by_others);
    let mut of_heads = vec![None; heads.len()];
    for &k in &chosen {
        of_heads[pairs[k].head] = Some(pairs[k].candidate);
    }
    Association {
        of_heads,
        sea: informed(&sea, chosen.iter().map(|&k| &pairs[k])),
    }
}

/// What is known of the sea where these pairs are each one animal.
fn informed<'p>(sea: &Sea, pairs: impl Iterator<Item = &'p Pair>) -> Sea {
    pairs
        .filter_map(Pair::sea_speed)
        .fold(*sea, |sea, (speed, variance)| sea.with(speed, variance))
}

/// The sea's speed on which most pairs agree, with what is known beforehand.
fn consensus(pairs: &[Pair], sea: &Sea, frame_area: f64) -> Sea {
    let mut ways: Vec<(f64, Point, f64)> = pairs
        .iter()
        .filter_map(|pair| {
            let (speed, variance) = pair.sea_speed()?;
            Some((pair.likeness, speed, variance))
        })
        .collect();
    ways.sort_by(|a, b| b.0.total_cmp(&a.0));
    ways.truncate(MOST_WAYS);
    let candidates = pairs.iter().map(|p| p.candidate + 1).max().unwrap_or(0);
    let mut best_of_candidate = vec![0.0_f64; candidates];
    let mut support = |tried: &Sea| {
        best_of_candidate.fill(0.0);
        for pair in pairs {
            let best = &mut best_of_candidate[pair.candidate];
            *best = best.max(pair.score(tried, frame_area));
        }
        let away = (tried.speed - sea.speed).length();
        best_of_candidate.iter().sum::<f64>() - 0.5 * away * away / sea.variance
    };
    let mut best = (support(sea), *sea);
    for (_, speed, variance) in ways {
        let tried = Sea {
            variance: variance.min(sea.variance),
            speed,
            ..*sea
        };
        let support = support(&tried);
        if support > best.0 {
            best = (support, tried);
        }
    }
    best.1
}

/// The pairs, by index, of the assignment with the largest sum of positive scores.
fn assign(
    pairs: &[Pair],
    candidates: usize,
    heads: usize,
    score: impl Fn(&Pair) -> f64,
) -> Vec<usize> {
    if candidates == 0 || heads == 0 {
        return Vec::new();
    }
    // Each head has a column of its own for "nobody", worth 0.
    let mut weights = Matrix::new(heads, candidates + heads, 0_i64);
    for pair in pairs {
        weights[(pair.head, pair.candidate)] = (WEIGHT * score(pair)).round() as i64;
    }
    let (_, columns) = kuhn_munkres(&weights);
    let pair_of = |(head, &column): (usize, &usize)| {
        // Pairs stand candidate by candidate.
        (column < candidates && weights[(head, column)] > 0).then_some(column * heads + head)
    };
    columns.iter().enumerate().filter_map(pair_of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(candidate: usize, head: usize) -> Pair {
        Pair {
            candidate,
            head,
            likeness: 0.0,
            way: Way::Unknown,
        }
    }

    /// Every assignment there is.
    fn exhaustive(scores: &[Vec<f64>], head: usize, taken: &mut Vec<bool>) -> f64 {
        if head == scores[0].len() {
            return 0.0;
        }
        let mut best = exhaustive(scores, head + 1, taken);
        for candidate in 0..scores.len() {
            if !taken[candidate] && scores[candidate][head] > 0.0 {
                taken[candidate] = true;
                best = best.max(scores[candidate][head] + exhaustive(scores, head + 1, taken));
                taken[candidate] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_assignment_is_the_best_there_is(
            scores in (1..5_usize, 1..5_usize).prop_flat_map(|(candidates, heads)| {
                prop::collection::vec(prop::collection::vec(-5.0..5.0_f64, heads), candidates)
            }),
        ) {
            let (candidates, heads) = (scores.len(), scores[0].len());
            let pairs: Vec<Pair> = (0..candidates)
                .flat_map(|c| (0..heads).map(move |h| pair(c, h)))
                .collect();
            let chosen = assign(&pairs, candidates, heads, |p| scores[p.candidate][p.head]);
            let sum: f64 = chosen.iter().map(|&k| scores[pairs[k].candidate][pairs[k].head]).sum();
            let best = exhaustive(&scores, 0, &mut vec![false; candidates]);
            prop_assert!((sum - best).abs() < 0.01, "{} for {}", sum, best);
            for (n, &a) in chosen.iter().enumerate() {
                for &b in &chosen[n + 1..] {
                    prop_assert!(pairs[a].candidate != pairs[b].candidate && pairs[a].head != pairs[b].head);
                }
            }
        }
    }
}
