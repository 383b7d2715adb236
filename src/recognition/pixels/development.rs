use std::sync::LazyLock;

/// How the samples of a frame become sRGB, as which the networks know photographs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Development {
    /// They are sRGB already: nothing is done.
    #[default]
    AsIs,
    /// They are proportional to light, as a sensor measures it: colours are balanced, then sRGB's curve (IEC 61966-2-1)
    /// is laid over them.
    Linear {
        /// The sample where there is no light, which sensors put above 0. At or above the largest sample there would be
        /// nothing left: it counts as one less.
        black_level: u32,
        /// What balances the colours, where there are any.
        white_balance: WhiteBalance,
    },
}

/// What red, green and blue are multiplied with, so that what is white looks so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WhiteBalance {
    /// By the frame itself: second-order Grey-Edge with Minkowski's norm of 6. A sea of one colour has few edges and stays as
    /// it is, where the mean of all (grey-world) would be made grey. A frame with hardly an edge is not balanced.
    ///
    /// J. van de Weijer, Th. Gevers, A. Gijsenij, *Edge-Based Color Constancy*, IEEE Transactions on Image Processing 16 (9),
    /// 2007; the norm is that of G. D. Finlayson, E. Trezzi, *Shades of Gray and Colour Constancy*, Color Imaging
    /// Conference 2004.
    #[default]
    GreyEdge,
    /// Known beforehand, of red, green and blue; only their ratios count.
    Gains([f32; 3]),
}

/// Minkowski's norm.
const NORM: i32 = 6;
/// A photograph's edges must be so strong by this norm, as a share of white, to tell its light.
const LEAST_EDGE: f32 = 0.002;
/// The most by which one colour is multiplied and another is not.
const MOST_GAIN: f32 = 5.0;

impl WhiteBalance {
    /// The gains, of which the least is 1: what is white to the sensor stays white, whatever the light.
    pub(super) fn gains(self, cells: impl FnOnce() -> Cells) -> [f32; 3] {
        let gains = match self {
            Self::GreyEdge => cells()
                .edges()
                .filter(|edges| edges.iter().all(|edge| *edge >= LEAST_EDGE))
                .map_or([1.0; 3], |edges| edges.map(f32::recip)),
            Self::Gains(gains) => gains,
        };
        let least = gains.iter().copied().fold(f32::INFINITY, f32::min);
        gains.map(|gain| {
            let gain = gain / least;
            if gain.is_finite() {
                gain.clamp(1.0, MOST_GAIN)
            } else {
                1.0
            }
        })
    }
}

/// A frame in a few small squares: mean samples of red, green and blue in each, as shares of white.
pub(super) struct Cells {
    pub across: usize,
    /// `None` where a sample is clipped, and its colour lost.
    pub means: Vec<Option<[f32; 3]>>,
}

impl Cells {
    /// How strong the edges of each colour are: second derivatives, of which the norm is taken. `None` where there are none.
    fn edges(&self) -> Option<[f32; 3]> {
        let down = self.means.len() / self.across.max(1);
        let mut sums = [0.0_f64; 3];
        let mut count = 0_u32;
        for y in 1..down.saturating_sub(1) {
            for x in 1..self.across.saturating_sub(1) {
                let at = y * self.across + x;
                let around = [at, at - 1, at + 1, at - self.across, at + self.across];
                let [
                    Some(here),
                    Some(left),
                    Some(right),
                    Some(above),
                    Some(below),
                ] = around.map(|i| self.means[i])
                else {
                    continue;
                };
                count += 1;
                for (c, sum) in sums.iter_mut().enumerate() {
                    let across = left[c] + right[c] - 2.0 * here[c];
                    let down = above[c] + below[c] - 2.0 * here[c];
                    *sum += f64::from(across.hypot(down)).powi(NORM);
                }
            }
        }
        let norm = |sum: f64| (sum / f64::from(count)).powf(1.0 / f64::from(NORM)) as f32;
        (count > 0).then(|| sums.map(norm))
    }
}

/// What is worked out once for a frame that is developed.
pub(super) struct Developer {
    black: u32,
    /// By red, green, blue: places in the curve for each 1 above black of a sample, and of the sum of two and four.
    factors: [[f32; 5]; 3],
}

/// Places in the curve.
const PLACES: usize = 1 << 16;

/// sRGB's levels of light from none to white.
static CURVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let level = |place: usize| {
        let light = place as f64 / (PLACES - 1) as f64;
        let encoded = if light <= 0.003_130_8 {
            12.92 * light
        } else {
            1.055 * light.powf(1.0 / 2.4) - 0.055
        };
        (255.0 * encoded).round() as u8
    };
    (0..PLACES).map(level).collect()
});

impl Developer {
    /// `largest` is the largest sample.
    pub fn new(black_level: u32, largest: u32, gains: [f32; 3]) -> Self {
        let black = black_level.min(largest - 1);
        let whole = (PLACES - 1) as f32 / (largest - black) as f32;
        let of = |gain: f32| std::array::from_fn(|samples| gain * whole / samples.max(1) as f32);
        Self {
            black,
            factors: gains.map(of),
        }
    }

    /// The level of the mean of up to four samples, given as their sum and how many there are; of red (0), green (1) or
    /// blue (2).
    pub fn level(&self, colour: usize, sum: u32, samples: u32) -> u8 {
        let above = sum.saturating_sub(samples * self.black) as f32;
        let place = above * self.factors[colour][samples as usize] + 0.5;
        // What is above white is as white as can be.
        CURVE[(place as usize).min(PLACES - 1)]
    }
}
