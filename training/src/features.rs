//! Pooled features of classifiers for head photographs, cut and moved as in flight.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use image::RgbImage;
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, HeadCrop, Landmarks};
use recognition::identify::ensemble_view;
use recognition::pixels::{EncodedPhotograph, OUTSIDE_HEAD_PHOTOGRAPH, warp, write_input};
use tch::{Device, Kind, Tensor};

use crate::framing::{Framed, Framer};
use crate::index::{Index, IndexedPhotograph, PhotographKind};
use crate::progress::progress_bar;
use crate::run_folder::TrainedRun;

/// Photographs whose views go through the networks together.
const BATCH: usize = 8;

/// A photograph of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadPhotograph {
    /// The file.
    pub path: PathBuf,
    /// Where the head lies, in pixels of the upright photograph; absent where the photograph is a head
    /// crop already.
    pub landmarks: Option<Landmarks>,
}

impl HeadPhotograph {
    /// One of the index's.
    pub fn of(index: &Index, photograph: &IndexedPhotograph) -> Self {
        Self {
            path: index.path(photograph),
            landmarks: match photograph.kind {
                PhotographKind::Frame => photograph.landmarks.first().copied(),
                PhotographKind::Head | PhotographKind::UnlabelledHead => None,
            },
        }
    }

    /// The transform from the photograph of this size (width, height in pixels) to a crop of its head.
    ///
    /// # Errors
    /// It has no pixels, or the landmarks coincide.
    pub fn crop(
        &self,
        size: (u32, u32),
        head_crop: &HeadCrop,
        width: u32,
        height: u32,
    ) -> anyhow::Result<Affine> {
        let path = || self.path.display();
        match &self.landmarks {
            None => head_crop
                .crop_from_head_photograph(size, width, height)
                .with_context(|| format!("{}: has no pixels", path())),
            Some(landmarks) => head_crop
                .crop_from_frame(landmarks, width, height)
                .with_context(|| format!("{}: the landmarks coincide", path())),
        }
    }

    /// As the classifiers of a framer see it.
    ///
    /// # Errors
    /// The photograph cannot be decoded or shows no head.
    pub fn framed(&self, framer: &Framer) -> anyhow::Result<Framed> {
        let path = || self.path.display().to_string();
        let encoded = EncodedPhotograph::open(&self.path).with_context(path)?;
        let decoded = encoded.decode(1.0).with_context(path)?;
        framer
            .frame(decoded.pixels, self.landmarks.as_ref())
            .with_context(|| format!("{}: has no pixels, or landmarks that coincide", path()))
    }

    /// The crop of its head at this size in pixels, black outside the photograph.
    ///
    /// # Errors
    /// The photograph cannot be decoded or shows no head.
    pub fn image(&self, head_crop: &HeadCrop, width: u32, height: u32) -> anyhow::Result<RgbImage> {
        let path = || self.path.display().to_string();
        let encoded = EncodedPhotograph::open(&self.path).with_context(path)?;
        let crop = self.crop(encoded.size(), head_crop, width, height)?;
        let photograph = encoded.decode(1.0).with_context(path)?;
        Ok(warp(
            &photograph.pixels,
            &crop,
            width,
            height,
            OUTSIDE_HEAD_PHOTOGRAPH,
        ))
    }
}

/// The inputs that a photograph gives, one view after the other.
fn inputs(
    photograph: &HeadPhotograph,
    framer: &Framer,
    input: &NetworkInput,
    views: u32,
) -> anyhow::Result<Vec<f32>> {
    let framed = photograph.framed(framer)?;
    let each = 3 * input.width as usize * input.height as usize;
    let mut values = vec![0.0; each * views as usize];
    for (view, out) in (0..views).zip(values.chunks_exact_mut(each)) {
        let image = framed.show(&ensemble_view(view, input.width, input.height));
        write_input(&image, input, out);
    }
    Ok(values)
}

/// What classifiers make of photographs, all of them side by side; one entry for each view.
pub struct Passes {
    /// Pooled features, `photographs × features`.
    pub features: Vec<Array2<f64>>,
    /// The classifiers' own [outputs](TrainedRun::evaluate), `photographs × outputs`.
    pub outputs: Vec<Array2<f64>>,
}

