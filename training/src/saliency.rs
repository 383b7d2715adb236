//! Occlusion maps of classifiers (Zeiler & Fergus 2014, "Visualizing and understanding convolutional
//! networks", section 4.2): a grey patch is slid over the input, and the map says how much of the true
//! whale's probability goes where the patch hides the photograph.

use std::ops::Range;

use anyhow::{Context, ensure};
use image::{ImageBuffer, Luma, Pixel, Rgb, RgbImage, imageops};
use indicatif::ProgressBar;
use ndarray::Array2;
use plotters::style::RGBColor;
use plotters::style::colors::colormaps::{ColorMap, DerivedColorMap};
use recognition::bundle::NetworkInput;
use recognition::geometry::Affine;
use recognition::pixels::write_input;
use tch::{Device, Kind, Tensor};

use crate::features::HeadPhotograph;
use crate::framing::Framer;
use crate::run_folder::TrainedRun;

/// Colour of the patch.
const GREY: Rgb<u8> = Rgb([128; 3]);
/// Patched inputs that go through a network together.
const BATCH: usize = 32;
/// How far a map's strongest colour covers the photograph.
const OPACITY: f32 = 0.75;
/// White pixels between the pictures of a strip.
const GAP: u32 = 4;

/// The patch and its steps, as fractions of the input's sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occlusion {
    /// Side of the patch, above 0, at most 1.
    pub patch: f64,
    /// From one place of the patch to the next, above 0, at most 1; rounded so that whole steps fill the
    /// side.
    pub stride: f64,
}

impl Default for Occlusion {
    fn default() -> Self {
        Self {
            patch: 0.2,
            stride: 0.05,
        }
    }
}

impl Occlusion {
    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [("patch", self.patch), ("stride", self.stride)] {
            ensure!(
                value > 0.0 && value <= 1.0,
                "the {name} is {value}; it is a fraction of the input's side, above 0 and at most 1"
            );
        }
        Ok(())
    }

    /// Places of the patch along a side.
    fn places(&self) -> usize {
        (1.0 / self.stride).round().max(1.0) as usize
    }

    /// The pixels of a side of `side` pixels that the patch hides at a place; at least one. Its middle is
    /// that of the place's share of the side; beyond the edge it is cut off.
    fn hidden(&self, place: usize, side: u32) -> Range<u32> {
        let side_length = f64::from(side);
        let middle = (place as f64 + 0.5) / self.places() as f64 * side_length;
        let half = self.patch * side_length / 2.0;
        let from = ((middle - half).round().max(0.0) as u32).min(side - 1);
        let to = (middle + half).round().min(side_length) as u32;
        from..to.max(from + 1)
    }
}

/// How a classifier's answer depends on the parts of one photograph.
#[derive(Clone, Debug, PartialEq)]
pub struct SaliencyMap {
    /// Probability of the whale with nothing hidden.
    pub probability: f64,
    /// By how much it falls (before minus after) with the patch at each place, places down × places
    /// across. Negative where the whale becomes more probable.
    pub fall: Array2<f64>,
}

impl SaliencyMap {
    /// The largest change either way.
    pub fn largest(&self) -> f64 {
        self.fall.iter().fold(0.0, |most, v| most.max(v.abs()))
    }
}

/// The occlusion map of an input-sized crop for the output `individual` of a classifier, which makes logits,
/// `N × individuals`, of images, `N × 3 × height × width`. `progress` advances by one for each place
/// ([`places`]).
///
/// # Errors
/// The patch or the stride is out of range.
///
/// # Panics
/// Where the image does not have the input's size.
pub fn occlusion_map(
    classifier: impl Fn(&Tensor) -> Tensor,
    input: &NetworkInput,
    image: &RgbImage,
    individual: usize,
    occlusion: &Occlusion,
    progress: &ProgressBar,
) -> anyhow::Result<SaliencyMap> {
    occlusion.check()?;
    let n = occlusion.places();
    let (width, height) = (input.width, input.height);
    let each = 3 * width as usize * height as usize;
    let hidden: Vec<(Range<u32>, Range<u32>)> = (0..n * n)
        .map(|i| {
            (
                occlusion.hidden(i % n, width),
                occlusion.hidden(i / n, height),
            )
        })
        .collect();
    let probabilities = |patches: &[(Range<u32>, Range<u32>)]| -> anyhow::Result<Vec<f64>> {
        let mut values = vec![0.0; each * patches.len()];
        for ((across, down), out) in patches.iter().zip(values.chunks_exact_mut(each)) {
            let mut patched = image.clone();
            for y in down.clone() {
                for x in across.clone() {
                    patched.put_pixel(x, y, GREY);
                }
            }
            write_input(&patched, input, out);
        }
        let shape = [patches.len() as i64, 3, i64::from(height), i64::from(width)];
        let images = Tensor::from_slice(&values).view(shape);
        let of_whale = classifier(&images)
            .to_device(Device::Cpu)
            .softmax(-1, Kind::Double)
            .narrow(1, individual as i64, 1);
        Ok(Vec::try_from(of_whale.contiguous().view([-1]))?)
    };
    let probability = probabilities(&[(0..0, 0..0)])?[0];
    let mut fall = Vec::with_capacity(n * n);
    for patches in hidden.chunks(BATCH) {
        fall.extend(
            probabilities(patches)?
                .iter()
                .map(|after| probability - after),
        );
        progress.inc(patches.len() as u64);
    }
    Ok(SaliencyMap {
        probability,
        fall: Array2::from_shape_vec((n, n), fall).context("a map of all places")?,
    })
}

