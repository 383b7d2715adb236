//! Exported files against libtorch, the built-in engine, ONNX's own checker and ONNX Runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use callosity_training::graph::{Graph, Layer, Op};
use callosity_training::network::{Mode, Network, Precision};
use callosity_training::onnx::{ExportError, Head, Interface, Storage, encode, ensemble, export};
use callosity_training::weights::{ParameterError, Weights};
use proptest::prelude::*;
use recognition::geometry::HeadCrop;
use tch::{Device, Kind, Tensor};
use tract_onnx::prelude::*;

const INTERFACE: Interface<'_> = Interface {
    input: "image",
    output: "logits",
    features: None,
};

/// A network with parameters and running statistics drawn at random, as if trained.
fn random_network(graph: Graph, seed: i64) -> Network {
    tch::manual_seed(seed);
    let network = Network::new(graph, Device::Cpu);
    tch::no_grad(|| {
        for (name, parameter) in network.parameters() {
            let noise = Tensor::rand_like(parameter);
            let mut parameter = parameter.shallow_clone();
            let value = match name.rsplit('.').next() {
                Some("running_var") => noise + 0.5,
                Some("running_mean" | "bias") => noise - 0.5,
                _ if name.contains("_norm") => noise + 0.5,
                _ => continue,
            };
            parameter.copy_(&value);
        }
    });
    network
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view([-1])).unwrap()
}

/// Runs a file in the built-in engine.
fn run_tract(bytes: &[u8], input: &Tensor) -> Vec<Vec<f32>> {
    let model = tract_onnx::onnx()
        .model_for_read(&mut &*bytes)
        .and_then(|m| m.into_optimized())
        .and_then(|m| m.into_runnable())
        .unwrap_or_else(|e| panic!("{e:#}"));
    let shape: Vec<usize> = input.size().iter().map(|&d| d as usize).collect();
    let input = tract_onnx::prelude::Tensor::from_shape(&shape, &floats(input)).unwrap();
    let outputs = model.run(tvec!(input.into())).unwrap();
    outputs
        .iter()
        .map(|o| {
            o.to_plain_array_view::<f32>()
                .unwrap()
                .iter()
                .copied()
                .collect()
        })
        .collect()
}

/// Largest difference, relative to the values' size where they are above 1.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0))
        .fold(0.0, f32::max)
}

fn conv(channels: usize, kernel: usize, stride: usize, name: Option<&str>) -> Layer {
    Layer::Conv {
        channels,
        kernel,
        stride,
        repeat: 1,
        plain: false,
        normalise: true,
        name: name.map(str::to_owned),
    }
}

/// Finder-like: down and up again, with a concatenation and a plain output layer.
fn hourglass(channels: usize, factor: usize) -> Vec<Layer> {
    vec![
        conv(channels, 3, 1, Some("fine")),
        Layer::MaxPool { size: factor },
        conv(channels + 1, 5, 1, None),
        Layer::Upsample { factor },
        Layer::Concat {
            with: "fine".to_owned(),
        },
        Layer::Conv {
            channels: 5,
            kernel: 1,
            stride: 1,
            repeat: 1,
            plain: true,
            normalise: true,
            name: None,
        },
    ]
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let block = prop_oneof![
        (
            1..6usize,
            prop::sample::select(vec![1usize, 3, 5]),
            1..4usize
        )
            .prop_map(|(c, k, s)| conv(c, k, s, None)),
        (1..6usize, 1..3usize, 1..3usize).prop_map(|(channels, stride, repeat)| Layer::Residual {
            channels,
            stride,
            repeat,
            name: None,
        }),
        (1..6usize, 1..4usize, 1..3usize).prop_map(|(channels, reduced, stride)| {
            Layer::Bottleneck {
                channels,
                reduced,
                stride,
                repeat: 2,
                name: None,
            }
        }),
        (
            1..6usize,
            1..4usize,
            prop::sample::select(vec![1usize, 3, 5]),
            1..3usize,
            1..3usize
        )
            .prop_map(|(channels, expansion, kernel, stride, repeat)| {
                Layer::InvertedResidual {
                    channels,
                    expansion,
                    kernel,
                    stride,
                    repeat,
                }
            }),
        (1..4usize, 1..4usize, 1..3usize).prop_map(|(a, b, repeat)| Layer::Inception {
            single: a,
            triple: [b, a],
            double_triple: [a, b],
            pooled: b,
            repeat,
        }),
        (1..4usize, prop::sample::select(vec![1usize, 3, 5]))
            .prop_map(|(channels, kernel)| Layer::LocallyConnected { channels, kernel }),
        (1..6usize).prop_map(|channels| Layer::Conv {
            channels,
            kernel: 3,
            stride: 1,
            repeat: 2,
            plain: false,
            normalise: false,
            name: None,
        }),
        Just(Layer::MaxPool { size: 2 }),
        (1..4usize).prop_map(|factor| Layer::Upsample { factor }),
        Just(Layer::Dropout { p: 0.5 }),
    ];
    let last = prop_oneof![
        2 => Just(Layer::Linear { outputs: None }),
        1 => (1..4usize, 1.0..40.0f64)
            .prop_map(|(sub_centres, scale)| Layer::Cosine { sub_centres, scale }),
    ];
    let pool = prop_oneof![
        2 => Just(Layer::GlobalAveragePool {}),
        1 => Just(Layer::SoftArgmax {}),
    ];
    let classifier =
        (prop::collection::vec(block, 1..5), pool, last).prop_map(|(mut layers, pool, last)| {
            layers.extend([pool, Layer::Dropout { p: 0.3 }, last]);
            layers
        });
    let finder = (1..5usize, 1..4usize).prop_map(|(c, f)| hourglass(c, f));
    let network = prop_oneof![3 => classifier, 1 => finder];
    (network, prop::option::of(standardise()))
        .prop_map(|(layers, first)| first.into_iter().chain(layers).collect())
}

