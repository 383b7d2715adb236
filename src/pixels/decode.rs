use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use fast_image_resize::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use turbojpeg::{Colorspace, DecompressHeader, Decompressor, PixelFormat, ScalingFactor};

use super::warp::resize;
use crate::geometry::Affine;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// Largest photograph that is accepted, in pixels, whatever it is reduced to.
pub const MAX_PIXELS: u64 = 1 << 30;

/// Most memory that the pixels of a photograph being decoded may take, in bytes. A JPEG with one scan
/// counts as it is after reduction; a progressive JPEG counts with its coefficients, and a PNG or TIFF
/// as it is before reduction, because both have to be held whole. Turning it upright takes as much
/// again as the reduced photograph.
pub const MAX_DECODED_BYTES: u64 = 1 << 30;

/// Scans of a progressive JPEG; encoders write about 10, and each costs a pass over the photograph.
const MAX_SCANS: u32 = 100;

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

    fn from_jpeg(error: turbojpeg::Error) -> Self {
        let text = match error {
            turbojpeg::Error::TurboJpegError(text) => text,
            other => other.to_string(),
        };
        let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if any(&["Premature end"]) {
            Self::EndsEarly(text)
        } else if any(&[
            "Unsupported",
            "precision",
            "not implemented",
            "CMYK",
            "color conv",
        ]) {
            Self::Unsupported(text)
        } else {
            Self::Damaged(text)
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
    Jpeg {
        header: DecompressHeader,
        /// Whether the decoder has to hold the coefficients of the whole photograph.
        buffers_coefficients: bool,
    },
    Other(ImageFormat),
}

/// The bytes of a JPEG, PNG or TIFF whose header has been read, not yet decoded.
///
/// Orientation by EXIF, all eight cases, is obeyed: sizes and pixels are those of the upright
/// photograph. A file without readable EXIF is taken as upright. What is not 8-bit RGB becomes it:
/// grey and palettes are expanded, 16 bits are rounded to 8, an alpha channel is dropped, CMYK and
/// YCCK JPEGs are taken as inverted, as Adobe's programs write them, and multiplied out without a
/// colour profile.
///
/// # What counts as damaged
/// A photograph is decoded whole or not at all. A JPEG that ends early or has a corrupt stretch is an
/// error although a decoder could fill the rest with grey: a network would name a whale from grey.
/// Only superfluous bytes before the end marker, which some cameras write, are let pass.
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
    path: Option<PathBuf>,
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
        let opened = read(path).and_then(Self::from_bytes);
        match opened {
            Ok(photograph) => Ok(Self {
                path: Some(path.to_owned()),
                ..photograph
            }),
            Err(error) => Err(error.in_file(Some(path))),
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
        let (kind, width, height) = match image::guess_format(&bytes) {
            Ok(ImageFormat::Jpeg) => {
                let header = Decompressor::new()
                    .and_then(|mut d| d.read_header(&bytes))
                    .map_err(DecodeError::from_jpeg)?;
                let buffers_coefficients = header.is_progressive || !has_one_scan(&bytes);
                let kind = Kind::Jpeg {
                    header,
                    buffers_coefficients,
                };
                (kind, header.width as u64, header.height as u64)
            }
            Ok(format @ (ImageFormat::Png | ImageFormat::Tiff)) => {
                let (width, height) = decoder(&bytes, format)?.dimensions();
                (Kind::Other(format), u64::from(width), u64::from(height))
            }
            _ => return Err(DecodeError::UnknownFormat),
        };
        let size = || DecodeError::Size { width, height };
        if width == 0 || height == 0 || width.saturating_mul(height) > MAX_PIXELS {
            return Err(size());
        }
        Ok(Self {
            orientation: orientation(&bytes),
            kind,
            width: u32::try_from(width).map_err(|_| size())?,
            height: u32::try_from(height).map_err(|_| size())?,
            bytes,
            path: None,
        })
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

    /// Decodes the photograph, upright, at the smallest of the scales 1, 1/2, 1/4 and 1/8 that is not
    /// below `least_scale` (above 1 counts as 1). A JPEG is reduced while it is decoded, which costs a
    /// fraction of the time and memory; others are decoded whole and then reduced by averaging.
    ///
    /// # Errors
    /// Where the photograph is damaged, of an unsupported kind, or takes too much memory at this scale.
    pub fn decode(&self, least_scale: f64) -> Result<Photograph, DecodeError> {
        let factor = [8u32, 4, 2]
            .into_iter()
            .find(|&factor| 1.0 / f64::from(factor) >= least_scale)
            .unwrap_or(1);
        let decoded = match &self.kind {
            Kind::Jpeg {
                header,
                buffers_coefficients,
            } => self.decode_jpeg(header, *buffers_coefficients, factor),
            Kind::Other(format) => self.decode_whole(*format).map(|i| self.reduce(i, factor)),
        };
        let stored = decoded.map_err(|e| e.in_file(self.path.as_deref()))?;
        let mut upright = DynamicImage::ImageRgb8(stored);
        upright.apply_orientation(self.orientation);
        let (frame_width, frame_height) = self.size();
        Ok(Photograph {
            pixels: upright.into_rgb8(),
            frame_width,
            frame_height,
        })
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

    fn decode_jpeg(
        &self,
        header: &DecompressHeader,
        buffers_coefficients: bool,
        factor: u32,
    ) -> Result<RgbImage, DecodeError> {
        let scaling = if header.is_lossless {
            ScalingFactor::ONE
        } else {
            ScalingFactor::new(1, factor as usize)
        };
        let cmyk = matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK);
        let format = if cmyk {
            PixelFormat::CMYK
        } else {
            PixelFormat::RGB
        };
        let scaled = header.scaled(scaling);
        let pitch = scaled.width * format.size();
        let coefficients = if buffers_coefficients {
            let channels = if cmyk { 4 } else { 3 };
            u64::from(self.width) * u64::from(self.height) * channels * size_of::<i16>() as u64
        } else {
            0
        };
        self.check_memory((pitch * scaled.height) as u64 + coefficients)?;

        let mut pixels = vec![0; pitch * scaled.height];
        let mut decode = || {
            let mut decompressor = Decompressor::new()?;
            decompressor.set_scan_limit(MAX_SCANS)?;
            decompressor.set_scaling_factor(scaling)?;
            let output = turbojpeg::Image {
                pixels: pixels.as_mut_slice(),
                width: scaled.width,
                pitch,
                height: scaled.height,
                format,
            };
            decompressor.decompress(&self.bytes, output)
        };
        match decode() {
            Err(turbojpeg::Error::TurboJpegError(text)) if is_harmless(&text) => {}
            result => result.map_err(DecodeError::from_jpeg)?,
        }
        if cmyk {
            pixels = rgb_from_inverted_cmyk(pixels);
        }
        let decoded = RgbImage::from_raw(scaled.width as u32, scaled.height as u32, pixels)
            .expect("the buffer was made for this size");

        if scaling == ScalingFactor::ONE {
            return Ok(self.reduce(decoded, factor));
        }
        // The last column and row stand for whole blocks, of which the photograph may fill only a part.
        let exact = |size: u32| f64::from(size) / f64::from(factor);
        let (width, height) = (exact(self.width), exact(self.height));
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

    fn decode_whole(&self, format: ImageFormat) -> Result<RgbImage, DecodeError> {
        let decoder = decoder(&self.bytes, format)?;
        let pixels = u64::from(self.width) * u64::from(self.height);
        self.check_memory(decoder.total_bytes().saturating_add(3 * pixels))?;
        let image = DynamicImage::from_decoder(decoder).map_err(DecodeError::from_image)?;
        Ok(image.into_rgb8())
    }

    /// Reduces a photograph of full size by averaging.
    fn reduce(&self, image: RgbImage, factor: u32) -> RgbImage {
        if factor == 1 {
            return image;
        }
        let size = (self.width.div_ceil(factor), self.height.div_ceil(factor));
        let whole = (0.0, 0.0, f64::from(self.width), f64::from(self.height));
        resize(&image, whole, size, FilterType::Box)
    }
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

fn orientation(bytes: &[u8]) -> Orientation {
    let exif = exif::Reader::new()
        .continue_on_error(true)
        .read_from_container(&mut Cursor::new(bytes))
        .or_else(|e| e.distill_partial_result(|_| ()))
        .ok();
    exif.as_ref()
        .and_then(|exif| exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY))
        .and_then(|field| field.value.get_uint(0))
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
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

/// A decoded photograph: upright, RGB, possibly reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photograph {
    /// The pixels; they cover exactly the whole frame.
    pub pixels: RgbImage,
    /// Width of the upright frame at full size, in pixels.
    pub frame_width: u32,
    /// Height of the upright frame at full size, in pixels.
    pub frame_height: u32,
}

impl Photograph {
    /// The transform from positions in the frame at full size to positions in [`pixels`](Self::pixels).
    pub fn pixels_from_frame(&self) -> Affine {
        let ratio = |pixels: u32, frame: u32| f64::from(pixels) / f64::from(frame);
        Affine::scaling(
            ratio(self.pixels.width(), self.frame_width),
            ratio(self.pixels.height(), self.frame_height),
        )
    }
}
