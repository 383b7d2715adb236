//! Convolutions in 8-bit numbers: static quantisation after training (Jacob et al. 2018; Nagel et al. 2021, "A white paper
//! on neural network quantization").
//!
//! The range of what goes into each convolution and comes out of it is [observed](observe) on photographs. [`quantise`]
//! then rounds these values to 256 steps over that range, by pairs of `QuantizeLinear` and `DequantizeLinear` around each
//! convolution, which engines with 8-bit instructions run as one 8-bit convolution and others as rounding. Steps are
//! unsigned with a zero of their own (0 lies where the range has it), in which processors of the x86 family multiply
//! fastest and which waste nothing on the few values below 0 that leaky ReLUs leave; TensorRT knows symmetric steps only
//! and leaves such convolutions to CUDA. The first convolution, which sees the photograph, and the last, whose output is
//! the answer, stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType,
};

use crate::onnx;

/// Steps from the beginning of a range to its end.
const STEPS: f32 = 255.0;

/// Of the photographs, the share whose least and largest values lie within the range. A few with odd ones would make the
/// steps of all others coarse.
const WITHIN: f64 = 0.9;

/// Ranges of values, by the values' names in the model; 0 is in each.
pub type Ranges = BTreeMap<String, Range>;

/// The range of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// At most 0.
    pub least: f32,
    /// At least 0.
    pub largest: f32,
}

impl Range {
    fn step(self) -> f32 {
        let step = (self.largest - self.least) / STEPS;
        // Of a value that is always 0 any step will do.
        if step > 0.0 { step } else { 1.0 }
    }

    fn zero(self) -> u8 {
        // Rounded into 0…255 by the range's own definition.
        (-self.least / self.step()).round() as u8
    }
}

/// The values of `model` that [`quantise`] rounds: input and output of each convolution but the first and the last.
fn rounded(graph: &GraphProto) -> BTreeSet<String> {
    let ends = |node: &NodeProto| [node.input[0].clone(), node.output[0].clone()];
    inner(graph).into_iter().flat_map(ends).collect()
}

fn inner(graph: &GraphProto) -> Vec<&NodeProto> {
    let convolutions = graph.node.iter().filter(|node| node.op_type == "Conv");
    let convolutions: Vec<_> = convolutions.collect();
    match &convolutions[..] {
        [_, inner @ .., _] => inner.to_vec(),
        _ => Vec::new(),
    }
}

fn graph(model: &ModelProto) -> anyhow::Result<&GraphProto> {
    model.graph.as_ref().context("the model has no graph")
}

/// Runs the model on each input, `3 × height × width` in the network's normalised units, and gives the range of each value
/// that [`quantise`] rounds.
///
/// # Errors
/// The built-in engine cannot run the model, or there is no input.
pub fn observe(
    model: &ModelProto,
    inputs: impl ExactSizeIterator<Item = Vec<f32>>,
    size: (usize, usize),
) -> anyhow::Result<Ranges> {
    use tract_onnx::prelude::*;

    ensure!(inputs.len() > 0, "no photographs to observe values on");
    let names = rounded(graph(model)?);
    let mut telling = model.clone();
    let outputs = names.iter().map(|name| ValueInfoProto {
        name: name.clone(),
        ..ValueInfoProto::default()
    });
    telling.graph.as_mut().context("no graph")?.output = outputs.collect();
    let plan = tract_onnx::onnx()
        .model_for_read(&mut &*onnx::encode(&telling))?
        .into_optimized()?
        .into_runnable()?;
    let mut ends: Vec<[Vec<f32>; 2]> = names.iter().map(|_| Default::default()).collect();
    for input in inputs {
        let input = Tensor::from_shape(&[1, 3, size.1, size.0], &input)?;
        let values = plan.run(tvec!(input.into()))?;
        for ([least, largest], value) in ends.iter_mut().zip(&values) {
            let value = value.to_plain_array_view::<f32>()?;
            least.push(value.iter().fold(0.0_f32, |least, v| least.min(*v)));
            largest.push(value.iter().fold(0.0_f32, |largest, v| largest.max(*v)));
        }
    }
    let range = |[mut least, mut largest]: [Vec<f32>; 2]| {
        least.sort_by(|a, b| b.total_cmp(a));
        largest.sort_by(f32::total_cmp);
        let last = ((largest.len() - 1) as f64 * WITHIN).round() as usize;
        Range {
            least: least[last],
            largest: largest[last],
        }
    };
    Ok(names.into_iter().zip(ends.into_iter().map(range)).collect())
}

