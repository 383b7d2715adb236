//! Layer graphs: the one declaration of a network, from which the libtorch module, the ONNX file, the
//! parameter count and the multiply-adds all follow.
//!
//! A recipe declares layers in a compact form ([`Layer`]: a convolution with its normalisation, a
//! residual stage…). [`Graph::build`] expands them into primitive [`Node`]s with checked shapes. All
//! feature maps are `channels × height × width`; padding of a convolution is `kernel / 2`, so stride 1
//! keeps the size and stride 2 gives the half, rounded up.

use recognition::geometry::HeadCrop;
use serde::{Deserialize, Serialize};

/// A layer as a recipe declares it. Each takes the output of the layer before it, unless `from` names
/// another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// Moves each channel of each image to one mean and deviation (an instance normalisation, Ulyanov et al. 2016,
    /// without anything learnt), so that exposure, white balance and haze, which scale and shift channels, change
    /// nothing that later layers see. As a first layer only. Later layers are numbered as if it were not there: the
    /// weights of a network without it fit.
    Standardise {
        /// Mean that each channel is given, in the input's normalised units.
        #[serde(default)]
        mean: [f32; 3],
        /// Standard deviation that each channel is given, in the input's normalised units.
        #[serde(default = "ones")]
        deviation: [f32; 3],
        /// Contrast, in the input's normalised units, below which a channel counts as flat: it is enlarged by no more
        /// than `deviation` over this, so that calm water does not become noise. Above 0.
        #[serde(default = "flat")]
        least_deviation: f32,
    },
    /// Convolution, batch normalisation, leaky ReLU; `repeat` of them, the first with the stride.
    Conv {
        /// Output channels.
        channels: usize,
        /// Side of the square kernel; odd.
        #[serde(default = "three")]
        kernel: usize,
        /// Step in both directions.
        #[serde(default = "one")]
        stride: usize,
        /// How many in a row.
        #[serde(default = "one")]
        repeat: usize,
        /// Without normalisation and activation, with a bias: an output layer.
        #[serde(default)]
        plain: bool,
        /// Whether batch normalisation stands between convolution and activation; a bias where not, as in
        /// VGG (Simonyan & Zisserman 2015).
        #[serde(default = "yes")]
        normalise: bool,
        /// Name under which `concat` finds the result.
        name: Option<String>,
    },
    /// Residual blocks of two 3 × 3 convolutions (He et al. 2016); the first with the stride, and with a
    /// 1 × 1 convolution in the shortcut where shapes differ.
    Residual {
        /// Output channels.
        channels: usize,
        /// Step of the first block.
        #[serde(default = "one")]
        stride: usize,
        /// Blocks.
        #[serde(default = "one")]
        repeat: usize,
        /// Name under which `concat` finds the result.
        name: Option<String>,
    },
    /// Residual blocks that do their 3 × 3 convolution on fewer channels, between two of 1 × 1 (He et al.
    /// 2016, the blocks of their 50-layer network); the first with the stride.
    Bottleneck {
        /// Output channels.
        channels: usize,
        /// Channels of the 3 × 3 convolution.
        reduced: usize,
        /// Step of the first block.
        #[serde(default = "one")]
        stride: usize,
        /// Blocks.
        #[serde(default = "one")]
        repeat: usize,
        /// Name under which `concat` finds the result.
        name: Option<String>,
    },
    /// Blocks that widen their input, convolve each channel of it by itself and narrow it again, without an
    /// activation after that; where shapes allow, the input is added (Sandler et al. 2018, "MobileNetV2"; with
    /// other kernels and strides EfficientNet-Lite, after Tan & Le 2019). The first with the stride.
    InvertedResidual {
        /// Output channels.
        channels: usize,
        /// By how much the input is widened; at 1 it is not.
        expansion: usize,
        /// Side of the square kernel of the middle convolution; odd.
        #[serde(default = "three")]
        kernel: usize,
        /// Step of the first block.
        #[serde(default = "one")]
        stride: usize,
        /// Blocks.
        #[serde(default = "one")]
        repeat: usize,
    },
    /// Four views of a map side by side, as in Inception v3 (Szegedy et al. 2016, figure 5): 1 × 1, 3 × 3,
    /// two of 3 × 3, and the mean of each pixel's neighbourhood. All convolutions are normalised.
    Inception {
        /// Channels of the 1 × 1 convolution.
        single: usize,
        /// Channels before and after the 3 × 3 convolution.
        triple: [usize; 2],
        /// Channels before and after two 3 × 3 convolutions.
        double_triple: [usize; 2],
        /// Channels of a 1 × 1 convolution after the mean.
        pooled: usize,
        /// How many in a row.
        #[serde(default = "one")]
        repeat: usize,
    },
    /// Convolution whose kernel is another one at each place (Taigman et al. 2014, "DeepFace"), for maps
    /// that are aligned; then batch normalisation and leaky ReLU.
    LocallyConnected {
        /// Output channels.
        channels: usize,
        /// Side of the square kernels; odd.
        #[serde(default = "three")]
        kernel: usize,
    },
    /// Largest value in each window of `size × size`, step `size`.
    MaxPool {
        /// Side of the window.
        #[serde(default = "two")]
        size: usize,
    },
    /// Each value repeated `factor × factor` times.
    Upsample {
        /// Growth of width and height.
        #[serde(default = "two")]
        factor: usize,
    },
    /// Appends the channels of a named earlier layer of the same size.
    Concat {
        /// Its name.
        with: String,
    },
    /// Mean over the whole map: `channels` features.
    GlobalAveragePool {},
    /// Batch normalisation of pooled features (the "neck" of Luo et al. 2019, "Bag of tricks and a
    /// strong baseline for deep person re-identification"): a well-conditioned start for the last layer.
    BatchNorm {},
    /// In training sets features to zero with probability `p`.
    Dropout {
        /// Probability, 0…1.
        p: f64,
    },
    /// Fully connected.
    Linear {
        /// Number of outputs; a classifier's last layer leaves it out and gets one for each individual.
        outputs: Option<usize>,
    },
    /// A classifier's last layer that compares directions: `scale ·` the cosine between the features and an
    /// individual's nearest centre (Deng et al. 2019, "ArcFace"; with several centres Deng et al. 2020,
    /// "Sub-center ArcFace").
    Cosine {
        /// Centres of an individual.
        #[serde(default = "one")]
        sub_centres: usize,
        /// Logit at cosine 1; above 0.
        scale: f64,
    },
    /// The expected place of each channel's softmax over the map, as fractions of its width and height: x
    /// and y of channel 1, then of channel 2… (Nibali et al. 2018, "Numerical coordinate regression with
    /// convolutional neural networks"). An aligner with heat maps of bonnet and blowhead ends in it.
    SoftArgmax {},
    /// A spatial transformer (Jaderberg et al. 2015): layers of their own say where bonnet and blowhead lie
    /// in the image, and what follows sees the head crop around them. As a first layer only.
    SpatialTransformer {
        /// The layers that find the landmarks, an aligner's: four outputs, bonnet x, bonnet y, blowhead x,
        /// blowhead y, as fractions of the image.
        localisation: Vec<Layer>,
        /// Width to height of the image in nature.
        aspect: f64,
        /// The rectangle around the landmarks that is cut out.
        head_crop: HeadCrop,
        /// Pixels across the cut.
        width: usize,
        /// Pixels down.
        height: usize,
    },
}

