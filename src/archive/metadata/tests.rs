use std::process::Command;

use image::{ExtendedColorType, ImageEncoder, RgbImage};
use link::message::TimeQuality;
use proptest::prelude::*;
use recognition::pixels::{EncodedPhotograph, encode_jpeg};

use super::*;
use crate::archive::test_record::record;

const TIME: &str = "2026-03-01T14:15:59.123Z";

fn pixels() -> RgbImage {
    RgbImage::from_fn(96, 64, |x, y| {
        image::Rgb([(x * 2) as u8, (y * 3) as u8, (x ^ y) as u8])
    })
}

fn jpeg() -> Vec<u8> {
    encode_jpeg(&pixels(), 90).unwrap()
}

fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(pixels().as_raw(), 96, 64, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> RgbImage {
    let photograph = EncodedPhotograph::from_bytes(bytes.to_vec()).unwrap();
    photograph.decode(1.0).unwrap().pixels
}

/// What another reader says of a picture; `None` where it is not installed.
fn exiftool(picture: &[u8], ending: &str) -> Option<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("picture.{ending}"));
    std::fs::write(&file, picture).unwrap();
    let said = Command::new("exiftool")
        .args(["-json", "-n", "-G", "-a"])
        .arg(&file)
        .output();
    let Ok(said) = said else {
        eprintln!("SKIPPED: exiftool is not installed");
        return None;
    };
    let mut said: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
    Some(said.remove(0))
}

fn near(value: &serde_json::Value, expected: f64, tolerance: f64) {
    let value = value.as_f64().unwrap_or(f64::NAN);
    assert!(
        (value - expected).abs() <= tolerance,
        "{value} for {expected}"
    );
}

#[test]
fn another_reader_finds_place_time_direction_and_whales_and_the_pixels_are_the_same() {
    for (picture, ending) in [(jpeg(), "jpg"), (png(), "png")] {
        let written = with_metadata(&picture, &record(3, TIME));
        assert_eq!(decoded(&written), decoded(&picture));
        let Some(said) = exiftool(&written, ending) else {
            continue;
        };
        near(&said["Composite:GPSLatitude"], 41.504_166_7, 1e-7);
        near(&said["Composite:GPSLongitude"], -69.999_999_9, 1e-7);
        near(&said["Composite:GPSAltitude"], 304.8, 1e-9);
        near(&said["EXIF:GPSHPositioningError"], 17.0, 0.0);
        near(&said["EXIF:GPSImgDirection"], 271.25, 1e-9);
        near(&said["EXIF:FocalLength"], 50.0, 1e-9);
        assert_eq!(said["EXIF:GPSImgDirectionRef"], "T");
        assert_eq!(said["EXIF:DateTimeOriginal"], "2026:03:01 14:15:59");
        assert_eq!(said["EXIF:OffsetTimeOriginal"], "+00:00");
        assert_eq!(
            said["Composite:SubSecDateTimeOriginal"],
            "2026:03:01 14:15:59.123+00:00"
        );
        assert_eq!(said["Composite:GPSDateTime"], "2026:03:01 14:15:59.123Z");
        let subjects = serde_json::json!(["whale", "Snow <cone> & "]);
        assert_eq!(said["XMP:Subject"], subjects);
        assert_eq!(said["XMP:KeptBecause"], "whale");
        assert_eq!(said["XMP:EventID"], record(3, TIME).event_id.to_string());
        assert!(said.get("ExifTool:Warning").is_none(), "{said:#}");
    }
}

#[test]
fn our_own_reader_finds_place_and_time() {
    for picture in [jpeg(), png()] {
        let written = with_metadata(&picture, &record(3, TIME));
        let taken = EncodedPhotograph::from_bytes(written).unwrap().taken();
        assert_eq!(taken.time, Some(TIME.parse().unwrap()));
        let place = taken.place.unwrap();
        assert!((place.latitude - 41.504_166_7).abs() < 1e-7, "{place:?}");
        assert!((place.longitude + 69.999_999_9).abs() < 1e-7, "{place:?}");
        assert_eq!(place.altitude, Some(304.8));
    }
}

#[test]
fn a_time_that_is_not_trusted_is_not_said() {
    let record = ArchiveRecord {
        time_quality: TimeQuality::Unset,
        ..record(3, TIME)
    };
    let written = with_metadata(&jpeg(), &record);
    let taken = EncodedPhotograph::from_bytes(written.clone())
        .unwrap()
        .taken();
    assert_eq!(taken.time, None);
    assert!(taken.place.is_some());
    assert!(!has_bytes(&written, b"2026"), "a date anywhere");
}

