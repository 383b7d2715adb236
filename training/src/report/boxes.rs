//! One localiser measured: how well the boxes that it says cover those of composed heads.

use std::sync::Arc;

use anyhow::ensure;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::plots;
use super::table::Trained;
use crate::compose::Composer;
use crate::loader::measured_batch;
use crate::run_folder::TrainedRun;
use crate::tasks::{FOUND_OVERLAP, LocaliserTask};

/// Bars of the histogram.
const BINS: usize = 20;

/// How well one localiser places boxes on composed frames of heads of the held-out fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocaliserRow {
    /// The run.
    #[serde(flatten)]
    pub trained: Trained,
    /// Frames that it was measured on, one head in each.
    pub frames: usize,
    /// Mean intersection over union of the box that is said and the true one, 0 to 1.
    pub mean_iou: f64,
    /// Share of the frames with an intersection over union of at least 0.5.
    pub found: f64,
}

/// A localiser on composed frames.
pub(super) struct MeasuredLocaliser {
    pub row: LocaliserRow,
    /// Intersection over union in each frame.
    pub overlaps: Vec<f64>,
}

impl MeasuredLocaliser {
    /// Measures a run on the frames from `composer`, whose heads it never saw, that training measured it on.
    pub fn new(run: &TrainedRun, composer: &Arc<Composer>) -> anyhow::Result<Self> {
        let recipe = &run.recipe;
        let output = run.network.graph().output().shape;
        ensure!(
            output.flat && output.channels == 4,
            "{}: a localiser gives 4 values, this one {}",
            run.folder.display(),
            output.channels
        );
        let samples = LocaliserTask::measured_set(recipe, Arc::clone(composer));
        let mut overlaps = Vec::with_capacity(samples.len());
        let items: Vec<usize> = (0..samples.len()).collect();
        for items in items.chunks(recipe.schedule.batch) {
            let batch = measured_batch(&*samples, recipe.seed, items)?;
            let (n, height, width) = (batch.size as i64, recipe.input.height, recipe.input.width);
            let input = Tensor::from_slice(&batch.input).view([n, 3, height.into(), width.into()]);
            let target = Tensor::from_slice(&batch.target).view([n, 4]);
            let outputs = run.evaluate(&input.to_device(run.network.device()));
            overlaps.extend(LocaliserTask::overlaps(&outputs.output, &target));
        }
        let frames = overlaps.len();
        let found = overlaps.iter().filter(|&&o| o >= FOUND_OVERLAP).count();
        Ok(Self {
            row: LocaliserRow {
                trained: Trained::of(run),
                frames,
                mean_iou: overlaps.iter().sum::<f64>() / frames as f64,
                found: found as f64 / frames as f64,
            },
            overlaps,
        })
    }

    /// How many frames have which intersection over union, as SVG.
    pub fn histogram(&self) -> anyhow::Result<String> {
        let counts = counts(&self.overlaps);
        let most = counts.iter().copied().max().unwrap_or(0);
        plots::draw(|root| {
            let mut chart = ChartBuilder::on(root)
                .margin(8)
                .x_label_area_size(36)
                .y_label_area_size(46)
                .build_cartesian_2d(0.0..1.0f64, 0..most + 1)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_desc("intersection over union")
                .y_desc("frames")
                .draw()?;
            let width = 1.0 / BINS as f64;
            chart.draw_series(counts.iter().enumerate().map(|(bin, &count)| {
                let left = bin as f64 * width;
                Rectangle::new(
                    [(left + 0.05 * width, 0), (left + 0.95 * width, count)],
                    Palette99::pick(0).filled(),
                )
            }))?;
            Ok(())
        })
    }
}

/// How many fractions lie in each of equal parts of 0 to 1; 1 belongs to the last.
fn counts(fractions: &[f64]) -> [u32; BINS] {
    let mut counts = [0; BINS];
    for fraction in fractions {
        counts[((fraction * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_fall_into_their_bars() {
        let counts = counts(&[0.0, 0.049, 0.5, 0.51, 0.999, 1.0]);
        assert_eq!((counts[0], counts[10], counts[19]), (2, 2, 2));
        assert_eq!(counts.iter().sum::<u32>(), 6);
    }
}
