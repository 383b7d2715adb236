use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use image::RgbImage;
use rayon::prelude::*;

use super::decode::{DecodeError, MAX_DECODED_BYTES, MAX_PIXELS, Photograph, factor};
use super::development::{Cells, Developer, Development};
use super::sensor_samples::Depth;
use crate::geometry::Rectangle;

/// Where a Bayer sensor's colours lie: those of the first row's first two pixels, then those of the second row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BayerOrder {
    /// Red, green; green, blue.
    Rggb,
    /// Green, red; blue, green.
    Grbg,
    /// Green, blue; red, green.
    Gbrg,
    /// Blue, green; green, red.
    Bggr,
}

impl BayerOrder {
    /// Column and row, 0 or 1, of the red pixel in each block of two by two.
    fn red(self) -> (usize, usize) {
        match self {
            Self::Rggb => (0, 0),
            Self::Grbg => (1, 0),
            Self::Gbrg => (0, 1),
            Self::Bggr => (1, 1),
        }
    }
}

/// How the samples of an uncompressed frame lie in memory. Names are those of V4L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Y′CbCr, two pixels in four bytes: Y0 Cb Y1 Cr.
    Yuyv,
    /// Y′CbCr, two pixels in four bytes: Cb Y0 Cr Y1.
    Uyvy,
    /// Y′CbCr, all Y, then a row of Cb Cr pairs for each two rows; every row has the same stride.
    Nv12,
    /// Red, green, blue.
    Rgb24,
    /// Blue, green, red.
    Bgr24,
    /// Monochrome: `GREY`, `Y10`, `Y12` and packed.
    Grey(Depth),
    /// Behind a colour filter array.
    Bayer(BayerOrder, Depth),
}

impl PixelFormat {
    /// All there are.
    pub const ALL: [Self; 31] = {
        use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};
        use Depth::{Eight, Ten, TenBits, TenPacked, Twelve, TwelvePacked};
        [
            Self::Yuyv,
            Self::Uyvy,
            Self::Nv12,
            Self::Rgb24,
            Self::Bgr24,
            Self::Grey(Eight),
            Self::Grey(Ten),
            Self::Grey(Twelve),
            Self::Grey(TenPacked),
            Self::Grey(TwelvePacked),
            Self::Grey(TenBits),
            Self::Bayer(Rggb, Eight),
            Self::Bayer(Grbg, Eight),
            Self::Bayer(Gbrg, Eight),
            Self::Bayer(Bggr, Eight),
            Self::Bayer(Rggb, Ten),
            Self::Bayer(Grbg, Ten),
            Self::Bayer(Gbrg, Ten),
            Self::Bayer(Bggr, Ten),
            Self::Bayer(Rggb, Twelve),
            Self::Bayer(Grbg, Twelve),
            Self::Bayer(Gbrg, Twelve),
            Self::Bayer(Bggr, Twelve),
            Self::Bayer(Rggb, TenPacked),
            Self::Bayer(Grbg, TenPacked),
            Self::Bayer(Gbrg, TenPacked),
            Self::Bayer(Bggr, TenPacked),
            Self::Bayer(Rggb, TwelvePacked),
            Self::Bayer(Grbg, TwelvePacked),
            Self::Bayer(Gbrg, TwelvePacked),
            Self::Bayer(Bggr, TwelvePacked),
        ]
    };

    /// The four characters by which V4L2 and others know it.
    pub fn four_characters(self) -> [u8; 4] {
        use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};
        use Depth::{Eight, Ten, TenBits, TenPacked, Twelve, TwelvePacked};
        *match self {
            Self::Yuyv => b"YUYV",
            Self::Uyvy => b"UYVY",
            Self::Nv12 => b"NV12",
            Self::Rgb24 => b"RGB3",
            Self::Bgr24 => b"BGR3",
            Self::Grey(Eight) => b"GREY",
            Self::Grey(Ten) => b"Y10 ",
            Self::Grey(Twelve) => b"Y12 ",
            Self::Grey(TenPacked) => b"Y10P",
            Self::Grey(TwelvePacked) => b"Y12P",
            Self::Grey(TenBits) => b"Y10B",
            Self::Bayer(Rggb, Eight) => b"RGGB",
            Self::Bayer(Grbg, Eight) => b"GRBG",
            Self::Bayer(Gbrg, Eight) => b"GBRG",
            Self::Bayer(Bggr, Eight) => b"BA81",
            Self::Bayer(Rggb, Ten) => b"RG10",
            Self::Bayer(Grbg, Ten) => b"BA10",
            Self::Bayer(Gbrg, Ten) => b"GB10",
            Self::Bayer(Bggr, Ten) => b"BG10",
            Self::Bayer(Rggb, Twelve) => b"RG12",
            Self::Bayer(Grbg, Twelve) => b"BA12",
            Self::Bayer(Gbrg, Twelve) => b"GB12",
            Self::Bayer(Bggr, Twelve) => b"BG12",
            Self::Bayer(Rggb, TenPacked) => b"pRAA",
            Self::Bayer(Grbg, TenPacked) => b"pgAA",
            Self::Bayer(Gbrg, TenPacked) => b"pGAA",
            Self::Bayer(Bggr, TenPacked) => b"pBAA",
            Self::Bayer(Rggb, TwelvePacked) => b"pRCC",
            Self::Bayer(Grbg, TwelvePacked) => b"pgCC",
            Self::Bayer(Gbrg, TwelvePacked) => b"pGCC",
            Self::Bayer(Bggr, TwelvePacked) => b"pBCC",
            // V4L2 has none, and ALL has it not.
            Self::Bayer(_, TenBits) => b"none",
        }
    }

    /// The format of these four characters, where it is one of these.
    pub fn from_four_characters(characters: [u8; 4]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.four_characters() == characters)
    }

    /// Of samples that a sensor gives, how they lie in memory; `None` of what a camera has made of them.
    pub fn depth(self) -> Option<Depth> {
        match self {
            Self::Grey(depth) | Self::Bayer(_, depth) => Some(depth),
            Self::Yuyv | Self::Uyvy | Self::Nv12 | Self::Rgb24 | Self::Bgr24 => None,
        }
    }

    /// Whether its samples are proportional to light as a rule: what comes through a colour filter array, or has more than
    /// eight bits, is what a sensor measured.
    pub fn is_linear(self) -> bool {
        match self {
            Self::Bayer(..) => true,
            Self::Grey(depth) => depth != Depth::Eight,
            Self::Yuyv | Self::Uyvy | Self::Nv12 | Self::Rgb24 | Self::Bgr24 => false,
        }
    }

    /// Bytes of the pixels in a row, without what fills it up.
    fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::Yuyv | Self::Uyvy => 4 * width.div_ceil(2),
            Self::Nv12 => 2 * width.div_ceil(2),
            Self::Rgb24 | Self::Bgr24 => 3 * width,
            Self::Grey(depth) | Self::Bayer(_, depth) => depth.row_bytes(width),
        }
    }

    /// Rows in memory.
    fn rows(self, height: usize) -> usize {
        match self {
            Self::Nv12 => height + height.div_ceil(2),
            _ => height,
        }
    }
}

