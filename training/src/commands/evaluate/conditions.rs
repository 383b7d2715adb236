//! `callosity-train evaluate --conditions`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::bundle::Bundle;
use recognition::geometry::Landmarks;
use recognition::identify::{HeadIdentification, Identifier};
use recognition::pixels::{CameraCondition, EncodedPhotograph, Folder, Photograph, READ_ENDINGS};

use super::{
    Args, FrameTruth, LabelRow, PieceRow, Subjects, group_by_image, read_table, require_files,
};
use crate::conditions::{
    ConditionRow, ConditionsReport, FramesUnder, HeadsUnder, MeasuredBundle, OpenWaterUnder,
    TrueName, first_candidates,
};
use crate::evaluation::match_heads;
use crate::progress::progress_bar;

/// Measures the bundles under each condition.
///
/// # Errors
/// Tables name files that are not there, or a photograph cannot be read.
pub(super) fn measure(
    args: &Args,
    bundles: &[Bundle],
    subjects: &Subjects,
) -> anyhow::Result<ConditionsReport> {
    let heads = match &args.heads {
        Some(folder) => Some(Heads::read(folder, args.labels.as_deref(), subjects)?),
        None => None,
    };
    let frames = match (&args.frames, &args.truth) {
        (Some(folder), Some(truth)) => {
            Some(Frames::read(folder, truth, args.open_water.as_deref())?)
        }
        _ => None,
    };
    let (head_count, frame_count) = (
        heads.as_ref().map_or(0, |heads| heads.files.len()),
        frames.as_ref().map_or(0, |frames| frames.0.len()),
    );
    let conditions = CameraCondition::MEASURED;
    let progress = progress_bar("photographs", conditions.len() * (head_count + frame_count));
    let mut as_is = None;
    let rows = conditions.iter().map(|(name, condition)| {
        let mut row = ConditionRow::new(name, condition);
        if let Some(heads) = &heads {
            let said = heads.said(condition, &progress)?;
            let as_is = as_is.get_or_insert_with(|| first_candidates(&said));
            row.heads = Some(HeadsUnder::measure(said, as_is, heads.names.as_deref()));
        }
        if let Some(frames) = &frames {
            row.frames = Some(frames.measure(condition, subjects, &progress)?);
        }
        Ok(row)
    });
    let rows = rows.collect::<anyhow::Result<_>>()?;
    progress.finish_and_clear();
    Ok(ConditionsReport::new(
        bundles
            .iter()
            .map(|b| MeasuredBundle::of(b.manifest()))
            .collect(),
        subjects.0[0].engine(),
        rows,
    ))
}

/// The photograph as it comes out of that camera. Its noise follows from the photograph's place in the list, so that
/// every measurement sees the same.
fn photograph(
    path: &Path,
    condition: &CameraCondition,
    place: usize,
) -> anyhow::Result<Photograph> {
    let mut pixels = EncodedPhotograph::open(path)?.decode(1.0)?.pixels;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    rng.set_stream(place as u64);
    condition
        .apply(&mut pixels, &mut rng)
        .with_context(|| path.display().to_string())?;
    Ok(Photograph::whole(pixels))
}

/// Head photographs and, where they are known, the names of the whales on them.
struct Heads<'a> {
    identifier: &'a Identifier,
    files: Vec<PathBuf>,
    names: Option<Vec<TrueName>>,
}

impl<'a> Heads<'a> {
    fn read(folder: &Path, labels: Option<&Path>, subjects: &'a Subjects) -> anyhow::Result<Self> {
        let [identifier] = &subjects.0[..] else {
            bail!(
                "--heads measures one --bundle, {} are given",
                subjects.0.len()
            );
        };
        let Some(labels) = labels else {
            return Ok(Self {
                identifier,
                files: photographs_in(folder)?,
                names: None,
            });
        };
        let rows: Vec<LabelRow> = read_table(labels)?;
        require_files(labels, folder, rows.iter().map(|r| r.image.as_str()))?;
        let individuals: HashSet<&String> = identifier.manifest().individuals().collect();
        Ok(Self {
            identifier,
            files: rows.iter().map(|row| folder.join(&row.image)).collect(),
            names: Some(
                rows.into_iter()
                    .map(|row| TrueName {
                        known: individuals.contains(&row.whale),
                        whale: row.whale,
                    })
                    .collect(),
            ),
        })
    }

