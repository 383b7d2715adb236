//! Networks as ONNX messages.
//!
//! A [`Graph`] and its [`Weights`] become one `ModelProto` for inference: batch normalisation is folded
//! into the convolution before it, dropout is gone, the batch axis is open. An ensemble becomes one
//! model too: all members on one input, their pooled features side by side, standardised, and the
//! logistic regression on them; where asked for, the standardised and whitened features over their length as
//! well.
//!
//! The messages are the `prost` types of `tract-onnx`, generated from ONNX's own definition. The
//! operators are those of opset 17, which ONNX Runtime has had since 1.13 and the built-in engine reads.

use half::f16;
use prost::Message;
use serde::{Deserialize, Serialize};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use crate::graph::{Graph, Op, Shape};
use crate::network::{LEAST_LENGTH, pixel_centres, sampling_grid};
use crate::weights::{Tensor, Weights};

/// Version of the operator set.
const OPSET: i64 = 17;
/// Version of the file format; the one that came with [`OPSET`].
const IR_VERSION: i64 = 8;
/// Steps from 0 to the largest weight of [`Storage::Int8`].
const INT8_STEPS: f32 = 127.0;
/// Name of the open axis.
const BATCH: &str = "batch";

/// How weights of convolutions and fully connected layers lie in the file. Everything is computed in
/// `float32` either way; biases and standardisation are always `float32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// As they were trained.
    #[default]
    Float32,
    /// Rounded to half precision (relative error at most 2⁻¹¹), in half the space. Engines widen
    /// them once, when they load the file.
    Float16,
    /// Rounded to 255 steps between minus and plus the largest weight of their output channel or output (the
    /// first axis), in a quarter of the space. Engines widen them.
    Int8,
}

/// Names of what goes in and out.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// The input, `batch × 3 × height × width`.
    pub input: &'a str,
    /// The output of the last layer.
    pub output: &'a str,
    /// Where given, a second output: of one network the pooled features ([`Graph::features`]), of an
    /// ensemble the [embedding](recognition::bundle::Embedding).
    pub features: Option<&'a str>,
}

/// The last layer of an ensemble, `weight · (features − mean) / std + bias`, and the way to its embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Mean of each feature, in the order of the members.
    pub mean: Vec<f32>,
    /// Standard deviation of each feature; above 0.
    pub std: Vec<f32>,
    /// What standardised features are multiplied with before they are an embedding: `features × features`,
    /// symmetric, row by row ([`whitening`](crate::whitening)). Where absent they are one as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whitening: Option<Vec<f32>>,
    /// `individuals × features`, row by row.
    pub weight: Vec<f32>,
    /// One for each individual.
    pub bias: Vec<f32>,
}

/// Why a network cannot be exported.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error("{name} holds {value}, which half precision cannot; store the weights as float32")]
    HalfRange { name: String, value: f32 },
    #[error("{name} holds {value}, which is no finite number")]
    NotFinite { name: String, value: f32 },
    #[error("the network has no pooled features: it needs a linear layer at its end")]
    NoFeatures,
    #[error("an ensemble needs at least one classifier")]
    NoMembers,
    #[error(
        "member {member} takes input of {found:?} (width, height), the first member {wanted:?}; all \
         must be trained at one size"
    )]
    InputSize {
        member: usize,
        found: (usize, usize),
        wanted: (usize, usize),
    },
    #[error(
        "the logistic regression has {what} of {found} values, the members' features ask for {wanted}"
    )]
    Head {
        what: &'static str,
        found: usize,
        wanted: usize,
    },
}

/// One network as an ONNX model.
pub fn export(
    graph: &Graph,
    weights: &Weights,
    interface: &Interface<'_>,
    storage: Storage,
) -> Result<ModelProto, ExportError> {
    let mut emit = Emitter::new(storage);
    let features = match interface.features {
        Some(name) => Some((graph.features().ok_or(ExportError::NoFeatures)?, name)),
        None => None,
    };
    let last = graph.nodes.len() - 1;
    let values = emit.network("", graph, weights, interface.input, last)?;
    emit.identity(&values[last], interface.output);
    let mut outputs = vec![value(interface.output, graph.output().shape)];
    if let Some((node, name)) = features {
        emit.identity(&values[node], name);
        outputs.push(value(name, graph.nodes[node].shape));
    }
    Ok(emit.model(value(interface.input, graph.nodes[0].shape), outputs))
}

