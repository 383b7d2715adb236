//! The index: what photographs there are, whom they show, where the landmarks lie, and which of them
//! are the same photograph.
//!
//! [`import`] reads a folder in one of two [layouts](Layout); everything after it reads the index.

mod duplicates;
mod import;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use recognition::geometry::{HeadCrop, Landmarks};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{Partial, folder_of};

pub use duplicates::{Duplicate, Resemblance};
pub use import::{Import, Layout, import};

/// Version of the format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Why an index could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder has neither layout.
    #[error(
        "{0}: no layout is recognised: expected heads/ with heads.csv or frames/ with frames.csv \
         (right whale folder), or imgs/ with train.csv (original challenge)"
    )]
    UnknownLayout(PathBuf),
    /// A table is no CSV or lacks a column.
    #[error("{path}: {reason}")]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A JSON file does not have the expected form.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The index was written by another version.
    #[error(
        "{path}: index format {found}, this program reads {FORMAT_VERSION}: run `callosity-train import` again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// Two photographs of the index have one identifier.
    #[error("{path}: photograph {image} stands twice in the index")]
    Ambiguous {
        /// The index.
        path: PathBuf,
        /// The identifier.
        image: String,
    },
}

/// What a photograph shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhotographKind {
    /// A head, cut and aligned by its landmarks ([`HeadCrop::RIGHT_WHALE`]).
    Head,
    /// A head cut by an automatic detector; no name, no exact landmarks.
    UnlabelledHead,
    /// A whole frame as it left the camera.
    Frame,
}

/// The pose in which a head lay in the frame it was cut from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePose {
    /// Width of that frame in pixels.
    pub frame_width: u32,
    /// Height of that frame in pixels.
    pub frame_height: u32,
    /// Landmarks in that frame's pixels.
    pub landmarks: Landmarks,
}

/// An axis-parallel box around a head, in pixels of its photograph.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadBox {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width; above 0.
    pub width: f64,
    /// Height; above 0.
    pub height: f64,
}

/// One photograph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexedPhotograph {
    /// Identifier, unique in the index: the file's name, behind `frames/` or `unlabelled_heads/` where
    /// names of that kind occur among other kinds too.
    pub image: String,
    /// The file, relative to [`Index::root`].
    pub file: PathBuf,
    /// What it shows.
    pub kind: PhotographKind,
    /// The one whale that it shows, where all its labels agree on one.
    pub individual: Option<String>,
    /// Landmarks of each annotated head, in this photograph's own pixels.
    pub landmarks: Vec<Landmarks>,
    /// Whale of each entry of `landmarks`, in the same order.
    pub head_individuals: Vec<Option<String>>,
    /// Boxes around heads, where the data gives boxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<HeadBox>,
    /// For a head: where it lay in its frame.
    pub source_pose: Option<SourcePose>,
    /// For a head: identifier of the frame that it was cut from, where the index has it.
    pub frame: Option<String>,
    /// Width in pixels, as displayed (EXIF orientation obeyed).
    pub width: u32,
    /// Height in pixels, as displayed.
    pub height: u32,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Identifier of the first photograph of the index with the same content, where this is not it.
    pub duplicate_of: Option<String>,
}

impl IndexedPhotograph {
    /// Where the head that it shows lay in the frame: the pose of the frame that a head was cut from, or
    /// that of the first landmarks in a frame.
    pub fn head_pose(&self) -> Option<SourcePose> {
        match self.kind {
            PhotographKind::Head => self.source_pose,
            PhotographKind::UnlabelledHead => None,
            PhotographKind::Frame => Some(SourcePose {
                frame_width: self.width,
                frame_height: self.height,
                landmarks: *self.landmarks.first()?,
            }),
        }
    }

    /// Landmarks that an aligned head has by its construction.
    pub(crate) fn aligned_landmarks(width: u32, height: u32) -> Landmarks {
        HeadCrop::RIGHT_WHALE.landmarks(width, height)
    }
}

#[cfg(test)]
impl IndexedPhotograph {
    /// A photograph of one head for tests: its content is that of its identifier.
    pub(crate) fn example(image: &str, kind: PhotographKind, whale: Option<&str>) -> Self {
        Self {
            image: image.to_owned(),
            file: PathBuf::from(image),
            kind,
            individual: whale.map(str::to_owned),
            landmarks: vec![Self::aligned_landmarks(224, 224)],
            head_individuals: vec![whale.map(str::to_owned)],
            boxes: Vec::new(),
            source_pose: None,
            frame: None,
            width: 224,
            height: 224,
            sha256: image.to_owned(),
            duplicate_of: None,
        }
    }
}