/// How many layers at the start have no number in the names of nodes: those that standardise the input.
pub(crate) fn unnumbered(layers: &[Layer]) -> usize {
    usize::from(matches!(layers.first(), Some(Layer::Standardise { .. })))
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}
fn flat() -> f32 {
    0.05
}
fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn three() -> usize {
    3
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The network's input.
    Input,
    /// Each channel of each image over its own mean and deviation:
    /// `(x − μ) / √(σ² + least_deviation²) · deviation + mean`.
    Standardise {
        /// Mean that each channel is given.
        mean: [f32; 3],
        /// Deviation that each channel is given.
        deviation: [f32; 3],
        /// Deviation below which a channel counts as flat; above 0.
        least_deviation: f32,
    },
    /// Convolution with padding `kernel / 2`.
    Conv {
        /// Side of the kernel.
        kernel: usize,
        /// Step.
        stride: usize,
        /// Whether it has a bias (it has none where batch normalisation follows).
        bias: bool,
        /// Whether each output channel sees only the input channel of its own number.
        depthwise: bool,
    },
    /// Convolution with a kernel for each place, step 1, padding `kernel / 2`, no bias.
    LocallyConnected {
        /// Side of the kernels.
        kernel: usize,
    },
    /// Mean over the window around each pixel, as far as it lies in the map; step 1.
    AveragePool {
        /// Side of the window; odd.
        size: usize,
    },
    /// Batch normalisation over each channel.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `max(x, slope · x)`.
    LeakyRelu {
        /// Slope below zero, 0…1.
        slope: f64,
    },
    /// Sum of two inputs.
    Add,
    /// The channels of two inputs, one after the other.
    Concat,
    /// Largest value in each window.
    MaxPool {
        /// Side and step.
        size: usize,
    },
    /// Nearest-neighbour enlargement.
    Upsample {
        /// Factor.
        factor: usize,
    },
    /// Mean over height and width.
    GlobalAveragePool,
    /// Dropout; nothing at inference.
    Dropout {
        /// Probability.
        p: f64,
    },
    /// Fully connected, with bias.
    Linear,
    /// `scale ·` the largest cosine to one of an output's centres.
    Cosine {
        /// Centres of an output.
        sub_centres: usize,
        /// Value at cosine 1.
        scale: f64,
    },
    /// Softmax over each channel's map and the expected x and y, in fractions of the map.
    SoftArgmax,
    /// Bilinear samples of the first input, an image, in the head crop around the landmarks that the second
    /// says; zero outside the image.
    HeadSampler {
        /// Width to height of the image in nature.
        aspect: f64,
        /// The rectangle around the landmarks.
        head_crop: HeadCrop,
    },
}

