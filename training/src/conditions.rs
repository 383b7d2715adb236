//! What a bundle says of the same photographs under other light and by other cameras: measures for each
//! [condition](recognition::pixels::CameraCondition), and their table.

use std::path::Path;

use anyhow::{Context, ensure};
use recognition::bundle::Manifest;
use recognition::identify::{Decision, HeadIdentification};
use recognition::pixels::CameraCondition;
use serde::{Deserialize, Serialize};

use crate::evaluation::{Answer, NamingMetrics, naming};
use crate::index::{read_json, write_json};
use crate::metrics::share;

/// Version of the file that this program reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Measures under each condition; the first row is of the photographs as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionsReport {
    format_version: u32,
    /// The bundle; several where frames are measured by cross-validation.
    pub bundles: Vec<MeasuredBundle>,
    /// What the networks ran on.
    pub engine: String,
    /// One row for each condition.
    pub conditions: Vec<ConditionRow>,
}

/// Which bundle was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredBundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file of its ensemble, which says whether another bundle has the same classifiers.
    pub ensemble_sha256: String,
    /// Whether its classifiers were trained on all photographs with names, on which they look better than they are.
    pub trained_on_all: bool,
}

impl MeasuredBundle {
    /// That of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            ensemble_sha256: manifest.ensemble.network.sha256.clone(),
            trained_on_all: manifest.provenance.calibrated_on_split.is_some(),
        }
    }
}

/// Measures under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionRow {
    /// Its name.
    pub condition: String,
    /// What it does to a photograph.
    pub change: String,
    /// Of head photographs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<HeadsUnder>,
    /// Of whole frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<FramesUnder>,
}

impl ConditionRow {
    /// A row without measures.
    pub fn new(name: &str, condition: &CameraCondition) -> Self {
        Self {
            condition: name.to_owned(),
            change: condition.to_string(),
            heads: None,
            frames: None,
        }
    }
}

/// Measures of head photographs under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadsUnder {
    /// How many there are.
    pub photographs: usize,
    /// Share whose first candidate is the one that it is as they are. Needs no names.
    pub first_candidate_kept: Option<f64>,
    /// Share called "identified".
    pub identified: Option<f64>,
    /// Where names are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<NamedUnder>,
}

/// Measures of head photographs whose whales are known, under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedUnder {
    /// How well they are named.
    #[serde(flatten)]
    pub metrics: NamingMetrics,
    /// Points of top-1 (hundredths) that are lost against the photographs as they are; below 0 where some are won.
    pub top1_lost_points: Option<f64>,
    /// Of all heads called "identified" the share that is rightly. Whales that the bundle does not know are among
    /// them, and never right.
    pub identified_right: Option<f64>,
}

/// Measures of whole frames under one condition; counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramesUnder {
    /// True heads.
    pub heads: usize,
    /// Of these found, with both landmarks within half a head length.
    pub found: usize,
    /// Found heads that match no true one.
    pub other_heads: usize,
    /// True heads of whales that the bundle knows.
    pub catalogued: usize,
    /// Of these found and named rightly by the first candidate.
    pub top1: usize,
    /// Pieces of open water, and heads that were found in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_water: Option<OpenWaterUnder>,
}

/// False heads in open water under one condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWaterUnder {
    /// Pieces of frames without whales.
    pub pieces: usize,
    /// Heads found in them.
    pub false_heads: usize,
}

impl FramesUnder {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        let water = [self.open_water, other.open_water];
        Self {
            heads: self.heads + other.heads,
            found: self.found + other.found,
            other_heads: self.other_heads + other.other_heads,
            catalogued: self.catalogued + other.catalogued,
            top1: self.top1 + other.top1,
            open_water: water.into_iter().flatten().reduce(|a, b| OpenWaterUnder {
                pieces: a.pieces + b.pieces,
                false_heads: a.false_heads + b.false_heads,
            }),
        }
    }
}

/// Who is on a head photograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrueName {
    /// The whale.
    pub whale: String,
    /// Whether the bundle knows it.
    pub known: bool,
}

