//! Names for photographs without names, from trained networks: more to train on (Lee 2013, "Pseudo-label").

use std::path::Path;

use anyhow::ensure;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::index::read_json;
use crate::neighbours::{NearestNeighbours, blend, fit_share};
use crate::run_folder::{Member, TrainedRun};
use crate::split::Split;
use crate::stack::{Opinions, StackError, Standardisation, fit_temperature};
use crate::whitening::within_whales;

/// Version of the file that this program reads and writes.
const FORMAT_VERSION: u32 = 2;

/// Fewest held-out photographs above a threshold that say how often it is right.
const LEAST_EVIDENCE: usize = 10;

/// A photograph that was given a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PseudoLabel {
    /// Identifier in the index.
    pub image: String,
    /// The most probable whale.
    pub individual: String,
    /// Its probability, 0…1.
    pub probability: f64,
}

/// Names that networks gave, and how often they are right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PseudoLabels {
    format_version: u32,
    /// Digest of the data's index.
    pub data_digest: String,
    /// Digest of the split.
    pub split_digest: String,
    /// The fold that the networks did not see, by which the threshold was chosen.
    pub held_out_fold: u32,
    /// The networks.
    pub members: Vec<Member>,
    /// Probability from which a name is given.
    pub threshold: f64,
    /// Share of the held-out photographs above the threshold whose name was right.
    pub precision: f64,
    /// Share of the held-out photographs above the threshold.
    pub named: f64,
    /// The photographs that were given a name.
    pub labels: Vec<PseudoLabel>,
}

/// A probability and what the held-out photographs from it on say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of the most probable whale.
    pub probability: f64,
    /// Share of the photographs from here on that are named rightly.
    pub precision: f64,
    /// Share of all photographs from here on.
    pub named: f64,
}

/// The lowest probability from which at least a share `precision` of photographs are named rightly, at
/// least ten of them; `None` where there is none. Each photograph is the probability of its most probable whale
/// and whether that is the right one.
pub fn choose_threshold(photographs: &[(f64, bool)], precision: f64) -> Option<Threshold> {
    let mut sorted = photographs.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut right = 0;
    let mut best = None;
    for (i, &(probability, is_right)) in sorted.iter().enumerate() {
        right += usize::from(is_right);
        let (count, next) = (i + 1, sorted.get(i + 1));
        // Photographs of one probability are named together or not at all.
        if count < LEAST_EVIDENCE || next.is_some_and(|n| n.0 == probability) {
            continue;
        }
        let reached = right as f64 / count as f64;
        if reached >= precision {
            best = Some(Threshold {
                probability,
                precision: reached,
                named: count as f64 / sorted.len() as f64,
            });
        }
    }
    best
}

/// What networks make of photographs, one view of each.
pub struct Seen {
    /// Pooled features of all networks side by side, `photographs × features`.
    pub features: Array2<f64>,
    /// Logits averaged over the networks, `photographs × individuals`; absent where one of them has none.
    pub logits: Option<Array2<f64>>,
}

/// Names photographs by the similarity of their [whitened](within_whales) features to those of photographs with
/// names, and by the networks' logits where they have such.
pub struct Namer {
    standardisation: Standardisation,
    whitening: Array2<f64>,
    neighbours: NearestNeighbours,
    neighbour_temperature: f64,
    /// Temperature of the logits, and the share that they leave the neighbours.
    logits: Option<(f64, f64)>,
}

impl Namer {
    /// Compares with photographs of these features, `photographs × features`, and whales, places below
    /// `individuals`. Temperatures and share are fitted on photographs that no network saw and their whales.
    ///
    /// # Errors
    /// A search fails.
    ///
    /// # Panics
    /// Where there is not one whale for each photograph, or no photograph.
    pub fn fit(
        features: &Array2<f64>,
        whales: Vec<usize>,
        individuals: usize,
        held_out: &Seen,
        labels: &[usize],
    ) -> Result<Self, StackError> {
        let standardisation = Standardisation::of(&features.view());
        let standardised = standardisation.apply(&features.view());
        let whitening = within_whales(&standardised, &whales);
        let neighbours = NearestNeighbours::new(&standardised.dot(&whitening), whales, individuals);
        let mut namer = Self {
            standardisation,
            whitening,
            neighbours,
            neighbour_temperature: 1.0,
            logits: None,
        };
        let scores = namer.scores(&held_out.features);
        namer.neighbour_temperature = fit_temperature(std::slice::from_ref(&scores), labels)?;
        if let Some(logits) = &held_out.logits {
            let temperature = fit_temperature(std::slice::from_ref(logits), labels)?;
            let scores = scores / namer.neighbour_temperature;
            let share = fit_share(&(logits / temperature), &scores, labels)?;
            namer.logits = Some((temperature, share));
        }
        Ok(namer)
    }

    fn scores(&self, features: &Array2<f64>) -> Array2<f64> {
        let standardised = self.standardisation.apply(&features.view());
        let similarities = self
            .neighbours
            .similarities(&standardised.dot(&self.whitening));
        self.neighbours.scores(&similarities)
    }