/// Added to the variance in batch normalisation, but for [`Layer::InvertedResidual`].
pub const BATCH_NORM_EPS: f64 = 1e-5;
/// The same in inverted residual blocks: many of their channels vary little, and weights that were trained
/// elsewhere were trained with this.
pub const INVERTED_RESIDUAL_EPS: f64 = 1e-3;

/// Shape of one sample's feature map, or of a feature vector (`height = width = 1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Shape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// Whether it is a vector of `channels` values rather than a map.
    pub flat: bool,
}

/// One primitive operation. Its parameters, where it has any, are named `<name>.weight` and
/// `<name>.bias`, and for batch normalisation `<name>.running_mean` and `<name>.running_var` too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Unique in the graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Indices of earlier nodes.
    pub inputs: Vec<usize>,
    /// Shape of its output.
    pub shape: Shape,
}

/// A checked network: nodes in an order in which each comes after its inputs; the last is the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The nodes; node 0 is the input.
    pub nodes: Vec<Node>,
}

/// Why a declaration is no network.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum GraphError {
    #[error("layer {layer} ({op}): {reason}")]
    Layer {
        layer: usize,
        op: &'static str,
        reason: String,
    },
    #[error("a network needs at least one layer")]
    Empty,
}

/// A named parameter and its shape, as libtorch and ONNX lay it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `<node>.<kind>`.
    pub name: String,
    /// Convolution: out × in × kernel × kernel, `in` being 1 where it is depthwise. Locally connected: places, row by row, × out × (in × kernel
    /// × kernel). Linear: out × in. Cosine: (out × centres) × in. Others: one axis.
    pub shape: Vec<i64>,
    /// Whether the optimiser changes it (running statistics it does not).
    pub trainable: bool,
}

struct Builder {
    nodes: Vec<Node>,
    slope: f64,
    /// Size of a last layer that leaves it open.
    outputs: usize,
    /// Put before the names of nodes.
    prefix: &'static str,
}

/// What the names of a spatial transformer's own layers begin with.
pub const LOCALISATION: &str = "localisation/";

impl Builder {
    fn push(&mut self, name: String, op: Op, inputs: Vec<usize>, shape: Shape) -> usize {
        self.nodes.push(Node {
            name: format!("{}{name}", self.prefix),
            op,
            inputs,
            shape,
        });
        self.nodes.len() - 1
    }

    fn conv(
        &mut self,
        name: &str,
        from: usize,
        channels: usize,
        kernel: usize,
        stride: usize,
        bias: bool,
    ) -> usize {
        let s = self.nodes[from].shape;
        let shape = Shape {
            channels,
            height: s.height.div_ceil(stride),
            width: s.width.div_ceil(stride),
            flat: false,
        };
        let op = Op::Conv {
            kernel,
            stride,
            bias,
            depthwise: false,
        };
        self.push(name.to_owned(), op, vec![from], shape)
    }

    fn normalisation(&mut self, name: &str, from: usize, eps: f64) -> usize {
        let shape = self.nodes[from].shape;
        let op = Op::BatchNorm { eps };
        self.push(format!("{name}_norm"), op, vec![from], shape)
    }

    fn normalised_conv(
        &mut self,
        name: &str,
        from: usize,
        channels: usize,
        kernel: usize,
        stride: usize,
    ) -> usize {
        let conv = self.conv(name, from, channels, kernel, stride, false);
        self.normalisation(name, conv, BATCH_NORM_EPS)
    }

    fn activation(&mut self, name: &str, from: usize) -> usize {
        let shape = self.nodes[from].shape;
        let op = Op::LeakyRelu { slope: self.slope };
        self.push(format!("{name}_relu"), op, vec![from], shape)
    }

    /// A layer's blocks in a row, the first with the stride: `block` takes a name, what comes before it and
    /// the stride.
    fn repeated(
        &mut self,
        layer: usize,
        from: usize,
        repeat: usize,
        stride: usize,
        block: impl Fn(&mut Self, &str, usize, usize) -> usize,
    ) -> usize {
        (0..repeat).fold(from, |from, k| {
            let id = format!("l{}_{}", layer + 1, k + 1);
            block(self, &id, from, if k == 0 { stride } else { 1 })
        })
    }

    /// Normalised convolution and activation.
    fn conv_unit(
        &mut self,
        name: &str,
        from: usize,
        channels: usize,
        kernel: usize,
        stride: usize,
    ) -> usize {
        let conv = self.normalised_conv(name, from, channels, kernel, stride);
        self.activation(name, conv)
    }

    fn residual_block(&mut self, name: &str, from: usize, channels: usize, stride: usize) -> usize {
        let first = self.conv_unit(&format!("{name}a"), from, channels, 3, stride);
        let second = self.normalised_conv(&format!("{name}b"), first, channels, 3, 1);
        self.add_shortcut(name, from, second, stride)
    }