/// The first candidate of each head.
pub fn first_candidates(said: &[HeadIdentification]) -> Vec<Option<String>> {
    let first = |head: &HeadIdentification| head.best().map(|c| c.individual.clone());
    said.iter().map(first).collect()
}

impl HeadsUnder {
    /// Measures what was said of head photographs. `as_is` are the [`first_candidates`] of the same photographs as
    /// they are; `names` are absent where nobody knows them.
    pub fn measure(
        said: Vec<HeadIdentification>,
        as_is: &[Option<String>],
        names: Option<&[TrueName]>,
    ) -> Self {
        let photographs = said.len();
        let first = first_candidates(&said);
        let kept = first.iter().zip(as_is).filter(|(now, as_is)| now == as_is);
        let kept = share(kept.count(), photographs);
        let is_identified = |head: &HeadIdentification| head.decision == Decision::Identified;
        let identified = said.iter().filter(|head| is_identified(head)).count();
        let named = names.map(|names| {
            let right = said.iter().zip(names).filter(|(head, name)| {
                is_identified(head) && head.best().is_some_and(|c| c.individual == name.whale)
            });
            let identified_right = share(right.count(), identified);
            let answers: Vec<Answer> = said
                .into_iter()
                .zip(names)
                .map(|(head, name)| Answer::new(head, name.whale.clone(), name.known))
                .collect();
            NamedUnder {
                metrics: naming(&answers),
                top1_lost_points: None,
                identified_right,
            }
        });
        Self {
            photographs,
            first_candidate_kept: kept,
            identified: share(identified, photographs),
            named,
        }
    }
}

fn fixed(value: Option<f64>, decimals: usize) -> Option<String> {
    value.map(|v| format!("{v:.decimals$}"))
}

impl ConditionsReport {
    /// Puts rows together, the first of which is of the photographs as they are: against it the others lose.
    pub fn new(
        bundles: Vec<MeasuredBundle>,
        engine: String,
        mut conditions: Vec<ConditionRow>,
    ) -> Self {
        let as_is = conditions.first().and_then(ConditionRow::top1);
        for row in &mut conditions {
            let lost = as_is.zip(row.top1()).map(|(a, b)| 100.0 * (a - b));
            if let Some(named) = row.heads.as_mut().and_then(|heads| heads.named.as_mut()) {
                named.top1_lost_points = lost;
            }
        }
        Self {
            format_version: FORMAT_VERSION,
            bundles,
            engine,
            conditions,
        }
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file cannot be read or is something else.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let remedy = "measure again, with `callosity-train evaluate --conditions --out`";
        let report: Self = read_json(path, "conditions", FORMAT_VERSION, remedy)?;
        ensure!(
            !report.conditions.is_empty(),
            "{} has no conditions: {remedy}",
            path.display()
        );
        Ok(report)
    }

    /// Writes it as JSON, with the folder it lies in.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was measured, in a sentence or two.
    pub fn subject(&self) -> String {
        let names: Vec<String> = self
            .bundles
            .iter()
            .map(|b| format!("{} {}", b.name, b.version))
            .collect();
        let mut text = format!("{} on {}", names.join(", "), self.engine);
        let row = self.conditions.first();
        if let Some(heads) = row.and_then(|row| row.heads.as_ref()) {
            text += &match &heads.named {
                Some(named) => format!(
                    "; {} heads of whales of the bundle, {} of others",
                    named.metrics.known, named.metrics.unknown
                ),
                None => format!("; {} heads without names", heads.photographs),
            };
        }
        if self.bundles.iter().any(|b| b.trained_on_all) {
            text += "; classifiers trained on all photographs with names, on which they look better than they are";
        }
        text
    }

    /// Names of the columns. Only what was measured has one.
    pub fn header(&self) -> Vec<String> {
        self.columns().into_iter().map(|(name, _)| name).collect()
    }

