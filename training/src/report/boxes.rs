//! What localisers reach: how well the boxes that they say cover those of composed heads.

use std::sync::Arc;

use anyhow::ensure;
use minijinja::{Environment, context};
use plotters::prelude::*;
use serde::Serialize;
use tch::Tensor;

use super::plots;
use crate::cache::Cache;
use crate::compose::Composer;
use crate::index::Index;
use crate::loader::measured_batch;
use crate::network::{Mode, Precision};
use crate::recipe::Task;
use crate::run_folder::TrainedRun;
use crate::split::Split;
use crate::tasks::{FOUND_OVERLAP, LocaliserTask};

/// Bars of the histogram.
const BINS: usize = 20;

/// One localiser's row in the table.
#[derive(Debug, Serialize)]
pub struct BoxRow {
    /// Name of the recipe.
    pub recipe: String,
    /// Trainable parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Epochs that were trained.
    pub epochs: u32,
    /// Epochs of the recipe's schedule; more than `epochs` where the run has not come to its end.
    pub scheduled_epochs: u32,
    /// Images trained in a second, in the last epoch.
    pub images_per_second: Option<f64>,
    /// Composed frames that were measured, one head in each.
    pub frames: usize,
    /// Mean intersection over union of the box that is said and the true one, 0 to 1.
    pub mean_iou: f64,
    /// Share of the frames with an intersection over union of at least [`FOUND_OVERLAP`].
    pub found: f64,
}

/// Rows of the localisers, and for each the histogram of its intersections over union as SVG.
#[derive(Debug, Default, Serialize)]
pub struct Boxes {
    /// In the order of the runs.
    pub rows: Vec<BoxRow>,
    histograms: Vec<String>,
}

impl Boxes {
    /// Measures localisers on the composed frames that training measured them on, of heads that they never
    /// saw.
    ///
    /// # Errors
    /// A run is no localiser of this split, or the heads cannot be read.
    pub fn measure(
        runs: &[TrainedRun],
        index: &Index,
        split: &Split,
        cache: &Cache,
    ) -> anyhow::Result<Self> {
        let mut boxes = Self::default();
        for run in runs {
            run.expect(Task::Localiser)?;
            ensure!(
                run.record.split_digest == split.digest(),
                "{} was trained on split {}, this is {}: a head that is measured here may have trained it",
                run.folder.display(),
                run.record.split_digest,
                split.digest()
            );
            let fold = run.record.held_out_fold;
            let composer = Composer::of_held_out_fold(index, split, cache, fold)?;
            let overlaps = overlaps(run, Arc::new(composer))?;
            let frames = overlaps.len();
            let found = overlaps.iter().filter(|&&o| o >= FOUND_OVERLAP).count();
            boxes.rows.push(BoxRow {
                recipe: run.recipe.name.clone(),
                parameters: run.record.parameters,
                multiply_adds: run.record.multiply_adds,
                epochs: run.record.epochs_completed,
                scheduled_epochs: run.recipe.schedule.epochs,
                images_per_second: run.record.metrics.get("images_per_second").copied(),
                frames,
                mean_iou: overlaps.iter().sum::<f64>() / frames as f64,
                found: found as f64 / frames as f64,
            });
            boxes.histograms.push(histogram(&overlaps)?);
        }
        Ok(boxes)
    }

    /// Their part of the page as HTML; empty where there are none.
    ///
    /// # Errors
    /// The template does not fit, which a test excludes.
    pub fn render(&self) -> anyhow::Result<String> {
        let mut environment = Environment::new();
        environment.add_template("boxes.html", include_str!("boxes.html"))?;
        Ok(environment.get_template("boxes.html")?.render(context! {
            rows => self.rows,
            histograms => self.histograms,
            found_overlap => FOUND_OVERLAP,
        })?)
    }
}

fn overlaps(run: &TrainedRun, composer: Arc<Composer>) -> anyhow::Result<Vec<f64>> {
    let recipe = &run.recipe;
    let samples = LocaliserTask::measured_set(recipe, composer);
    let mut overlaps = Vec::with_capacity(samples.len());
    let items: Vec<usize> = (0..samples.len()).collect();
    for items in items.chunks(recipe.schedule.batch) {
        let batch = measured_batch(&*samples, recipe.seed, items);
        let (n, height, width) = (batch.size as i64, recipe.input.height, recipe.input.width);
        let input = Tensor::from_slice(&batch.input).view([n, 3, height.into(), width.into()]);
        let target = Tensor::from_slice(&batch.target).view([n, 4]);
        let input = input.to_device(run.network.device());
        let outputs = tch::no_grad(|| {
            run.network
                .forward(&input, Mode::Evaluate, Precision::Float32)
        });
        overlaps.extend(LocaliserTask::overlaps(&outputs.output, &target));
    }
    Ok(overlaps)
}

/// How many frames have which intersection over union, as SVG.
fn histogram(overlaps: &[f64]) -> anyhow::Result<String> {
    let mut counts = [0u32; BINS];
    for overlap in overlaps {
        counts[((overlap * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_the_page_has_a_row_and_a_histogram_for_each_run_or_nothing() {
        assert_eq!(Boxes::default().render().expect("a part").trim(), "");
        let boxes = Boxes {
            rows: vec![BoxRow {
                recipe: "some-localiser".to_owned(),
                parameters: 1_250_000,
                multiply_adds: 9_000_000,
                epochs: 3,
                scheduled_epochs: 24,
                images_per_second: None,
                frames: 4,
                mean_iou: 0.4321,
                found: 0.25,
            }],
            histograms: vec![histogram(&[0.0, 0.5, 0.51, 1.0]).expect("a plot")],
        };
        let page = boxes.render().expect("a part");
        for part in [
            "some-localiser",
            "1.25",
            "3 of 24",
            "–",
            "0.432",
            "0.250",
            "<svg",
            "</table>",
        ] {
            assert!(page.contains(part), "the page has no {part}: {page}");
        }
    }
}
