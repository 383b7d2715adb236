//! Random changes made to training photographs, as a recipe's [`Augmentation`] bounds them.

use image::RgbImage;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use recognition::geometry::{Affine, Point};
use recognition::pixels::{CameraCondition, SensorNoise};

use crate::recipe::{Augmentation, CameraVariation};

/// A random number in `-limit..=limit`, drawn even where the limit is 0, so that switching one change
/// off leaves the random numbers of the others as they are.
fn either_way(rng: &mut impl Rng, limit: f64) -> f64 {
    limit * rng.random_range(-1.0..=1.0)
}

/// A random factor in `1/(1 + limit)..=1 + limit`, evenly spread in its logarithm.
fn factor(rng: &mut impl Rng, limit: f64) -> f64 {
    (1.0 + limit).powf(rng.random_range(-1.0..=1.0))
}

/// Electrons at white of the noisiest and of the quietest sensor.
const ELECTRONS_AT_WHITE: [f64; 2] = [300.0, 10_000.0];
/// Electrons that a sensor's reading adds, standard deviation.
const READING_ELECTRONS: f32 = 3.0;

impl CameraVariation {
    /// What one photograph's camera, light and file do to it.
    pub fn draw(&self, rng: &mut impl Rng) -> CameraCondition {
        let mut normal = |deviation: f64| -> f64 {
            let drawn: f64 = StandardNormal.sample(rng);
            deviation * drawn
        };
        let (red, blue) = (
            normal(self.white_balance).exp(),
            normal(self.white_balance).exp(),
        );
        let stops = normal(self.exposure_stops);
        let gamma = normal(self.gamma).exp();
        let [low, high] = ELECTRONS_AT_WHITE.map(f64::ln);
        CameraCondition {
            gains: [red as f32, 1.0, blue as f32],
            exposure: CameraCondition::exposure_of_stops(stops as f32),
            gamma: gamma as f32,
            grey: f32::from(u8::from(rng.random_bool(self.grey))),
            haze: rng.random_range(0.0..=self.haze) as f32,
            noise: rng.random_bool(self.noise).then(|| SensorNoise {
                white: rng.random_range(low..=high).exp() as f32,
                read: READING_ELECTRONS,
                row: 0.0,
            }),
            jpeg_quality: rng
                .random_bool(self.jpeg)
                .then(|| rng.random_range(15..=70)),
            ..CameraCondition::AS_IS
        }
    }
}

impl Augmentation {
    /// A random transform of an input of `width × height` pixels onto itself. Rotation and shear act on
    /// the head as it is in nature: `pixel_aspect` is how many times finer the input samples across
    /// than down. Says too whether it mirrors.
    pub fn draw_transform(
        &self,
        rng: &mut impl Rng,
        width: f64,
        height: f64,
        pixel_aspect: f64,
    ) -> (Affine, bool) {
        let radians = either_way(rng, self.rotation_degrees).to_radians();
        let scale = factor(rng, self.scale);
        let aspect = factor(rng, self.aspect).sqrt();
        let shear = either_way(rng, self.shear);
        let shift = Point::new(
            either_way(rng, self.shift) * width,
            either_way(rng, self.shift) * height,
        );
        let flip = if self.mirrored_individuals {
            0.5
        } else {
            self.flip
        };
        // Not drawn where there is none: recipes without flips keep the random numbers that they had.
        let mirrored = flip > 0.0 && rng.random_bool(flip);
        let down = if mirrored {
            -pixel_aspect
        } else {
            pixel_aspect
        };
        let transform = Affine::scaling(1.0, down)
            .then(&Affine::shear_x(shear))
            .then(&Affine::scaling(scale * aspect, scale / aspect))
            .then(&Affine::rotation(radians))
            .then(&Affine::scaling(1.0, 1.0 / pixel_aspect))
            .about(Point::new(width / 2.0, height / 2.0))
            .then(&Affine::translation(shift));
        (transform, mirrored)
    }