/// Has the inner convolutions computed in 8 bits.
///
/// # Errors
/// It computes in 8 bits already, the weights are not stored as int8, a value was not observed, or was not finite.
pub fn quantise(model: &mut ModelProto, ranges: &Ranges) -> anyhow::Result<()> {
    let is_rounded = graph(model)?
        .node
        .iter()
        .any(|node| node.op_type == "QuantizeLinear");
    ensure!(!is_rounded, "it computes in 8 bits already");
    let names = rounded(graph(model)?);
    let inner: BTreeSet<String> = inner(graph(model)?)
        .into_iter()
        .map(|node| node.name.clone())
        .collect();
    let graph = model.graph.as_mut().context("no graph")?;
    for name in &names {
        let range = ranges
            .get(name)
            .with_context(|| format!("{name} was not observed"))?;
        ensure!(
            range.least.is_finite() && range.largest.is_finite(),
            "{name} was {range:?}"
        );
    }
    let mut nodes = Vec::with_capacity(2 * graph.node.len());
    let mut initializers = Vec::new();
    let outputs: BTreeSet<String> = graph
        .node
        .iter()
        .filter(|node| inner.contains(&node.name))
        .map(|node| node.output[0].clone())
        .collect();
    for mut node in std::mem::take(&mut graph.node) {
        let convolution = inner.contains(&node.name);
        if convolution {
            let step = ranges[&node.input[0]].step();
            let bias = whole_bias(&graph.initializer, &nodes, &node, step)?;
            initializers.extend(bias.constants);
            node.input[2] = bias.node.output[0].clone();
            nodes.push(bias.node);
        }
        for (index, input) in node.input.iter_mut().enumerate() {
            // Whoever reads a convolution reads it rounded; what goes into one is rounded for it alone.
            if outputs.contains(input) || (convolution && index == 0) {
                *input = format!("{input}/rounded");
            }
        }
        let made = node.output[0].clone();
        nodes.push(node);
        if names.contains(&made) {
            let (pair, constants) = round(&made, ranges[&made]);
            nodes.extend(pair);
            initializers.extend(constants);
        }
    }
    graph.node = nodes;
    graph.initializer.extend(initializers);
    // Biases as they were, which nobody reads now.
    let read: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
    let unread: BTreeSet<String> = graph
        .initializer
        .iter()
        .filter(|constant| !read.contains(&constant.name))
        .map(|constant| constant.name.clone())
        .collect();
    graph
        .initializer
        .retain(|constant| !unread.contains(&constant.name));
    Ok(())
}

/// What stands for a bias in 8-bit convolutions, which add it in the steps of their products.
struct WholeBias {
    /// Widens it.
    node: NodeProto,
    constants: [TensorProto; 3],
}

