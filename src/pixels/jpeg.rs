use image::RgbImage;
use turbojpeg::{Colorspace, DecompressHeader, PixelFormat, ScalingFactor, Subsamp};
use turbojpeg_sys as sys;

use super::decode::DecodeError;
use crate::geometry::Rectangle;

/// Scans of a progressive JPEG; encoders write about 10, and each costs a pass over the photograph.
const MAX_SCANS: i32 = 100;

/// Sides of the blocks in which chrominance is stored are at most this long, in pixels of the
/// photograph: a region that starts at a multiple of it is decoded as the whole is.
const LARGEST_BLOCK: u32 = 32;

/// A JPEG whose header has been read. Sizes are those that are stored, before orientation.
pub(super) struct Jpeg {
    header: DecompressHeader,
    /// Whether the decoder has to hold the coefficients of the whole photograph.
    buffers_coefficients: bool,
}

/// A rectangle of a JPEG that is decoded at one `factor`-th of its size, in pixels of the reduced
/// photograph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub factor: u32,
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Jpeg {
    pub fn read_header(bytes: &[u8]) -> Result<Self, DecodeError> {
        let header = turbojpeg::read_header(bytes).map_err(|e| match e {
            turbojpeg::Error::TurboJpegError(text) => error(text),
            other => error(other.to_string()),
        })?;
        let buffers_coefficients = header.is_progressive || !has_one_scan(bytes);
        Ok(Self {
            header,
            buffers_coefficients,
        })
    }

    /// Width and height.
    pub fn size(&self) -> (u64, u64) {
        (self.header.width as u64, self.header.height as u64)
    }

    /// Whether it can be reduced while it is decoded; only whole otherwise.
    pub fn can_be_reduced(&self) -> bool {
        !self.header.is_lossless
    }

    /// Whether a region can be decoded, and for less than the whole costs.
    pub fn can_be_decoded_in_part(&self) -> bool {
        self.can_be_reduced()
            && !self.buffers_coefficients
            && self.header.subsamp != Subsamp::Unknown
    }

    /// The whole.
    pub fn whole(&self, factor: u32) -> Region {
        let scaling = ScalingFactor::new(1, factor as usize);
        let scaled = self.header.scaled(scaling);
        Region {
            factor,
            x: 0,
            y: 0,
            width: scaled.width as u32,
            height: scaled.height as u32,
        }
    }

    /// A region that holds a part of the whole, given in pixels at full size. Its pixels within the part
    /// are those that the whole would have.
    pub fn region(&self, factor: u32, part: &Rectangle) -> Region {
        let whole = self.whole(factor);
        let step = (LARGEST_BLOCK / factor) as usize;
        let span = |low: f64, high: f64, limit: u32| {
            // Chrominance is interpolated across the edges of blocks: one more on each side. Positions
            // far outside saturate, and count as at the border.
            let blocks = |v: f64| v / f64::from(LARGEST_BLOCK);
            let first = (blocks(low).floor() as usize).saturating_sub(1) * step;
            let end = (blocks(high).ceil() as usize)
                .saturating_add(1)
                .saturating_mul(step);
            let first = first.min((limit as usize - 1) / step * step) as u32;
            (first, end.min(limit as usize) as u32 - first)
        };
        let (x, width) = span(part.left, part.right, whole.width);
        let (y, height) = span(part.top, part.bottom, whole.height);
        Region {
            factor,
            x,
            y,
            width,
            height,
        }
    }

    fn is_cmyk(&self) -> bool {
        matches!(self.header.colorspace, Colorspace::CMYK | Colorspace::YCCK)
    }

    fn format(&self) -> PixelFormat {
        if self.is_cmyk() {
            PixelFormat::CMYK
        } else {
            PixelFormat::RGB
        }
    }

    /// Bytes that decoding takes.
    pub fn memory(&self, region: Region) -> u64 {
        let pixels = u64::from(region.width) * u64::from(region.height);
        let coefficients = if self.buffers_coefficients {
            let channels = if self.is_cmyk() { 4 } else { 3 };
            let (width, height) = self.size();
            width * height * channels * size_of::<i16>() as u64
        } else {
            0
        };
        pixels * self.format().size() as u64 + coefficients
    }

    /// Decodes a region of `bytes`, whose header this is.
    pub fn decode(&self, bytes: &[u8], region: Region) -> Result<RgbImage, DecodeError> {
        let size = region.width as usize * region.height as usize * self.format().size();
        let mut pixels = vec![0; size];
        match self.decompress(bytes, region, &mut pixels) {
            Err(text) if is_harmless(&text) => {}
            result => result.map_err(error)?,
        }
        if self.is_cmyk() {
            pixels = rgb_from_inverted_cmyk(pixels);
        }
        Ok(RgbImage::from_raw(region.width, region.height, pixels)
            .expect("the buffer was made for this size"))
    }

    /// What the `turbojpeg` crate's decompressor does, and the cropping that it lacks.
    fn decompress(&self, bytes: &[u8], region: Region, pixels: &mut [u8]) -> Result<(), String> {
        let mut decompressor = Decompressor::new()?;
        let crop = (region != self.whole(region.factor)).then_some(region);
        decompressor.prepare(bytes, region.factor, crop)?;
        let needed = decompressor.output_bytes(region.factor, crop, self.format());
        if needed != pixels.len() {
            return Err("its header changed while it was read".to_owned());
        }
        decompressor.run(bytes, pixels, self.format())
    }
}