    fn bottleneck(
        &mut self,
        name: &str,
        from: usize,
        channels: usize,
        reduced: usize,
        stride: usize,
    ) -> usize {
        let first = self.conv_unit(&format!("{name}a"), from, reduced, 1, 1);
        let second = self.conv_unit(&format!("{name}b"), first, reduced, 3, stride);
        let third = self.normalised_conv(&format!("{name}c"), second, channels, 1, 1);
        self.add_shortcut(name, from, third, stride)
    }

    fn inverted_residual(
        &mut self,
        name: &str,
        from: usize,
        channels: usize,
        expansion: usize,
        kernel: usize,
        stride: usize,
    ) -> usize {
        let eps = INVERTED_RESIDUAL_EPS;
        let widened = if expansion == 1 {
            from
        } else {
            let name = format!("{name}a");
            let wide = expansion * self.nodes[from].shape.channels;
            let conv = self.conv(&name, from, wide, 1, 1, false);
            let norm = self.normalisation(&name, conv, eps);
            self.activation(&name, norm)
        };
        let middle = format!("{name}b");
        let wide = self.nodes[widened].shape.channels;
        let conv = self.conv(&middle, widened, wide, kernel, stride, false);
        if let Op::Conv { depthwise, .. } = &mut self.nodes[conv].op {
            *depthwise = true;
        }
        let norm = self.normalisation(&middle, conv, eps);
        let middle = self.activation(&middle, norm);
        let narrow = format!("{name}c");
        let conv = self.conv(&narrow, middle, channels, 1, 1, false);
        let norm = self.normalisation(&narrow, conv, eps);
        let shape = self.nodes[norm].shape;
        if self.nodes[from].shape == shape {
            self.push(format!("{name}_add"), Op::Add, vec![norm, from], shape)
        } else {
            norm
        }
    }

    /// The sum of a block's result and its input, the latter through a 1 × 1 convolution where shapes
    /// differ, and the activation.
    fn add_shortcut(&mut self, name: &str, from: usize, result: usize, stride: usize) -> usize {
        let shape = self.nodes[result].shape;
        let shortcut = if self.nodes[from].shape == shape {
            from
        } else {
            self.normalised_conv(&format!("{name}s"), from, shape.channels, 1, stride)
        };
        let name_of_sum = format!("{name}_add");
        let sum = self.push(name_of_sum, Op::Add, vec![result, shortcut], shape);
        self.activation(name, sum)
    }

    fn inception(
        &mut self,
        name: &str,
        from: usize,
        single: usize,
        triple: [usize; 2],
        double_triple: [usize; 2],
        pooled: usize,
    ) -> usize {
        let one = self.conv_unit(&format!("{name}a"), from, single, 1, 1);
        let reduced = self.conv_unit(&format!("{name}b1"), from, triple[0], 1, 1);
        let three = self.conv_unit(&format!("{name}b2"), reduced, triple[1], 3, 1);
        let reduced = self.conv_unit(&format!("{name}c1"), from, double_triple[0], 1, 1);
        let first = self.conv_unit(&format!("{name}c2"), reduced, double_triple[1], 3, 1);
        let five = self.conv_unit(&format!("{name}c3"), first, double_triple[1], 3, 1);
        let shape = self.nodes[from].shape;
        let mean = Op::AveragePool { size: 3 };
        let mean = self.push(format!("{name}d_mean"), mean, vec![from], shape);
        let around = self.conv_unit(&format!("{name}d"), mean, pooled, 1, 1);
        let others = [three, five, around].into_iter().enumerate();
        others.fold(one, |joined, (k, next)| {
            let (a, b) = (self.nodes[joined].shape, self.nodes[next].shape);
            let shape = Shape {
                channels: a.channels + b.channels,
                ..a
            };
            let id = format!("{name}_concat{}", k + 1);
            self.push(id, Op::Concat, vec![joined, next], shape)
        })
    }

