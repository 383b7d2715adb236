//! From which probability a finder's peak is a head: chosen on composed frames of heads that the finder
//! never saw, so that real frames stay for measuring it on.

use rayon::prelude::*;
use recognition::geometry::Landmarks;
use recognition::identify::{FoundHead, Identifier, IdentifyError};
use recognition::pixels::Photograph;

use crate::compose::Composer;
use crate::evaluation::match_heads;
use crate::loader::random;
use crate::progress::progress_bar;

/// Frames on which a threshold is chosen.
const FRAMES: usize = 600;
/// Composed frames are as much larger than the finder's input, so that a closer look has pixels to see.
const DETAIL: u32 = 3;
const PURPOSE: u64 = 5;

/// A threshold and what it does on the frames on which it was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Probability from which a peak is a head, 0…1.
    pub threshold: f32,
    /// Share of the true heads that are found.
    pub found: f64,
    /// False heads for each frame.
    pub false_heads: f64,
}

/// The threshold with the best F1 score (harmonic mean of the share of true heads that are found and the
/// share of found heads that are true) on frames from `composer`, found as in flight by `identifier`,
/// whose own threshold is the lowest one considered. `input` is the size of the finder's input.
///
/// # Errors
/// The bundle has no finder, or the network fails.
pub fn choose(
    identifier: &Identifier,
    composer: &Composer,
    input: (u32, u32),
    seed: u64,
) -> Result<Chosen, IdentifyError> {
    let (width, height) = (input.0 * DETAIL, input.1 * DETAIL);
    let progress = progress_bar("threshold", FRAMES);
    let judged = (0..FRAMES)
        .into_par_iter()
        .map(|i| {
            let frame = composer.frame(&mut random(seed, PURPOSE, i as u64), width, height);
            let photograph = Photograph::whole(frame.image);
            let found = identifier.locate_in_photograph(&photograph, false)?;
            progress.inc(1);
            Ok((frame.heads.len(), judge(&frame.heads, &found)))
        })
        .collect::<Result<Vec<_>, IdentifyError>>()?;
    progress.finish_and_clear();
    let heads = judged.iter().map(|(heads, _)| heads).sum();
    let peaks = judged.into_iter().flat_map(|(_, peaks)| peaks).collect();
    Ok(best(peaks, heads, FRAMES))
}

/// Confidence of each found head and whether it is a true one.
fn judge(truth: &[Landmarks], found: &[FoundHead]) -> Vec<(f32, bool)> {
    let landmarks: Vec<Landmarks> = found.iter().map(|head| head.landmarks).collect();
    let (matched, _) = match_heads(truth, &landmarks);
    found
        .iter()
        .enumerate()
        .map(|(i, head)| (head.confidence, matched.contains(&Some(i))))
        .collect()
}

/// `peaks` are confidences and whether each is one of `heads` true heads in `frames` frames.
fn best(mut peaks: Vec<(f32, bool)>, heads: usize, frames: usize) -> Chosen {
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut chosen = Chosen {
        threshold: 1.0,
        found: 0.0,
        false_heads: 0.0,
    };
    let mut best_f1 = 0.0;
    let mut right = 0usize;
    for (i, (confidence, is_head)) in peaks.into_iter().enumerate() {
        right += usize::from(is_head);
        let f1 = f1(right, i + 1, heads);
        if f1 > best_f1 {
            best_f1 = f1;
            chosen = Chosen {
                threshold: confidence,
                found: right as f64 / heads.max(1) as f64,
                false_heads: (i + 1 - right) as f64 / frames as f64,
            };
        }
    }
    chosen
}

fn f1(right: usize, found: usize, heads: usize) -> f64 {
    2.0 * right as f64 / (found + heads).max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_other_threshold_scores_better(
            peaks in prop::collection::btree_map(1..1000u32, any::<bool>(), 0..60), missed in 0..9usize,
        ) {
            let peaks: Vec<(f32, bool)> =
                peaks.into_iter().map(|(c, head)| (c as f32 / 1000.0, head)).collect();
            let heads = peaks.iter().filter(|p| p.1).count() + missed;
            let score = |threshold: f32| {
                let taken = || peaks.iter().filter(|p| p.0 >= threshold);
                f1(taken().filter(|p| p.1).count(), taken().count(), heads)
            };
            let chosen = best(peaks.clone(), heads, 100);
            for other in peaks.iter().map(|p| p.0) {
                prop_assert!(score(other) <= score(chosen.threshold), "{other} against {chosen:?}");
            }
            let wrong = peaks.iter().filter(|p| p.0 >= chosen.threshold && !p.1).count();
            prop_assert!((chosen.false_heads - wrong as f64 / 100.0).abs() < 1e-12);
        }
    }
}
