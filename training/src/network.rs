//! The libtorch module of a [`Graph`]: its parameters and the forward pass.
//!
//! Master weights are float32. In [`Precision::Bf16`] weights and activations are cast explicitly
//! (libtorch's own autocast knows only CUDA through `tch`) and feature maps are kept channels-last;
//! statistics of batch normalisation stay float32.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use recognition::geometry::HeadCrop;
use tch::{Device, Kind, Tensor};

use crate::files::{Partial, folder_of};
use crate::graph::{Graph, Op};

/// Number format of weights and activations in the forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    Float32,
    /// bfloat16, with float32 master weights.
    Bf16,
}

impl Precision {
    /// bfloat16 where the device multiplies it fast: a CUDA device, or a CPU with AMX tiles or AVX-512's
    /// bfloat16 dot products; float32 elsewhere.
    ///
    /// On a 2-core EPYC of the Zen 5 generation, which has the latter alone, a step in bfloat16 takes
    /// 0.6 of one in float32.
    pub fn fastest(device: Device) -> Self {
        let multiplies_bf16 = || {
            std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
                text.split_ascii_whitespace()
                    .any(|flag| flag == "amx_bf16" || flag == "avx512_bf16")
            })
        };
        if device.is_cuda() || multiplies_bf16() {
            Self::Bf16
        } else {
            Self::Float32
        }
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout active, running statistics updated.
    Train,
    /// Running statistics, no dropout.
    Evaluate,
}

/// Why weights cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WeightsError {
    #[error("weights {path}: {source}")]
    File {
        path: PathBuf,
        source: tch::TchError,
    },
    #[error("writing {path}: {source}; is there space left on its disk?")]
    Write {
        path: PathBuf,
        source: tch::TchError,
    },
    #[error("weights {path}: parameter {name} is missing; the file belongs to another network")]
    Missing { path: PathBuf, name: String },
    #[error(
        "weights {path}: parameter {name} has shape {found:?} instead of {expected:?}; the file belongs to another network"
    )]
    Shape {
        path: PathBuf,
        name: String,
        found: Vec<i64>,
        expected: Vec<i64>,
    },
    #[error("weights {path}: parameter {name} holds a value that is no finite number")]
    NotFinite { path: PathBuf, name: String },
}

/// A graph with its parameters on a device.
pub struct Network {
    graph: Graph,
    device: Device,
    parameters: BTreeMap<String, Tensor>,
}

/// What a forward pass gives.
pub struct Outputs {
    /// Output of the last node, float32.
    pub output: Tensor,
    /// Pooled features before the last fully connected layer, `N × channels`, float32, where the
    /// network has them.
    pub features: Option<Tensor>,
    /// Where a spatial transformer takes bonnet and blowhead to lie, `N × 4` fractions of the image,
    /// float32.
    pub landmarks: Option<Tensor>,
}

impl Network {
    /// A network with random weights: normal with the variance of He et al. 2015 for convolutions and
    /// locally connected layers, a standard deviation of 0.01 for fully connected layers. Seed libtorch before.
    pub fn new(graph: Graph, device: Device) -> Self {
        let slope = graph.nodes.iter().find_map(|n| match n.op {
            Op::LeakyRelu { slope } => Some(slope),
            _ => None,
        });
        let slope = slope.unwrap_or(0.0);
        let mut parameters = BTreeMap::new();
        for p in graph.parameters() {
            let kind = (Kind::Float, device);
            let tensor = match (p.name.rsplit('.').next(), p.shape.as_slice()) {
                (Some("weight"), [_, inputs, k1, k2]) => {
                    let fan_in = (inputs * k1 * k2) as f64;
                    Tensor::randn(&p.shape, kind) * (2.0 / ((1.0 + slope * slope) * fan_in)).sqrt()
                }
                (Some("weight"), [_, _, fan_in]) => {
                    let variance = 2.0 / ((1.0 + slope * slope) * *fan_in as f64);
                    Tensor::randn(&p.shape, kind) * variance.sqrt()
                }
                (Some("weight"), [_, _]) => Tensor::randn(&p.shape, kind) * 0.01,
                (Some("weight" | "running_var"), _) => Tensor::ones(&p.shape, kind),
                _ => Tensor::zeros(&p.shape, kind),
            };
            parameters.insert(p.name, tensor.set_requires_grad(p.trainable));
        }
        Self {
            graph,
            device,
            parameters,
        }
    }

