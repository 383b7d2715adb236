//! Pooled features of classifiers for head photographs, cut and moved as in flight.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use callosity::bundle::NetworkInput;
use callosity::geometry::{Affine, HeadCrop, Landmarks};
use callosity::identify::ensemble_view;
use callosity::pixels::{EncodedPhotograph, write_input};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::framing::Framer;
use crate::index::{Index, IndexedPhotograph, PhotographKind};
use crate::network::{Mode, Network, Precision};
use crate::recipe::Input;

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
}

/// The inputs that a photograph gives, one view after the other.
fn inputs(
    photograph: &HeadPhotograph,
    framer: &Framer,
    input: &NetworkInput,
    views: u32,
) -> anyhow::Result<Vec<f32>> {
    let path = || photograph.path.display().to_string();
    let encoded = EncodedPhotograph::open(&photograph.path).with_context(path)?;
    let decoded = encoded.decode(1.0).with_context(path)?;
    let framed = framer
        .frame(decoded.pixels, photograph.landmarks.as_ref())
        .with_context(|| format!("{}: has no pixels, or landmarks that coincide", path()))?;
    let each = 3 * input.width as usize * input.height as usize;
    let mut values = vec![0.0; each * views as usize];
    for (view, out) in (0..views).zip(values.chunks_exact_mut(each)) {
        let image = framed.show(&ensemble_view(view, input.width, input.height));
        write_input(&image, input, out);
    }
    Ok(values)
}

/// For each view of a head crop `photographs × features`, the features of all networks side by side.
///
/// # Errors
/// A photograph cannot be decoded, a network has no pooled features, or sees something else than head
/// crops.
pub fn extract(
    networks: &[&Network],
    input: &Input,
    photographs: &[HeadPhotograph],
    views: u32,
) -> anyhow::Result<Vec<Array2<f64>>> {
    let framer = Framer::new(input, || {
        bail!("{:?} is not cut from head photographs alone", input.framing)
    })?;
    extract_framed(networks, &framer, photographs, views)
}

/// The same of photographs as a recipe frames them.
///
/// # Errors
/// A photograph cannot be decoded, or a network has no pooled features.
pub fn extract_framed(
    networks: &[&Network],
    framer: &Framer,
    photographs: &[HeadPhotograph],
    views: u32,
) -> anyhow::Result<Vec<Array2<f64>>> {
    let input = framer.network_input();
    let mut width = 0;
    for network in networks {
        let graph = network.graph();
        let features = graph
            .features()
            .context("a classifier has no pooled features")?;
        width += graph.nodes[features].shape.channels;
    }
    ensure!(views > 0, "0 views; take at least 1");
    let views = views as usize;
    let mut result = vec![Array2::zeros((photographs.len(), width)); views];
    let style = ProgressStyle::with_template("features {bar:40} {pos}/{len} {per_sec} {eta} left")?;
    let progress = ProgressBar::new(photographs.len() as u64).with_style(style);
    for (chunk_index, chunk) in photographs.chunks(BATCH).enumerate() {
        let values: Result<Vec<Vec<f32>>, _> = chunk
            .par_iter()
            .map(|photograph| inputs(photograph, framer, &input, views as u32))
            .collect();
        let values = values?.concat();
        let batch = (chunk.len() * views) as i64;
        let shape = [batch, 3, i64::from(input.height), i64::from(input.width)];
        let images = Tensor::from_slice(&values).view(shape);
        let features: Option<Vec<Tensor>> = networks
            .iter()
            .map(|n| {
                let device = n.device();
                let images = images.to_device(device);
                tch::no_grad(|| n.forward(&images, Mode::Evaluate, Precision::Float32)).features
            })
            .map(|features| features.map(|f| f.to_device(tch::Device::Cpu)))
            .collect();
        let features = Tensor::cat(&features.context("a classifier has no features")?, 1);
        let flat = Vec::<f64>::try_from(features.to_kind(Kind::Double).contiguous().view([-1]))?;
        for (row, values) in flat.chunks_exact(width).enumerate() {
            let photograph = chunk_index * BATCH + row / views;
            let mut target = result[row % views].row_mut(photograph);
            target.iter_mut().zip(values).for_each(|(t, v)| *t = *v);
        }
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(result)
}

/// Weight, `individuals × features`, and bias of a classifier's own last layer.
///
/// # Errors
/// Its last layer is not fully connected.
pub fn last_layer(network: &Network) -> anyhow::Result<(Array2<f64>, Array1<f64>)> {
    let graph = network.graph();
    let node = graph.output();
    ensure!(
        node.op == crate::graph::Op::Linear,
        "the classifier's last layer is not fully connected"
    );
    let read = |kind: &str| -> anyhow::Result<Vec<f64>> {
        let tensor = network.parameter(&format!("{}.{kind}", node.name));
        let flat = tensor
            .detach()
            .to_kind(Kind::Double)
            .contiguous()
            .view([-1]);
        Ok(Vec::try_from(flat)?)
    };
    let individuals = node.shape.channels;
    let features = graph.nodes[node.inputs[0]].shape.channels;
    let weight = Array2::from_shape_vec((individuals, features), read("weight")?)?;
    Ok((weight, Array1::from_vec(read("bias")?)))
}
