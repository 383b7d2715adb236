//! One stack measured, as its bundle would name: over views, with its own last layer, temperature and power, and
//! with its gallery where it has one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use ndarray::Array2;
use recognition::bundle::Gallery;
use recognition::identify::{GalleryStatistics, Opinion, Similarities, opinion};

use super::classifiers::{Labelled, Prediction, naming_and_top1_by_photographs};
use super::table::StackRow;
use super::trained_on;
use crate::commands::stack::{StackFile, StackGallery};
use crate::features::{HeadPhotograph, extract};
use crate::gallery::embeddings;
use crate::index::Index;
use crate::run_folder::TrainedRun;
use crate::split::Split;
use crate::stack::{Regression, Standardisation};

/// A stack's file with the runs of its members, in their order.
pub(super) struct OpenStack<'r> {
    name: String,
    file: StackFile,
    gallery: Option<(StackGallery, Gallery)>,
    members: Vec<&'r TrainedRun>,
}

impl<'r> OpenStack<'r> {
    /// Reads a stack and finds its members among `runs` by the digests of their weights.
    pub fn open(path: &Path, runs: &'r [TrainedRun], split: &Split) -> anyhow::Result<Self> {
        let file = StackFile::load(path)?;
        let members = file
            .members
            .iter()
            .map(|member| {
                let mut runs = runs.iter();
                let run = runs.find(|run| run.weights_digest == member.weights_digest);
                run.with_context(|| {
                    format!(
                        "{}: the run of its member {} is not among those that are given, or has been trained on since",
                        path.display(),
                        member.name
                    )
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let bytes = file.gallery_bytes(path)?;
        let gallery = match (&file.gallery, bytes) {
            (Some(declared), Some(bytes)) => {
                let gallery = Gallery::read(&bytes, file.head.mean.len(), split.individuals.len())
                    .with_context(|| format!("the gallery of {}", path.display()))?;
                Some((declared.clone(), gallery))
            }
            _ => None,
        };
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            file,
            gallery,
            members,
        })
    }

    /// Measures it on photographs of the validation part and of unknown whales.
    pub fn measure(
        &self,
        index: &Index,
        split: &Split,
        photographs: &[Labelled<'_>],
    ) -> anyhow::Result<Vec<StackRow>> {
        let trained_on = &trained_on(index, split, self.file.held_out_fold);
        let heads: Vec<HeadPhotograph> = photographs
            .iter()
            .map(|(photograph, _)| HeadPhotograph::of(index, photograph))
            .collect();
        let views = extract(&self.members, &heads, self.file.views)?;
        let standardisation = Standardisation::from(&self.file.head);
        let regression = Regression::from(&self.file.head);
        let logits: Vec<Array2<f32>> = views
            .iter()
            .map(|view| {
                let features = standardisation.apply(&view.view());
                regression.logits(&features.view()).mapv(|l| l as f32)
            })
            .collect();
        let of_photograph = |i: usize| -> Vec<Vec<f32>> {
            logits.iter().map(|view| view.row(i).to_vec()).collect()
        };
        let opinions =
            |with_gallery: Option<&(StackGallery, Gallery)>| -> anyhow::Result<Vec<Opinion>> {
                let embeddings = with_gallery.map(|_| embeddings(&views, &self.file.head));
                let statistics = with_gallery.and_then(|(declared, gallery)| {
                    let mut features = declared.decision.unknown.features.iter();
                    let asked = features.any(|f| f.feature.needs_statistics());
                    asked
                        .then(|| GalleryStatistics::of(gallery, split.individuals.len()))
                        .flatten()
                });
                (0..photographs.len())
                    .map(|i| {
                        let own = of_photograph(i);
                        let own = own.iter().map(Vec::as_slice);
                        let said = match (with_gallery, &embeddings) {
                            (Some((declared, gallery)), Some(embeddings)) => {
                                let embedding = embeddings.row(i).to_vec();
                                let nearest =
                                    gallery.similarities(&embedding, split.individuals.len());
                                let similarities = Similarities {
                                    model: &declared.neighbours,
                                    nearest: &nearest,
                                    familiarity: statistics
                                        .as_ref()
                                        .map(|s| s.familiarity(embeddings.row(i))),
                                };
                                opinion(&declared.decision, Some(similarities), own)
                            }
                            _ => opinion(&self.file.decision, None, own),
                        };
                        said.context("a stack has views")
                    })
                    .collect()
            };
        let mut rows = vec![self.row(split, photographs, trained_on, &opinions(None)?, false)];
        if self.gallery.is_some() {
            let said = opinions(self.gallery.as_ref())?;
            rows.push(self.row(split, photographs, trained_on, &said, true));
        }
        Ok(rows)
    }

    fn row(
        &self,
        split: &Split,
        photographs: &[Labelled<'_>],
        trained_on: &BTreeMap<&str, usize>,
        opinions: &[Opinion],
        gallery: bool,
    ) -> StackRow {
        let predictions: Vec<Prediction<'_>> = photographs
            .iter()
            .zip(opinions)
            .map(|(&(photograph, whale), said)| {
                let probabilities: Vec<f64> =
                    said.probabilities.iter().map(|p| f64::from(*p)).collect();
                Prediction::new(
                    split,
                    photograph,
                    whale,
                    probabilities,
                    f64::from(said.unknown),
                )
            })
            .collect();
        let (naming, top1_by_photographs) =
            naming_and_top1_by_photographs(split, &predictions, trained_on);
        let sum = |of: fn(&TrainedRun) -> u64| self.members.iter().map(|run| of(run)).sum::<u64>();
        let report = &self.file.report;
        StackRow {
            stack: self.name.clone(),
            split_digest: self.file.split_digest.clone(),
            members: self.members.iter().map(|run| run.name.clone()).collect(),
            parameters: sum(|run| run.record.parameters as u64) as usize,
            multiply_adds: sum(|run| run.record.multiply_adds) * u64::from(self.file.views),
            views: self.file.views,
            strength: report.strength,
            components: report.components.as_ref().map(|pca| pca.components),
            power: report.power.as_ref().map(|power| power.power),
            gallery,
            naming,
            top1_by_photographs,
        }
    }
}
