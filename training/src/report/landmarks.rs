//! One aligner measured, as it flies: several views of a crop, mapped back and averaged.

use anyhow::{Context, ensure};
use rayon::prelude::*;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, Landmarks, Point};
use recognition::identify::aligner::{input_from_frame, landmarks_in_frame, mean, view};
use recognition::pixels::{OUTSIDE_FRAME, prepare_views};
use tch::Tensor;

use super::table::{AlignerRow, Trained, ViewsError};
use crate::compose::Composer;
use crate::loader::random;
use crate::metrics::{LandmarkErrors, quantile};
use crate::progress::progress_bar;
use crate::run_folder::TrainedRun;
use crate::tasks::ALIGNER_FIELD_HEAD_LENGTHS;
use crate::tasks::aligner::{MEASURED, MEASURED_SAMPLES};

/// Numbers of views that are compared.
const VIEWS: [u32; 5] = [1, 2, 4, 8, 12];
/// Side of a composed crop over that of the aligner's input, so that turned and shifted views find
/// picture where they look.
const MARGIN: f64 = 1.5;
/// From which the crops are drawn: the same for every aligner, whatever the seed of its recipe.
const SEED: u64 = 0;
/// Crops that go through the network together.
const BATCH: usize = 8;

/// An aligner on composed crops.
pub(super) struct MeasuredAligner {
    pub row: AlignerRow,
    /// Error of each crop with one view, in head lengths.
    pub errors: Vec<f64>,
}

