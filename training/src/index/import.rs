//! From a folder of photographs and tables to an [`Index`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use indicatif::{ParallelProgressIterator, ProgressBar};
use rayon::prelude::*;
use recognition::geometry::{Landmarks, Point};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::duplicates::{self, Duplicate, Fingerprint};
use super::{
    FORMAT_VERSION, HeadBox, Index, IndexError, IndexedPhotograph, PhotographKind, Problem,
    ProblemKind, SourcePose,
};
use crate::photograph;

/// How a folder of photographs is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `heads/` with `heads.csv` (`image,whale`) and `landmarks.csv`
    /// (`image,width,height,bonnet_x,bonnet_y,blowhead_x,blowhead_y`), `unlabelled_heads/`, `frames/`
    /// with `frames.csv` (`image,whale,width,height`, landmarks, or `box_x,box_y,box_width,box_height`;
    /// several rows for several heads). Each part may be missing.
    RightWhales,
    /// `imgs/`, `train.csv` (`Image,whaleID`), `points1.json` (bonnet) and `points2.json` (blowhead) in
    /// the annotation format of Sloth.
    Challenge,
}

impl Layout {
    /// Which layout a folder has.
    pub fn detect(root: &Path) -> Option<Self> {
        let has = |name: &str| root.join(name).exists();
        if (has("heads") && has("heads.csv")) || (has("frames") && has("frames.csv")) {
            Some(Self::RightWhales)
        } else if has("imgs") && has("train.csv") {
            Some(Self::Challenge)
        } else {
            None
        }
    }
}

/// What an import gives.
#[derive(Clone, Debug)]
pub struct Import {
    /// The layout that was found.
    pub layout: Layout,
    /// The index.
    pub index: Index,
    /// What was wrong and was left out.
    pub problems: Vec<Problem>,
    /// Pairs of photographs with the same content.
    pub duplicates: Vec<Duplicate>,
}

/// A head as a table gives it, before the photograph is known.
#[derive(Clone, Debug)]
struct Annotation {
    table: PathBuf,
    line: Option<u64>,
    individual: Option<String>,
    size: Option<(u32, u32)>,
    landmarks: Option<Landmarks>,
    head_box: Option<HeadBox>,
}

/// Reads the folder `root`. Reports progress over its photographs on `progress`.
///
/// What is wrong with single photographs or rows is listed in [`Import::problems`] and left out.
///
/// # Errors
/// Where the layout is not recognised or a table cannot be read at all.
pub fn import(root: &Path, progress: &ProgressBar) -> Result<Import, IndexError> {
    let root = root.canonicalize().map_err(|source| IndexError::File {
        path: root.into(),
        source,
    })?;
    let layout = Layout::detect(&root).ok_or_else(|| IndexError::UnknownLayout(root.clone()))?;
    let mut problems = Vec::new();
    let (folders, tables) = match layout {
        Layout::RightWhales => (
            vec![
                (PhotographKind::Head, "heads"),
                (PhotographKind::UnlabelledHead, "unlabelled_heads"),
                (PhotographKind::Frame, "frames"),
            ],
            Tables::of_right_whales(&root, &mut problems)?,
        ),
        Layout::Challenge => (
            vec![(PhotographKind::Frame, "imgs")],
            Tables::of_challenge(&root, &mut problems)?,
        ),
    };

    let mut files = Vec::new();
    for (kind, folder) in folders {
        for name in photographs_in(&root.join(folder))? {
            files.push((kind, folder, name));
        }
    }
    progress.set_length(files.len() as u64);
    let read: Vec<_> = files
        .par_iter()
        .progress_with(progress.clone())
        .map(|(_, folder, name)| read_photograph(&root.join(folder).join(name)))
        .collect();

    let ambiguous = ambiguous_kinds(&files);
    let mut photographs = Vec::new();
    let mut fingerprints = Vec::new();
    for ((kind, folder, name), read) in files.iter().zip(read) {
        let file = Path::new(folder).join(name);
        let read = match read {
            Ok(read) => read,
            Err(reason) => {
                problems.push(Problem {
                    kind: ProblemKind::UnreadablePhotograph,
                    file,
                    line: None,
                    value: reason,
                });
                continue;
            }
        };
        let image = if ambiguous.contains(kind) {
            format!("{folder}/{name}")
        } else {
            name.clone()
        };
        let mut photograph = IndexedPhotograph {
            image,
            file,
            kind: *kind,
            individual: None,
            landmarks: Vec::new(),
            head_individuals: Vec::new(),
            boxes: Vec::new(),
            source_pose: None,
            frame: None,
            width: read.width,
            height: read.height,
            sha256: read.sha256,
            duplicate_of: None,
        };
        tables.annotate(&mut photograph, name, &mut problems);
        photographs.push(photograph);
        fingerprints.push(read.fingerprint);
    }
    tables.report_labels_without_file(&files, &mut problems);
    link_frames(&mut photographs);
    let duplicates = duplicates::mark(&mut photographs, &fingerprints);
    Ok(Import {
        layout,
        index: Index {
            format_version: FORMAT_VERSION,
            root,
            photographs,
        },
        problems,
        duplicates,
    })
}

