use serde::{Deserialize, Serialize};

use super::Detection;

/// What an [`Appearance`] was made from. Only those of one kind can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppearanceKind {
    /// The ensemble's embedding.
    Embedding,
    /// The logits of the ensemble, where it has no embedding: an animal that is not in the catalogue is like the same
    /// known ones each time.
    Logits,
}

/// The log-odds that two photographs of one flight show the same animal, where both answers are as likely beforehand,
/// as a line over their cosine.
///
/// Fitted by logistic regression over pairs of heads, see `tests/frame_evidence.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// Log-odds for each 1 of cosine.
    pub slope: f64,
    /// The cosine at which both answers are as likely.
    pub even: f64,
}

/// The most that looks alone say for or against two heads being one animal's, in nats: beyond it the line was not
/// measured.
const MOST_SAID: f64 = 5.0;

impl AppearanceKind {
    /// What the likeness of two heads is worth.
    pub fn likeness(self) -> Likeness {
        match self {
            // 1,346 pairs of photographs of one whale, most of them of different days, and 291,649 of two whales, on
            // none of which the networks of models/right-whales-measured were trained: half of the former are above
            // 0.20, one in a thousand of the latter above 0.32.
            Self::Embedding => Likeness {
                slope: 18.0,
                even: 0.084,
            },
            // 10,994 pairs of heads of one animal in different passes of a virtual flight and 318,416 of two animals:
            // half of the former are above 0.76, one in a thousand of the latter above 0.75.
            Self::Logits => Likeness {
                slope: 9.0,
                even: 0.36,
            },
        }
    }
}

/// What an animal's head looks like, over one or several photographs: for telling whether two heads are one animal's,
/// known or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Appearance {
    kind: AppearanceKind,
    /// The sum of a unit vector from each photograph.
    sum: Vec<f32>,
}

impl Appearance {
    /// From a vector of any length above 0; `None` where it has no direction.
    pub fn new(kind: AppearanceKind, vector: &[f32]) -> Option<Self> {
        let norm = length(vector);
        (norm.is_finite() && norm > 0.0).then(|| Self {
            kind,
            sum: vector
                .iter()
                .map(|v| (f64::from(*v) / norm) as f32)
                .collect(),
        })
    }

    /// Of a head that the ensemble has seen; `None` where it says the same of all individuals.
    pub fn of(head: &Detection) -> Option<Self> {
        if let Some(embedding) = head.embedding() {
            return Self::new(AppearanceKind::Embedding, embedding);
        }
        // A constant added to all logits says nothing.
        let mut sum = vec![0.0; head.logits().first().map_or(0, Vec::len)];
        for view in head.logits() {
            let mean = view.iter().sum::<f32>() / view.len() as f32;
            for (sum, logit) in sum.iter_mut().zip(view) {
                *sum += logit - mean;
            }
        }
        Self::new(AppearanceKind::Logits, &sum)
    }

    /// Adds another photograph. One of another kind or length takes the place of all before it.
    pub fn add(&mut self, other: &Self) {
        if self.kind != other.kind || self.sum.len() != other.sum.len() {
            *self = other.clone();
            return;
        }
        let pairs = self.sum.iter_mut().zip(&other.sum);
        pairs.for_each(|(sum, value)| *sum += value);
    }

    /// The cosine of the mean directions; `None` where they cannot be compared.
    pub fn similarity(&self, other: &Self) -> Option<f64> {
        if self.kind != other.kind || self.sum.len() != other.sum.len() {
            return None;
        }
        let norms = length(&self.sum) * length(&other.sum);
        let pairs = self.sum.iter().zip(&other.sum);
        let product: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        (norms > 0.0).then(|| (product / norms).clamp(-1.0, 1.0))
    }

    /// Log-likelihood ratio of one animal against two, in nats; 0 where they cannot be compared.
    pub fn same_animal(&self, other: &Self) -> f64 {
        let Likeness { slope, even } = self.kind.likeness();
        self.similarity(other).map_or(0.0, |cosine| {
            (slope * (cosine - even)).clamp(-MOST_SAID, MOST_SAID)
        })
    }
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn embedding(vector: &[f32]) -> Option<Appearance> {
        Appearance::new(AppearanceKind::Embedding, vector)
    }

    proptest! {
        #[test]
        fn likeness_is_mutual_whatever_the_lengths(
            a in prop::collection::vec(-1.0..1.0_f32, 6),
            b in prop::collection::vec(-1.0..1.0_f32, 6),
            scale in 0.1..9.0_f32,
        ) {
            prop_assume!(length(&a) > 0.01 && length(&b) > 0.01);
            let scaled: Vec<f32> = a.iter().map(|v| v * scale).collect();
            let (a, b, scaled) = (embedding(&a).unwrap(), embedding(&b).unwrap(), embedding(&scaled).unwrap());
            prop_assert!((a.similarity(&scaled).unwrap() - 1.0).abs() < 1e-5);
            prop_assert!((a.similarity(&b).unwrap() - b.similarity(&a).unwrap()).abs() < 1e-9);
            prop_assert!(a.same_animal(&b) <= a.same_animal(&scaled) + 1e-9);
            prop_assert!(a.same_animal(&b).abs() <= MOST_SAID);
        }

        #[test]
        fn the_mean_does_not_depend_on_the_order(
            (vectors, shuffled) in prop::collection::vec(prop::collection::vec(0.1..1.0_f32, 4), 1..6)
                .prop_flat_map(|v| (Just(v.clone()), Just(v).prop_shuffle())),
        ) {
            let mean = |vectors: &[Vec<f32>]| {
                let mut all = vectors.iter().filter_map(|v| embedding(v));
                let mut mean = all.next().unwrap();
                all.for_each(|one| mean.add(&one));
                mean
            };
            let similarity = mean(&vectors).similarity(&mean(&shuffled)).unwrap();
            prop_assert!((similarity - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn what_has_no_direction_or_another_kind_is_not_compared() {
        assert!(embedding(&[0.0, 0.0]).is_none());
        assert!(embedding(&[f32::NAN, 1.0]).is_none());
        assert!(embedding(&[]).is_none());
        let logits = Appearance::new(AppearanceKind::Logits, &[1.0, 0.0]).unwrap();
        let mut changed = embedding(&[1.0, 0.0]).unwrap();
        assert_eq!(changed.similarity(&logits), None);
        assert_eq!(changed.same_animal(&logits), 0.0);
        changed.add(&logits);
        assert_eq!(changed, logits);
    }
}