    fn said(
        &self,
        condition: &CameraCondition,
        progress: &ProgressBar,
    ) -> anyhow::Result<Vec<HeadIdentification>> {
        let files = self.files.par_iter().enumerate();
        files
            .map(|(place, path)| {
                let context = || path.display().to_string();
                let photograph = photograph(path, condition, place)?;
                let seen = self.identifier.identify_head_photograph(&photograph);
                let head = seen.with_context(context)?.heads.pop();
                progress.inc(1);
                head.with_context(context)
            })
            .collect()
    }
}

/// The photographs of a folder, by their names.
fn photographs_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = Folder::list(folder);
    let listed = listed.with_context(|| format!("cannot list {}", folder.display()))?;
    ensure!(
        !listed.photographs.is_empty(),
        "{} has no photographs (.{})",
        folder.display(),
        READ_ENDINGS.join(", .")
    );
    Ok(listed.photographs)
}

/// A frame that is looked at.
#[derive(Default)]
struct Frame {
    truth: Option<FrameTruth>,
    /// Pieces of it without whales.
    water: Vec<PieceRow>,
}

/// Frames by their files.
struct Frames(Vec<(String, PathBuf, Frame)>);

impl Frames {
    fn read(folder: &Path, truth: &Path, open_water: Option<&Path>) -> anyhow::Result<Self> {
        let mut frames: BTreeMap<String, Frame> = BTreeMap::new();
        for truth in group_by_image(read_table(truth)?)? {
            let image = truth.image.clone();
            frames.entry(image).or_default().truth = Some(truth);
        }
        require_files(truth, folder, frames.keys().map(String::as_str))?;
        if let Some(table) = open_water {
            let rows: Vec<PieceRow> = read_table(table)?;
            require_files(table, folder, rows.iter().map(|r| r.image.as_str()))?;
            for row in rows {
                frames.entry(row.image.clone()).or_default().water.push(row);
            }
        }
        let with_path = |(image, frame): (String, Frame)| {
            let path = folder.join(&image);
            (image, path, frame)
        };
        Ok(Self(frames.into_iter().map(with_path).collect()))
    }

    fn measure(
        &self,
        condition: &CameraCondition,
        subjects: &Subjects,
        progress: &ProgressBar,
    ) -> anyhow::Result<FramesUnder> {
        let each: Vec<FramesUnder> = self
            .0
            .par_iter()
            .enumerate()
            .map(|(place, (image, path, frame))| {
                let identifier = subjects.for_frame(image)?;
                let photograph = photograph(path, condition, place)?;
                let measured = frame.measure(identifier, &photograph);
                progress.inc(1);
                measured.with_context(|| path.display().to_string())
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(each
            .into_iter()
            .fold(FramesUnder::default(), FramesUnder::plus))
    }
}

impl Frame {
    fn measure(
        &self,
        identifier: &Identifier,
        photograph: &Photograph,
    ) -> anyhow::Result<FramesUnder> {
        let mut measured = FramesUnder::default();
        if let Some(truth) = &self.truth {
            let said = identifier.identify_photograph(photograph)?.heads;
            let found: Vec<Landmarks> = said.iter().map(HeadIdentification::landmarks).collect();
            let (matched, others) = match_heads(&truth.landmarks(), &found);
            measured.heads = truth.heads.len();
            measured.found = matched.iter().flatten().count();
            measured.other_heads = others;
            let individuals: Vec<&String> = identifier.manifest().individuals().collect();
            for ((whale, _), matched) in truth.heads.iter().zip(matched) {
                let Some(whale) = whale.as_ref().filter(|w| individuals.contains(w)) else {
                    continue;
                };
                measured.catalogued += 1;
                let best = matched.and_then(|found| said[found].best());
                measured.top1 += usize::from(best.is_some_and(|c| c.individual == *whale));
            }
        }
        if !self.water.is_empty() {
            let mut false_heads = 0;
            for piece in &self.water {
                let piece = piece.cut(&photograph.pixels)?;
                false_heads += identifier.identify_photograph(&piece)?.heads.len();
            }
            measured.open_water = Some(OpenWaterUnder {
                pieces: self.water.len(),
                false_heads,
            });
        }
        Ok(measured)
    }
}
