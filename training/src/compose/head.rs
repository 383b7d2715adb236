use image::{RgbImage, imageops};
use rand::Rng;
use recognition::geometry::HeadCrop;

use super::ComposeError;
use super::raster::{Colour, Texture, luminance};

/// The geometry of every head photograph that is composed.
const CROP: HeadCrop = HeadCrop::RIGHT_WHALE;
/// Texels for each head length, across and down: a head is never shown larger than this with profit.
pub(super) const TEXELS_PER_HEAD_LENGTH: usize = 112;

/// Where the crop ends, in head units (see [`HeadPhotograph`]).
pub(super) const REAR: f32 = -0.6;
pub(super) const FRONT: f32 = 1.4;
pub(super) const HALF_HEIGHT: f32 = 0.5;

/// A head photograph, un-squeezed, with what is known of its sea and its body.
///
/// Internally, positions in it are in *head units*: `s` along the head, 0 at the blowhead and 1 at the bonnet;
/// `t` across it, 0 on the line between them, in head lengths, positive down in the crop.
pub struct HeadPhotograph {
    texture: Texture,
    /// Mean colour of the water beside and ahead of the head.
    pub(super) sea: Colour,
    /// Standard deviation of that water's luminance.
    pub(super) sea_contrast: f32,
    /// Colour of dark skin.
    pub(super) skin: Colour,
}

impl HeadPhotograph {
    /// Prepares a squeezed square of any size, cut as [`HeadCrop::RIGHT_WHALE`] says; `number` is what an
    /// error calls it.
    ///
    /// # Errors
    /// A side has fewer than 16 pixels.
    pub fn new(squeezed: &RgbImage, number: usize) -> Result<Self, ComposeError> {
        if squeezed.width() < 16 || squeezed.height() < 16 {
            return Err(ComposeError::HeadTooSmall {
                number,
                width: squeezed.width(),
                height: squeezed.height(),
            });
        }
        let h = TEXELS_PER_HEAD_LENGTH;
        let w = (h as f64 * CROP.aspect).round() as usize;
        // A triangle filter as wide as the reduction, so that nothing aliases.
        let natural =
            imageops::resize(squeezed, w as u32, h as u32, imageops::FilterType::Triangle);
        let outside = outside_of_frame(&natural);
        let texels = natural
            .pixels()
            .zip(&outside)
            .map(|(p, &out)| [p[0], p[1], p[2], if out { 0 } else { 255 }])
            .collect();
        let texture = Texture::new(w, h, texels);

        let mut water = Vec::new();
        let mut body = Vec::new();
        for y in 0..h {
            for x in 0..w {
                let [r, g, b, trusted] = texture.texel(x, y);
                if trusted == 0 {
                    continue;
                }
                let c = [f32::from(r), f32::from(g), f32::from(b)];
                let (s, t) = units(x as f32 + 0.5, y as f32 + 0.5);
                if s > 1.2 || (s > 0.5 && t.abs() > 0.44) {
                    water.push(c);
                }
                if s < 0.5 && t.abs() < 0.35 {
                    body.push(c);
                }
            }
        }
        // A crop that lies almost wholly outside its frame still gets a colour.
        if water.len() < 50 {
            water.push([60.0, 80.0, 95.0]);
        }
        if body.is_empty() {
            body.push([45.0, 45.0, 50.0]);
        }
        let sea = trimmed_mean(&mut water, 0.05, 0.85);
        let mean = luminance(sea);
        let variance = water
            .iter()
            .map(|&c| (luminance(c) - mean).min(60.0).powi(2))
            .sum::<f32>()
            / water.len() as f32;
        Ok(Self {
            skin: trimmed_mean(&mut body, 0.05, 0.5),
            sea,
            sea_contrast: variance.sqrt(),
            texture,
        })
    }

    /// A reader in head units for output pixels that are `step` head lengths apart.
    pub(super) fn sampler(&self, step: f32) -> impl Fn(f32, f32) -> (Colour, f32) + '_ {
        let k = TEXELS_PER_HEAD_LENGTH as f32;
        let sampler = self.texture.at_step(step * k);
        move |s, t| sampler.read((s - REAR) * k, (t + HALF_HEIGHT) * k)
    }
}

fn units(x: f32, y: f32) -> (f32, f32) {
    let k = TEXELS_PER_HEAD_LENGTH as f32;
    (x / k + REAR, y / k - HALF_HEIGHT)
}

