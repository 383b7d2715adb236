//! A larger network that starts with the function of a smaller one that was trained: Net2Net (Chen, Goodfellow
//! & Shlens 2016, "Net2Net: Accelerating learning via knowledge transfer").
//!
//! **Wider.** Channel `j` of a layer that grew from `n` channels copies channel `j mod n` of the smaller network,
//! and so do normalisation, activation, pooling, sum and concatenation after it. What takes such channels
//! gives the copies of one of them random shares of its old weight, which sum to 1: the function stays, and
//! the copies get different gradients. The summands of a residual block must copy alike, so where the shortcut
//! is the block's input its copies decide.
//!
//! **Deeper.** Blocks beyond a layer's old `repeat` start as the identity. A leaky ReLU is not idempotent, so
//! the activation before them cannot just be applied once more. Instead it moves behind them: with `z`
//! the value before it, the bias of the last block of old is raised by a shift `s` of each channel so that
//! `z + s` is nowhere negative and passes the activation as it is; the last new block takes the shift off again,
//! and its activation acts on `z`. A new convolution is the identity at its centre, and its normalisation
//! has the statistics that `z + s` has, as the normalisation before it has `z` with mean `bias` and standard
//! deviation `|weight|`: so it changes nothing in training mode either. A new residual block has the
//! weight 0 in its last normalisation (Goyal et al. 2017) and there the shift as its bias, and random
//! weights before.
//!
//! How negative `z` becomes is measured on samples. The shift leaves half of the range found as a margin.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, ensure};
use tch::{Device, Kind, Tensor};

use crate::activations::{Range, measure, sample_inputs};
use crate::graph::{BATCH_NORM_EPS, Graph, GraphError, Layer, Op, unnumbered};
use crate::loader::Samples;
use crate::network::Network;
use crate::recipe::Recipe;
use crate::run_folder::finished;
use crate::trainer::{BEST, RECIPE};

/// The network of `recipe` with the function of the smaller one in the run folder `run`, its best weights.
/// Values are measured on some of `samples`, which are those of `recipe`.
///
/// # Errors
/// The folder cannot be read or holds an unfinished run, its network takes another input, or a layer is not one of the smaller network
/// with more channels or blocks.
pub fn grow_run(
    run: &Path,
    recipe: &Recipe,
    individuals: &[String],
    device: Device,
    samples: &dyn Samples,
) -> anyhow::Result<Network> {
    let smaller = Recipe::load(&run.join(RECIPE))?;
    let info = finished(run)?;
    for (what, same) in [
        ("task", smaller.task == recipe.task),
        ("input", smaller.input == recipe.input),
        ("network.leak", smaller.network.leak == recipe.network.leak),
        ("individuals", info.individuals == individuals),
    ] {
        ensure!(
            same,
            "{} cannot grow from {}: the two differ in {what}",
            recipe.name,
            run.display()
        );
    }
    let mut old = Network::new(smaller.graph(individuals.len())?, device);
    old.load(&run.join(BEST))?;
    let inputs = sample_inputs(recipe, samples, device)?;
    let graph = recipe.graph(individuals.len())?;
    let layers = (&*smaller.network.layers, &*recipe.network.layers);
    grow(&old, layers, graph, &inputs)
        .with_context(|| format!("{} cannot grow from {}", recipe.name, run.display()))
}