/// Places of the patch in one map, for a progress bar.
pub fn places(occlusion: &Occlusion) -> usize {
    occlusion.places() * occlusion.places()
}

/// The map over the grey photograph of the same crop: red where hiding makes the whale less probable,
/// blue where it makes it more probable, full colour at a change of `scale`.
pub fn overlay(photograph: &RgbImage, map: &SaliencyMap, scale: f64) -> RgbImage {
    let scale = scale.max(f64::MIN_POSITIVE);
    let (down, across) = map.fall.dim();
    // `resize` clips to 0…1, so no change is at one half.
    let shares = map
        .fall
        .iter()
        .map(|fall| ((fall / scale).clamp(-1.0, 1.0) as f32 + 1.0) / 2.0)
        .collect();
    let coarse: ImageBuffer<Luma<f32>, Vec<f32>> =
        ImageBuffer::from_raw(across as u32, down as u32, shares).expect("one value a place");
    let (width, height) = photograph.dimensions();
    let fine = imageops::resize(&coarse, width, height, imageops::FilterType::Triangle);
    // Blue and red of ColorBrewer's RdBu, which the colour-blind can tell apart, with the photograph's own
    // grey between them.
    let (blue, red) = (RGBColor(33, 102, 172), RGBColor(178, 24, 43));
    let colours: Vec<DerivedColorMap<RGBColor>> = (0..=u8::MAX)
        .map(|grey| DerivedColorMap::new(&[blue, RGBColor(grey, grey, grey), red]))
        .collect();
    let mut result = photograph.clone();
    for (pixel, Luma([share])) in result.pixels_mut().zip(fine.pixels()) {
        let grey = pixel.to_luma().0[0];
        let share = 0.5 + (share - 0.5) * OPACITY;
        let RGBColor(r, g, b) = colours[usize::from(grey)].get_color(share);
        *pixel = Rgb([r, g, b]);
    }
    result
}

/// One photograph as several classifiers see it.
pub struct Figure {
    /// Its true whale.
    pub whale: String,
    /// What the first classifier sees of it, un-squeezed.
    pub photograph: RgbImage,
    /// For each classifier its recipe's name, its map, and the map over what it sees.
    pub maps: Vec<(String, SaliencyMap, RgbImage)>,
}

impl Figure {
    /// Maps of the runs' classifiers, each with its framer, for a photograph of a whale of their catalogue,
    /// all on one scale, as pictures of `height` pixels.
    ///
    /// # Errors
    /// A run is no classifier by logits or does not know the whale, the photograph cannot be read, or the
    /// patch is out of range.
    pub fn new(
        runs: &[(&TrainedRun, Framer)],
        head: &HeadPhotograph,
        whale: &str,
        occlusion: &Occlusion,
        height: u32,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut seen = Vec::new();
        for (run, framer) in runs {
            let folder = run.folder.display();
            ensure!(
                run.recipe.outputs_logits(),
                "{folder}: saliency needs a classifier whose outputs are logits of individuals"
            );
            let individual = run.record.individuals.iter().position(|i| i == whale);
            let individual = individual.with_context(|| {
                format!(
                    "{folder} does not know {whale}, the whale of {}",
                    head.path.display()
                )
            })?;
            let framed = head.framed(framer)?;
            let map = occlusion_map(
                |images| {
                    let images = images.to_device(run.network.device());
                    run.evaluate(&images).output
                },
                &framer.network_input(),
                &framed.show(&Affine::IDENTITY),
                individual,
                occlusion,
                progress,
            )?;
            seen.push((run.name.clone(), map, framed.unsqueezed(height)));
        }
        let scale = seen.iter().fold(0.0f64, |most, s| most.max(s.1.largest()));
        Ok(Self {
            whale: whale.to_owned(),
            photograph: seen.first().context("no run is given")?.2.clone(),
            maps: seen
                .into_iter()
                .map(|(name, map, shown)| {
                    let over = overlay(&shown, &map, scale);
                    (name, map, over)
                })
                .collect(),
        })
    }

