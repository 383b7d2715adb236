//! Photographs as they should not be: each gives a clear error or a defined result, never a panic.

use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage, RgbaImage};
use proptest::prelude::*;
use recognition::geometry::Rectangle;
use recognition::pixels::{
    DecodeError, EncodedPhotograph, MAX_DECODED_BYTES, Photograph, encode_jpeg,
};
use turbojpeg::Subsamp;

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
fn a_photograph_cut_at_any_length_is_an_error_unless_that_is_accepted() {
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

/// A picture of which no two rows or blocks are alike.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 7u32;
    RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (state >> 27) as u8;
        Rgb([
            (x * 2 % 200) as u8 + grain,
            (y * 3 % 200) as u8 + grain,
            ((x + y) % 200) as u8 + grain,
        ])
    })
}

fn compressed(image: &RgbImage, set: impl Fn(&mut turbojpeg::Compressor)) -> Vec<u8> {
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_quality(90).unwrap();
    set(&mut compressor);
    let (width, height) = image.dimensions();
    let image = turbojpeg::Image {
        pixels: image.as_raw().as_slice(),
        width: width as usize,
        pitch: 3 * width as usize,
        height: height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    compressor.compress_to_vec(image).unwrap()
}

fn jpeg(image: &RgbImage, subsampling: Subsamp) -> Vec<u8> {
    compressed(image, |c| c.set_subsamp(subsampling).unwrap())
}

fn top(image: &RgbImage, rows: u32) -> RgbImage {
    image::imageops::crop_imm(image, 0, 0, image.width(), rows).to_image()
}

/// Where the coded data of a JPEG with one scan begins.
fn coded_data(jpeg: &[u8]) -> usize {
    let scan = jpeg.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    scan + 2 + usize::from(jpeg[scan + 3])
}

fn accepted(bytes: Vec<u8>) -> EncodedPhotograph {
    EncodedPhotograph::from_bytes(bytes)
        .unwrap()
        .accepting_incomplete()
}

fn share_read(photograph: &EncodedPhotograph) -> Option<f64> {
    Some(photograph.faults().incomplete?.share_read)
}

/// The data of the rows of blocks at the top is what a picture of them alone would have: so it is known at which
/// byte each ends.
#[test]
fn a_jpeg_cut_at_a_known_row_is_decoded_to_that_row() {
    let image = noise(200, 160);
    // With colours at half the height a row's colour is mixed with that of the next row of blocks.
    for (subsampling, block, mixed) in [
        (Subsamp::None, 8, 0),
        (Subsamp::Sub2x1, 8, 0),
        (Subsamp::Gray, 8, 0),
        (Subsamp::Sub2x2, 16, 8),
    ] {
        let bytes = jpeg(&image, subsampling);
        let whole = decode(bytes.clone(), 1.0).unwrap();
        for rows in [112, 128, 144] {
            // Without the end marker.
            let length = jpeg(&top(&image, rows), subsampling).len() - 2;
            for (cut, there) in [(length, rows - mixed), (length - 1, rows - block - mixed)] {
                let photograph = accepted(bytes[..cut].to_vec());
                let decoded = photograph.decode(1.0).unwrap();
                let context = format!("{subsampling:?}, {rows} rows, {cut} bytes");
                assert_eq!(decoded.pixels, top(&whole.pixels, there), "{context}");
                assert_eq!(decoded.part, Rectangle::of_image(200, there), "{context}");
                assert_eq!((decoded.frame_width, decoded.frame_height), (200, 160));
                assert_eq!(share_read(&photograph), Some(f64::from(there) / 160.0));
                assert_eq!(photograph.faults().damaged, None, "{context}");
                assert_eq!(photograph.readable(), decoded.part);
                // A cut that is not accepted says how much there is.
                let error = decode(bytes[..cut].to_vec(), 1.0).unwrap_err();
                let share = format!(
                    "{:.1} % of its rows are there",
                    100.0 * f64::from(there) / 160.0
                );
                assert!(matches!(error, DecodeError::EndsEarly(_)), "{error:?}");
                assert!(error.to_string().contains(&share), "{error}");
            }
        }
    }
}

#[test]
fn of_a_cut_jpeg_every_scale_and_part_has_the_pixels_of_the_whole() {
    let image = noise(328, 240);
    for orientation in 1..=8 {
        let bytes = with_orientation(&jpeg(&image, Subsamp::Sub2x2), orientation);
        let whole = EncodedPhotograph::from_bytes(bytes.clone()).unwrap();
        let cut = accepted(bytes[..bytes.len() * 7 / 10].to_vec());
        for scale in [1.0, 0.5, 0.25, 0.125] {
            let (all, there) = (whole.decode(scale).unwrap(), cut.decode(scale).unwrap());
            assert!((0.5..0.9).contains(&share_read(&cut).unwrap()));
            assert_eq!((there.frame_width, there.frame_height), whole.size());
            assert_eq!(there.part, cut.readable());
            let part = there.part.bounds_after(&all.pixels_from_frame());
            let expected = image::imageops::crop_imm(
                &all.pixels,
                part.left as u32,
                part.top as u32,
                part.width() as u32,
                part.height() as u32,
            );
            assert_eq!(
                there.pixels,
                expected.to_image(),
                "{orientation} at {scale}"
            );

            // Across the edge of what is there, and far beyond: by a photograph that knows and by one that does not.
            let (width, height) = whole.size();
            let frame = Rectangle::of_image(width, height);
            for asked in [frame.grown(-60.0), frame, cut.readable()] {
                let fresh = accepted(bytes[..bytes.len() * 7 / 10].to_vec());
                for photograph in [&cut, &fresh] {
                    let part = photograph.decode_part(&asked, scale).unwrap();
                    assert!(cut.readable().contains(&part.part), "{:?}", part.part);
                    assert!(part.part.contains(&asked.clamped(&cut.readable())));
                    let at = part.part.bounds_after(&all.pixels_from_frame());
                    let (x, y) = (at.left.round() as u32, at.top.round() as u32);
                    let middle = (part.pixels.width() / 2, part.pixels.height() / 2);
                    assert_eq!(
                        part.pixels.get_pixel(middle.0, middle.1),
                        all.pixels.get_pixel(x + middle.0, y + middle.1)
                    );
                }
            }
        }
    }
}

#[test]
fn under_half_of_the_rows_is_refused() {
    let image = noise(200, 160);
    let bytes = jpeg(&image, Subsamp::None);
    let at = |rows| jpeg(&top(&image, rows), Subsamp::None).len() - 2;
    assert!(accepted(bytes[..at(80)].to_vec()).decode(1.0).is_ok());
    let error = accepted(bytes[..at(80) - 1].to_vec())
        .decode(0.25)
        .unwrap_err();
    assert!(matches!(error, DecodeError::EndsEarly(_)), "{error:?}");
    assert!(error.to_string().contains("45.0 %"), "{error}");
}

/// Cameras that are cut off close the file: the end marker is there, and pixels are not.
#[test]
fn a_jpeg_whose_data_ends_before_its_end_marker_is_incomplete_and_damaged() {
    let image = noise(200, 160);
    let bytes = jpeg(&image, Subsamp::None);
    let cut = jpeg(&top(&image, 120), Subsamp::None).len() - 2;
    let photograph = accepted([&bytes[..cut], &[0xff, 0xd9]].concat());
    assert_eq!(photograph.decode(0.5).unwrap().pixels.height(), 60);
    let faults = photograph.faults();
    assert_eq!(faults.share_read(), 0.75);
    assert!(
        faults
            .damaged
            .unwrap()
            .contains("premature end of data segment")
    );
}

/// Only what the last scan brings is missing: above the cut it is there.
#[test]
fn a_progressive_jpeg_is_decoded_if_it_is_cut_in_its_last_scan() {
    let image = noise(200, 160);
    let bytes = compressed(&image, |c| c.set_progressive(true).unwrap());
    let whole = decode(bytes.clone(), 1.0).unwrap();
    let last_scan = bytes.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let photograph = accepted(bytes[..last_scan + (bytes.len() - last_scan) * 3 / 4].to_vec());
    let decoded = photograph.decode(1.0).unwrap();
    assert!((0.5..0.9).contains(&share_read(&photograph).unwrap()));
    assert_eq!(decoded.pixels, top(&whole.pixels, decoded.pixels.height()));

    let error = accepted(bytes[..last_scan].to_vec())
        .decode(1.0)
        .unwrap_err();
    assert!(error.to_string().contains("0.0 % of its rows"), "{error}");
}

#[test]
fn superfluous_zeros_before_the_end_of_a_jpeg_do_no_harm() {
    let mut jpeg = encode(&gradient(40, 24), ImageFormat::Jpeg);
    let whole = decode(jpeg.clone(), 1.0).unwrap();
    let end = jpeg.split_off(jpeg.len() - 2);
    for (superfluous, is_harmless) in [([0; 40], true), ([1; 40], false)] {
        let bytes = [&jpeg[..], &superfluous, &end].concat();
        let photograph = EncodedPhotograph::from_bytes(bytes).unwrap();
        assert_eq!(photograph.decode(1.0).unwrap(), whole);
        assert_eq!(photograph.faults().is_empty(), is_harmless);
    }
}

#[test]
fn what_the_decoder_only_warns_of_is_decoded_and_told() {
    let bytes = jpeg(&noise(200, 160), Subsamp::None);
    let whole = decode(bytes.clone(), 1.0).unwrap();
    let mut revision = bytes.clone();
    assert_eq!(revision[6..10], *b"JFIF");
    revision[11] = 9;
    // After the first segment.
    let between = 4 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])) - 2;
    let superfluous = [&bytes[..between + 2], &[1, 2, 3], &bytes[between + 2..]].concat();
    let no_end = bytes[..bytes.len() - 2].to_vec();
    for (bytes, reason) in [
        (revision, "unknown JFIF revision number 9"),
        (superfluous, "3 extraneous bytes before marker"),
        (no_end, "Premature end of JPEG file"),
    ] {
        let photograph = EncodedPhotograph::from_bytes(bytes).unwrap();
        assert!(photograph.faults().is_empty());
        assert_eq!(photograph.decode(1.0).unwrap(), whole, "{reason}");
        let faults = photograph.faults();
        assert_eq!(faults.incomplete, None, "{reason}");
        assert!(faults.damaged.unwrap().contains(reason), "{reason}");
    }
}

