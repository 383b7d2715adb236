//! What each kind of network learns: its samples, its loss and its metrics.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::loader::Samples;
use crate::network::{Network, Outputs};

pub(crate) mod aligner;
mod classifier;
mod finder;
mod localiser;
mod pretraining;

pub use aligner::{ALIGNER_FIELD_HEAD_LENGTHS, AlignerTask};
pub use classifier::ClassifierTask;
pub use finder::{FINDER_STRIDE, FinderTask};
pub use localiser::{FOUND_OVERLAP, LocaliserTask};
pub use pretraining::PretrainingTask;

/// A metric by name, summed over samples.
pub type Sums = Vec<(&'static str, f64)>;

/// One kind of learning problem with its data.
pub trait Task {
    /// Samples that are trained on.
    fn training(&self) -> Arc<dyn Samples>;

    /// Sets that the network is measured on after each epoch, dropout off, by name. The best weights of a
    /// run are those with the smallest loss on the first. The set `trained_on` is of photographs that are
    /// trained on, as they are: what the network has learnt by heart, where the training loss also says how
    /// much augmentation and dropout stand in its way.
    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)>;

    /// Sets what the task knows of good first weights, before training.
    fn initialise(&self, _network: &Network) {}

    /// Mean loss of a batch that is trained on. `target` is `N ×` [`Samples::target_len`].
    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor;

    /// Sums over a batch that is measured; the first is the loss.
    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums;
}

/// A tensor's single value.
fn scalar(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

/// Mean distance of bonnet and blowhead from where they are, in true head lengths; landmarks are `N × 4`
/// in any unit, errors `N`.
fn head_length_errors(found: &Tensor, truth: &Tensor) -> Tensor {
    let norm = |t: &Tensor, axis: i64| {
        t.square()
            .sum_dim_intlist([axis].as_slice(), false, Kind::Float)
            .sqrt()
    };
    let distances = norm(&(found - truth).view([-1, 2, 2]), 2);
    let length = norm(&(truth.narrow(1, 0, 2) - truth.narrow(1, 2, 2)), 1);
    distances.mean_dim([1i64].as_slice(), false, Kind::Float) / length
}

/// Most photographs of a training set that are measured.
const MEASURED_PART: usize = 512;

/// Every so many-th of the samples, at most [`MEASURED_PART`].
fn measured_part(samples: Arc<dyn Samples>) -> Arc<dyn Samples> {
    let step = samples.len().div_ceil(MEASURED_PART).max(1);
    Arc::new(Part { samples, step })
}

struct Part {
    samples: Arc<dyn Samples>,
    step: usize,
}

impl Samples for Part {
    fn len(&self) -> usize {
        self.samples.len().div_ceil(self.step)
    }

    fn input_len(&self) -> usize {
        self.samples.input_len()
    }

    fn target_len(&self) -> usize {
        self.samples.target_len()
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        self.samples.write(item * self.step, rng, input, target);
    }
}
