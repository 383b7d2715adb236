//! Weights of a network in a bundle, as the start of training: a bundle that flies is trained on, without the
//! run folders from which it came.
//!
//! In a bundle batch normalisation is folded into the convolution before it. Here it gets back what it needs for
//! training: each output channel's kernel the length that random ones have, on which the optimiser's steps are
//! meant, and the normalisation the statistics that the convolution has on samples, with a scale and a bias that
//! leave the function as it was.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use callosity::bundle::{Bundle, Role};
use half::f16;
use prost::Message;
use tch::{Kind, Tensor};
use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto::DataType};

use crate::activations::{measure, sample_inputs};
use crate::graph::Op;
use crate::loader::Samples;
use crate::network::Network;
use crate::recipe::{Recipe, Task};

/// A network in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// Number of the classifier in the ensemble, from 1; of no meaning for other networks.
    pub member: usize,
}

/// The constants of an ONNX file by their names in the graph.
struct Constants(HashMap<String, Tensor>);

impl Constants {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let model = ModelProto::decode(bytes).context("it is no ONNX file")?;
        let graph = model.graph.context("it has no graph")?;
        let constants = graph.initializer.iter().filter_map(|tensor| {
            let name = tensor.name.strip_suffix(".half").unwrap_or(&tensor.name);
            Some((name.to_owned(), floats(tensor)?))
        });
        let mut constants: HashMap<String, Tensor> = constants.collect();
        let steps = graph.initializer.iter().filter_map(|tensor| {
            let name = tensor.name.strip_suffix(".int8")?;
            Some((name, tensor, constants.get(&format!("{name}.scale"))?))
        });
        let widened: Vec<(String, Tensor)> = steps
            .filter_map(|(name, tensor, scale)| {
                let values: Vec<f32> = tensor
                    .raw_data
                    .iter()
                    .map(|b| f32::from(*b as i8))
                    .collect();
                let rows = *tensor.dims.first()?;
                let values = Tensor::from_slice(&values).f_view([rows, -1]).ok()?;
                let widened = (values * scale.unsqueeze(1)).f_view(&*tensor.dims).ok()?;
                Some((name.to_owned(), widened))
            })
            .collect();
        constants.extend(widened);
        Ok(Self(constants))
    }

    fn get(&self, name: &str) -> anyhow::Result<&Tensor> {
        self.0.get(name).with_context(|| {
            format!("it has no {name}; the recipe's layers are not those of the bundle's network")
        })
    }
}

/// A constant as float32; `None` where it is none of real numbers.
fn floats(tensor: &TensorProto) -> Option<Tensor> {
    let bytes = &tensor.raw_data;
    let values: Vec<f32> = if tensor.data_type == DataType::Float as i32 {
        let chunks = bytes.as_chunks().0.iter();
        chunks.map(|b| f32::from_le_bytes(*b)).collect()
    } else if tensor.data_type == DataType::Float16 as i32 {
        let chunks = bytes.as_chunks().0.iter();
        chunks.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
    } else {
        return None;
    };
    let size = tensor.dims.iter().product::<i64>();
    (values.len() as i64 == size).then(|| Tensor::from_slice(&values).view(&*tensor.dims))
}

