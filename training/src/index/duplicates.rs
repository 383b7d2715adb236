//! Photographs that stand in the set more than once.
//!
//! Two photographs are the same where they have the same bytes or nearly the same pixels: a 64-bit
//! difference hash proposes pairs, the correlation of small grey images decides.

use std::collections::BTreeMap;
use std::collections::HashMap;

use image::RgbImage;
use image::imageops::FilterType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{IndexedPhotograph, PhotographKind};

/// Side of the small grey image by which photographs are compared.
const SIDE: u32 = 32;
/// Most differing bits of the hash for a pair to be looked at.
const HASH_DISTANCE: u32 = 12;
/// Correlation from which two photographs are the same. Taken from the histogram of correlations of
/// right whale heads; no pair was verified by eye.
const CORRELATION: f64 = 0.97;

/// How two photographs are the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resemblance {
    /// Byte for byte.
    Exact,
    /// Nearly the same pixels; the correlation of their grey values.
    Near(f64),
}

/// A pair of photographs with the same content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The later of the two in the index.
    pub image: String,
    /// The earlier one.
    pub of: String,
    /// How they are the same.
    pub resemblance: Resemblance,
}

/// What of a photograph's pixels is kept for comparison.
pub(super) struct Fingerprint {
    /// Difference hash.
    hash: u64,
    /// Grey values of `SIDE × SIDE` pixels, mean 0, length 1; zero for a photograph of one colour.
    grey: Vec<f32>,
}

impl Fingerprint {
    /// Pixels of the shorter side that suffice.
    pub(super) const LEAST_SIDE: u32 = 4 * SIDE;

    pub(super) fn of(pixels: &RgbImage) -> Self {
        // Reduced before it is made grey: frames have many megapixels.
        let small = image::imageops::thumbnail(pixels, Self::LEAST_SIDE, Self::LEAST_SIDE);
        let grey = image::imageops::grayscale(&small);
        let hashed = image::imageops::resize(&grey, 9, 8, FilterType::Triangle);
        let mut hash = 0;
        for y in 0..8 {
            for x in 0..8 {
                let brighter = hashed.get_pixel(x + 1, y).0[0] > hashed.get_pixel(x, y).0[0];
                hash = hash << 1 | u64::from(brighter);
            }
        }
        let reduced = image::imageops::resize(&grey, SIDE, SIDE, FilterType::Triangle);
        Self {
            hash,
            grey: normalised(reduced.as_raw().iter().map(|&v| f32::from(v)).collect()),
        }
    }
}

/// Mean 0 and length 1; zeros where all values are alike.
fn normalised(mut values: Vec<f32>) -> Vec<f32> {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|v| *v -= mean);
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let factor = if length > 1e-3 { 1.0 / length } else { 0.0 };
    values.iter_mut().for_each(|v| *v *= factor);
    values
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
}

/// Finds all pairs of the same content and marks them in `photographs`, each with the first of its
/// group.
pub(super) fn mark(
    photographs: &mut [IndexedPhotograph],
    fingerprints: &[Fingerprint],
) -> Vec<Duplicate> {
    let mut pairs: BTreeMap<(usize, usize), Resemblance> = BTreeMap::new();
    for (pair, found) in near(photographs, fingerprints) {
        pairs.insert(pair, Resemblance::Near(found));
    }
    let mut by_digest: HashMap<&str, usize> = HashMap::new();
    for (i, photograph) in photographs.iter().enumerate() {
        let first = *by_digest.entry(&photograph.sha256).or_insert(i);
        if first != i {
            pairs.insert((first, i), Resemblance::Exact);
        }
    }

    let mut first: Vec<usize> = (0..photographs.len()).collect();
    fn root(first: &mut [usize], mut i: usize) -> usize {
        while first[i] != i {
            first[i] = first[first[i]];
            i = first[i];
        }
        i
    }
    for &(a, b) in pairs.keys() {
        let (a, b) = (root(&mut first, a), root(&mut first, b));
        first[a.max(b)] = a.min(b);
    }
    for i in 0..photographs.len() {
        let r = root(&mut first, i);
        photographs[i].duplicate_of = (r != i).then(|| photographs[r].image.clone());
    }
    pairs
        .into_iter()
        .map(|((a, b), resemblance)| Duplicate {
            image: photographs[b].image.clone(),
            of: photographs[a].image.clone(),
            resemblance,
        })
        .collect()
}

/// Pairs with nearly the same pixels. Heads are compared with heads, frames with frames.
fn near(
    photographs: &[IndexedPhotograph],
    fingerprints: &[Fingerprint],
) -> Vec<((usize, usize), f64)> {
    let is_frame = |i: usize| photographs[i].kind == PhotographKind::Frame;
    (0..photographs.len())
        .into_par_iter()
        .flat_map_iter(|i| {
            let a = &fingerprints[i];
            (i + 1..photographs.len())
                .filter(move |&j| (a.hash ^ fingerprints[j].hash).count_ones() <= HASH_DISTANCE)
                .filter(move |&j| is_frame(i) == is_frame(j))
                .map(move |j| ((i, j), correlation(&a.grey, &fingerprints[j].grey)))
                .filter(|(_, correlation)| *correlation >= CORRELATION)
        })
        .collect()
}