/// The four characters, without trailing spaces.
impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let characters = self.four_characters();
        f.write_str(String::from_utf8_lossy(&characters).trim_end())
    }
}

/// Squares along the longer side of a frame, by which its colours are balanced.
const CELLS: usize = 256;
/// A sample that is by no more than this part of the largest below it is taken as clipped.
const CLIPPED: u32 = 50;

/// How Y′CbCr becomes R′G′B′.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct YCbCr {
    /// Weights of the colours in Y′.
    pub matrix: YCbCrMatrix,
    /// Whether the samples take all of 0…255; else Y′ lies in 16…235, Cb and Cr in 16…240.
    pub full_range: bool,
}

/// Weights of the colours in Y′.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum YCbCrMatrix {
    /// ITU-R BT.601: what webcams send.
    #[default]
    Bt601,
    /// ITU-R BT.709: high-definition video.
    Bt709,
    /// ITU-R BT.2020.
    Bt2020,
}

/// [`YCbCr`] in sixteenths of a bit.
#[derive(Clone, Copy)]
struct ToRgb {
    black: i32,
    y: i32,
    cr_to_r: i32,
    cb_to_g: i32,
    cr_to_g: i32,
    cb_to_b: i32,
}

impl ToRgb {
    const BITS: u32 = 16;

