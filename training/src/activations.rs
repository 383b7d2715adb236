//! What values a network's nodes take on samples.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::loader::{Samples, measured_batch};
use crate::network::{Mode, Network, Precision};
use crate::recipe::Recipe;
use crate::trainer::to_tensors;

/// Samples on which values are measured.
const MEASURED: usize = 512;

/// Inputs of some of `samples`, which are those of `recipe`, in batches.
///
/// # Errors
/// A sample cannot be made.
pub fn sample_inputs(
    recipe: &Recipe,
    samples: &dyn Samples,
    device: Device,
) -> anyhow::Result<Vec<Tensor>> {
    let step = samples.len().div_ceil(MEASURED).max(1);
    let items: Vec<usize> = (0..samples.len()).step_by(step).collect();
    let batches = items.chunks(recipe.schedule.batch).map(|items| {
        let batch = measured_batch(samples, recipe.seed, items)?;
        Ok(to_tensors(recipe, samples, &batch, device).0)
    });
    batches.collect()
}

/// What the values of a node are like, channel by channel.
pub struct Range {
    /// Smallest value.
    pub low: Tensor,
    /// Largest value.
    pub high: Tensor,
    /// Mean.
    pub mean: Tensor,
    /// Variance.
    pub variance: Tensor,
}

/// The values of `nodes` of a network on `inputs`, each `N × 3 × height × width`, by the node's index.
pub fn measure(network: &Network, nodes: &[usize], inputs: &[Tensor]) -> BTreeMap<usize, Range> {
    let mut all: BTreeMap<usize, Vec<Tensor>> = BTreeMap::new();
    for input in inputs {
        tch::no_grad(|| {
            network.forward_observed(input, Mode::Evaluate, Precision::Float32, &mut |node, x| {
                if !nodes.contains(&node) {
                    return;
                }
                // Channels first, then low, high, sum, sum of squares and count.
                let x = x.transpose(0, 1).flatten(1, -1).to_kind(Kind::Double);
                let count = Tensor::full_like(&x.select(1, 0), x.size()[1] as f64);
                let sums = [
                    x.amin([1].as_slice(), false),
                    x.amax([1].as_slice(), false),
                    x.sum_dim_intlist([1].as_slice(), false, Kind::Double),
                    x.square()
                        .sum_dim_intlist([1].as_slice(), false, Kind::Double),
                    count,
                ];
                all.entry(node).or_default().push(Tensor::stack(&sums, 0));
            })
        });
    }
    let ranges = all.into_iter().map(|(node, parts)| {
        // batches × 5 × channels
        let parts = Tensor::stack(&parts, 0);
        let sum = parts.sum_dim_intlist([0].as_slice(), false, Kind::Double);
        let mean = sum.select(0, 2) / sum.select(0, 4);
        let variance = (sum.select(0, 3) / sum.select(0, 4) - mean.square()).clamp_min(0.0);
        let range = Range {
            low: parts.select(1, 0).amin([0].as_slice(), false),
            high: parts.select(1, 1).amax([0].as_slice(), false),
            mean,
            variance,
        };
        (node, range)
    });
    ranges.collect()
}
