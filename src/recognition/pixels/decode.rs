use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use exif::Exif;
use fast_image_resize::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::faults::{Faults, Incomplete};
use super::jpeg::{Jpeg, Region};
use super::raw;
use super::raw_image::PixelFormat;
use super::taken::Taken;
use super::tiff_ycbcr;
use super::warp::resize;
use crate::geometry::{Affine, Point, Rectangle};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// Largest photograph that is accepted, in pixels, whatever it is reduced to.
pub const MAX_PIXELS: u64 = 1 << 30;

/// Most memory that the pixels of a photograph being decoded may take, in bytes. A JPEG with one scan
/// counts as it is after reduction; a progressive JPEG counts with its coefficients, and a PNG or TIFF
/// as it is before reduction, because both have to be held whole. Turning it upright takes as much
/// again as the reduced photograph.
pub const MAX_DECODED_BYTES: u64 = 1 << 30;

/// Why a photograph cannot be decoded, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// What went wrong with a file.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: Box<DecodeError>,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// The path is a folder or a device.
    #[error("is not a file: give the path of a photograph")]
    NotAFile,
    /// There is nothing in it.
    #[error("is empty: copy it again from its source")]
    Empty,
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error(
        "has more than {} MiB, the most that is read: reduce the photograph",
        MAX_FILE_BYTES >> 20
    )]
    FileTooLarge,
    /// The first bytes are those of no known format.
    #[error("is neither JPEG, PNG nor TIFF: convert it to one of them")]
    UnknownFormat,
    /// More pixels than [`MAX_PIXELS`], or none.
    #[error(
        "says that it has {width} × {height} pixels, outside of 1 to {MAX_PIXELS}: if that is true, \
         cut or reduce it"
    )]
    Size {
        /// Pixels across, as stored.
        width: u64,
        /// Pixels down, as stored.
        height: u64,
    },
    /// Decoding takes more than [`MAX_DECODED_BYTES`].
    #[error(
        "needs {} MiB to decode its {width} × {height} pixels, above the limit of {} MiB: reduce \
         it, or save it as a baseline JPEG, which can be decoded at a fraction of its size",
        bytes >> 20,
        MAX_DECODED_BYTES >> 20
    )]
    Memory {
        /// Pixels across, as stored.
        width: u32,
        /// Pixels down, as stored.
        height: u32,
        /// Bytes that decoding would take.
        bytes: u64,
    },
    /// The file ends before the photograph does.
    #[error("ends early ({0}): copy it again from its source")]
    EndsEarly(String),
    /// The content contradicts its format.
    #[error("is damaged ({0}): copy it again from its source")]
    Damaged(String),
    /// A camera's raw file in which no JPEG of the photograph's size is embedded.
    #[error(
        "is a raw file whose largest embedded JPEG has {} × {} pixels of {} × {}: convert it to JPEG or TIFF",
        preview.0, preview.1, photograph.0, photograph.1
    )]
    NoPreview {
        /// Width and height of the largest JPEG, 0 where there is none.
        preview: (u32, u32),
        /// Width and height that the photograph has.
        photograph: (u32, u32),
    },
    /// An uncompressed frame with fewer bytes than its size needs.
    #[error(
        "is no whole {format} frame of {width} × {height} pixels: {bytes} bytes with rows of {stride}; the camera or \
         its cable cut it short"
    )]
    RawBytes {
        /// How its samples lie in memory.
        format: PixelFormat,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Bytes from the beginning of a row to that of the next.
        stride: usize,
        /// Bytes that there are.
        bytes: usize,
    },
    /// A kind of JPEG, PNG or TIFF that is not decoded.
    #[error("is of a kind that is not supported ({0}): convert it to RGB with 8 or 16 bits")]
    Unsupported(String),
}

impl DecodeError {
    fn in_file(self, path: Option<&Path>) -> Self {
        match path {
            Some(path) => Self::File {
                path: path.to_owned(),
                problem: Box::new(self),
            },
            None => self,
        }
    }