/// All classifiers and the logistic regression on their pooled features as one ONNX model. The
/// classifiers' own last layers are left out.
pub fn ensemble(
    members: &[(&Graph, &Weights)],
    head: &Head,
    interface: &Interface<'_>,
    storage: Storage,
) -> Result<ModelProto, ExportError> {
    let input = members.first().ok_or(ExportError::NoMembers)?.0.nodes[0].shape;
    let mut emit = Emitter::new(storage);
    let mut pooled = Vec::new();
    let mut width = 0;
    for (index, (graph, weights)) in members.iter().enumerate() {
        let shape = graph.nodes[0].shape;
        if shape != input {
            return Err(ExportError::InputSize {
                member: index + 1,
                found: (shape.width, shape.height),
                wanted: (input.width, input.height),
            });
        }
        let features = graph.features().ok_or(ExportError::NoFeatures)?;
        width += graph.nodes[features].shape.channels;
        let prefix = format!("m{}/", index + 1);
        let mut values = emit.network(&prefix, graph, weights, interface.input, features)?;
        pooled.push(values.swap_remove(features));
    }
    let individuals = head.bias.len();
    let sizes = [
        ("a mean", head.mean.len(), width),
        ("a standard deviation", head.std.len(), width),
        ("weights", head.weight.len(), individuals * width),
        (
            "a whitening",
            head.whitening.as_ref().map_or(width * width, Vec::len),
            width * width,
        ),
    ];
    if let Some(&(what, found, wanted)) = sizes.iter().find(|(_, found, wanted)| found != wanted) {
        return Err(ExportError::Head {
            what,
            found,
            wanted,
        });
    }
    let joined = "joined";
    emit.node("Concat", joined, &strings(&pooled), &[int("axis", 1)]);
    let inverse: Vec<f32> = head.std.iter().map(|s| 1.0 / s).collect();
    let mean = emit.tensor(
        "standardise.mean",
        &[1, width],
        &head.mean,
        Storage::Float32,
    )?;
    let scale = emit.tensor("standardise.scale", &[1, width], &inverse, Storage::Float32)?;
    emit.node("Sub", "centred", &[joined, &mean], &[]);
    emit.node("Mul", "standardised", &["centred", &scale], &[]);
    let weight = emit.tensor("stack.weight", &[individuals, width], &head.weight, storage)?;
    let bias = emit.tensor("stack.bias", &[individuals], &head.bias, Storage::Float32)?;
    let inputs = ["standardised", &weight, &bias];
    emit.node("Gemm", interface.output, &inputs, &[int("transB", 1)]);
    if let Some(embedding) = interface.features {
        let whitened = match &head.whitening {
            None => "standardised",
            Some(whitening) => {
                let matrix = emit.tensor("whiten.weight", &[width, width], whitening, storage)?;
                emit.node("MatMul", "whitened", &["standardised", &matrix], &[]);
                "whitened"
            }
        };
        emit.unit(embedding, whitened)?;
    }

    let vector = |channels| Shape {
        channels,
        height: 1,
        width: 1,
        flat: true,
    };
    let mut outputs = vec![value(interface.output, vector(individuals))];
    if let Some(embedding) = interface.features {
        outputs.push(value(embedding, vector(width)));
    }
    Ok(emit.model(value(interface.input, input), outputs))
}

/// The bytes of an ONNX file.
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// Convolution and the batch normalisation after it as one convolution: each output channel's kernel
/// scaled by `γ / √(σ² + ε)`, and the bias that remains.
fn fold(weights: &Weights, conv: &str, norm: &str, eps: f64) -> (Vec<f32>, Vec<f32>) {
    let kernel = weights.get(&format!("{conv}.weight"));
    let of = |kind: &str| &weights.get(&format!("{norm}.{kind}")).values;
    let (gamma, beta) = (of("weight"), of("bias"));
    let (mean, variance) = (of("running_mean"), of("running_var"));
    let channels = gamma.len();
    let each = kernel.values.len() / channels;
    let mut folded = Vec::with_capacity(kernel.values.len());
    let mut bias = Vec::with_capacity(channels);
    // In float64, so that folding adds no rounding of its own.
    for c in 0..channels {
        let scale = f64::from(gamma[c]) / (f64::from(variance[c]) + eps).sqrt();
        let kernel = &kernel.values[c * each..(c + 1) * each];
        folded.extend(kernel.iter().map(|&w| (f64::from(w) * scale) as f32));
        bias.push((f64::from(beta[c]) - f64::from(mean[c]) * scale) as f32);
    }
    (folded, bias)
}

