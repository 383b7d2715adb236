//! The rows of a report, kept in a file that outlives the run folders.

use std::path::Path;

use anyhow::{Context, ensure};
use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};

use super::CLASSES;
use super::boxes::LocaliserRow;
use crate::evaluation::NamingMetrics;
use crate::index::{read_json, write_json};
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Version of the table's file that this program reads and writes.
const FORMAT_VERSION: u32 = 2;

/// What every row says of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Name of the run's folder, where that is another than the recipe's; rows of one run belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Name of the recipe.
    pub recipe: String,
    /// SHA-256 of the run's recipe file.
    pub recipe_digest: String,
    /// Digest of the split that it was trained and measured on.
    pub split_digest: String,
    /// What the recipe says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Width and height of the network's input in pixels.
    pub input: [u32; 2],
    /// Trainable parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Epochs that were trained.
    pub epochs: u32,
    /// Epochs of the recipe's schedule; more than `epochs` in rows of runs that were not at their end, which earlier
    /// versions measured too.
    pub scheduled_epochs: u32,
    /// Images trained in a second, in the epoch whose weights are measured.
    pub images_per_second: Option<f64>,
}

impl Trained {
    /// Of a run.
    pub fn of(run: &TrainedRun) -> Self {
        Self {
            run: (run.name != run.recipe.name).then(|| run.name.clone()),
            recipe: run.recipe.name.clone(),
            recipe_digest: run.recipe_digest.clone(),
            split_digest: run.record.split_digest.clone(),
            about: run.recipe.about.clone(),
            input: [run.recipe.input.width, run.recipe.input.height],
            parameters: run.record.parameters,
            multiply_adds: run.record.multiply_adds,
            epochs: run.record.epochs_completed,
            scheduled_epochs: run.recipe.schedule.epochs,
            images_per_second: run.record.metrics.get("images_per_second").copied(),
        }
    }

    /// What the run is called in the table.
    pub fn name(&self) -> &str {
        self.run.as_ref().unwrap_or(&self.recipe)
    }
}

/// By what a whale is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// The network's own outputs.
    Logits,
    /// The most similar photograph that the network was trained on.
    Neighbours,
    /// Logits and neighbours, blended.
    Both,
}

impl std::fmt::Display for NamedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Logits => "logits",
            Self::Neighbours => "neighbours",
            Self::Both => "both",
        })
    }
}

/// How well one classifier names in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifierRow {
    /// The run.
    #[serde(flatten)]
    pub trained: Trained,
    /// By what it names.
    pub named_by: NamedBy,
    /// Temperature of the neighbours' cosines, where they have a say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbour_temperature: Option<f64>,
    /// Share of the neighbours in the blend of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbour_share: Option<f64>,
    /// On validation photographs, and on those of unknown whales.
    pub naming: NamingMetrics,
    /// Top-1 of whales by the number of photographs that it was trained on: 1, 2 to 5, 6 to 15, more.
    pub top1_by_photographs: Vec<Option<f64>>,
}

/// How well a stack of classifiers names, over its views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackRow {
    /// Name of its file, without the ending.
    pub stack: String,
    /// Digest of the split that it was fitted and measured on.
    pub split_digest: String,
    /// Runs of its classifiers.
    pub members: Vec<String>,
    /// Trainable parameters of all of them.
    pub parameters: usize,
    /// Multiply-adds for one photograph, with all its views.
    pub multiply_adds: u64,
    /// Views over which it averages.
    pub views: u32,
    /// L2 of the logistic regression; absent where plain averaging was better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Principal components it was fitted on; absent where these were all features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// Power of the probabilities; absent where they are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// Whether photographs of its gallery have a say.
    pub gallery: bool,
    /// On validation photographs, and on those of unknown whales.
    pub naming: NamingMetrics,
    /// As [`ClassifierRow::top1_by_photographs`].
    pub top1_by_photographs: Vec<Option<f64>>,
}

/// Errors of an aligner that averages so many views, in head lengths.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewsError {
    /// Views of each crop.
    pub views: u32,
    /// Median.
    pub median: f64,
    /// 90th percentile.
    pub percentile_90: f64,
}

/// How well one aligner places landmarks on composed crops of the held-out fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlignerRow {
    /// The run.
    #[serde(flatten)]
    pub trained: Trained,
    /// Crops that it was measured on.
    pub crops: usize,
    /// Mean error with one view.
    pub mean: f64,
    /// By the number of views, rising from one.
    pub by_views: Vec<ViewsError>,
}