/// Each row of blocks is coded by itself, as with restarts: a lost one leaves the others good.
#[test]
fn a_block_that_is_lost_in_the_middle_leaves_the_rest_good() {
    let image = noise(200, 160);
    let rows = (0..20).map(|row| {
        let image = image::imageops::crop_imm(&image, 0, 8 * row, 200, 8).to_image();
        let bytes = jpeg(&image, Subsamp::None);
        bytes[coded_data(&bytes)..bytes.len() - 2].to_vec()
    });
    let mut rows: Vec<Vec<u8>> = rows.collect();
    let header = jpeg(&image, Subsamp::None);
    let header = &header[..coded_data(&header)];
    let scan = header.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let with_restarts = |rows: &[Vec<u8>]| {
        // A restart after each 25 blocks.
        let restarts = [0xff, 0xdd, 0, 4, 0, 25];
        let mut bytes = [&header[..scan], &restarts, &header[scan..]].concat();
        for (i, row) in rows.iter().enumerate() {
            bytes.extend(row);
            let marker = if i + 1 < rows.len() {
                0xd0 + (i % 8) as u8
            } else {
                0xd9
            };
            bytes.extend([0xff, marker]);
        }
        bytes
    };
    let whole = decode(with_restarts(&rows), 1.0).unwrap();
    assert_eq!(whole, decode(jpeg(&image, Subsamp::None), 1.0).unwrap());
    let lost = rows[9].len() / 2;
    rows[9].truncate(lost);
    let photograph = EncodedPhotograph::from_bytes(with_restarts(&rows)).unwrap();
    let decoded = photograph.decode(1.0).unwrap();
    for (row, (a, b)) in decoded.pixels.rows().zip(whole.pixels.rows()).enumerate() {
        assert!((72..80).contains(&row) || a.eq(b), "row {row}");
    }
    let faults = photograph.faults();
    assert_eq!(faults.incomplete, None);
    assert!(
        faults
            .damaged
            .unwrap()
            .contains("premature end of data segment")
    );
}

