//! What each kind of network learns: its samples, its loss and its metrics.

use std::sync::Arc;

use tch::Tensor;

use crate::loader::Samples;
use crate::network::Network;

mod aligner;
mod classifier;
mod finder;

pub use aligner::{ALIGNER_FIELD_HEAD_LENGTHS, AlignerTask};
pub use classifier::ClassifierTask;
pub use finder::{FINDER_STRIDE, FinderTask};

/// A metric by name, summed over samples.
pub type Sums = Vec<(&'static str, f64)>;

/// One kind of learning problem with its data.
pub trait Task {
    /// Samples that are trained on.
    fn training(&self) -> Arc<dyn Samples>;

    /// Sets that the network is measured on after each epoch, by name. The best weights of a run are
    /// those with the smallest loss on the first.
    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)>;

    /// Sets what the task knows of good first weights, before training.
    fn initialise(&self, _network: &Network) {}

    /// Mean loss of a batch that is trained on. `output` is the network's, `target` is
    /// `N ×` [`Samples::target_len`].
    fn loss(&self, output: &Tensor, target: &Tensor) -> Tensor;

    /// Sums over a batch that is measured; the first is the loss.
    fn metrics(&self, output: &Tensor, target: &Tensor) -> Sums;
}

/// A tensor's single value.
fn scalar(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}