/// A row of the table; those of one name belong together.
trait Row: Clone {
    fn name(&self) -> &str;
    fn split_digest(&self) -> &str;
}

impl Row for StackRow {
    fn name(&self) -> &str {
        &self.stack
    }

    fn split_digest(&self) -> &str {
        &self.split_digest
    }
}

/// A row that belongs to a run.
trait OfRun {
    fn trained(&self) -> &Trained;
}

impl<R: OfRun + Clone> Row for R {
    fn name(&self) -> &str {
        self.trained().name()
    }

    fn split_digest(&self) -> &str {
        &self.trained().split_digest
    }
}

impl OfRun for ClassifierRow {
    fn trained(&self) -> &Trained {
        &self.trained
    }
}

impl OfRun for AlignerRow {
    fn trained(&self) -> &Trained {
        &self.trained
    }
}

impl OfRun for LocaliserRow {
    fn trained(&self) -> &Trained {
        &self.trained
    }
}

/// All rows, of runs that were trained on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    format_version: u32,
    /// One to three for each classifier.
    pub classifiers: Vec<ClassifierRow>,
    /// One or two for each stack of classifiers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<StackRow>,
    /// One for each aligner.
    pub aligners: Vec<AlignerRow>,
    /// One for each localiser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localisers: Vec<LocaliserRow>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            format_version: FORMAT_VERSION,
            classifiers: Vec::new(),
            stacks: Vec::new(),
            aligners: Vec::new(),
            localisers: Vec::new(),
        }
    }
}

impl Table {
    /// Reads a table; an empty one where the file is not there yet.
    ///
    /// # Errors
    /// The file cannot be read, has another format, or a row of it was measured on another split.
    pub fn load(path: &Path, split: &Split) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let remedy = "measure the runs into a new file";
        let table: Self = read_json(path, "a table", FORMAT_VERSION, remedy)?;
        let digest = split.digest();
        for (name, of) in table.names_and_splits() {
            ensure!(
                of == digest,
                "{}: the row of {name} is of split {of}, this is {digest}: rows of different splits cannot be \
                 compared; take another file for each split",
                path.display(),
            );
        }
        Ok(table)
    }

    /// Writes the table; a reader never sees half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self).with_context(|| format!("writing {}", path.display()))
    }

    fn names_and_splits(&self) -> impl Iterator<Item = (&str, &str)> {
        fn of<R: Row>(rows: &[R]) -> impl Iterator<Item = (&str, &str)> {
            rows.iter().map(|row| (row.name(), row.split_digest()))
        }
        of(&self.classifiers)
            .chain(of(&self.stacks))
            .chain(of(&self.aligners))
            .chain(of(&self.localisers))
    }

    /// Takes over the rows of another table. All rows of a run or stack that it measures anew go, and
    /// the new ones take their place; everything else stays as it is, new ones follow.
    pub fn update(&mut self, new: &Self) {
        replace(&mut self.classifiers, &new.classifiers);
        replace(&mut self.stacks, &new.stacks);
        replace(&mut self.aligners, &new.aligners);
        replace(&mut self.localisers, &new.localisers);
    }

    /// All rows as tables in Markdown.
    ///
    /// # Errors
    /// The template fails.
    pub fn markdown(&self) -> anyhow::Result<String> {
        let mut environment = environment()?;
        environment.set_trim_blocks(true);
        environment.add_template("table.md", include_str!("table.md"))?;
        let page = environment.get_template("table.md")?.render(context! {
            classifiers => self.classifiers,
            stacks => self.stacks,
            aligners => self.aligners,
            localisers => self.localisers,
            classes => CLASSES.map(|class| class.0),
            version => env!("CARGO_PKG_VERSION"),
        })?;
        Ok(page)
    }
}

/// Templates with what the page and the Markdown share.
pub(super) fn environment() -> anyhow::Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.add_template("numbers", include_str!("numbers.txt"))?;
    Ok(environment)
}