fn standardise() -> impl Strategy<Value = Layer> {
    let of_channels = |range: std::ops::Range<f32>| prop::array::uniform3(range);
    (of_channels(-1.0..1.0), of_channels(0.2..2.0), 0.01..0.5f32).prop_map(
        |(mean, deviation, least_deviation)| Layer::Standardise {
            mean,
            deviation,
            least_deviation,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any network that can be declared gives, in the built-in engine, what libtorch gives.
    #[test]
    fn the_file_agrees_with_libtorch(
        layers in layers(),
        (width, height) in (12..40usize, 12..40usize),
        slope in 0.0..0.9f64,
        batch in 1..4i64,
        seed in 0..1000i64,
    ) {
        check_against_libtorch(&layers, (width, height), slope, batch, seed)?;
    }
}

fn check_against_libtorch(
    layers: &[Layer],
    (width, height): (usize, usize),
    slope: f64,
    batch: i64,
    seed: i64,
) -> Result<(), TestCaseError> {
    let Ok(graph) = Graph::build(layers, width, height, slope, 7) else {
        // A pooling window may not fit after many strides.
        return Err(TestCaseError::reject("no network"));
    };
    let network = random_network(graph, seed);
    let graph = network.graph();
    let weights = Weights::of(&network).unwrap();
    let interface = Interface {
        features: graph.features().map(|_| "features"),
        ..INTERFACE
    };
    let model = export(graph, &weights, &interface, Storage::Float32).unwrap();
    let nodes = model.graph.iter().flat_map(|g| &g.node);
    let ops: Vec<&str> = nodes.map(|n| n.op_type.as_str()).collect();
    // After a convolution; a locally connected layer keeps its own.
    let local = |layer: &Layer| matches!(layer, Layer::LocallyConnected { .. });
    let kept = layers.iter().filter(|layer| local(layer)).count();
    let norms = ops.iter().filter(|op| **op == "BatchNormalization");
    prop_assert_eq!(norms.count(), kept);
    prop_assert!(!ops.contains(&"Dropout"));

    let shape = [batch, 3, height as i64, width as i64];
    let input = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let expected = tch::no_grad(|| network.forward(&input, Mode::Evaluate, Precision::Float32));
    let outputs = run_tract(&encode(&model), &input);
    let error = difference(&outputs[0], &floats(&expected.output));
    prop_assert!(error < 1e-4, "output differs by {error}");
    if let Some(features) = expected.features {
        let error = difference(&outputs[1], &floats(&features));
        prop_assert!(error < 1e-4, "features differ by {error}");
    }
    Ok(())
}

/// A step in a 1 × 1 convolution after a 1 × 1 convolution without one, which the built-in engine cannot
/// optimise as it stands.
#[test]
fn a_step_in_a_small_kernel_is_exported_so_that_the_built_in_engine_takes_it() {
    let residual = Layer::Residual {
        channels: 2,
        stride: 1,
        repeat: 1,
        name: None,
    };
    let end = [Layer::GlobalAveragePool {}, Layer::Linear { outputs: None }];
    for stride in [2, 3] {
        let layers: Vec<Layer> = [residual.clone(), conv(3, 1, stride, None)]
            .into_iter()
            .chain(end.clone())
            .collect();
        check_against_libtorch(&layers, (13, 12), 0.1, 2, 0).unwrap();
    }
}

fn classifier(channels: usize, seed: i64) -> Network {
    let layers = [
        conv(channels, 3, 2, None),
        Layer::Residual {
            channels: channels * 2,
            stride: 2,
            repeat: 2,
            name: None,
        },
        Layer::GlobalAveragePool {},
        Layer::Dropout { p: 0.5 },
        Layer::Linear { outputs: None },
    ];
    random_network(Graph::build(&layers, 28, 20, 1.0 / 3.0, 6).unwrap(), seed)
}

/// Landmarks anywhere, so that parts of the crop lie outside the image.
fn spatial_transformer() -> Graph {
    let localisation = vec![
        conv(4, 3, 2, None),
        Layer::GlobalAveragePool {},
        Layer::Linear { outputs: Some(4) },
    ];
    let layers = [
        Layer::SpatialTransformer {
            localisation,
            aspect: 1.8,
            head_crop: HeadCrop::RIGHT_WHALE,
            width: 16,
            height: 12,
        },
        conv(5, 3, 2, None),
        Layer::GlobalAveragePool {},
        Layer::Linear { outputs: None },
    ];
    Graph::build(&layers, 28, 20, 0.2, 6).unwrap()
}

fn head(width: usize, individuals: usize) -> Head {
    let some = |n: usize, scale: f32| (0..n).map(|i| (i as f32 * 0.7).sin() * scale).collect();
    Head {
        mean: some(width, 0.3),
        std: (0..width).map(|i| 0.5 + (i % 3) as f32 * 0.4).collect(),
        whitening: Some(some(width * width, 0.4)),
        weight: some(width * individuals, 0.5),
        bias: some(individuals, 1.0),
    }
}

/// What the ensemble must give, from libtorch and plain arithmetic: logits and embeddings.
fn expected_ensemble(members: &[Network], head: &Head, input: &Tensor) -> [Vec<f32>; 2] {
    let features: Vec<Tensor> = members
        .iter()
        .map(|m| tch::no_grad(|| m.forward(input, Mode::Evaluate, Precision::Float32)))
        .map(|o| o.features.unwrap())
        .collect();
    let features = Tensor::cat(&features, 1);
    let width = head.mean.len() as i64;
    let standardised = (features - Tensor::from_slice(&head.mean)) / Tensor::from_slice(&head.std);
    let weight = Tensor::from_slice(&head.weight).view([-1, width]);
    let logits = floats(&standardised.linear(&weight, Some(Tensor::from_slice(&head.bias))));
    let whitening = head.whitening.as_ref().unwrap();
    let whitened = standardised.matmul(&Tensor::from_slice(whitening).view([width, width]));
    let whitened = floats(&whitened);
    let embeddings = whitened.chunks(width as usize).flat_map(|row| {
        let length = row
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        row.iter()
            .map(move |v| (f64::from(*v) / length) as f32)
            .collect::<Vec<_>>()
    });
    [logits, embeddings.collect()]
}

const EMBEDDED: Interface<'_> = Interface {
    features: Some("embedding"),
    ..INTERFACE
};

#[test]
fn an_ensemble_is_its_members_and_their_regression() {
    let members = [classifier(4, 1), classifier(6, 2)];
    let weights: Vec<Weights> = members.iter().map(|m| Weights::of(m).unwrap()).collect();
    let pairs: Vec<(&Graph, &Weights)> = members.iter().map(Network::graph).zip(&weights).collect();
    let head = head(8 + 12, 6);
    let model = ensemble(&pairs, &head, &EMBEDDED, Storage::Float32).unwrap();
    let input = Tensor::randn([3, 3, 20, 28], (Kind::Float, Device::Cpu));
    let expected = expected_ensemble(&members, &head, &input);
    let outputs = run_tract(&encode(&model), &input);
    assert_eq!(outputs.len(), 2);
    for (found, expected) in outputs.iter().zip(&expected) {
        let error = difference(found, expected);
        assert!(error < 1e-4, "{error}");
    }
    for embedding in outputs[1].chunks(8 + 12) {
        let length: f32 = embedding.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    // Without the embedding it gives the same logits and nothing else.
    let plain = ensemble(&pairs, &head, &INTERFACE, Storage::Float32).unwrap();
    let alone = run_tract(&encode(&plain), &input);
    assert_eq!(alone, outputs[..1]);

    // Half precision: half the file, nearly the same answer.
    let half = ensemble(&pairs, &head, &EMBEDDED, Storage::Float16).unwrap();
    let outputs = run_tract(&encode(&half), &input);
    for (found, expected) in outputs.iter().zip(&expected) {
        let error = difference(found, expected);
        assert!(error < 2e-2, "{error}");
    }
    let constants = |m: &tract_onnx::pb::ModelProto| -> usize {
        let tensors = m.graph.iter().flat_map(|g| &g.initializer);
        tensors.map(|t| t.raw_data.len()).sum()
    };
    assert!(constants(&half) * 100 < constants(&model) * 60);

    // 8 bits: less still.
    let int8 = ensemble(&pairs, &head, &EMBEDDED, Storage::Int8).unwrap();
    let outputs = run_tract(&encode(&int8), &input);
    for (found, expected) in outputs.iter().zip(&expected) {
        let error = difference(found, expected);
        assert!(error < 0.15 && error > 0.0, "{error}");
    }
    assert!(constants(&int8) < constants(&half));
}

/// Features that are all at their mean have no direction, and no NaN comes of it.
#[test]
fn features_without_a_direction_have_an_embedding_of_nothing() {
    let members = [classifier(4, 1)];
    let weights = Weights::of(&members[0]).unwrap();
    let input = Tensor::zeros([1, 3, 20, 28], (Kind::Float, Device::Cpu));
    let seen = tch::no_grad(|| members[0].forward(&input, Mode::Evaluate, Precision::Float32));
    let mut head = head(8, 6);
    // As the exported file computes them, to the last bit: else rounding would be the direction.
    let interface = Interface {
        features: Some("features"),
        ..INTERFACE
    };
    let alone = export(members[0].graph(), &weights, &interface, Storage::Float32).unwrap();
    head.mean = run_tract(&encode(&alone), &input).swap_remove(1);
    assert!(difference(&head.mean, &floats(&seen.features.unwrap())) < 1e-4);
    let pairs = [(members[0].graph(), &weights)];
    let model = ensemble(&pairs, &head, &EMBEDDED, Storage::Float32).unwrap();
    let outputs = run_tract(&encode(&model), &input);
    assert!(outputs[1].iter().all(|v| *v == 0.0), "{:?}", outputs[1]);
}

#[test]
fn members_that_do_not_fit_are_refused() {
    let small = classifier(4, 1);
    let layers = [
        conv(4, 3, 2, None),
        Layer::GlobalAveragePool {},
        Layer::Linear { outputs: None },
    ];
    let large = random_network(Graph::build(&layers, 32, 20, 0.3, 6).unwrap(), 2);
    let (a, b) = (Weights::of(&small).unwrap(), Weights::of(&large).unwrap());
    let pairs = [(small.graph(), &a), (large.graph(), &b)];
    let error = ensemble(&pairs, &head(12, 6), &INTERFACE, Storage::Float32).unwrap_err();
    assert!(error.to_string().contains("member 2"), "{error}");
    assert!(error.to_string().contains("32"), "{error}");
    let error = ensemble(&pairs[..1], &head(9, 6), &INTERFACE, Storage::Float32).unwrap_err();
    assert!(
        matches!(
            error,
            ExportError::Head {
                found: 9,
                wanted: 8,
                ..
            }
        ),
        "{error}"
    );
    let error = ensemble(&[], &head(9, 6), &INTERFACE, Storage::Float32).unwrap_err();
    assert_eq!(error, ExportError::NoMembers);

    let finder = Graph::build(&hourglass(3, 2), 16, 16, 0.3, 1).unwrap();
    let finder = random_network(finder, 3);
    let weights = Weights::of(&finder).unwrap();
    let interface = Interface {
        features: Some("features"),
        ..INTERFACE
    };
    let error = export(finder.graph(), &weights, &interface, Storage::Float32).unwrap_err();
    assert_eq!(error, ExportError::NoFeatures);
}

#[test]
fn weights_that_cannot_be_stored_are_refused_by_name() {
    let network = classifier(4, 5);
    let set = |name: &str, value: f64| {
        tch::no_grad(|| {
            network
                .parameter(name)
                .shallow_clone()
                .view([-1])
                .get(3)
                .fill_(value)
        })
    };
    let _ = set("l5_linear.weight", 1e5);
    let weights = Weights::of(&network).unwrap();
    export(network.graph(), &weights, &INTERFACE, Storage::Float32).unwrap();
    let error = export(network.graph(), &weights, &INTERFACE, Storage::Float16).unwrap_err();
    assert!(matches!(error, ExportError::HalfRange { .. }), "{error}");
    assert!(error.to_string().contains("l5_linear.weight"), "{error}");

    let _ = set("l1_1.weight", f64::NAN);
    let error = Weights::of(&network).unwrap_err();
    assert!(matches!(error, ParameterError::NotFinite { .. }), "{error}");
    assert!(error.to_string().contains("l1_1.weight"), "{error}");
}

fn python() -> String {
    std::env::var("CALLOSITY_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Writes a file and its input, and returns where.
fn write_case(folder: &Path, name: &str, bytes: &[u8], input: &Tensor) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let raw: Vec<u8> = floats(input).iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join(format!("{name}.input")), raw).unwrap();
    path
}

#[test]
fn the_reference_checker_reads_files_back_and_onnx_runtime_agrees() {
    let importable = Command::new(python())
        .args(["-c", "import numpy, onnx"])
        .output();
    if !importable.is_ok_and(|o| o.status.success()) {
        eprintln!(
            "skipped: {} cannot import onnx and numpy; set CALLOSITY_PYTHON to one that can",
            python()
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = Tensor::randn([3, 3, 20, 28], (Kind::Float, Device::Cpu));

    let finder = random_network(Graph::build(&hourglass(3, 2), 28, 20, 0.3, 1).unwrap(), 3);
    assert!(
        finder
            .graph()
            .nodes
            .iter()
            .any(|n| n.op == Op::Upsample { factor: 2 })
    );
    let finder_weights = Weights::of(&finder).unwrap();
    let members = [classifier(4, 1), classifier(6, 2)];
    let weights: Vec<Weights> = members.iter().map(|m| Weights::of(m).unwrap()).collect();
    let pairs: Vec<(&Graph, &Weights)> = members.iter().map(Network::graph).zip(&weights).collect();
    let head = head(20, 6);

    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_onnx.py"));
    let transformer = random_network(spatial_transformer(), 4);
    let transformer_weights = Weights::of(&transformer).unwrap();
    let sampled = export(
        transformer.graph(),
        &transformer_weights,
        &INTERFACE,
        Storage::Float32,
    );
    // The built-in engine has no GridSample; libtorch is what it is compared with.
    let sampled = write_case(
        folder.path(),
        "transformer.onnx",
        &encode(&sampled.unwrap()),
        &image,
    );
    command.arg(&sampled).arg("3");
    let mut cases = Vec::new();
    for storage in [Storage::Float32, Storage::Float16, Storage::Int8] {
        let single = export(finder.graph(), &finder_weights, &INTERFACE, storage).unwrap();
        let joint = ensemble(&pairs, &head, &EMBEDDED, storage).unwrap();
        for (name, model) in [("finder", single), ("ensemble", joint)] {
            let bytes = encode(&model);
            let path = write_case(
                folder.path(),
                &format!("{name}{storage:?}.onnx"),
                &bytes,
                &image,
            );
            command.arg(&path).arg("3");
            cases.push((path, bytes));
        }
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert_eq!(said.lines().count(), cases.len() + 1, "{said}");
    if !said.contains("and run") {
        eprintln!(
            "{} has no onnxruntime: read back, but not compared with it",
            python()
        );
        return;
    }
    let runtime = |path: &Path, name: &str| -> Vec<f32> {
        let raw = std::fs::read(format!("{}.{name}", path.display())).unwrap();
        let values = raw.chunks_exact(4);
        values
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let expected = tch::no_grad(|| transformer.forward(&image, Mode::Evaluate, Precision::Float32));
    let error = difference(&runtime(&sampled, "logits"), &floats(&expected.output));
    assert!(error < 1e-4, "a spatial transformer: {error}");
    for (path, bytes) in cases {
        let outputs = run_tract(&bytes, &image);
        for (output, name) in outputs.iter().zip(["logits", "embedding"]) {
            let error = difference(output, &runtime(&path, name));
            assert!(error < 1e-4, "{} {name}: {error}", path.display());
        }
    }
}
