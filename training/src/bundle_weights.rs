//! Weights of a network in a bundle, as the start of training: a bundle that flies is trained on, without the
//! run folders from which it came.
//!
//! In a bundle batch normalisation is folded into the convolution before it. Here it gets back what it needs for
//! training: each output channel's kernel the length that random ones have, on which the optimiser's steps are
//! meant, and the normalisation the statistics that the convolution has on samples, with a scale and a bias that
//! leave the function as it was.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use half::f16;
use prost::Message;
use recognition::bundle::{Bundle, LastLayer, Manifest, Role};
use tch::{Kind, Tensor};
use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto::DataType};

use crate::activations::{measure, sample_inputs};
use crate::graph::Op;
use crate::loader::Samples;
use crate::network::Network;
use crate::recipe::Recipe;

/// A network in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// Number of the classifier in the ensemble, from 1; of no meaning for other networks.
    pub member: usize,
    /// What a classifier's last layer starts from; `None` as the manifest says.
    pub last_layer: Option<LastLayerChoice>,
}

/// What the last layer of a classifier that is taken out of a bundle starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LastLayerChoice {
    /// Its part of the ensemble's, which is the average of its classifiers' own
    Averaged,
    /// Random numbers
    Random,
}

impl fmt::Display for LastLayerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Averaged => "averaged",
            Self::Random => "random",
        })
    }
}

/// What a network got out of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All layers.
    All,
    /// All layers but the last, which starts at random.
    AllButLast {
        /// Why.
        reason: String,
    },
    /// All layers, the last for some outputs; it starts at random for the others.
    LastLayer {
        /// Outputs that it was taken for.
        outputs: usize,
        /// Outputs that the network has.
        of: usize,
        /// By what it is known to be the average of the classifiers' own.
        reason: String,
    },
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all layers are taken"),
            Self::AllButLast { reason } => {
                write!(
                    f,
                    "all layers are taken but the last, which STARTS AT RANDOM: {reason}"
                )
            }
            Self::LastLayer {
                outputs,
                of,
                reason,
            } => {
                write!(
                    f,
                    "all layers are taken, the last for {outputs} of {of} outputs ({reason})"
                )?;
                if outputs < of {
                    write!(f, "; it STARTS AT RANDOM for the other {}", of - outputs)?;
                }
                Ok(())
            }
        }
    }
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
        // Biases of convolutions in 8 bits.
        let whole = graph.initializer.iter().filter_map(|tensor| {
            let name = tensor.name.strip_suffix(".int32")?;
            let steps = constants.get(&format!("{name}.step"))?;
            let chunks = tensor.raw_data.as_chunks().0.iter();
            let values: Vec<f32> = chunks.map(|b| i32::from_le_bytes(*b) as f32).collect();
            let values = Tensor::from_slice(&values).f_mul(steps).ok()?;
            Some((name.to_owned(), values))
        });
        let whole: Vec<(String, Tensor)> = whole.collect();
        constants.extend(whole);
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
/// catalogue lacks. What was taken is the result.
///
/// # Errors
/// The bundle cannot be read, its network has other layers or another normalisation of the input, it does not say how
/// its last layer was made, or that shall be taken and cannot be.
pub fn start_from(
    source: &Source,
    network: &Network,
    recipe: &Recipe,
    individuals: &[String],
    samples: &dyn Samples,
) -> anyhow::Result<Taken> {
    let bundle = Bundle::open(&source.bundle)?;
    let role = recipe.task.role();
    let role = role.context("bundles have no network for this task")?;
    let prefix = match role {
        Role::Finder | Role::Aligner => String::new(),
        Role::Ensemble => format!("m{}/", source.member),
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
    let taken = if role == Role::Ensemble {
        match judge(bundle.manifest(), source.last_layer)? {
            Judgement::Random { reason } => Taken::AllButLast { reason },
            Judgement::Take { reason } => {
                let manifest = bundle.manifest();
                let taken =
                    take_last_layer(network, &constants, manifest, source.member, individuals);
                let (outputs, of) = taken.context(
                    "its last layer cannot be taken; with --last-layer random the classifier's starts at random",
                )?;
                Taken::LastLayer {
                    outputs,
                    of,
                    reason,
                }
            }
        }
    } else {
        Taken::All
    };
    let inputs = sample_inputs(recipe, samples, network.device())?;
    tch::no_grad(|| give_statistics(network, &folded, &inputs));
    Ok(taken)
}

/// What becomes of a classifier's last layer, and by what that is known.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Take { reason: String },
    Random { reason: String },
}

