//! EXIF and XMP in a picture that is not encoded again: segments (JPEG) or chunks (PNG) are put between its bytes, and each
//! byte of its own stays.
//!
//! EXIF that a picture has stays as it is, for maker notes are lost when it is written anew; what it lacks then stands in
//! XMP. XMP that it has stays as well. A TIFF stays as it came: all that is known of it is in its record.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Exif, Field, In, Rational, Reader, Tag, Value};
use image::ImageFormat;
use img_parts::Bytes;
use img_parts::jpeg::{JpegSegment, markers};
use img_parts::png::PngChunk;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use link::archive::{ArchiveRecord, KeptBecause};
use link::message::{AltitudeDatum, Decision};
use xmp_writer::{CustomNamespace, Namespace, XmpWriter};

use crate::clock::is_trusted;

const EXIF_PREFIX: &[u8] = b"Exif\0\0";
const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Keyword of XMP in a PNG, and what follows it: not compressed, in no language.
const XMP_KEYWORD: &[u8] = b"XML:com.adobe.xmp\0\0\0\0\0";
/// A JPEG's segment holds no more.
const LARGEST_SEGMENT: usize = 65_533;
/// A PNG's signature and its first chunk, which has to be the first.
const PNG_HEADER: usize = 8 + 25;
/// Of what is ours alone.
const OWN_NAMESPACE: &str = "https://github.com/callosity/callosity/ns/archive/1.0/";

/// The picture with what its record says of time, place, direction and whales.
pub(super) fn with_metadata(picture: &[u8], record: &ArchiveRecord) -> Vec<u8> {
    let mut added = Vec::new();
    let place = match image::guess_format(picture) {
        Ok(ImageFormat::Jpeg) => {
            let header = JpegHeader::of(picture);
            let own = if header.has_exif {
                OwnExif::of(picture)
            } else {
                added.extend(segment(EXIF_PREFIX, &exif(record)));
                OwnExif::default()
            };
            if !header.has_xmp {
                added.extend(segment(XMP_PREFIX, xmp(record, &own).as_bytes()));
            }
            header.metadata_end
        }
        Ok(ImageFormat::Png) if picture.len() > PNG_HEADER => {
            let own = OwnExif::of(picture);
            if !own.is_there {
                added.extend(chunk(*b"eXIf", exif(record)));
            }
            if !has_bytes(picture, XMP_KEYWORD) {
                let text = [XMP_KEYWORD, xmp(record, &own).as_bytes()].concat();
                added.extend(chunk(*b"iTXt", text));
            }
            PNG_HEADER
        }
        _ => 0,
    };
    let (before, after) = picture.split_at(place);
    [before, &added, after].concat()
}

/// A JPEG without the EXIF and XMP in it: of a picture that had none before it was archived, byte for byte as it was then.
pub fn without_metadata(picture: &[u8]) -> Vec<u8> {
    let mut stripped = picture.get(..2).unwrap_or_default().to_vec();
    let mut end = stripped.len();
    for segment in header_segments(picture) {
        if !segment.is_exif() && !segment.is_xmp() {
            stripped.extend(&picture[end..segment.end]);
        }
        end = segment.end;
    }
    stripped.extend(&picture[end..]);
    stripped
}

fn segment(prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let content = [prefix, content].concat();
    if content.len() > LARGEST_SEGMENT {
        return Vec::new();
    }
    let segment = JpegSegment::new_with_contents(markers::APP1, Bytes::from(content));
    segment.encoder().bytes().to_vec()
}

fn chunk(kind: [u8; 4], content: Vec<u8>) -> Vec<u8> {
    let chunk = PngChunk::new(kind, Bytes::from(content));
    chunk.encoder().bytes().to_vec()
}

fn has_bytes(bytes: &[u8], sought: &[u8]) -> bool {
    bytes.windows(sought.len()).any(|window| window == sought)
}

/// A segment of a JPEG.
struct HeaderSegment<'a> {
    marker: u8,
    content: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

impl HeaderSegment<'_> {
    fn is_exif(&self) -> bool {
        self.marker == markers::APP1 && self.content.starts_with(EXIF_PREFIX)
    }

    fn is_xmp(&self) -> bool {
        self.marker == markers::APP1 && self.content.starts_with(XMP_PREFIX)
    }
}

/// The segments before the pixels of a JPEG, up to the first that is not whole.
fn header_segments(bytes: &[u8]) -> impl Iterator<Item = HeaderSegment<'_>> {
    let mut at = 2;
    std::iter::from_fn(move || {
        let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else {
            return None;
        };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let content = bytes.get(at + 4..end)?;
        at = end;
        (marker != markers::SOS).then_some(HeaderSegment {
            marker,
            content,
            end,
        })
    })
}

/// What stands before the pixels of a JPEG.
struct JpegHeader {
    has_exif: bool,
    has_xmp: bool,
    /// Behind the segments that have to come first: JFIF and EXIF.
    metadata_end: usize,
}