/// A network of `graph`, which the second of `layers` declare, that computes in
/// [evaluation](crate::network::Mode::Evaluate) what `old` does, which the first declare. `inputs`, at least one
/// `N × 3 × height × width`, are those on which the range of values is measured; beyond it by more than half of it
/// the functions may differ. Seed libtorch before.
///
/// # Errors
/// A layer is not one of the smaller network with more channels or blocks.
pub fn grow(
    old: &Network,
    layers: (&[Layer], &[Layer]),
    graph: Graph,
    inputs: &[Tensor],
) -> Result<Network, GraphError> {
    let inserted = check(layers.0, layers.1)?;
    let refuse = |layer: usize, reason: String| GraphError::Layer {
        layer,
        op: layers.1[layer - 1].op_name(),
        reason,
    };
    let by_name = |graph: &Graph| -> HashMap<String, usize> {
        let nodes = graph.nodes.iter().enumerate();
        nodes.map(|(index, n)| (n.name.clone(), index)).collect()
    };
    let (olds, news) = (by_name(old.graph()), by_name(&graph));
    for node in &old.graph().nodes {
        if !news.contains_key(&node.name) {
            let (layer, _) = block(&node.name).unwrap_or((layers.1.len(), 0));
            let reason = "in the smaller network its shortcut has a 1 × 1 convolution, here it has none, as \
                          input and output are alike; take another number of channels";
            return Err(refuse(layer, reason.to_owned()));
        }
    }
    if old.graph().output().shape != graph.output().shape {
        let reason = "the network's output must stay as it is".to_owned();
        return Err(refuse(layers.1.len(), reason));
    }
    let copies = copies(old.graph(), &olds, &graph, &inserted);
    let network = Network::new(graph, old.device());
    let mut wanted: Vec<usize> = inserted.iter().filter_map(|i| i.shifted(&olds)).collect();
    wanted.extend(new_shortcuts(old, &olds, &network).map(|(_, value)| value));
    let measured = measure(old, &wanted, inputs);
    tch::no_grad(|| {
        widen(old, &olds, &network, &copies, &measured);
        for inserted in &inserted {
            deepen(inserted, &network, &copies, &olds, &news, &measured);
        }
    });
    Ok(network)
}

/// Blocks that a layer has more than in the smaller network.
struct Inserted {
    /// From 1.
    layer: usize,
    kind: Block,
    /// Blocks of the smaller network.
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    /// Without an activation.
    Plain,
    /// With bias and activation.
    Conv,
    /// With normalisation and activation.
    Normalised,
    Residual,
    Bottleneck,
}

impl Inserted {
    fn id(&self, block: usize) -> String {
        format!("l{}_{block}", self.layer)
    }

    /// Name of the node whose output the activation of block `block` takes.
    fn before_activation(&self, block: usize) -> String {
        let id = self.id(block);
        match self.kind {
            Block::Plain | Block::Conv => id,
            Block::Normalised => format!("{id}_norm"),
            Block::Residual | Block::Bottleneck => format!("{id}_add"),
        }
    }

    /// Name of the node whose bias raises that output.
    fn raising(&self, block: usize) -> String {
        let id = self.id(block);
        match self.kind {
            Block::Plain | Block::Conv => id,
            Block::Normalised => format!("{id}_norm"),
            Block::Residual => format!("{id}b_norm"),
            Block::Bottleneck => format!("{id}c_norm"),
        }
    }

    /// Node of the smaller network whose output needs a shift.
    fn shifted(&self, olds: &HashMap<String, usize>) -> Option<usize> {
        (self.kind != Block::Plain).then(|| olds[&self.before_activation(self.from)])
    }
}

/// The sizes of a layer that may grow.
fn sizes(layer: &mut Layer) -> Vec<(&'static str, &mut usize)> {
    match layer {
        Layer::Conv {
            channels, repeat, ..
        }
        | Layer::Residual {
            channels, repeat, ..
        } => vec![("channels", channels), ("repeat", repeat)],
        Layer::Bottleneck {
            channels,
            reduced,
            repeat,
            ..
        } => vec![
            ("channels", channels),
            ("reduced", reduced),
            ("repeat", repeat),
        ],
        Layer::Inception {
            single,
            triple: [t1, t2],
            double_triple: [d1, d2],
            pooled,
            ..
        } => vec![
            ("single", single),
            ("triple", t1),
            ("triple", t2),
            ("double_triple", d1),
            ("double_triple", d2),
            ("pooled", pooled),
        ],
        Layer::LocallyConnected { channels, .. } => vec![("channels", channels)],
        _ => vec![],
    }
}