    fn new(colour: YCbCr) -> Self {
        let (red, blue) = match colour.matrix {
            YCbCrMatrix::Bt601 => (0.299, 0.114),
            YCbCrMatrix::Bt709 => (0.2126, 0.0722),
            YCbCrMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let green = 1.0 - red - blue;
        let (black, y, c) = if colour.full_range {
            (0, 1.0, 1.0)
        } else {
            (16, 255.0 / 219.0, 255.0 / 224.0)
        };
        let fixed = |v: f64| (v * f64::from(1 << Self::BITS)).round() as i32;
        Self {
            black,
            y: fixed(y),
            cr_to_r: fixed(2.0 * (1.0 - red) * c),
            cb_to_g: fixed(-2.0 * blue * (1.0 - blue) / green * c),
            cr_to_g: fixed(-2.0 * red * (1.0 - red) / green * c),
            cb_to_b: fixed(2.0 * (1.0 - blue) * c),
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let half = 1 << (Self::BITS - 1);
        let y = (i32::from(y) - self.black) * self.y + half;
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        [
            y + self.cr_to_r * cr,
            y + self.cb_to_g * cb + self.cr_to_g * cr,
            y + self.cb_to_b * cb,
        ]
        .map(|v| (v >> Self::BITS).clamp(0, 255) as u8)
    }
}

/// An uncompressed frame as a camera gave it. Only what is asked for is converted.
///
/// Colours behind a Bayer filter are interpolated bilinearly; at the frame's edge, only from what lies within it. What a
/// camera gives is taken as sRGB, unless it is to be [developed](Self::developed).
pub struct RawImage {
    format: PixelFormat,
    width: u32,
    height: u32,
    stride: usize,
    bytes: Vec<u8>,
    to_rgb: ToRgb,
    development: Development,
    /// Worked out with the first pixels that are asked for.
    developer: OnceLock<Developer>,
}

impl fmt::Debug for RawImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawImage")
            .field("format", &self.format)
            .field("size", &self.size())
            .field("stride", &self.stride)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl RawImage {
    /// `stride` is in bytes from the beginning of a row to that of the next, 0 where rows follow without gap; bytes
    /// after the last row are let be. `colour` counts for Y′CbCr.
    ///
    /// # Errors
    /// There are no pixels or more than [`MAX_PIXELS`], rows are longer than the stride, or bytes are missing.
    pub fn new(
        format: PixelFormat,
        (width, height): (u32, u32),
        stride: usize,
        bytes: Vec<u8>,
        colour: YCbCr,
    ) -> Result<Self, DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return Err(DecodeError::Size {
                width: width.into(),
                height: height.into(),
            });
        }
        let row = format.row_bytes(width as usize);
        let stride = if stride == 0 { row } else { stride };
        let needed = stride
            .checked_mul(format.rows(height as usize) - 1)
            .and_then(|before| before.checked_add(row));
        if stride < row || needed.is_none_or(|needed| needed > bytes.len()) {
            return Err(DecodeError::RawBytes {
                format,
                width,
                height,
                stride,
                bytes: bytes.len(),
            });
        }
        Ok(Self {
            format,
            width,
            height,
            stride,
            bytes,
            to_rgb: ToRgb::new(colour),
            development: Development::AsIs,
            developer: OnceLock::new(),
        })
    }

    /// Has samples that a sensor gives ([`PixelFormat::depth`]) developed; others stay as they are.
    pub fn developed(mut self, development: Development) -> Self {
        self.development = development;
        self.developer = OnceLock::new();
        self
    }

    /// `None` where samples are taken as they are.
    fn developer(&self) -> Option<&Developer> {
        let depth = self.format.depth()?;
        let Development::Linear {
            black_level,
            white_balance,
        } = self.development
        else {
            return None;
        };
        let develop = || {
            let gains = match self.format {
                PixelFormat::Bayer(order, _) => {
                    white_balance.gains(|| self.cells(order, depth, black_level))
                }
                _ => [1.0; 3],
            };
            Developer::new(black_level, depth.largest(), gains)
        };
        // On one thread: one that waits for others would begin something else that needs this.
        Some(self.developer.get_or_init(develop))
    }

    /// The frame in at most [`CELLS`] squares along its longer side. Of large squares every other block of two by two is
    /// looked at, and of green in each block the one beside red: with as few samples as the other colours it is as rough.
    fn cells(&self, order: BayerOrder, depth: Depth, black_level: u32) -> Cells {
        let (width, height) = (self.width as usize, self.height as usize);
        let side = width.max(height).div_ceil(CELLS).next_multiple_of(2).max(8);
        let step = if side >= 16 { 4 } else { 2 };
        let (red_x, red_y) = order.red();
        let clipped = depth.largest() - depth.largest() / CLIPPED;
        let black = black_level.min(depth.largest() - 1);
        let whole = (depth.largest() - black) as f32;
        let cell = |left: usize, top: usize| {
            let mut sums = [0_u32; 3];
            for y in (top..top + side).step_by(step) {
                for (dy, row) in [self.bytes_of(y), self.bytes_of(y + 1)].iter().enumerate() {
                    for x in (left..left + side).step_by(step).flat_map(|x| [x, x + 1]) {
                        let colour = usize::from(x % 2 != red_x) + usize::from(dy != red_y);
                        let sample = depth.sample(row, x);
                        if sample >= clipped {
                            return None;
                        }
                        if colour != 1 || dy == red_y {
                            sums[colour] += sample.saturating_sub(black);
                        }
                    }
                }
            }
            let blocks = side.div_ceil(step).pow(2) as f32;
            Some(sums.map(|sum| sum as f32 / (blocks * whole)))
        };
        let (across, down) = (width / side, height / side);
        let means = (0..down)
            .flat_map(|y| (0..across).map(move |x| (x, y)))
            .map(|(x, y)| cell(x * side, y * side))
            .collect();
        Cells { across, means }
    }

