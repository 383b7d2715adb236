use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail, ensure};
use image::RgbImage;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, Landmarks};
use recognition::pixels;
use tch::{Kind, Reduction, Tensor};

use crate::cache::Cache;
use crate::compose::Composer;
use crate::framing::{Framed, Framer};
use crate::graph::Op;
use crate::index::{Index, IndexedPhotograph};
use crate::loader::Samples;
use crate::metric_learning::{nearest_is_same, with_angular_margin};
use crate::network::{Outputs, unit};
use crate::pseudo_labels::PseudoLabels;
use crate::recipe::{Augmentation, Loss, Recipe};
use crate::split::{Role, Split};
use crate::tasks::{Sums, Task, head_length_errors, measured_part, scalar};

/// Which individual a photograph of a head shows, framed as the recipe says.
pub struct ClassifierTask {
    training: Arc<Photographs>,
    measured: Vec<(&'static str, Arc<dyn Samples>)>,
    label_smoothing: f64,
    loss: Loss,
    /// Scale of a last layer that compares directions.
    scale: f64,
    individuals: usize,
}

impl ClassifierTask {
    /// Training photographs are those of the split's training part, without fold `held_out_fold`, on
    /// which the network is measured, as it is on the validation part.
    ///
    /// # Errors
    /// The recipe's layers are no network, or frames are composed and there is nothing to compose from.
    pub fn new(
        recipe: &Recipe,
        index: &Index,
        split: &Split,
        cache: &Arc<Cache>,
        held_out_fold: u32,
    ) -> anyhow::Result<Self> {
        let individuals = split.individuals.len();
        let measuring = Framer::new(&recipe.input, || {
            Composer::of_held_out_fold(index, split, cache, held_out_fold).map(Arc::new)
        })?;
        let set = |wanted: &dyn Fn(Role) -> bool| {
            let items = items(index, split, cache, wanted).into_iter();
            let items = items.map(|(item, _)| item).collect();
            Arc::new(Photographs::new(recipe, measuring.clone(), items, individuals).measured())
        };
        let in_fold = |role: Role| role.trains_in(held_out_fold);
        let trained_on = |role: Role| role.trains_outside(held_out_fold);
        let measured = vec![
            ("held_out", set(&in_fold) as Arc<dyn Samples>),
            ("validation", set(&|role| role == Role::Validation)),
            ("trained_on", measured_part(set(&trained_on))),
        ];
        let (items, photographs): (Vec<_>, Vec<_>) =
            items(index, split, cache, &trained_on).into_iter().unzip();
        let framer = Framer::new(&recipe.input, || {
            Composer::from_photographs(index, split, cache, &photographs).map(Arc::new)
        })?;
        let graph = recipe.graph(individuals)?;
        Ok(Self {
            training: Arc::new(Photographs::new(recipe, framer, items, individuals)),
            measured,
            label_smoothing: recipe.schedule.label_smoothing,
            loss: recipe.loss.clone(),
            scale: match graph.output().op {
                Op::Cosine { scale, .. } => scale,
                _ => 1.0,
            },
            individuals,
        })
    }

    /// Trains on photographs too that another network named; it is measured on none of them.
    ///
    /// # Errors
    /// A name or a photograph is not of this data, or frames are composed.
    pub fn train_on_pseudo_labels(
        &mut self,
        named: &PseudoLabels,
        split: &Split,
        unlabelled: &Arc<Cache>,
    ) -> anyhow::Result<()> {
        if let Framer::Composed(_) = self.training.framer {
            bail!("classifiers of composed frames train on no pseudo-labels");
        }
        let mut training = Photographs::clone(&self.training);
        for label in &named.labels {
            let individual = split
                .individual_index(&label.individual)
                .with_context(|| format!("the split knows no {}", label.individual))?;
            ensure!(
                unlabelled.pixels(&label.image).is_some(),
                "the data have no photograph {} without a name",
                label.image
            );
            training.items.push(HeadPhotograph {
                image: label.image.clone(),
                individual,
                cache: Arc::clone(unlabelled),
            });
        }
        self.training = Arc::new(training);
        Ok(())
    }

    /// The parts of the loss that do not need logits.
    fn other_losses(&self, outputs: &Outputs, target: &Tensor, labels: &Tensor) -> Option<Tensor> {
        let metric = self.loss.metric.zip(outputs.features.as_ref());
        let metric = metric
            .map(|(loss, features)| loss.of(&unit(features), labels) * self.loss.metric_weight);
        let landmarks = outputs
            .landmarks
            .as_ref()
            .filter(|_| self.loss.landmarks > 0.0);
        let landmarks = landmarks.map(|found| {
            found.mse_loss(&target.narrow(1, 1, 4), Reduction::Mean) * self.loss.landmarks
        });
        [metric, landmarks]
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b)
    }
}