    /// Adds the nodes of declared layers after node `last`; returns the last of them.
    fn expand(&mut self, layers: &[Layer], mut last: usize) -> Result<usize, GraphError> {
        let b = self;
        let outputs = b.outputs;
        let mut named: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        let unnumbered = unnumbered(layers);
        for (place, layer) in layers.iter().enumerate() {
            let fail = |reason: String| GraphError::Layer {
                layer: place + 1,
                op: layer.op_name(),
                reason,
            };
            // Names of nodes count from here.
            let index = place.saturating_sub(unnumbered);
            let shape = b.nodes[last].shape;
            let needs_map = !matches!(
                layer,
                Layer::BatchNorm {}
                    | Layer::Dropout { .. }
                    | Layer::Linear { .. }
                    | Layer::Cosine { .. }
            );
            if needs_map && shape.flat {
                return Err(fail("needs a feature map, but gets a vector".into()));
            }
            let (result, name) = match layer {
                Layer::Standardise {
                    mean,
                    deviation,
                    least_deviation,
                } => {
                    if b.nodes[last].op != Op::Input || !b.prefix.is_empty() {
                        return Err(fail("can only be the first layer".into()));
                    }
                    let positive = |value: f32| value > 0.0 && value.is_finite();
                    if !mean.iter().all(|m| m.is_finite())
                        || !deviation.iter().all(|d| positive(*d))
                        || !positive(*least_deviation)
                    {
                        return Err(fail(format!(
                            "mean {mean:?} must be finite, deviation {deviation:?} and least_deviation \
                             {least_deviation} above 0"
                        )));
                    }
                    let op = Op::Standardise {
                        mean: *mean,
                        deviation: *deviation,
                        least_deviation: *least_deviation,
                    };
                    (
                        b.push("standardise".to_owned(), op, vec![last], shape),
                        None,
                    )
                }
                Layer::Conv {
                    channels,
                    kernel,
                    stride,
                    repeat,
                    plain,
                    normalise,
                    name,
                } => {
                    positive(&[
                        ("channels", *channels),
                        ("stride", *stride),
                        ("repeat", *repeat),
                    ])
                    .map_err(fail)?;
                    odd(*kernel).map_err(fail)?;
                    let conv = |b: &mut Builder, id: &str, from, stride| {
                        if *plain {
                            b.conv(id, from, *channels, *kernel, stride, true)
                        } else if *normalise {
                            b.conv_unit(id, from, *channels, *kernel, stride)
                        } else {
                            let conv = b.conv(id, from, *channels, *kernel, stride, true);
                            b.activation(id, conv)
                        }
                    };
                    (
                        b.repeated(index, last, *repeat, *stride, conv),
                        name.as_ref(),
                    )
                }
                Layer::Residual {
                    channels,
                    stride,
                    repeat,
                    name,
                } => {
                    positive(&[
                        ("channels", *channels),
                        ("stride", *stride),
                        ("repeat", *repeat),
                    ])
                    .map_err(fail)?;
                    let block = |b: &mut Builder, id: &str, from, stride| {
                        b.residual_block(id, from, *channels, stride)
                    };
                    (
                        b.repeated(index, last, *repeat, *stride, block),
                        name.as_ref(),
                    )
                }
                Layer::Bottleneck {
                    channels,
                    reduced,
                    stride,
                    repeat,
                    name,
                } => {
                    positive(&[
                        ("channels", *channels),
                        ("reduced", *reduced),
                        ("stride", *stride),
                        ("repeat", *repeat),
                    ])
                    .map_err(fail)?;
                    let block = |b: &mut Builder, id: &str, from, stride| {
                        b.bottleneck(id, from, *channels, *reduced, stride)
                    };
                    (
                        b.repeated(index, last, *repeat, *stride, block),
                        name.as_ref(),
                    )
                }
                Layer::InvertedResidual {
                    channels,
                    expansion,
                    kernel,
                    stride,
                    repeat,
                } => {
                    positive(&[
                        ("channels", *channels),
                        ("expansion", *expansion),
                        ("stride", *stride),
                        ("repeat", *repeat),
                    ])
                    .map_err(fail)?;
                    odd(*kernel).map_err(fail)?;
                    let block = |b: &mut Builder, id: &str, from, stride| {
                        b.inverted_residual(id, from, *channels, *expansion, *kernel, stride)
                    };
                    (b.repeated(index, last, *repeat, *stride, block), None)
                }
                Layer::Inception {
                    single,
                    triple,
                    double_triple,
                    pooled,
                    repeat,
                } => {
                    positive(&[
                        ("single", *single),
                        ("triple", triple[0].min(triple[1])),
                        ("double_triple", double_triple[0].min(double_triple[1])),
                        ("pooled", *pooled),
                        ("repeat", *repeat),
                    ])
                    .map_err(fail)?;
                    let module = |b: &mut Builder, id: &str, from, _| {
                        b.inception(id, from, *single, *triple, *double_triple, *pooled)
                    };
                    (b.repeated(index, last, *repeat, 1, module), None)
                }
                Layer::LocallyConnected { channels, kernel } => {
                    positive(&[("channels", *channels)]).map_err(fail)?;
                    odd(*kernel).map_err(fail)?;
                    let id = format!("l{}_1", index + 1);
                    let shape = Shape {
                        channels: *channels,
                        ..shape
                    };
                    let op = Op::LocallyConnected { kernel: *kernel };
                    let local = b.push(id.clone(), op, vec![last], shape);
                    let norm = b.normalisation(&id, local, BATCH_NORM_EPS);
                    (b.activation(&id, norm), None)
                }
                Layer::MaxPool { size } => {
                    if *size == 0 || shape.height < *size || shape.width < *size {
                        return Err(fail(format!(
                            "a window of {size} does not fit a map of {} × {}",
                            shape.width, shape.height
                        )));
                    }
                    let shape = Shape {
                        height: shape.height / size,
                        width: shape.width / size,
                        ..shape
                    };
                    let id = format!("l{}_pool", index + 1);
                    (
                        b.push(id, Op::MaxPool { size: *size }, vec![last], shape),
                        None,
                    )
                }
                Layer::Upsample { factor } => {
                    positive(&[("factor", *factor)]).map_err(fail)?;
                    let shape = Shape {
                        height: shape.height * factor,
                        width: shape.width * factor,
                        ..shape
                    };
                    let id = format!("l{}_upsample", index + 1);
                    (
                        b.push(id, Op::Upsample { factor: *factor }, vec![last], shape),
                        None,
                    )
                }
                Layer::Concat { with } => {
                    let other = *named
                        .get(with)
                        .ok_or_else(|| fail(format!("no earlier layer is named \"{with}\"")))?;
                    let o = b.nodes[other].shape;
                    if (o.height, o.width) != (shape.height, shape.width) {
                        return Err(fail(format!(
                            "\"{with}\" is {} × {}, this map {} × {}",
                            o.width, o.height, shape.width, shape.height
                        )));
                    }
                    let shape = Shape {
                        channels: shape.channels + o.channels,
                        ..shape
                    };
                    let id = format!("l{}_concat", index + 1);
                    (b.push(id, Op::Concat, vec![last, other], shape), None)
                }
                Layer::GlobalAveragePool {} => {
                    let shape = Shape {
                        height: 1,
                        width: 1,
                        flat: true,
                        ..shape
                    };
                    let id = format!("l{}_mean", index + 1);
                    (b.push(id, Op::GlobalAveragePool, vec![last], shape), None)
                }
                Layer::BatchNorm {} => {
                    let id = format!("l{}", index + 1);
                    (b.normalisation(&id, last, BATCH_NORM_EPS), None)
                }
                Layer::Dropout { p } => {
                    if !(0.0..1.0).contains(p) {
                        return Err(fail(format!("p = {p} is not in 0…1")));
                    }
                    let id = format!("l{}_dropout", index + 1);
                    (b.push(id, Op::Dropout { p: *p }, vec![last], shape), None)
                }
                Layer::Linear { outputs: declared } => {
                    if !shape.flat {
                        return Err(fail(
                            "needs a vector; put global_average_pool before it".into(),
                        ));
                    }
                    let channels = declared.unwrap_or(outputs);
                    positive(&[("outputs", channels)]).map_err(fail)?;
                    let id = format!("l{}_linear", index + 1);
                    (
                        b.push(id, Op::Linear, vec![last], Shape { channels, ..shape }),
                        None,
                    )
                }
                Layer::Cosine { sub_centres, scale } => {
                    if !shape.flat {
                        return Err(fail(
                            "needs a vector; put global_average_pool before it".into(),
                        ));
                    }
                    positive(&[("sub_centres", *sub_centres), ("outputs", outputs)])
                        .map_err(fail)?;
                    if !(*scale > 0.0 && scale.is_finite()) {
                        return Err(fail(format!("scale is {scale}; it must be above 0")));
                    }
                    let op = Op::Cosine {
                        sub_centres: *sub_centres,
                        scale: *scale,
                    };
                    let shape = Shape {
                        channels: outputs,
                        ..shape
                    };
                    let id = format!("l{}_cosine", index + 1);
                    (b.push(id, op, vec![last], shape), None)
                }
                Layer::SoftArgmax {} => {
                    let shape = Shape {
                        channels: 2 * shape.channels,
                        height: 1,
                        width: 1,
                        flat: true,
                    };
                    let id = format!("l{}_place", index + 1);
                    (b.push(id, Op::SoftArgmax, vec![last], shape), None)
                }
                Layer::SpatialTransformer {
                    localisation,
                    aspect,
                    head_crop,
                    width,
                    height,
                } => {
                    if b.nodes[last].op != Op::Input || !b.prefix.is_empty() {
                        return Err(fail("can only be the first layer".into()));
                    }
                    positive(&[("width", *width), ("height", *height)]).map_err(fail)?;
                    let length = head_crop.bonnet_x - head_crop.blowhead_x;
                    let positive = |value: f64| value > 0.0 && value.is_finite();
                    if ![*aspect, head_crop.aspect, length]
                        .into_iter()
                        .all(positive)
                    {
                        return Err(fail(format!(
                            "aspect {aspect} and head_crop {head_crop:?} must be above 0, and the bonnet \
                             right of the blowhead"
                        )));
                    }
                    b.prefix = LOCALISATION;
                    let landmarks = b.expand(localisation, last);
                    b.prefix = "";
                    let landmarks = landmarks.map_err(|e| fail(format!("localisation: {e}")))?;
                    let found = b.nodes[landmarks].shape;
                    if !found.flat || found.channels != 4 {
                        return Err(fail(format!(
                            "localisation must give 4 values, bonnet and blowhead; it gives {}",
                            found.channels * found.width * found.height
                        )));
                    }
                    let op = Op::HeadSampler {
                        aspect: *aspect,
                        head_crop: *head_crop,
                    };
                    let shape = Shape {
                        width: *width,
                        height: *height,
                        ..shape
                    };
                    let id = format!("l{}_crop", index + 1);
                    (b.push(id, op, vec![last, landmarks], shape), None)
                }
            };
            last = result;
            if let Some(name) = name
                && named.insert(name.clone(), last).is_some()
            {
                return Err(fail(format!("the name \"{name}\" is taken")));
            }
        }
        Ok(last)
    }
}

