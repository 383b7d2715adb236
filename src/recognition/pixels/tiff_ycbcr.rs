//! TIFFs whose pixels are brightness and two colour differences, which the `image` crate leaves alone.

use std::io::Cursor;

use image::RgbImage;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits, ifd::Value};
use tiff::tags::{CompressionMethod, PlanarConfiguration, Predictor, Tag};
use tiff::{ColorType, TiffError};

use super::decode::{DecodeError, MAX_DECODED_BYTES};
use super::tiff_directory;

/// Weights of red, green and blue in brightness.
const COEFFICIENTS: Tag = Tag::Unknown(529);
/// Codes of no and of full brightness and colour difference.
const REFERENCE_BLACK_WHITE: Tag = Tag::Unknown(532);

/// Width and height of such a TIFF, with 8 bits a sample; `None` of others.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).ok()?;
    let is_ycbcr = matches!(decoder.colortype(), Ok(ColorType::YCbCr(8)));
    is_ycbcr.then(|| decoder.dimensions().ok()).flatten()
}

/// Decodes such a TIFF.
///
/// # Errors
/// It is damaged, or laid out in a way that neither the `tiff` crate nor this module knows.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut decoder = open(bytes)?;
    let (width, height) = decoder.dimensions().map_err(error)?;
    let to_rgb = ToRgb::of(&mut decoder);
    let planar = number(&mut decoder, Tag::PlanarConfiguration)?;
    if planar.is_some_and(|value| value != u32::from(PlanarConfiguration::Chunky.to_u16())) {
        return Err(DecodeError::Unsupported(
            "YCbCr in separate planes".to_owned(),
        ));
    }
    let is_jpeg = number(&mut decoder, Tag::Compression)?
        == Some(u32::from(CompressionMethod::ModernJPEG.to_u16()));
    let subsampling = decoder
        .find_tag_unsigned_vec::<u32>(Tag::ChromaSubsampling)
        .map_err(error)?;
    match subsampling.as_deref().unwrap_or(&[2, 2]) {
        // The decoder of JPEGs interpolates.
        _ if is_jpeg => {}
        [1, 1] => {}
        &[across, down] if [1, 2, 4].contains(&across) && [1, 2, 4].contains(&down) => {
            return decode_blocks(bytes, decoder, &to_rgb, (across, down));
        }
        other => {
            return Err(DecodeError::Unsupported(format!(
                "YCbCr subsampled by {other:?}"
            )));
        }
    }
    let values = values(&mut decoder)?;
    let pixels = values
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|&ycbcr| to_rgb.apply(ycbcr));
    RgbImage::from_raw(width, height, pixels.collect()).ok_or_else(too_short)
}

/// Decodes what is stored in blocks of `across × down` brightnesses, row by row, and one pair of colour
/// differences.
///
/// The crate undoes the compression, as of a grey image that is as wide as the blocks of a row have bytes.
fn decode_blocks(
    bytes: &[u8],
    mut decoder: Decoder<Cursor<&[u8]>>,
    to_rgb: &ToRgb,
    (across, down): (u32, u32),
) -> Result<RgbImage, DecodeError> {
    let unsupported = |text: &str| DecodeError::Unsupported(format!("subsampled YCbCr {text}"));
    let (width, height) = decoder.dimensions().map_err(error)?;
    if number(&mut decoder, Tag::Predictor)?
        .is_some_and(|value| value != u32::from(Predictor::None.to_u16()))
    {
        return Err(unsupported("with a predictor"));
    }
    let block = across * down + 2;
    let blocks_across = |width: u32| width.div_ceil(across);
    let list = |decoder: &mut Decoder<_>, tag| {
        let found = decoder.find_tag_unsigned_vec::<u32>(tag).map_err(error)?;
        found.ok_or_else(|| DecodeError::Damaged(format!("{tag:?} is missing")))
    };
    if decoder.get_chunk_type() != ChunkType::Strip {
        return Err(unsupported("in tiles"));
    }
    let offsets = list(&mut decoder, Tag::StripOffsets)?;
    let lengths = list(&mut decoder, Tag::StripByteCounts)?;
    let rows_of_strip = number(&mut decoder, Tag::RowsPerStrip)?;
    let rows_of_strip = rows_of_strip.unwrap_or(height).min(height);
    if offsets.len() > 1 && rows_of_strip % down != 0 {
        return Err(unsupported("with blocks across strips"));
    }
    let compression = number(&mut decoder, Tag::Compression)?.unwrap_or(1);
    let row_bytes = blocks_across(width)
        .checked_mul(block)
        .ok_or_else(|| unsupported("of this width"))?;

    let mut regrouped = bytes.to_vec();
    let entries: [(Tag, &[u32]); 9] = [
        (Tag::ImageWidth, &[row_bytes]),
        (Tag::ImageLength, &[height.div_ceil(down)]),
        (Tag::BitsPerSample, &[8]),
        (Tag::Compression, &[compression]),
        (Tag::PhotometricInterpretation, &[1]),
        (Tag::StripOffsets, &offsets),
        (Tag::SamplesPerPixel, &[1]),
        (Tag::RowsPerStrip, &[rows_of_strip.div_ceil(down)]),
        (Tag::StripByteCounts, &lengths),
    ];
    tiff_directory::put_first(&mut regrouped, &entries)
        .ok_or_else(|| unsupported("in a file with 64-bit offsets"))?;
    let values = values(&mut open(&regrouped)?)?;
    if values.len() < row_bytes as usize * height.div_ceil(down) as usize {
        return Err(too_short());
    }
    Ok(RgbImage::from_fn(width, height, |x, y| {
        let start = (y / down) as usize * row_bytes as usize + (x / across * block) as usize;
        let at = |offset: u32| values[start + offset as usize];
        let differences = across * down;
        let brightness = at(y % down * across + x % across);
        image::Rgb(to_rgb.apply([brightness, at(differences), at(differences + 1)]))
    }))
}