/// Checks that `new` are the layers `old`, some of them larger, and says where blocks are inserted.
fn check(old: &[Layer], new: &[Layer]) -> Result<Vec<Inserted>, GraphError> {
    let mut inserted = Vec::new();
    for (index, layer) in new.iter().enumerate() {
        let refuse = |reason: String| {
            Err(GraphError::Layer {
                layer: index + 1,
                op: layer.op_name(),
                reason,
            })
        };
        // Copies of features turn directions, places have no copies, and copies of single channels are none of
        // their neighbours.
        if let Layer::Cosine { .. }
        | Layer::SoftArgmax {}
        | Layer::SpatialTransformer { .. }
        | Layer::InvertedResidual { .. } = layer
        {
            return refuse("a network with this layer cannot grow".to_owned());
        }
        let Some(before) = old.get(index) else {
            return refuse(format!("the smaller network has only {} layers", old.len()));
        };
        if layer.op_name() != before.op_name() {
            let op = before.op_name();
            return refuse(format!("the smaller network has a layer {op} here"));
        }
        // The layer with the sizes of old: all else must be the same.
        let (mut small, mut same) = (before.clone(), layer.clone());
        for ((name, new), (_, old)) in sizes(&mut same).into_iter().zip(sizes(&mut small)) {
            if *new < *old {
                return refuse(format!(
                    "{name} is {new}, the smaller network has {old}; take at least as many"
                ));
            }
            *new = *old;
        }
        if same != *before {
            return refuse(match layer {
                Layer::Inception { .. } => {
                    "its channels may grow, all else must be as in the smaller \
                                            network: a module more has no form that is the identity"
                        .to_owned()
                }
                _ => format!(
                    "channels and repeat may grow where a layer has them, all else must be as in the \
                     smaller network: {before:?}"
                ),
            });
        }
        let (kind, from, to) = match (before, layer) {
            (
                Layer::Conv {
                    repeat,
                    plain,
                    normalise,
                    ..
                },
                Layer::Conv { repeat: to, .. },
            ) => {
                let kind = match (plain, normalise) {
                    (true, _) => Block::Plain,
                    (false, true) => Block::Normalised,
                    (false, false) => Block::Conv,
                };
                (kind, *repeat, *to)
            }
            (Layer::Residual { repeat, .. }, Layer::Residual { repeat: to, .. }) => {
                (Block::Residual, *repeat, *to)
            }
            (Layer::Bottleneck { repeat, .. }, Layer::Bottleneck { repeat: to, .. }) => {
                (Block::Bottleneck, *repeat, *to)
            }
            _ => continue,
        };
        if to > from {
            inserted.push(Inserted {
                layer: index + 1 - unnumbered(new),
                kind,
                from,
                to,
            });
        }
    }
    if let Some(missing) = old.get(new.len()) {
        return Err(GraphError::Layer {
            layer: new.len() + 1,
            op: missing.op_name(),
            reason: "the smaller network has this layer, the larger must have it too".to_owned(),
        });
    }
    Ok(inserted)
}

/// Number of the layer and of the block in it, both from 1, from the name of one of the block's nodes.
fn block(name: &str) -> Option<(usize, usize)> {
    let (layer, rest) = name.strip_prefix('l')?.split_once('_')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    let block = &rest[..digits.unwrap_or(rest.len())];
    Some((layer.parse().ok()?, block.parse().ok()?))
}

/// For each channel of a node of the larger network the channel of the smaller that it copies; `None` inside of
/// an inserted residual block, whose values the smaller network does not have.
type Copies = Vec<Option<Vec<i64>>>;