    /// How its samples lie in memory.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// What it takes of memory, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Converts at least the `part` of the frame that lies within it, at the smallest of the scales 1, 1/2, 1/4 and
    /// 1/8 that is not below `least_scale` (above 1 counts as 1): reduced pixels are means.
    ///
    /// # Errors
    /// It takes more than [`MAX_DECODED_BYTES`].
    pub fn decode_part(
        &self,
        part: &Rectangle,
        least_scale: f64,
    ) -> Result<Photograph, DecodeError> {
        let factor = factor(least_scale);
        let columns = blocks(part.left, part.right, factor, self.width);
        let rows = blocks(part.top, part.bottom, factor, self.height);
        let (width, height) = (columns.len(), rows.len());
        let bytes = 3 * width as u64 * height as u64;
        if bytes > MAX_DECODED_BYTES {
            return Err(DecodeError::Memory {
                width: self.width,
                height: self.height,
                bytes,
            });
        }
        // Here, before threads share the work.
        self.developer();
        let mut pixels = vec![0; 3 * width * height];
        pixels
            .par_chunks_exact_mut((3 * width).max(1))
            .zip(rows.clone().into_par_iter())
            .for_each_init(Vec::new, |buffer, (out, row)| {
                self.reduced_row(row, &columns, factor, buffer, out);
            });
        let full = |block: u32| f64::from(block) * f64::from(factor);
        Ok(Photograph {
            pixels: RgbImage::from_raw(width as u32, height as u32, pixels)
                .expect("three bytes were made for each pixel"),
            frame_width: self.width,
            frame_height: self.height,
            part: Rectangle {
                left: full(columns.start),
                top: full(rows.start),
                right: full(columns.end),
                bottom: full(rows.end),
            },
        })
    }

