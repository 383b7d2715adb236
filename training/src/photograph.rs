//! Decoding, in one place for all of training.

use image::RgbImage;

/// Pixels of an encoded photograph.
///
/// # Errors
/// Where the bytes are no photograph that can be decoded.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, image::ImageError> {
    Ok(image::load_from_memory(bytes)?.to_rgb8())
}