/// Mean of the colours whose luminance lies between two quantiles.
fn trimmed_mean(colours: &mut [Colour], from: f64, to: f64) -> Colour {
    colours.sort_by(|a, b| luminance(*a).total_cmp(&luminance(*b)));
    let n = colours.len();
    let first = ((n as f64 * from) as usize).min(n - 1);
    let last = ((n as f64 * to) as usize).clamp(first + 1, n);
    let part = &colours[first..last];
    std::array::from_fn(|i| part.iter().map(|c| c[i]).sum::<f32>() / part.len() as f32)
}

/// Marks what was cut from beyond the photograph's edge: black that reaches the crop's own edge,
/// with a rim where resampling and JPEG mixed it with the picture.
fn outside_of_frame(image: &RgbImage) -> Vec<bool> {
    let (w, h) = (image.width() as usize, image.height() as usize);
    let black = |i: usize| {
        let p = image.get_pixel((i % w) as u32, (i / w) as u32);
        p.0.iter().all(|&v| v <= 6)
    };
    let mut marked = vec![false; w * h];
    let mut open: Vec<usize> = (0..w)
        .flat_map(|x| [x, (h - 1) * w + x])
        .chain((0..h).flat_map(|y| [y * w, y * w + w - 1]))
        .filter(|&i| black(i))
        .collect();
    let mut count = 0;
    while let Some(i) = open.pop() {
        if std::mem::replace(&mut marked[i], true) {
            continue;
        }
        count += 1;
        let (x, y) = (i % w, i / w);
        let mut visit = |j: usize| {
            if !marked[j] && black(j) {
                open.push(j);
            }
        };
        if x > 0 {
            visit(i - 1);
        }
        if x + 1 < w {
            visit(i + 1);
        }
        if y > 0 {
            visit(i - w);
        }
        if y + 1 < h {
            visit(i + w);
        }
    }
    // Night-dark water also has a few black pixels at the edge; the frame's edge leaves many.
    if count * 200 < w * h {
        return vec![false; w * h];
    }
    let rim = 3;
    let mut grown = marked.clone();
    for y in 0..h {
        for x in 0..w {
            if marked[y * w + x] {
                for j in y.saturating_sub(rim)..(y + rim + 1).min(h) {
                    grown[j * w + x.saturating_sub(rim)..j * w + (x + rim + 1).min(w)].fill(true);
                }
            }
        }
    }
    grown
}

/// The ragged, soft-edged region of a head photograph that is kept.
pub(super) struct Mask {
    front: f32,
    half_height: f32,
    squareness: f32,
    offset: f32,
    softness: f32,
    raggedness: f32,
    matte: Option<f32>,
}

impl Mask {
    /// Anything between tight around the head and nearly the whole crop.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self {
            front: rng.random_range(1.10..1.38),
            half_height: rng.random_range(0.34..0.5),
            squareness: rng.random_range(2.0..5.0),
            offset: rng.random_range(-0.06..0.06),
            softness: rng.random_range(0.08..0.45),
            raggedness: rng.random_range(0.05..0.3),
            // What looks like the crop's own water gives way to the composed sea.
            matte: rng.random_bool(0.7).then(|| rng.random_range(0.8..2.5)),
        }
    }

    /// How much of the photograph shows, 0…1, at a position in head units ahead of the crop's rear.
    pub fn at(&self, s: f32, t: f32, noise: f32, colour: Colour, head: &HeadPhotograph) -> f32 {
        let u = ((s - 0.3) / (self.front - 0.3)).max(0.0);
        let v = ((t - self.offset) / self.half_height).abs();
        let distance = (u.powf(self.squareness) + v.powf(self.squareness))
            .powf(1.0 / self.squareness)
            + self.raggedness * noise * 0.4;
        let mut alpha = 1.0 - super::raster::smoothstep(1.0 - self.softness, 1.0, distance);
        // Nothing may end at the straight edge of the crop.
        alpha *= ((FRONT - 0.02 - s) * 20.0).clamp(0.0, 1.0)
            * ((HALF_HEIGHT - 0.01 - t.abs()) * 25.0).clamp(0.0, 1.0);
        if let Some(strength) = self.matte {
            let difference = (0..3)
                .map(|i| (colour[i] - head.sea[i]).abs())
                .fold(0.0, f32::max);
            let unlike_sea = difference / (head.sea_contrast + 5.0);
            let core =
                1.0 - super::raster::smoothstep(0.6, 1.0, (t.abs() / 0.36).max((s - 0.3) / 0.82));
            alpha *= core.max(super::raster::smoothstep(
                0.3 * strength,
                strength,
                unlike_sea,
            ));
        }
        // The landmarks themselves always show: a soft front edge would else hide the bonnet.
        let axis = (1.0 - super::raster::smoothstep(0.16, 0.3, t.abs()))
            * (1.0 - super::raster::smoothstep(1.06, 1.2, s));
        alpha.max(axis)
    }
}