/// The bias of a convolution whose input has this step; the nodes before it are given.
fn whole_bias(
    constants: &[TensorProto],
    before: &[NodeProto],
    node: &NodeProto,
    input_step: f32,
) -> anyhow::Result<WholeBias> {
    let name = &node.name;
    let constant = |name: &str| {
        let found = constants.iter().find(|constant| constant.name == name);
        let found = found.with_context(|| format!("{name} is no constant"))?;
        anyhow::Ok(floats(found))
    };
    ensure!(node.input.len() == 3, "convolution {name} has no bias");
    let mut widens = before
        .iter()
        .filter(|other| other.op_type == "DequantizeLinear");
    let widened = widens
        .find(|other| other.output[0] == node.input[1])
        .with_context(|| format!("the weights of {name} are not stored as int8"))?;
    let steps: Vec<f32> = constant(&widened.input[1])?
        .into_iter()
        .map(|weight_step| weight_step * input_step)
        .collect();
    let bias = constant(&node.input[2])?;
    ensure!(
        bias.len() == steps.len(),
        "{name} has {} biases for {} channels",
        bias.len(),
        steps.len()
    );
    let in_steps = bias.iter().zip(&steps).map(|(bias, step)| {
        let whole = f64::from(*bias) / f64::from(*step);
        whole.round() as i32
    });
    let [whole_name, step_name, zero_name] =
        ["int32", "step", "zero"].map(|part| format!("{name}.bias.{part}"));
    let channels = [steps.len() as i64];
    let zeros = vec![0; 4 * steps.len()];
    let constants = [
        tensor(
            &whole_name,
            &channels,
            DataType::Int32,
            in_steps.flat_map(i32::to_le_bytes).collect(),
        ),
        tensor(
            &step_name,
            &channels,
            DataType::Float,
            steps.iter().flat_map(|step| step.to_le_bytes()).collect(),
        ),
        tensor(&zero_name, &channels, DataType::Int32, zeros),
    ];
    let output = format!("{name}.bias/widened");
    let mut node = node_of(
        "DequantizeLinear",
        &output,
        &[whole_name, step_name, zero_name],
    );
    node.attribute.push(AttributeProto {
        name: "axis".to_owned(),
        r#type: AttributeType::Int as i32,
        i: 0,
        ..AttributeProto::default()
    });
    Ok(WholeBias { node, constants })
}

/// The nodes that round a value to the steps of its range, the last of which gives `{value}/rounded`, and their constants.
fn round(value: &str, range: Range) -> ([NodeProto; 2], [TensorProto; 2]) {
    let (step_name, zero_name) = (format!("{value}.step"), format!("{value}.zero"));
    let steps = format!("{value}/steps");
    let pair = [
        node_of(
            "QuantizeLinear",
            &steps,
            &[value.to_owned(), step_name.clone(), zero_name.clone()],
        ),
        node_of(
            "DequantizeLinear",
            &format!("{value}/rounded"),
            &[steps.clone(), step_name.clone(), zero_name.clone()],
        ),
    ];
    let constants = [
        tensor(
            &step_name,
            &[],
            DataType::Float,
            range.step().to_le_bytes().to_vec(),
        ),
        tensor(&zero_name, &[], DataType::Uint8, vec![range.zero()]),
    ];
    (pair, constants)
}

fn node_of(op: &str, name: &str, inputs: &[String]) -> NodeProto {
    NodeProto {
        name: name.to_owned(),
        op_type: op.to_owned(),
        input: inputs.to_vec(),
        output: vec![name.to_owned()],
        ..NodeProto::default()
    }
}

fn tensor(name: &str, dims: &[i64], kind: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: kind as i32,
        raw_data,
        ..TensorProto::default()
    }
}