    /// Row `row` of the frame reduced by `factor`.
    fn reduced_row(
        &self,
        row: u32,
        columns: &Range<u32>,
        factor: u32,
        buffer: &mut Vec<[u8; 3]>,
        out: &mut [u8],
    ) {
        let (out, _) = out.as_chunks_mut::<3>();
        if factor == 1 {
            self.row(row as usize, columns.start as usize, out);
            return;
        }
        let first = columns.start * factor;
        let end = (columns.end * factor).min(self.width);
        let rows = row * factor..((row + 1) * factor).min(self.height);
        buffer.resize((end - first) as usize, [0; 3]);
        let mut sums = vec![[0_u32; 3]; columns.len()];
        for y in rows.clone() {
            self.row(y as usize, first as usize, buffer);
            for (sum, pixels) in sums.iter_mut().zip(buffer.chunks(factor as usize)) {
                for pixel in pixels {
                    for (sum, &level) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(level);
                    }
                }
            }
        }
        let blocks = buffer.chunks(factor as usize);
        for ((out, sum), block) in out.iter_mut().zip(sums).zip(blocks) {
            let count = block.len() as u32 * rows.len() as u32;
            *out = sum.map(|sum| ((sum + count / 2) / count) as u8);
        }
    }

    /// The pixels of row `y` from column `first` on.
    fn row(&self, y: usize, first: usize, out: &mut [[u8; 3]]) {
        let row = self.bytes_of(y);
        let columns = first..;
        match self.format {
            PixelFormat::Yuyv => {
                for (out, x) in out.iter_mut().zip(columns) {
                    let pair = 4 * (x / 2);
                    *out = self.to_rgb.rgb(row[2 * x], row[pair + 1], row[pair + 3]);
                }
            }
            PixelFormat::Uyvy => {
                for (out, x) in out.iter_mut().zip(columns) {
                    let pair = 4 * (x / 2);
                    *out = self.to_rgb.rgb(row[2 * x + 1], row[pair], row[pair + 2]);
                }
            }
            PixelFormat::Nv12 => {
                let colours = self.bytes_of(self.height as usize + y / 2);
                for (out, x) in out.iter_mut().zip(columns) {
                    let pair = x & !1;
                    *out = self.to_rgb.rgb(row[x], colours[pair], colours[pair + 1]);
                }
            }
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => {
                let (pixels, _) = row.as_chunks::<3>();
                out.copy_from_slice(&pixels[first..first + out.len()]);
                if self.format == PixelFormat::Bgr24 {
                    out.iter_mut().for_each(|pixel| pixel.reverse());
                }
            }
            PixelFormat::Grey(depth) => {
                let developer = self.developer();
                for (out, x) in out.iter_mut().zip(columns) {
                    let sample = depth.sample(row, x);
                    let level = developer.map_or_else(
                        || depth.level(sample, 1),
                        |developer| developer.level(1, sample, 1),
                    );
                    *out = [level; 3];
                }
            }
            PixelFormat::Bayer(order, depth) => self.demosaic(order, depth, y, first, out),
        }
    }

    /// Each pixel has the colour that the sensor measured and, of the other two, the mean of the nearest that it
    /// measured.
    fn demosaic(
        &self,
        order: BayerOrder,
        depth: Depth,
        y: usize,
        first: usize,
        out: &mut [[u8; 3]],
    ) {
        let (red_x, red_y) = order.red();
        let row = |y: usize| (y < self.height as usize).then(|| self.bytes_of(y));
        // Above, here, below; beyond the edge there is none.
        let rows = [y.checked_sub(1).and_then(row), row(y), row(y + 1)];
        let width = self.width as usize;
        let developer = self.developer();
        // Of red (0), green (1) or blue (2).
        let mean = |colour: usize, places: &[(usize, usize)], x: usize| {
            let samples = places.iter().filter_map(|&(across, down)| {
                let x = (x + across).checked_sub(1).filter(|&x| x < width)?;
                Some(depth.sample(rows[down]?, x))
            });
            let (sum, count) = samples.fold((0, 0), |(sum, n), v| (sum + v, n + 1));
            // A frame one pixel wide or high may lack a colour.
            match developer {
                _ if count == 0 => 0,
                None => depth.level(sum, count),
                Some(developer) => developer.level(colour, sum, count),
            }
        };
        let colours = |[red, green, blue]: [&[(usize, usize)]; 3], x: usize| {
            [mean(0, red, x), mean(1, green, x), mean(2, blue, x)]
        };
        // As column and row of the three by three around the pixel.
        const HERE: [(usize, usize); 1] = [(1, 1)];
        const BESIDE: [(usize, usize); 2] = [(0, 1), (2, 1)];
        const ABOVE_AND_BELOW: [(usize, usize); 2] = [(1, 0), (1, 2)];
        const CROSS: [(usize, usize); 4] = [(1, 0), (0, 1), (2, 1), (1, 2)];
        const CORNERS: [(usize, usize); 4] = [(0, 0), (2, 0), (0, 2), (2, 2)];
        for (out, x) in out.iter_mut().zip(first..) {
            *out = match (x % 2 == red_x, y % 2 == red_y) {
                (true, true) => colours([&HERE, &CROSS, &CORNERS], x),
                (false, false) => colours([&CORNERS, &CROSS, &HERE], x),
                (false, true) => colours([&BESIDE, &HERE, &ABOVE_AND_BELOW], x),
                (true, false) => colours([&ABOVE_AND_BELOW, &HERE, &BESIDE], x),
            };
        }
    }

    fn bytes_of(&self, row: usize) -> &[u8] {
        let start = row * self.stride;
        &self.bytes[start..start + self.format.row_bytes(self.width as usize)]
    }
}