/// Sends the views of photographs, framed by `framer`, through classifiers that share its input.
///
/// # Errors
/// A photograph cannot be decoded, or a network has no pooled features or gives no vector.
pub fn pass(
    runs: &[&TrainedRun],
    framer: &Framer,
    photographs: &[HeadPhotograph],
    views: u32,
) -> anyhow::Result<Passes> {
    let input = framer.network_input();
    let (mut feature_width, mut output_width) = (0, 0);
    for run in runs {
        let graph = run.network.graph();
        let features = graph
            .features()
            .context("a classifier has no pooled features")?;
        feature_width += graph.nodes[features].shape.channels;
        let output = graph.output().shape;
        ensure!(output.flat, "a classifier gives a map instead of a vector");
        output_width += if run.recipe.augmentation.mirrored_individuals {
            output.channels / 2
        } else {
            output.channels
        };
    }
    ensure!(views > 0, "0 views; take at least 1");
    let views = views as usize;
    let zeros = |width| vec![Array2::zeros((photographs.len(), width)); views];
    let (mut features, mut outputs) = (zeros(feature_width), zeros(output_width));
    let progress = progress_bar("photographs", photographs.len());
    for (chunk_index, chunk) in photographs.chunks(BATCH).enumerate() {
        let values: Result<Vec<Vec<f32>>, _> = chunk
            .par_iter()
            .map(|photograph| inputs(photograph, framer, &input, views as u32))
            .collect();
        let values = values?.concat();
        let batch = (chunk.len() * views) as i64;
        let shape = [batch, 3, i64::from(input.height), i64::from(input.width)];
        let images = Tensor::from_slice(&values).view(shape);
        let (mut pooled, mut last) = (Vec::new(), Vec::new());
        for run in runs {
            let result = run.evaluate(&images.to_device(run.network.device()));
            let of_network = result.features.context("a classifier has no features")?;
            pooled.push(of_network.to_device(Device::Cpu));
            last.push(result.output.to_device(Device::Cpu));
        }
        for (tensors, target) in [(pooled, &mut features), (last, &mut outputs)] {
            let rows = Tensor::cat(&tensors, 1).to_kind(Kind::Double).contiguous();
            let flat = Vec::<f64>::try_from(rows.view([-1]))?;
            let width = target[0].ncols();
            for (row, values) in flat.chunks_exact(width).enumerate() {
                let photograph = chunk_index * BATCH + row / views;
                let mut to = target[row % views].row_mut(photograph);
                to.iter_mut().zip(values).for_each(|(t, v)| *t = *v);
            }
        }
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(Passes { features, outputs })
}

/// For each view of a head crop `photographs × features`, the features of all networks side by side.
///
/// # Errors
/// As [`pass`], and where the networks see something else than head crops.
pub fn extract(
    runs: &[&TrainedRun],
    photographs: &[HeadPhotograph],
    views: u32,
) -> anyhow::Result<Vec<Array2<f64>>> {
    let first = runs.first().context("no classifier")?;
    first.expect_head_crops()?;
    let framer = Framer::HeadCrop(first.recipe.input.clone());
    Ok(pass(runs, &framer, photographs, views)?.features)
}

/// Weight, `individuals × features`, and bias of a classifier's own last layer.
///
/// # Errors
/// Its last layer is not fully connected.
pub fn last_layer(run: &TrainedRun) -> anyhow::Result<(Array2<f64>, Array1<f64>)> {
    let graph = run.network.graph();
    let node = graph.output();
    ensure!(
        node.op == crate::graph::Op::Linear,
        "{}: the classifier's last layer is not fully connected, its features cannot be stacked",
        run.folder.display()
    );
    // Outputs of mirrored selves come after those of the individuals and do not fly.
    let individuals = run.record.individuals.len();
    let read = |kind: &str| -> anyhow::Result<Vec<f64>> {
        let tensor = run.network.parameter(&format!("{}.{kind}", node.name));
        let flat = tensor
            .detach()
            .narrow(0, 0, individuals as i64)
            .to_device(Device::Cpu)
            .to_kind(Kind::Double)
            .contiguous()
            .view([-1]);
        Ok(Vec::try_from(flat)?)
    };
    let features = graph.nodes[node.inputs[0]].shape.channels;
    let weight = Array2::from_shape_vec((individuals, features), read("weight")?)?;
    Ok((weight, Array1::from_vec(read("bias")?)))
}
