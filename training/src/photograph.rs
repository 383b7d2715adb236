//! Decoding, in one place for all of training: the same decoder as in flight, so that networks see
//! the same pixels in both.

use image::RgbImage;
use recognition::pixels::{DecodeError, EncodedPhotograph};

/// Upright pixels of an encoded photograph at full size.
///
/// # Errors
/// Where the bytes are no photograph that can be decoded.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<RgbImage, DecodeError> {
    Ok(EncodedPhotograph::from_bytes(bytes)?.decode(1.0)?.pixels)
}

/// Upright pixels, reduced as far as leaves the shorter side at least `least_side` pixels, and the
/// upright width and height at full size.
///
/// # Errors
/// Where the bytes are no photograph that can be decoded.
pub(crate) fn decode_reduced(
    bytes: Vec<u8>,
    least_side: u32,
) -> Result<(RgbImage, (u32, u32)), DecodeError> {
    let photograph = EncodedPhotograph::from_bytes(bytes)?;
    let (width, height) = photograph.size();
    let scale = f64::from(least_side) / f64::from(width.min(height));
    Ok((photograph.decode(scale)?.pixels, (width, height)))
}
