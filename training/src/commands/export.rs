//! `callosity-train export`: one network as an ONNX file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tch::{Device, Kind, Tensor};
use tract_onnx::pb::ModelProto;

use crate::network::{Mode, Network, Precision};
use crate::onnx::{self, Interface, Storage};
use crate::run_folder::TrainedRun;
use crate::weights::Weights;

/// Largest difference between a file and libtorch, relative to values above 1.
const AGREEMENT: f32 = 1e-4;

/// Write a trained network as an ONNX file and check it against libtorch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder
    run: PathBuf,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Number format in which the weights are stored
    #[arg(long, value_enum, default_value_t)]
    storage: StorageChoice,
    /// Add the pooled features as a second output
    #[arg(long)]
    features: bool,
}

/// Number format of stored weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StorageChoice {
    /// As trained
    #[default]
    Float32,
    /// Half the size; computed in float32 all the same
    Float16,
    /// A quarter of the size, weights rounded to 255 steps; computed in float32 all the same
    Int8,
}

impl From<StorageChoice> for Storage {
    fn from(choice: StorageChoice) -> Self {
        match choice {
            StorageChoice::Float32 => Self::Float32,
            StorageChoice::Float16 => Self::Float16,
            StorageChoice::Int8 => Self::Int8,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The run cannot be read, its weights are not finite, or the file does not agree with libtorch.
pub fn run(args: Args) -> anyhow::Result<()> {
    let run = TrainedRun::open(&args.run, Device::Cpu)?;
    let interface = Interface {
        input: "image",
        output: "output",
        features: args.features.then_some("features"),
    };
    let bytes = checked(&run.network, &interface, args.storage.into())
        .with_context(|| args.run.display().to_string())?;
    write(&args.out, &bytes)?;
    println!("{}: {:.2} MB", args.out.display(), bytes.len() as f64 / 1e6);
    Ok(())
}

/// Writes a file, with the folder it lies in.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// Pseudo-random input of a graph's size, the same each time.
pub(crate) fn probe(network: &Network, batch: i64) -> Tensor {
    let shape = network.graph().nodes[0].shape;
    probe_of_size(shape.width as i64, shape.height as i64, batch)
}

/// [`probe`] for a network of which the size of its input is known.
pub(crate) fn probe_of_size(width: i64, height: i64, batch: i64) -> Tensor {
    let count = batch * 3 * height * width;
    // Smooth waves plus a little of a sequence that never repeats: neither flat nor mere noise.
    let values: Vec<f32> = (0..count)
        .map(|i| {
            let (x, y) = ((i % width) as f64, (i / width % height) as f64);
            let plane = (i / (width * height)) as f64;
            let wave = (x * 0.11 + plane).sin() + (y * 0.17 + 2.0 * plane).cos();
            let grain = (i as f64 * 0.618_033_988_75).fract() - 0.5;
            (wave * 0.7 + grain * 0.6) as f32
        })
        .collect();
    Tensor::from_slice(&values).view([batch, 3, height, width])
}

/// The ONNX file of a network, after its float32 form agreed with libtorch.
pub(crate) fn checked(
    network: &Network,
    interface: &Interface<'_>,
    storage: Storage,
) -> anyhow::Result<Vec<u8>> {
    let weights = Weights::of(network)?;
    let exact = onnx::export(network.graph(), &weights, interface, Storage::Float32)?;
    let input = probe(network, 2);
    let expected = tch::no_grad(|| {
        let images = input.to_device(network.device());
        network.forward(&images, Mode::Evaluate, Precision::Float32)
    });
    agree(&exact, &input, 0, &floats(&expected.output)?)?;
    Ok(match storage {
        Storage::Float32 => onnx::encode(&exact),
        Storage::Float16 | Storage::Int8 => {
            let narrow = onnx::export(network.graph(), &weights, interface, storage)?;
            onnx::encode(&narrow)
        }
    })
}

/// Refuses a model one of whose outputs, counted from 0, is not as expected.
pub(crate) fn agree(
    model: &ModelProto,
    input: &Tensor,
    output: usize,
    expected: &[f32],
) -> anyhow::Result<()> {
    let outputs = run_builtin(&onnx::encode(model), input)?;
    let found = outputs
        .get(output)
        .with_context(|| format!("the file has no output {output}"))?;
    ensure!(
        found.len() == expected.len(),
        "the file gives {} values, libtorch {}",
        found.len(),
        expected.len()
    );
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        let difference = (a - b).abs() / b.abs().max(1.0);
        if difference.is_nan() || difference > AGREEMENT {
            bail!("value {index} is {a} from the file and {b} from libtorch");
        }
    }
    Ok(())
}

/// The outputs of an ONNX file in the built-in engine.
pub(crate) fn run_builtin(bytes: &[u8], input: &Tensor) -> anyhow::Result<Vec<Vec<f32>>> {
    use tract_onnx::prelude::*;
    let model = tract_onnx::onnx()
        .model_for_read(&mut &*bytes)?
        .into_optimized()?
        .into_runnable()?;
    let shape: Vec<usize> = input.size().iter().map(|&d| d as usize).collect();
    let input = tract_onnx::prelude::Tensor::from_shape(&shape, &floats(input)?)?;
    let outputs = model.run(tvec!(input.into()))?;
    outputs
        .iter()
        .map(|output| {
            let view = output.to_plain_array_view::<f32>()?;
            Ok(view.iter().copied().collect())
        })
        .collect()
}

/// All values of a tensor.
pub(crate) fn floats(tensor: &Tensor) -> anyhow::Result<Vec<f32>> {
    let flat = tensor
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .view([-1]);
    Ok(Vec::try_from(flat)?)
}