/// Gives `network`, that of `recipe`, the weights that the same layers have in a bundle. Statistics of
/// normalisation are measured on some of `samples`, which are those of `recipe`. A classifier's last layer gets
/// its part of the ensemble's, by the names of `individuals`, where that is the mean of its members' own; one that
/// was fitted has seen the held-out fold, so the classifier's stays as it is. So do rows of individuals that the
/// catalogue lacks.
///
/// # Errors
/// The bundle cannot be read, or its network has other layers or another normalisation of the input.
pub fn start_from(
    source: &Source,
    network: &Network,
    recipe: &Recipe,
    individuals: &[String],
    samples: &dyn Samples,
) -> anyhow::Result<()> {
    let bundle = Bundle::open(&source.bundle)?;
    let (role, prefix) = match recipe.task {
        Task::Finder => (Role::Finder, String::new()),
        Task::Aligner => (Role::Aligner, String::new()),
        Task::Classifier => (Role::Ensemble, format!("m{}/", source.member)),
        Task::Localiser | Task::Pretraining => bail!("bundles have no network for this task"),
    };
    let (declared, bytes) = bundle
        .manifest()
        .network(role)
        .zip(bundle.network_bytes(role)?)
        .context("it has no such network")?;
    let input = recipe.input.network_input();
    ensure!(
        (declared.input.mean, declared.input.std) == (input.mean, input.std),
        "its network takes input of mean {:?} and standard deviation {:?}, the recipe of {:?} and {:?}",
        declared.input.mean,
        declared.input.std,
        input.mean,
        input.std
    );
    let constants = Constants::read(&bytes).with_context(|| declared.file.clone())?;
    let folded =
        take_layers(network, &constants, &prefix).with_context(|| declared.file.clone())?;
    if role == Role::Ensemble && averages(&bundle) {
        let catalogue = &bundle.manifest().catalogue.individuals;
        take_last_layer(network, &constants, source.member, catalogue, individuals);
    }
    let inputs = sample_inputs(recipe, samples, network.device())?;
    tch::no_grad(|| give_statistics(network, &folded, &inputs));
    Ok(())
}

/// Whether the ensemble's last layer is the mean of its members' own, as nothing that was fitted on the held-out
/// fold was better there.
fn averages(bundle: &Bundle) -> bool {
    let metrics = &bundle.manifest().provenance.metrics;
    let loss = |name: &str| metrics.get(&format!("stack.{name}_log_loss"));
    let losses = loss("held_out").zip(loss("averaging"));
    losses.is_some_and(|(fitted, averaging)| (fitted - averaging).abs() < 1e-6)
}

/// A normalisation that was folded into the convolution before it.
struct Folded {
    conv: usize,
    norm: usize,
    eps: f64,
}

/// Copies all layers but a classifier's last. Normalisations that were folded pass on what the convolution gives
/// in its old scale, with mean 0 and variance 1 as their statistics until they are measured.
fn take_layers(
    network: &Network,
    constants: &Constants,
    prefix: &str,
) -> anyhow::Result<Vec<Folded>> {
    let graph = network.graph();
    let set = |name: &str, value: &Tensor| -> anyhow::Result<()> {
        let parameter = network.parameter(name);
        ensure!(
            parameter.size() == value.size(),
            "{prefix}{name} is {:?}, the recipe's layer {:?}",
            value.size(),
            parameter.size()
        );
        tch::no_grad(|| parameter.shallow_clone().copy_(value));
        Ok(())
    };
    // A classifier's own last layer is not in a bundle.
    let last = (!prefix.is_empty())
        .then(|| graph.last_connected())
        .flatten();
    let mut folded = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let name = &node.name;
        let copy = |kind: &str| {
            let constant = constants.get(&format!("{prefix}{name}.{kind}"))?;
            set(&format!("{name}.{kind}"), constant)
        };
        match node.op {
            Op::Conv { bias: true, .. } => {
                copy("weight")?;
                copy("bias")?;
            }
            Op::Linear if last.is_none_or(|l| l.name != *name) => {
                copy("weight")?;
                copy("bias")?;
            }
            Op::BatchNorm { eps } => {
                let conv = node.inputs[0];
                let follows_conv = matches!(graph.nodes[conv].op, Op::Conv { bias: false, .. });
                if !follows_conv {
                    for kind in ["weight", "bias", "running_mean", "running_var"] {
                        copy(kind)?;
                    }
                    continue;
                }
                let kernels = constants.get(&format!("{prefix}{name}.weight"))?;
                let length = kernels.flatten(1, -1).norm_scalaropt_dim(2, [1], false);
                // The length of kernels with the variance of He et al. 2015.
                let scale = (length / 2f64.sqrt()).clamp_min(1e-12);
                let conv_name = &graph.nodes[conv].name;
                let weight = kernels / scale.view([-1, 1, 1, 1]);
                set(&format!("{conv_name}.weight"), &weight)?;
                set(&format!("{name}.weight"), &scale)?;
                copy("bias")?;
                set(&format!("{name}.running_mean"), &scale.zeros_like())?;
                let variance = scale.ones_like() - eps;
                set(&format!("{name}.running_var"), &variance)?;
                folded.push(Folded {
                    conv,
                    norm: index,
                    eps,
                });
            }
            Op::LocallyConnected { .. } | Op::HeadSampler { .. } => {
                bail!("layer {name}: networks with this layer cannot be taken out of a bundle")
            }
            _ => {}
        }
    }
    Ok(folded)
}

