//! Files that are built like a TIFF: cameras' raw files, of which the embedded JPEG is read, and TIFFs in YCbCr.
//!
//! The raw files are made here: directories as NEF, DNG, ARW and CR2 have them, with a JPEG of full size and a
//! stand-in for what the sensor gave.
#![allow(missing_docs)]

use image::{Rgb, RgbImage};
use recognition::pixels::{DecodeError, EncodedPhotograph, Photograph, encode_jpeg};

const WIDTH: u16 = 400;
const HEIGHT: u16 = 304;

#[derive(Clone)]
enum Values {
    Short(Vec<u16>),
    Long(Vec<u32>),
    Rational(Vec<(u32, u32)>),
    /// Where these bytes lie.
    At(Vec<u8>),
    /// Where these directories lie.
    Directories(Vec<Directory>),
}

type Directory = Vec<(u16, Values)>;

fn short(value: u16) -> Values {
    Values::Short(vec![value])
}

fn long(value: usize) -> Values {
    Values::Long(vec![value as u32])
}

struct TiffWriter {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl TiffWriter {
    /// A file with a chain of directories; `header` follows the first 8 bytes.
    fn file(big_endian: bool, header: &[u8], chain: &[Directory]) -> Vec<u8> {
        let magic = if big_endian { b"MM\0*" } else { b"II*\0" };
        let mut writer = Self {
            bytes: [magic, &[0; 4], header].concat(),
            big_endian,
        };
        let mut next = 0;
        for directory in chain.iter().rev() {
            next = writer.directory(directory, next);
        }
        let first = writer.long(next);
        writer.bytes[4..8].copy_from_slice(&first);
        writer.bytes
    }

    fn short(&self, value: u16) -> [u8; 2] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn long(&self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn put(&mut self, bytes: &[u8]) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend(bytes);
        at
    }