fn copies(
    old: &Graph,
    olds: &HashMap<String, usize>,
    new: &Graph,
    inserted: &[Inserted],
) -> Copies {
    let mut copies: Copies = Vec::with_capacity(new.nodes.len());
    for (index, node) in new.nodes.iter().enumerate() {
        let input = |k: usize| node.inputs.get(k).and_then(|&i| copies[i].as_ref());
        let channels = node.shape.channels as i64;
        let before = olds.get(&node.name).map(|&o| &old.nodes[o]);
        let inserted = inserted.iter().find(|i| {
            block(&node.name).is_some_and(|(layer, block)| layer == i.layer && block > i.from)
        });
        let found = match node.op {
            Op::Input => Some((0..channels).collect()),
            Op::Conv { .. } | Op::LocallyConnected { .. } | Op::Linear => {
                // A summand copies as the other one does.
                let other = new.nodes.iter().find_map(|sum| match *sum.inputs {
                    [a, b] if sum.op == Op::Add && a == index + 1 && b < index => Some(b),
                    [a, b] if sum.op == Op::Add && b == index + 1 && a < index => Some(a),
                    _ => None,
                });
                match (other, before, inserted) {
                    (Some(other), _, None) => copies[other].clone(),
                    (_, Some(before), _) => {
                        let channels_before = before.shape.channels as i64;
                        Some((0..channels).map(|j| j % channels_before).collect())
                    }
                    (_, None, Some(inserted)) => match inserted.kind {
                        Block::Plain | Block::Conv | Block::Normalised => input(0).cloned(),
                        Block::Residual | Block::Bottleneck => None,
                    },
                    (None, None, None) => unreachable!("only blocks and shortcuts are new"),
                }
            }
            // The shortcut's, which an inserted block has too.
            Op::Add => input(1).cloned(),
            Op::Concat => {
                let first = olds[&node.name];
                let offset = old.nodes[old.nodes[first].inputs[0]].shape.channels as i64;
                let joined = input(0).zip(input(1));
                joined.map(|(a, b)| {
                    let b = b.iter().map(|channel| offset + channel);
                    a.iter().copied().chain(b).collect()
                })
            }
            _ => input(0).cloned(),
        };
        copies.push(found);
    }
    copies
}

/// The 1 × 1 convolutions in shortcuts of the larger network that are none in the smaller, with the node of the
/// smaller whose value they pass on.
fn new_shortcuts<'a>(
    old: &'a Network,
    olds: &'a HashMap<String, usize>,
    new: &'a Network,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let nodes = &new.graph().nodes;
    nodes.iter().enumerate().filter_map(move |(index, node)| {
        let (layer, block) = block(&node.name)?;
        let is_shortcut = node.name == format!("l{layer}_{block}s");
        if !is_shortcut || olds.contains_key(&node.name) {
            return None;
        }
        let sum = olds[&format!("l{layer}_{block}_add")];
        Some((index, old.graph().nodes[sum].inputs[1]))
    })
}

/// What makes all values positive, with a margin of half the range.
fn shift(range: &Range) -> Tensor {
    ((&range.high - &range.low) * 0.5 - &range.low).clamp_min(0.0)
}

