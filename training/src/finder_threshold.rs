//! From which probability a finder's peak is a head: chosen on composed frames of heads that the finder
//! never saw, so that real frames stay for measuring it on.

use callosity::bundle::Finder;
use callosity::geometry::Landmarks;
use callosity::identify::decode_heat_map;
use callosity::pixels;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Kind, Tensor};

use crate::compose::Composer;
use crate::evaluation::match_heads;
use crate::loader::random;
use crate::network::{Mode, Network, Precision};

/// Frames on which a threshold is chosen.
const FRAMES: usize = 600;
/// Frames that go through the network together.
const BATCH: usize = 12;
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

/// The lowest threshold with at most `false_heads` false heads a frame, on frames from `composer`.
/// `finder` says how the network's output is read; its own threshold does not matter.
pub fn choose(
    network: &Network,
    finder: &Finder,
    composer: &Composer,
    seed: u64,
    false_heads: f64,
) -> Chosen {
    let all = Finder {
        threshold: 0.02,
        ..finder.clone()
    };
    let input = &finder.network.input;
    let (width, height) = (input.width, input.height);
    let style = ProgressStyle::with_template("threshold {bar:40} {pos}/{len} {per_sec} {eta} left")
        .expect("the template is well formed");
    let progress = ProgressBar::new(FRAMES as u64).with_style(style);
    let mut peaks = Vec::new();
    let mut heads = 0;
    for first in (0..FRAMES).step_by(BATCH) {
        let frames: Vec<_> = (first..(first + BATCH).min(FRAMES))
            .map(|i| composer.frame(&mut random(seed, PURPOSE, i as u64), width, height))
            .collect();
        let each = 3 * width as usize * height as usize;
        let mut values = vec![0.0; each * frames.len()];
        for (frame, out) in frames.iter().zip(values.chunks_exact_mut(each)) {
            pixels::write_input(&frame.image, input, out);
        }
        let shape = [frames.len() as i64, 3, height.into(), width.into()];
        let images = Tensor::from_slice(&values)
            .view(shape)
            .to_device(network.device());
        let output = tch::no_grad(|| {
            network
                .forward(&images, Mode::Evaluate, Precision::Float32)
                .output
        });
        for (i, frame) in frames.iter().enumerate() {
            let output = output.get(i as i64).to_kind(Kind::Float).contiguous();
            let output = Vec::<f32>::try_from(output.view([-1])).expect("floats on the CPU");
            heads += frame.heads.len();
            peaks.extend(judged(&frame.heads, &decode_heat_map(&all, &output)));
        }
        progress.inc(frames.len() as u64);
    }
    progress.finish_and_clear();
    lowest(peaks, heads, FRAMES, false_heads)
}

/// Confidence of each found head and whether it is a true one.
fn judged(
    truth: &[Landmarks],
    found: &[callosity::identify::FoundHead],
) -> impl Iterator<Item = (f32, bool)> {
    let landmarks: Vec<Landmarks> = found.iter().map(|head| head.landmarks).collect();
    let (matched, _) = match_heads(truth, &landmarks);
    found
        .iter()
        .enumerate()
        .map(move |(i, head)| (head.confidence, matched.contains(&Some(i))))
        .collect::<Vec<_>>()
        .into_iter()
}

fn lowest(mut peaks: Vec<(f32, bool)>, heads: usize, frames: usize, false_heads: f64) -> Chosen {
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let allowed = (false_heads * frames as f64).floor() as usize;
    let mut chosen = Chosen {
        threshold: 1.0,
        found: 0.0,
        false_heads: 0.0,
    };
    let (mut right, mut wrong) = (0usize, 0usize);
    for (confidence, is_head) in peaks {
        right += usize::from(is_head);
        wrong += usize::from(!is_head);
        if wrong > allowed {
            break;
        }
        chosen = Chosen {
            threshold: confidence,
            found: right as f64 / heads.max(1) as f64,
            false_heads: wrong as f64 / frames as f64,
        };
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the peaks: what is accepted keeps the limit, and the next lower peak would break it.
        #[test]
        fn the_threshold_is_the_lowest_that_keeps_the_limit(
            peaks in prop::collection::btree_map(1..1000u32, any::<bool>(), 0..60), limit in 0.0..0.5f64,
        ) {
            let peaks: Vec<(f32, bool)> =
                peaks.into_iter().map(|(c, head)| (c as f32 / 1000.0, head)).collect();
            let heads = peaks.iter().filter(|p| p.1).count();
            let chosen = lowest(peaks.clone(), heads, 100, limit);
            let wrong_from = |t: f32| peaks.iter().filter(|p| p.0 >= t && !p.1).count();
            let allowed = (limit * 100.0).floor() as usize;
            prop_assert!(wrong_from(chosen.threshold) <= allowed);
            let lower = peaks.iter().map(|p| p.0).filter(|c| *c < chosen.threshold).fold(f32::MIN, f32::max);
            if lower > f32::MIN {
                prop_assert!(wrong_from(lower) > allowed);
            }
            let found = peaks.iter().filter(|p| p.0 >= chosen.threshold && p.1).count();
            prop_assert!((chosen.found - found as f64 / heads.max(1) as f64).abs() < 1e-12);
        }
    }
}
