//! Naming by the nearest neighbour: a whale is as likely as its most similar photograph of a gallery is
//! similar, by the cosine of the angle between pooled features.
//!
//! It needs no last layer: an embedding names with it, and a whale joins the catalogue with its first
//! photograph. Beside a classifier's own logits it is a second opinion, which [`blend`] mixes in.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView1, Axis};

use crate::stack::{Opinions, StackError, minimise_scalar};

/// Similarity of a whale without a photograph in the gallery: the least that there is.
const NOBODY: f64 = -1.0;

/// Photographs of known whales, by their features.
pub struct NearestNeighbours {
    /// `photographs × features`, each row of length 1.
    features: Array2<f64>,
    /// Whale of each photograph, by its place in the catalogue.
    whales: Vec<usize>,
    individuals: usize,
}

impl NearestNeighbours {
    /// From pooled features, `photographs × features`, the whale of each photograph, and the number of
    /// whales in the catalogue.
    ///
    /// # Panics
    /// Where there is not one whale below `individuals` for each row.
    pub fn new(features: &Array2<f64>, whales: Vec<usize>, individuals: usize) -> Self {
        assert_eq!(
            features.nrows(),
            whales.len(),
            "a whale for each photograph"
        );
        assert!(whales.iter().all(|whale| *whale < individuals));
        Self {
            features: normalised(features),
            whales,
            individuals,
        }
    }

    /// Cosine of the angle between the features of other photographs, `photographs × features`, and those
    /// of the gallery: `photographs × gallery`, −1 to 1.
    pub fn similarities(&self, features: &Array2<f64>) -> Array2<f64> {
        normalised(features).dot(&self.features.t())
    }

    /// For each whale the similarity of its most similar photograph: `photographs × individuals`, from
    /// [`similarities`](Self::similarities); −1 for a whale that the gallery lacks.
    pub fn scores(&self, similarities: &Array2<f64>) -> Array2<f64> {
        let mut scores = Array2::from_elem((similarities.nrows(), self.individuals), NOBODY);
        for (mut row, similarities) in scores.rows_mut().into_iter().zip(similarities.rows()) {
            for (&whale, &similarity) in self.whales.iter().zip(similarities) {
                row[whale] = row[whale].max(similarity);
            }
        }
        scores
    }
}

/// Rows scaled to length 1; rows of zeros stay.
fn normalised(features: &Array2<f64>) -> Array2<f64> {
    let lengths = features.map_axis(Axis(1), |row| {
        let length = row.dot(&row).sqrt();
        if length > 0.0 { length } else { 1.0 }
    });
    features / &lengths.insert_axis(Axis(1))
}

/// The photographs of each whale, in rising order. `whales` says whose each photograph is.
pub(crate) fn photographs_of_whales(whales: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut of_whale: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (photograph, &whale) in whales.iter().enumerate() {
        of_whale.entry(whale).or_default().push(photograph);
    }
    of_whale
}

/// The `count` places with the highest values, highest first; of equals the first.
pub fn nearest(similarities: ArrayView1<'_, f64>, count: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = similarities.iter().copied().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(count);
    all
}

/// One minus the highest value of each row: how strange a photograph is.
pub fn strangeness(values: &Array2<f64>) -> Array1<f64> {
    values.map_axis(Axis(1), |row| {
        1.0 - row.fold(f64::NEG_INFINITY, |most, v| most.max(*v))
    })
}

/// The logarithms of two opinions' probabilities, mixed: `share` of the second, the rest of the first, up
/// to a constant in each row. Both are logits, `photographs × individuals`, at their temperatures.
pub fn blend(first: &Array2<f64>, second: &Array2<f64>, share: f64) -> Array2<f64> {
    // A probability of 0 has an infinite logarithm, of which not even a share of 0 makes a number.
    match share {
        0.0 => first.clone(),
        1.0 => second.clone(),
        _ => first * (1.0 - share) + second * share,
    }
}