fn open(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, DecodeError> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_DECODED_BYTES as usize;
    limits.intermediate_buffer_size = MAX_DECODED_BYTES as usize;
    let decoder = Decoder::new(Cursor::new(bytes)).map_err(error)?;
    Ok(decoder.with_limits(limits))
}

fn number(decoder: &mut Decoder<Cursor<&[u8]>>, tag: Tag) -> Result<Option<u32>, DecodeError> {
    decoder.find_tag_unsigned(tag).map_err(error)
}

fn values(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Vec<u8>, DecodeError> {
    match decoder.read_image().map_err(error)? {
        DecodingResult::U8(values) => Ok(values),
        _ => Err(DecodeError::Unsupported(
            "YCbCr with other than 8 bits".to_owned(),
        )),
    }
}

fn too_short() -> DecodeError {
    DecodeError::Damaged("it has fewer values than pixels".to_owned())
}

fn error(error: TiffError) -> DecodeError {
    let text = error.to_string();
    match error {
        TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::EndsEarly(text)
        }
        TiffError::UnsupportedError(_) | TiffError::LimitsExceeded => {
            DecodeError::Unsupported(text)
        }
        _ => DecodeError::Damaged(text),
    }
}

/// From brightness and colour differences to red, green and blue, as the TIFF says.
struct ToRgb {
    /// Of red, green and blue.
    weights: [f32; 3],
    /// Of each of the three codes: the one that stands for 0, and by what the rest is multiplied.
    zero_and_scale: [(f32, f32); 3],
}

impl ToRgb {
    /// What the file does not say, or says senselessly, is as the standard has it.
    fn of(decoder: &mut Decoder<Cursor<&[u8]>>) -> Self {
        let mut rationals = |tag| -> Vec<f32> {
            let Ok(Some(Value::List(values))) = decoder.find_tag(tag) else {
                return Vec::new();
            };
            let value = |value| match value {
                Value::Rational(a, b) => a as f32 / b as f32,
                Value::Unsigned(v) => v as f32,
                Value::Short(v) => f32::from(v),
                _ => f32::NAN,
            };
            values.into_iter().map(value).collect()
        };
        let weights = match rationals(COEFFICIENTS)[..] {
            [r, g, b] if [r, g, b].iter().all(|w| (0.01..1.0).contains(w)) => [r, g, b],
            _ => [0.299, 0.587, 0.114],
        };
        let reference = match rationals(REFERENCE_BLACK_WHITE)[..] {
            [y0, y1, b0, b1, r0, r1]
                if [(y0, y1), (b0, b1), (r0, r1)]
                    .iter()
                    .all(|(low, high)| high - low >= 1.0) =>
            {
                [(y0, y1), (b0, b1), (r0, r1)]
            }
            _ => [(0.0, 255.0), (128.0, 255.0), (128.0, 255.0)],
        };
        let full = [255.0, 127.0, 127.0];
        Self {
            weights,
            zero_and_scale: std::array::from_fn(|i| {
                let (low, high) = reference[i];
                (low, full[i] / (high - low))
            }),
        }
    }

    fn apply(&self, codes: [u8; 3]) -> [u8; 3] {
        let [y, cb, cr] = std::array::from_fn(|i| {
            let (zero, scale) = self.zero_and_scale[i];
            (f32::from(codes[i]) - zero) * scale
        });
        let [red, green, blue] = self.weights;
        let r = y + cr * (2.0 - 2.0 * red);
        let b = y + cb * (2.0 - 2.0 * blue);
        let g = (y - red * r - blue * b) / green;
        // Out of range it saturates.
        [r, g, b].map(|value| value.round() as u8)
    }
}