impl JpegHeader {
    fn of(bytes: &[u8]) -> Self {
        let mut header = Self {
            has_exif: false,
            has_xmp: false,
            metadata_end: 2,
        };
        let mut is_leading = true;
        for segment in header_segments(bytes) {
            header.has_exif |= segment.is_exif();
            header.has_xmp |= segment.is_xmp();
            is_leading &= segment.is_exif() || segment.marker == markers::APP0;
            if is_leading {
                header.metadata_end = segment.end;
            }
        }
        header
    }
}

/// What the EXIF says that a picture came with.
#[derive(Default)]
struct OwnExif {
    is_there: bool,
    has_time: bool,
    has_place: bool,
}

impl OwnExif {
    fn of(picture: &[u8]) -> Self {
        let read = Reader::new()
            .continue_on_error(true)
            .read_from_container(&mut Cursor::new(picture));
        let read = read.or_else(|e| e.distill_partial_result(|_| {}));
        let has = |exif: &Exif, tag| exif.get_field(tag, In::PRIMARY).is_some();
        match read {
            Ok(exif) => Self {
                is_there: true,
                has_time: has(&exif, Tag::DateTimeOriginal) && has(&exif, Tag::OffsetTimeOriginal),
                has_place: has(&exif, Tag::GPSLatitude) && has(&exif, Tag::GPSLongitude),
            },
            Err(exif::Error::NotFound(_)) => Self::default(),
            // It cannot be read.
            Err(_) => Self {
                is_there: true,
                ..Self::default()
            },
        }
    }
}

/// The time to be said of a picture: none where it is not known to be right.
fn time(record: &ArchiveRecord) -> Option<Timestamp> {
    is_trusted(record.time_quality).then_some(record.time)
}

/// A TIFF of EXIF fields.
fn exif(record: &ArchiveRecord) -> Vec<u8> {
    let fields = exif_fields(record);
    let mut writer = Writer::new();
    for field in &fields {
        writer.push_field(field);
    }
    let mut tiff = Cursor::new(Vec::new());
    writer
        .write(&mut tiff, false)
        .expect("there is a field, and memory takes what is written");
    tiff.into_inner()
}

fn exif_fields(record: &ArchiveRecord) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |tag, value| {
        fields.push(Field {
            tag,
            ifd_num: In::PRIMARY,
            value,
        });
    };
    let text = |text: &str| Value::Ascii(vec![text.as_bytes().to_vec()]);
    add(
        Tag::Software,
        text(concat!("callosity ", env!("CARGO_PKG_VERSION"))),
    );
    add(Tag::ExifVersion, Value::Undefined(b"0232".to_vec(), 0));
    if let Some(time) = time(record) {
        let civil = time.to_zoned(TimeZone::UTC).datetime();
        add(
            Tag::DateTimeOriginal,
            text(&civil.strftime("%Y:%m:%d %H:%M:%S").to_string()),
        );
        add(Tag::OffsetTimeOriginal, text("+00:00"));
        let milliseconds = time.subsec_millisecond();
        add(Tag::SubSecTimeOriginal, text(&format!("{milliseconds:03}")));
        add(
            Tag::GPSDateStamp,
            text(&civil.strftime("%Y:%m:%d").to_string()),
        );
        let seconds = civil.second() as u32 * 1000 + milliseconds as u32;
        add(
            Tag::GPSTimeStamp,
            Value::Rational(vec![
                rational(civil.hour() as u32, 1),
                rational(civil.minute() as u32, 1),
                rational(seconds, 1000),
            ]),
        );
    }
    let georeference = &record.georeference;
    if let Some(millimeters) = georeference.focal_length_millimeters {
        add(Tag::FocalLength, decimal(millimeters, 100));
    }
    add(Tag::GPSVersionID, Value::Byte(vec![2, 3, 0, 0]));
    if let Some(place) = &georeference.place {
        let (latitude, longitude) = (place.decimal_latitude, place.decimal_longitude);
        add(
            Tag::GPSLatitudeRef,
            text(if latitude < 0.0 { "S" } else { "N" }),
        );
        add(Tag::GPSLatitude, sexagesimal(latitude));
        add(
            Tag::GPSLongitudeRef,
            text(if longitude < 0.0 { "W" } else { "E" }),
        );
        add(Tag::GPSLongitude, sexagesimal(longitude));
        add(Tag::GPSMapDatum, text("WGS-84"));
        add(
            Tag::GPSHPositioningError,
            decimal(place.coordinate_uncertainty_in_meters, 1),
        );
        // Readers take a height for one above the sea.
        if let (Some(meters), Some(AltitudeDatum::Sea)) =
            (georeference.altitude_meters, georeference.altitude_datum)
        {
            add(
                Tag::GPSAltitudeRef,
                Value::Byte(vec![u8::from(meters < 0.0)]),
            );
            add(Tag::GPSAltitude, decimal(meters.abs(), 10));
        }
    }
    if let Some(degrees) = record.direction_degrees {
        add(Tag::GPSImgDirectionRef, text("T"));
        add(Tag::GPSImgDirection, decimal(degrees, 100));
    }
    fields
}