#[test]
fn what_a_picture_says_itself_stays_and_only_the_rest_is_added() {
    // A camera's EXIF: a time with its offset and a maker note, and no place.
    let field = |tag, value| Field {
        tag,
        ifd_num: In::PRIMARY,
        value,
    };
    let own = [
        field(Tag::Make, Value::Ascii(vec![b"Camera".to_vec()])),
        field(
            Tag::DateTimeOriginal,
            Value::Ascii(vec![b"2026:03:01 09:15:58".to_vec()]),
        ),
        field(
            Tag::OffsetTimeOriginal,
            Value::Ascii(vec![b"-05:00".to_vec()]),
        ),
        field(Tag::MakerNote, Value::Undefined(vec![0xa5; 300], 0)),
    ];
    let mut writer = Writer::new();
    own.iter().for_each(|field| writer.push_field(field));
    let mut tiff = Cursor::new(Vec::new());
    writer.write(&mut tiff, true).unwrap();
    let (jpeg, place) = (jpeg(), JpegHeader::of(&jpeg()).metadata_end);
    let with_own = [
        &jpeg[..place],
        &segment(EXIF_PREFIX, tiff.get_ref()),
        &jpeg[place..],
    ]
    .concat();
    let written = with_metadata(&with_own, &record(3, TIME));
    assert!(has_bytes(&written, tiff.get_ref()), "its own EXIF is whole");
    assert_eq!(decoded(&written), decoded(&jpeg));
    if let Some(said) = exiftool(&written, "jpg") {
        assert_eq!(said["EXIF:DateTimeOriginal"], "2026:03:01 09:15:58");
        assert!(said.get("XMP:DateTimeOriginal").is_none(), "{said:#}");
        near(&said["XMP:GPSLatitude"], 41.504_166_7, 1e-7);
        near(&said["XMP:GPSLongitude"], -69.999_999_9, 1e-7);
        near(&said["XMP:GPSImgDirection"], 271.25, 1e-9);
        assert!(said.get("EXIF:GPSLatitude").is_none());
    }
    // Written once more, nothing is added.
    assert_eq!(with_metadata(&written, &record(3, TIME)), written);
}

#[test]
fn a_jpeg_that_ends_early_is_kept_as_it_ends() {
    let whole = jpeg();
    for length in [2, 3, 21, 200, whole.len() / 2, whole.len() - 2] {
        let cut = &whole[..length];
        let written = with_metadata(cut, &record(3, TIME));
        let place = JpegHeader::of(cut).metadata_end;
        assert_eq!(written[..place], cut[..place]);
        assert!(written.ends_with(&cut[place..]));
    }
}

proptest! {
    /// Whatever a camera gives: every byte of it is kept, in order, with at most one insertion.
    #[test]
    fn no_byte_is_lost(
        start in prop::sample::select(vec![
            vec![], vec![0xff, 0xd8, 0xff], vec![0xff, 0xd8, 0xff, 0xe1], b"\x89PNG\r\n\x1a\n".to_vec(), b"II*\0".to_vec(),
        ]),
        rest in prop::collection::vec(prop_oneof![Just(0xff_u8), Just(0), any::<u8>()], 0..400),
    ) {
        let picture = [start, rest].concat();
        let written = with_metadata(&picture, &record(3, TIME));
        let added = written.len() - picture.len();
        let place = picture.iter().zip(&written).take_while(|(a, b)| a == b).count();
        let same_after = |place: usize| written[place + added..] == picture[place..];
        prop_assert!((0..=place).rev().any(same_after));
    }

    #[test]
    fn degrees_are_written_to_millimetres(degrees in -180.0..180.0_f64) {
        let Value::Rational(parts) = sexagesimal(degrees) else { unreachable!() };
        let [d, m, s] = [0, 1, 2].map(|i| parts[i].to_f64());
        prop_assert!(m < 60.0 && s < 60.0);
        prop_assert!((d + m / 60.0 + s / 3600.0 - degrees.abs()).abs() < 2e-8);
        let said = degrees_minutes(degrees, ['E', 'W']);
        let (whole, minutes) = said[..said.len() - 1].split_once(',').unwrap();
        let read = whole.parse::<f64>().unwrap() + minutes.parse::<f64>().unwrap() / 60.0;
        prop_assert!((read - degrees.abs()).abs() < 2e-8);
        prop_assert_eq!(said.ends_with('W'), degrees < 0.0);
    }
}

proptest! {
    /// The ground has a picture of a head as it was sent, whatever is said of it.
    #[test]
    fn what_was_added_can_be_taken_away(number in any::<u64>(), named in ".{0,40}", width in 1..80_u32, quality in 1..100_u8) {
        let pixels = RgbImage::from_fn(width, 7, |x, y| image::Rgb([(x * y) as u8, x as u8, number as u8]));
        let jpeg = encode_jpeg(&pixels, quality).unwrap();
        let mut record = record(number, TIME);
        record.heads[0].organism_id = Some(named);
        let archived = with_metadata(&jpeg, &record);
        prop_assert!(archived.len() > jpeg.len());
        prop_assert_eq!(without_metadata(&archived), &jpeg[..]);
        prop_assert_eq!(without_metadata(&jpeg), &jpeg[..]);
    }

    #[test]
    fn taking_away_reads_anything(bytes in prop::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..200)) {
        prop_assert!(without_metadata(&bytes).len() <= bytes.len());
    }
}
