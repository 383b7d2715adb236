//! Names for photographs without names, from the nearest neighbours of a trained network's embedding: more
//! to train on (Lee 2013, "Pseudo-label").

use std::path::Path;

use anyhow::ensure;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::index::read_json;
use crate::neighbours::{NearestNeighbours, nearest};

/// Version of the file that this program reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Fewest held-out photographs above a threshold that say how often it is right.
const LEAST_EVIDENCE: usize = 10;

/// A photograph that was given a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PseudoLabel {
    /// Identifier in the index.
    pub image: String,
    /// Whale of the most similar photograph with a name.
    pub individual: String,
    /// Cosine of the angle between the two embeddings, −1…1.
    pub similarity: f64,
}

/// Names that a network gave, and how often it is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PseudoLabels {
    format_version: u32,
    /// Digest of the data's index.
    pub data_digest: String,
    /// Digest of the split.
    pub split_digest: String,
    /// The fold that the network did not see, by which the threshold was chosen.
    pub held_out_fold: u32,
    /// Name of the network's recipe.
    pub recipe: String,
    /// SHA-256 of its weights' file.
    pub weights_digest: String,
    /// Similarity from which a name is given.
    pub threshold: f64,
    /// Share of the held-out photographs above the threshold whose name was right.
    pub precision: f64,
    /// Share of the held-out photographs above the threshold.
    pub named: f64,
    /// The photographs that were given a name.
    pub labels: Vec<PseudoLabel>,
}

/// A similarity and what the held-out photographs from it on say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Cosine of the angle between embeddings.
    pub similarity: f64,
    /// Share of the photographs from here on whose nearest neighbour is of their whale.
    pub precision: f64,
    /// Share of all photographs from here on.
    pub named: f64,
}

/// The lowest similarity from which at least a share `precision` of photographs are named rightly, at
/// least ten of them; `None` where there is none. Each photograph is its highest similarity and whether that
/// names it rightly.
pub fn choose_threshold(photographs: &[(f64, bool)], precision: f64) -> Option<Threshold> {
    let mut sorted = photographs.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut right = 0;
    let mut best = None;
    for (i, &(similarity, is_right)) in sorted.iter().enumerate() {
        right += usize::from(is_right);
        let (count, next) = (i + 1, sorted.get(i + 1));
        // Photographs of one similarity are named together or not at all.
        if count < LEAST_EVIDENCE || next.is_some_and(|n| n.0 == similarity) {
            continue;
        }
        let reached = right as f64 / count as f64;
        if reached >= precision {
            best = Some(Threshold {
                similarity,
                precision: reached,
                named: count as f64 / sorted.len() as f64,
            });
        }
    }
    best
}

/// For each photograph the whale of the most similar known one, and the similarity. Features are
/// `photographs × features`.
pub fn name_by_nearest(
    neighbours: &NearestNeighbours,
    features: &Array2<f64>,
) -> Vec<(usize, f64)> {
    let scores = neighbours.scores(&neighbours.similarities(features));
    let rows = scores.rows().into_iter();
    rows.filter_map(|row| nearest(row, 1).first().copied())
        .collect()
}

impl PseudoLabels {
    /// Names given on `threshold`, by a network of this provenance.
    pub fn new(
        run: &crate::run_folder::TrainedRun,
        threshold: Threshold,
        labels: Vec<PseudoLabel>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            data_digest: run.record.data_digest.clone(),
            split_digest: run.record.split_digest.clone(),
            held_out_fold: run.record.held_out_fold,
            recipe: run.recipe.name.clone(),
            weights_digest: run.weights_digest.clone(),
            threshold: threshold.similarity,
            precision: threshold.precision,
            named: threshold.named,
            labels,
        }
    }

    /// Reads names, for a network that is trained on this split and does not see this fold.
    ///
    /// # Errors
    /// The file cannot be read, has another format, or the network that named had seen what the new one
    /// shall be measured on.
    pub fn load(path: &Path, split_digest: &str, held_out_fold: u32) -> anyhow::Result<Self> {
        let remedy = "run `callosity-train pseudo-label` again";
        let file: Self = read_json(path, "pseudo-labels", FORMAT_VERSION, remedy)?;
        ensure!(
            file.split_digest == split_digest,
            "{}: names given on split {}, this is {split_digest}: its validation photographs may have \
             named these",
            path.display(),
            file.split_digest
        );
        ensure!(
            file.held_out_fold == held_out_fold,
            "{}: {} held out fold {}, this run holds out fold {held_out_fold}",
            path.display(),
            file.recipe,
            file.held_out_fold
        );
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_threshold_is_the_lowest_that_is_right_often_enough() {
        let good = (0..20).map(|i| (0.9 + f64::from(i) * 1e-3, true));
        let mixed = (0..20).map(|i| (0.5 + f64::from(i) * 1e-3, i % 2 == 0));
        let photographs: Vec<_> = good.chain(mixed).collect();
        let all = choose_threshold(&photographs, 0.75).unwrap();
        assert_eq!((all.similarity, all.precision, all.named), (0.5, 0.75, 1.0));
        let strict = choose_threshold(&photographs, 1.0).unwrap();
        assert_eq!((strict.similarity, strict.named), (0.9, 0.5));
        assert_eq!(choose_threshold(&photographs[20..], 0.9), None);
        assert_eq!(choose_threshold(&photographs[..9], 0.9), None);
    }

    proptest! {
        #[test]
        fn what_a_threshold_says_of_itself_is_true(
            photographs in prop::collection::vec((0..9u8, any::<bool>()), 0..60), wanted in 0.0..1.0f64,
        ) {
            let photographs: Vec<(f64, bool)> =
                photographs.iter().map(|p| (f64::from(p.0) / 8.0, p.1)).collect();
            if let Some(found) = choose_threshold(&photographs, wanted) {
                let above: Vec<bool> = photographs
                    .iter()
                    .filter(|p| p.0 >= found.similarity)
                    .map(|p| p.1)
                    .collect();
                let right = above.iter().filter(|right| **right).count();
                let precision = right as f64 / above.len() as f64;
                prop_assert!((precision - found.precision).abs() < 1e-12 && precision >= wanted);
                prop_assert!((found.named - above.len() as f64 / photographs.len() as f64).abs() < 1e-12);
            }
        }
    }
}