struct Emitter {
    graph: GraphProto,
    storage: Storage,
}

impl Emitter {
    fn new(storage: Storage) -> Self {
        Self {
            graph: GraphProto {
                name: "callosity".to_owned(),
                ..Default::default()
            },
            storage,
        }
    }

    /// Emits the nodes of `graph` up to and including `last`; returns the names of all values so far.
    fn network(
        &mut self,
        prefix: &str,
        graph: &Graph,
        weights: &Weights,
        input: &str,
        last: usize,
    ) -> Result<Vec<String>, ExportError> {
        let mut users = vec![0; graph.nodes.len()];
        for node in &graph.nodes {
            node.inputs.iter().for_each(|&i| users[i] += 1);
        }
        // A convolution that only a batch normalisation reads is emitted with it.
        let folded = |index: usize| -> Option<usize> {
            let node = &graph.nodes[index];
            let conv = *node.inputs.first()?;
            let plain = matches!(graph.nodes[conv].op, Op::Conv { bias: false, .. });
            (matches!(node.op, Op::BatchNorm { .. }) && plain && users[conv] == 1).then_some(conv)
        };
        let absorbed: Vec<usize> = (0..=last).filter_map(folded).collect();

        let mut values: Vec<String> = Vec::with_capacity(last + 1);
        for (index, node) in graph.nodes[..=last].iter().enumerate() {
            let name = format!("{prefix}{}", node.name);
            let inputs: Vec<String> = node.inputs.iter().map(|&i| values[i].clone()).collect();
            let inputs = strings(&inputs);
            let parameter = |kind: &str| weights.get(&format!("{}.{kind}", node.name));
            match node.op {
                Op::Input => {
                    values.push(input.to_owned());
                    continue;
                }
                Op::Standardise {
                    mean,
                    deviation,
                    least_deviation,
                } => {
                    let mut all = vec![inputs[0].to_owned()];
                    for (kind, values) in [("deviation", deviation), ("mean", mean)] {
                        let full = format!("{name}.{kind}");
                        all.push(self.tensor(&full, &[3], &values, Storage::Float32)?);
                    }
                    let least = float("epsilon", least_deviation * least_deviation);
                    self.node("InstanceNormalization", &name, &strings(&all), &[least]);
                }
                // Dropout does nothing at inference.
                Op::Dropout { .. } => {
                    values.push(inputs[0].to_owned());
                    continue;
                }
                Op::Conv { .. } if absorbed.contains(&index) => {
                    // Stands in for its own result, which nobody but the normalisation reads.
                    values.push(inputs[0].to_owned());
                    continue;
                }
                Op::Conv { bias, .. } => {
                    let kernel = &parameter("weight").values;
                    let bias = bias.then(|| parameter("bias").values.as_slice());
                    self.conv(&name, inputs[0], graph, index, kernel, bias)?;
                }
                Op::BatchNorm { eps } => match folded(index) {
                    Some(conv) => {
                        let conv_name = &graph.nodes[conv].name;
                        let (kernel, bias) = fold(weights, conv_name, &node.name, eps);
                        self.conv(&name, inputs[0], graph, conv, &kernel, Some(&bias))?;
                    }
                    None => {
                        let mut all = vec![inputs[0].to_owned()];
                        for kind in ["weight", "bias", "running_mean", "running_var"] {
                            let full = format!("{name}.{kind}");
                            let values = &parameter(kind).values;
                            let size = [values.len()];
                            all.push(self.tensor(&full, &size, values, Storage::Float32)?);
                        }
                        let eps = float("epsilon", eps as f32);
                        self.node("BatchNormalization", &name, &strings(&all), &[eps]);
                    }
                },
                Op::LeakyRelu { slope } => {
                    self.node("LeakyRelu", &name, &inputs, &[float("alpha", slope as f32)]);
                }
                Op::LocallyConnected { kernel } => {
                    let weight = &parameter("weight").values;
                    self.locally_connected(&name, inputs[0], graph, index, kernel, weight)?;
                }
                Op::AveragePool { size } => {
                    let attributes = [
                        ints("kernel_shape", &[size as i64; 2]),
                        ints("strides", &[1; 2]),
                        ints("pads", &[(size / 2) as i64; 4]),
                        int("count_include_pad", 0),
                    ];
                    self.node("AveragePool", &name, &inputs, &attributes);
                }
                Op::Add => self.node("Add", &name, &inputs, &[]),
                Op::Concat => self.node("Concat", &name, &inputs, &[int("axis", 1)]),
                Op::MaxPool { size } => {
                    let size = [size as i64; 2];
                    let attributes = [ints("kernel_shape", &size), ints("strides", &size)];
                    self.node("MaxPool", &name, &inputs, &attributes);
                }
                Op::Upsample { factor } => {
                    let factor = factor as f32;
                    let scales = [1.0, 1.0, factor, factor];
                    let full = format!("{name}.scales");
                    let scales = self.tensor(&full, &[4], &scales, Storage::Float32)?;
                    // Output position over factor, rounded down: every value is repeated.
                    let attributes = [
                        string("mode", "nearest"),
                        string("coordinate_transformation_mode", "asymmetric"),
                        string("nearest_mode", "floor"),
                    ];
                    self.node("Resize", &name, &[inputs[0], "", &scales], &attributes);
                }
                Op::GlobalAveragePool => {
                    let map = format!("{name}/map");
                    self.node("GlobalAveragePool", &map, &inputs, &[]);
                    self.node("Flatten", &name, &[&map], &[int("axis", 1)]);
                }
                Op::Linear => {
                    let (weight, bias) = (parameter("weight"), parameter("bias"));
                    let shape: Vec<usize> = weight.shape.iter().map(|&d| d as usize).collect();
                    let full = format!("{name}.weight");
                    let weight = self.tensor(&full, &shape, &weight.values, self.storage)?;
                    let full = format!("{name}.bias");
                    let size = [bias.values.len()];
                    let bias = self.tensor(&full, &size, &bias.values, Storage::Float32)?;
                    let inputs = [inputs[0], &weight, &bias];
                    self.node("Gemm", &name, &inputs, &[int("transB", 1)]);
                }
                Op::Cosine { sub_centres, scale } => {
                    let weight = parameter("weight");
                    self.cosine(
                        &name,
                        inputs[0],
                        node.shape.channels,
                        sub_centres,
                        scale,
                        weight,
                    )?;
                }
                Op::SoftArgmax => {
                    let shape = graph.nodes[node.inputs[0]].shape;
                    self.soft_argmax(&name, inputs[0], shape)?;
                }
                Op::HeadSampler { aspect, head_crop } => {
                    let s = node.shape;
                    let (linear, constant) = sampling_grid(aspect, &head_crop, s.width, s.height);
                    let linear = self.tensor(
                        &format!("{name}.linear"),
                        &[4, constant.len()],
                        &linear,
                        Storage::Float32,
                    )?;
                    let constant = self.tensor(
                        &format!("{name}.constant"),
                        &[constant.len()],
                        &constant,
                        Storage::Float32,
                    )?;
                    let (moved, flat) = (format!("{name}/moved"), format!("{name}/flat"));
                    self.node("MatMul", &moved, &[inputs[1], &linear], &[]);
                    self.node("Add", &flat, &[&moved, &constant], &[]);
                    let size = [0, s.height as i64, s.width as i64, 2];
                    let size = self.integers(&format!("{name}.size"), &size);
                    let grid = format!("{name}/grid");
                    self.node("Reshape", &grid, &[&flat, &size], &[]);
                    let attributes = [
                        string("mode", "bilinear"),
                        string("padding_mode", "zeros"),
                        int("align_corners", 0),
                    ];
                    self.node("GridSample", &name, &[inputs[0], &grid], &attributes);
                }
            }
            values.push(name);
        }
        Ok(values)
    }