/// Without restarts a stretch of other data holds markers by chance, after which nothing makes sense.
#[test]
fn a_stretch_that_was_overwritten_ends_what_is_there() {
    let image = noise(400, 320);
    let bytes = jpeg(&image, Subsamp::None);
    let whole = decode(bytes.clone(), 1.0).unwrap();
    let start = jpeg(&top(&image, 240), Subsamp::None).len() - 2;
    let mut overwritten = bytes.clone();
    overwritten[start..start + 4].copy_from_slice(&[0xff, 0x3a, 0xff, 0x50]);
    let photograph = accepted(overwritten.clone());
    assert_eq!(
        photograph.decode(1.0).unwrap().pixels,
        top(&whole.pixels, 240)
    );
    let faults = photograph.faults();
    assert_eq!(faults.share_read(), 0.75);
    assert!(faults.damaged.is_some());
    let error = decode(overwritten, 1.0).unwrap_err();
    assert!(error.to_string().contains("75.0 % of its rows"), "{error}");
}

/// As cameras over USB send their frames.
#[test]
fn a_jpeg_without_huffman_tables_is_decoded() {
    let bytes = encode(&gradient(80, 64), ImageFormat::Jpeg);
    let whole = decode(bytes.clone(), 1.0).unwrap();
    let mut without = bytes[..2].to_vec();
    let mut at = 2;
    while bytes[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if bytes[at + 1] != 0xc4 {
            without.extend(&bytes[at..end]);
        }
        at = end;
    }
    without.extend(&bytes[at..]);
    assert!(without.len() < bytes.len() - 400);
    let photograph = EncodedPhotograph::from_bytes(without).unwrap();
    assert_eq!(photograph.decode(1.0).unwrap(), whole);
    assert!(photograph.faults().is_empty());
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
        if let Err(error) = decode(bytes.clone(), scale) {
            prop_assert!(error.to_string().contains(": "), "{}", error);
        }
        if let Ok(photograph) = EncodedPhotograph::from_bytes(bytes) {
            let photograph = photograph.accepting_incomplete();
            if let Ok(decoded) = photograph.decode(scale) {
                prop_assert!((0.5..=1.0).contains(&photograph.faults().share_read()));
                prop_assert!(decoded.part.contains(&photograph.readable()));
            }
        }
    }

    #[test]
    fn what_is_read_of_a_cut_jpeg_is_as_in_the_whole(
        size in (8u32..200, 32u32..200),
        subsampling in prop::sample::select(&[
            Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Sub1x2, Subsamp::Sub4x1, Subsamp::Gray,
        ]),
        progressive: bool,
        share in 0.5..1.0f64,
        scale in prop::sample::select(&[1.0, 0.5, 0.25, 0.125]),
    ) {
        let bytes = compressed(&noise(size.0, size.1), |c| {
            c.set_subsamp(subsampling).unwrap();
            c.set_progressive(progressive).unwrap();
        });
        let whole = decode(bytes.clone(), 1.0).unwrap();
        // Of a small one half may be no more than its header.
        let cut = bytes[..(bytes.len() as f64 * share) as usize].to_vec();
        let Ok(cut) = EncodedPhotograph::from_bytes(cut).map(EncodedPhotograph::accepting_incomplete) else {
            return Ok(());
        };
        let Ok(part) = cut.decode(1.0) else {
            return Ok(());
        };
        let rows = part.pixels.height();
        prop_assert_eq!(&part.pixels, &top(&whole.pixels, rows));
        prop_assert_eq!(f64::from(rows) / f64::from(size.1), cut.faults().share_read());
        // Reduced, what is read ends at the same place.
        let reduced = cut.decode(scale).unwrap();
        prop_assert_eq!(reduced.part, part.part);
        let whole = decode(bytes, scale).unwrap();
        let rows = reduced.pixels.height();
        // The last column and row of the whole may be blocks that it fills in part.
        if size.0 % 8 == 0 && size.1 % 8 == 0 {
            prop_assert_eq!(reduced.pixels, top(&whole.pixels, rows));
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
        let corner = photograph.pixels_from_frame().apply(recognition::geometry::Point::new(
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