    /// The cells below, row by row.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let columns = self.columns();
        let text = |row, cell: &Cell| cell(row).unwrap_or("–".to_owned());
        let cells = |row| columns.iter().map(|(_, cell)| text(row, cell)).collect();
        self.conditions.iter().map(cells).collect()
    }

    fn columns(&self) -> Vec<Column> {
        let first = self.conditions.first();
        let heads = first.and_then(|row| row.heads.as_ref());
        let frames = first.and_then(|row| row.frames.as_ref());
        let mut columns: Vec<Column> = Vec::new();
        let mut add = |name: &str, cell: Cell| columns.push((name.to_owned(), cell));
        add("condition", |row| {
            Some(format!("{}: {}", row.condition, row.change))
        });
        if heads.is_some_and(|heads| heads.named.is_some()) {
            add("top-1", |row| fixed(row.top1(), 3));
            add("points lost", |row| fixed(row.named()?.top1_lost_points, 1));
            add("top-5", |row| fixed(row.named()?.metrics.top5, 3));
            add("log loss", |row| fixed(row.named()?.metrics.log_loss, 2));
        }
        if heads.is_some() {
            add("identified", |row| fixed(row.heads.as_ref()?.identified, 3));
        }
        if heads.is_some_and(|heads| heads.named.is_some()) {
            add("of these right", |row| {
                fixed(row.named()?.identified_right, 3)
            });
        }
        if heads.is_some() {
            add("first candidate kept", |row| {
                fixed(row.heads.as_ref()?.first_candidate_kept, 3)
            });
        }
        if let Some(frames) = frames {
            add(&format!("heads found, of {}", frames.heads), |row| {
                Some(row.frames.as_ref()?.found.to_string())
            });
            add(
                &format!("and named rightly, of {}", frames.catalogued),
                |row| Some(row.frames.as_ref()?.top1.to_string()),
            );
            add("other heads", |row| {
                Some(row.frames.as_ref()?.other_heads.to_string())
            });
        }
        if let Some(water) = frames.and_then(|frames| frames.open_water) {
            add(&format!("false heads, {} waters", water.pieces), |row| {
                Some(row.frames.as_ref()?.open_water?.false_heads.to_string())
            });
        }
        columns
    }

    /// The table in Markdown, its columns padded for people who read it as it is.
    pub fn markdown(&self) -> String {
        let header = self.header();
        let rows = self.rows();
        let length = |text: &String| text.chars().count();
        let widths: Vec<usize> = (0..header.len())
            .map(|i| {
                let cells = rows.iter().map(|row| length(&row[i]));
                cells.chain([length(&header[i]), 3]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| -> String {
            let padded = cells.iter().zip(&widths).enumerate();
            let cell = |(i, (text, &width)): (usize, (&String, &usize))| match i {
                0 => format!("| {text:<width$} "),
                _ => format!("| {text:>width$} "),
            };
            padded.map(cell).collect::<String>() + "|\n"
        };
        let rule = widths.iter().enumerate().map(|(i, &width)| match i {
            0 => format!("|{}", "-".repeat(width + 2)),
            _ => format!("|{}:", "-".repeat(width + 1)),
        });
        let rule = rule.collect::<String>() + "|\n";
        line(&header) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// A section of the model card of a bundle whose ensemble's file has that SHA-256. It says so where what was
    /// measured are other classifiers.
    pub fn card_section(&self, ensemble_sha256: &str) -> String {
        let own = |bundle: &MeasuredBundle| bundle.ensemble_sha256 == ensemble_sha256;
        let whose = if self.bundles.iter().all(own) {
            "Measured with the classifiers of this bundle"
        } else {
            "**Measured with other classifiers than those of this bundle**"
        };
        format!(
            "## In other light and by other cameras\n\n{whose}: {}. The photographs are the same in each row, changed \
             after decoding and before anything else.\n\n{}",
            self.subject(),
            self.markdown()
        )
    }
}

/// What stands in a column for a condition; a dash where there is nothing.
type Cell = fn(&ConditionRow) -> Option<String>;

/// A column's name and its cells.
type Column = (String, Cell);

impl ConditionRow {
    fn named(&self) -> Option<&NamedUnder> {
        self.heads.as_ref()?.named.as_ref()
    }

    fn top1(&self) -> Option<f64> {
        self.named()?.metrics.top1
    }
}
