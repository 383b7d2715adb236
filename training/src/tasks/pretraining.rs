use std::sync::Arc;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use tch::{Kind, Tensor};

use super::classifier::{cached, write_framed};
use crate::cache::Cache;
use crate::framing::Framer;
use crate::index::Index;
use crate::loader::Samples;
use crate::metric_learning::{MetricLoss, nearest_is_same};
use crate::network::{Outputs, unit};
use crate::recipe::{Augmentation, Recipe};
use crate::split::Split;
use crate::tasks::{Sums, Task, scalar};

/// Of so many photographs one is measured instead of trained on.
const MEASURED_EVERY: usize = 20;

/// Which of the batch's random views show the same photograph: features without names.
///
/// The loss is on the network's output, a projection that is thrown away; what a classifier takes over are
/// the features before it, as in SimCLR (Chen et al. 2020, section 4.2).
pub struct PretrainingTask {
    training: Arc<dyn Samples>,
    measured: Arc<dyn Samples>,
    loss: MetricLoss,
}

impl PretrainingTask {
    /// Photographs without names that the split lets train; a twentieth of them is measured.
    pub fn new(
        recipe: &Recipe,
        loss: MetricLoss,
        index: &Index,
        split: &Split,
        cache: &Arc<Cache>,
    ) -> Self {
        let images = split.unlabelled(index).map(|p| p.image.clone());
        let images: Vec<String> = images.filter(|i| cache.pixels(i).is_some()).collect();
        let set = |measured: bool| {
            let wanted = |i: usize| i.is_multiple_of(MEASURED_EVERY) == measured;
            let images = images.iter().enumerate().filter(|(i, _)| wanted(*i));
            Arc::new(TwoViews {
                input: recipe.input.network_input(),
                framer: Framer::HeadCrop(recipe.input.clone()),
                cache: Arc::clone(cache),
                images: images.map(|(_, image)| image.clone()).collect(),
                augmentation: recipe.augmentation.clone(),
            })
        };
        Self {
            training: set(false),
            measured: set(true),
            loss,
        }
    }
}

impl Task for PretrainingTask {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::clone(&self.training)
    }

    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        vec![("held_out", Arc::clone(&self.measured))]
    }

    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        let photograph = target.select(1, 0).to_kind(Kind::Int64);
        self.loss.of(&unit(&outputs.output), &photograph)
    }

    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let photograph = target.select(1, 0).to_kind(Kind::Int64);
        let loss = scalar(&self.loss(outputs, target)) * target.size()[0] as f64;
        let embedding = unit(&outputs.output);
        vec![
            ("loss", loss),
            ("other_view_found", nearest_is_same(&embedding, &photograph)),
        ]
    }
}

/// Each photograph twice, changed at random each time; the target is its number.
struct TwoViews {
    input: NetworkInput,
    framer: Framer,
    cache: Arc<Cache>,
    images: Vec<String>,
    augmentation: Augmentation,
}

impl Samples for TwoViews {
    fn len(&self) -> usize {
        2 * self.images.len()
    }

    fn input_len(&self) -> usize {
        3 * (self.input.width * self.input.height) as usize
    }

    fn target_len(&self) -> usize {
        1
    }

    /// Both views of a photograph one after the other, so that a batch of even size has both.
    fn order(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut photographs: Vec<usize> = (0..self.images.len()).collect();
        photographs.shuffle(rng);
        let views = photographs.into_iter().flat_map(|p| [2 * p, 2 * p + 1]);
        views.collect()
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let photograph = item / 2;
        let framed = self
            .framer
            .frame(cached(&self.cache, &self.images[photograph]), None)
            .expect("the cache holds no empty photographs");
        let augmentation = Some(&self.augmentation);
        write_framed(&framed, &self.input, augmentation, rng, input);
        target[0] = photograph as f32;
    }
}