/// Sets what copies nodes of the smaller network, and new shortcuts.
fn widen(
    old: &Network,
    olds: &HashMap<String, usize>,
    new: &Network,
    copies: &Copies,
    measured: &BTreeMap<usize, Range>,
) {
    let device = new.device();
    let index = |channels: &[i64]| Tensor::from_slice(channels).to_device(device);
    let copied = |node: usize| {
        copies[node]
            .as_ref()
            .expect("a node of the smaller network")
    };
    for (at, node) in new.graph().nodes.iter().enumerate() {
        if !olds.contains_key(&node.name) {
            continue;
        }
        let from = |kind: &str| old.parameter(&format!("{}.{kind}", node.name));
        let set = |kind: &str, value: &Tensor| set(new, &format!("{}.{kind}", node.name), value);
        let output = || index(copied(at));
        match node.op {
            Op::Conv { bias, .. } => {
                let [inputs, outputs] = [copied(node.inputs[0]), copied(at)];
                let weight = from("weight")
                    .index_select(0, &index(outputs))
                    .index_select(1, &index(inputs));
                let shares = shares(inputs, outputs.len() as i64, device);
                set("weight", &(weight * shares.unsqueeze(-1).unsqueeze(-1)));
                if bias {
                    set("bias", &from("bias").index_select(0, &output()));
                }
            }
            Op::LocallyConnected { kernel } => {
                let [inputs, outputs] = [copied(node.inputs[0]), copied(at)];
                let weight = from("weight");
                let places = weight.size()[0];
                // places × out × in × kernel · kernel
                let weight = weight
                    .view([places, weight.size()[1], -1, (kernel * kernel) as i64])
                    .index_select(1, &index(outputs))
                    .index_select(2, &index(inputs));
                let shares = shares(inputs, outputs.len() as i64, device);
                let weight = weight * shares.unsqueeze(-1).unsqueeze(0);
                set("weight", &weight.flatten(2, -1));
            }
            Op::Linear => {
                let inputs = copied(node.inputs[0]);
                let weight = from("weight").index_select(1, &index(inputs));
                let shares = shares(inputs, node.shape.channels as i64, device);
                set("weight", &(weight * shares));
                set("bias", from("bias"));
            }
            Op::BatchNorm { .. } => {
                for kind in ["weight", "bias", "running_mean", "running_var"] {
                    set(kind, &from(kind).index_select(0, &output()));
                }
            }
            _ => {}
        }
    }
    for (at, value) in new_shortcuts(old, olds, new) {
        let node = &new.graph().nodes[at];
        let [inputs, outputs] = [copied(node.inputs[0]), copied(at)];
        let same = index(outputs)
            .unsqueeze(1)
            .eq_tensor(&index(inputs).unsqueeze(0));
        let weight = same.to_kind(Kind::Float) * shares(inputs, outputs.len() as i64, device);
        let name = &node.name;
        let weight = weight.unsqueeze(-1).unsqueeze(-1);
        set(new, &format!("{name}.weight"), &weight);
        let range = &measured[&value];
        let (mean, variance) = (&range.mean, &range.variance);
        let each = |t: &Tensor| t.index_select(0, &index(outputs));
        as_it_is(new, &format!("{name}_norm"), &each(mean), &each(variance));
    }
}

/// Sets the parameter `name`.
fn set(network: &Network, name: &str, value: &Tensor) {
    network.parameter(name).shallow_clone().copy_(value);
}

/// Makes a normalisation one that changes nothing, for values of this mean and variance.
fn as_it_is(network: &Network, name: &str, mean: &Tensor, variance: &Tensor) {
    let weight = (variance + BATCH_NORM_EPS).sqrt();
    for (kind, value) in [
        ("running_mean", mean),
        ("running_var", variance),
        ("weight", &weight),
        ("bias", mean),
    ] {
        set(network, &format!("{name}.{kind}"), value);
    }
}

/// Random shares, `outputs × inputs`, in which the copies of one channel sum to 1 for each output.
fn shares(inputs: &[i64], outputs: i64, device: Device) -> Tensor {
    let index = Tensor::from_slice(inputs).to_device(device);
    let channels = inputs.iter().max().map_or(0, |last| last + 1);
    let size = [outputs, inputs.len() as i64];
    let drawn = Tensor::rand(size, (Kind::Float, device)) + 0.5;
    let sums = Tensor::zeros([outputs, channels], (Kind::Float, device));
    let sums = sums.index_add(1, &index, &drawn);
    drawn / sums.index_select(1, &index)
}