    fn directory(&mut self, directory: &Directory, next: u32) -> u32 {
        let mut entries = Vec::new();
        for (tag, values) in directory {
            let (kind, content): (u16, Vec<u8>) = match values {
                Values::Short(v) => (3, v.iter().flat_map(|&v| self.short(v)).collect()),
                Values::Long(v) => (4, v.iter().flat_map(|&v| self.long(v)).collect()),
                Values::Rational(v) => {
                    let longs = v.iter().flat_map(|&(a, b)| [self.long(a), self.long(b)]);
                    (5, longs.flatten().collect())
                }
                Values::At(bytes) => {
                    let at = self.put(bytes);
                    (4, self.long(at).to_vec())
                }
                Values::Directories(directories) => {
                    let at: Vec<u32> = directories.iter().map(|d| self.directory(d, 0)).collect();
                    (4, at.iter().flat_map(|&at| self.long(at)).collect())
                }
            };
            let size = match kind {
                3 => 2,
                4 => 4,
                _ => 8,
            };
            let mut inline = content.clone();
            if inline.len() > 4 {
                let at = self.put(&content);
                inline = self.long(at).to_vec();
            }
            inline.resize(4, 0);
            entries.extend(self.short(*tag));
            entries.extend(self.short(kind));
            entries.extend(self.long((content.len() / size) as u32));
            entries.extend(inline);
        }
        let count = self.short(directory.len() as u16);
        let at = self.put(&count);
        self.bytes.extend(entries);
        let next = self.long(next);
        self.bytes.extend(next);
        at
    }
}

fn picture() -> RgbImage {
    RgbImage::from_fn(WIDTH.into(), HEIGHT.into(), |x, y| {
        Rgb([(x / 2) as u8, (y * 3 / 4) as u8, ((x + y) / 3) as u8])
    })
}

fn preview() -> Vec<u8> {
    encode_jpeg(&picture(), 95).unwrap()
}

fn lossless() -> Vec<u8> {
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_lossless(true).unwrap();
    let image = picture();
    compressor
        .compress_to_vec(turbojpeg::Image {
            pixels: image.as_raw().as_slice(),
            width: WIDTH.into(),
            pitch: 3 * usize::from(WIDTH),
            height: HEIGHT.into(),
            format: turbojpeg::PixelFormat::RGB,
        })
        .unwrap()
}

/// What every raw file has: a small picture.
fn thumbnail() -> Directory {
    vec![
        (254, long(1)),
        (256, short(16)),
        (257, short(12)),
        (258, Values::Short(vec![8; 3])),
        (259, short(1)),
        (262, short(2)),
        (273, Values::At(vec![77; 16 * 12 * 3])),
        (277, short(3)),
        (278, short(12)),
        (279, long(16 * 12 * 3)),
    ]
}

/// What the sensor gave, in a compression of the maker's own.
fn sensor() -> Directory {
    vec![
        (254, long(0)),
        (256, short(WIDTH + 8)),
        (257, short(HEIGHT + 8)),
        (258, short(14)),
        (259, short(34_713)),
        (262, short(32_803)),
        (273, Values::At(vec![5; 999])),
        (277, short(1)),
        (278, short(HEIGHT + 8)),
        (279, long(999)),
    ]
}

fn embedded(jpeg: &[u8]) -> Directory {
    vec![
        (254, long(1)),
        (259, short(6)),
        (513, Values::At(jpeg.to_vec())),
        (514, long(jpeg.len())),
    ]
}

/// With another entry, in the order of tags.
fn with(mut directory: Directory, tag: u16, values: Values) -> Directory {
    directory.push((tag, values));
    directory.sort_by_key(|(tag, _)| *tag);
    directory
}

/// Nikon: sensor and preview in directories below the first, whose picture is small.
fn nef(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    let below = Values::Directories(vec![embedded(jpeg), sensor()]);
    let first = with(with(thumbnail(), 330, below), 274, short(orientation));
    TiffWriter::file(true, &[], &[first])
}

/// Adobe: the preview is the one strip of a directory below the first.
fn dng(jpeg: &[u8]) -> Vec<u8> {
    let preview = vec![
        (254, long(1)),
        (256, short(WIDTH)),
        (257, short(HEIGHT)),
        (258, Values::Short(vec![8; 3])),
        (259, short(7)),
        (262, short(6)),
        (273, Values::At(jpeg.to_vec())),
        (277, short(3)),
        (278, short(HEIGHT)),
        (279, long(jpeg.len())),
    ];
    let below = Values::Directories(vec![sensor(), preview]);
    let version = Values::Long(vec![0x0104_0000]);
    let first = with(with(thumbnail(), 330, below), 50_706, version);
    TiffWriter::file(false, &[], &[first])
}

/// Sony: the first directory has nothing of an image but the preview.
fn arw(jpeg: &[u8]) -> Vec<u8> {
    let first = with(embedded(jpeg), 330, Values::Directories(vec![sensor()]));
    TiffWriter::file(false, &[], &[first, embedded(&small())])
}

/// Canon: the preview is the strip of the first directory, the sensor's values are a lossless JPEG in the last.
fn cr2(jpeg: &[u8]) -> Vec<u8> {
    let exif = vec![(0xa002, short(WIDTH)), (0xa003, short(HEIGHT))];
    let first = vec![
        (256, short(WIDTH)),
        (257, short(HEIGHT)),
        (258, Values::Short(vec![8; 3])),
        (259, short(6)),
        (273, Values::At(jpeg.to_vec())),
        (279, long(jpeg.len())),
        (0x8769, Values::Directories(vec![exif])),
    ];
    let lossless = lossless();
    let last = vec![
        (259, short(6)),
        (273, Values::At(lossless.clone())),
        (279, long(lossless.len())),
    ];
    let chain = [first, embedded(&small()), last];
    TiffWriter::file(false, b"CR\x02\0\0\0\0\0", &chain)
}

fn small() -> Vec<u8> {
    encode_jpeg(&RgbImage::new(40, 30), 80).unwrap()
}

fn decode(bytes: Vec<u8>) -> Result<Photograph, DecodeError> {
    EncodedPhotograph::from_bytes(bytes)?.decode(1.0)
}

#[test]
fn of_raw_files_the_embedded_jpeg_of_full_size_is_read() {
    let jpeg = preview();
    let expected = decode(jpeg.clone()).unwrap();
    for (name, bytes) in [
        ("nef", nef(&jpeg, 1)),
        ("dng", dng(&jpeg)),
        ("arw", arw(&jpeg)),
        ("cr2", cr2(&jpeg)),
    ] {
        assert_eq!(decode(bytes).unwrap(), expected, "{name}");
    }
    // The file says how it was held, the JPEG in it does not.
    let turned = EncodedPhotograph::from_bytes(nef(&jpeg, 6)).unwrap();
    assert_eq!(turned.size(), (HEIGHT.into(), WIDTH.into()));
    let turned = turned.decode(1.0).unwrap().pixels;
    assert_eq!(turned, image::imageops::rotate90(&expected.pixels));
}

#[test]
fn a_raw_file_without_a_jpeg_of_full_size_says_what_it_has() {
    for (bytes, largest) in [
        (nef(&small(), 1), "40 × 30"),
        (dng(b"no JPEG"), "0 × 0"),
        (arw(b""), "40 × 30"),
    ] {
        let error = EncodedPhotograph::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, DecodeError::NoPreview { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(largest) && text.contains("408 × 312"),
            "{text}"
        );
    }
}

#[test]
fn a_cut_or_twisted_raw_file_is_an_error_or_a_photograph() {
    let whole = nef(&preview(), 1);
    for length in (0..whole.len()).step_by(97) {
        let _ = decode(whole[..length].to_vec());
    }
    for at in (0..whole.len()).rev().take(900) {
        let mut twisted = whole.clone();
        twisted[at] ^= 0x55;
        let _ = decode(twisted);
    }
    // Directories that lead to themselves.
    let mut circle = TiffWriter::file(false, &[], &[sensor()]);
    let next = circle.len() - 4;
    let first: [u8; 4] = circle[4..8].try_into().unwrap();
    circle[next..].copy_from_slice(&first);
    assert!(decode(circle).is_err());
}

/// Codes of brightness and colour differences of a colour, by the standard's formula.
fn ycbcr(Rgb([r, g, b]): Rgb<u8>) -> [u8; 3] {
    let [r, g, b] = [r, g, b].map(f64::from);
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    let difference = |colour: f64, weight: f64| (colour - y) / (2.0 - 2.0 * weight) + 128.0;
    [y, difference(b, 0.114), difference(r, 0.299)].map(|v| v.round() as u8)
}

fn tiff_ycbcr(
    (width, height): (u16, u16),
    compression: u16,
    subsampling: (u16, u16),
    rows_per_strip: u16,
    strips: &[Vec<u8>],
    further: Directory,
) -> Vec<u8> {
    let mut directory = vec![
        (256, short(width)),
        (257, short(height)),
        (258, Values::Short(vec![8; 3])),
        (259, short(compression)),
        (262, short(6)),
        (277, short(3)),
        (278, short(rows_per_strip)),
        (
            279,
            Values::Long(strips.iter().map(|s| s.len() as u32).collect()),
        ),
        (530, Values::Short(vec![subsampling.0, subsampling.1])),
    ];
    directory.extend(further);
    // Strips lie one after the other behind the header.
    let mut at = 8;
    let offsets = strips.iter().map(|strip| {
        at += strip.len();
        (at - strip.len()) as u32
    });
    let directory = with(directory, 273, Values::Long(offsets.collect()));
    TiffWriter::file(true, &strips.concat(), &[directory])
}

fn assert_close(one: &RgbImage, other: &RgbImage, tolerance: u8) {
    assert_eq!(one.dimensions(), other.dimensions());
    for (x, y, pixel) in one.enumerate_pixels() {
        let other = other.get_pixel(x, y);
        let close = pixel
            .0
            .iter()
            .zip(other.0)
            .all(|(&a, b)| a.abs_diff(b) <= tolerance);
        assert!(close, "({x}, {y}): {pixel:?} and {other:?}");
    }
}

/// Blocks of 2 × 2 pixels of one colour each: nothing is lost by sharing colour differences.
fn blocks(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x / 2 * 2, y / 2 * 2);
        Rgb([(x * 9) as u8, (y * 11) as u8, (200 - x * 3 - y * 2) as u8])
    })
}

