use std::sync::{Arc, OnceLock};

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, Landmarks, Point, Rectangle};
use recognition::pixels::{self, OUTSIDE_FRAME};
use tch::{Kind, Reduction, Tensor};

use crate::boxes::{HeadMask, intersection_over_union};
use crate::compose::{ComposedFrame, Composer};
use crate::loader::{Samples, random};
use crate::network::Outputs;
use crate::recipe::Recipe;
use crate::tasks::{Sums, Task, scalar};

const MEASURED_SAMPLES: usize = 512;
const MEASURED: u64 = 6;

/// How often a transform is drawn anew that would push a landmark out of the picture.
const DRAWS: usize = 8;

/// Intersection over union from which a head counts as found (Everingham et al. 2010, "The Pascal visual
/// object classes challenge").
pub const FOUND_OVERLAP: f64 = 0.5;

/// The upright box around the one head of a frame: mean squared error on left edge, upper edge, width and
/// height, as fractions of the input's sides. It is the older first stage of the published second-place
/// solution.
pub struct LocaliserTask {
    training: Arc<dyn Samples>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
}

impl LocaliserTask {
    /// Trains on frames from `training` and measures on a fixed set from `measured`, whose heads the
    /// network never sees.
    pub fn new(recipe: &Recipe, training: Arc<Composer>, measured: Arc<Composer>) -> Self {
        let len = recipe.schedule.samples_per_epoch;
        Self {
            training: Arc::new(SingleHeadFrames {
                input: recipe.input.network_input(),
                composer: Arc::clone(&training),
                recipe: recipe.clone(),
                len,
                fixed: vec![],
            }),
            measured: vec![
                ("validation", Self::measured_set(recipe, measured)),
                ("trained_on", Self::measured_set(recipe, training)),
            ],
        }
    }

    /// The fixed frames from a composer, the same each time, on which a network is measured.
    pub fn measured_set(recipe: &Recipe, composer: Arc<Composer>) -> Arc<dyn Samples> {
        Arc::new(SingleHeadFrames {
            input: recipe.input.network_input(),
            composer,
            recipe: recipe.clone(),
            len: MEASURED_SAMPLES,
            fixed: vec![OnceLock::new(); MEASURED_SAMPLES],
        })
    }

    /// Intersection over union of each box of a batch with the true one. Both are `N × 4`.
    pub fn overlaps(output: &Tensor, target: &Tensor) -> Vec<f64> {
        let boxes = |t: &Tensor| -> Vec<[f64; 4]> {
            let flat = t.to_kind(Kind::Double).contiguous().view([-1]);
            let values = Vec::<f64>::try_from(flat.to_device(tch::Device::Cpu));
            let values = values.expect("a flat tensor of this kind");
            values.as_chunks().0.to_vec()
        };
        boxes(output)
            .into_iter()
            .zip(boxes(target))
            .map(|(found, truth)| intersection_over_union(&rectangle(found), &rectangle(truth)))
            .collect()
    }
}

/// Of left edge, upper edge, width and height; negative sizes, which a network may say, count as 0.
fn rectangle([left, top, width, height]: [f64; 4]) -> Rectangle {
    Rectangle {
        left,
        top,
        right: left + width.max(0.0),
        bottom: top + height.max(0.0),
    }
}

impl Task for LocaliserTask {
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
        let squares = (&outputs.output - target).square();
        let overlaps = Self::overlaps(&outputs.output, target);
        let found = overlaps.iter().filter(|&&o| o >= FOUND_OVERLAP).count();
        vec![
            ("loss", scalar(&squares.sum(Kind::Double)) / 4.0),
            ("iou", overlaps.iter().sum()),
            ("found", found as f64),
        ]
    }
}

/// Frames with one head, and its box.
struct SingleHeadFrames {
    input: NetworkInput,
    composer: Arc<Composer>,
    recipe: Recipe,
    len: usize,
    /// Picture and box of each sample, composed when first asked for, where samples are the same each time;
    /// else empty.
    fixed: Vec<OnceLock<(RgbImage, [f32; 4])>>,
}

impl SingleHeadFrames {
    /// A frame, and the box in it as a target.
    fn compose(&self, rng: &mut ChaCha8Rng) -> (RgbImage, [f32; 4]) {
        let (width, height) = (self.input.width, self.input.height);
        let head = self.composer.draw_head(rng);
        let ComposedFrame { mut image, heads } =
            self.composer.frame_with_head(rng, head, width, height);
        let picture = Rectangle::of_image(width, height);
        let mask = HeadMask::of(&heads[0]).expect("composed heads have a length");
        let mut mask = mask.within(&picture);
        if self.fixed.is_empty() {
            let transform = self.draw_transform(rng, &heads[0]);
            image = pixels::warp(&image, &transform, width, height, OUTSIDE_FRAME);
            mask = mask.map(&transform).within(&picture);
            self.recipe.augmentation.change_pixels(rng, &mut image);
        }
        let bounds = mask.bounds().expect("the landmarks lie in the picture");
        let (w, h) = (f64::from(width), f64::from(height));
        let target = [
            bounds.left / w,
            bounds.top / h,
            bounds.width() / w,
            bounds.height() / h,
        ];
        (image, target.map(|v| v as f32))
    }