/// TurboJPEG's decompressor.
struct Decompressor(sys::tjhandle);

impl Decompressor {
    fn new() -> Result<Self, String> {
        // SAFETY: takes nothing of ours; null is looked for below.
        let handle = unsafe { sys::tj3Init(sys::TJINIT_TJINIT_DECOMPRESS as _) };
        let decompressor = Self(handle);
        if handle.is_null() {
            return Err(decompressor.error());
        }
        Ok(decompressor)
    }

    fn error(&self) -> String {
        // SAFETY: the handle is live, or null, for which the last global error is given; the string ends
        // with 0 and stays until the next call, and is copied before.
        let text = unsafe { std::ffi::CStr::from_ptr(sys::tj3GetErrorStr(self.0)) };
        text.to_string_lossy().into_owned()
    }

    fn check(&self, status: std::ffi::c_int) -> Result<(), String> {
        if status == 0 {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    fn prepare(&mut self, bytes: &[u8], factor: u32, crop: Option<Region>) -> Result<(), String> {
        let scaling = sys::tjscalingfactor {
            num: 1,
            denom: factor as _,
        };
        // SAFETY: the handle is live; the header is read within the bytes' bounds.
        unsafe {
            self.check(sys::tj3Set(
                self.0,
                sys::TJPARAM_TJPARAM_SCANLIMIT as _,
                MAX_SCANS,
            ))?;
            self.check(sys::tj3DecompressHeader(
                self.0,
                bytes.as_ptr(),
                bytes.len() as _,
            ))?;
            if factor != 1 {
                self.check(sys::tj3SetScalingFactor(self.0, scaling))?;
            }
        }
        if let Some(crop) = crop {
            let region = sys::tjregion {
                x: crop.x as _,
                y: crop.y as _,
                w: crop.width as _,
                h: crop.height as _,
            };
            // SAFETY: the handle is live.
            self.check(unsafe { sys::tj3SetCroppingRegion(self.0, region) })?;
        }
        Ok(())
    }

    /// Bytes that [`run`](Self::run) writes, by the header that `prepare` read.
    fn output_bytes(&mut self, factor: u32, crop: Option<Region>, format: PixelFormat) -> usize {
        let side = |parameter: sys::TJPARAM| {
            // SAFETY: the handle is live.
            let full = unsafe { sys::tj3Get(self.0, parameter as _) };
            usize::try_from(full).unwrap_or(0).div_ceil(factor as usize)
        };
        let (width, height) = match crop {
            Some(crop) => (crop.width as usize, crop.height as usize),
            None => (
                side(sys::TJPARAM_TJPARAM_JPEGWIDTH),
                side(sys::TJPARAM_TJPARAM_JPEGHEIGHT),
            ),
        };
        width * height * format.size()
    }

    fn run(&mut self, bytes: &[u8], pixels: &mut [u8], format: PixelFormat) -> Result<(), String> {
        // SAFETY: the handle is live, the input is read within its bounds, and the caller has made sure
        // that the output holds what is written: rows without padding (pitch 0), of the region or whole.
        self.check(unsafe {
            sys::tj3Decompress8(
                self.0,
                bytes.as_ptr(),
                bytes.len() as _,
                pixels.as_mut_ptr(),
                0,
                format as _,
            )
        })
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the handle is live, or null, which is let pass.
        unsafe { sys::tj3Destroy(self.0) }
    }
}

fn error(text: String) -> DecodeError {
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.contains("Premature end") {
        DecodeError::EndsEarly(text)
    } else if any(&[
        "Unsupported",
        "precision",
        "not implemented",
        "CMYK",
        "color conv",
    ]) {
        DecodeError::Unsupported(text)
    } else {
        DecodeError::Damaged(text)
    }
}

/// Whether the first scan of a JPEG holds all its components, so that it is decoded row by row.
fn has_one_scan(bytes: &[u8]) -> bool {
    let mut components = None;
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        // Fill bytes, and markers that have no segment.
        if marker == 0xff {
            at += 1;
            continue;
        }
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            at += 2;
            continue;
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
            return false;
        };
        match marker {
            // Start of frame; these three in its range are tables.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                components = bytes.get(at + 9).copied();
            }
            0xda => return components.is_some() && bytes.get(at + 4).copied() == components,
            _ => {}
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

/// Whether a warning of libjpeg leaves the photograph whole.
fn is_harmless(warning: &str) -> bool {
    warning.contains("extraneous bytes before marker 0xd9")
}

fn rgb_from_inverted_cmyk(cmyk: Vec<u8>) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let multiply = |ink: u8, black: u8| ((u32::from(ink) * u32::from(black) + 127) / 255) as u8;
    pixels
        .iter()
        .flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| multiply(ink, k)))
        .collect()
}