    /// A convolution named `name` with the geometry of node `index`.
    fn conv(
        &mut self,
        name: &str,
        input: &str,
        graph: &Graph,
        index: usize,
        kernel_values: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<(), ExportError> {
        let node = &graph.nodes[index];
        let Op::Conv {
            kernel,
            stride,
            depthwise,
            ..
        } = node.op
        else {
            unreachable!("only convolutions are emitted as such");
        };
        let channels = node.shape.channels;
        let shape = [channels, graph.inputs_of_channel(node), kernel, kernel];
        let full = format!("{name}.weight");
        let readers = graph.nodes.iter().flat_map(|n| &n.inputs);
        let alone = readers.filter(|&&i| i == node.inputs[0]).count() == 1;
        let mut inputs = vec![input.to_owned()];
        let mut stride = stride;
        if kernel == 1 && stride > 1 && alone {
            // The built-in engine (tract 0.23) moves the step of such a convolution up to where the map
            // has another reader, and fails ("Invalid axis") where it meets a 1 × 1 convolution without
            // a step on its way. Windows of one pixel make the same step and stay where they are.
            let stepped = format!("{name}/step");
            let step = [
                ints("kernel_shape", &[1; 2]),
                ints("strides", &[stride as i64; 2]),
            ];
            self.node("MaxPool", &stepped, &[input], &step);
            inputs = vec![stepped];
            stride = 1;
        }
        inputs.push(self.tensor(&full, &shape, kernel_values, self.storage)?);
        if let Some(bias) = bias {
            let full = format!("{name}.bias");
            inputs.push(self.tensor(&full, &[channels], bias, Storage::Float32)?);
        }
        let attributes = [
            ints("kernel_shape", &[kernel as i64; 2]),
            ints("strides", &[stride as i64; 2]),
            ints("pads", &[(kernel / 2) as i64; 4]),
            int("group", if depthwise { channels as i64 } else { 1 }),
        ];
        self.node("Conv", name, &strings(&inputs), &attributes);
        Ok(())
    }

    /// ONNX has no locally connected layer: a convolution that copies each place's window into channels,
    /// and one matrix for each place.
    fn locally_connected(
        &mut self,
        name: &str,
        input: &str,
        graph: &Graph,
        index: usize,
        kernel: usize,
        weight: &[f32],
    ) -> Result<(), ExportError> {
        let node = &graph.nodes[index];
        let (s, channels) = (node.shape, graph.nodes[node.inputs[0]].shape.channels);
        let (window, places) = (channels * kernel * kernel, s.height * s.width);
        let mut copies = vec![0.0; window * window];
        copies.iter_mut().step_by(window + 1).for_each(|v| *v = 1.0);
        let shape = [window, channels, kernel, kernel];
        let copies = self.tensor(&format!("{name}.copies"), &shape, &copies, Storage::Float32)?;
        let windows = format!("{name}/windows");
        let attributes = [
            ints("kernel_shape", &[kernel as i64; 2]),
            ints("pads", &[(kernel / 2) as i64; 4]),
        ];
        self.node("Conv", &windows, &[input, &copies], &attributes);
        let rows = format!("{name}/rows");
        let size = self.integers(&format!("{name}.rows"), &[0, window as i64, places as i64]);
        self.node("Reshape", &rows, &[&windows, &size], &[]);
        let by_place = format!("{name}/by_place");
        self.node(
            "Transpose",
            &by_place,
            &[&rows],
            &[ints("perm", &[2, 0, 1])],
        );
        // places × out × window, as places × window × out
        let out = s.channels;
        let turned: Vec<f32> = (0..places * window * out)
            .map(|i| {
                let (place, k, o) = (i / (window * out), i / out % window, i % out);
                weight[(place * out + o) * window + k]
            })
            .collect();
        let full = format!("{name}.weight");
        let weight = self.tensor(&full, &[places, window, out], &turned, self.storage)?;
        let local = format!("{name}/local");
        self.node("MatMul", &local, &[&by_place, &weight], &[]);
        let back = format!("{name}/back");
        self.node("Transpose", &back, &[&local], &[ints("perm", &[1, 2, 0])]);
        let map = [0, out as i64, s.height as i64, s.width as i64];
        let size = self.integers(&format!("{name}.map"), &map);
        self.node("Reshape", name, &[&back, &size], &[]);
        Ok(())
    }

    /// Features over their length; those all of which are 0 stay 0. By operators that ONNX Runtime has on
    /// every processor: it normalises vectors on the CPU alone.
    fn unit(&mut self, name: &str, input: &str) -> Result<(), ExportError> {
        let least = self.tensor(
            &format!("{name}.least"),
            &[1, 1],
            &[LEAST_LENGTH as f32],
            Storage::Float32,
        )?;
        let (length, divisor) = (format!("{name}/length"), format!("{name}/divisor"));
        let axis = [ints("axes", &[1]), int("keepdims", 1)];
        self.node("ReduceL2", &length, &[input], &axis);
        self.node("Max", &divisor, &[&length, &least], &[]);
        self.node("Div", name, &[input, &divisor], &[]);
        Ok(())
    }

    /// `scale ·` the largest cosine between features and an output's centres.
    fn cosine(
        &mut self,
        name: &str,
        input: &str,
        outputs: usize,
        sub_centres: usize,
        scale: f64,
        weight: &Tensor,
    ) -> Result<(), ExportError> {
        let width = weight.shape[1] as usize;
        // Unit centres times the scale: the division is done once, here.
        let mut centres = Vec::with_capacity(weight.values.len());
        for row in weight.values.chunks_exact(width) {
            let length = row
                .iter()
                .map(|&v| f64::from(v).powi(2))
                .sum::<f64>()
                .sqrt();
            let factor = scale / length.max(LEAST_LENGTH);
            centres.extend(row.iter().map(|&v| (f64::from(v) * factor) as f32));
        }
        let full = format!("{name}.weight");
        let centres = self.tensor(
            &full,
            &[outputs * sub_centres, width],
            &centres,
            self.storage,
        )?;
        let bias = vec![0.0; outputs * sub_centres];
        let full = format!("{name}.bias");
        let bias = self.tensor(&full, &[bias.len()], &bias, Storage::Float32)?;
        let direction = format!("{name}/unit");
        self.unit(&direction, input)?;
        let each = format!("{name}/each");
        let inputs = [direction.as_str(), &centres, &bias];
        self.node("Gemm", &each, &inputs, &[int("transB", 1)]);
        let size = [0, outputs as i64, sub_centres as i64];
        let size = self.integers(&format!("{name}.size"), &size);
        let grouped = format!("{name}/grouped");
        self.node("Reshape", &grouped, &[&each, &size], &[]);
        let attributes = [ints("axes", &[2]), int("keepdims", 0)];
        self.node("ReduceMax", name, &[&grouped], &attributes);
        Ok(())
    }

    fn soft_argmax(&mut self, name: &str, input: &str, map: Shape) -> Result<(), ExportError> {
        let places = map.width * map.height;
        let flat = [0, map.channels as i64, places as i64];
        let flat = self.integers(&format!("{name}.flat"), &flat);
        let (rows, share) = (format!("{name}/rows"), format!("{name}/share"));
        self.node("Reshape", &rows, &[input, &flat], &[]);
        self.node("Softmax", &share, &[&rows], &[int("axis", -1)]);
        let centres = pixel_centres(map.width, map.height);
        let full = format!("{name}.centres");
        let centres = self.tensor(&full, &[places, 2], &centres, Storage::Float32)?;
        let each = format!("{name}/each");
        self.node("MatMul", &each, &[&share, &centres], &[]);
        self.node("Flatten", name, &[&each], &[int("axis", 1)]);
        Ok(())
    }

    /// Stores whole numbers, such as a shape, under a name.
    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
        name.to_owned()
    }

