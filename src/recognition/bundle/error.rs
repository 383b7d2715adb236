use std::path::PathBuf;

use super::{FORMAT_VERSION, GalleryError, MANIFEST_FILE};

/// A value in a manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must be {must}")]
pub struct ManifestProblem {
    /// Where the value stands, such as `finder.network.input.width`.
    pub field: String,
    /// The value found.
    pub value: String,
    /// What it must be.
    pub must: String,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file or the directory cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no manifest in the directory.
    #[error(
        "{directory} is no model bundle: it has no {MANIFEST_FILE}. Give the directory that holds it with --bundle",
        directory = directory.display()
    )]
    NoManifest {
        /// The directory looked at.
        directory: PathBuf,
    },
    /// The manifest is no JSON or lacks fields.
    #[error(
        "{path} is no manifest of a model bundle: {source}. Export the bundle again",
        path = path.display()
    )]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// The manifest is of another format.
    #[error(
        "{path} has format version {found}, and this program reads {FORMAT_VERSION}. Use a bundle exported for this program, or the program that the bundle was exported for",
        path = path.display()
    )]
    Format {
        /// The manifest.
        path: PathBuf,
        /// Its format version.
        found: u64,
    },
    /// The program is too old for the bundle.
    #[error(
        "{path} needs callosity {needed} or later, and this is {program}. Update the program",
        path = path.display()
    )]
    Program {
        /// The manifest.
        path: PathBuf,
        /// The oldest version that will do.
        needed: semver::Version,
        /// This program's version.
        program: semver::Version,
    },
    /// A value in the manifest cannot be used.
    #[error("{path}: {problem}. Export the bundle again", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The value.
        problem: ManifestProblem,
    },
    /// A file that the manifest names is not there.
    #[error(
        "{path} is missing, though the manifest names it as {field}. Copy the bundle again, whole",
        path = path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Where the manifest names it.
        field: String,
    },
    /// A file that the manifest names lies outside the bundle, by way of a symbolic link.
    #[error(
        "{path}, named as {field}, leads out of the bundle. Put the file itself into the bundle",
        path = path.display()
    )]
    Outside {
        /// The file.
        path: PathBuf,
        /// Where the manifest names it.
        field: String,
    },
    /// A file is not the one that the manifest was written for.
    #[error(
        "{path} has SHA-256 {found}, and the manifest says {expected}: the file was changed or damaged. Copy the bundle again",
        path = path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The gallery is none.
    #[error("{path}: {source}. Copy the bundle again, or enroll again", path = path.display())]
    Gallery {
        /// The gallery's file.
        path: PathBuf,
        /// What is wrong with it.
        source: GalleryError,
    },
    /// A bundle cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is something already where a bundle is to be written.
    #[error("{path} is there already, and a bundle is never overwritten. Name another folder", path = path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A bundle is to be written into another one.
    #[error(
        "{path} lies in the bundle {directory}, which stays as it is. Name a folder elsewhere",
        path = path.display(),
        directory = directory.display()
    )]
    Within {
        /// The folder.
        path: PathBuf,
        /// The bundle that it lies in.
        directory: PathBuf,
    },
    /// Somebody is to be enrolled in a bundle that compares with no photographs.
    #[error(
        "{directory} has no gallery, so nobody can be enrolled in it. Make it again with `callosity-train stack` and `bundle`, which write one",
        directory = directory.display()
    )]
    NoGallery {
        /// The bundle's directory.
        directory: PathBuf,
    },
    /// A self-test's file has the wrong size.
    #[error(
        "{path} has {found} bytes, and {field} needs {expected}. Export the bundle again",
        path = path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Where the manifest names it.
        field: String,
        /// Bytes asked for.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
}