    fn from_image(error: ImageError) -> Self {
        let text = error.to_string();
        match error {
            ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::EndsEarly(text)
            }
            ImageError::Unsupported(_) | ImageError::Limits(_) => Self::Unsupported(text),
            _ if text.contains("nexpected end of") => Self::EndsEarly(text),
            _ => Self::Damaged(text),
        }
    }
}

enum Kind {
    Jpeg(Jpeg),
    YCbCrTiff,
    Other(ImageFormat),
}

/// What decoding a JPEG found out that is not as it should be.
#[derive(Debug)]
struct Found {
    /// Rows from the top, as stored and at full size, that can be decoded at any scale.
    rows: u32,
    /// The decoder's warning.
    warning: String,
}

/// Rows that can be decoded come in multiples of this, so that they are whole rows at each scale.
const ROWS_AT_EACH_SCALE: u32 = 8;

/// The bytes of a JPEG, PNG or TIFF whose header has been read, not yet decoded.
///
/// Orientation by EXIF, all eight cases, is obeyed: sizes and pixels are those of the upright
/// photograph. A file without readable EXIF is taken as upright. What is not 8-bit RGB becomes it:
/// grey and palettes are expanded, 16 bits are rounded to 8, an alpha channel is dropped, CMYK and
/// YCCK JPEGs are taken as inverted, as Adobe's programs write them, and multiplied out without a
/// colour profile.
///
/// Of a camera's raw file that is built like a TIFF (DNG, NEF, CR2, ARW, …) the embedded JPEG is taken, where it
/// is of the photograph's size.
///
/// # Damage
/// What the decoder of JPEGs only warns of is decoded, and [`faults`](Self::faults) tells it; superfluous zeros
/// before the end, which some cameras write, are no damage. Any other damage is an error.
///
/// A JPEG that ends early is an error too, unless the caller [accepts](Self::accepting_incomplete) it and half
/// of its rows or more are there. The rows that are missing are then as far away as what lies outside of the
/// frame: no pixels are made up for them, for a network would name a whale from grey.
///
/// # Limits
/// [`MAX_FILE_BYTES`], [`MAX_PIXELS`] and [`MAX_DECODED_BYTES`]. All are checked from the header, before
/// memory is taken.
pub struct EncodedPhotograph {
    bytes: Vec<u8>,
    kind: Kind,
    /// As stored, before orientation.
    width: u32,
    height: u32,
    orientation: Orientation,
    taken: Taken,
    path: Option<PathBuf>,
    accepts_incomplete: bool,
    /// Where decoding found anything.
    found: OnceLock<Found>,
}

impl fmt::Debug for EncodedPhotograph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedPhotograph")
            .field("path", &self.path)
            .field("bytes", &self.bytes.len())
            .field("size", &self.size())
            .field("orientation", &self.orientation)
            .finish_non_exhaustive()
    }
}

impl EncodedPhotograph {
    /// Reads a file and its header.
    ///
    /// # Errors
    /// [`DecodeError::File`], which names the file; so do later errors of [`decode`](Self::decode).
    pub fn open(path: &Path) -> Result<Self, DecodeError> {
        match Self::open_unnamed(path) {
            Ok(photograph) => Ok(Self {
                path: Some(path.to_owned()),
                ..photograph
            }),
            Err(error) => Err(error.in_file(Some(path))),
        }
    }

    /// [`open`](Self::open), for callers that name the file themselves.
    ///
    /// # Errors
    /// None of them names the file.
    pub fn open_unnamed(path: &Path) -> Result<Self, DecodeError> {
        read(path).and_then(Self::from_bytes)
    }

    /// The same photograph, of which at least half of the rows is enough where it is a JPEG that ends early.
    /// Who says so looks at [`faults`](Self::faults) after decoding, and passes them on.
    #[must_use]
    pub fn accepting_incomplete(self) -> Self {
        Self {
            accepts_incomplete: true,
            ..self
        }
    }