    /// Changes light and colour, blurs and erases, in place.
    pub fn change_pixels(&self, rng: &mut impl Rng, image: &mut RgbImage) {
        // Not drawn where there is none: recipes without keep the random numbers that they had.
        if let Some(camera) = &self.camera {
            let taken = camera.draw(rng).apply(image, rng);
            taken.expect("inputs are of a size that JPEG has");
        }
        let brightness = either_way(rng, self.brightness);
        let contrast = factor(rng, self.contrast);
        let tables: [[u8; 256]; 3] = std::array::from_fn(|_| {
            let gain = factor(rng, self.colour) * contrast;
            std::array::from_fn(|v| {
                let changed = ((v as f64 / 255.0 - 0.5) * gain + 0.5 + brightness) * 255.0;
                changed.round().clamp(0.0, 255.0) as u8
            })
        });
        for pixel in image.pixels_mut() {
            for (value, table) in pixel.0.iter_mut().zip(&tables) {
                *value = table[usize::from(*value)];
            }
        }
        let blur = rng.random_bool(self.blur);
        let sigma = rng.random_range(0.5..1.5);
        if blur {
            *image = image::imageops::fast_blur(image, sigma);
        }
        let erase = rng.random_bool(self.erase);
        let (w, h) = image.dimensions();
        let size = |rng: &mut dyn rand::RngCore, side: u32| {
            ((f64::from(side) * rng.random_range(0.1..0.35)) as u32).max(1)
        };
        let (ew, eh) = (size(rng, w), size(rng, h));
        let (x, y) = (rng.random_range(0..=w - ew), rng.random_range(0..=h - eh));
        let grey = image::Rgb([rng.random::<u8>(); 3]);
        if erase {
            for j in y..y + eh {
                for i in x..x + ew {
                    image.put_pixel(i, j, grey);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::loader::random;

    #[test]
    fn cameras_vary_as_much_as_a_recipe_says() {
        let variation = CameraVariation {
            white_balance: 0.15,
            exposure_stops: 0.8,
            gamma: 0.2,
            grey: 0.25,
            haze: 0.4,
            noise: 0.5,
            jpeg: 0.1,
        };
        let drawn: Vec<CameraCondition> = (0..4000)
            .map(|i| variation.draw(&mut random(3, 0, i)))
            .collect();
        let deviation = |value: &dyn Fn(&CameraCondition) -> f32| {
            let values = drawn.iter().map(|c| f64::from(value(c)));
            let (sum, squares) = values.fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
            let n = drawn.len() as f64;
            (squares / n - (sum / n).powi(2)).sqrt()
        };
        let share = |holds: &dyn Fn(&CameraCondition) -> bool| {
            drawn.iter().filter(|c| holds(c)).count() as f64 / drawn.len() as f64
        };
        let near = |found: f64, wanted: f64| {
            assert!(
                (found - wanted).abs() < 0.1 * wanted,
                "{found}, not {wanted}"
            );
        };
        near(deviation(&|c| c.gains[0].ln()), 0.15);
        near(deviation(&|c| c.gains[2].ln()), 0.15);
        near(deviation(&|c| 2.2 * c.exposure.log2()), 0.8);
        near(deviation(&|c| c.gamma.ln()), 0.2);
        near(share(&|c| c.grey == 1.0), 0.25);
        near(share(&|c| c.haze > 0.2), 0.5);
        near(share(&|c| c.noise.is_some()), 0.5);
        near(
            share(&|c| c.jpeg_quality.is_some_and(|q| (15..=70).contains(&q))),
            0.1,
        );
        let none = CameraVariation::default().draw(&mut random(3, 0, 0));
        assert_eq!(none, CameraCondition::AS_IS);
    }

    proptest! {
        #[test]
        fn a_flip_mirrors_at_the_line_through_the_landmarks(
            seed in 0..1000u64, x in 0.0..160.0f64, y in 0.0..128.0f64, pixel_aspect in 0.3..3.0f64,
        ) {
            let flip = Augmentation { flip: 1.0, ..Augmentation::default() };
            let (t, _) = flip.draw_transform(&mut random(seed, 0, 0), 160.0, 128.0, pixel_aspect);
            prop_assert!(t.apply(Point::new(x, y)).distance(Point::new(x, 128.0 - y)) < 1e-9);
        }
    }
}
