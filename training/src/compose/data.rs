use std::collections::HashSet;

use image::{RgbImage, imageops};
use rayon::prelude::*;
use recognition::geometry::Affine;
use recognition::pixels::EncodedPhotograph;

use super::{ComposeError, Composer, RealFrame, SeaSource};
use crate::cache::Cache;
use crate::frame_folds::{frame_folds, frames_with_landmarks};
use crate::index::{Index, IndexedPhotograph, PhotographKind};
use crate::split::{Role, Split, content};

/// Width to which frames are reduced before anything is cut from them: fine enough for heads of 128 pixels.
const REDUCED_FRAME_WIDTH: u32 = 1536;

impl Composer {
    /// Composes from the training heads whose fold is wanted, at the poses of just these heads, and from
    /// the water of frames that have no landmarks and train, which nothing is measured on.
    ///
    /// # Errors
    /// Where no head is left, the cache lacks one, or a frame cannot be read.
    pub fn from_data(
        index: &Index,
        split: &Split,
        cache: &Cache,
        fold_wanted: impl Fn(u32) -> bool,
    ) -> Result<Self, ComposeError> {
        // A head that stands in a frame of the data stays unseen under any name: finder and aligner are
        // measured on frames.
        let hidden: HashSet<&str> = index
            .photographs
            .iter()
            .filter(|p| p.frame.is_some() || split.hidden_from_finder.contains(&p.image))
            .map(content)
            .collect();
        let wanted: Vec<&IndexedPhotograph> = index
            .head_photographs()
            .filter(|p| p.duplicate_of.is_none())
            .filter(|p| !hidden.contains(content(p)))
            .filter(|p| {
                matches!(split.role(&p.image), Some(Role::Training { fold }) if fold_wanted(fold))
            })
            .collect();
        Self::from_photographs(index, split, cache, &wanted)
    }

    /// Composes from the heads of the fold that networks never see: what they are measured on.
    ///
    /// # Errors
    /// As [`from_data`](Self::from_data).
    pub fn of_held_out_fold(
        index: &Index,
        split: &Split,
        cache: &Cache,
        held_out_fold: u32,
    ) -> Result<Self, ComposeError> {
        Self::from_data(index, split, cache, |fold| fold == held_out_fold)
    }

    /// Composes from just these head photographs, in their order, at their poses, and from the water that
    /// [`from_data`](Self::from_data) takes.
    ///
    /// # Errors
    /// Where there is no photograph, the cache lacks one, or a frame cannot be read.
    pub fn from_photographs(
        index: &Index,
        split: &Split,
        cache: &Cache,
        photographs: &[&IndexedPhotograph],
    ) -> Result<Self, ComposeError> {
        let heads = photographs
            .iter()
            .map(|p| {
                cache
                    .pixels(&p.image)
                    .and_then(|(bytes, w, h)| RgbImage::from_raw(w, h, bytes.to_vec()))
                    .ok_or_else(|| ComposeError::NotCached(p.image.clone()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let poses = photographs.iter().filter_map(|p| p.head_pose()).collect();
        let frames: Vec<&IndexedPhotograph> = index
            .photographs
            .iter()
            .filter(|p| p.kind == PhotographKind::Frame && p.landmarks.is_empty())
            .filter(|p| matches!(split.role(&p.image), Some(Role::Training { .. })))
            .collect();
        let seas: Vec<Vec<SeaSource>> = frames
            .par_iter()
            .map(|p| Ok(SeaSource::from_frame(&reduced_frame(index, p)?)))
            .collect::<Result<_, ComposeError>>()?;
        Self::new(&heads, poses, seas.into_iter().flatten().collect())
    }
}

impl RealFrame {
    /// The frames with landmarks whose [fold](frame_folds) is wanted, and the names of their files.
    ///
    /// # Errors
    /// A frame cannot be read.
    pub fn from_data(
        index: &Index,
        fold_wanted: impl Fn(u32) -> bool,
    ) -> Result<(Vec<String>, Vec<Self>), ComposeError> {
        let folds = frame_folds(index);
        let wanted: Vec<&IndexedPhotograph> = frames_with_landmarks(index)
            .filter(|p| {
                folds
                    .get(p.image.as_str())
                    .is_some_and(|&fold| fold_wanted(fold))
            })
            .collect();
        let frames = wanted.par_iter().map(|p| {
            let pixels = reduced_frame(index, p)?;
            let reduced_from_frame = Affine::scaling(
                f64::from(pixels.width()) / f64::from(p.width),
                f64::from(pixels.height()) / f64::from(p.height),
            );
            let heads = p
                .landmarks
                .iter()
                .map(|l| l.map(&reduced_from_frame))
                .collect();
            Ok(Self::new(pixels, heads))
        });
        let frames = frames.collect::<Result<_, ComposeError>>()?;
        let name =
            |p: &&IndexedPhotograph| Some(p.file.file_name()?.to_string_lossy().into_owned());
        Ok((wanted.iter().filter_map(name).collect(), frames))
    }
}

/// A frame, upright and [`REDUCED_FRAME_WIDTH`] wide where it is wider.
fn reduced_frame(index: &Index, frame: &IndexedPhotograph) -> Result<RgbImage, ComposeError> {
    let path = index.path(frame);
    let unreadable = |source| ComposeError::Frame {
        path: path.clone(),
        source,
    };
    let encoded = EncodedPhotograph::open(&path).map_err(unreadable)?;
    let (width, height) = encoded.size();
    let scale = (f64::from(REDUCED_FRAME_WIDTH) / f64::from(width)).min(1.0);
    let pixels = encoded.decode(scale).map_err(unreadable)?.pixels;
    Ok(imageops::resize(
        &pixels,
        (f64::from(width) * scale).round() as u32,
        ((f64::from(height) * scale).round() as u32).max(1),
        imageops::FilterType::Triangle,
    ))
}