/// Log losses nearer than this, with as many photographs named rightly, are those of one last layer: `stack --power
/// fit` changed them by up to 1.6e-5 in bundles that average, a last layer that is fitted changes them by hundredths.
const SAME_LOSS: f64 = 1e-4;

/// Whether the ensemble's last layer is the mean of its members' own.
///
/// # Errors
/// The manifest does not say, or says other than is asked for.
fn judge(manifest: &Manifest, asked: Option<LastLayerChoice>) -> anyhow::Result<Judgement> {
    let take = |reason: String| Ok(Judgement::Take { reason });
    let random = |reason: &str| {
        let reason = reason.to_owned();
        Ok(Judgement::Random { reason })
    };
    match (manifest.ensemble.last_layer, asked) {
        (_, Some(LastLayerChoice::Random)) => random("--last-layer asks for it"),
        (Some(LastLayer::Averaged), _) => {
            take("the average of its classifiers' own, as the manifest says".to_owned())
        }
        (Some(LastLayer::Fitted), None) => random(
            "the bundle's was fitted on photographs that its classifiers did not see, as the manifest says",
        ),
        (Some(LastLayer::Fitted), Some(LastLayerChoice::Averaged)) => bail!(
            "--last-layer averaged: its last layer was fitted on held-out photographs, as the manifest says; leave \
             the option out"
        ),
        (None, Some(LastLayerChoice::Averaged)) => {
            take("the average of its classifiers' own, as --last-layer says".to_owned())
        }
        (None, None) => {
            let metric = |name: &str| manifest.provenance.metrics.get(&format!("stack.{name}"));
            let (fitted, averaging) = (metric("held_out_log_loss"), metric("averaging_log_loss"));
            let right = metric("held_out_top1").zip(metric("averaging_top1"));
            if let (Some(fitted), Some(averaging)) = (fitted, averaging)
                && (fitted - averaging).abs() < SAME_LOSS
                && right.is_none_or(|(fitted, averaging)| fitted == averaging)
            {
                return take(format!(
                    "taken for the average of its classifiers' own, which the manifest, older than this version, does \
                     not say: its log loss on the held-out fold is {fitted:.5}, that of averaging {averaging:.5}"
                ));
            }
            let number =
                |value: Option<&f64>| value.map_or("not given".to_owned(), |v| format!("{v:.5}"));
            bail!(
                "an earlier version wrote its manifest, which does not say how the ensemble's last layer was made (log \
                 loss on the held-out fold {}, of averaging {}): give --last-layer averaged if `stack` averaged the \
                 classifiers, else --last-layer random",
                number(fitted),
                number(averaging)
            )
        }
    }
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

/// Columns of the ensemble's last layer that act on the features of classifier number `member`, from 1, and how many
/// classifiers there are. `own` and `columns` are how many features the network has and all of them have.
///
/// # Errors
/// It cannot be told, or the network has another number.
fn columns_of(
    manifest: &Manifest,
    member: usize,
    own: usize,
    columns: usize,
) -> anyhow::Result<(Range<usize>, usize)> {
    let networks = manifest.provenance.networks.iter();
    let classifiers: Vec<_> = networks.filter(|n| n.role == Role::Ensemble).collect();
    let widths = classifiers.iter().map(|network| network.features);
    // Older manifests say nothing of them; then all must be as wide.
    let widths: Vec<usize> = match widths.collect::<Option<Vec<usize>>>() {
        Some(widths) if !widths.is_empty() => widths,
        _ => vec![own; columns / own.max(1)],
    };
    ensure!(
        widths.iter().sum::<usize>() == columns,
        "it acts on {columns} features, which are not those of classifiers of {widths:?}"
    );
    let place = member.checked_sub(1).filter(|place| *place < widths.len());
    let place = place.with_context(|| format!("it has {} classifiers", widths.len()))?;
    ensure!(
        widths[place] == own,
        "{} of its features are those of classifier {member}, the recipe's network has {own}",
        widths[place]
    );
    let first: usize = widths[..place].iter().sum();
    Ok((first..first + own, widths.len()))
}

/// Gives a classifier's last layer its part of the ensemble's, which acts on the features of all members side by
/// side, standardised. Gives for how many outputs, and how many the layer has.
///
/// # Errors
/// That part cannot be told, or the layer is another one.
fn take_last_layer(
    network: &Network,
    constants: &Constants,
    manifest: &Manifest,
    member: usize,
    individuals: &[String],
) -> anyhow::Result<(usize, usize)> {
    let catalogue = &manifest.catalogue.individuals;
    let graph = network.graph();
    let node = graph.last_connected().filter(|n| n.op == Op::Linear);
    let node = node.context("the recipe's network does not end in a fully connected layer")?;
    let (weight, bias) = (constants.get("stack.weight")?, constants.get("stack.bias")?);
    let mean = constants.get("standardise.mean")?;
    let scale = constants.get("standardise.scale")?;
    let own = graph.inputs_of_channel(node);
    let [outputs, columns] = weight.size()[..] else {
        bail!("its last layer has another form than these programs write");
    };
    ensure!(
        outputs == catalogue.len() as i64,
        "it has {outputs} outputs for {} individuals",
        catalogue.len()
    );
    let (part, members) = columns_of(manifest, member, own, columns as usize)?;
    // weight · (features − mean) · scale + bias, without the standardisation
    let plain = weight * scale;
    let bias = bias - (&plain * mean).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let rows: HashMap<&String, i64> = catalogue.iter().zip(0..).collect();
    let parameter = |kind: &str| network.parameter(&format!("{}.{kind}", node.name));
    let mut taken = 0;
    for (row, individual) in individuals.iter().enumerate() {
        let Some(&from) = rows.get(individual) else {
            continue;
        };
        tch::no_grad(|| {
            // The mean over members, so each by itself has logits of that size.
            let own = plain
                .get(from)
                .narrow(0, part.start as i64, part.len() as i64)
                * members as f64;
            parameter("weight").get(row as i64).copy_(&own);
            parameter("bias").get(row as i64).copy_(&bias.get(from));
        });
        taken += 1;
    }
    Ok((taken, parameter("bias").size()[0] as usize))
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
    use crate::onnx::{Head, Interface, Storage, encode, ensemble, export};
    use crate::quantisation::{observe, quantise};
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

    /// The manifest of the released bundle.
    fn right_whales() -> Manifest {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let bundle = Bundle::open(models.join("right-whales")).unwrap();
        bundle.manifest().clone()
    }

    #[test]
    fn a_network_in_8_bits_can_be_gone_on_from() {
        let layers = r#"[
            {"op": "conv", "channels": 6, "stride": 2},
            {"op": "residual", "channels": 8, "repeat": 2},
            {"op": "conv", "channels": 5, "kernel": 1, "plain": true}
        ]"#;
        let layers: Vec<Layer> = serde_json::from_str(layers).unwrap();
        let graph = Graph::build(&layers, 20, 16, 0.1, 5).unwrap();
        let random = &mut ChaCha8Rng::seed_from_u64(4);
        let weights = Weights::of(&trained(&graph, random)).unwrap();
        let interface = Interface {
            input: "image",
            output: "finder",
            features: None,
        };
        let mut model = export(&graph, &weights, &interface, Storage::Int8).unwrap();
        let before = Constants::read(&encode(&model)).unwrap();
        let image = Vec::try_from(normal(&[3 * 16 * 20], random)).unwrap();
        let ranges = observe(&model, [image].into_iter(), (20, 16)).unwrap();
        quantise(&mut model, &ranges).unwrap();
        let after = Constants::read(&encode(&model)).unwrap();
        let mut biases = 0;
        for (name, value) in &before.0 {
            let found = after.get(name).unwrap();
            let off = (found - value).abs().max().double_value(&[]);
            let step = after.0.get(&format!("{name}.step"));
            biases += usize::from(step.is_some());
            let allowed = step.map_or(0.0, |step| 0.51 * step.max().double_value(&[]));
            assert!(off <= allowed, "{name}: {off} > {allowed}");
        }
        // Two residual blocks of two convolutions, and one in the first shortcut.
        assert_eq!(biases, 5);
    }

    #[test]
    fn a_last_layer_is_taken_or_random_for_a_reason_that_is_said() {
        let judged = |manifest: &Manifest, asked| judge(manifest, asked);
        let takes = |judgement: anyhow::Result<Judgement>, words: &str| {
            let Ok(Judgement::Take { reason }) = &judgement else {
                panic!("{judgement:?}");
            };
            assert!(reason.contains(words), "{reason}");
        };
        let refuses = |judgement: anyhow::Result<Judgement>, words: &str| {
            let error = judgement.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        // Averaged, whichever version wrote the manifest.
        let mut manifest = right_whales();
        takes(judged(&manifest, None), "average of its classifiers' own");

        manifest.ensemble.last_layer = None;
        let measured = |manifest: &mut Manifest, numbers: [f64; 4]| {
            let names = [
                "held_out_log_loss",
                "averaging_log_loss",
                "held_out_top1",
                "averaging_top1",
            ];
            for (name, number) in names.iter().zip(numbers) {
                manifest
                    .provenance
                    .metrics
                    .insert(format!("stack.{name}"), number);
            }
        };
        // right-whales 1.5.1 and 1.4.0, whose probabilities are raised to a power; 1.3.0, whose are not.
        for numbers in [
            [1.446879010589154, 1.446883776291852, 0.7, 0.7],
            [1.4815693817535613, 1.4815854184968962, 0.71875, 0.71875],
            [1.6952411580249869, 1.6952411580092726, 0.7, 0.7],
        ] {
            measured(&mut manifest, numbers);
            takes(judged(&manifest, None), "does not say");
        }
        // virtual-survey 1.1.0, and one that names as well by chance.
        for numbers in [
            [0.17121201218663867, 0.17304721516244106, 0.959, 0.959],
            [1.4468, 1.44683, 0.70625, 0.7],
        ] {
            measured(&mut manifest, numbers);
            refuses(judged(&manifest, None), "--last-layer averaged if");
            takes(
                judged(&manifest, Some(LastLayerChoice::Averaged)),
                "as --last-layer says",
            );
        }
        manifest.provenance.metrics.clear();
        refuses(judged(&manifest, None), "not given");

        manifest.ensemble.last_layer = Some(LastLayer::Fitted);
        let Ok(Judgement::Random { reason }) = judged(&manifest, None) else {
            panic!("a fitted layer was taken");
        };
        assert!(reason.contains("as the manifest says"), "{reason}");
        refuses(
            judged(&manifest, Some(LastLayerChoice::Averaged)),
            "was fitted",
        );
    }

    #[test]
    fn classifiers_of_other_widths_have_their_columns_where_the_manifest_says_it() {
        let mut manifest = right_whales();
        manifest.provenance.networks.clear();
        assert_eq!(columns_of(&manifest, 2, 8, 24).unwrap(), (8..16, 3));
        let error = columns_of(&manifest, 1, 8, 28).unwrap_err().to_string();
        assert!(error.contains("28 features"), "{error}");
        let network = |features: usize| recognition::bundle::NetworkProvenance {
            split_digest: None,
            role: Role::Ensemble,
            name: features.to_string(),
            recipe: "x".into(),
            recipe_sha256: "0".repeat(64),
            seed: None,
            weights_sha256: None,
            features: Some(features),
            metrics: Default::default(),
        };
        manifest.provenance.networks = vec![network(8), network(12), network(4)];
        assert_eq!(columns_of(&manifest, 2, 12, 24).unwrap(), (8..20, 3));
        for (member, own, words) in [
            (3, 8, "classifier 3"),
            (4, 4, "3 classifiers"),
            (0, 8, "3 classifiers"),
        ] {
            let error = columns_of(&manifest, member, own, 24)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
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
        let mut manifest = right_whales();
        manifest.catalogue.individuals = labels.to_vec();
        manifest.provenance.networks.clear();
        let taken = [1, 2].map(|member| {
            let network = Network::new(graph.clone(), Device::Cpu);
            let folded = take_layers(&network, &constants, &format!("m{member}/")).unwrap();
            let outputs = take_last_layer(&network, &constants, &manifest, member, &labels);
            assert_eq!(outputs.unwrap(), (3, 3));
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