    /// The declaration.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where the parameters lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// A parameter by name.
    ///
    /// # Panics
    /// Where the graph has no such parameter.
    pub fn parameter(&self, name: &str) -> &Tensor {
        &self.parameters[name]
    }

    /// All parameters and running statistics by name.
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    /// Runs the network on `N × 3 × height × width` float32 input.
    pub fn forward(&self, input: &Tensor, mode: Mode, precision: Precision) -> Outputs {
        self.forward_observed(input, mode, precision, &mut |_, _| {})
    }

    /// [`forward`](Self::forward), which shows `observe` the output of each node by its index.
    pub fn forward_observed(
        &self,
        input: &Tensor,
        mode: Mode,
        precision: Precision,
        observe: &mut dyn FnMut(usize, &Tensor),
    ) -> Outputs {
        let kind = match precision {
            Precision::Float32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let cast = |name: &str| self.parameters[name].to_kind(kind);
        let features_at = self.graph.features();
        let landmarks_at = self.graph.landmarks();
        let (mut features, mut landmarks) = (None, None);
        let mut uses = vec![0usize; self.graph.nodes.len()];
        for input in self.graph.nodes.iter().flat_map(|n| &n.inputs) {
            uses[*input] += 1;
        }
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.graph.nodes.len());
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let x = node.inputs.first().map(|&i| {
                values[i]
                    .as_ref()
                    .expect("inputs are kept until their last use")
            });
            let value = match (&node.op, x) {
                // The permuted copy gives the channels-last strides, in which bf16 is fast.
                (Op::Input, _) => input
                    .to_kind(kind)
                    .permute([0, 2, 3, 1])
                    .contiguous()
                    .permute([0, 3, 1, 2]),
                (
                    Op::Standardise {
                        mean,
                        deviation,
                        least_deviation,
                    },
                    Some(x),
                ) => {
                    let of_channels = |values: &[f32; 3]| {
                        let values = Tensor::from_slice(values).to_device(self.device);
                        values.view([1, 3, 1, 1])
                    };
                    // bfloat16 has too few digits for sums over an image.
                    let x = x.to_kind(Kind::Float);
                    let plane = [2i64, 3].as_slice();
                    let centred = &x - x.mean_dim(plane, true, Kind::Float);
                    let variance = centred.square().mean_dim(plane, true, Kind::Float);
                    let least = f64::from(*least_deviation);
                    let scale = (variance + least * least).rsqrt() * of_channels(deviation);
                    (centred * scale + of_channels(mean)).to_kind(kind)
                }
                (
                    Op::Conv {
                        kernel,
                        stride,
                        bias,
                        depthwise,
                    },
                    Some(x),
                ) => {
                    let weight = cast(&format!("{}.weight", node.name));
                    let bias = bias.then(|| cast(&format!("{}.bias", node.name)));
                    let pad = (*kernel / 2) as i64;
                    let stride = *stride as i64;
                    let groups = if *depthwise { x.size()[1] } else { 1 };
                    x.conv2d(&weight, bias, [stride; 2], [pad; 2], [1, 1], groups)
                }
                (Op::LocallyConnected { kernel }, Some(x)) => {
                    let (side, pad) = (*kernel as i64, (*kernel / 2) as i64);
                    // images × (in · kernel · kernel) × places
                    let windows = x.contiguous().im2col([side; 2], [1, 1], [pad; 2], [1, 1]);
                    let weight = cast(&format!("{}.weight", node.name));
                    // places × images × out
                    let local = windows.permute([2, 0, 1]).bmm(&weight.transpose(1, 2));
                    let s = node.shape;
                    let size = [-1, s.channels as i64, s.height as i64, s.width as i64];
                    local.permute([1, 2, 0]).reshape(size)
                }
                (Op::AveragePool { size }, Some(x)) => {
                    let (side, pad) = (*size as i64, (*size / 2) as i64);
                    x.avg_pool2d([side; 2], [1, 1], [pad; 2], false, false, None)
                }
                (Op::BatchNorm { eps }, Some(x)) => {
                    let p = |kind: &str| &self.parameters[&format!("{}.{kind}", node.name)];
                    x.batch_norm(
                        Some(p("weight")),
                        Some(p("bias")),
                        Some(p("running_mean")),
                        Some(p("running_var")),
                        mode == Mode::Train,
                        0.1,
                        *eps,
                        true,
                    )
                }
                (Op::LeakyRelu { slope }, Some(x)) => leaky_relu(x, *slope),
                (Op::Add, Some(x)) => x + values[node.inputs[1]].as_ref().expect("kept"),
                (Op::Concat, Some(x)) => {
                    Tensor::cat(&[x, values[node.inputs[1]].as_ref().expect("kept")], 1)
                }
                (Op::MaxPool { size }, Some(x)) => {
                    let size = *size as i64;
                    x.max_pool2d([size; 2], [size; 2], [0, 0], [1, 1], false)
                }
                (Op::Upsample { .. }, Some(x)) => {
                    let (h, w) = (node.shape.height as i64, node.shape.width as i64);
                    x.upsample_nearest2d([h, w], None, None)
                }
                (Op::GlobalAveragePool, Some(x)) => {
                    x.to_kind(Kind::Float)
                        .mean_dim([2i64, 3].as_slice(), false, Kind::Float)
                }
                (Op::Dropout { p }, Some(x)) => x.dropout(*p, mode == Mode::Train),
                // The few multiplications after pooling stay in float32.
                (Op::Linear, Some(x)) => {
                    let p = |kind: &str| &self.parameters[&format!("{}.{kind}", node.name)];
                    x.linear(p("weight"), Some(p("bias")))
                }
                (Op::Cosine { sub_centres, scale }, Some(x)) => {
                    let weight = &self.parameters[&format!("{}.weight", node.name)];
                    let cosines = unit(&x.to_kind(Kind::Float)).matmul(&unit(weight).tr());
                    let centres = [-1, node.shape.channels as i64, *sub_centres as i64];
                    cosines.view(centres).amax([2i64].as_slice(), false) * *scale
                }
                (Op::SoftArgmax, Some(x)) => {
                    let size = self.graph.nodes[node.inputs[0]].shape;
                    let places = pixel_centres(size.width, size.height);
                    let places = Tensor::from_slice(&places)
                        .view([-1, 2])
                        .to_device(self.device);
                    let flat = [-1, size.channels as i64, (size.width * size.height) as i64];
                    let heat = x.to_kind(Kind::Float).contiguous().view(flat);
                    let share = heat.softmax(-1, Kind::Float);
                    share.matmul(&places).flatten(1, 2)
                }
                (Op::HeadSampler { aspect, head_crop }, Some(x)) => {
                    let landmarks = values[node.inputs[1]].as_ref().expect("kept");
                    let s = node.shape;
                    let (linear, constant) = sampling_grid(*aspect, head_crop, s.width, s.height);
                    let on_device =
                        |values: &[f32]| Tensor::from_slice(values).to_device(self.device);
                    let linear = on_device(&linear).view([4, -1]);
                    let grid =
                        landmarks.to_kind(Kind::Float).matmul(&linear) + on_device(&constant);
                    let grid = grid.view([-1, s.height as i64, s.width as i64, 2]);
                    let image = x.to_kind(Kind::Float).contiguous();
                    // Bilinear, zeros outside, corners of pixels as in ONNX' default.
                    image.grid_sampler(&grid, 0, 0, false).to_kind(kind)
                }
                (op, None) => unreachable!("{op:?} has an input by construction"),
            };
            observe(index, &value);
            if features_at == Some(index) {
                features = Some(value.shallow_clone());
            }
            if landmarks_at == Some(index) {
                landmarks = Some(value.to_kind(Kind::Float));
            }
            for &i in &node.inputs {
                uses[i] -= 1;
                if uses[i] == 0 {
                    values[i] = None;
                }
            }
            values.push(Some(value));
        }
        let output = values.pop().flatten().expect("the output is the last node");
        Outputs {
            output: output.to_kind(Kind::Float),
            features,
            landmarks,
        }
    }

    /// Writes all parameters as float32 safetensors, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        save_tensors(&self.parameters, path)
    }

    /// Reads all parameters; refuses missing ones, other shapes and values that are not finite.
    pub fn load(&mut self, path: &Path) -> Result<(), WeightsError> {
        self.take(&load_tensors(path)?, path, None)
    }

    /// Reads all parameters as [`load`](Self::load) does, but leaves the last fully connected layer as it is
    /// where the file has it in another shape or not at all. Gives the name of a layer that was left.
    pub fn load_but_other_last_layer(
        &mut self,
        path: &Path,
    ) -> Result<Option<String>, WeightsError> {
        let found = load_tensors(path)?;
        let other = self.graph.last_connected().map(|node| node.name.clone());
        let other = other.filter(|name| {
            let weight = format!("{name}.weight");
            let found = found.get(&weight);
            found.is_none_or(|tensor| tensor.size() != self.parameters[&weight].size())
        });
        self.take(&found, path, other.as_deref())?;
        Ok(other)
    }

    /// Reads all parameters as [`load`](Self::load) does, but of the last fully connected layer only the rows of
    /// outputs that the file has too: `rows` says for each output here which of the file's it is. The others stay as
    /// they are. Gives how many rows were read, 0 where the layer has anything but one row for each output, here or in
    /// the file.
    pub fn load_rows_of_last_layer(
        &mut self,
        path: &Path,
        rows: &[Option<usize>],
    ) -> Result<usize, WeightsError> {
        let found = load_tensors(path)?;
        let last = self.graph.last_connected().map(|node| node.name.clone());
        self.take(&found, path, last.as_deref())?;
        let Some(last) = last else { return Ok(0) };
        let prefix = format!("{last}.");
        let mut pairs = Vec::new();
        for (name, parameter) in &self.parameters {
            if !name.starts_with(&prefix) {
                continue;
            }
            let Some(theirs) = found.get(name) else {
                return Ok(0);
            };
            let (own_size, size) = (parameter.size(), theirs.size());
            let last_row = rows.iter().flatten().max();
            let fits = own_size[0] == rows.len() as i64
                && own_size[1..] == size[1..]
                && last_row.is_none_or(|row| (*row as i64) < size[0]);
            if !fits {
                return Ok(0);
            }
            if !tensor_is_finite(theirs) {
                return Err(WeightsError::NotFinite {
                    path: path.to_owned(),
                    name: name.clone(),
                });
            }
            pairs.push((parameter, theirs.to_device(self.device)));
        }
        tch::no_grad(|| {
            for (parameter, theirs) in &pairs {
                for (row, from) in rows.iter().enumerate() {
                    if let Some(from) = from {
                        let row = parameter.get(row as i64);
                        row.shallow_clone().copy_(&theirs.get(*from as i64));
                    }
                }
            }
        });
        Ok(rows.iter().flatten().count())
    }

    /// Takes over the parameters of all nodes but `left` from those of a file.
    fn take(
        &mut self,
        found: &BTreeMap<String, Tensor>,
        path: &Path,
        left: Option<&str>,
    ) -> Result<(), WeightsError> {
        tch::no_grad(|| {
            for (name, parameter) in &mut self.parameters {
                if name.rsplit_once('.').map(|(node, _)| node) == left {
                    continue;
                }
                let tensor = found.get(name).ok_or_else(|| WeightsError::Missing {
                    path: path.to_owned(),
                    name: name.clone(),
                })?;
                if tensor.size() != parameter.size() {
                    return Err(WeightsError::Shape {
                        path: path.to_owned(),
                        name: name.clone(),
                        found: tensor.size(),
                        expected: parameter.size(),
                    });
                }
                if !tensor_is_finite(tensor) {
                    return Err(WeightsError::NotFinite {
                        path: path.to_owned(),
                        name: name.clone(),
                    });
                }
                parameter.copy_(&tensor.to_device(self.device));
            }
            Ok(())
        })
    }
}