impl Task for ClassifierTask {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::<Photographs>::clone(&self.training)
    }

    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        self.measured.clone()
    }

    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        let labels = target.select(1, 0).to_kind(Kind::Int64);
        let classification = || {
            let margin = self.loss.angular_margin;
            let logits = if margin > 0.0 {
                with_angular_margin(&outputs.output, &labels, self.scale, margin)
            } else {
                outputs.output.shallow_clone()
            };
            logits.cross_entropy_loss::<&Tensor>(
                &labels,
                None,
                Reduction::Mean,
                -100,
                self.label_smoothing,
            ) * self.loss.classification
        };
        match self.other_losses(outputs, target, &labels) {
            Some(other) if self.loss.classification == 0.0 => other,
            Some(other) => classification() + other,
            None => classification(),
        }
    }

    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let size = target.size()[0] as f64;
        let labels = target.select(1, 0).to_kind(Kind::Int64);
        let mut sums = Sums::new();
        let other = self.other_losses(outputs, target, &labels);
        if self.loss.classification > 0.0 {
            // A photograph as it is shows no mirrored self.
            let output = outputs.output.narrow(1, 0, self.individuals as i64);
            let labels = labels.unsqueeze(1);
            let log_probability = output
                .log_softmax(-1, Kind::Float)
                .gather(1, &labels, false);
            let best = output.topk(5.min(output.size()[1]), 1, true, true).1;
            let hits = best.eq_tensor(&labels);
            sums.extend([
                ("loss", -scalar(&log_probability.sum(Kind::Double))),
                ("top1", scalar(&hits.narrow(1, 0, 1).sum(Kind::Double))),
                ("top5", scalar(&hits.sum(Kind::Double))),
            ]);
        } else if let Some(other) = other {
            sums.push(("loss", scalar(&other) * size));
        }
        if let (Some(_), Some(features)) = (&self.loss.metric, &outputs.features) {
            sums.push((
                "nearest_in_batch",
                nearest_is_same(&unit(features), &labels),
            ));
        }
        if let Some(found) = &outputs.landmarks {
            let error = head_length_errors(found, &target.narrow(1, 1, 4));
            sums.push(("head_length_error", scalar(&error.sum(Kind::Double))));
        }
        sums
    }
}

/// A photograph of one head.
#[derive(Clone)]
struct HeadPhotograph {
    image: String,
    individual: usize,
    /// Where its pixels are.
    cache: Arc<Cache>,
}

/// The photographs of the catalogue's individuals with the roles asked for, by individual: measured batches
/// then hold several of a whale, as a metric loss needs them.
fn items<'a>(
    index: &'a Index,
    split: &'a Split,
    cache: &Arc<Cache>,
    wanted: &'a dyn Fn(Role) -> bool,
) -> Vec<(HeadPhotograph, &'a IndexedPhotograph)> {
    let items = split.labelled(index, wanted);
    let items = items.filter_map(|(photograph, label, _)| {
        let individual = split.individual_index(label)?;
        cache.pixels(&photograph.image)?;
        let item = HeadPhotograph {
            image: photograph.image.clone(),
            individual,
            cache: Arc::clone(cache),
        };
        Some((item, photograph))
    });
    let mut items: Vec<_> = items.collect();
    items.sort_by_key(|(item, _)| item.individual);
    items
}

/// Photographs of heads with the index of their individual and the places of their landmarks.
#[derive(Clone)]
struct Photographs {
    input: NetworkInput,
    /// Where frames are composed and photographs are augmented, its heads are those of `items`.
    framer: Framer,
    /// By individual.
    items: Vec<HeadPhotograph>,
    individuals: usize,
    photographs_of_a_whale: usize,
    /// How they are varied; without it each looks the same every time.
    augmentation: Option<Augmentation>,
    /// For each item what the network sees and where the landmarks lie in it, kept where composing it is
    /// dear and it is the same every time; else empty.
    composed: Vec<OnceLock<(RgbImage, Landmarks)>>,
}

impl Photographs {
    fn new(
        recipe: &Recipe,
        framer: Framer,
        items: Vec<HeadPhotograph>,
        individuals: usize,
    ) -> Self {
        Self {
            input: recipe.input.network_input(),
            framer,
            items,
            individuals,
            photographs_of_a_whale: recipe.schedule.photographs_of_a_whale,
            augmentation: Some(recipe.augmentation.clone()),
            composed: Vec::new(),
        }
    }

