use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use image::RgbImage;
use turbojpeg::PixelFormat;
use turbojpeg_sys as sys;

use super::decode::DecodeError;
use super::jpeg_eighth::decode_at_an_eighth;
use crate::geometry::Rectangle;

/// Scans of a progressive JPEG; encoders write about 10, and each costs a pass over the photograph.
const MAX_SCANS: i32 = 100;

/// Sides of the blocks in which chrominance is stored are at most this long, in pixels of the
/// photograph: a region that starts at a multiple of it is decoded as the whole is.
const LARGEST_BLOCK: u32 = 32;

/// How the texts of libjpeg's warnings begin, those that its source calls `JWRN_`: it decodes all the same.
/// TurboJPEG's error code is no help alone, for it says "warning" of an error that came after a warning.
const WARNINGS: [&str; 7] = [
    "Corrupt JPEG data",
    "Premature end of JPEG file",
    "Warning: unknown JFIF revision",
    "Unknown Adobe color transform code",
    "Inconsistent progression sequence",
    "Invalid SOS parameters for sequential JPEG",
    "Application transferred too many scanlines",
];

/// Bytes that stand in for those that a file lacks: enough for some blocks.
const STAND_IN_BYTES: usize = 1024;

/// A JPEG whose header has been read. Sizes are those that are stored, before orientation.
pub(super) struct Jpeg {
    width: usize,
    height: usize,
    is_cmyk: bool,
    is_lossless: bool,
    has_known_subsampling: bool,
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
        let mut decompressor = Decompressor::new().map_err(error)?;
        let warning = decompressor.read_header(bytes).map_err(error)?;
        let size = |parameter| usize::try_from(decompressor.get(parameter)).unwrap_or(0);
        let (width, height) = (
            size(sys::TJPARAM_TJPARAM_JPEGWIDTH),
            size(sys::TJPARAM_TJPARAM_JPEGHEIGHT),
        );
        if width == 0 || height == 0 {
            return Err(error(
                warning.unwrap_or_else(|| "it has no frame".to_owned()),
            ));
        }
        let is_progressive = decompressor.get(sys::TJPARAM_TJPARAM_PROGRESSIVE) == 1;
        let colours = decompressor.get(sys::TJPARAM_TJPARAM_COLORSPACE) as sys::TJCS;
        Ok(Self {
            width,
            height,
            is_cmyk: matches!(colours, sys::TJCS_TJCS_CMYK | sys::TJCS_TJCS_YCCK),
            is_lossless: decompressor.get(sys::TJPARAM_TJPARAM_LOSSLESS) == 1,
            has_known_subsampling: decompressor.get(sys::TJPARAM_TJPARAM_SUBSAMP) >= 0,
            buffers_coefficients: is_progressive || !has_one_scan(bytes),
        })
    }

    /// Width and height.
    pub fn size(&self) -> (u64, u64) {
        (self.width as u64, self.height as u64)
    }

    /// Whether it can be reduced while it is decoded; only whole otherwise.
    pub fn can_be_reduced(&self) -> bool {
        !self.is_lossless
    }

    /// Whether a region can be decoded, and for less than the whole costs.
    pub fn can_be_decoded_in_part(&self) -> bool {
        self.can_be_reduced() && !self.buffers_coefficients && self.has_known_subsampling
    }

    /// The whole.
    pub fn whole(&self, factor: u32) -> Region {
        let reduced = |size: usize| size.div_ceil(factor as usize) as u32;
        Region {
            factor,
            x: 0,
            y: 0,
            width: reduced(self.width),
            height: reduced(self.height),
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

    fn format(&self) -> PixelFormat {
        if self.is_cmyk {
            PixelFormat::CMYK
        } else {
            PixelFormat::RGB
        }
    }

    /// Bytes that decoding takes.
    pub fn memory(&self, region: Region) -> u64 {
        let pixels = u64::from(region.width) * u64::from(region.height);
        let coefficients = if self.buffers_coefficients {
            let channels = if self.is_cmyk { 4 } else { 3 };
            let (width, height) = self.size();
            width * height * channels * size_of::<i16>() as u64
        } else {
            0
        };
        pixels * self.format().size() as u64 + coefficients
    }

    /// Decodes a region of `bytes`, whose header this is; with what the decoder objected to first, where that is
    /// not [harmless](is_harmless).
    pub fn decode(
        &self,
        bytes: &[u8],
        region: Region,
    ) -> Result<(RgbImage, Option<String>), DecodeError> {
        if region == self.whole(8)
            && let Some(image) = decode_at_an_eighth(bytes)
        {
            return Ok((image, None));
        }
        self.decode_by_libjpeg(bytes, region)
    }

    /// [`decode`](Self::decode) by libjpeg alone.
    pub fn decode_by_libjpeg(
        &self,
        bytes: &[u8],
        region: Region,
    ) -> Result<(RgbImage, Option<String>), DecodeError> {
        let decompressed = self.decompress(bytes, region).or_else(|text| {
            // By chance a stretch that was overwritten holds a marker. There the coded data ends for the decoder,
            // and no sense can be made of what follows: what precedes it is as good.
            let coded = &bytes[..CodedData::of(bytes).end];
            if coded.len() == bytes.len() {
                return Err(text);
            }
            match self.decompress(coded, region) {
                Ok((pixels, _)) => Ok((pixels, Some(text))),
                Err(_) => Err(text),
            }
        });
        let (mut pixels, warning) = decompressed.map_err(error)?;
        if self.is_cmyk {
            pixels = rgb_from_inverted_cmyk(pixels);
        }
        let image = RgbImage::from_raw(region.width, region.height, pixels)
            .expect("the buffer was made for this size");
        Ok((image, warning.filter(|text| !is_harmless(text, bytes))))
    }

    /// How many rows from the top, at full size, can be decoded from what the file holds.
    ///
    /// Where coded data is missing libjpeg goes on with zeros and grey, and does not say from which row on. A row
    /// is there if it is the same whatever comes after the data: so the data is continued by zeros, by random bits
    /// and by their inverse, so that no missing bit is the same in all, and the rows are compared.
    ///
    /// Of a file that ends before the last of its scans no row is there in full: 0.
    pub fn rows_there(&self, bytes: &[u8]) -> Result<u32, DecodeError> {
        let coded = CodedData::of(bytes);
        if !coded.has_all_scans {
            return Ok(0);
        }
        let mut data = &bytes[..coded.end];
        // Before another byte it would be a marker.
        while let [rest @ .., 0xff] = data {
            data = rest;
        }
        let rows = |stand_in: &[u8]| -> Result<Vec<u64>, DecodeError> {
            let continued = [data, stand_in, &[0xff, 0xd9]].concat();
            let (pixels, _) = self.decompress(&continued, self.whole(1)).map_err(error)?;
            let digest = |row: &[u8]| {
                let mut hasher = DefaultHasher::new();
                row.hash(&mut hasher);
                hasher.finish()
            };
            let row_bytes = self.width * self.format().size();
            Ok(pixels.chunks(row_bytes).map(digest).collect())
        };
        let random = random_bytes();
        let inverse = random.map(|byte| !byte);
        let all = [rows(&[0; STAND_IN_BYTES])?, rows(&random)?, rows(&inverse)?];
        let is_same = |&row: &usize| all.iter().all(|rows| rows[row] == all[0][row]);
        Ok((0..self.height).take_while(is_same).count() as u32)
    }

    /// What the `turbojpeg` crate's decompressor does, and the cropping and the warnings that it lacks.
    fn decompress(
        &self,
        bytes: &[u8],
        region: Region,
    ) -> Result<(Vec<u8>, Option<String>), String> {
        let size = region.width as usize * region.height as usize * self.format().size();
        let mut pixels = vec![0; size];
        let mut decompressor = Decompressor::new()?;
        let crop = (region != self.whole(region.factor)).then_some(region);
        decompressor.prepare(bytes, region.factor, crop)?;
        let needed = decompressor.output_bytes(region.factor, crop, self.format());
        if needed != pixels.len() {
            return Err("its header changed while it was read".to_owned());
        }
        // It reads the header again and repeats what `prepare` was warned of.
        let warning = decompressor.run(bytes, &mut pixels, self.format())?;
        Ok((pixels, warning))
    }
}

/// Always the same, none of them with all bits alike: so neither they nor their inverse hold a marker.
fn random_bytes() -> [u8; STAND_IN_BYTES] {
    let mut state = 1u32;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as u8).clamp(1, 254)
    })
}

