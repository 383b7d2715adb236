//! Bytes of any length are a camera's frame of any pixel format, or an error; each part of it at each scale is pixels.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use recognition::geometry::Rectangle;
use recognition::pixels::{Image, PixelFormat, RawImage, YCbCr};

#[derive(Arbitrary, Debug)]
struct Exposed<'a> {
    format: u8,
    width: u16,
    height: u16,
    stride: u32,
    part: [i16; 4],
    scale: f32,
    bytes: &'a [u8],
}

fuzz_target!(|exposed: Exposed| {
    let format = PixelFormat::ALL[usize::from(exposed.format) % PixelFormat::ALL.len()];
    let size = (u32::from(exposed.width), u32::from(exposed.height));
    let stride = usize::try_from(exposed.stride).expect("32 bits");
    let raw = RawImage::new(format, size, stride, exposed.bytes.to_vec(), YCbCr::default());
    let Ok(raw) = raw else { return };
    let image = Image::Raw(raw);
    assert_eq!(image.size(), size);
    let whole = image.decode(f64::from(exposed.scale)).expect("pixels");
    assert_eq!((whole.frame_width, whole.frame_height), size);
    let [left, top, right, bottom] = exposed.part.map(f64::from);
    let part = Rectangle { left, top, right, bottom };
    if let Ok(photograph) = image.decode_part(&part, f64::from(exposed.scale)) {
        assert!(photograph.pixels.width() <= size.0 && photograph.pixels.height() <= size.1);
    }
});
