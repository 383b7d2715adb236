//! What the tests share: the toy bundle and photographs that it understands
//! (see `tests/fixtures/make_bundles.py`).
#![allow(dead_code, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use recognition::bundle::Gallery;
use recognition::geometry::{HeadCrop, Landmarks, Point};
use serde_json::json;
use sha2::{Digest, Sha256};

pub const SEA: Rgb<u8> = Rgb([60, 62, 90]);
/// Nobody of the toy catalogue.
pub const STRANGER: Rgb<u8> = Rgb([250, 250, 60]);

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundles")
}

pub fn tiny() -> PathBuf {
    fixtures().join("tiny")
}

pub fn colour(individual: &str) -> Rgb<u8> {
    match individual {
        "ash" => Rgb([200, 200, 200]),
        "indigo" => Rgb([40, 40, 220]),
        "olive" => Rgb([120, 120, 20]),
        other => panic!("no such toy whale: {other}"),
    }
}

pub fn head(bonnet: (f64, f64), blowhead: (f64, f64)) -> Landmarks {
    Landmarks {
        bonnet: Point::new(bonnet.0, bonnet.1),
        blowhead: Point::new(blowhead.0, blowhead.1),
    }
}

/// Draws a toy head: a bar of the colour, a red dot at the bonnet, a green one at the blowhead.
pub fn draw(image: &mut RgbImage, head: &Landmarks, colour: Rgb<u8>) {
    let crop = HeadCrop::RIGHT_WHALE
        .crop_from_frame(head, 2000, 1000)
        .unwrap();
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let at = crop.apply(Point::new(f64::from(x) + 0.5, f64::from(y) + 0.5));
        let near = |p: (f64, f64)| at.distance(Point::new(p.0, p.1)) < 120.0;
        if near((1600.0, 500.0)) {
            *pixel = Rgb([255, 0, 0]);
        } else if near((600.0, 500.0)) {
            *pixel = Rgb([0, 255, 0]);
        } else if (600.0..1600.0).contains(&at.x) && (330.0..670.0).contains(&at.y) {
            *pixel = colour;
        }
    }
}

pub fn sea(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, SEA)
}

/// A copy of the toy bundle that a test may spoil.
pub fn copy_of_tiny() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("self_test")).unwrap();
    for below in ["", "self_test"] {
        for entry in fs::read_dir(tiny().join(below)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let to = folder.path().join(below).join(entry.file_name());
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    folder
}

/// The embedding that the toy network `embedding.onnx` gives a bar of this colour.
pub fn embedding(colour: Rgb<u8>) -> Vec<f32> {
    let seen = colour.0.map(|channel| f32::from(channel) - 110.0);
    let length = seen.iter().map(|v| v * v).sum::<f32>().sqrt();
    seen.map(|v| v / length).to_vec()
}

/// The toy bundle with an embedding and a gallery of one photograph of each whale.
pub fn tiny_with_gallery() -> tempfile::TempDir {
    let folder = copy_of_tiny();
    replace_ensemble(folder.path(), "embedding.onnx");
    let mut gallery = Gallery::new(3);
    for (place, individual) in ["ash", "indigo", "olive"].into_iter().enumerate() {
        let embedding = embedding(colour(individual));
        gallery.push(&embedding, place as u32).unwrap();
    }
    replace_gallery(folder.path(), &gallery.write());
    folder
}

/// Puts another gallery in the place of a bundle's, with its hash, or gives it one.
pub fn replace_gallery(bundle: &Path, bytes: &[u8]) {
    fs::write(bundle.join("gallery.safetensors"), bytes).unwrap();
    edit(bundle, |m| {
        if m["gallery"].is_null() {
            m["ensemble"]["embedding"] = json!({"output": "embedding", "length": 3});
            m["gallery"] = json!({
                "file": "gallery.safetensors",
                "neighbours": {"slope": 100.0, "intercept": -80.0, "share": 0.3},
            });
        }
        m["gallery"]["sha256"] = hex::encode(Sha256::digest(bytes)).into();
    });
}

/// Changes a bundle's manifest.
pub fn edit(bundle: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = bundle.join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
}

/// Puts another network in the place of the ensemble's, with its hash.
pub fn replace_ensemble(bundle: &Path, onnx: &str) {
    let bytes = fs::read(fixtures().join(onnx)).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    fs::write(bundle.join("ensemble.onnx"), bytes).unwrap();
    edit(bundle, |m| {
        m["ensemble"]["network"]["sha256"] = sha256.into()
    });
}

/// ONNX Runtime's library, where there is one; else says that a test was skipped.
pub fn onnxruntime(test: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let found = named.filter(|path| path.exists()).or_else(|| {
        let pythons = fs::read_dir(here.join(".venv/lib")).ok()?;
        pythons.flatten().find_map(|python| {
            let capi = python.path().join("site-packages/onnxruntime/capi");
            fs::read_dir(capi).ok()?.flatten().find_map(|entry| {
                let name = entry.file_name();
                let library = name.to_str()?.starts_with("libonnxruntime.so");
                library.then(|| entry.path())
            })
        })
    });
    if found.is_none() {
        eprintln!("SKIPPED {test}: no ONNX Runtime (set ORT_DYLIB_PATH or install it into .venv)");
    }
    found
}