/// Where the coded data of the last scan of a JPEG ends, by the file's end or by a marker: that of an end that is
/// its own, or one that a damaged stretch holds by chance.
struct CodedData {
    end: usize,
    /// Whether the scans up to there hold all that the photograph has.
    has_all_scans: bool,
}

impl CodedData {
    fn of(bytes: &[u8]) -> Self {
        let mut end = bytes.len();
        let (mut has_end, mut in_scan) = (false, false);
        let mut is_progressive = false;
        // For each component how many low bits of each coefficient are still to come.
        let mut missing: HashMap<u8, [u8; 64]> = HashMap::new();
        let mut has_restarts = false;
        for segment in Segments::of(bytes) {
            if in_scan && has_restarts && matches!(segment.marker, 0xd0..=0xd7) {
                continue;
            }
            if in_scan {
                end = segment.start;
                has_end = segment.marker == END;
            }
            in_scan = segment.marker == START_OF_SCAN;
            if segment.marker == RESTART_INTERVAL {
                has_restarts = segment.content != [0, 0];
            } else if is_start_of_frame(segment.marker) {
                is_progressive = matches!(segment.marker, 0xc2 | 0xc6 | 0xca | 0xce);
                let components = segment.content.get(6..).unwrap_or(&[]).chunks_exact(3);
                missing.extend(components.map(|component| (component[0], [u8::MAX; 64])));
            } else if in_scan {
                end = bytes.len();
                has_end = false;
                let count = usize::from(segment.content.first().copied().unwrap_or(0));
                let components = segment.content.get(1..1 + 2 * count).unwrap_or(&[]);
                let band = match segment.content.get(1 + 2 * count..) {
                    Some(&[first, last, bits, ..]) if is_progressive => (first, last, bits & 0xf),
                    _ => (0, 63, 0),
                };
                for component in components.chunks_exact(2) {
                    let coefficients = missing.get_mut(&component[0]).and_then(|component| {
                        component.get_mut(usize::from(band.0)..=usize::from(band.1))
                    });
                    coefficients
                        .into_iter()
                        .flatten()
                        .for_each(|bits| *bits = band.2);
                }
            }
        }
        Self {
            end,
            has_all_scans: has_end || missing.values().flatten().all(|&bits| bits == 0),
        }
    }
}

