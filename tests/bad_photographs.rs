//! Photographs as they should not be: each gives a clear error or a defined result, never a panic.

use std::path::Path;

use callosity::geometry::Rectangle;
use callosity::pixels::{
    DecodeError, EncodedPhotograph, MAX_DECODED_BYTES, Photograph, encode_jpeg,
};
use image::{ImageFormat, Rgb, RgbImage, RgbaImage};
use proptest::prelude::*;

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 5 % 256) as u8,
            (y * 7 % 256) as u8,
            ((x + y) * 3 % 256) as u8,
        ])
    })
}

fn encode(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    if format == ImageFormat::Jpeg {
        return encode_jpeg(image, 90).unwrap();
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decode(bytes: Vec<u8>, scale: f64) -> Result<Photograph, DecodeError> {
    EncodedPhotograph::from_bytes(bytes)?.decode(scale)
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read(path).unwrap()
}

const FORMATS: [ImageFormat; 3] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Tiff];

/// A JPEG with an EXIF segment that holds nothing but the orientation.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
    exif.extend([
        0x01,
        0x12,
        0,
        3,
        0,
        0,
        0,
        1,
        0,
        orientation,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// The size that a JPEG states, changed without changing its content.
fn with_stated_size(mut jpeg: Vec<u8>, width: u16, height: u16) -> Vec<u8> {
    let frame = jpeg
        .windows(2)
        .position(|w| w[0] == 0xff && matches!(w[1], 0xc0 | 0xc2))
        .expect("a JPEG has a start of frame");
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

#[test]
fn a_photograph_cut_at_any_length_is_an_error() {
    for format in FORMATS {
        let bytes = encode(&gradient(40, 24), format);
        // Without the bytes after the last pixel some formats are still whole.
        let tail = if format == ImageFormat::Png { 16 } else { 2 };
        for length in 0..bytes.len() {
            let result = decode(bytes[..length].to_vec(), 1.0);
            if length < bytes.len() - tail {
                let error = result
                    .expect_err("cut photographs are not decoded")
                    .to_string();
                assert!(error.len() > 10, "{error}");
            }
        }
    }
    let jpeg = encode(&gradient(400, 300), ImageFormat::Jpeg);
    let error = decode(jpeg[..jpeg.len() / 2].to_vec(), 0.25).unwrap_err();
    assert!(matches!(error, DecodeError::EndsEarly(_)), "{error:?}");
}

#[test]
fn superfluous_bytes_before_the_end_of_a_jpeg_do_no_harm() {
    let mut jpeg = encode(&gradient(40, 24), ImageFormat::Jpeg);
    let whole = decode(jpeg.clone(), 1.0).unwrap();
    let end = jpeg.split_off(jpeg.len() - 2);
    jpeg.extend([0; 7]);
    jpeg.extend(end);
    assert_eq!(decode(jpeg, 1.0).unwrap(), whole);
}

proptest! {
    #[test]
    fn corrupt_bytes_never_panic(
        format in prop::sample::select(&FORMATS),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        scale in prop::sample::select(&[1.0, 0.5, 0.25, 0.125]),
    ) {
        let mut bytes = encode(&gradient(33, 21), format);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Err(error) = decode(bytes, scale) {
            prop_assert!(error.to_string().contains(": "), "{}", error);
        }
    }

    #[test]
    fn any_bytes_after_a_signature_never_panic(
        format in prop::sample::select(&FORMATS), tail in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let start = encode(&gradient(8, 8), format)[..8].to_vec();
        prop_assert!(decode([start, tail].concat(), 1.0).is_err());
    }

    #[test]
    fn every_reduction_covers_the_whole_frame(
        size in (1u32..70, 1u32..70),
        format in prop::sample::select(&FORMATS),
        orientation in 1u8..=8,
        least_scale in 0.0..1.2f64,
    ) {
        let mut bytes = encode(&gradient(size.0, size.1), format);
        let turned = format == ImageFormat::Jpeg && orientation >= 5;
        if format == ImageFormat::Jpeg {
            bytes = with_orientation(&bytes, orientation);
        }
        let upright = if turned { (size.1, size.0) } else { size };
        let encoded = EncodedPhotograph::from_bytes(bytes).unwrap();
        prop_assert_eq!(encoded.size(), upright);
        let photograph = encoded.decode(least_scale).unwrap();
        prop_assert_eq!((photograph.frame_width, photograph.frame_height), upright);
        let factor = [8, 4, 2].into_iter().find(|&f| 1.0 / f64::from(f) >= least_scale).unwrap_or(1);
        prop_assert_eq!(
            photograph.pixels.dimensions(),
            (upright.0.div_ceil(factor), upright.1.div_ceil(factor))
        );
        let corner = photograph.pixels_from_frame().apply(callosity::geometry::Point::new(
            f64::from(upright.0), f64::from(upright.1)
        ));
        prop_assert!((corner.x - f64::from(photograph.pixels.width())).abs() < 1e-9);
        prop_assert!((corner.y - f64::from(photograph.pixels.height())).abs() < 1e-9);
    }
}

proptest! {
    #[test]
    fn a_part_has_the_pixels_of_the_whole(
        size in (1u32..300, 1u32..300),
        format in prop::sample::select(&FORMATS),
        orientation in 1u8..=8,
        scale in prop::sample::select(&[1.0, 0.5, 0.25, 0.125]),
        corners in prop::array::uniform4(-0.2..1.2f64),
    ) {
        let mut bytes = encode(&gradient(size.0, size.1), format);
        if format == ImageFormat::Jpeg {
            bytes = with_orientation(&bytes, orientation);
        }
        let encoded = EncodedPhotograph::from_bytes(bytes).unwrap();
        let (width, height) = encoded.size();
        let frame = Rectangle::of_image(width, height);
        let [a, b, c, d] = corners;
        let asked = Rectangle {
            left: a.min(b) * f64::from(width),
            top: c.min(d) * f64::from(height),
            right: a.max(b) * f64::from(width),
            bottom: c.max(d) * f64::from(height),
        };
        let part = encoded.decode_part(&asked, scale).unwrap();
        prop_assert!(part.part.contains(&asked.clamped(&frame)));
        prop_assert!(frame.grown(1.0 / scale).contains(&part.part));
        let transform = part.pixels_from_frame();
        prop_assert!((transform.xx / scale - 1.0).abs() < 1e-9 || part.part == frame);

        let whole = encoded.decode(scale).unwrap();
        let exact = |side: u32| f64::from(side) * scale % 1.0 == 0.0;
        if !exact(width) || !exact(height) {
            return Ok(());
        }
        let asked = asked.clamped(&frame).bounds_after(&whole.pixels_from_frame());
        let (left, top) = (part.part.left * scale, part.part.top * scale);
        for (x, y, pixel) in part.pixels.enumerate_pixels() {
            let (x, y) = (x + left as u32, y + top as u32);
            let (u, v) = (f64::from(x), f64::from(y));
            let inside = u + 1.0 > asked.left && u < asked.right && v + 1.0 > asked.top && v < asked.bottom;
            if inside {
                prop_assert_eq!(pixel, whole.pixels.get_pixel(x, y), "at ({}, {})", x, y);
            }
        }
    }
}

#[test]
fn far_from_its_part_a_photograph_is_not_decoded() {
    let encoded =
        EncodedPhotograph::from_bytes(encode(&gradient(900, 600), ImageFormat::Jpeg)).unwrap();
    assert!(encoded.is_decoded_in_part());
    let asked = Rectangle {
        left: 400.0,
        top: 300.0,
        right: 500.0,
        bottom: 350.0,
    };
    let part = encoded.decode_part(&asked, 1.0).unwrap().part;
    assert!(asked.grown(96.0).contains(&part), "{part:?}");
    // Other formats and progressive JPEGs have to be decoded whole.
    for bytes in [
        encode(&gradient(90, 60), ImageFormat::Png),
        fixture("progressive.jpg"),
    ] {
        let encoded = EncodedPhotograph::from_bytes(bytes).unwrap();
        assert!(!encoded.is_decoded_in_part());
        let asked = Rectangle::of_image(5, 5);
        assert_eq!(
            encoded.decode_part(&asked, 0.5).unwrap(),
            encoded.decode(0.5).unwrap()
        );
    }
}

#[test]
fn all_eight_orientations_come_out_upright() {
    // Not divisible by 8, so that the partial block has to come out on the right side too.
    let (w, h) = (83u32, 45u32);
    let stored = RgbImage::from_fn(w, h, |x, y| Rgb([(x * 3) as u8, (y * 5) as u8, 90]));
    let jpeg = encode_jpeg(&stored, 98).unwrap();
    for orientation in 1..=8u8 {
        let encoded = EncodedPhotograph::from_bytes(with_orientation(&jpeg, orientation)).unwrap();
        for scale in [1.0, 0.5, 0.125] {
            let photograph = encoded.decode(scale).unwrap();
            let (uw, uh) = encoded.size();
            let (pw, ph) = photograph.pixels.dimensions();
            for (x, y, pixel) in photograph.pixels.enumerate_pixels() {
                // Where the middle of this pixel lies in the upright frame, as fractions.
                let (u, v) = (
                    (f64::from(x) + 0.5) / f64::from(pw),
                    (f64::from(y) + 0.5) / f64::from(ph),
                );
                // Where EXIF's table of orientations says that it is stored.
                let (i, j) = match orientation {
                    1 => (u, v),
                    2 => (1.0 - u, v),
                    3 => (1.0 - u, 1.0 - v),
                    4 => (u, 1.0 - v),
                    5 => (v, u),
                    6 => (v, 1.0 - u),
                    7 => (1.0 - v, 1.0 - u),
                    _ => (1.0 - v, u),
                };
                let expected = [
                    3.0 * (i * f64::from(w) - 0.5),
                    5.0 * (j * f64::from(h) - 0.5),
                ];
                let tolerance = if scale == 1.0 { 6.0 } else { 14.0 };
                for (value, expected) in pixel.0.into_iter().zip(expected) {
                    assert!(
                        (f64::from(value) - expected).abs() <= tolerance,
                        "orientation {orientation} at {scale}: ({x}, {y}) of {uw} × {uh} is \
                         {value}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_photograph_of_one_pixel_works() {
    for format in FORMATS {
        for scale in [1.0, 0.125] {
            let one = RgbImage::from_pixel(1, 1, Rgb([200, 200, 200]));
            let photograph = decode(encode(&one, format), scale).unwrap();
            assert_eq!(photograph.pixels.dimensions(), (1, 1));
            assert!(photograph.pixels.get_pixel(0, 0)[1].abs_diff(200) <= 2);
        }
    }
}

#[test]
fn a_photograph_of_30000_pixels_across_works() {
    for format in FORMATS {
        let wide = RgbImage::from_pixel(30_000, 24, Rgb([10, 120, 230]));
        let photograph = decode(encode(&wide, format), 0.1).unwrap();
        assert_eq!(photograph.pixels.dimensions(), (3750, 3));
        assert_eq!(photograph.frame_width, 30_000);
        assert!(photograph.pixels.get_pixel(3749, 2)[1].abs_diff(120) <= 2);
    }
}

#[test]
fn a_small_file_that_claims_to_be_huge_takes_no_memory() {
    let jpeg = encode(&gradient(16, 16), ImageFormat::Jpeg);
    let error = decode(with_stated_size(jpeg.clone(), 65_000, 65_000), 0.125).unwrap_err();
    assert!(matches!(error, DecodeError::Size { .. }), "{error:?}");
    assert!(error.to_string().contains("65000 × 65000"), "{error}");

    let error = decode(with_stated_size(jpeg, 30_000, 30_000), 1.0).unwrap_err();
    assert!(matches!(error, DecodeError::Memory { .. }), "{error:?}");

    // The coefficients of a progressive JPEG are held whole, whatever it is reduced to.
    let progressive = with_stated_size(fixture("progressive.jpg"), 30_000, 30_000);
    let error = decode(progressive, 0.125).unwrap_err();
    assert!(
        matches!(error, DecodeError::Memory { bytes, .. } if bytes > MAX_DECODED_BYTES),
        "{error:?}"
    );

    let mut png = encode(&gradient(16, 16), ImageFormat::Png);
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    assert!(decode(png, 0.125).is_err());
}

/// The decoder of PNG panics at it.
#[test]
fn a_palette_of_odd_length_is_damage() {
    let error = decode(fixture("palette_of_4_bytes.png"), 1.0).unwrap_err();
    assert!(matches!(error, DecodeError::Damaged(_)), "{error:?}");
}

#[test]
fn alpha_is_dropped_and_palettes_are_expanded() {
    let rgba = RgbaImage::from_pixel(3, 2, image::Rgba([9, 99, 199, 0]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    rgba.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let photograph = decode(bytes.into_inner(), 1.0).unwrap();
    assert!(photograph.pixels.pixels().all(|p| p.0 == [9, 99, 199]));
    assert_eq!(
        decode(fixture("palette.png"), 1.0)
            .unwrap()
            .pixels
            .dimensions(),
        (24, 16)
    );
}

#[test]
fn what_is_no_photograph_says_so_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("empty.jpg", b"", "is empty"),
        (
            "notes.jpg",
            b"Two whales, heading north.",
            "neither JPEG, PNG nor TIFF",
        ),
        ("head.png", b"\x89PNG\r\n\x1a\n\0\0", "ends early"),
    ];
    for (name, content, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = EncodedPhotograph::open(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    let error = EncodedPhotograph::open(folder.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a file"), "{error}");
    let error = EncodedPhotograph::open(&folder.path().join("missing.jpg")).unwrap_err();
    assert!(
        error.to_string().contains("missing.jpg: cannot be read"),
        "{error}"
    );

    // An error of decoding names the file too.
    let path = folder.path().join("cut.jpg");
    let jpeg = encode(&gradient(400, 300), ImageFormat::Jpeg);
    std::fs::write(&path, &jpeg[..jpeg.len() / 2]).unwrap();
    let error = EncodedPhotograph::open(&path)
        .unwrap()
        .decode(1.0)
        .unwrap_err();
    assert!(error.to_string().contains("cut.jpg: ends early"), "{error}");
}
