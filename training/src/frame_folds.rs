//! Folds of the whole frames with landmarks, for a finder that is trained on real frames too and still
//! measured on whales and water that it never saw.

use std::collections::BTreeMap;

use crate::index::{Index, IndexedPhotograph, PhotographKind};

/// How many folds there are.
pub const FRAME_FOLDS: u32 = 5;

/// Fold of each whole frame with landmarks, by identifier of the photograph.
///
/// All frames of a whale, and so of an encounter, are in one fold; of a frame with several whales the
/// first one named counts. The whale with the most frames comes first, each goes to the fold with the
/// fewest frames so far, so folds are as even as whales allow and always the same for the same data.
pub fn frame_folds(index: &Index) -> BTreeMap<&str, u32> {
    let mut frames_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for frame in frames_with_landmarks(index) {
        let whale = frame.head_individuals.iter().flatten().next();
        let whale = whale.or(frame.individual.as_ref());
        // A frame without a name stands for itself.
        let group = whale.map_or(frame.image.as_str(), String::as_str);
        frames_of.entry(group).or_default().push(&frame.image);
    }
    let mut groups: Vec<Vec<&str>> = frames_of.into_values().collect();
    groups.sort_by_key(|frames| std::cmp::Reverse(frames.len()));
    let mut sizes = [0; FRAME_FOLDS as usize];
    let mut folds = BTreeMap::new();
    for group in groups {
        let (fold, size) = sizes
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, size)| **size)
            .expect("there are folds");
        *size += group.len();
        folds.extend(group.into_iter().map(|image| (image, fold as u32)));
    }
    folds
}

/// The whole frames whose heads are known.
pub fn frames_with_landmarks(index: &Index) -> impl Iterator<Item = &IndexedPhotograph> {
    let frames = index.photographs.iter();
    frames.filter(|p| p.kind == PhotographKind::Frame && !p.landmarks.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::index::FORMAT_VERSION;

    proptest! {
        #[test]
        fn a_whale_is_in_one_fold_and_folds_are_even(
            whales in prop::collection::vec(prop::option::of(0..12u8), 1..60),
        ) {
            let names: Vec<Option<String>> =
                whales.iter().map(|w| w.map(|w| format!("whale_{w}"))).collect();
            let photographs: Vec<IndexedPhotograph> =
                names.iter().enumerate().map(|(i, w)| {
                    let image = format!("frames/w_{i:03}.jpg");
                    IndexedPhotograph::example(&image, PhotographKind::Frame, w.as_deref())
                }).collect();
            let root = PathBuf::new();
            let index = Index { format_version: FORMAT_VERSION, root, photographs };
            let folds = frame_folds(&index);
            prop_assert_eq!(folds.len(), names.len());
            let mut fold_of: BTreeMap<&str, u32> = BTreeMap::new();
            for (photograph, whale) in index.photographs.iter().zip(&names) {
                let fold = folds[photograph.image.as_str()];
                prop_assert!(fold < FRAME_FOLDS);
                if let Some(whale) = whale {
                    prop_assert_eq!(*fold_of.entry(whale).or_insert(fold), fold);
                }
            }
            let sizes: Vec<usize> =
                (0..FRAME_FOLDS).map(|k| folds.values().filter(|&&f| f == k).count()).collect();
            let count = |whale: &String| names.iter().flatten().filter(|w| *w == whale).count();
            let largest_group = names.iter().flatten().map(count).max().unwrap_or(1);
            let spread = sizes.iter().max().unwrap() - sizes.iter().min().unwrap();
            prop_assert!(spread <= largest_group, "{sizes:?}, largest group {largest_group}");
        }
    }
}