    /// For each photograph the most probable whale and its probability.
    pub fn name(&self, photographs: &Seen) -> Vec<(usize, f64)> {
        let scores = self.scores(&photographs.features) / self.neighbour_temperature;
        let logits = match (self.logits, &photographs.logits) {
            (Some((temperature, share)), Some(logits)) => {
                blend(&(logits / temperature), &scores, share)
            }
            _ => scores,
        };
        Opinions::of(&[logits], 1.0).best()
    }
}

impl PseudoLabels {
    /// Names given on `threshold` by these networks, which [belong together](crate::run_folder::check_together).
    ///
    /// # Panics
    /// Where there is no network.
    pub fn new(runs: &[TrainedRun], threshold: Threshold, labels: Vec<PseudoLabel>) -> Self {
        let record = &runs[0].record;
        Self {
            format_version: FORMAT_VERSION,
            data_digest: record.data_digest.clone(),
            split_digest: record.split_digest.clone(),
            held_out_fold: record.held_out_fold,
            members: runs.iter().map(Member::from).collect(),
            threshold: threshold.probability,
            precision: threshold.precision,
            named: threshold.named,
            labels,
        }
    }

    /// Reads names, for a network that is trained on this split and does not see this fold. Names that were given
    /// on another split of the same data will do where this one holds nothing out.
    ///
    /// # Errors
    /// The file cannot be read, has another format, or the network that named had seen what the new one
    /// shall be measured on.
    pub fn load(path: &Path, split: &Split, held_out_fold: u32) -> anyhow::Result<Self> {
        let remedy = "run `callosity-train pseudo-label` again";
        let file: Self = read_json(path, "pseudo-labels", FORMAT_VERSION, remedy)?;
        ensure!(
            file.data_digest == split.data_digest,
            "{}: names given to photographs of other data",
            path.display()
        );
        if split.options.hold_nothing_out {
            return Ok(file);
        }
        ensure!(
            file.split_digest == split.digest(),
            "{}: names given on split {}, this is {}: its validation photographs may have named these",
            path.display(),
            file.split_digest,
            split.digest()
        );
        ensure!(
            file.held_out_fold == held_out_fold,
            "{}: the networks that gave the names held out fold {}, this run holds out fold {held_out_fold}",
            path.display(),
            file.held_out_fold
        );
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_threshold_is_the_lowest_that_is_right_often_enough() {
        let good = (0..20).map(|i| (0.9 + f64::from(i) * 1e-3, true));
        let mixed = (0..20).map(|i| (0.5 + f64::from(i) * 1e-3, i % 2 == 0));
        let photographs: Vec<_> = good.chain(mixed).collect();
        let all = choose_threshold(&photographs, 0.75).unwrap();
        assert_eq!(
            (all.probability, all.precision, all.named),
            (0.5, 0.75, 1.0)
        );
        let strict = choose_threshold(&photographs, 1.0).unwrap();
        assert_eq!((strict.probability, strict.named), (0.9, 0.5));
        assert_eq!(choose_threshold(&photographs[20..], 0.9), None);
        assert_eq!(choose_threshold(&photographs[..9], 0.9), None);
    }

    /// Two whales in two dimensions. The photographs that differ from their whale's by a little are named by
    /// their neighbours, and the logits, which say nothing, get no share.
    #[test]
    fn logits_that_say_nothing_get_no_share() {
        let features = array![[9.0, 1.0], [10.0, 1.2], [-9.0, 1.1], [-10.0, 1.0]];
        let seen = |logits: Option<Array2<f64>>| Seen {
            features: array![[9.5, 0.9], [9.0, 1.3], [-9.2, 1.1], [-9.9, 0.8]],
            logits,
        };
        let labels = [1, 1, 0, 0];
        let names = |logits: Option<Array2<f64>>| {
            let namer = Namer::fit(
                &features,
                vec![1, 1, 0, 0],
                2,
                &seen(logits.clone()),
                &labels,
            );
            namer.unwrap().name(&seen(logits))
        };
        let silent = Array2::zeros((4, 2));
        for named in [names(None), names(Some(silent))] {
            for (&(whale, probability), label) in named.iter().zip(labels) {
                assert!(whale == label && probability > 0.99, "{named:?}");
            }
        }
    }

    /// Where the neighbours say nothing, the logits name.
    #[test]
    fn neighbours_that_say_nothing_leave_the_names_to_logits() {
        let features = array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]];
        let seen = Seen {
            features: features.clone(),
            logits: Some(array![[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]]),
        };
        let labels = [0, 0, 1, 1];
        let namer = Namer::fit(&features, vec![0, 1, 1, 0], 2, &seen, &labels).unwrap();
        let named: Vec<usize> = namer.name(&seen).iter().map(|n| n.0).collect();
        assert_eq!(named, labels);
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
                    .filter(|p| p.0 >= found.probability)
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
