use std::sync::{Arc, OnceLock};

use callosity::bundle::NetworkInput;
use callosity::geometry::Affine;
use callosity::pixels;
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::cache::Cache;
use crate::compose::{ComposeError, Composer};
use crate::framing::Framer;
use crate::index::{Index, IndexedPhotograph};
use crate::loader::Samples;
use crate::network::Outputs;
use crate::recipe::{Augmentation, Recipe};
use crate::split::{Role, Split};
use crate::tasks::{Sums, Task, measured_part, scalar};

/// Which individual a photograph of a head shows, framed as the recipe says.
pub struct ClassifierTask {
    training: Arc<dyn Samples>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
    label_smoothing: f64,
}

impl ClassifierTask {
    /// Training photographs are those of the split's training part, without fold `held_out_fold`, on
    /// which the network is measured, as it is on the validation part.
    ///
    /// # Errors
    /// Frames are composed, and there is nothing to compose from.
    pub fn new(
        recipe: &Recipe,
        index: &Index,
        split: &Split,
        cache: &Arc<Cache>,
        held_out_fold: u32,
    ) -> Result<Self, ComposeError> {
        let measuring = Framer::new(&recipe.input, || {
            Composer::of_held_out_fold(index, split, cache, held_out_fold)
        })?;
        let measured_set = |wanted: &dyn Fn(Role) -> bool| {
            let framer = measuring.clone();
            Arc::new(Photographs::new(
                framer,
                cache,
                &labelled(index, split, cache, wanted),
                None,
            )) as Arc<dyn Samples>
        };
        let in_fold = |role| matches!(role, Role::Training { fold } if fold == held_out_fold);
        let trained_on = |role| matches!(role, Role::Training { .. }) && !in_fold(role);
        let measured = vec![
            ("held_out", measured_set(&in_fold)),
            ("validation", measured_set(&|role| role == Role::Validation)),
            ("trained_on", measured_part(measured_set(&trained_on))),
        ];
        let items = labelled(index, split, cache, &trained_on);
        let framer = Framer::new(&recipe.input, || {
            let photographs: Vec<_> = items.iter().map(|(photograph, _)| *photograph).collect();
            Composer::from_photographs(index, split, cache, &photographs)
        })?;
        let augmentation = Some(recipe.augmentation.clone());
        Ok(Self {
            training: Arc::new(Photographs::new(framer, cache, &items, augmentation)),
            measured,
            label_smoothing: recipe.schedule.label_smoothing,
        })
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

/// The photographs of the catalogue's individuals with the roles asked for, and the index of each one's.
fn labelled<'a>(
    index: &'a Index,
    split: &'a Split,
    cache: &Cache,
    wanted: &'a dyn Fn(Role) -> bool,
) -> Vec<(&'a IndexedPhotograph, usize)> {
    let photographs = split.labelled(index, wanted);
    photographs
        .filter_map(|(photograph, whale, _)| {
            cache.pixels(&photograph.image)?;
            Some((photograph, split.individual_index(whale)?))
        })
        .collect()
}

/// Photographs of heads with the index of their individual.
struct Photographs {
    input: NetworkInput,
    /// Where frames are composed and photographs are augmented, its heads are those of `items`.
    framer: Framer,
    cache: Arc<Cache>,
    items: Vec<(String, usize)>,
    /// How they are varied; without it each looks the same every time.
    augmentation: Option<Augmentation>,
    /// For each item what the network sees, kept where it is dear and the same every time; else empty.
    composed: Vec<OnceLock<RgbImage>>,
}

impl Photographs {
    fn new(
        framer: Framer,
        cache: &Arc<Cache>,
        items: &[(&IndexedPhotograph, usize)],
        augmentation: Option<Augmentation>,
    ) -> Self {
        let is_kept = matches!(framer, Framer::Composed(_)) && augmentation.is_none();
        Self {
            input: framer.network_input(),
            framer,
            cache: Arc::clone(cache),
            items: items
                .iter()
                .map(|&(photograph, individual)| (photograph.image.clone(), individual))
                .collect(),
            augmentation,
            composed: vec![OnceLock::new(); if is_kept { items.len() } else { 0 }],
        }
    }

    /// What the network sees.
    fn show(&self, item: usize, rng: &mut ChaCha8Rng) -> RgbImage {
        let framed = match (&self.framer, &self.augmentation) {
            (Framer::Composed(framer), Some(_)) => framer.compose(&framer.heads()[item], rng),
            _ => {
                let pixels = self.cache.pixels(&self.items[item].0);
                let (rgb, width, height) = pixels.expect("checked at the start");
                let photograph = RgbImage::from_raw(width, height, rgb.to_vec());
                let photograph = photograph.expect("the cache's own size");
                let framed = self.framer.frame(photograph, None);
                framed.expect("the cache holds no empty photographs")
            }
        };
        let Some(augmentation) = &self.augmentation else {
            return framed.show(&Affine::IDENTITY);
        };
        let (w, h) = (f64::from(self.input.width), f64::from(self.input.height));
        let change = augmentation.draw_transform(rng, w, h, framed.pixel_aspect);
        let mut image = framed.show(&change);
        augmentation.change_pixels(rng, &mut image);
        image
    }
}

impl Samples for Photographs {
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
        match self.composed.get(item) {
            Some(kept) => {
                let image = kept.get_or_init(|| self.show(item, rng));
                pixels::write_input(image, &self.input, input);
            }
            None => pixels::write_input(&self.show(item, rng), &self.input, input),
        }
        target[0] = self.items[item].1 as f32;
    }
}
