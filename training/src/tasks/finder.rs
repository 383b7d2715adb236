use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Landmarks, Point};
use recognition::pixels;
use tch::{Kind, Tensor};

use crate::compose::Composer;
use crate::loader::{Samples, random};
use crate::network::{Network, Outputs};
use crate::recipe::Recipe;
use crate::tasks::{Sums, Task, scalar};

/// Input pixels for each cell of the finder's output.
pub const FINDER_STRIDE: u32 = 4;

const MEASURED_SAMPLES: usize = 256;
const MEASURED: u64 = 4;

/// Planes of a target: heat, four offsets, and the weight of the offsets.
const TARGET_PLANES: usize = 6;

/// Offsets are learnt in these units, so that their loss is of the size of the heat map's.
const OFFSET_LOSS_WEIGHT: f64 = 0.05;

/// Logit of the first guess that a cell holds a head's centre.
const RARE_LOGIT: f64 = -4.6;

/// A heat map of head centres, with the penalty-reduced focal loss of Zhou et al. 2019, "Objects as
/// points" (their equation 1), and at the cells around a centre the offsets to bonnet and blowhead with
/// an L1 loss.
pub struct FinderTask {
    training: Arc<dyn Samples>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
}

impl FinderTask {
    /// Trains on frames from `training` and measures on a fixed set from `measured`, whose heads the
    /// network never sees.
    pub fn new(recipe: &Recipe, training: Arc<Composer>, measured: Arc<Composer>) -> Self {
        let set = |composer, len, fixed| {
            Arc::new(ComposedFrames {
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

    /// Sums over the batch: focal loss, weighted absolute offset error, heads.
    fn parts(output: &Tensor, target: &Tensor) -> (Tensor, Tensor, Tensor) {
        let size = output.size();
        let target = target.view([size[0], TARGET_PLANES as i64, size[2], size[3]]);
        let logit = output.narrow(1, 0, 1);
        let heat = target.narrow(1, 0, 1);
        let weight = target.narrow(1, 5, 1);
        let p = logit.sigmoid();
        let is_centre: Tensor = heat.ge(1.0).to_kind(Kind::Float);
        let log_p = logit.log_sigmoid();
        let log_not_p = (-&logit).log_sigmoid();
        let doubt: Tensor = 1.0 - &p;
        let found = &is_centre * doubt.square() * log_p;
        let away: Tensor = 1.0 - &heat;
        let quiet = away.pow_tensor_scalar(4) * p.square() * log_not_p;
        let elsewhere: Tensor = 1.0 - &is_centre;
        let focal = -(found + elsewhere * quiet).sum(Kind::Float);
        let offsets = (output.narrow(1, 1, 4) - target.narrow(1, 1, 4)).abs();
        let offset_error = (offsets * &weight).sum(Kind::Float) / 4.0;
        (focal, offset_error, is_centre.sum(Kind::Float))
    }
}

impl Task for FinderTask {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::clone(&self.training)
    }

    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        self.measured.clone()
    }

    /// Cells with a head are rare; a network that starts with that knowledge does not spend its first
    /// epochs on it (Lin et al. 2017, "Focal loss for dense object detection", section 3.3).
    fn initialise(&self, network: &Network) {
        let output = &network.graph().output().name;
        let bias = network.parameter(&format!("{output}.bias"));
        tch::no_grad(|| {
            let _ = bias.narrow(0, 0, 1).fill_(RARE_LOGIT);
        });
    }

    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        let (focal, offset_error, heads) = Self::parts(&outputs.output, target);
        (focal + offset_error * OFFSET_LOSS_WEIGHT) / heads.clamp_min(1.0)
    }

    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let (focal, offset_error, _) = Self::parts(&outputs.output, target);
        let loss = scalar(&focal) + scalar(&offset_error) * OFFSET_LOSS_WEIGHT;
        vec![("loss", loss), ("offset_error", scalar(&offset_error))]
    }
}

struct ComposedFrames {
    input: NetworkInput,
    composer: Arc<Composer>,
    recipe: Recipe,
    len: usize,
    /// Whether sample `i` is the same each time.
    fixed: bool,
}

impl Samples for ComposedFrames {
    fn len(&self) -> usize {
        self.len
    }

    fn input_len(&self) -> usize {
        3 * (self.input.width * self.input.height) as usize
    }

    fn target_len(&self) -> usize {
        let (w, h) = (
            self.input.width / FINDER_STRIDE,
            self.input.height / FINDER_STRIDE,
        );
        TARGET_PLANES * (w * h) as usize
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let mut own = random(self.recipe.seed, MEASURED, item as u64);
        let rng = if self.fixed { &mut own } else { rng };
        let (width, height) = (self.input.width, self.input.height);
        let mut frame = self.composer.frame(rng, width, height);
        if !self.fixed {
            self.recipe
                .augmentation
                .change_pixels(rng, &mut frame.image);
        }
        pixels::write_input(&frame.image, &self.input, input);
        let size = (width / FINDER_STRIDE, height / FINDER_STRIDE);
        write_target(&frame.heads, size.0 as usize, size.1 as usize, target);
    }
}

/// Writes the heat map (1 in the cell of a centre, a Gaussian of a tenth of the head length around it),
/// offsets and their weights, all in the layout of the manifest's `Finder`.
fn write_target(heads: &[Landmarks], width: usize, height: usize, target: &mut [f32]) {
    let cells = width * height;
    target.fill(0.0);
    let stride = f64::from(FINDER_STRIDE);
    for head in heads {
        let centre = head.centre();
        let (cx, cy) = ((centre.x / stride).floor(), (centre.y / stride).floor());
        if cx < 0.0 || cy < 0.0 || cx >= width as f64 || cy >= height as f64 {
            continue;
        }
        let sigma = (head.head_length() / stride * 0.12).max(0.6);
        let radius = (3.0 * sigma).ceil();
        let range = |c: f64, size: usize| {
            (c - radius).max(0.0) as usize..=((c + radius) as usize).min(size - 1)
        };
        for y in range(cy, height) {
            for x in range(cx, width) {
                let squared = (x as f64 - cx).powi(2) + (y as f64 - cy).powi(2);
                let heat = (-squared / (2.0 * sigma * sigma)).exp() as f32;
                let cell = y * width + x;
                if heat <= target[cell] {
                    continue;
                }
                target[cell] = heat;
                if squared > 4.0 * sigma * sigma && squared > 0.0 {
                    continue;
                }
                let at = Point::new((x as f64 + 0.5) * stride, (y as f64 + 0.5) * stride);
                let offsets = [head.bonnet - at, head.blowhead - at];
                for (plane, value) in offsets.iter().flat_map(|o| [o.x, o.y]).enumerate() {
                    target[(1 + plane) * cells + cell] = value as f32;
                }
                target[5 * cells + cell] = heat;
            }
        }
    }
}