#[test]
fn a_tiff_in_ycbcr_is_decoded_by_its_coefficients() {
    let (width, height) = (22u16, 18u16);
    let image = blocks(width.into(), height.into());
    let plain: Vec<u8> = image.pixels().flat_map(|&p| ycbcr(p)).collect();
    let bytes = tiff_ycbcr(
        (width, height),
        1,
        (1, 1),
        height,
        std::slice::from_ref(&plain),
        vec![],
    );
    assert_close(&decode(bytes).unwrap().pixels, &image, 2);

    // Codes from 16 to 235 and 240, as of video.
    let video: Vec<u8> = plain
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|&[y, b, r]| {
            let y = 16.0 + f64::from(y) * 219.0 / 255.0;
            let difference = |v: u8| 128.0 + (f64::from(v) - 128.0) * 112.0 / 127.0;
            [y, difference(b), difference(r)].map(|v| v.round() as u8)
        })
        .collect();
    let range = [(16, 1), (235, 1), (128, 1), (240, 1), (128, 1), (240, 1)];
    let range = vec![(532, Values::Rational(range.to_vec()))];
    let bytes = tiff_ycbcr((width, height), 1, (1, 1), height, &[video], range);
    assert_close(&decode(bytes).unwrap().pixels, &image, 3);

    // Weights of another standard.
    let grey = RgbImage::from_fn(8, 8, |x, y| Rgb([(x * 20 + y) as u8; 3]));
    let plain: Vec<u8> = grey.pixels().flat_map(|p| [p[0], 128, 138]).collect();
    let weights = vec![(
        529,
        Values::Rational(vec![(2126, 10_000), (7152, 10_000), (722, 10_000)]),
    )];
    let bytes = tiff_ycbcr((8, 8), 1, (1, 1), 8, &[plain], weights);
    let pixel = decode(bytes).unwrap().pixels.get_pixel(3, 3).0;
    // Red is 10 × (2 − 2 × 0.2126) more than brightness, green what then balances it.
    assert_eq!(pixel, [63 + 16, 63 - 5, 63]);
}