fn rational(num: u32, denom: u32) -> Rational {
    Rational { num, denom }
}

/// A number that is not negative, to a part.
fn decimal(value: f64, parts: u32) -> Value {
    Value::Rational(vec![rational(
        (value * f64::from(parts)).round() as u32,
        parts,
    )])
}

/// Degrees, minutes and seconds to a ten-thousandth (3 mm), without the sign.
fn sexagesimal(degrees: f64) -> Value {
    const PARTS: u32 = 10_000;
    let parts = (degrees.abs() * 3600.0 * f64::from(PARTS)).round() as u64;
    let (minutes, seconds) = (
        parts / (60 * u64::from(PARTS)),
        parts % (60 * u64::from(PARTS)),
    );
    Value::Rational(vec![
        rational((minutes / 60) as u32, 1),
        rational((minutes % 60) as u32, 1),
        rational(seconds as u32, PARTS),
    ])
}

/// An XMP packet: what only it can say, and what the picture's own EXIF lacks.
fn xmp(record: &ArchiveRecord, own: &OwnExif) -> String {
    let custom =
        |name, prefix, url| Namespace::Custom(Box::new(CustomNamespace::new(name, prefix, url)));
    let mut xmp = XmpWriter::new();
    xmp.creator_tool(concat!("callosity ", env!("CARGO_PKG_VERSION")));
    let subjects = subjects(record);
    if !subjects.is_empty() {
        let subjects: Vec<_> = subjects.iter().map(|subject| printable(subject)).collect();
        xmp.subject(subjects.iter().map(String::as_str));
    }
    let exif = || custom("EXIF", "exif", "http://ns.adobe.com/exif/1.0/");
    if own.is_there {
        if let (Some(time), false) = (time(record), own.has_time) {
            let time = time.to_string();
            xmp.element("DateTimeOriginal", exif()).value(&*time);
        }
        if let (Some(place), false) = (&record.georeference.place, own.has_place) {
            let latitude = degrees_minutes(place.decimal_latitude, ['N', 'S']);
            let longitude = degrees_minutes(place.decimal_longitude, ['E', 'W']);
            xmp.element("GPSLatitude", exif()).value(&*latitude);
            xmp.element("GPSLongitude", exif()).value(&*longitude);
            xmp.element("GPSMapDatum", exif()).value("WGS-84");
        }
        if let Some(degrees) = record.direction_degrees {
            let hundredths = format!("{}/100", (degrees * 100.0).round());
            xmp.element("GPSImgDirectionRef", exif()).value("T");
            xmp.element("GPSImgDirection", exif()).value(&*hundredths);
        }
    }
    let why = serde_json::to_value(record.kept_because).unwrap_or_default();
    let (flight, number) = (record.event_id.to_string(), record.frame.number.to_string());
    let (camera, platform) = (printable(&record.camera), printable(&record.platform));
    let identified_by = printable(&record.identified_by);
    for (name, value) in [
        ("keptBecause", why.as_str().unwrap_or_default()),
        ("eventID", &flight),
        ("platform", &platform),
        ("camera", &camera),
        ("frame", &number),
        ("identifiedBy", &identified_by),
    ] {
        xmp.element(name, own_namespace()).value(value);
    }
    if !record.heads.is_empty() {
        let occurrences = record.heads.iter();
        let occurrences: Vec<_> = occurrences.map(|h| h.occurrence_id.to_string()).collect();
        xmp.element("occurrenceID", own_namespace())
            .unordered_array(occurrences.iter().map(String::as_str));
    }
    xmp.finish(None)
}

fn own_namespace() -> Namespace<'static> {
    Namespace::Custom(Box::new(CustomNamespace::new(
        "Callosity",
        "callosity",
        OWN_NAMESPACE,
    )))
}

/// What a program that sorts photographs shows: that there is a whale, and who it is.
fn subjects(record: &ArchiveRecord) -> Vec<String> {
    let mut subjects: Vec<String> = record
        .heads
        .iter()
        .filter(|head| head.decision == Decision::Identified)
        .filter_map(|head| head.organism_id.clone())
        .collect();
    if matches!(record.kept_because, KeptBecause::Whale | KeptBecause::Crop) {
        subjects.insert(0, "whale".to_owned());
    }
    subjects
}

/// XML has no control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// As XMP says coordinates: degrees and minutes to a millionth, such as `41,30.250000N`.
fn degrees_minutes(degrees: f64, letters: [char; 2]) -> String {
    let minutes = (degrees.abs() * 60e6).round() as u64;
    let (whole, millionths) = (minutes / 60_000_000, minutes % 60_000_000);
    let letter = letters[usize::from(degrees < 0.0)];
    format!(
        "{whole},{}.{:06}{letter}",
        millionths / 1_000_000,
        millionths % 1_000_000
    )
}

#[cfg(test)]
mod tests;