/// The blocks of `factor` pixels that hold what lies between two positions along a side of the frame.
fn blocks(from: f64, to: f64, factor: u32, side: u32) -> Range<u32> {
    let most = side.div_ceil(factor);
    let factor = f64::from(factor);
    // What is no number or outside counts as the nearest that is inside.
    let first = ((from / factor).floor().max(0.0) as u32).min(most);
    let end = ((to / factor).ceil().max(0.0) as u32).min(most);
    first..end.max(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::development::WhiteBalance;
    use super::super::sensor_samples::tests::write_row;
    use super::*;
    use crate::virtual_survey::{Catalogue, Survey};

    /// A raw image of noise.
    fn noise(format: PixelFormat, width: u32, height: u32, gap: usize, seed: u64) -> RawImage {
        use rand::{RngCore, SeedableRng};
        let stride = format.row_bytes(width as usize) + gap;
        let mut bytes = vec![0; stride * format.rows(height as usize)];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        RawImage::new(format, (width, height), stride, bytes, YCbCr::default()).unwrap()
    }

    fn whole(image: &RawImage, scale: f64) -> Photograph {
        let frame = Rectangle::of_image(image.width, image.height);
        image.decode_part(&frame, scale).unwrap()
    }

    fn any_format() -> impl Strategy<Value = PixelFormat> {
        proptest::sample::select(PixelFormat::ALL.to_vec())
    }

    fn any_bayer() -> impl Strategy<Value = PixelFormat> {
        let bayer = PixelFormat::ALL.into_iter();
        let bayer = bayer.filter(|format| matches!(format, PixelFormat::Bayer(..)));
        proptest::sample::select(bayer.collect::<Vec<_>>())
    }

    fn any_development() -> impl Strategy<Value = Development> {
        let balance = prop_oneof![
            Just(WhiteBalance::GreyEdge),
            prop::array::uniform3(-1.0..5.0_f32).prop_map(WhiteBalance::Gains),
        ];
        let linear =
            (0..5000_u32, balance).prop_map(|(black_level, white_balance)| Development::Linear {
                black_level,
                white_balance,
            });
        prop_oneof![1 => Just(Development::AsIs), 3 => linear]
    }

    fn image_developed(
        image: &RawImage,
        black_level: u32,
        white_balance: WhiteBalance,
    ) -> RawImage {
        let (size, bytes) = (image.size(), image.bytes.clone());
        RawImage::new(image.format, size, image.stride, bytes, YCbCr::default())
            .unwrap()
            .developed(Development::Linear {
                black_level,
                white_balance,
            })
    }

    /// What a sensor behind a filter gives of a scene: light of red (0), green (1) and blue (2), 0…1, in each place.
    fn behind_filter(
        format: PixelFormat,
        (width, height): (u32, u32),
        scene: impl Fn(u32, u32, usize) -> f64,
    ) -> RawImage {
        let PixelFormat::Bayer(order, depth) = format else {
            unreachable!("no filter")
        };
        let (red_x, red_y) = order.red();
        let row = |y: u32| {
            let sample = |x: u32| {
                let channel =
                    usize::from(x as usize % 2 != red_x) + usize::from(y as usize % 2 != red_y);
                (scene(x, y, channel) * f64::from(depth.largest())).round() as u32
            };
            write_row(depth, &(0..width).map(sample).collect::<Vec<_>>())
        };
        let bytes = (0..height).flat_map(row).collect();
        RawImage::new(format, (width, height), 0, bytes, YCbCr::default()).unwrap()
    }

    /// IEC 61966-2-1: the encoded level of light, both 0…1.
    fn srgb(light: f64) -> f64 {
        if light <= 0.003_130_8 {
            12.92 * light
        } else {
            1.055 * light.powf(1.0 / 2.4) - 0.055
        }
    }

    fn light_of(level: u8) -> f64 {
        let encoded = f64::from(level) / 255.0;
        if encoded <= 0.04045 {
            encoded / 12.92
        } else {
            ((encoded + 0.055) / 1.055).powf(2.4)
        }
    }

    /// Degrees between two colours.
    fn angle(a: [f64; 3], b: [f64; 3]) -> f64 {
        let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        cosine.clamp(-1.0, 1.0).acos().to_degrees()
    }

    /// A sea of one colour keeps it, under light and behind a sensor that change it: what was drawn comes back. The mean of
    /// all, as grey-world takes it, would make the sea grey.
    #[test]
    fn a_sea_of_one_colour_is_not_made_grey() {
        let population = Catalogue::new(1, 4, 0);
        let size = (1536, 1024);
        let (mut own, mut grey_world) = (0.0, 0.0);
        let lights = [
            [0.5, 1.0, 0.65],
            [0.8, 1.0, 0.4],
            [1.0, 0.9, 0.7],
            [0.45, 1.0, 0.9],
        ];
        for (plan, light) in Survey::new(&population, 5).zip(lights) {
            let drawn = plan.render(&population, size.0, size.1).image;
            let format = PixelFormat::from_four_characters(*b"RG12").unwrap();
            let lit = behind_filter(format, size, |x, y, channel| {
                light_of(drawn.get_pixel(x, y)[channel]) * light[channel]
            });
            let mean = |image: &RgbImage| {
                let mut sum = [0.0; 3];
                for pixel in image.pixels() {
                    sum.iter_mut()
                        .zip(pixel.0)
                        .for_each(|(sum, level)| *sum += light_of(level));
                }
                sum
            };
            let developed = whole(&image_developed(&lit, 0, WhiteBalance::GreyEdge), 1.0).pixels;
            let (truth, found) = (mean(&drawn), mean(&developed));
            println!(
                "{light:?}: {:.1} degrees, grey-world {:.1}",
                angle(truth, found),
                angle(truth, [1.0; 3])
            );
            own += angle(truth, found) / 4.0;
            grey_world += angle(truth, [1.0; 3]) / 4.0;
        }
        assert!(
            own < 6.0 && own < 0.5 * grey_world,
            "{own}, grey-world {grey_world}"
        );
    }

    proptest! {
        #[test]
        fn a_part_is_what_the_whole_shows_there(
            format in any_format(), development in any_development(),
            (width, height) in (1..70_u32, 1..50_u32),
            gap in 0..9_usize,
            scale in 0.05..1.2_f64,
            (x0, x1) in (-20.0..90.0_f64, -20.0..90.0_f64),
            (y0, y1) in (-20.0..70.0_f64, -20.0..70.0_f64),
            seed: u64,
        ) {
            let image = noise(format, width, height, gap, seed).developed(development);
            let asked = Rectangle {
                left: x0.min(x1), right: x0.max(x1), top: y0.min(y1), bottom: y0.max(y1),
            };
            let whole = whole(&image, scale);
            let part = image.decode_part(&asked, scale).unwrap();
            prop_assert!(whole.part.contains(&Rectangle::of_image(width, height)));
            let inside = asked.clamped(&Rectangle::of_image(width, height));
            if inside.width() > 0.0 && inside.height() > 0.0 {
                prop_assert!(part.part.contains(&inside), "{:?} {inside:?}", part.part);
            }
            let factor = f64::from(factor(scale));
            let (left, top) = (part.part.left / factor, part.part.top / factor);
            prop_assert!(left.fract() == 0.0 && top.fract() == 0.0);
            for (x, y, pixel) in part.pixels.enumerate_pixels() {
                let same = whole.pixels.get_pixel(x + left as u32, y + top as u32);
                prop_assert_eq!(pixel, same, "at {}, {}", x, y);
            }
        }

        /// Against the definition, in floating point.
        #[test]
        fn reduced_pixels_are_means_of_what_is_there(
            format in any_format(), development in any_development(), (width, height) in (1..40_u32, 1..40_u32), seed: u64,
        ) {
            let image = noise(format, width, height, 0, seed).developed(development);
            let full = whole(&image, 1.0).pixels;
            prop_assert_eq!(full.dimensions(), (width, height));
            for (scale, factor) in [(0.5, 2), (0.25, 4), (0.1, 8)] {
                for (x, y, pixel) in whole(&image, scale).pixels.enumerate_pixels() {
                    for channel in 0..3 {
                        let mut levels = Vec::new();
                        for j in (y * factor..(y + 1) * factor).filter(|&j| j < height) {
                            for i in (x * factor..(x + 1) * factor).filter(|&i| i < width) {
                                levels.push(f64::from(full.get_pixel(i, j)[channel]));
                            }
                        }
                        let mean = levels.iter().sum::<f64>() / levels.len() as f64;
                        prop_assert!((mean - f64::from(pixel[channel])).abs() <= 0.5);
                    }
                }
            }
        }

        /// A scene of one colour is that colour everywhere, edges included, whatever the order and the depth.
        #[test]
        fn a_plain_scene_behind_a_bayer_filter_is_plain(
            colour: [u8; 3], (width, height) in (2..20_u32, 2..20_u32), format in any_bayer(),
        ) {
            let image = behind_filter(format, (width, height), |_, _, channel| {
                f64::from(colour[channel]) / 255.0
            });
            for pixel in whole(&image, 1.0).pixels.pixels() {
                for (seen, expected) in pixel.0.iter().zip(colour) {
                    prop_assert!(seen.abs_diff(expected) <= 1, "{pixel:?} for {colour:?}");
                }
            }
        }

        /// Against the definition, pixel by pixel and in floating point: the mean of the nearest samples of a colour within the
        /// three by three around it, light above black, gain, and sRGB's curve.
        #[test]
        fn developed_pixels_are_what_the_standard_says(
            format in any_format(), (width, height) in (1..24_u32, 1..24_u32), seed: u64,
            black_level in 0..300_u32, gains in prop::array::uniform3(1.0..4.0_f32),
        ) {
            prop_assume!(format.depth().is_some());
            let depth = format.depth().unwrap();
            let image = noise(format, width, height, 3, seed);
            let sample = |x: i64, y: i64| {
                let inside = (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y);
                inside.then(|| f64::from(depth.sample(image.bytes_of(y as usize), x as usize)))
            };
            let measures = |x: i64, y: i64, channel: usize| match format {
                PixelFormat::Bayer(order, _) => {
                    let letters = format!("{order:?}").to_lowercase().into_bytes();
                    let letter = letters[(2 * y.rem_euclid(2) + x.rem_euclid(2)) as usize];
                    letter == b"rgb"[channel]
                }
                _ => true,
            };
            let mean = |x: i64, y: i64, channel: usize| {
                for distance in 0..3 {
                    let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy)));
                    let found: Vec<f64> = around
                        .filter(|(dx, dy)| dx * dx + dy * dy == distance)
                        .filter(|(dx, dy)| measures(x + dx, y + dy, channel))
                        .filter_map(|(dx, dy)| sample(x + dx, y + dy))
                        .collect();
                    if !found.is_empty() {
                        return found.iter().sum::<f64>() / found.len() as f64;
                    }
                }
                0.0
            };
            let black = f64::from(black_level.min(depth.largest() - 1));
            let least = gains.iter().copied().fold(f32::INFINITY, f32::min);
            let image = image_developed(&image, black_level, WhiteBalance::Gains(gains));
            for (x, y, pixel) in whole(&image, 1.0).pixels.enumerate_pixels() {
                for channel in 0..3 {
                    let light = (mean(x.into(), y.into(), channel) - black).max(0.0)
                        / (f64::from(depth.largest()) - black);
                    let gain = match format {
                        PixelFormat::Bayer(..) => f64::from(gains[channel] / least),
                        _ => 1.0,
                    };
                    let expected = 255.0 * srgb((light * gain).min(1.0));
                    prop_assert!((f64::from(pixel[channel]) - expected).abs() <= 0.6,
                        "{format} at {x}, {y}: {pixel:?}, expected {expected} of {channel}");
                }
            }
        }

        /// Whatever colour the light has, the frame looks the same, up to what is clipped and rounded.
        #[test]
        fn the_colour_of_the_light_is_taken_away(
            format in any_bayer(), seed: u64, light in prop::array::uniform3(0.4..1.0_f64),
        ) {
            prop_assume!(format.depth() != Some(Depth::Eight));
            let patches = noise(PixelFormat::Rgb24, 20, 20, 0, seed);
            let scene = |x: u32, y: u32, channel: usize| {
                0.1 + 0.7 * f64::from(patches.bytes_of((y / 8) as usize)[3 * (x / 8) as usize + channel]) / 255.0
            };
            let size = (160, 120);
            let seen = |light: [f64; 3]| {
                let most = light.iter().copied().fold(0.0, f64::max);
                let lit = behind_filter(format, size, |x, y, c| scene(x, y, c) * light[c] / most);
                whole(&image_developed(&lit, 0, WhiteBalance::GreyEdge), 0.125).pixels
            };
            let (white, coloured) = (seen([1.0; 3]), seen(light));
            // What is balanced is a ratio: that of two colours is compared where neither is near white.
            let mut away = Vec::new();
            for (a, b) in white.pixels().zip(coloured.pixels()) {
                if a.0.iter().chain(&b.0).all(|level| (40..250).contains(level)) {
                    let ratio = |p: &image::Rgb<u8>, c: usize| light_of(p[c]) / light_of(p[1]);
                    away.extend([0, 2].map(|c| (ratio(a, c) / ratio(b, c)).ln().abs()));
                }
            }
            let mean = away.iter().sum::<f64>() / away.len().max(1) as f64;
            prop_assert!(away.len() > 20 && mean < 0.05, "{mean} of {}", away.len());
        }

        #[test]
        fn any_sizes_and_bytes_are_an_image_or_a_clear_error(
            format in any_format(), width: u32, height: u32, stride in 0..5000_usize, length in 0..5000_usize,
        ) {
            for size in [(width, height), (width % 64, height % 64)] {
                let made = RawImage::new(format, size, stride, vec![7; length], YCbCr::default());
                if let Ok(image) = made {
                    prop_assert!(size.0 > 0 && size.1 > 0);
                    whole(&image, 1.0);
                }
            }
        }
    }

    #[test]
    fn four_characters_name_one_format_each() {
        for format in PixelFormat::ALL {
            assert_eq!(
                PixelFormat::from_four_characters(format.four_characters()),
                Some(format)
            );
        }
        assert_eq!(PixelFormat::from_four_characters(*b"MJPG"), None);
        assert_eq!(PixelFormat::Grey(Depth::Ten).to_string(), "Y10");
    }

    #[test]
    fn a_frame_that_was_cut_short_says_so() {
        let error = RawImage::new(
            PixelFormat::Yuyv,
            (640, 480),
            0,
            vec![0; 999],
            YCbCr::default(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "is no whole YUYV frame of 640 × 480 pixels: 999 bytes with rows of 1280; the camera or its cable cut it short"
        );
    }
}