/// The share of the second opinion at which a [`blend`] has the least log loss, 0 to 1.
///
/// # Errors
/// The search fails.
pub fn fit_share(
    first: &Array2<f64>,
    second: &Array2<f64>,
    labels: &[usize],
) -> Result<f64, StackError> {
    let loss = |share: f64| Opinions::of(&[blend(first, second, share)], 1.0).log_loss(labels);
    let found = minimise_scalar("the share of the neighbours", loss, 0.0, 1.0)?;
    // The search comes near the ends but never to them.
    let best = [found, 0.0, 1.0]
        .into_iter()
        .min_by(|a, b| loss(*a).total_cmp(&loss(*b)));
    Ok(best.unwrap_or(found))
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::stack::fit_temperature;

    fn normal(seed: u64, shape: (usize, usize)) -> Array2<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn(shape, || StandardNormal.sample(&mut random))
    }

    #[test]
    fn similarities_by_hand() {
        let neighbours = NearestNeighbours::new(
            &array![[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]],
            vec![2, 0, 2],
            4,
        );
        let similarities = neighbours.similarities(&array![[0.6, 0.8], [0.0, 0.0]]);
        let expected = array![[0.6, 0.8, -0.6], [0.0, 0.0, 0.0]];
        assert!((&similarities - &expected).iter().all(|d| d.abs() < 1e-12));
        let scores = neighbours.scores(&similarities);
        let expected = array![[0.8, -1.0, 0.6, -1.0], [0.0, -1.0, 0.0, -1.0]];
        assert!((&scores - &expected).iter().all(|d| d.abs() < 1e-12));
        assert!((strangeness(&scores)[0] - 0.2).abs() < 1e-12);
        let order: Vec<usize> = nearest(similarities.row(0), 2)
            .iter()
            .map(|n| n.0)
            .collect();
        assert_eq!(order, [1, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

        /// Lengths of features do not matter, every photograph is most like itself, and a whale's score is
        /// that of one of its own photographs.
        #[test]
        fn a_photograph_of_the_gallery_is_named(seed in 0..1000u64, scale in 0.01..100.0f64) {
            let features = normal(seed, (12, 5));
            let whales: Vec<usize> = (0..12).map(|i| i % 4).collect();
            let neighbours = NearestNeighbours::new(&features, whales.clone(), 4);
            let similarities = neighbours.similarities(&(&features * scale));
            let scores = neighbours.scores(&similarities);
            for (i, &whale) in whales.iter().enumerate() {
                let (first, similarity) = nearest(similarities.row(i), 1)[0];
                prop_assert!(first == i && (similarity - 1.0).abs() < 1e-9);
                prop_assert!((scores[[i, whale]] - 1.0).abs() < 1e-9);
                for k in 0..4 {
                    prop_assert!((0..12).any(|j| j % 4 == k && similarities[[i, j]] == scores[[i, k]]));
                }
            }
        }

        /// No share on a fine grid beats the one that is found.
        #[test]
        fn the_share_is_the_best_there_is(seed in 0..1000u64, a in 0.0..3.0f64, b in 0.0..3.0f64) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let labels: Vec<usize> = (0..60).map(|_| random.random_range(0..5)).collect();
            // Two noisy opinions of different worth.
            let opinion = |seed, worth: f64| {
                let mut logits = normal(seed, (60, 5));
                labels.iter().enumerate().for_each(|(i, &label)| logits[[i, label]] += worth);
                logits
            };
            let (first, second) = (opinion(seed + 1, a), opinion(seed + 2, b));
            let loss = |s| Opinions::of(&[blend(&first, &second, s)], 1.0).log_loss(&labels);
            let share = fit_share(&first, &second, &labels).unwrap();
            prop_assert!((0.0..=1.0).contains(&share));
            for k in 0..=50 {
                prop_assert!(loss(share) <= loss(f64::from(k) / 50.0) + 1e-6);
            }
        }
    }

    /// Cosines lie so near to each other that they say little before a temperature sharpens them.
    #[test]
    fn a_temperature_turns_cosines_into_probabilities() {
        let centres = normal(1, (8, 24));
        let noisy = |seed| {
            let noise = normal(seed, (160, 24));
            Array2::from_shape_fn((160, 24), |(i, d)| {
                centres[[i % 8, d]] + 0.7 * noise[[i, d]]
            })
        };
        let whales: Vec<usize> = (0..160).map(|i| i % 8).collect();
        let neighbours = NearestNeighbours::new(&noisy(2), whales.clone(), 8);
        let scores = neighbours.scores(&neighbours.similarities(&noisy(3)));
        let temperature = fit_temperature(std::slice::from_ref(&scores), &whales).unwrap();
        assert!(temperature < 0.2, "{temperature}");
        let loss = |t| Opinions::of(std::slice::from_ref(&scores), t).log_loss(&whales);
        assert!(loss(temperature) < 0.3 * loss(1.0));
    }
}