    /// Takes the content of a file and reads its header.
    ///
    /// # Errors
    /// Where it is no JPEG, PNG or TIFF, its header is damaged, or it is above the limits.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(DecodeError::FileTooLarge);
        }
        let exif = exif(&bytes);
        let mut orientation = exif.as_ref().and_then(orientation_by);
        let taken = exif.as_ref().map(Taken::of).unwrap_or_default();
        let bytes = match image::guess_format(&bytes) {
            Ok(ImageFormat::Tiff) => without_panic(|| raw::preview_or_whole(bytes))?,
            _ => bytes,
        };
        let (kind, width, height) = match image::guess_format(&bytes) {
            Ok(ImageFormat::Jpeg) => {
                // The JPEG in a raw file may say what the file does not.
                orientation = orientation.or_else(|| orientation_by(&self::exif(&bytes)?));
                let jpeg = Jpeg::read_header(&bytes)?;
                let (width, height) = jpeg.size();
                (Kind::Jpeg(jpeg), width, height)
            }
            Ok(format @ (ImageFormat::Png | ImageFormat::Tiff)) => {
                let (kind, (width, height)) = without_panic(|| {
                    let ycbcr = (format == ImageFormat::Tiff)
                        .then(|| tiff_ycbcr::size(&bytes))
                        .flatten();
                    Ok(match ycbcr {
                        Some(size) => (Kind::YCbCrTiff, size),
                        None => (Kind::Other(format), decoder(&bytes, format)?.dimensions()),
                    })
                })?;
                (kind, u64::from(width), u64::from(height))
            }
            _ => return Err(DecodeError::UnknownFormat),
        };
        let size = || DecodeError::Size { width, height };
        if width == 0 || height == 0 || width.saturating_mul(height) > MAX_PIXELS {
            return Err(size());
        }
        Ok(Self {
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
            kind,
            width: u32::try_from(width).map_err(|_| size())?,
            height: u32::try_from(height).map_err(|_| size())?,
            taken,
            bytes,
            path: None,
            accepts_incomplete: false,
            found: OnceLock::new(),
        })
    }

    /// The bytes that are decoded: those of the file, but for a raw file, of which they are the JPEG in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Width and height of the upright photograph at full size, in pixels.
    pub fn size(&self) -> (u32, u32) {
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        }
    }

    /// When and where it was taken, as far as its EXIF says.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// What is wrong with the photograph, as far as decoding has found out: nothing before
    /// [`decode`](Self::decode).
    pub fn faults(&self) -> Faults {
        let Some(found) = self.found.get() else {
            return Faults::default();
        };
        let incomplete = (found.rows < self.height).then(|| Incomplete {
            share_read: f64::from(found.rows) / f64::from(self.height),
        });
        // That it ends early is said by the rows.
        let only_ends = incomplete.is_some() && ends_early(&found.warning);
        Faults {
            incomplete,
            damaged: (!only_ends).then(|| found.warning.clone()),
        }
    }

    /// The part of the upright frame that can be decoded, in pixels at full size, as far as decoding has found
    /// out: all of it, unless the photograph is [incomplete](Self::accepting_incomplete).
    pub fn readable(&self) -> Rectangle {
        Rectangle::of_image(self.width, self.rows()).bounds_after(&self.upright_from_stored())
    }

    /// Rows from the top, as stored and at full size, that can be decoded.
    fn rows(&self) -> u32 {
        self.found.get().map_or(self.height, |found| found.rows)
    }

    /// Decodes the photograph, upright, at the smallest of the scales 1, 1/2, 1/4 and 1/8 that is not
    /// below `least_scale` (above 1 counts as 1). A JPEG is reduced while it is decoded, which costs a
    /// fraction of the time and memory; others are decoded whole and then reduced by averaging.
    ///
    /// # Errors
    /// Where the photograph is damaged, of an unsupported kind, or takes too much memory at this scale.
    pub fn decode(&self, least_scale: f64) -> Result<Photograph, DecodeError> {
        let factor = factor(least_scale);
        let stored = match &self.kind {
            Kind::Jpeg(jpeg) => self.decode_jpeg(jpeg, factor),
            Kind::YCbCrTiff => self.decode_ycbcr().map(|i| self.reduce(i, factor)),
            Kind::Other(format) => self.decode_whole(*format).map(|i| self.reduce(i, factor)),
        };
        self.upright(stored, self.readable())
    }

    /// Whether [`decode_part`](Self::decode_part) decodes less than the whole.
    pub fn is_decoded_in_part(&self) -> bool {
        matches!(&self.kind, Kind::Jpeg(jpeg) if jpeg.can_be_decoded_in_part())
    }

    /// [`decode`](Self::decode), of at least the `part` of the upright frame at full size that lies
    /// within the frame and is [readable](Self::readable). Of a JPEG with one scan not much more is decoded, and
    /// what precedes it is only read over; others are decoded whole.
    ///
    /// # Errors
    /// As of `decode`, but damage outside of the part may go unnoticed: decode the photograph whole
    /// once, at a small scale, to be sure of it.
    pub fn decode_part(
        &self,
        part: &Rectangle,
        least_scale: f64,
    ) -> Result<Photograph, DecodeError> {
        let jpeg = match &self.kind {
            Kind::Jpeg(jpeg) if jpeg.can_be_decoded_in_part() => jpeg,
            _ => return self.decode(least_scale),
        };
        let upright_from_stored = self.upright_from_stored();
        let stored_from_upright = upright_from_stored
            .inverse()
            .expect("turns and mirrors can be undone");
        let factor = factor(least_scale);
        let rows = self.rows();
        let stored = part
            .bounds_after(&stored_from_upright)
            .clamped(&Rectangle::of_image(self.width, rows));
        let region = jpeg.region(factor, &stored);
        if region == jpeg.whole(factor) {
            return self.decode(least_scale);
        }
        let decoded = self.decode_region(jpeg, region);
        if self.rows() < rows {
            // There is less than was thought.
            return self.decode_part(part, least_scale);
        }
        let height = decoded.as_ref().map_or(region.height, RgbImage::height);
        let full = |v: u32| f64::from(v * factor);
        let covered = Rectangle {
            left: full(region.x),
            top: full(region.y),
            right: full(region.x + region.width),
            bottom: full(region.y + height),
        };
        self.upright(decoded, covered.bounds_after(&upright_from_stored))
    }

    fn upright(
        &self,
        stored: Result<RgbImage, DecodeError>,
        part: Rectangle,
    ) -> Result<Photograph, DecodeError> {
        let stored = stored.map_err(|e| e.in_file(self.path.as_deref()))?;
        let mut upright = DynamicImage::ImageRgb8(stored);
        upright.apply_orientation(self.orientation);
        let (frame_width, frame_height) = self.size();
        Ok(Photograph {
            pixels: upright.into_rgb8(),
            frame_width,
            frame_height,
            part,
        })
    }

    /// The transform from positions in the photograph at full size as it is stored to those in the
    /// upright one.
    fn upright_from_stored(&self) -> Affine {
        let (w, h) = (f64::from(self.width), f64::from(self.height));
        let mirror = Affine {
            xx: -1.0,
            x0: w,
            ..Affine::IDENTITY
        };
        let quarter_turn = Affine {
            xx: 0.0,
            xy: -1.0,
            x0: h,
            yx: 1.0,
            yy: 0.0,
            y0: 0.0,
        };
        let half_turn = Affine {
            xx: -1.0,
            x0: w,
            yy: -1.0,
            y0: h,
            ..Affine::IDENTITY
        };
        match self.orientation {
            Orientation::NoTransforms => Affine::IDENTITY,
            Orientation::FlipHorizontal => mirror,
            Orientation::Rotate180 => half_turn,
            Orientation::FlipVertical => mirror.then(&half_turn),
            Orientation::Rotate90 => quarter_turn,
            Orientation::Rotate90FlipH => half_turn.then(&mirror).then(&quarter_turn),
            Orientation::Rotate270 => half_turn.then(&quarter_turn),
            Orientation::Rotate270FlipH => mirror.then(&quarter_turn),
        }
    }

    fn check_memory(&self, bytes: u64) -> Result<(), DecodeError> {
        if bytes > MAX_DECODED_BYTES {
            return Err(DecodeError::Memory {
                width: self.width,
                height: self.height,
                bytes,
            });
        }
        Ok(())
    }

    /// A region without its rows that are missing.
    fn decode_region(&self, jpeg: &Jpeg, region: Region) -> Result<RgbImage, DecodeError> {
        self.check_memory(jpeg.memory(region))?;
        self.check_rows()?;
        let (image, warning) = jpeg.decode(&self.bytes, region)?;
        if let Some(warning) = warning {
            self.examine(jpeg, warning)?;
        }
        let rows = self.rows();
        if rows == self.height {
            return Ok(image);
        }
        let (width, height) = image.dimensions();
        let there = (rows / region.factor).saturating_sub(region.y).min(height);
        let mut pixels = image.into_raw();
        pixels.truncate(3 * width as usize * there as usize);
        Ok(RgbImage::from_raw(width, there, pixels).expect("rows were taken away whole"))
    }

    /// Finds out, at the first warning, how much of the photograph is there.
    fn examine(&self, jpeg: &Jpeg, warning: String) -> Result<(), DecodeError> {
        if self.found.get().is_none() {
            self.check_memory(jpeg.memory(jpeg.whole(1)))?;
            let rows = jpeg.rows_there(&self.bytes)?;
            let rows = if rows < self.height {
                rows / ROWS_AT_EACH_SCALE * ROWS_AT_EACH_SCALE
            } else {
                rows
            };
            // Another thread may have found the same meanwhile.
            let _ = self.found.set(Found { rows, warning });
        }
        self.check_rows()
    }

    fn check_rows(&self) -> Result<(), DecodeError> {
        let Some(Found { rows, warning }) = self.found.get() else {
            return Ok(());
        };
        let enough = if self.accepts_incomplete {
            self.height.div_ceil(2)
        } else {
            self.height
        };
        if *rows < enough {
            let share = 100.0 * f64::from(*rows) / f64::from(self.height);
            return Err(DecodeError::EndsEarly(format!(
                "{warning}; {share:.1} % of its rows are there"
            )));
        }
        Ok(())
    }

    fn decode_jpeg(&self, jpeg: &Jpeg, factor: u32) -> Result<RgbImage, DecodeError> {
        if !jpeg.can_be_reduced() {
            let decoded = self.decode_region(jpeg, jpeg.whole(1))?;
            return Ok(self.reduce(decoded, factor));
        }
        let decoded = self.decode_region(jpeg, jpeg.whole(factor))?;
        // The last column and row stand for whole blocks, of which the photograph may fill only a part.
        let exact = |size: u32| f64::from(size) / f64::from(factor);
        let (width, height) = (exact(self.width), exact(self.rows()));
        if (width, height) == (f64::from(decoded.width()), f64::from(decoded.height())) {
            return Ok(decoded);
        }
        let rectangle = (0.0, 0.0, width, height);
        Ok(resize(
            &decoded,
            rectangle,
            decoded.dimensions(),
            FilterType::Bilinear,
        ))
    }

    fn decode_ycbcr(&self) -> Result<RgbImage, DecodeError> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        self.check_memory(6 * pixels)?;
        without_panic(|| tiff_ycbcr::decode(&self.bytes))
    }

    fn decode_whole(&self, format: ImageFormat) -> Result<RgbImage, DecodeError> {
        without_panic(|| {
            let decoder = decoder(&self.bytes, format)?;
            let pixels = u64::from(self.width) * u64::from(self.height);
            self.check_memory(decoder.total_bytes().saturating_add(3 * pixels))?;
            let image = DynamicImage::from_decoder(decoder).map_err(DecodeError::from_image)?;
            Ok(image.into_rgb8())
        })
    }

    /// Reduces a photograph of full size, or the rows of it that are there, by averaging.
    fn reduce(&self, image: RgbImage, factor: u32) -> RgbImage {
        if factor == 1 {
            return image;
        }
        let (width, height) = image.dimensions();
        let size = (width.div_ceil(factor), height.div_ceil(factor));
        let whole = (0.0, 0.0, f64::from(width), f64::from(height));
        resize(&image, whole, size, FilterType::Box)
    }
}

