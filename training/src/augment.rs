//! Random changes made to training photographs, as a recipe's [`Augmentation`] bounds them.

use callosity::geometry::{Affine, Point};
use image::RgbImage;
use rand::Rng;

use crate::recipe::Augmentation;

/// A random number in `-limit..=limit`, drawn even where the limit is 0, so that switching one change
/// off leaves the random numbers of the others as they are.
fn either_way(rng: &mut impl Rng, limit: f64) -> f64 {
    limit * rng.random_range(-1.0..=1.0)
}

/// A random factor in `1/(1 + limit)..=1 + limit`, evenly spread in its logarithm.
fn factor(rng: &mut impl Rng, limit: f64) -> f64 {
    (1.0 + limit).powf(rng.random_range(-1.0..=1.0))
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