/// `max(x, slope · x)`.
///
/// `tch` offers `leaky_relu` only with libtorch's default slope. Its gradient with respect to the
/// incoming gradient is the same function, `g · (1 or slope by the sign of x)`, which at `g = x` is the
/// leaky ReLU itself: one kernel forward and one backward, where `prelu` takes four times as long.
fn leaky_relu(x: &Tensor, slope: f64) -> Tensor {
    x.detach().leaky_relu_backward(x, slope, false)
}

/// Each row of `N × channels` divided by its length.
pub fn unit(rows: &Tensor) -> Tensor {
    let length = rows
        .square()
        .sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)
        .clamp_min(LEAST_LENGTH * LEAST_LENGTH)
        .sqrt();
    rows / length
}

/// Vectors shorter than this are not made longer than 1 by [`unit()`] but left short.
pub const LEAST_LENGTH: f64 = 1e-12;

/// x and y of each pixel's centre, row by row, as fractions of width and height.
pub fn pixel_centres(width: usize, height: usize) -> Vec<f32> {
    let centre = |i: usize, of: usize| ((i as f64 + 0.5) / of as f64) as f32;
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [centre(x, width), centre(y, height)]))
        .collect()
}

/// Where a head crop of `width × height` pixels lies in an image, as a linear map of the landmarks: the
/// places are `landmarks · linear + constant`, with landmarks as `N × 4` fractions of the image (bonnet x,
/// bonnet y, blowhead x, blowhead y), `linear` `4 × (2 · places)` and `constant` one row of it. A place is x
/// and y in −1…1 across the image, as `grid_sample` and ONNX' `GridSample` want them. `aspect` is the
/// image's width to height in nature, where the crop is a turned rectangle.
pub fn sampling_grid(
    aspect: f64,
    head_crop: &HeadCrop,
    width: usize,
    height: usize,
) -> (Vec<f32>, Vec<f32>) {
    let places = width * height;
    let mut linear = vec![0.0; 4 * 2 * places];
    let length = head_crop.bonnet_x - head_crop.blowhead_x;
    for (i, centre) in pixel_centres(width, height).chunks_exact(2).enumerate() {
        // The crop's pixel in head lengths along and across the head, seen from the blowhead.
        let along = (f64::from(centre[0]) - head_crop.blowhead_x) / length;
        let across = (f64::from(centre[1]) - head_crop.landmark_y) / (head_crop.aspect * length);
        let (x, y) = (2 * i, 2 * i + 1);
        let mut set = |landmark: usize, place: usize, value: f64| {
            linear[landmark * 2 * places + place] = (2.0 * value) as f32;
        };
        // With d from blowhead h to bonnet b in nature: h + along · d + across · (−d_y, d_x).
        set(0, x, along);
        set(1, x, -across / aspect);
        set(2, x, 1.0 - along);
        set(3, x, across / aspect);
        set(0, y, across * aspect);
        set(1, y, along);
        set(2, y, -across * aspect);
        set(3, y, 1.0 - along);
    }
    (linear, vec![-1.0; 2 * places])
}

