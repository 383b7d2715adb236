use std::path::PathBuf;

use thiserror::Error;

/// Settings that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read the settings {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a value is of the wrong kind.
    #[error("{origin} is not as it should be:\n{reason}")]
    Parse {
        /// The file, the variable or the argument.
        origin: String,
        /// Line, value and reason.
        reason: String,
    },
    /// There is no such key.
    #[error(
        "{origin}: there is no setting {key}{}; `callosity settings` lists all",
        nearest.as_ref().map_or_else(String::new, |nearest| format!(", perhaps {nearest} is meant"))
    )]
    Unknown {
        /// The file with its line, the variable or the argument.
        origin: String,
        /// The key, with its tables.
        key: String,
        /// The key that looks most like it.
        nearest: Option<String>,
    },
    /// A value cannot be.
    #[error("{key} ({origin}) is {value}: {reason}")]
    Value {
        /// The key, with its tables.
        key: String,
        /// What it is.
        value: String,
        /// Where it comes from.
        origin: String,
        /// Why it cannot be, and what can.
        reason: String,
    },
    /// A key without which nothing can be flown.
    #[error(
        "{key} is not set: write `{key} = {example}` into {}",
        files.last().map_or_else(|| "the settings".to_owned(), |path| path.display().to_string())
    )]
    Missing {
        /// The key, with its tables.
        key: &'static str,
        /// How it may be set.
        example: &'static str,
        /// The files that were read.
        files: Vec<PathBuf>,
    },
    /// The broker's certificate, password and so on.
    #[error("the broker's settings cannot be used")]
    Link(#[from] link::LinkError),
}