    /// The photograph and the maps, from left to right.
    pub fn strip(&self) -> RgbImage {
        let pictures: Vec<&RgbImage> = std::iter::once(&self.photograph)
            .chain(self.maps.iter().map(|m| &m.2))
            .collect();
        let width: u32 = pictures.iter().map(|p| p.width() + GAP).sum::<u32>() - GAP;
        let height = pictures.iter().map(|p| p.height()).max().unwrap_or(0);
        let mut strip = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        let mut x = 0;
        for picture in pictures {
            imageops::replace(&mut strip, picture, x, 0);
            x += i64::from(picture.width() + GAP);
        }
        strip
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::{Graph, Layer};
    use crate::network::{Mode, Network, Precision};

    const SIDES: (u32, u32) = (12, 8);

    /// A network that sees one pixel only: a locally connected layer whose weights are 0 elsewhere.
    fn sees_only(x: u32, y: u32) -> Network {
        #[derive(serde::Deserialize)]
        struct Document {
            layers: Vec<Layer>,
        }
        let text = r#"layers = [
            { op = "locally_connected", channels = 1, kernel = 1 },
            { op = "global_average_pool" },
            { op = "linear" },
        ]"#;
        let layers = toml::from_str::<Document>(text).unwrap().layers;
        let (width, height) = (SIDES.0 as usize, SIDES.1 as usize);
        let graph = Graph::build(&layers, width, height, 0.1, 2).unwrap();
        let network = Network::new(graph, Device::Cpu);
        let mut weights = vec![0.0f32; width * height * 3];
        let place = (y * SIDES.0 + x) as usize;
        weights[3 * place..3 * place + 3].fill(30.0);
        let parameters = network.parameters();
        let name = |end: &str| {
            let found = parameters.keys().find(|n| n.ends_with(end));
            found.unwrap().clone()
        };
        let set = |name: &str, values: &[f32]| {
            let parameter = network.parameter(name);
            tch::no_grad(|| {
                parameter
                    .shallow_clone()
                    .copy_(&Tensor::from_slice(values).view(parameter.size().as_slice()));
            });
        };
        set("l1_1.weight", &weights);
        set(&name("linear.weight"), &[1.0, -1.0]);
        network
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        /// The probability falls where the patch hides the one pixel that is seen, everywhere there by the
        /// same, and nowhere else.
        #[test]
        fn only_the_place_that_matters_stands_out(
            x in 0..SIDES.0, y in 0..SIDES.1, patch in 0.1..0.9f64, stride in 0.1..0.5f64,
        ) {
            let network = sees_only(x, y);
            let input = NetworkInput {
                name: "image".into(), width: SIDES.0, height: SIDES.1, mean: [0.5; 3], std: [0.25; 3],
            };
            let image = RgbImage::from_pixel(SIDES.0, SIDES.1, Rgb([250, 240, 245]));
            let occlusion = Occlusion { patch, stride };
            let bar = ProgressBar::hidden();
            let classifier = |images: &Tensor| {
                let outputs = network.forward(images, Mode::Evaluate, Precision::Float32);
                outputs.output.detach()
            };
            let map = occlusion_map(classifier, &input, &image, 0, &occlusion, &bar).unwrap();
            prop_assert_eq!(bar.position(), places(&occlusion) as u64);
            let most = map.largest();
            prop_assert!(map.probability > 0.6);
            for ((down, across), fall) in map.fall.indexed_iter() {
                let hides = occlusion.hidden(across, SIDES.0).contains(&x)
                    && occlusion.hidden(down, SIDES.1).contains(&y);
                if hides {
                    prop_assert!(*fall > 0.1 && most - fall < 1e-6, "{map:?}");
                } else {
                    prop_assert!(fall.abs() < 1e-6, "{map:?}");
                }
            }
        }

        /// The patch goes from edge to edge and leaves no pixel out that lies between its steps.
        #[test]
        fn every_pixel_is_hidden_where_the_patch_is_as_wide_as_the_stride(
            side in 1..200u32, stride in 0.02..1.0f64, wider in 1.05..3.0f64,
        ) {
            let places = Occlusion { patch: 1.0, stride }.places();
            let patch = (wider / places as f64).min(1.0);
            let occlusion = Occlusion { patch, stride };
            let mut hidden = vec![false; side as usize];
            for place in 0..places {
                let range = occlusion.hidden(place, side);
                prop_assert!(!range.is_empty() && range.end <= side);
                range.for_each(|i| hidden[i as usize] = true);
            }
            prop_assert!(hidden.iter().all(|h| *h) || f64::from(side) < places as f64);
        }
    }

    #[test]
    fn colours_say_which_way_the_probability_goes() {
        // An odd number of pixels for each place, so that one lies in its very middle.
        let photograph = RgbImage::from_pixel(33, 11, Rgb([90; 3]));
        let map = SaliencyMap {
            probability: 0.9,
            fall: Array2::from_shape_vec((1, 3), vec![0.5, 0.0, -0.5]).unwrap(),
        };
        let over = overlay(&photograph, &map, map.largest());
        let at = |x| over.get_pixel(x, 5).0;
        assert!(at(1)[0] > at(1)[2] + 50, "{:?}", at(1));
        assert_eq!(at(16), [90; 3]);
        assert!(at(31)[2] > at(31)[0] + 50, "{:?}", at(31));
    }

    #[test]
    fn a_patch_of_no_size_is_refused() {
        let occlusion = Occlusion {
            patch: 0.0,
            stride: 0.1,
        };
        let error = occlusion.check().unwrap_err();
        assert!(error.to_string().contains("patch is 0"), "{error}");
    }
}