/// Whether all values of a tensor are finite numbers.
pub fn tensor_is_finite(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isfinite().all()).unwrap_or(false)
}

/// Writes named tensors as safetensors, whole or not at all.
pub fn save_tensors(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<(), WeightsError> {
    let fail = |source: tch::TchError| WeightsError::Write {
        path: path.to_owned(),
        source,
    };
    let partial = Partial::new(folder_of(path)).map_err(|e| fail(e.into()))?;
    write_tensors(tensors, partial.path()).map_err(fail)?;
    partial.keep(path).map_err(|e| fail(e.into()))
}

/// Writes named tensors into the file `path` as it is.
pub(crate) fn write_tensors(
    tensors: &BTreeMap<String, Tensor>,
    path: &Path,
) -> Result<(), tch::TchError> {
    let named: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, t)| {
            (
                name.as_str(),
                t.detach().to_device(Device::Cpu).contiguous(),
            )
        })
        .collect();
    Tensor::write_safetensors(&named, path)
}

/// Reads named tensors from a safetensors file.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let tensors = Tensor::read_safetensors(path).map_err(|source| WeightsError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(tensors.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};
    use recognition::geometry::{Landmarks, Point};

    use super::*;
    use crate::graph::Layer;

    #[test]
    fn the_leaky_relu_and_its_gradient_are_those_of_the_definition() {
        let x = Tensor::from_slice(&[-2.0f32, -0.5, 0.5, 3.0]).set_requires_grad(true);
        let y = leaky_relu(&x, 0.25);
        assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [-0.5, -0.125, 0.5, 3.0]);
        (&y * &y).sum(Kind::Float).backward();
        // d(y²)/dx = 2 · y · y'
        let expected = [-0.25f32, -0.0625, 1.0, 6.0];
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), expected);
    }

    fn network(declaration: &str, outputs: usize) -> Network {
        network_with_slope(declaration, 1.0 / 3.0, outputs)
    }

    fn network_with_slope(declaration: &str, slope: f64, outputs: usize) -> Network {
        #[derive(serde::Deserialize)]
        struct Document {
            layers: Vec<Layer>,
        }
        let layers = toml::from_str::<Document>(declaration).unwrap().layers;
        let graph = crate::graph::Graph::build(&layers, 8, 8, slope, outputs).unwrap();
        Network::new(graph, Device::Cpu)
    }

    #[test]
    fn weights_may_start_a_network_with_another_last_layer_but_no_other_difference() {
        let layers = |channels: usize| {
            format!(
                r#"layers = [{{ op = "conv", channels = {channels} }}, {{ op = "global_average_pool" }},
                   {{ op = "linear", outputs = 4 }}, {{ op = "linear" }}]"#
            )
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        tch::manual_seed(1);
        let old = network(&layers(5), 3);
        old.save(&file).unwrap();

        let mut same = network(&layers(5), 3);
        assert_eq!(same.load_but_other_last_layer(&file).unwrap(), None);
        assert!(
            old.parameters()
                .iter()
                .all(|(name, t)| t.equal(same.parameter(name)))
        );

        let mut more = network(&layers(5), 7);
        let random = more.parameter("l4_linear.weight").copy();
        assert!(more.load(&file).is_err());
        let left = more.load_but_other_last_layer(&file).unwrap();
        assert_eq!(left.as_deref(), Some("l4_linear"));
        assert!(more.parameter("l4_linear.weight").equal(&random));
        for (name, t) in old.parameters() {
            if !name.starts_with("l4_linear") {
                assert!(t.equal(more.parameter(name)), "{name}");
            }
        }

        // Outputs 0 and 2 of seven are 2 and 0 of the file's three.
        let mut others = network(&layers(5), 7);
        let random = others.parameter("l4_linear.weight").copy();
        let mut rows = [None; 7];
        (rows[0], rows[2]) = (Some(2), Some(0));
        assert_eq!(others.load_rows_of_last_layer(&file, &rows).unwrap(), 2);
        for (name, t) in old.parameters() {
            let own = others.parameter(name);
            if name.starts_with("l4_linear") {
                assert!(own.get(0).equal(&t.get(2)) && own.get(2).equal(&t.get(0)));
            } else {
                assert!(t.equal(own), "{name}");
            }
        }
        let kept = others.parameter("l4_linear.weight").get(1);
        assert!(kept.equal(&random.get(1)));
        rows[3] = Some(3);
        assert_eq!(others.load_rows_of_last_layer(&file, &rows).unwrap(), 0);

        let error = network(&layers(6), 7).load_but_other_last_layer(&file);
        assert!(error.unwrap_err().to_string().contains("l1_1.weight"));

        let mut tensors = load_tensors(&file).unwrap();
        tensors.retain(|name, _| !name.starts_with("l4_linear"));
        save_tensors(&tensors, &file).unwrap();
        let mut network = network(&layers(5), 7);
        let left = network.load_but_other_last_layer(&file).unwrap();
        assert_eq!(left.as_deref(), Some("l4_linear"));
    }

    #[test]
    fn every_trainable_parameter_gets_a_gradient_that_finite_differences_confirm() {
        let declaration = r#"layers = [
            { op = "conv", channels = 3, stride = 2, name = "half" },
            { op = "residual", channels = 4, stride = 2 },
            { op = "upsample" },
            { op = "concat", with = "half" },
            { op = "conv", channels = 4 },
            { op = "max_pool" },
            { op = "bottleneck", channels = 6, reduced = 2 },
            { op = "inception", single = 2, triple = [1, 2], double_triple = [1, 2], pooled = 1 },
            { op = "locally_connected", channels = 3 },
            { op = "conv", channels = 4, normalise = false },
            { op = "global_average_pool" },
            { op = "batch_norm" },
            { op = "linear", outputs = 2 },
        ]"#;
        tch::manual_seed(3);
        let network = network(declaration, 2);
        let input = Tensor::randn([6, 3, 8, 8], (Kind::Float, Device::Cpu));
        let loss = || {
            let outputs = network.forward(&input, Mode::Train, Precision::Float32);
            outputs.output.square().sum(Kind::Float)
        };
        assert_gradients(&network, &loss);
    }

    #[test]
    fn a_standardised_input_is_the_same_in_any_light() {
        let mut random = ChaCha8Rng::seed_from_u64(6);
        let declaration = r#"layers = [
            { op = "standardise", mean = [0.1, -0.2, 0.3], deviation = [0.5, 1, 2], least_deviation = 1e-3 },
            { op = "conv", channels = 3 }]"#;
        let network = network(declaration, 2);
        let standardised = |input: &Tensor, precision| {
            let mut seen = None;
            network.forward_observed(input, Mode::Train, precision, &mut |node, x| {
                if node == 1 {
                    seen = Some(x.to_kind(Kind::Float));
                }
            });
            seen.expect("node 1 is the standardisation")
        };
        let input = normal(&[2, 3, 8, 8], &mut random);
        let plain = standardised(&input, Precision::Float32);
        for (channel, (mean, deviation)) in [(0.1, 0.5), (-0.2, 1.0), (0.3, 2.0)].iter().enumerate()
        {
            for image in 0..2 {
                let plane = plain.get(image).get(channel as i64);
                assert!((plane.mean(Kind::Double).double_value(&[]) - mean).abs() < 1e-4);
                assert!((plane.std(false).double_value(&[]) - deviation).abs() < 1e-3);
            }
        }
        let gains = Tensor::from_slice(&[0.3f32, 1.6, 0.8]).view([1, 3, 1, 1]);
        let light = &input * &gains + &gains * 0.7;
        let difference = |other: &Tensor| (&plain - other).abs().max().double_value(&[]);
        assert!(difference(&standardised(&light, Precision::Float32)) < 1e-4);
        assert!(difference(&standardised(&light, Precision::Bf16)) < 0.05);
        let flat = Tensor::full([1, 3, 8, 8], 0.4, (Kind::Float, Device::Cpu));
        let flat = standardised(&flat, Precision::Float32);
        assert!(tensor_is_finite(&flat) && flat.std(false).double_value(&[]) < 0.3);
    }

    #[test]
    fn layers_with_gradients_of_their_own_have_those_of_finite_differences() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for last in [
            r#"{ op = "conv", channels = 2, kernel = 1, plain = true }, { op = "soft_argmax" }"#,
            r#"{ op = "global_average_pool" }, { op = "batch_norm" },
               { op = "cosine", sub_centres = 2, scale = 8 }"#,
            r#"{ op = "inverted_residual", channels = 5, expansion = 2, kernel = 5 },
               { op = "global_average_pool" }, { op = "linear" }"#,
        ] {
            let declaration =
                format!("layers = [{{ op = \"conv\", channels = 5, stride = 2 }}, {last}]");
            let network = with_weights_of(smooth(&declaration, 4), &mut random);
            let input = normal(&[6, 3, 8, 8], &mut random);
            let output = || {
                let outputs = network.forward(&input, Mode::Train, Precision::Float32);
                outputs.output
            };
            // Near the output, so that a step changes much of the loss.
            let target = output().detach() * (normal(&[6, 4], &mut random) * 0.3 + 1.0);
            let loss = || (output() - &target).square().sum(Kind::Double);
            assert_gradients(&network, &loss);
        }
    }

    /// A network whose activations pass everything, so that no kink of theirs lies within a step; they are tested
    /// by themselves.
    fn smooth(declaration: &str, outputs: usize) -> Network {
        network_with_slope(declaration, 1.0, outputs)
    }

    /// Standard normal values from a generator of the test's own: libtorch's is shared by all tests that run.
    fn normal(shape: &[i64], random: &mut ChaCha8Rng) -> Tensor {
        let length = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = StandardNormal.sample_iter(random).take(length).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// The network with weights around those of [`Network::new`], drawn from `random`.
    fn with_weights_of(network: Network, random: &mut ChaCha8Rng) -> Network {
        tch::no_grad(|| {
            for parameter in network.parameters().values().filter(|p| p.requires_grad()) {
                let shape = parameter.size();
                let drawn = normal(&shape, random);
                let fan_in = shape[1..].iter().product::<i64>() as f64;
                let mut parameter = parameter.shallow_clone();
                parameter.copy_(&match shape.len() {
                    1 => &parameter + drawn * 0.3,
                    _ => drawn * (2.0 / fan_in).sqrt(),
                });
            }
        });
        network
    }

    /// A small step of each parameter's first value changes the loss by what the gradient says.
    fn assert_gradients(network: &Network, loss: &dyn Fn() -> Tensor) {
        loss().backward();
        for (name, parameter) in network.parameters() {
            if !parameter.requires_grad() {
                continue;
            }
            let gradient = parameter.grad().view([-1]).double_value(&[0]);
            let step = 1e-2;
            let moved = |by: f64| {
                tch::no_grad(|| {
                    let _ = parameter.view([-1]).narrow(0, 0, 1).g_add_scalar_(by);
                    loss().double_value(&[])
                })
            };
            let up = moved(step);
            let down = moved(-2.0 * step);
            moved(step);
            let quotient = (up - down) / (2.0 * step);
            let slack = 0.05 * gradient.abs().max(quotient.abs()).max(0.05);
            assert!(
                (gradient - quotient).abs() < slack,
                "{name}: gradient {gradient}, difference quotient {quotient}"
            );
        }
    }

    /// A spatial transformer that is told the true landmarks cuts what the flying program's head crop cuts.
    #[test]
    fn the_sampling_grid_is_the_head_crop_of_the_geometry() {
        let crop = HeadCrop {
            bonnet_x: 0.75,
            blowhead_x: 0.2,
            landmark_y: 0.4,
            aspect: 1.7,
        };
        // An image of 90 × 60 pixels that shows 120 × 60 in nature.
        let (width, height, aspect) = (90.0, 60.0, 2.0);
        let natural = Landmarks {
            bonnet: Point::new(80.0, 22.0),
            blowhead: Point::new(50.0, 41.0),
        };
        let (w, h) = (16, 12);
        let cut = crop.crop_from_frame(&natural, w, h).expect("they differ");
        let from_cut = cut.inverse().expect("a crop has an area");
        let (linear, constant) = sampling_grid(aspect, &crop, w as usize, h as usize);
        let landmarks = [natural.bonnet, natural.blowhead]
            .map(|p| [p.x / (height * aspect), p.y / height])
            .concat();
        for (i, c) in pixel_centres(w as usize, h as usize).chunks(2).enumerate() {
            let pixel = Point::new(
                f64::from(c[0]) * f64::from(w),
                f64::from(c[1]) * f64::from(h),
            );
            let expected = from_cut.apply(pixel);
            let expected = [expected.x / (height * aspect) * width, expected.y];
            let place = |axis: usize| {
                let at = 2 * i + axis;
                let moved = landmarks.iter().enumerate();
                let sum: f64 = moved
                    .map(|(k, l)| l * f64::from(linear[k * constant.len() + at]))
                    .sum();
                (sum + f64::from(constant[at]) + 1.0) / 2.0
            };
            assert!((place(0) * width - expected[0]).abs() < 1e-3);
            assert!((place(1) * height - expected[1]).abs() < 1e-3);
        }
    }
}