#[test]
fn a_tiff_in_subsampled_ycbcr_is_decoded() {
    let (width, height) = (21u16, 17u16);
    let image = blocks(width.into(), height.into());
    let at = |x: u32, y: u32| {
        ycbcr(*image.get_pixel(x.min(u32::from(width) - 1), y.min(u32::from(height) - 1)))
    };
    let row_of_blocks = |row: u32| -> Vec<u8> {
        (0..u32::from(width).div_ceil(2))
            .flat_map(|column| {
                let (x, y) = (2 * column, 2 * row);
                let [first, blue, red] = at(x, y);
                [
                    first,
                    at(x + 1, y)[0],
                    at(x, y + 1)[0],
                    at(x + 1, y + 1)[0],
                    blue,
                    red,
                ]
            })
            .collect()
    };
    // Strips of 4 rows of pixels, the last of one.
    let strips: Vec<Vec<u8>> = (0..5)
        .map(|strip| {
            let rows = 2 * strip..(2 * strip + 2).min(9);
            rows.flat_map(row_of_blocks).collect()
        })
        .collect();
    let bytes = tiff_ycbcr((width, height), 1, (2, 2), 4, &strips, vec![]);
    assert_close(&decode(bytes).unwrap().pixels, &image, 2);
    let cut = tiff_ycbcr((width, height), 1, (2, 2), 4, &strips[..4], vec![]);
    assert!(decode(cut).is_err());
    // As old scanners wrote them; nothing decodes these here.
    let error = decode(tiff_ycbcr((width, height), 6, (2, 2), 4, &strips, vec![])).unwrap_err();
    assert!(matches!(error, DecodeError::Unsupported(_)), "{error:?}");
}

#[test]
fn a_tiff_of_jpegs_is_decoded() {
    let image = picture();
    let strips: Vec<Vec<u8>> = (0..2)
        .map(|i| {
            let half = u32::from(HEIGHT) / 2;
            let part = image::imageops::crop_imm(&image, 0, i * half, WIDTH.into(), half);
            encode_jpeg(&part.to_image(), 95).unwrap()
        })
        .collect();
    let bytes = tiff_ycbcr((WIDTH, HEIGHT), 7, (2, 2), HEIGHT / 2, &strips, vec![]);
    let photograph = EncodedPhotograph::from_bytes(bytes).unwrap();
    assert_close(&photograph.decode(1.0).unwrap().pixels, &image, 8);
    let (width, height) = photograph.decode(0.5).unwrap().pixels.dimensions();
    assert_eq!(
        (width, height),
        (u32::from(WIDTH) / 2, u32::from(HEIGHT) / 2)
    );
}