/// Gives folded normalisations the statistics that their convolutions have on `inputs`; what they compute with
/// these statistics stays.
fn give_statistics(network: &Network, folded: &[Folded], inputs: &[Tensor]) {
    let convs: Vec<usize> = folded.iter().map(|f| f.conv).collect();
    let measured = measure(network, &convs, inputs);
    for &Folded { conv, norm, eps } in folded {
        let name = &network.graph().nodes[norm].name;
        let parameter = |kind: &str| network.parameter(&format!("{name}.{kind}")).shallow_clone();
        let range = &measured[&conv];
        let mean = range.mean.to_kind(Kind::Float);
        let spread = (&range.variance + eps).sqrt().to_kind(Kind::Float);
        let scale = parameter("weight").copy();
        parameter("bias").copy_(&(parameter("bias") + &scale * &mean));
        parameter("weight").copy_(&(scale * spread));
        parameter("running_mean").copy_(&mean);
        parameter("running_var").copy_(&range.variance.to_kind(Kind::Float));
    }
}

/// Gives a classifier's last layer its part of the ensemble's, which acts on the features of all members side by
/// side, standardised. It stays random where that part cannot be told.
fn take_last_layer(
    network: &Network,
    constants: &Constants,
    member: usize,
    catalogue: &[String],
    individuals: &[String],
) {
    let graph = network.graph();
    let Some(node) = graph.last_connected().filter(|n| n.op == Op::Linear) else {
        return;
    };
    let features = graph.inputs_of_channel(node) as i64;
    let of = |name: &str| constants.0.get(name);
    let (Some(weight), Some(bias)) = (of("stack.weight"), of("stack.bias")) else {
        return;
    };
    let (Some(mean), Some(scale)) = (of("standardise.mean"), of("standardise.scale")) else {
        return;
    };
    let members = weight.size()[1] / features;
    let first = (member as i64 - 1) * features;
    // Members of other widths than this one: which columns are whose is not in the file.
    let alike = members * features == weight.size()[1] && first + features <= weight.size()[1];
    if !alike || weight.size()[0] != catalogue.len() as i64 {
        return;
    }
    // weight · (features − mean) · scale + bias, without the standardisation
    let plain = weight * scale;
    let bias = bias - (&plain * mean).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let rows: HashMap<&String, i64> = catalogue.iter().zip(0..).collect();
    let parameter = |kind: &str| network.parameter(&format!("{}.{kind}", node.name));
    for (row, individual) in individuals.iter().enumerate() {
        let Some(&from) = rows.get(individual) else {
            continue;
        };
        tch::no_grad(|| {
            // The mean over members, so each by itself has logits of that size.
            let own = plain.get(from).narrow(0, first, features) * members as f64;
            parameter("weight").get(row as i64).copy_(&own);
            parameter("bias").get(row as i64).copy_(&bias.get(from));
        });
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};
    use tch::Device;

    use super::*;
    use crate::graph::{Graph, Layer};
    use crate::network::{Mode, Precision};
    use crate::onnx::{Head, Interface, Storage, encode, ensemble};
    use crate::weights::Weights;

    fn normal(shape: &[i64], random: &mut ChaCha8Rng) -> Tensor {
        let length = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = StandardNormal.sample_iter(random).take(length).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// A network as if trained: all of its normalisations have statistics and a scale of their own.
    fn trained(graph: &Graph, random: &mut ChaCha8Rng) -> Network {
        let network = Network::new(graph.clone(), Device::Cpu);
        tch::no_grad(|| {
            for (name, parameter) in network.parameters() {
                let drawn = normal(&parameter.size(), random) * 0.3;
                let mut parameter = parameter.shallow_clone();
                let value = if name.ends_with("running_var") {
                    drawn.exp()
                } else {
                    &parameter + drawn
                };
                parameter.copy_(&value);
            }
        });
        network
    }

    #[test]
    fn members_taken_out_of_an_ensemble_give_its_logits_and_are_ready_for_training() {
        #[derive(serde::Deserialize)]
        struct Document {
            layers: Vec<Layer>,
        }
        let text = r#"layers = [
            { op = "conv", channels = 4, stride = 2 },
            { op = "residual", channels = 6, stride = 2 },
            { op = "inverted_residual", channels = 6, expansion = 2 },
            { op = "conv", channels = 5, normalise = false },
            { op = "global_average_pool" },
            { op = "batch_norm" },
            { op = "dropout", p = 0.5 },
            { op = "linear" },
        ]"#;
        let layers = toml::from_str::<Document>(text).unwrap().layers;
        let graph = Graph::build(&layers, 20, 16, 0.1, 3).unwrap();
        let random = &mut ChaCha8Rng::seed_from_u64(4);
        let members = [trained(&graph, random), trained(&graph, random)];
        let weights = members.each_ref().map(|m| Weights::of(m).unwrap());
        let floats = |shape: &[i64], random: &mut ChaCha8Rng| -> Vec<f32> {
            Vec::try_from(normal(shape, random).flatten(0, -1)).unwrap()
        };
        let head = Head {
            mean: floats(&[10], random),
            std: floats(&[10], random).iter().map(|v| v.exp()).collect(),
            whitening: None,
            weight: floats(&[3, 10], random),
            bias: floats(&[3], random),
        };
        let interface = Interface {
            input: "image",
            output: "logits",
            features: None,
        };
        let parts = [(&graph, &weights[0]), (&graph, &weights[1])];
        let file = encode(&ensemble(&parts, &head, &interface, Storage::Float32).unwrap());
        let constants = Constants::read(&file).unwrap();

        let input = normal(&[8, 3, 16, 20], random);
        let evaluate = |n: &Network| n.forward(&input, Mode::Evaluate, Precision::Float32);
        let features = members.each_ref().map(|m| evaluate(m).features.unwrap());
        let of = |values: &[f32]| Tensor::from_slice(values);
        let standardised = (Tensor::cat(&features, 1) - of(&head.mean)) / of(&head.std);
        let expected = standardised.matmul(&of(&head.weight).view([3, 10]).tr()) + of(&head.bias);

        let labels = ["a", "b", "c"].map(str::to_owned);
        let taken = [1, 2].map(|member| {
            let network = Network::new(graph.clone(), Device::Cpu);
            let folded = take_layers(&network, &constants, &format!("m{member}/")).unwrap();
            take_last_layer(&network, &constants, member, &labels, &labels);
            tch::no_grad(|| give_statistics(&network, &folded, std::slice::from_ref(&input)));
            network
        });
        let logits = taken.each_ref().map(|n| evaluate(n).output);
        let difference =
            (Tensor::stack(&logits, 0).mean_dim([0i64].as_slice(), false, Kind::Float) - &expected)
                .abs()
                .max()
                .double_value(&[]);
        assert!(difference < 1e-3, "{difference}");

        // Their statistics are those of what they see, so a batch's own change nothing but what follows the
        // running ones that the bundle kept.
        let network = &taken[0];
        let features = |mode| {
            let mut found = Tensor::new();
            tch::no_grad(|| {
                network.forward_observed(&input, mode, Precision::Float32, &mut |node, value| {
                    if network.graph().nodes[node].op == Op::GlobalAveragePool {
                        found = value.copy();
                    }
                })
            });
            found
        };
        // Training mode moves the running statistics.
        let evaluated = features(Mode::Evaluate);
        let difference = (features(Mode::Train) - evaluated).abs().max();
        assert!(difference.double_value(&[]) < 1e-3, "{difference:?}");

        let other = text.replace("channels = 5", "channels = 7");
        let layers = toml::from_str::<Document>(&other).unwrap().layers;
        let network = Network::new(Graph::build(&layers, 20, 16, 0.1, 3).unwrap(), Device::Cpu);
        let error = take_layers(&network, &constants, "m1/").err().unwrap();
        assert!(error.to_string().contains("m1/l4_1.weight"), "{error}");
    }
}