/// All photographs of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Folder to which files are relative.
    pub root: PathBuf,
    /// Heads, unlabelled heads, then frames; each in order of file names.
    pub photographs: Vec<IndexedPhotograph>,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// Where the file cannot be read, has another format, or has an identifier twice.
    pub fn load(path: &Path) -> Result<Self, IndexError> {
        let file = File::open(path).map_err(|source| IndexError::File {
            path: path.into(),
            source,
        })?;
        let index: Self =
            serde_json::from_reader(BufReader::new(file)).map_err(|source| IndexError::Json {
                path: path.into(),
                source,
            })?;
        if index.format_version != FORMAT_VERSION {
            return Err(IndexError::Format {
                path: path.into(),
                found: index.format_version,
            });
        }
        let mut seen = BTreeSet::new();
        for photograph in &index.photographs {
            if !seen.insert(&photograph.image) {
                return Err(IndexError::Ambiguous {
                    path: path.into(),
                    image: photograph.image.clone(),
                });
            }
        }
        Ok(index)
    }

    /// Writes the index; a reader never sees half of it.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), IndexError> {
        write_json(path, self).map_err(|source| IndexError::File {
            path: path.into(),
            source,
        })
    }

    /// SHA-256 of what the index says, lower-case hexadecimal. Does not depend on where the data lies.
    pub fn digest(&self) -> String {
        let content = serde_json::to_vec(&(self.format_version, &self.photographs))
            .expect("an index has only strings and numbers");
        hex::encode(Sha256::digest(&content))
    }

    /// Photographs of one head each, of whales whose names are not known.
    pub fn unlabelled_heads(&self) -> impl Iterator<Item = &IndexedPhotograph> {
        let unlabelled = |p: &&IndexedPhotograph| p.kind == PhotographKind::UnlabelledHead;
        self.photographs.iter().filter(unlabelled)
    }

    /// The photographs that show one head each: aligned heads, or, in data without any, frames that name
    /// one whale and give its landmarks, from which the head can be cut.
    pub fn head_photographs(&self) -> impl Iterator<Item = &IndexedPhotograph> {
        let is_head = |p: &IndexedPhotograph| p.kind == PhotographKind::Head;
        let has_heads = self.photographs.iter().any(is_head);
        self.photographs.iter().filter(move |p| {
            if has_heads {
                is_head(p)
            } else {
                p.kind == PhotographKind::Frame && p.individual.is_some() && !p.landmarks.is_empty()
            }
        })
    }

    /// The photograph with this identifier.
    pub fn get(&self, image: &str) -> Option<&IndexedPhotograph> {
        self.photographs.iter().find(|p| p.image == image)
    }

    /// Where the photograph's file lies.
    pub fn path(&self, photograph: &IndexedPhotograph) -> PathBuf {
        self.root.join(&photograph.file)
    }
}

/// Reads JSON whose `format_version` is `version`. `what` names the kind of file in errors, and `remedy` says what
/// to do about one of another version.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    what: &str,
    version: u32,
    remedy: &str,
) -> anyhow::Result<T> {
    #[derive(Deserialize)]
    struct Header {
        format_version: u32,
    }
    let context = || format!("reading {what} {}", path.display());
    let bytes = std::fs::read(path).with_context(context)?;
    // The rest of another version may be anything.
    let found = serde_json::from_slice::<Header>(&bytes)
        .with_context(context)?
        .format_version;
    ensure!(
        found == version,
        "{}: {what} of format {found}, this program reads {version}; {remedy}",
        path.display()
    );
    serde_json::from_slice(&bytes).with_context(context)
}

/// Writes `value` as JSON beside `path` and moves it there when it is complete.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)?;
    let mut partial = Partial::new(folder)?;
    {
        let mut writer = BufWriter::new(partial.file());
        serde_json::to_writer_pretty(&mut writer, value)?;
        writer.write_all(b"\n")?;
        writer.flush()?;
    }
    partial.keep(path)
}

/// Something in the data that is wrong; the import goes on without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of fault.
    pub kind: ProblemKind,
    /// The file with the fault, relative to the root.
    pub file: PathBuf,
    /// Line in that file, from 1, where it is a table.
    pub line: Option<u64>,
    /// The value that is wrong, or the reason.
    pub value: String,
}

/// Kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A file that is no photograph, or a damaged one; it is left out.
    UnreadablePhotograph,
    /// A row names a file that is not there; the row is left out.
    LabelWithoutFile,
    /// An aligned head without a label; it is kept without a name.
    HeadWithoutLabel,
    /// A row with a missing or malformed value; the row is left out.
    MalformedRow,
    /// Landmarks that lie outside their frame or coincide; they are left out.
    LandmarksOutsideFrame,
    /// A frame's size in the table differs from the photograph's; its landmarks are left out.
    SizeMismatch,
    /// One photograph with two names; the first is kept.
    ContradictoryLabel,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnreadablePhotograph => "photograph cannot be read",
            Self::LabelWithoutFile => "label names no file",
            Self::HeadWithoutLabel => "head without label",
            Self::MalformedRow => "malformed row",
            Self::LandmarksOutsideFrame => "landmarks outside the frame or coinciding",
            Self::SizeMismatch => "frame size differs from the photograph's",
            Self::ContradictoryLabel => "one photograph with two names",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {}", self.kind, self.value)
    }
}