impl Graph {
    /// Expands declared layers for RGB input of `width × height` pixels. `slope` is that of every leaky
    /// ReLU; `outputs` is the size of a [`Layer::Linear`] that leaves it out.
    pub fn build(
        layers: &[Layer],
        width: usize,
        height: usize,
        slope: f64,
        outputs: usize,
    ) -> Result<Self, GraphError> {
        if layers.is_empty() {
            return Err(GraphError::Empty);
        }
        let mut builder = Builder {
            nodes: Vec::new(),
            slope,
            outputs,
            prefix: "",
        };
        let image = Shape {
            channels: 3,
            height,
            width,
            flat: false,
        };
        let input = builder.push("input".to_owned(), Op::Input, vec![], image);
        builder.expand(layers, input)?;
        Ok(Self {
            nodes: builder.nodes,
        })
    }
    /// The output node.
    pub fn output(&self) -> &Node {
        self.nodes.last().expect("a graph has at least its input")
    }

    /// The last fully connected layer, that of the individuals in a classifier.
    pub fn last_connected(&self) -> Option<&Node> {
        let connected = |n: &&Node| matches!(n.op, Op::Linear | Op::Cosine { .. });
        self.nodes.iter().rev().find(connected)
    }

    /// Index of the node whose output is the pooled features: what the last fully connected layer
    /// takes, before dropout. `None` where the network has no such layer.
    pub fn features(&self) -> Option<usize> {
        let mut index = self.last_connected()?.inputs[0];
        while let Op::Dropout { .. } = self.nodes[index].op {
            index = self.nodes[index].inputs[0];
        }
        Some(index)
    }