fn floats(constant: &TensorProto) -> Vec<f32> {
    let chunks = constant.raw_data.chunks_exact(4);
    chunks
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};
    use tch::{Device, Tensor};

    use super::*;
    use crate::commands::export::run_builtin;
    use crate::graph::{Graph, Layer};
    use crate::network::Network;
    use crate::onnx::{Interface, Storage, export};
    use crate::weights::Weights;

    const SIZE: (usize, usize) = (32, 24);
    const LAYERS: &str = r#"[
        {"op": "conv", "channels": 6, "stride": 2},
        {"op": "residual", "channels": 8, "stride": 2, "repeat": 2, "name": "deep"},
        {"op": "upsample"},
        {"op": "conv", "channels": 8},
        {"op": "conv", "channels": 5, "kernel": 1, "plain": true}
    ]"#;

    fn network(seed: u64, storage: Storage) -> ModelProto {
        tch::manual_seed(seed as i64);
        let layers: Vec<Layer> = serde_json::from_str(LAYERS).unwrap();
        let graph = Graph::build(&layers, SIZE.0, SIZE.1, 0.1, 5).unwrap();
        let network = Network::new(graph.clone(), Device::Cpu);
        let interface = Interface {
            input: "image",
            output: "finder",
            features: None,
        };
        export(&graph, &Weights::of(&network).unwrap(), &interface, storage).unwrap()
    }

    fn images(seed: u64, count: usize) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = 3 * SIZE.0 * SIZE.1;
        let mut image = || StandardNormal.sample_iter(&mut rng).take(values).collect();
        (0..count).map(|_| image()).collect()
    }

    fn run(model: &ModelProto, image: &[f32]) -> Vec<f32> {
        let input = Tensor::from_slice(image).view([1, 3, SIZE.1 as i64, SIZE.0 as i64]);
        run_builtin(&onnx::encode(model), &input).unwrap().remove(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// The answers stay what they are but for a few steps, and the file is one that is read from front to back.
        #[test]
        fn rounding_changes_little(seed in 0..1000_u64) {
            let exact = network(seed, Storage::Int8);
            let seen = images(seed, 4);
            let ranges = observe(&exact, seen.iter().cloned(), SIZE).unwrap();
            let mut model = exact.clone();
            quantise(&mut model, &ranges).unwrap();
            let graph = model.graph.as_ref().unwrap();
            let mut known: BTreeSet<&str> = graph.initializer.iter().map(|i| i.name.as_str()).collect();
            known.insert("image");
            for node in &graph.node {
                for input in node.input.iter().filter(|input| !input.is_empty()) {
                    prop_assert!(known.contains(input.as_str()), "{input} is read before it is there");
                }
                known.extend(node.output.iter().map(String::as_str));
            }
            let rounds = graph.node.iter().filter(|node| node.op_type == "QuantizeLinear");
            prop_assert_eq!(rounds.count(), ranges.len());
            for image in &seen {
                let (before, after) = (run(&exact, image), run(&model, image));
                let range = before.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                let off = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
                let off = off.fold(0.0, f32::max);
                prop_assert!(off > 0.0 && off < 0.1 * range, "{off} of {range}");
            }
        }
    }

    #[test]
    fn the_ends_stay_and_a_few_odd_photographs_do_not_count() {
        let model = network(1, Storage::Int8);
        let seen = images(2, 3);
        let all = observe(&model, seen.iter().cloned(), SIZE).unwrap();
        let graph = model.graph.as_ref().unwrap();
        let convolutions = graph.node.iter().filter(|node| node.op_type == "Conv");
        let convolutions: Vec<_> = convolutions.collect();
        assert!(!all.contains_key(&convolutions[0].input[0]));
        assert!(!all.contains_key(&convolutions[convolutions.len() - 1].output[0]));
        let of = |images: Vec<Vec<f32>>| observe(&model, images.into_iter(), SIZE).unwrap();
        let each: Vec<Ranges> = seen.iter().map(|image| of(vec![image.clone()])).collect();
        for (name, range) in &all {
            let largest = each.iter().map(|one| one[name].largest);
            assert_eq!(range.largest, largest.fold(0.0, f32::max), "{name}");
            let least = each.iter().map(|one| one[name].least);
            assert_eq!(range.least, least.fold(0.0, f32::min), "{name}");
            assert!(range.least < range.largest, "{name}");
        }
        let many: Vec<_> = images(2, 20);
        let mut odd = many.clone();
        odd[7].iter_mut().for_each(|v| *v *= 100.0);
        let (many, odd) = (of(many), of(odd));
        for (name, range) in &odd {
            let width = |range: &Range| range.largest - range.least;
            assert!(width(range) < 2.0 * width(&many[name]), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_computed_in_8_bits_is_refused() {
        let mut model = network(1, Storage::Float32);
        let ranges = observe(&model, images(2, 1).into_iter(), SIZE).unwrap();
        let refused = quantise(&mut model, &ranges).unwrap_err().to_string();
        assert!(refused.contains("int8"), "{refused}");
        let mut model = network(1, Storage::Int8);
        quantise(&mut model, &ranges).unwrap();
        let twice = quantise(&mut model, &ranges).unwrap_err().to_string();
        assert!(twice.contains("already"), "{twice}");
        let mut model = network(1, Storage::Int8);
        let refused = quantise(&mut model, &Ranges::new()).unwrap_err();
        assert!(refused.to_string().contains("not observed"));
        assert!(observe(&model, std::iter::empty(), SIZE).is_err());
    }
}
