//! What the camera, the window and the file format do to a picture.

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{DynamicImage, RgbImage};
use rand::Rng;
use rand_distr::{Distribution, Normal};

use super::raster::{Canvas, luminance, mix};

/// Exposure, contrast, cast, haze, blur, noise and compression, each at random and mostly mild.
pub(super) fn photograph(mut canvas: Canvas, rng: &mut impl Rng) -> RgbImage {
    let normal = Normal::new(0.0f32, 1.0).expect("a finite spread");
    if rng.random_bool(0.45) {
        let sigma = rng.random_range(0.2..0.9f32);
        let (sx, sy) = match rng.random_range(0..8) {
            0 => (sigma * 2.2, sigma * 0.5),
            1 => (sigma * 0.5, sigma * 2.2),
            2 => (sigma * 1.8, sigma * 1.8),
            _ => (sigma, sigma),
        };
        canvas.blur(sx, sy);
    }
    let exposure = (0.17 * normal.sample(rng)).exp();
    let gamma = (0.15 * normal.sample(rng)).exp();
    let cast: [f32; 3] = std::array::from_fn(|_| (0.035 * normal.sample(rng)).exp());
    let haze = if rng.random_bool(0.25) {
        rng.random_range(0.0..0.35)
    } else {
        0.0
    };
    let fog = [170.0, 178.0, 185.0].map(|v: f32| v * rng.random_range(0.7..1.2));
    let saturation = 1.0 + 0.12 * normal.sample(rng);
    let vignette = if rng.random_bool(0.3) {
        rng.random_range(0.0..0.4)
    } else {
        0.0
    };
    let grain = if rng.random_bool(0.6) {
        rng.random_range(0.5..5.0f32)
    } else {
        0.0
    };
    // The power is dear for each pixel, and bytes know only 256 levels.
    let curve: Vec<f32> = (0..1024)
        .map(|i| 255.0 * (i as f32 / 1023.0).powf(gamma))
        .collect();
    let bits = &mut || rng.random::<u32>();
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    for y in 0..canvas.height {
        let v = y as f32 / h - 0.5;
        for (x, c) in canvas.row_mut(y).iter_mut().enumerate() {
            let u = x as f32 / w - 0.5;
            let k = exposure * (1.0 - vignette * (u * u + v * v));
            let mut out = *c;
            let grey = luminance(out);
            for i in 0..3 {
                let v = (grey + (out[i] - grey) * saturation) * cast[i] * k;
                out[i] = curve[(v * (1023.0 / 255.0)).clamp(0.0, 1023.0) as usize];
            }
            if haze > 0.0 {
                out = mix(out, fog, haze);
            }
            if grain > 0.0 {
                // The sum of two uniform numbers is near enough to a sensor's noise.
                let n = bits();
                let (a, b) = (n & 0xffff, n >> 16);
                let shared = (a as f32 + b as f32) / 65536.0 - 1.0;
                let tinted = (a as f32 - b as f32) / 65536.0;
                out[0] += grain * (shared + 0.5 * tinted);
                out[1] += grain * shared;
                out[2] += grain * (shared - 0.5 * tinted);
            }
            *c = out;
        }
    }
    let image = canvas.to_image();
    if rng.random_bool(0.4) {
        compress(image, rng.random_range(35..95))
    } else {
        image
    }
}

fn compress(image: RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::with_capacity(image.len() / 8);
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&image);
    let decoded = encoded
        .and_then(|()| JpegDecoder::new(std::io::Cursor::new(&bytes)))
        .and_then(DynamicImage::from_decoder);
    // Our own JPEG always decodes; if ever not, the picture without artefacts does as well.
    decoded.map_or(image, DynamicImage::into_rgb8)
}
