use image::RgbImage;
use rayon::prelude::*;

use super::warp::{warp, warp_views};
use crate::bundle::NetworkInput;
use crate::geometry::{Affine, Point};

/// What head crops show outside the photograph they are cut from: black, as published data sets do.
pub const OUTSIDE_HEAD_PHOTOGRAPH: [u8; 3] = [0; 3];

/// What the inputs of finder and aligner show outside the frame.
pub const OUTSIDE_FRAME: [u8; 3] = [128; 3];

/// Writes an image as the input of a network: planes of red, green and blue, row by row, each value
/// `(v / 255 − mean) / std` of its channel.
///
/// # Panics
/// Where `image` is not `input.width × input.height` or `out` does not hold `3 · width · height`
/// values: both are the caller's own making.
pub fn write_input(image: &RgbImage, input: &NetworkInput, out: &mut [f32]) {
    assert_eq!(
        image.dimensions(),
        (input.width, input.height),
        "an image must have the size of the network's input"
    );
    let plane = input.width as usize * input.height as usize;
    assert_eq!(out.len(), 3 * plane, "one value a pixel and channel");
    if plane == 0 {
        return;
    }
    let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|v| (v as f32 / 255.0 - input.mean[channel]) / input.std[channel])
    });
    let (red, rest) = out.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    let (pixels, _) = image.as_raw().as_chunks::<3>();
    for (((pixel, r), g), b) in pixels.iter().zip(red).zip(green).zip(blue) {
        *r = tables[0][usize::from(pixel[0])];
        *g = tables[1][usize::from(pixel[1])];
        *b = tables[2][usize::from(pixel[2])];
    }
}

/// Cuts a network's input out of a photograph: [`warp`] with the colour `outside`, then [`write_input`].
///
/// # Panics
/// Where `out` does not hold `3 · input.width · input.height` values.
pub fn prepare(
    source: &RgbImage,
    input_from_source: &Affine,
    input: &NetworkInput,
    outside: [u8; 3],
    out: &mut [f32],
) {
    let image = warp(
        source,
        input_from_source,
        input.width,
        input.height,
        outside,
    );
    write_input(&image, input, out);
}

/// [`prepare`] for each of several transforms that show about the same part of the source, such as the
/// views of one head, one after the other in `out`; on the threads of the current rayon pool.
///
/// # Panics
/// Where `out` does not hold `3 · input.width · input.height` values for each transform.
pub fn prepare_views(
    source: &RgbImage,
    input_from_source: &[Affine],
    input: &NetworkInput,
    outside: [u8; 3],
    out: &mut [f32],
) {
    let (width, height) = (input.width, input.height);
    let each = 3 * width as usize * height as usize;
    assert_eq!(
        out.len(),
        each * input_from_source.len(),
        "the inputs' size"
    );
    warp_views(source, input_from_source, width, height, outside)
        .zip(out.par_chunks_exact_mut(each.max(1)))
        .for_each(|(image, out)| write_input(&image, input, out));
}

/// The transform that fits an image of `size` (width, height in pixels) whole into `width × height`
/// pixels: one scale for both axes, centred. Sides of 0 count as 1.
pub fn reduce_to_fit(size: (u32, u32), width: u32, height: u32) -> Affine {
    let [from_w, from_h, w, h] = [size.0, size.1, width, height].map(|v| f64::from(v.max(1)));
    let scale = (w / from_w).min(h / from_h);
    Affine::scaling(scale, scale).then(&Affine::translation(Point::new(
        (w - scale * from_w) / 2.0,
        (h - scale * from_h) / 2.0,
    )))
}

/// Why an image could not be written as a JPEG.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write an image of {width} × {height} pixels as JPEG at quality {quality}: {source}"
)]
pub struct EncodeError {
    width: u32,
    height: u32,
    quality: u8,
    source: turbojpeg::Error,
}

/// The image as a baseline JPEG with chrominance at half resolution.
///
/// # Errors
/// Where `quality` is not in 1…100, or a side is 0 or above 65,500 pixels, which the format cannot say.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, EncodeError> {
    let (width, height) = image.dimensions();
    let encode = || {
        let mut compressor = turbojpeg::Compressor::new()?;
        compressor.set_quality(i32::from(quality))?;
        compressor.set_subsamp(turbojpeg::Subsamp::Sub2x2)?;
        compressor.compress_to_vec(turbojpeg::Image {
            pixels: image.as_raw().as_slice(),
            width: width as usize,
            pitch: 3 * width as usize,
            height: height as usize,
            format: turbojpeg::PixelFormat::RGB,
        })
    };
    encode().map_err(|source| EncodeError {
        width,
        height,
        quality,
        source,
    })
}