    /// Index of the node that says where bonnet and blowhead lie, in a network with a spatial transformer.
    pub fn landmarks(&self) -> Option<usize> {
        let samples = |n: &&Node| matches!(n.op, Op::HeadSampler { .. });
        Some(self.nodes.iter().find(samples)?.inputs[1])
    }

    /// All parameters, in the order of the nodes.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let mut push = |kind: &str, shape: &[usize], trainable: bool| {
                all.push(Parameter {
                    name: format!("{}.{kind}", node.name),
                    shape: shape.iter().map(|&d| d as i64).collect(),
                    trainable,
                });
            };
            let out = node.shape.channels;
            match node.op {
                Op::Conv { kernel, bias, .. } => {
                    let inputs = self.inputs_of_channel(node);
                    push("weight", &[out, inputs, kernel, kernel], true);
                    if bias {
                        push("bias", &[out], true);
                    }
                }
                Op::LocallyConnected { kernel } => {
                    let inputs = self.nodes[node.inputs[0]].shape.channels;
                    let places = node.shape.height * node.shape.width;
                    push("weight", &[places, out, inputs * kernel * kernel], true);
                }
                Op::BatchNorm { .. } => {
                    push("weight", &[out], true);
                    push("bias", &[out], true);
                    push("running_mean", &[out], false);
                    push("running_var", &[out], false);
                }
                Op::Linear => {
                    let inputs = self.nodes[node.inputs[0]].shape.channels;
                    push("weight", &[out, inputs], true);
                    push("bias", &[out], true);
                }
                Op::Cosine { sub_centres, .. } => {
                    let inputs = self.nodes[node.inputs[0]].shape.channels;
                    push("weight", &[out * sub_centres, inputs], true);
                }
                _ => {}
            }
        }
        all
    }

    /// How many channels of its input each output channel of a layer sees.
    pub fn inputs_of_channel(&self, node: &Node) -> usize {
        match node.op {
            Op::Conv {
                depthwise: true, ..
            } => 1,
            _ => self.nodes[node.inputs[0]].shape.channels,
        }
    }

    /// Number of trainable parameters.
    pub fn parameter_count(&self) -> usize {
        let trainable = self.parameters().into_iter().filter(|p| p.trainable);
        trainable
            .map(|p| p.shape.iter().product::<i64>() as usize)
            .sum()
    }

    /// Multiply-adds of convolutions, locally and fully connected layers for one image.
    pub fn multiply_adds(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| {
                let s = node.shape;
                let outputs = (s.channels * s.height * s.width) as u64;
                match node.op {
                    Op::Conv { kernel, .. } | Op::LocallyConnected { kernel } => {
                        outputs * (self.inputs_of_channel(node) * kernel * kernel) as u64
                    }
                    Op::Linear => outputs * self.nodes[node.inputs[0]].shape.channels as u64,
                    Op::Cosine { sub_centres, .. } => {
                        outputs * (sub_centres * self.nodes[node.inputs[0]].shape.channels) as u64
                    }
                    _ => 0,
                }
            })
            .sum()
    }
}

