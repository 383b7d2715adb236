//! The JPEG that a camera embeds in its raw file.
//!
//! Raw files are read where they are built like a TIFF: DNG, NEF, CR2, ARW and their like. What the sensor gave
//! would have to be developed, which takes what each camera's maker keeps to himself; the JPEG of the
//! photograph's size is what the camera made of it.

use std::collections::{HashSet, VecDeque};
use std::io::Cursor;

use tiff::decoder::{Decoder, Limits};
use tiff::tags::{CompressionMethod, IfdPointer, Tag};

use super::decode::DecodeError;
use super::jpeg::Jpeg;
use super::tiff_directory;

/// Where old TIFFs and cameras say that a JPEG lies, and how many bytes it has.
const JPEG_OFFSET: Tag = Tag::Unknown(513);
const JPEG_LENGTH: Tag = Tag::Unknown(514);
/// That a file is a DNG.
const DNG_VERSION: Tag = Tag::Unknown(50_706);
/// Size of the photograph that a camera makes, in EXIF's directory.
const EXIF_WIDTH: Tag = Tag::Unknown(0xa002);
const EXIF_HEIGHT: Tag = Tag::Unknown(0xa003);
/// Photometric interpretations of what a sensor gives: through a colour filter array, or one value a pixel.
const SENSOR: [u16; 2] = [32_803, 34_892];
/// Photographs of one file have a handful of directories.
const MAX_DIRECTORIES: usize = 64;
/// A JPEG is of the photograph's size if its longer side has at least this share of it. Sensors have a margin
/// that photographs lack.
const FULL_SIZE: f64 = 0.9;

/// What a directory says of an image.
#[derive(Default)]
struct Directory {
    size: Option<(u32, u32)>,
    is_sensor: bool,
    is_dng: bool,
    /// Where in the file a JPEG may lie: offset and length.
    jpeg: Option<(u64, u64)>,
    /// By EXIF.
    photograph: Option<(u32, u32)>,
}

/// Of a raw file the embedded JPEG; the file as it is where it is another TIFF.
///
/// # Errors
/// [`DecodeError::NoPreview`] of a raw file without one of the photograph's size.
pub(super) fn preview_or_whole(mut bytes: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    let is_cr2 = bytes.get(8..10) == Some(b"CR");
    let directories = directories(&mut bytes);
    let sensor = directories.iter().filter(|d| d.is_sensor);
    let sensor = sensor.filter_map(|d| d.size).max_by_key(longer_side);
    if !(is_cr2 || sensor.is_some() || directories.iter().any(|d| d.is_dng)) {
        return Ok(bytes);
    }
    let photograph = directories.iter().find_map(|d| d.photograph);
    let sizes = directories.iter().filter_map(|d| d.size);
    let photograph = sensor
        .or(photograph)
        .or(sizes.max_by_key(longer_side))
        .unwrap_or_default();

    let content = |&(offset, length): &(u64, u64)| {
        let from = usize::try_from(offset).ok()?;
        bytes.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    };
    let size = |jpeg: &[u8]| {
        let header = Jpeg::read_header(jpeg).ok()?;
        let (width, height) = header.size();
        // Sensors' values are compressed like this.
        header
            .can_be_reduced()
            .then_some((u32::try_from(width).ok()?, u32::try_from(height).ok()?))
    };
    let previews = directories.iter().filter_map(|d| content(d.jpeg.as_ref()?));
    let largest = previews
        .filter_map(|jpeg| Some((size(jpeg)?, jpeg)))
        .max_by_key(|(size, _)| longer_side(size));
    match largest {
        Some((preview, jpeg))
            if f64::from(longer_side(&preview))
                >= FULL_SIZE * f64::from(longer_side(&photograph)) =>
        {
            Ok(jpeg.to_vec())
        }
        _ => Err(DecodeError::NoPreview {
            preview: largest.map_or((0, 0), |(size, _)| size),
            photograph,
        }),
    }
}

fn longer_side(&(width, height): &(u32, u32)) -> u32 {
    width.max(height)
}

/// All directories of a TIFF that can be read; none where there are none.
fn directories(bytes: &mut Vec<u8>) -> Vec<Directory> {
    let length = bytes.len();
    let header: Vec<u8> = bytes.iter().take(8).copied().collect();
    // The crate wants an image in the first directory; those of cameras may describe none that it knows.
    let pixel: [(Tag, &[u32]); 5] = [
        (Tag::ImageWidth, &[1]),
        (Tag::ImageLength, &[1]),
        (Tag::PhotometricInterpretation, &[1]),
        (Tag::StripOffsets, &[0]),
        (Tag::StripByteCounts, &[1]),
    ];
    let Some(first) = tiff_directory::put_first(bytes, &pixel) else {
        return Vec::new();
    };
    let directories = walk(bytes, u64::from(first));
    bytes.truncate(length);
    bytes[..header.len()].copy_from_slice(&header);
    directories
}

fn walk(bytes: &[u8], first: u64) -> Vec<Directory> {
    let Ok(decoder) = Decoder::new(Cursor::new(bytes)) else {
        return Vec::new();
    };
    let mut decoder = decoder.with_limits(Limits::default());
    let mut directories = Vec::new();
    let mut waiting = VecDeque::from([IfdPointer(first)]);
    let mut known = HashSet::from([first]);
    while let Some(pointer) = waiting.pop_front() {
        let Ok(entries) = decoder.read_directory(pointer) else {
            continue;
        };
        let mut tags = decoder.read_directory_tags(&entries);
        let mut list = |tag| {
            let found = tags.find_tag_unsigned_vec::<u64>(tag);
            found.ok().flatten().unwrap_or_default()
        };
        let mut number = |tag| match list(tag)[..] {
            [value, ..] => Some(value),
            [] => None,
        };
        let mut size = |width, height| {
            let (width, height) = (number(width)?, number(height)?);
            Some((u32::try_from(width).ok()?, u32::try_from(height).ok()?))
        };
        let mut directory = Directory {
            size: size(Tag::ImageWidth, Tag::ImageLength),
            photograph: size(EXIF_WIDTH, EXIF_HEIGHT),
            ..Directory::default()
        };
        directory.is_dng = number(DNG_VERSION).is_some();
        directory.is_sensor = number(Tag::PhotometricInterpretation)
            .is_some_and(|value| SENSOR.iter().any(|&sensor| u64::from(sensor) == value));
        directory.jpeg = number(JPEG_OFFSET).zip(number(JPEG_LENGTH));
        let is_jpeg = number(Tag::Compression).is_some_and(|value| {
            [CompressionMethod::JPEG, CompressionMethod::ModernJPEG]
                .iter()
                .any(|method| u64::from(method.to_u16()) == value)
        });
        if directory.jpeg.is_none()
            && is_jpeg
            && !directory.is_sensor
            && let ([offset], [length]) = (
                &list(Tag::StripOffsets)[..],
                &list(Tag::StripByteCounts)[..],
            )
        {
            directory.jpeg = Some((*offset, *length));
        }
        let further = list(Tag::SubIfd)
            .into_iter()
            .chain(list(Tag::ExifDirectory))
            .chain(entries.next().map(|pointer| pointer.0));
        for pointer in further {
            if known.len() < MAX_DIRECTORIES && known.insert(pointer) {
                waiting.push_back(IfdPointer(pointer));
            }
        }
        directories.push(directory);
    }
    directories
}