/// Names of the photographs of a folder in order; none where there is no such folder.
fn photographs_in(folder: &Path) -> Result<Vec<String>, IndexError> {
    let error = |source| IndexError::File {
        path: folder.into(),
        source,
    };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let extension = Path::new(&name)
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        let known = ["jpg", "jpeg", "png", "tif", "tiff"];
        if extension.is_some_and(|e| known.contains(&e.as_str())) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The kinds whose names of files also occur among kinds before them.
fn ambiguous_kinds(files: &[(PhotographKind, &str, String)]) -> BTreeSet<PhotographKind> {
    let mut first: HashMap<&str, PhotographKind> = HashMap::new();
    let mut ambiguous = BTreeSet::new();
    for (kind, _, name) in files {
        if first.entry(name).or_insert(*kind) != kind {
            ambiguous.insert(*kind);
        }
    }
    ambiguous
}

/// Heads point to the frame of the same name.
fn link_frames(photographs: &mut [IndexedPhotograph]) {
    let frames: HashMap<PathBuf, String> = photographs
        .iter()
        .filter(|p| p.kind == PhotographKind::Frame)
        .filter_map(|p| Some((p.file.file_name()?.into(), p.image.clone())))
        .collect();
    for photograph in photographs {
        if photograph.kind != PhotographKind::Frame
            && let Some(name) = photograph.file.file_name()
        {
            photograph.frame = frames.get(Path::new(name)).cloned();
        }
    }
}

struct ReadPhotograph {
    width: u32,
    height: u32,
    sha256: String,
    fingerprint: Fingerprint,
}

fn read_photograph(path: &Path) -> Result<ReadPhotograph, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let (pixels, (width, height)) =
        photograph::decode_reduced(bytes, Fingerprint::LEAST_SIDE).map_err(|e| e.to_string())?;
    Ok(ReadPhotograph {
        width,
        height,
        sha256,
        fingerprint: Fingerprint::of(&pixels),
    })
}

/// What the tables of a folder say, by name of file.
#[derive(Default)]
struct Tables {
    /// Names of whales: of heads, or of challenge photographs.
    labels: BTreeMap<String, (PathBuf, u64, String)>,
    /// Whether `labels` speaks of heads (else of frames).
    labels_are_of_heads: bool,
    /// Poses of heads in the frames they were cut from.
    poses: BTreeMap<String, (PathBuf, u64, SourcePose)>,
    /// Heads in frames.
    frames: BTreeMap<String, Vec<Annotation>>,
}

/// One row of a table with its line.
struct Row {
    line: u64,
    values: HashMap<String, String>,
}

impl Row {
    /// A value, `None` where it is empty or the column is missing.
    fn text(&self, column: &str) -> Option<&str> {
        self.values
            .get(column)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// Numbers of several columns: all, or none where all are empty, or which one is wrong.
    fn numbers<const N: usize>(&self, columns: [&str; N]) -> Result<Option<[f64; N]>, String> {
        if columns.iter().all(|c| self.text(c).is_none()) {
            return Ok(None);
        }
        let mut numbers = [0.0; N];
        for (number, column) in numbers.iter_mut().zip(columns) {
            let text = self.text(column).ok_or(format!("{column} is missing"))?;
            *number = text
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite())
                .ok_or(format!("{column} = {text} is no number"))?;
        }
        Ok(Some(numbers))
    }

    fn landmarks(&self) -> Result<Option<Landmarks>, String> {
        let columns = ["bonnet_x", "bonnet_y", "blowhead_x", "blowhead_y"];
        Ok(self.numbers(columns)?.map(|[x0, y0, x1, y1]| Landmarks {
            bonnet: Point::new(x0, y0),
            blowhead: Point::new(x1, y1),
        }))
    }