impl MeasuredAligner {
    /// Measures a run on a fixed set of crops from `composer`, whose heads it never saw.
    pub fn new(run: &TrainedRun, composer: &Composer) -> anyhow::Result<Self> {
        let input = run.recipe.input.network_input();
        let output = run.network.graph().output().shape;
        let folder = run.folder.display();
        ensure!(
            input.width == input.height && output.flat && output.channels == 4,
            "{folder}: an aligner gives 4 values for a square input, this one {} for {} × {}",
            output.channels,
            input.width,
            input.height
        );
        let most = VIEWS[VIEWS.len() - 1];
        let scene = Scene::new(&input, most).context("an aligner's input has no pixels")?;
        let each = 3 * input.width as usize * input.height as usize;
        let progress = progress_bar("crops", MEASURED_SAMPLES);
        let mut errors: Vec<Vec<f64>> = vec![Vec::new(); VIEWS.len()];
        for first in (0..MEASURED_SAMPLES).step_by(BATCH) {
            let items = first..(first + BATCH).min(MEASURED_SAMPLES);
            let crops: Vec<(Vec<f32>, Landmarks)> = items
                .into_par_iter()
                .map(|item| {
                    let mut rng = random(SEED, MEASURED, item as u64);
                    let crop = composer.crop(&mut rng, scene.side, scene.field_head_lengths);
                    let mut values = vec![0.0; each * most as usize];
                    prepare_views(
                        &crop.image,
                        &scene.views,
                        &input,
                        OUTSIDE_FRAME,
                        &mut values,
                    );
                    (values, crop.landmarks)
                })
                .collect();
            let values: Vec<f32> = crops.iter().flat_map(|c| c.0.iter().copied()).collect();
            let (n, h, w) = (
                crops.len() as i64 * i64::from(most),
                i64::from(input.height),
                i64::from(input.width),
            );
            let images = Tensor::from_slice(&values).view([n, 3, h, w]);
            let outputs = run.evaluate(&images.to_device(run.network.device()));
            let outputs = outputs.output.to_device(tch::Device::Cpu);
            let outputs = Vec::<f32>::try_from(outputs.contiguous().view([-1]))?;
            for (outputs, (_, truth)) in outputs.chunks_exact(4 * most as usize).zip(&crops) {
                for (errors, &views) in errors.iter_mut().zip(&VIEWS) {
                    let outputs = &outputs[..4 * views as usize];
                    errors.push(scene.error(&input, outputs, truth).with_context(|| {
                        format!("{folder}: the aligner gave landmarks that are no finite numbers")
                    })?);
                }
            }
            progress.inc(crops.len() as u64);
        }
        progress.finish_and_clear();
        let by_views = VIEWS
            .iter()
            .zip(&errors)
            .map(|(&views, errors)| {
                let summary = LandmarkErrors::of(errors).context("crops were measured")?;
                Ok(ViewsError {
                    views,
                    median: summary.median,
                    percentile_90: summary.percentile_90,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let errors = errors.swap_remove(0);
        Ok(Self {
            row: AlignerRow {
                trained: Trained::of(run),
                crops: errors.len(),
                mean: errors.iter().sum::<f64>() / errors.len() as f64,
                by_views,
            },
            errors,
        })
    }

    /// The share of crops with at most an error, over the error, up to where 98 % of them lie.
    pub fn cumulative(&self) -> Vec<(f64, f64)> {
        let mut sorted = self.errors.clone();
        sorted.sort_by(f64::total_cmp);
        let end = quantile(&sorted, 0.98).unwrap_or(0.0);
        let count = sorted.len() as f64;
        std::iter::once((0.0, 0.0))
            .chain(
                sorted
                    .into_iter()
                    .zip(1..)
                    .map(|(error, n)| (error, f64::from(n) / count)),
            )
            .take_while(|point| point.0 <= end)
            .collect()
    }
}

/// A composed crop that is larger than the aligner's input, with the views of its middle. The crop's
/// middle is where a finder estimated the head, so the first view is what training shows.
struct Scene {
    /// Side of the crop in pixels, which are as large as the input's.
    side: u32,
    /// The same in estimated head lengths.
    field_head_lengths: f64,
    /// From the crop to the input, one for each view.
    views: Vec<Affine>,
}

impl Scene {
    fn new(input: &NetworkInput, views: u32) -> Option<Self> {
        let width = f64::from(input.width);
        let side = (MARGIN * width).round();
        let (middle, half) = (side / 2.0, width / ALIGNER_FIELD_HEAD_LENGTHS / 2.0);
        let estimate = Landmarks {
            bonnet: Point::new(middle + half, middle),
            blowhead: Point::new(middle - half, middle),
        };
        let base = input_from_frame(input, ALIGNER_FIELD_HEAD_LENGTHS, &estimate)?;
        Some(Self {
            side: side as u32,
            field_head_lengths: ALIGNER_FIELD_HEAD_LENGTHS * side / width,
            views: (0..views)
                .map(|index| base.then(&view(index, input.width, input.height)))
                .collect(),
        })
    }

    /// Error of the mean of the first views' outputs, in head lengths; `None` where there is none.
    fn error(&self, input: &NetworkInput, outputs: &[f32], truth: &Landmarks) -> Option<f64> {
        let seen: Vec<Landmarks> = outputs
            .chunks_exact(4)
            .zip(&self.views)
            .filter_map(|(output, cut)| landmarks_in_frame(input, output, &cut.inverse()?))
            .collect();
        Some(mean(&seen)?.error(truth)).filter(|error| error.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(side: u32) -> NetworkInput {
        NetworkInput {
            name: "image".into(),
            width: side,
            height: side,
            mean: [0.4; 3],
            std: [0.22; 3],
        }
    }

    proptest! {
        /// An aligner that sees the truth in each view has no error with any number of views; one that is
        /// off by the same in each view is off by that with one, and by no more with several.
        #[test]
        fn views_map_back_and_are_averaged(
            x in -10.0..10.0f64, y in -10.0..10.0f64, off in 0.0..0.05f64, views in 1..13usize,
        ) {
            let input = input(96);
            let scene = Scene::new(&input, 12).unwrap();
            let truth = Landmarks {
                bonnet: Point::new(90.0 + x, 70.0 + y),
                blowhead: Point::new(55.0, 72.0),
            };
            let outputs = |off: f64| -> Vec<f32> {
                scene.views[..views].iter().flat_map(|cut| {
                    let seen = truth.map(cut);
                    [seen.bonnet.x, seen.bonnet.y, seen.blowhead.x, seen.blowhead.y]
                        .map(|v| (v / 96.0 + off) as f32)
                }).collect()
            };
            prop_assert!(scene.error(&input, &outputs(0.0), &truth).unwrap() < 1e-4);
            let error = scene.error(&input, &outputs(off), &truth).unwrap();
            let once = scene.error(&input, &outputs(off)[..4], &truth).unwrap();
            let expected = off * 96.0 * 2.0f64.sqrt() / truth.head_length();
            prop_assert!((once - expected).abs() < 1e-4);
            prop_assert!(error <= once * 1.15 + 1e-4, "{error} {once}");
        }

        /// The first view is the crop's middle pixel for pixel, and no view looks beyond the crop but for
        /// slivers at its corners.
        #[test]
        fn views_find_picture_where_they_look(side in 24..200u32) {
            let input = input(2 * side);
            let scene = Scene::new(&input, 12).unwrap();
            let width = f64::from(2 * side);
            let first = scene.views[0];
            prop_assert!((first.xx - 1.0).abs() < 1e-9 && first.xy.abs() < 1e-9);
            for cut in &scene.views {
                let back = cut.inverse().unwrap();
                for (x, y) in [(0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)] {
                    let p = back.apply(Point::new(x * width, y * width));
                    let inside = 0.0..=f64::from(scene.side);
                    prop_assert!(inside.contains(&p.x) && inside.contains(&p.y), "{p:?}");
                }
            }
        }
    }
}
