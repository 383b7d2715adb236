use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use recognition::pixels;
use tch::{Kind, Reduction, Tensor};

use crate::compose::Composer;
use crate::loader::{Samples, random};
use crate::network::Outputs;
use crate::recipe::Recipe;
use crate::tasks::{Sums, Task, head_length_errors, scalar};

/// Side of the aligner's crop in head lengths.
pub const ALIGNER_FIELD_HEAD_LENGTHS: f64 = 3.0;

/// Crops that an aligner is measured on.
pub(crate) const MEASURED_SAMPLES: usize = 512;
/// Purpose of the random numbers behind them.
pub(crate) const MEASURED: u64 = 3;

/// Where bonnet and blowhead lie in a square crop around a head: mean squared error on their four
/// coordinates, as fractions of the crop's side.
pub struct AlignerTask {
    training: Arc<dyn Samples>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
}

impl AlignerTask {
    /// Trains on crops from `training` and measures on a fixed set from `measured`, whose heads the
    /// network never sees.
    pub fn new(recipe: &Recipe, training: Arc<Composer>, measured: Arc<Composer>) -> Self {
        let set = |composer, len, fixed| {
            Arc::new(ComposedCrops {
                input: recipe.input.network_input(),
                composer,
                recipe: recipe.clone(),
                len,
                fixed,
            }) as Arc<dyn Samples>
        };
        Self {
            training: set(
                Arc::clone(&training),
                recipe.schedule.samples_per_epoch,
                false,
            ),
            measured: vec![
                ("validation", set(measured, MEASURED_SAMPLES, true)),
                ("trained_on", set(training, MEASURED_SAMPLES / 4, true)),
            ],
        }
    }
}

impl Task for AlignerTask {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::clone(&self.training)
    }

    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        self.measured.clone()
    }

    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        outputs.output.mse_loss(target, Reduction::Mean)
    }

    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let output = &outputs.output;
        let squares = (output - target).square();
        let error = head_length_errors(output, target);
        vec![
            ("loss", scalar(&squares.sum(Kind::Double)) / 4.0),
            ("head_length_error", scalar(&error.sum(Kind::Double))),
        ]
    }
}

struct ComposedCrops {
    input: NetworkInput,
    composer: Arc<Composer>,
    recipe: Recipe,
    len: usize,
    /// Whether sample `i` is the same each time.
    fixed: bool,
}

impl Samples for ComposedCrops {
    fn len(&self) -> usize {
        self.len
    }

    fn input_len(&self) -> usize {
        3 * (self.input.width * self.input.height) as usize
    }

    fn target_len(&self) -> usize {
        4
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let mut own = random(self.recipe.seed, MEASURED, item as u64);
        let rng = if self.fixed { &mut own } else { rng };
        let side = self.input.width;
        let mut crop = self.composer.crop(rng, side, ALIGNER_FIELD_HEAD_LENGTHS);
        if !self.fixed {
            self.recipe.augmentation.change_pixels(rng, &mut crop.image);
        }
        pixels::write_input(&crop.image, &self.input, input);
        let l = crop.landmarks;
        for (out, pixels) in
            target
                .iter_mut()
                .zip([l.bonnet.x, l.bonnet.y, l.blowhead.x, l.blowhead.y])
        {
            *out = (pixels / f64::from(side)) as f32;
        }
    }
}