/// By how much a photograph may be reduced.
pub(super) fn factor(least_scale: f64) -> u32 {
    [8, 4, 2]
        .into_iter()
        .find(|&factor| 1.0 / f64::from(factor) >= least_scale)
        .unwrap_or(1)
}

fn read(path: &Path) -> Result<Vec<u8>, DecodeError> {
    let metadata = std::fs::metadata(path).map_err(DecodeError::Unreadable)?;
    if !metadata.is_file() {
        return Err(DecodeError::NotAFile);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(DecodeError::FileTooLarge);
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(DecodeError::Unreadable)?;
    Ok(bytes)
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, DecodeError> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder().map_err(DecodeError::from_image)
}

/// Whether a warning of the decoder of JPEGs says that the file ends, and nothing else.
fn ends_early(warning: &str) -> bool {
    warning.starts_with("Premature end of JPEG file")
}

/// Calls a decoder of PNG or TIFF. Some damaged files make one panic (png 0.18.1 at a palette of 4 bytes,
/// image-png issue 694): for the aircraft that is one more damaged file.
fn without_panic<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    // What a decoder leaves half done goes with it.
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(DecodeError::Damaged("the decoder gave up".to_owned())))
}

/// As much of the EXIF as can be read.
fn exif(bytes: &[u8]) -> Option<Exif> {
    exif::Reader::new()
        .continue_on_error(true)
        .read_from_container(&mut Cursor::new(bytes))
        .or_else(|e| e.distill_partial_result(|_| ()))
        .ok()
}