/// Makes inserted blocks the identity.
fn deepen(
    inserted: &Inserted,
    network: &Network,
    copies: &Copies,
    olds: &HashMap<String, usize>,
    news: &HashMap<String, usize>,
    measured: &BTreeMap<usize, Range>,
) {
    let carrier = inserted.raising(inserted.from);
    let bias = network.parameter(&format!("{carrier}.bias"));
    let shift = match inserted.shifted(olds) {
        Some(node) => {
            let copied = copies[news[&inserted.before_activation(inserted.from)]].as_ref();
            let copied = copied.expect("a node of the smaller network");
            let copied = Tensor::from_slice(copied).to_device(network.device());
            let shift = shift(&measured[&node]).index_select(0, &copied);
            shift.to_kind(Kind::Float)
        }
        None => bias.zeros_like(),
    };
    let raised = bias + &shift;
    for block in inserted.from + 1..=inserted.to {
        let id = inserted.id(block);
        let raising = inserted.raising(block);
        let off = if block == inserted.to {
            -&shift
        } else {
            shift.zeros_like()
        };
        if matches!(
            inserted.kind,
            Block::Plain | Block::Conv | Block::Normalised
        ) {
            let weight = network.parameter(&format!("{id}.weight"));
            let (channels, middle) = (weight.size()[0], weight.size()[2] / 2);
            let _ = weight.shallow_clone().zero_();
            let mut centre = weight.select(3, middle).select(2, middle);
            centre.copy_(&Tensor::eye(channels, (Kind::Float, network.device())));
        }
        match inserted.kind {
            Block::Plain | Block::Conv => set(network, &format!("{id}.bias"), &off),
            Block::Normalised => {
                let variance = network.parameter(&format!("{carrier}.weight")).square();
                as_it_is(network, &raising, &raised, &variance);
                set(network, &format!("{raising}.bias"), &(&raised + &off));
            }
            Block::Residual | Block::Bottleneck => {
                set(network, &format!("{raising}.weight"), &off.zeros_like());
                set(network, &format!("{raising}.bias"), &off);
            }
        }
    }
    set(network, &format!("{carrier}.bias"), &raised);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Mode, Precision};
    use proptest::prelude::*;

    /// A layer and the same one, larger.
    type Pair = (Layer, Layer);

    fn conv(size: (usize, usize), kernel: usize, stride: usize, normalise: bool) -> Layer {
        Layer::Conv {
            channels: size.0,
            kernel,
            stride,
            repeat: size.1,
            plain: false,
            normalise,
            name: None,
        }
    }

    fn both(layer: Layer) -> Pair {
        (layer.clone(), layer)
    }

    /// Channels or blocks before and after.
    fn growing(most: usize) -> impl Strategy<Value = [usize; 2]> {
        (1..=most, 0..=most).prop_map(|(size, more)| [size, size + more])
    }

    fn pair() -> impl Strategy<Value = Pair> {
        let conv = (
            growing(3),
            growing(2),
            prop_oneof![Just(1usize), Just(3)],
            1..3usize,
            any::<bool>(),
        )
            .prop_map(|(c, r, kernel, stride, normalise)| {
                let layer = |i: usize| conv((c[i], r[i]), kernel, stride, normalise);
                (layer(0), layer(1))
            });
        let residual = (growing(3), growing(2), 1..3usize).prop_map(|(c, r, stride)| {
            let layer = |i: usize| Layer::Residual {
                channels: c[i],
                stride,
                repeat: r[i],
                name: None,
            };
            (layer(0), layer(1))
        });
        let bottleneck =
            (growing(4), growing(2), growing(2), 1..3usize).prop_map(|(c, reduced, r, stride)| {
                let layer = |i: usize| Layer::Bottleneck {
                    channels: c[i],
                    reduced: reduced[i],
                    stride,
                    repeat: r[i],
                    name: None,
                };
                (layer(0), layer(1))
            });
        let inception =
            (growing(2), growing(2), growing(2), 1..3usize).prop_map(|(a, b, c, repeat)| {
                let layer = |i: usize| Layer::Inception {
                    single: a[i],
                    triple: [b[i], c[i]],
                    double_triple: [c[i], a[i]],
                    pooled: b[i],
                    repeat,
                };
                (layer(0), layer(1))
            });
        let local = growing(3).prop_map(|c| {
            let layer = |i: usize| Layer::LocallyConnected {
                channels: c[i],
                kernel: 3,
            };
            (layer(0), layer(1))
        });
        prop_oneof![
            3 => conv,
            3 => residual,
            2 => bottleneck,
            2 => inception,
            1 => local,
            1 => Just(both(Layer::Upsample { factor: 2 })),
        ]
    }

    fn pairs() -> impl Strategy<Value = Vec<Pair>> {
        let classifier = prop::collection::vec(pair(), 1..4).prop_map(|mut pairs| {
            let end = [
                Layer::GlobalAveragePool {},
                Layer::BatchNorm {},
                Layer::Dropout { p: 0.3 },
                Layer::Linear { outputs: None },
            ];
            pairs.extend(end.map(both));
            pairs
        });
        // Down and up again, with a concatenation; a residual block may take it as it is.
        let finder = (
            growing(3),
            growing(3),
            growing(2),
            prop::bool::weighted(0.5),
        )
            .prop_map(|(fine, coarse, repeat, as_it_is)| {
                let layers = |i: usize| {
                    let mut named = conv((fine[i], repeat[i]), 3, 1, true);
                    if let Layer::Conv { name, .. } = &mut named {
                        *name = Some("fine".to_owned());
                    }
                    let joined = fine[i] + coarse[i];
                    vec![
                        named,
                        Layer::MaxPool { size: 2 },
                        conv((coarse[i], repeat[i]), 3, 1, false),
                        Layer::Upsample { factor: 2 },
                        Layer::Concat {
                            with: "fine".to_owned(),
                        },
                        Layer::Residual {
                            channels: if as_it_is { joined } else { joined + 1 },
                            stride: 1,
                            repeat: repeat[i],
                            name: None,
                        },
                        Layer::Conv {
                            channels: 2,
                            kernel: 1,
                            stride: 1,
                            repeat: repeat[i],
                            plain: true,
                            normalise: true,
                            name: None,
                        },
                    ]
                };
                layers(0).into_iter().zip(layers(1)).collect()
            });
        let network = prop_oneof![3 => classifier, 2 => finder];
        (network, any::<bool>()).prop_map(|(pairs, standardised)| {
            let first = Layer::Standardise {
                mean: [0.0; 3],
                deviation: [1.0; 3],
                least_deviation: 0.1,
            };
            let first = standardised.then(|| both(first));
            first.into_iter().chain(pairs).collect()
        })
    }

    const SIZE: (usize, usize) = (12, 8);

    fn random(count: i64) -> Tensor {
        let size = [count, 3, SIZE.1 as i64, SIZE.0 as i64];
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    /// As after some training: all parameters are others than at the start, and so are the statistics.
    fn trained(layers: &[Layer], slope: f64) -> Network {
        let graph = Graph::build(layers, SIZE.0, SIZE.1, slope, 3).expect("a network");
        let network = Network::new(graph, Device::Cpu);
        tch::no_grad(|| {
            for (name, parameter) in network.parameters() {
                if name.ends_with("running_mean") || name.ends_with("running_var") {
                    continue;
                }
                let _ = parameter
                    .shallow_clone()
                    .g_add_(&(parameter.randn_like() * 0.3));
            }
            for _ in 0..20 {
                network.forward(&random(16), Mode::Train, Precision::Float32);
            }
        });
        network
    }

    fn outputs(network: &Network, input: &Tensor) -> Tensor {
        let outputs = network.forward(input, Mode::Evaluate, Precision::Float32);
        outputs.output.detach()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
        #[test]
        fn the_grown_network_computes_what_the_smaller_does(
            pairs in pairs(),
            slope in prop_oneof![Just(0.0), 0.0..1.0f64],
            seed in 0..1000i64,
        ) {
            tch::manual_seed(seed);
            let (small, large): (Vec<Layer>, Vec<Layer>) = pairs.into_iter().unzip();
            let old = trained(&small, slope);
            let inputs = [random(64), random(64)];
            let graph = Graph::build(&large, SIZE.0, SIZE.1, slope, 3).expect("a network");
            let new = match grow(&old, (&small, &large), graph, &inputs) {
                Ok(new) => new,
                Err(error) => {
                    // By chance the sizes are alike now.
                    let error = error.to_string();
                    prop_assert!(error.contains("its shortcut has a 1 × 1"), "{}", error);
                    return Ok(());
                }
            };
            for input in [&inputs[0], &random(32)] {
                let (a, b) = (outputs(&old, input), outputs(&new, input));
                let largest = a.abs().max().double_value(&[]);
                let difference = (&a - &b).abs().max().double_value(&[]);
                prop_assert!(
                    difference <= 1e-4 * largest,
                    "{} of {}: {:?} {:?}", difference, largest, small, large
                );
            }
        }
    }

    fn parse(layers: &str) -> Vec<Layer> {
        #[derive(serde::Deserialize)]
        struct Document {
            layers: Vec<Layer>,
        }
        let document = toml::from_str::<Document>(&format!("layers = [{layers}]"));
        document.expect("layers").layers
    }

    const SMALL: &str = r#"
        { op = "conv", channels = 4 },
        { op = "residual", channels = 6 },
        { op = "inception", single = 1, triple = [2, 2], double_triple = [2, 2], pooled = 1 },
        { op = "global_average_pool" },
        { op = "linear", outputs = 3 }"#;

    #[test]
    fn copies_of_a_channel_do_not_stay_alike() {
        tch::manual_seed(2);
        let (small, large) = (
            parse(SMALL),
            parse(&SMALL.replace("channels = 6", "channels = 12")),
        );
        let old = trained(&small, 0.3);
        let graph = Graph::build(&large, SIZE.0, SIZE.1, 0.3, 3).expect("a network");
        let new = grow(&old, (&small, &large), graph, &[random(8)]).expect("it grows");
        let input = random(8);
        let output = new.forward(&input, Mode::Train, Precision::Float32).output;
        output.square().sum(Kind::Float).backward();
        // Channel 1 and its copy 7 of the first convolution get other gradients.
        let gradient = new.parameter("l2_1a.weight").grad();
        let (one, copy) = (gradient.select(0, 1), gradient.select(0, 7));
        let difference = (&one - copy).abs().max().double_value(&[]);
        assert!(difference > 0.01 * one.abs().max().double_value(&[]));
    }

    #[test]
    fn what_is_no_growth_is_refused_with_the_layer() {
        tch::manual_seed(2);
        let small = parse(SMALL);
        let old = trained(&small, 0.3);
        let refusals = [
            (
                "channels = 4",
                "channels = 3",
                "layer 1 (conv): channels is 3",
            ),
            (
                "channels = 4",
                "channels = 4, kernel = 5",
                "layer 1 (conv): channels and repeat",
            ),
            (
                "channels = 4",
                "channels = 6",
                "layer 2 (residual): in the smaller network its shortcut",
            ),
            (
                "pooled = 1",
                "pooled = 1, repeat = 2",
                "layer 3 (inception): its channels may grow",
            ),
            (
                "residual",
                "conv",
                "layer 2 (conv): the smaller network has a layer residual",
            ),
            (
                "outputs = 3",
                "outputs = 4",
                "layer 5 (linear): channels and repeat",
            ),
            (
                "outputs = 3 }",
                "outputs = 3 }, { op = \"linear\", outputs = 3 }",
                "layer 6 (linear): the smaller network has only 5",
            ),
        ];
        for (from, to, words) in refusals {
            let large = parse(&SMALL.replacen(from, to, 1));
            let graph = Graph::build(&large, SIZE.0, SIZE.1, 0.3, 3).expect("a network");
            let error = grow(&old, (&small, &large), graph, &[random(2)]);
            let error = error.err().expect(to).to_string();
            assert!(error.starts_with(words), "{to}: {error}");
        }
    }
}