    /// A random transform of the picture that keeps both landmarks in it.
    fn draw_transform(&self, rng: &mut ChaCha8Rng, head: &Landmarks) -> Affine {
        let (width, height) = (f64::from(self.input.width), f64::from(self.input.height));
        let draw = |_| {
            let augmentation = &self.recipe.augmentation;
            augmentation.draw_transform(rng, width, height, 1.0).0
        };
        let keeps = |transform: &Affine| {
            let moved = head.map(transform);
            let inside = |p: Point| (0.0..width).contains(&p.x) && (0.0..height).contains(&p.y);
            inside(moved.bonnet) && inside(moved.blowhead)
        };
        (0..DRAWS).map(draw).find(keeps).unwrap_or(Affine::IDENTITY)
    }
}

impl Samples for SingleHeadFrames {
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
        let composed;
        let (image, bounds) = match self.fixed.get(item) {
            Some(fixed) => fixed
                .get_or_init(|| self.compose(&mut random(self.recipe.seed, MEASURED, item as u64))),
            None => {
                composed = self.compose(rng);
                &composed
            }
        };
        pixels::write_input(image, &self.input, input);
        target.copy_from_slice(bounds);
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    /// A bright head on dark water.
    fn bright_head() -> RgbImage {
        RgbImage::from_fn(64, 64, |x, y| {
            let (u, v) = (f64::from(x) / 64.0 - 0.5, f64::from(y) / 64.0 - 0.5);
            Rgb([if u.hypot(v) < 0.4 { 230 } else { 20 }; 3])
        })
    }

    fn recipe() -> Recipe {
        toml::from_str(include_str!("../../recipes/small-box-localiser.toml")).expect("a recipe")
    }

    #[test]
    fn the_recipe_gives_batches_of_the_stated_shape_and_the_same_frames_to_be_measured() {
        let composer = Arc::new(Composer::new(&[bright_head()], vec![], vec![]).unwrap());
        let recipe = recipe();
        let task = LocaliserTask::new(&recipe, Arc::clone(&composer), composer);
        let graph = recipe.graph(0).expect("a network");
        assert_eq!(graph.output().shape.channels, 4);
        for (set, same) in [
            (task.training(), false),
            (Arc::clone(&task.measured[0].1), true),
        ] {
            assert_eq!(set.input_len(), 3 * 192 * 128);
            assert_eq!(set.target_len(), 4);
            let write = |seed| {
                let (mut input, mut target) = (vec![f32::NAN; set.input_len()], vec![f32::NAN; 4]);
                set.write(3, &mut random(seed, 0, 0), &mut input, &mut target);
                assert!(input.iter().all(|v| v.is_finite()));
                let [left, top, width, height] = target[..] else {
                    panic!("four values");
                };
                assert!(left >= 0.0 && top >= 0.0 && width > 0.0 && height > 0.0);
                assert!(left + width <= 1.0 + 1e-6 && top + height <= 1.0 + 1e-6);
                (input, target)
            };
            assert_eq!(write(1) == write(2), same);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn transforms_keep_the_head_in_the_picture(seed: u64, x in 4.0..188.0f64, y in 4.0..124.0f64) {
            let composer = Arc::new(Composer::new(&[bright_head()], vec![], vec![]).unwrap());
            let mut recipe = recipe();
            recipe.augmentation.shift = 0.5;
            recipe.augmentation.flip = 0.5;
            let frames = SingleHeadFrames {
                input: recipe.input.network_input(), composer, recipe, len: 1, fixed: vec![],
            };
            let head = Landmarks { bonnet: Point::new(x, y), blowhead: Point::new(x - 3.0, y) };
            let moved = head.map(&frames.draw_transform(&mut random(seed, 0, 0), &head));
            for p in [moved.bonnet, moved.blowhead] {
                prop_assert!((0.0..192.0).contains(&p.x) && (0.0..128.0).contains(&p.y), "{p:?}");
            }
        }

        #[test]
        fn overlaps_of_tensors_are_those_of_rectangles(
            values in prop::collection::vec(-0.2..1.0f32, 8),
        ) {
            let tensor = |v: &[f32]| Tensor::from_slice(v).view([1, 4]);
            let overlap = LocaliserTask::overlaps(&tensor(&values[..4]), &tensor(&values[4..]))[0];
            // Counted on a fine grid.
            let holds = |v: &[f32], x: f32, y: f32| {
                x >= v[0] && x < v[0] + v[2] && y >= v[1] && y < v[1] + v[3]
            };
            let (mut both, mut either) = (0.0, 0.0);
            for (i, j) in (0..240).flat_map(|i| (0..240).map(move |j| (i, j))) {
                let (x, y) = (i as f32 * 0.01 - 0.3, j as f32 * 0.01 - 0.3);
                let (a, b) = (holds(&values[..4], x, y), holds(&values[4..], x, y));
                both += f64::from(u8::from(a && b));
                either += f64::from(u8::from(a || b));
            }
            if either > 400.0 {
                prop_assert!((overlap - both / either).abs() < 0.12, "{overlap} {}", both / either);
            }
        }
    }
}
