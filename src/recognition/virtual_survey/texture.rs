//! Tileable textures from which sea and foam are put together: computed once, then only looked up.
//!
//! A wave field is drawn in the frequency domain from a directional spectrum and brought back by a
//! Fourier transform, so it repeats without a seam. Coarser copies of each texture (averaged, as in a
//! mip-map) serve views in which a texel is smaller than a pixel.

use std::sync::LazyLock;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rustfft::algorithm::Radix4;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftDirection};

/// Texels along a side of the finest level; a power of two.
const SIDE: usize = 256;
/// Coarsest level: `SIDE >> COARSEST` texels a side.
const COARSEST: usize = 5;

/// Four numbers at each texel. Waves: height, slope along `x`, slope along `y` (each of mean 0 and
/// standard deviation 1) and a second, independent height. Cells: distance from the web between the
/// cells (0 on it, about 1 in a cell's middle), and three independent slow noises of standard deviation 1.
pub(super) type Texel = [f32; 4];

struct Level {
    side: usize,
    texels: Vec<Texel>,
    /// Standard deviation of the slopes that is left at this level, relative to the finest.
    slope_left: f32,
}

/// A texture of period 1 in both directions with its coarser levels.
pub(super) struct Texture {
    levels: Vec<Level>,
}

impl Texture {
    fn new(texels: Vec<Texel>) -> Self {
        let deviation = |texels: &[Texel]| {
            let sum: f32 = texels.iter().map(|t| t[1] * t[1] + t[2] * t[2]).sum();
            (sum / texels.len() as f32).sqrt()
        };
        let full = deviation(&texels).max(1e-6);
        let mut levels = vec![Level {
            side: SIDE,
            texels,
            slope_left: 1.0,
        }];
        for _ in 0..COARSEST {
            let fine = &levels[levels.len() - 1];
            let side = fine.side / 2;
            let texels: Vec<Texel> = (0..side * side)
                .map(|i| {
                    let at = 2 * (i / side) * fine.side + 2 * (i % side);
                    std::array::from_fn(|c| {
                        [at, at + 1, at + fine.side, at + fine.side + 1]
                            .iter()
                            .map(|&j| fine.texels[j][c])
                            .sum::<f32>()
                            / 4.0
                    })
                })
                .collect();
            let slope_left = deviation(&texels) / full;
            levels.push(Level {
                side,
                texels,
                slope_left,
            });
        }
        Self { levels }
    }

    /// The level whose texels are about as large as pixels when a period covers `period` pixels, or
    /// `None` where even the coarsest has finer texels than the picture can show.
    pub(super) fn level_for(&self, period: f32) -> Option<usize> {
        if period.is_nan() || period <= 0.0 {
            return None;
        }
        let level = (SIDE as f32 / period).log2().round().max(0.0) as usize;
        (level < self.levels.len()).then_some(level)
    }

    /// How much of the slopes is left at a level, 0…1.
    pub(super) fn slope_left(&self, level: usize) -> f32 {
        self.levels[level].slope_left
    }

    /// One level, for look-up.
    #[inline]
    pub(super) fn view(&self, level: usize) -> View<'_> {
        let level = &self.levels[level];
        View {
            side: level.side,
            texels: &level.texels[..level.side * level.side],
        }
    }
}

/// One level of a texture.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    side: usize,
    texels: &'a [Texel],
}

impl View<'_> {
    /// Bilinear look-up; `u` and `v` count periods and should not be negative.
    #[inline]
    pub(super) fn sample(&self, u: f32, v: f32) -> Texel {
        let (side, mask) = (self.side, self.side - 1);
        let (x, y) = (u * side as f32, v * side as f32);
        let (xi, yi) = (x as i32, y as i32);
        let (fx, fy) = (x - xi as f32, y - yi as f32);
        let (x0, y0) = (xi as usize & mask, (yi as usize & mask) * side);
        let (x1, y1) = (
            (x0 + 1) & mask,
            ((yi as usize).wrapping_add(1) & mask) * side,
        );
        let t = self.texels;
        let (a, b, c, d) = (t[y0 + x0], t[y0 + x1], t[y1 + x0], t[y1 + x1]);
        std::array::from_fn(|i| {
            let top = a[i] + (b[i] - a[i]) * fx;
            let bottom = c[i] + (d[i] - c[i]) * fx;
            top + (bottom - top) * fy
        })
    }
}

/// All textures.
pub(super) struct Bank {
    /// Long-crested waves that come from afar.
    pub(super) swell: Texture,
    /// Waves of the local wind, over a wide range of lengths.
    pub(super) wind_sea: Texture,
    /// Short waves that run every way.
    pub(super) ripples: Texture,
    /// Foam's web, and slow noises.
    pub(super) cells: Texture,
}

/// The textures, computed at the first use (a fraction of a second).
pub(super) static BANK: LazyLock<Bank> = LazyLock::new(|| {
    let mut rng = ChaCha8Rng::seed_from_u64(0x5ea);
    Bank {
        swell: waves(&mut rng, 4.0, 12, 0.45),
        wind_sea: waves(&mut rng, 6.0, 3, 0.55),
        ripples: waves(&mut rng, 9.0, 0, 0.5),
        cells: cells(&mut rng),
    }
});