pub(super) const END: u8 = 0xd9;
pub(super) const START_OF_SCAN: u8 = 0xda;
pub(super) const RESTART_INTERVAL: u8 = 0xdd;

/// Three markers in their range are tables.
pub(super) fn is_start_of_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// A marker of a JPEG and its content.
pub(super) struct Segment<'a> {
    pub marker: u8,
    /// Where the marker lies.
    pub start: usize,
    /// Without marker and length.
    pub content: &'a [u8],
}

/// The segments of a JPEG up to its end or the file's, among them restarts, which have no content. Coded data
/// between them is passed over, as are other bytes that are none of a segment, as libjpeg does.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let start = self.at + rest.iter().position(|&byte| byte == 0xff)?;
            let marker = *self.bytes.get(start + 1)?;
            match marker {
                // It fills up.
                0xff => self.at = start + 1,
                // A byte of coded data that is 0xff.
                0x00 => self.at = start + 2,
                // They have no length.
                0x01 | 0xd0..=0xd8 | END => {
                    self.at = if marker == END {
                        self.bytes.len()
                    } else {
                        start + 2
                    };
                    return Some(Segment {
                        marker,
                        start,
                        content: &[],
                    });
                }
                _ => {
                    let length = self.bytes.get(start + 2..start + 4)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    self.at = start + 2 + length.max(2);
                    return Some(Segment {
                        marker,
                        start,
                        content: self.bytes.get(start + 4..self.at).unwrap_or(&[]),
                    });
                }
            }
        }
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

    /// The first warning, where the call gave warnings and no error.
    fn check(&self, status: std::ffi::c_int) -> Result<Option<String>, String> {
        // SAFETY: the handle is live.
        let code = unsafe { sys::tj3GetErrorCode(self.0) } as sys::TJERR;
        let warned = code == sys::TJERR_TJERR_WARNING;
        if status == 0 && !warned {
            return Ok(None);
        }
        let text = self.error();
        if warned && WARNINGS.iter().any(|warning| text.starts_with(warning)) {
            Ok(Some(text))
        } else if status == 0 {
            Ok(None)
        } else {
            Err(text)
        }
    }

    fn get(&self, parameter: sys::TJPARAM) -> std::ffi::c_int {
        // SAFETY: the handle is live.
        unsafe { sys::tj3Get(self.0, parameter as _) }
    }

    fn read_header(&mut self, bytes: &[u8]) -> Result<Option<String>, String> {
        // SAFETY: the handle is live; the header is read within the bytes' bounds.
        self.check(unsafe { sys::tj3DecompressHeader(self.0, bytes.as_ptr(), bytes.len() as _) })
    }

    fn prepare(&mut self, bytes: &[u8], factor: u32, crop: Option<Region>) -> Result<(), String> {
        let scaling = sys::tjscalingfactor {
            num: 1,
            denom: factor as _,
        };
        // SAFETY: the handle is live.
        self.check(unsafe { sys::tj3Set(self.0, sys::TJPARAM_TJPARAM_SCANLIMIT as _, MAX_SCANS) })?;
        self.read_header(bytes)?;
        if factor != 1 {
            // SAFETY: the handle is live.
            self.check(unsafe { sys::tj3SetScalingFactor(self.0, scaling) })?;
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
    fn output_bytes(&self, factor: u32, crop: Option<Region>, format: PixelFormat) -> usize {
        let side = |parameter: sys::TJPARAM| {
            let full = usize::try_from(self.get(parameter)).unwrap_or(0);
            full.div_ceil(factor as usize)
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

    fn run(
        &mut self,
        bytes: &[u8],
        pixels: &mut [u8],
        format: PixelFormat,
    ) -> Result<Option<String>, String> {
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
    for segment in Segments::of(bytes) {
        if is_start_of_frame(segment.marker) {
            components = segment.content.get(5).copied();
        } else if segment.marker == START_OF_SCAN {
            return components.is_some() && segment.content.first().copied() == components;
        }
    }
    false
}

/// Whether a warning of libjpeg leaves the photograph whole: zeros that some cameras write before the end.
fn is_harmless(warning: &str, bytes: &[u8]) -> bool {
    let superfluous = warning
        .strip_prefix("Corrupt JPEG data: ")
        .and_then(|text| text.strip_suffix(" extraneous bytes before marker 0xd9"))
        .and_then(|count| count.parse::<usize>().ok());
    let is_zero = |count: usize| {
        let end = CodedData::of(bytes).end;
        let superfluous = end.checked_sub(count).and_then(|from| bytes.get(from..end));
        superfluous.is_some_and(|superfluous| superfluous.iter().all(|&byte| byte == 0))
    };
    superfluous.is_some_and(is_zero)
}

fn rgb_from_inverted_cmyk(cmyk: Vec<u8>) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let multiply = |ink: u8, black: u8| ((u32::from(ink) * u32::from(black) + 127) / 255) as u8;
    pixels
        .iter()
        .flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| multiply(ink, k)))
        .collect()
}