    fn size(&self) -> Result<Option<(u32, u32)>, String> {
        let Some(numbers) = self.numbers(["width", "height"])? else {
            return Ok(None);
        };
        let pixels = |n: f64| (n >= 1.0 && n <= f64::from(u32::MAX)).then_some(n as u32);
        match numbers.map(pixels) {
            [Some(width), Some(height)] => Ok(Some((width, height))),
            _ => Err(format!("size {} × {}", numbers[0], numbers[1])),
        }
    }

    fn head_box(&self) -> Result<Option<HeadBox>, String> {
        let columns = ["box_x", "box_y", "box_width", "box_height"];
        match self.numbers(columns)? {
            None => Ok(None),
            Some([x, y, width, height]) if width > 0.0 && height > 0.0 => Ok(Some(HeadBox {
                x,
                y,
                width,
                height,
            })),
            Some([_, _, width, height]) => Err(format!("box of {width} × {height}")),
        }
    }
}

/// Rows of a CSV table; rows with a wrong number of fields become problems.
fn read_table(
    root: &Path,
    name: &str,
    required: &[&str],
    problems: &mut Vec<Problem>,
) -> Result<Vec<Row>, IndexError> {
    let path = root.join(name);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let table_error = |reason: String| IndexError::Table {
        path: path.clone(),
        reason,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(&path)
        .map_err(|e| table_error(e.to_string()))?;
    let header = reader
        .headers()
        .map_err(|e| table_error(e.to_string()))?
        .clone();
    for column in required {
        if !header.iter().any(|h| h == *column) {
            return Err(table_error(format!("column {column} is missing")));
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => rows.push(Row {
                line: record.position().map_or(0, csv::Position::line),
                values: header
                    .iter()
                    .zip(record.iter())
                    .map(|(h, v)| (h.to_owned(), v.to_owned()))
                    .collect(),
            }),
            Err(e) if !e.is_io_error() => problems.push(Problem {
                kind: ProblemKind::MalformedRow,
                file: name.into(),
                line: e.position().map(csv::Position::line),
                value: e.to_string(),
            }),
            Err(e) => return Err(table_error(e.to_string())),
        }
    }
    Ok(rows)
}

/// Whether both landmarks lie in a frame of this size, apart from each other.
fn inside(landmarks: &Landmarks, width: u32, height: u32) -> bool {
    let (w, h) = (f64::from(width), f64::from(height));
    let within = |p: Point| p.x >= 0.0 && p.y >= 0.0 && p.x <= w && p.y <= h;
    within(landmarks.bonnet) && within(landmarks.blowhead) && landmarks.head_length() >= 1.0
}

fn describe(landmarks: &Landmarks, width: u32, height: u32) -> String {
    let Landmarks { bonnet, blowhead } = landmarks;
    format!(
        "bonnet ({}, {}), blowhead ({}, {}) in {width} × {height}",
        bonnet.x, bonnet.y, blowhead.x, blowhead.y
    )
}

impl Tables {
    fn of_right_whales(root: &Path, problems: &mut Vec<Problem>) -> Result<Self, IndexError> {
        let mut tables = Self {
            labels_are_of_heads: true,
            ..Self::default()
        };
        tables.read_labels(root, "heads.csv", "image", "whale", problems)?;

        let name = "landmarks.csv";
        for row in read_table(root, name, &["image", "width", "height"], problems)? {
            let mut problem = |kind, value| {
                problems.push(Problem {
                    kind,
                    file: name.into(),
                    line: Some(row.line),
                    value,
                });
            };
            let read = (|| -> Result<_, String> {
                let image = row.text("image").ok_or("image is missing")?;
                let size = row.size()?.ok_or("width and height are missing")?;
                let landmarks = row.landmarks()?.ok_or("landmarks are missing")?;
                Ok((image.to_owned(), size, landmarks))
            })();
            match read {
                Err(reason) => problem(ProblemKind::MalformedRow, reason),
                Ok((image, (width, height), landmarks)) if !inside(&landmarks, width, height) => {
                    problem(
                        ProblemKind::LandmarksOutsideFrame,
                        format!("{image}: {}", describe(&landmarks, width, height)),
                    );
                }
                Ok((image, (frame_width, frame_height), landmarks)) => {
                    let pose = SourcePose {
                        frame_width,
                        frame_height,
                        landmarks,
                    };
                    tables.poses.insert(image, (name.into(), row.line, pose));
                }
            }
        }

        let name = "frames.csv";
        for row in read_table(root, name, &["image"], problems)? {
            let read = (|| -> Result<_, String> {
                let image = row.text("image").ok_or("image is missing")?;
                Ok((
                    image.to_owned(),
                    Annotation {
                        table: name.into(),
                        line: Some(row.line),
                        individual: row.text("whale").map(str::to_owned),
                        size: row.size()?,
                        landmarks: row.landmarks()?,
                        head_box: row.head_box()?,
                    },
                ))
            })();
            match read {
                Ok((image, annotation)) => {
                    tables.frames.entry(image).or_default().push(annotation);
                }
                Err(value) => problems.push(Problem {
                    kind: ProblemKind::MalformedRow,
                    file: name.into(),
                    line: Some(row.line),
                    value,
                }),
            }
        }
        Ok(tables)
    }

    fn of_challenge(root: &Path, problems: &mut Vec<Problem>) -> Result<Self, IndexError> {
        let mut tables = Self::default();
        tables.read_labels(root, "train.csv", "Image", "whaleID", problems)?;
        let bonnets = read_points(root, "points1.json", problems)?;
        let mut blowheads = read_points(root, "points2.json", problems)?;
        for (image, bonnets) in bonnets {
            let blowheads = blowheads.remove(&image).unwrap_or_default();
            if bonnets.len() != blowheads.len() {
                problems.push(Problem {
                    kind: ProblemKind::MalformedRow,
                    file: "points2.json".into(),
                    line: None,
                    value: format!(
                        "{image}: {} blowheads for {} bonnets of points1.json",
                        blowheads.len(),
                        bonnets.len()
                    ),
                });
                continue;
            }
            let individual = tables.labels.get(&image).map(|(_, _, whale)| whale.clone());
            let heads = bonnets.into_iter().zip(blowheads);
            tables.frames.insert(
                image,
                heads
                    .map(|(bonnet, blowhead)| Annotation {
                        table: "points1.json".into(),
                        line: None,
                        individual: individual.clone(),
                        size: None,
                        landmarks: Some(Landmarks { bonnet, blowhead }),
                        head_box: None,
                    })
                    .collect(),
            );
        }
        for (image, points) in blowheads {
            problems.push(Problem {
                kind: ProblemKind::MalformedRow,
                file: "points1.json".into(),
                line: None,
                value: format!("{image}: no bonnet for {} blowheads", points.len()),
            });
        }
        Ok(tables)
    }

    fn read_labels(
        &mut self,
        root: &Path,
        name: &str,
        image_column: &str,
        whale_column: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<(), IndexError> {
        for row in read_table(root, name, &[image_column, whale_column], problems)? {
            let mut problem = |kind, value| {
                problems.push(Problem {
                    kind,
                    file: name.into(),
                    line: Some(row.line),
                    value,
                });
            };
            let (Some(image), Some(whale)) = (row.text(image_column), row.text(whale_column))
            else {
                problem(
                    ProblemKind::MalformedRow,
                    format!("{image_column} or {whale_column} is empty"),
                );
                continue;
            };
            match self.labels.get(image) {
                None => {
                    let label = (PathBuf::from(name), row.line, whale.to_owned());
                    self.labels.insert(image.to_owned(), label);
                }
                Some((_, _, first)) if first != whale => problem(
                    ProblemKind::ContradictoryLabel,
                    format!("{image}: {first} and {whale}"),
                ),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Gives a photograph what the tables say of the file `name`.
    fn annotate(
        &self,
        photograph: &mut IndexedPhotograph,
        name: &str,
        problems: &mut Vec<Problem>,
    ) {
        match photograph.kind {
            PhotographKind::UnlabelledHead => {}
            PhotographKind::Head => {
                let landmarks =
                    IndexedPhotograph::aligned_landmarks(photograph.width, photograph.height);
                photograph.landmarks = vec![landmarks];
                photograph.individual = self.labels.get(name).map(|(_, _, w)| w.clone());
                photograph.head_individuals = vec![photograph.individual.clone()];
                photograph.source_pose = self.poses.get(name).map(|(_, _, pose)| *pose);
                if photograph.individual.is_none() {
                    problems.push(Problem {
                        kind: ProblemKind::HeadWithoutLabel,
                        file: photograph.file.clone(),
                        line: None,
                        value: name.into(),
                    });
                }
            }
            PhotographKind::Frame => self.annotate_frame(photograph, name, problems),
        }
    }

    fn annotate_frame(
        &self,
        photograph: &mut IndexedPhotograph,
        name: &str,
        problems: &mut Vec<Problem>,
    ) {
        let (width, height) = (photograph.width, photograph.height);
        let mut individuals = BTreeSet::new();
        if !self.labels_are_of_heads {
            individuals.extend(self.labels.get(name).map(|(_, _, whale)| whale.clone()));
        }
        for annotation in self.frames.get(name).into_iter().flatten() {
            individuals.extend(annotation.individual.clone());
            let mut problem = |kind, value| {
                problems.push(Problem {
                    kind,
                    file: annotation.table.clone(),
                    line: annotation.line,
                    value,
                });
            };
            if let Some((w, h)) = annotation.size
                && (w, h) != (width, height)
            {
                problem(
                    ProblemKind::SizeMismatch,
                    format!("{name}: {w} × {h} in the table, {width} × {height} in the file"),
                );
                continue;
            }
            match &annotation.landmarks {
                Some(landmarks) if inside(landmarks, width, height) => {
                    photograph.landmarks.push(*landmarks);
                    photograph
                        .head_individuals
                        .push(annotation.individual.clone());
                }
                Some(landmarks) => problem(
                    ProblemKind::LandmarksOutsideFrame,
                    format!("{name}: {}", describe(landmarks, width, height)),
                ),
                None => {}
            }
            photograph.boxes.extend(annotation.head_box);
        }
        if individuals.len() == 1 {
            photograph.individual = individuals.pop_first();
        }
    }

    fn report_labels_without_file(
        &self,
        files: &[(PhotographKind, &str, String)],
        problems: &mut Vec<Problem>,
    ) {
        let names_of = |frames: bool| -> BTreeSet<&str> {
            files
                .iter()
                .filter(|(kind, _, _)| (*kind == PhotographKind::Frame) == frames)
                .map(|(_, _, name)| name.as_str())
                .collect()
        };
        let (heads, frames) = (names_of(false), names_of(true));
        let labelled = if self.labels_are_of_heads {
            &heads
        } else {
            &frames
        };
        let mut problem = |table: &Path, line, image: &str| {
            problems.push(Problem {
                kind: ProblemKind::LabelWithoutFile,
                file: table.into(),
                line,
                value: image.into(),
            });
        };
        for (image, (table, line, _)) in &self.labels {
            if !labelled.contains(image.as_str()) {
                problem(table, Some(*line), image);
            }
        }
        for (image, (table, line, _)) in &self.poses {
            if !heads.contains(image.as_str()) {
                problem(table, Some(*line), image);
            }
        }
        for (image, annotations) in &self.frames {
            if !frames.contains(image.as_str()) {
                for annotation in annotations {
                    problem(&annotation.table, annotation.line, image);
                }
            }
        }
    }
}

/// One photograph of a Sloth annotation file.
#[derive(Deserialize)]
struct SlothPhotograph {
    filename: String,
    #[serde(default)]
    annotations: Vec<SlothAnnotation>,
}

#[derive(Deserialize)]
struct SlothAnnotation {
    class: String,
    x: Option<f64>,
    y: Option<f64>,
}

/// Points of a Sloth annotation file by name of photograph.
fn read_points(
    root: &Path,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Result<BTreeMap<String, Vec<Point>>, IndexError> {
    let path = root.join(name);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let file = File::open(&path).map_err(|source| IndexError::File {
        path: path.clone(),
        source,
    })?;
    let photographs: Vec<SlothPhotograph> =
        serde_json::from_reader(BufReader::new(file)).map_err(|source| IndexError::Json {
            path: path.clone(),
            source,
        })?;
    let mut points: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for photograph in photographs {
        // Annotated on Windows as well as on Linux.
        let file_name = photograph.filename.rsplit(['/', '\\']).next();
        let image = file_name.unwrap_or_default().to_owned();
        for annotation in photograph.annotations {
            if !annotation.class.eq_ignore_ascii_case("point") {
                continue;
            }
            match (annotation.x, annotation.y) {
                (Some(x), Some(y)) if x.is_finite() && y.is_finite() => {
                    points
                        .entry(image.clone())
                        .or_default()
                        .push(Point::new(x, y));
                }
                _ => problems.push(Problem {
                    kind: ProblemKind::MalformedRow,
                    file: name.into(),
                    line: None,
                    value: format!("{image}: point without x and y"),
                }),
            }
        }
    }
    Ok(points)
}