/// Two independent fields of mean 0 and standard deviation 1 with the given amplitude at each
/// wave vector (in waves a period).
fn fields(rng: &mut impl Rng, amplitude: impl Fn(f32, f32) -> f32) -> [Vec<f32>; 2] {
    let signed = |i: usize| {
        if i < SIDE / 2 {
            i as f32
        } else {
            i as f32 - SIDE as f32
        }
    };
    let mut spectrum: Vec<Complex<f32>> = (0..SIDE * SIDE)
        .map(|i| {
            let (kx, ky) = (signed(i % SIDE), signed(i / SIDE));
            let a = amplitude(kx, ky);
            let z = Complex::new(rng.sample(StandardNormal), rng.sample(StandardNormal));
            if i == 0 { Complex::default() } else { z * a }
        })
        .collect();
    // A planner would have every algorithm compiled, which takes longer than all drawing.
    let fft = Radix4::new(SIDE, FftDirection::Inverse);
    // Rows, then columns as the rows of the transpose; a field's statistics do not care which is which
    // as long as the second transpose is done.
    for _ in 0..2 {
        fft.process(&mut spectrum);
        spectrum = (0..SIDE * SIDE)
            .map(|i| spectrum[(i % SIDE) * SIDE + i / SIDE])
            .collect();
    }
    [
        standardised(spectrum.iter().map(|z| z.re).collect()),
        standardised(spectrum.iter().map(|z| z.im).collect()),
    ]
}

fn standardised(mut values: Vec<f32>) -> Vec<f32> {
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n)
        .sqrt()
        .max(1e-12);
    for v in &mut values {
        *v = (*v - mean) / deviation;
    }
    values
}

/// Waves along `x`. `peak` is the number of the longest strong waves in a period, `spread` the power
/// of the cosine between wave and wind, `sharpness` how much narrower crests are than troughs.
fn waves(rng: &mut impl Rng, peak: f32, spread: i32, sharpness: f32) -> Texture {
    let [first, second] = fields(rng, |kx, ky| {
        let k = kx.hypot(ky).max(0.5);
        let along = (kx / k).abs().powi(spread);
        // Phillips' spectrum: height variance falls with the fourth power of the wave number.
        along * (-(peak / k).powi(2)).exp() / (k * k)
    });
    let height = standardised(first.iter().map(|h| (sharpness * h).exp()).collect());
    let at = |x: usize, y: usize| height[(y % SIDE) * SIDE + x % SIDE];
    let slope = |dx: usize, dy: usize| {
        (0..SIDE * SIDE)
            .map(|i| {
                let (x, y) = (i % SIDE, i / SIDE);
                at(x + dx, y + dy) - at(x + SIDE - dx, y + SIDE - dy)
            })
            .collect::<Vec<f32>>()
    };
    let (mut sx, mut sy) = (slope(1, 0), slope(0, 1));
    // One factor for both, so that the anisotropy stays.
    let power = sx.iter().chain(&sy).map(|s| s * s).sum::<f32>() / (SIDE * SIDE) as f32;
    let factor = 1.0 / power.sqrt().max(1e-12);
    for s in sx.iter_mut().chain(&mut sy) {
        *s *= factor;
    }
    Texture::new(
        (0..SIDE * SIDE)
            .map(|i| [height[i], sx[i], sy[i], second[i]])
            .collect(),
    )
}

/// Foam's web and slow noises.
fn cells(rng: &mut impl Rng) -> Texture {
    let cloud = |kx: f32, ky: f32| {
        let k = kx.hypot(ky);
        if k < 1.5 { 0.0 } else { k.powf(-1.9) }
    };
    let [slow_a, slow_b] = fields(rng, cloud);
    let [slow_c, warp] = fields(rng, cloud);
    let coarse = Worley::new(rng, 11);
    let fine = Worley::new(rng, 34);
    Texture::new(
        (0..SIDE * SIDE)
            .map(|i| {
                let (x, y) = ((i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5);
                let (u, v) = (
                    x / SIDE as f32 + 0.03 * warp[i],
                    y / SIDE as f32 + 0.03 * slow_c[i],
                );
                let web = coarse.web(u, v).min(0.25 + 0.9 * fine.web(u, v));
                [web, slow_a[i], slow_b[i], slow_c[i]]
            })
            .collect(),
    )
}

/// Points scattered over a tile, one in each square of a grid.
struct Worley {
    side: i32,
    points: Vec<(f32, f32)>,
}

impl Worley {
    fn new(rng: &mut impl Rng, side: i32) -> Self {
        let points = (0..side * side)
            .map(|_| (rng.random::<f32>(), rng.random::<f32>()))
            .collect();
        Self { side, points }
    }

    /// Distance to the second nearest point less that to the nearest, in units of the grid.
    fn web(&self, u: f32, v: f32) -> f32 {
        let (x, y) = (u * self.side as f32, v * self.side as f32);
        let (xi, yi) = (x.floor() as i32, y.floor() as i32);
        let (mut nearest, mut second) = (f32::MAX, f32::MAX);
        for j in yi - 1..=yi + 1 {
            for i in xi - 1..=xi + 1 {
                let index = j.rem_euclid(self.side) * self.side + i.rem_euclid(self.side);
                let (px, py) = self.points[index as usize];
                let d = (i as f32 + px - x).hypot(j as f32 + py - y);
                if d < nearest {
                    (second, nearest) = (nearest, d);
                } else if d < second {
                    second = d;
                }
            }
        }
        second - nearest
    }
}