fn replace<R: Row>(rows: &mut Vec<R>, new: &[R]) {
    for group in new.chunk_by(|a, b| a.name() == b.name()) {
        let name = group[0].name();
        let first = rows.iter().position(|row| row.name() == name);
        let place = first.unwrap_or(rows.len());
        rows.retain(|row| row.name() != name);
        rows.splice(place..place, group.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::split::{FORMAT_VERSION as SPLIT_FORMAT, SplitOptions};

    fn split() -> Split {
        Split {
            format_version: SPLIT_FORMAT,
            data_digest: "data".into(),
            options: SplitOptions::default(),
            individuals: vec!["a".into(), "b".into()],
            unknown_individuals: Vec::new(),
            roles: Default::default(),
            excluded: Default::default(),
            hidden_from_finder: Default::default(),
        }
    }

    fn trained(recipe: &str, digest: &str) -> Trained {
        Trained {
            run: None,
            recipe: recipe.into(),
            recipe_digest: "of the recipe".into(),
            split_digest: digest.into(),
            about: Some("thin | deep".into()),
            input: [160, 128],
            parameters: 1_234_567,
            multiply_adds: 98_700_000,
            epochs: 12,
            scheduled_epochs: 24,
            images_per_second: Some(250.4),
        }
    }

    fn row(recipe: &str, named_by: NamedBy, top1: f64) -> ClassifierRow {
        ClassifierRow {
            trained: trained(recipe, &split().digest()),
            named_by,
            neighbour_temperature: None,
            neighbour_share: None,
            naming: NamingMetrics {
                known: 600,
                unknown: 150,
                top1: Some(top1),
                top5: Some(0.8),
                map5: Some(0.7),
                log_loss: Some(1.25),
                calibration_error: Some(0.05),
                unknown_auroc: None,
            },
            top1_by_photographs: vec![None, Some(0.25), Some(0.5), Some(0.75)],
        }
    }

    fn aligner(recipe: &str) -> AlignerRow {
        AlignerRow {
            trained: Trained {
                epochs: 24,
                ..trained(recipe, &split().digest())
            },
            crops: 512,
            mean: 0.07,
            by_views: vec![ViewsError {
                views: 1,
                median: 0.061,
                percentile_90: 0.152,
            }],
        }
    }

    fn localiser(recipe: &str) -> LocaliserRow {
        LocaliserRow {
            trained: trained(recipe, &split().digest()),
            frames: 256,
            mean_iou: 0.4375,
            found: 0.375,
        }
    }

    #[test]
    fn stacks_have_rows_in_the_file_and_in_markdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        let stack = StackRow {
            stack: "stack-pca".into(),
            split_digest: split().digest(),
            members: vec!["x".into(), "y".into()],
            parameters: 3_000_000,
            multiply_adds: 400_000_000,
            views: 4,
            strength: Some(0.3),
            components: Some(64),
            power: None,
            gallery: false,
            naming: row("x", NamedBy::Logits, 0.5).naming,
            top1_by_photographs: vec![None; CLASSES.len()],
        };
        let with_gallery = StackRow {
            gallery: true,
            strength: None,
            components: None,
            power: Some(1.5),
            ..stack.clone()
        };
        let mut table = Table::default();
        table.update(&Table {
            stacks: vec![stack, with_gallery],
            ..Table::default()
        });
        table.save(&path).unwrap();
        assert_eq!(Table::load(&path, &split()).unwrap(), table);
        let text = table.markdown().unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
        let numbers = "0.500 | 0.800 | 0.700 | 1.250 | 0.050 | – | – | – | – | – |";
        let start = "| stack-pca | x, y | 3.00 | 400 | 4 |";
        assert_eq!(lines[2], format!("{start} 64 | 0.3 | – | no | {numbers}"));
        assert_eq!(
            lines[3],
            format!("{start} all | – | 1.50 | yes | {numbers}")
        );
        let cells = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|l| cells(l) == cells(lines[0])), "{text}");
    }

    #[test]
    fn localisers_have_rows_in_the_file_and_in_markdown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        let mut table = Table::default();
        table.update(&Table {
            localisers: vec![localiser("z")],
            ..Table::default()
        });
        table.save(&path).unwrap();
        assert_eq!(Table::load(&path, &split()).unwrap(), table);
        let text = table.markdown().unwrap();
        let row = text.lines().find(|l| l.starts_with("| z |")).unwrap();
        assert!(
            row.ends_with("| 12 of 24, unfinished | 250 | 0.438 | 0.375 | 256 |"),
            "{row}"
        );
        let header = text.lines().find(|l| l.starts_with("| run")).unwrap();
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        assert_eq!(cells(header), cells(row), "{text}");
    }

    #[test]
    fn runs_of_one_recipe_have_places_of_their_own() {
        let with_seed = |run: &str, top1: f64| ClassifierRow {
            trained: Trained {
                run: Some(run.into()),
                ..trained("x", &split().digest())
            },
            ..row("x", NamedBy::Logits, top1)
        };
        let mut table = Table::default();
        for row in [
            row("x", NamedBy::Logits, 0.5),
            with_seed("x-seed-2", 0.25),
            with_seed("x-seed-2", 0.125),
        ] {
            table.update(&Table {
                classifiers: vec![row],
                ..Table::default()
            });
        }
        let top1: Vec<Option<f64>> = table.classifiers.iter().map(|r| r.naming.top1).collect();
        assert_eq!(top1, [Some(0.5), Some(0.125)]);
        let text = table.markdown().unwrap();
        for start in ["| x |", "| x-seed-2 |"] {
            assert!(text.lines().any(|line| line.starts_with(start)), "{text}");
        }
    }

    #[test]
    fn rows_outlive_the_run_folder_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("table.json");
        let mut table = Table::load(&path, &split()).unwrap();
        assert_eq!(table, Table::default());
        table.update(&Table {
            classifiers: vec![row("x", NamedBy::Logits, 0.1), row("x", NamedBy::Both, 0.2)],
            aligners: vec![aligner("y")],
            ..Table::default()
        });
        table.save(&path).unwrap();
        assert_eq!(Table::load(&path, &split()).unwrap(), table);

        table.aligners[0].trained.split_digest = "other".into();
        table.save(&path).unwrap();
        let error = Table::load(&path, &split()).unwrap_err().to_string();
        assert!(error.contains("the row of y is of split other"), "{error}");
    }

    #[test]
    fn markdown_has_every_column_and_marks_runs_that_are_not_at_their_end() {
        let table = Table {
            classifiers: vec![row("x", NamedBy::Neighbours, 0.625)],
            aligners: vec![aligner("y")],
            ..Table::default()
        };
        let text = table.markdown().unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
        assert_eq!(lines.len(), 6, "{text}");
        let cells = |line: &str| -> Vec<String> {
            let line = line.replace("\\|", "!");
            line.trim_matches('|')
                .split('|')
                .map(|c| c.trim().to_owned())
                .collect()
        };
        let counts: Vec<usize> = lines.iter().map(|l| cells(l).len()).collect();
        assert_eq!(counts, [18, 18, 18, 10, 10, 10], "{text}");
        let of_classifier = [
            "x",
            "thin ! deep",
            "neighbours",
            "160 × 128",
            "1.23",
            "99",
            "12 of 24, unfinished",
            "250",
            "0.625",
            "0.800",
            "0.700",
            "1.250",
            "0.050",
            "–",
            "–",
            "0.250",
            "0.500",
            "0.750",
        ];
        assert_eq!(cells(lines[2]), of_classifier);
        let of_aligner = [
            "y",
            "thin ! deep",
            "160 × 128",
            "1.23",
            "99",
            "24",
            "250",
            "0.061",
            "0.152",
            "512",
        ];
        assert_eq!(cells(lines[5]), of_aligner);
    }

    proptest! {
        /// After an update each recipe has the rows of the last table that measured it, together, and
        /// recipes keep the places in which they first came.
        #[test]
        fn the_last_measurement_of_a_recipe_counts(
            tables in prop::collection::vec(
                prop::collection::btree_map(0..6u8, 1..4usize, 0..4), 1..6),
        ) {
            let mut table = Table::default();
            let mut order: Vec<u8> = Vec::new();
            let mut last: std::collections::BTreeMap<u8, Vec<ClassifierRow>> = Default::default();
            for (number, measured) in tables.iter().enumerate() {
                let mut new = Table::default();
                for (&recipe, &rows) in measured {
                    let ways = [NamedBy::Logits, NamedBy::Neighbours, NamedBy::Both];
                    let rows: Vec<ClassifierRow> = ways[..rows]
                        .iter()
                        .map(|&way| row(&recipe.to_string(), way, number as f64))
                        .collect();
                    new.classifiers.extend(rows.clone());
                    if last.insert(recipe, rows).is_none() {
                        order.push(recipe);
                    }
                }
                table.update(&new);
            }
            let expected: Vec<ClassifierRow> = order.iter().flat_map(|r| last[r].clone()).collect();
            prop_assert_eq!(table.classifiers, expected);
        }
    }
}