fn orientation_by(exif: &Exif) -> Option<Orientation> {
    exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY)
        .and_then(|field| field.value.get_uint(0))
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
}

/// A decoded photograph, or a part of one: upright, RGB, possibly reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Photograph {
    /// The pixels; they cover exactly `part`.
    pub pixels: RgbImage,
    /// Width of the upright frame at full size, in pixels.
    pub frame_width: u32,
    /// Height of the upright frame at full size, in pixels.
    pub frame_height: u32,
    /// What the pixels cover, in pixels of the upright frame at full size: all that is
    /// [readable](EncodedPhotograph::readable) where it was not asked for less. At the frame's edge it may reach
    /// beyond by less than one of `pixels`.
    pub part: Rectangle,
}

impl Photograph {
    /// A whole frame at full size.
    pub fn whole(pixels: RgbImage) -> Self {
        let (frame_width, frame_height) = pixels.dimensions();
        Self {
            pixels,
            frame_width,
            frame_height,
            part: Rectangle::of_image(frame_width, frame_height),
        }
    }

    /// The transform from positions in the frame at full size to positions in [`pixels`](Self::pixels).
    pub fn pixels_from_frame(&self) -> Affine {
        let (width, height) = self.pixels.dimensions();
        Affine::translation(Point::new(-self.part.left, -self.part.top)).then(&Affine::scaling(
            f64::from(width) / self.part.width(),
            f64::from(height) / self.part.height(),
        ))
    }

    /// The inverse of [`pixels_from_frame`](Self::pixels_from_frame); the identity for a photograph
    /// without pixels, which shows nothing wherever it is looked at.
    pub fn frame_from_pixels(&self) -> Affine {
        self.pixels_from_frame()
            .inverse()
            .unwrap_or(Affine::IDENTITY)
    }
}