impl Layer {
    /// Its key `op` in a recipe.
    pub fn op_name(&self) -> &'static str {
        match self {
            Self::Standardise { .. } => "standardise",
            Self::Conv { .. } => "conv",
            Self::Residual { .. } => "residual",
            Self::Bottleneck { .. } => "bottleneck",
            Self::InvertedResidual { .. } => "inverted_residual",
            Self::Inception { .. } => "inception",
            Self::LocallyConnected { .. } => "locally_connected",
            Self::MaxPool { .. } => "max_pool",
            Self::Upsample { .. } => "upsample",
            Self::Concat { .. } => "concat",
            Self::GlobalAveragePool {} => "global_average_pool",
            Self::BatchNorm {} => "batch_norm",
            Self::Dropout { .. } => "dropout",
            Self::Linear { .. } => "linear",
            Self::Cosine { .. } => "cosine",
            Self::SoftArgmax {} => "soft_argmax",
            Self::SpatialTransformer { .. } => "spatial_transformer",
        }
    }
}

fn odd(kernel: usize) -> Result<(), String> {
    if kernel.is_multiple_of(2) {
        return Err(format!("kernel {kernel} is even; take an odd one"));
    }
    Ok(())
}

fn positive(values: &[(&str, usize)]) -> Result<(), String> {
    match values.iter().find(|(_, v)| *v == 0) {
        Some((name, _)) => Err(format!("{name} is 0; take at least 1")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Layer> {
        #[derive(Deserialize)]
        struct Document {
            layers: Vec<Layer>,
        }
        toml::from_str::<Document>(text).unwrap().layers
    }

    #[test]
    fn shapes_parameters_and_features_follow_from_the_declaration() {
        let layers = parse(
            r#"layers = [
                { op = "conv", channels = 8, stride = 2 },
                { op = "residual", channels = 16, stride = 2 },
                { op = "global_average_pool" },
                { op = "dropout", p = 0.5 },
                { op = "linear" },
            ]"#,
        );
        let graph = Graph::build(&layers, 30, 20, 1.0 / 3.0, 5).unwrap();
        assert_eq!(graph.output().shape.channels, 5);
        let features = &graph.nodes[graph.features().unwrap()];
        assert_eq!(features.op, Op::GlobalAveragePool);
        assert_eq!(features.shape.channels, 16);
        // conv 8·3·9, norm 16; block 16·8·9 + 32 + 16·16·9 + 32, shortcut 16·8 + 32; linear 5·16 + 5
        let expected = 216 + 16 + 1152 + 32 + 2304 + 32 + 128 + 32 + 85;
        assert_eq!(graph.parameter_count(), expected);
        // maps: 15 × 10, then 8 × 5
        let expected = 216 * 150 + (1152 + 2304 + 128) * 40 + 80;
        assert_eq!(graph.multiply_adds(), expected as u64);
    }

    #[test]
    fn a_standardised_input_leaves_the_names_of_later_layers() {
        let layers = r#"{ op = "conv", channels = 8 }, { op = "residual", channels = 8 },
            { op = "global_average_pool" }, { op = "linear" }]"#;
        let plain = Graph::build(&parse(&format!("layers = [{layers}")), 8, 8, 0.1, 2).unwrap();
        let standardised = format!("layers = [{{ op = \"standardise\" }}, {layers}");
        let standardised = Graph::build(&parse(&standardised), 8, 8, 0.1, 2).unwrap();
        assert_eq!(plain.parameters(), standardised.parameters());
        assert_eq!(plain.nodes.len() + 1, standardised.nodes.len());
    }

    #[test]
    fn impossible_layers_are_refused_with_their_number() {
        let later = r#"layers = [{ op = "conv", channels = 8 }, { op = "standardise" }]"#;
        let error = Graph::build(&parse(later), 8, 8, 0.1, 2).unwrap_err();
        assert!(
            error.to_string().contains("layer 2 (standardise)"),
            "{error}"
        );
        let flat = r#"layers = [{ op = "standardise", least_deviation = 0 }, { op = "linear" }]"#;
        let error = Graph::build(&parse(flat), 8, 8, 0.1, 2).unwrap_err();
        assert!(error.to_string().contains("above 0"), "{error}");
        let layers = parse(r#"layers = [{ op = "conv", channels = 8 }, { op = "linear" }]"#);
        let error = Graph::build(&layers, 8, 8, 0.1, 2).unwrap_err();
        assert!(error.to_string().contains("layer 2 (linear)"), "{error}");
        let layers =
            parse(r#"layers = [{ op = "conv", channels = 8 }, { op = "concat", with = "x" }]"#);
        let error = Graph::build(&layers, 8, 8, 0.1, 2).unwrap_err();
        assert!(error.to_string().contains("\"x\""), "{error}");
    }
}