    /// The same as they are, to be measured on.
    fn measured(self) -> Self {
        let composes = matches!(self.framer, Framer::Composed(_));
        Self {
            composed: vec![OnceLock::new(); if composes { self.items.len() } else { 0 }],
            augmentation: None,
            ..self
        }
    }

    /// Item `item` as it is framed each time.
    fn framed(&self, item: usize) -> Framed {
        let head = &self.items[item];
        self.framer
            .frame(cached(&head.cache, &head.image), None)
            .expect("the cache holds no empty photographs")
    }
}

impl Samples for Photographs {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn input_len(&self) -> usize {
        3 * (self.input.width * self.input.height) as usize
    }

    /// The individual, then bonnet x, bonnet y, blowhead x and blowhead y as fractions of the input.
    fn target_len(&self) -> usize {
        5
    }

    fn order(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let individuals: Vec<usize> = self.items.iter().map(|item| item.individual).collect();
        grouped_order(&individuals, self.photographs_of_a_whale, rng)
    }

    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let augmentation = self.augmentation.as_ref();
        let (landmarks, mirrored) = if let Some(kept) = self.composed.get(item) {
            let (image, landmarks) = kept.get_or_init(|| {
                let framed = self.framed(item);
                (framed.show(&Affine::IDENTITY), framed.landmarks)
            });
            pixels::write_input(image, &self.input, input);
            (*landmarks, false)
        } else {
            let framed = match &self.framer {
                Framer::HeadCrop(_) => self.framed(item),
                Framer::Composed(framer) => framer.compose(&framer.heads()[item], rng),
            };
            write_framed(&framed, &self.input, augmentation, rng, input)
        };
        let own_output = |a: &Augmentation| a.mirrored_individuals && mirrored;
        let shift = if augmentation.is_some_and(own_output) {
            self.individuals
        } else {
            0
        };
        target[0] = (self.items[item].individual + shift) as f32;
        let (w, h) = (f64::from(self.input.width), f64::from(self.input.height));
        let (bonnet, blowhead) = (landmarks.bonnet, landmarks.blowhead);
        let places = [bonnet.x / w, bonnet.y / h, blowhead.x / w, blowhead.y / h];
        for (out, place) in target[1..].iter_mut().zip(places) {
            *out = place as f32;
        }
    }
}

/// A cached photograph.
///
/// # Panics
/// Where the cache does not have it.
pub(super) fn cached(cache: &Cache, image: &str) -> RgbImage {
    let (rgb, width, height) = cache.pixels(image).expect("checked at the start");
    RgbImage::from_raw(width, height, rgb.to_vec()).expect("the cache's own size")
}

/// Writes a framed photograph, changed at random where there is an augmentation; returns where the landmarks
/// come to lie in it, and whether it is mirrored.
pub(super) fn write_framed(
    framed: &Framed,
    input: &NetworkInput,
    augmentation: Option<&Augmentation>,
    rng: &mut ChaCha8Rng,
    out: &mut [f32],
) -> (Landmarks, bool) {
    let mut change = (Affine::IDENTITY, false);
    if let Some(augmentation) = augmentation {
        let (w, h) = (f64::from(input.width), f64::from(input.height));
        change = augmentation.draw_transform(rng, w, h, framed.pixel_aspect);
    }
    let (change, mirrored) = change;
    let mut image = framed.show(&change);
    if let Some(augmentation) = augmentation {
        augmentation.change_pixels(rng, &mut image);
    }
    pixels::write_input(&image, input, out);
    (framed.landmarks.map(&change), mirrored)
}

/// All items at random, but up to `together` of one individual one after the other.
fn grouped_order(individuals: &[usize], together: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut items: Vec<usize> = (0..individuals.len()).collect();
    items.shuffle(rng);
    if together < 2 {
        return items;
    }
    let mut of_whale: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for item in items {
        of_whale.entry(individuals[item]).or_default().push(item);
    }
    let mut groups: Vec<&[usize]> = of_whale.values().flat_map(|w| w.chunks(together)).collect();
    groups.shuffle(rng);
    groups.concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::loader::random;

    proptest! {
        #[test]
        fn whales_come_in_groups_and_nobody_is_lost(
            individuals in prop::collection::vec(0..5usize, 0..60), together in 1..6usize, seed in 0..99u64,
        ) {
            let order = grouped_order(&individuals, together, &mut random(seed, 0, 0));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..individuals.len()).collect::<Vec<_>>());
            if together > 1 {
                let runs = order.chunk_by(|a, b| individuals[*a] == individuals[*b]).count();
                let groups: usize = (0..5)
                    .map(|w| individuals.iter().filter(|i| **i == w).count().div_ceil(together))
                    .sum();
                prop_assert!(runs <= groups);
            }
        }
    }
}
