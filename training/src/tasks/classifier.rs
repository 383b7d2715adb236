use std::sync::Arc;

use callosity::bundle::NetworkInput;
use callosity::geometry::HeadCrop;
use callosity::pixels::{self, OUTSIDE_HEAD_PHOTOGRAPH};
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::cache::Cache;
use crate::index::Index;
use crate::loader::Samples;
use crate::network::Outputs;
use crate::recipe::{Augmentation, Input, Recipe};
use crate::split::{Role, Split};
use crate::tasks::{Sums, Task, measured_part, scalar};

/// Which individual a head crop shows.
pub struct ClassifierTask {
    training: Arc<dyn Samples>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
    label_smoothing: f64,
}

impl ClassifierTask {
    /// Training photographs are those of the split's training part, without fold `held_out_fold`, on
    /// which the network is measured, as it is on the validation part.
    pub fn new(
        recipe: &Recipe,
        index: &Index,
        split: &Split,
        cache: &Arc<Cache>,
        held_out_fold: u32,
    ) -> Self {
        let set = |wanted: &dyn Fn(Role) -> bool, augmentation: Option<Augmentation>| {
            Arc::new(HeadCrops::new(
                &recipe.input,
                index,
                split,
                cache,
                wanted,
                augmentation,
            )) as Arc<dyn Samples>
        };
        let in_fold = |role| matches!(role, Role::Training { fold } if fold == held_out_fold);
        let trained_on = |role| matches!(role, Role::Training { .. }) && !in_fold(role);
        let measured = vec![
            ("held_out", set(&in_fold, None)),
            ("validation", set(&|role| role == Role::Validation, None)),
            ("trained_on", measured_part(set(&trained_on, None))),
        ];
        Self {
            training: set(&trained_on, Some(recipe.augmentation.clone())),
            measured,
            label_smoothing: recipe.schedule.label_smoothing,
        }
    }
}

impl Task for ClassifierTask {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::clone(&self.training)
    }

    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        self.measured.clone()
    }

    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        let labels = target.view([-1]).to_kind(Kind::Int64);
        outputs.output.cross_entropy_loss::<&Tensor>(
            &labels,
            None,
            tch::Reduction::Mean,
            -100,
            self.label_smoothing,
        )
    }

    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let labels = target.view([-1, 1]).to_kind(Kind::Int64);
        let output = &outputs.output;
        let log_probability = output
            .log_softmax(-1, Kind::Float)
            .gather(1, &labels, false);
        let best = output.topk(5.min(output.size()[1]), 1, true, true).1;
        let hits = best.eq_tensor(&labels);
        vec![
            ("loss", -scalar(&log_probability.sum(Kind::Double))),
            ("top1", scalar(&hits.narrow(1, 0, 1).sum(Kind::Double))),
            ("top5", scalar(&hits.sum(Kind::Double))),
        ]
    }
}

/// Head crops with the index of their individual.
struct HeadCrops {
    input: NetworkInput,
    crop: HeadCrop,
    cache: Arc<Cache>,
    items: Vec<(String, usize)>,
    augmentation: Option<Augmentation>,
}

impl HeadCrops {
    fn new(
        input: &Input,
        index: &Index,
        split: &Split,
        cache: &Arc<Cache>,
        wanted: &dyn Fn(Role) -> bool,
        augmentation: Option<Augmentation>,
    ) -> Self {
        let items = split
            .labelled(index, wanted)
            .filter_map(|(photograph, label, _)| {
                let individual = split.individual_index(label)?;
                cache.pixels(&photograph.image)?;
                Some((photograph.image.clone(), individual))
            })
            .collect();
        Self {
            input: input.network_input(),
            crop: input.head_crop,
            cache: Arc::clone(cache),
            items,
            augmentation,
        }
    }
}

impl Samples for HeadCrops {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn input_len(&self) -> usize {
        3 * (self.input.width * self.input.height) as usize
    }

    fn target_len(&self) -> usize {
        1
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let (image, individual) = &self.items[item];
        let (rgb, width, height) = self.cache.pixels(image).expect("checked at the start");
        let source = RgbImage::from_raw(width, height, rgb.to_vec()).expect("the cache's own size");
        let (w, h) = (self.input.width, self.input.height);
        let mut cut = self
            .crop
            .crop_from_head_photograph((width, height), w, h)
            .expect("the cache holds no empty photographs");
        if let Some(augmentation) = &self.augmentation {
            let (w, h) = (f64::from(w), f64::from(h));
            let pixel_aspect = w / h / self.crop.aspect;
            cut = cut.then(&augmentation.draw_transform(rng, w, h, pixel_aspect));
        }
        let mut crop = pixels::warp(&source, &cut, w, h, OUTSIDE_HEAD_PHOTOGRAPH);
        if let Some(augmentation) = &self.augmentation {
            augmentation.change_pixels(rng, &mut crop);
        }
        pixels::write_input(&crop, &self.input, input);
        target[0] = *individual as f32;
    }
}