    /// Stores a constant and returns the name under which nodes read it as `float32`.
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
        storage: Storage,
    ) -> Result<String, ExportError> {
        let named = |value| (name.to_owned(), value);
        if let Some(&value) = values.iter().find(|v| !v.is_finite()) {
            let (name, value) = named(value);
            return Err(ExportError::NotFinite { name, value });
        }
        let mut proto = TensorProto {
            name: match storage {
                Storage::Float32 => name.to_owned(),
                Storage::Float16 => format!("{name}.half"),
                Storage::Int8 => format!("{name}.int8"),
            },
            dims: shape.iter().map(|&d| d as i64).collect(),
            ..Default::default()
        };
        match storage {
            Storage::Float32 => {
                proto.data_type = DataType::Float as i32;
                proto.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            }
            Storage::Float16 => {
                proto.data_type = DataType::Float16 as i32;
                proto.raw_data.reserve(values.len() * 2);
                for &value in values {
                    let half = f16::from_f32(value);
                    if half.is_infinite() {
                        let (name, value) = named(value);
                        return Err(ExportError::HalfRange { name, value });
                    }
                    proto.raw_data.extend(half.to_le_bytes());
                }
                let wide = int("to", DataType::Float as i64);
                self.node("Cast", name, &[&proto.name], &[wide]);
            }
            Storage::Int8 => {
                let rows = shape.first().copied().unwrap_or(1);
                let by_row = || values.chunks((values.len() / rows.max(1)).max(1));
                let scales: Vec<f32> = by_row()
                    .map(|row| row.iter().fold(0.0_f32, |most, v| most.max(v.abs())) / INT8_STEPS)
                    // A row of zeros has no scale; any will do.
                    .map(|scale| if scale > 0.0 { scale } else { 1.0 })
                    .collect();
                proto.data_type = DataType::Int8 as i32;
                let scaled = by_row()
                    .zip(&scales)
                    .flat_map(|(row, scale)| row.iter().map(move |v| (v / scale).round() as i8));
                proto.raw_data = scaled.flat_map(i8::to_le_bytes).collect();
                let (scale, zero) = (format!("{name}.scale"), format!("{name}.zero"));
                let scale = self.tensor(&scale, &[rows], &scales, Storage::Float32)?;
                self.graph.initializer.push(TensorProto {
                    name: zero.clone(),
                    dims: vec![rows as i64],
                    data_type: DataType::Int8 as i32,
                    raw_data: vec![0; rows],
                    ..Default::default()
                });
                let inputs = [proto.name.as_str(), &scale, &zero];
                self.node("DequantizeLinear", name, &inputs, &[int("axis", 0)]);
            }
        }
        self.graph.initializer.push(proto);
        Ok(name.to_owned())
    }

    /// Gives a value another name.
    fn identity(&mut self, value: &str, name: &str) {
        self.node("Identity", name, &[value], &[]);
    }

    /// A node with one output, which has the node's name.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[AttributeProto]) {
        self.graph.node.push(NodeProto {
            name: name.to_owned(),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![name.to_owned()],
            attribute: attributes.to_vec(),
            ..Default::default()
        });
    }

    fn model(mut self, input: ValueInfoProto, outputs: Vec<ValueInfoProto>) -> ModelProto {
        self.graph.input = vec![input];
        self.graph.output = outputs;
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            metadata_props: vec![StringStringEntryProto {
                key: "batch_normalisation".to_owned(),
                value: "folded".to_owned(),
            }],
            ..Default::default()
        }
    }
}

/// A named `float32` input or output with an open batch axis.
fn value(name: &str, shape: Shape) -> ValueInfoProto {
    let fixed = |size: usize| dimension::Value::DimValue(size as i64);
    let mut sizes = vec![
        dimension::Value::DimParam(BATCH.to_owned()),
        fixed(shape.channels),
    ];
    if !shape.flat {
        sizes.extend([fixed(shape.height), fixed(shape.width)]);
    }
    let dim = sizes
        .into_iter()
        .map(|value| Dimension {
            value: Some(value),
            ..Default::default()
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn strings(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: kind as i32,
        ..Default::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        i,
        ..attribute(name, AttributeType::Int)
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: values.to_vec(),
        ..attribute(name, AttributeType::Ints)
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        f,
        ..attribute(name, AttributeType::Float)
    }
}

fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        s: s.as_bytes().to_vec(),
        ..attribute(name, AttributeType::String)
    }
}
