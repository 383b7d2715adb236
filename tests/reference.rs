//! Agreement with OpenCV and Pillow, whose answers `reference/opencv_reference.py` wrote down, and with
//! the head photographs of the right whale data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recognition::geometry::{Affine, HeadCrop, Landmarks, Point};
use recognition::pixels::{
    CameraCondition, Depth, EncodedPhotograph, Image, PixelFormat, RawImage, YCbCr, YCbCrMatrix,
    warp,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    grid: u32,
    source: (u32, u32),
    warps: Vec<Warp>,
    decoded: BTreeMap<String, Vec<u8>>,
    #[serde(rename = "scaled.jpg")]
    scaled: BTreeMap<u32, Vec<u8>>,
    conditions: BTreeMap<String, Vec<u8>>,
    /// Grey level of an even picture; mean, deviation and deviation of rows' means after the noise.
    noise: Vec<[f64; 4]>,
    #[serde(rename = "rolling noise")]
    rolling_noise: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Warp {
    name: String,
    width: u32,
    height: u32,
    output_from_source: [f64; 6],
    grid: Vec<u8>,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(here("reference/opencv_reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The same formula stands in `reference/opencv_reference.py`.
fn synthetic(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |i, j| {
        let (x, y) = (f64::from(i) + 0.5, f64::from(j) + 0.5);
        Rgb(std::array::from_fn(|c| {
            let k = 1.0 + 0.3 * c as f64;
            let v = 127.5
                + 60.0 * (0.07 * k * x + 0.05 * y).sin()
                + 40.0 * (0.31 * x - 0.23 * k * y).sin()
                + 20.0 * (0.011 * k * x * y / 10.0).sin();
            (v + 0.5).floor().clamp(0.0, 255.0) as u8
        }))
    })
}

/// Mean and largest difference at the pixels that the reference holds.
fn difference(image: &RgbImage, grid: u32, expected: &[u8]) -> (f64, u32) {
    let ours: Vec<u8> = image
        .rows()
        .skip(grid as usize / 2)
        .step_by(grid as usize)
        .flat_map(|row| row.skip(grid as usize / 2).step_by(grid as usize))
        .flat_map(|p| p.0)
        .collect();
    assert_eq!(ours.len(), expected.len(), "the photographs differ in size");
    let differences = || {
        ours.iter()
            .zip(expected)
            .map(|(a, b)| u32::from(a.abs_diff(*b)))
    };
    let mean = f64::from(differences().sum::<u32>()) / ours.len() as f64;
    (mean, differences().max().unwrap())
}

#[test]
fn warping_agrees_with_opencv() {
    let reference = reference();
    let source = synthetic(reference.source.0, reference.source.1);
    for pose in reference.warps {
        let [xx, xy, x0, yx, yy, y0] = pose.output_from_source;
        let t = Affine {
            xx,
            xy,
            x0,
            yx,
            yy,
            y0,
        };
        let warped = warp(&source, &t, pose.width, pose.height, [128; 3]);
        let (mean, largest) = difference(&warped, reference.grid, &pose.grid);
        println!("{:<24} mean {mean:.2}, largest {largest}", pose.name);
        assert!(mean <= 1.0, "{}: {mean} grey levels on average", pose.name);
    }
}

#[test]
fn decoding_agrees_with_pillow_and_opencv() {
    let reference = reference();
    for (name, expected) in reference.decoded {
        let encoded = EncodedPhotograph::open(&here("fixtures").join(&name)).unwrap();
        let photograph = encoded.decode(1.0).unwrap();
        let (mean, largest) = difference(&photograph.pixels, reference.grid, &expected);
        println!("{name:<16} mean {mean:.2}, largest {largest}");
        assert!(mean <= 1.0, "{name}: {mean} grey levels on average");
    }
}

#[derive(Deserialize)]
struct RawReference {
    size: (u32, u32),
    images: Vec<RawReferenceImage>,
}

#[derive(Deserialize)]
struct RawReferenceImage {
    format: String,
    colour: String,
    /// Levels of all pixels but those at the edge.
    inner: Vec<u8>,
}

/// The same generator stands in `reference/raw_images.py`.
fn noise(count: usize, bits: u32) -> Vec<u32> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> (32 - bits)
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn uncompressed_frames_are_converted_as_opencv_does() {
    let text = std::fs::read_to_string(here("reference/raw_images.json")).unwrap();
    let reference: RawReference = serde_json::from_str(&text).unwrap();
    let (width, height) = reference.size;
    let pixels = (width * height) as usize;
    let mut compared = BTreeMap::new();
    for expected in &reference.images {
        let mut format = PixelFormat::ALL.into_iter();
        let format = format.find(|f| f.to_string() == expected.format).unwrap();
        let (count, bits) = match format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => (2 * pixels, 8),
            PixelFormat::Nv12 => (pixels * 3 / 2, 8),
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => (3 * pixels, 8),
            _ if expected.format.ends_with("10") => (pixels, 10),
            _ if expected.format.ends_with("12") => (pixels, 12),
            _ => (pixels, 8),
        };
        let is_luma = matches!(
            format,
            PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Nv12
        );
        let least = if is_luma { 16 } else { 0 };
        let samples = noise(count, bits).into_iter().map(|v| v.max(least));
        let bytes = if bits == 8 {
            samples.map(|v| v as u8).collect()
        } else {
            samples.flat_map(|v| (v as u16).to_le_bytes()).collect()
        };
        let colour = YCbCr {
            matrix: match expected.colour.split(' ').next() {
                Some("709") => YCbCrMatrix::Bt709,
                Some("2020") => YCbCrMatrix::Bt2020,
                _ => YCbCrMatrix::Bt601,
            },
            full_range: expected.colour.ends_with("full"),
        };
        let raw = RawImage::new(format, (width, height), 0, bytes, colour).unwrap();
        let ours = Image::from(raw).decode(1.0).unwrap().pixels;
        let inner = image::imageops::crop_imm(&ours, 1, 1, width - 2, height - 2).to_image();
        let differences = inner.as_raw().iter().zip(&expected.inner);
        let largest = differences.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert_eq!(inner.as_raw().len(), expected.inner.len());
        println!(
            "{:<4} {:<8} differs by {largest}",
            expected.format, expected.colour
        );
        assert!(
            largest <= 1,
            "{} {}: {largest}",
            expected.format,
            expected.colour
        );
        *compared.entry(format.to_string()).or_insert(0) += 1;
    }
    // OpenCV reads nothing packed.
    let packed = [Depth::TenPacked, Depth::TwelvePacked, Depth::TenBits];
    let all = PixelFormat::ALL.into_iter();
    let unpacked = all.filter(|format| format.depth().is_none_or(|depth| !packed.contains(&depth)));
    assert_eq!(compared.len(), unpacked.count(), "{compared:?}");
}

#[test]
fn reduced_decoding_agrees_with_opencv() {
    let reference = reference();
    let encoded = EncodedPhotograph::open(&here("fixtures/scaled.jpg")).unwrap();
    for (factor, expected) in reference.scaled {
        let photograph = encoded.decode(1.0 / f64::from(factor)).unwrap();
        let (mean, largest) = difference(&photograph.pixels, reference.grid, &expected);
        println!("1/{factor}: mean {mean:.2}, largest {largest}");
        assert!(mean <= 1.0, "1/{factor}: {mean} grey levels on average");
    }
}

#[test]
fn conditions_agree_with_opencv() {
    let reference = reference();
    let picture = synthetic(96, 64);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (name, condition) in CameraCondition::MEASURED {
        if condition.noise.is_some() {
            continue;
        }
        let mut changed = picture.clone();
        condition.apply(&mut changed, &mut rng).unwrap();
        let (mean, largest) = difference(&changed, reference.grid, &reference.conditions[name]);
        println!("{name:<16} mean {mean:.2}, largest {largest}");
        assert!(
            mean <= 0.5 && largest <= 2,
            "{name}: {mean} grey levels on average, at most {largest}"
        );
    }
}

#[test]
fn noise_is_as_strong_as_numpy_draws_it() {
    let reference = reference();
    let (rows, columns) = (2000, 128);
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (mean, (squares / values.len() as f64).sqrt())
    };
    for (condition, expected) in [
        (CameraCondition::NOISE, reference.noise),
        (CameraCondition::ROLLING_NOISE, reference.rolling_noise),
    ] {
        for [level, mean, deviation, of_rows] in expected {
            let mut picture = RgbImage::from_pixel(columns, rows, Rgb([level as u8; 3]));
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            condition.apply(&mut picture, &mut rng).unwrap();
            let green = |row: image::buffer::Pixels<Rgb<u8>>| -> Vec<f64> {
                row.map(|p| f64::from(p[1])).collect()
            };
            let means: Vec<f64> = picture.rows().map(|row| spread(&green(row)).0).collect();
            let ours = spread(&picture.rows().flat_map(green).collect::<Vec<_>>());
            let of_rows_ours = spread(&means).1;
            println!("{level}: {ours:.2?}, rows {of_rows_ours:.2}");
            // Bands are as many draws as there are rows.
            assert!(
                (ours.0 - mean).abs() < 0.3 + 0.1 * of_rows,
                "{level}: {ours:?}, {mean}"
            );
            assert!(
                (ours.1 - deviation).abs() < 0.05 * deviation + 0.1,
                "{level}: {ours:?}, {deviation}"
            );
            // Half as many columns as the reference: means of rows without bands spread more.
            if of_rows > 1.5 {
                assert!(
                    (of_rows_ours - of_rows).abs() < 0.1 * of_rows,
                    "{level}: {of_rows_ours}, {of_rows}"
                );
            }
        }
    }
}

/// Pearson's correlation of the grey levels of two photographs of the same size.
fn correlation(a: &RgbImage, b: &RgbImage) -> f64 {
    let grey = |image: &RgbImage| -> Vec<f64> {
        let levels: Vec<f64> = image
            .pixels()
            .map(|p| p.0.iter().map(|&v| f64::from(v)).sum())
            .collect();
        let mean = levels.iter().sum::<f64>() / levels.len() as f64;
        levels.into_iter().map(|v| v - mean).collect()
    };
    let (a, b) = (grey(a), grey(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[test]
fn our_crops_of_real_frames_are_the_real_head_photographs() {
    let data = std::env::var_os("CALLOSITY_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/right_whales"),
        PathBuf::from,
    );
    let Ok(mut table) = csv::Reader::from_path(data.join("frames.csv")) else {
        println!(
            "skipped: no photographs in {} (CALLOSITY_DATA)",
            data.display()
        );
        return;
    };
    let mut correlations = Vec::new();
    for row in table.records() {
        let row = row.unwrap();
        let image = &row[0];
        let numbers: Result<Vec<f64>, _> = row.iter().skip(4).map(str::parse).collect();
        let Ok(&[bonnet_x, bonnet_y, blowhead_x, blowhead_y]) = numbers.as_deref() else {
            continue;
        };
        let landmarks = Landmarks {
            bonnet: Point::new(bonnet_x, bonnet_y),
            blowhead: Point::new(blowhead_x, blowhead_y),
        };
        let decode = |folder: &str, scale| {
            EncodedPhotograph::open(&data.join(folder).join(image))
                .and_then(|encoded| encoded.decode(scale))
                .unwrap()
        };
        let head = decode("heads", 1.0).pixels;
        for scale in [1.0, 0.5] {
            let frame = decode("frames", scale);
            let seen = landmarks.map(&frame.pixels_from_frame());
            let crop_from_frame = HeadCrop::RIGHT_WHALE
                .crop_from_frame(&seen, head.width(), head.height())
                .unwrap();
            let (width, height) = head.dimensions();
            let crop = warp(&frame.pixels, &crop_from_frame, width, height, [0; 3]);
            correlations.push((correlation(&crop, &head), image.to_owned(), scale));
        }
    }
    correlations.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (value, image, scale) in &correlations {
        println!("{image:<12} at scale {scale}: correlation {value:.3}");
    }
    let high = correlations.iter().filter(|c| c.0 > 0.95).count();
    // In a few frames the annotation itself is doubtful.
    assert!(
        high * 10 >= correlations.len() * 8,
        "only {high} of {} crops show the head photograph",
        correlations.len()
    );
}
