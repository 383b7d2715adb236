use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a setting of a camera, such as its exposure, is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The camera chooses.
    Auto,
    /// A number, in the driver's units.
    Number(i64),
    /// An item of a menu by its name.
    Item(String),
}

impl FromStr for Setting {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text, text.parse()) {
            ("auto", _) => Self::Auto,
            (_, Ok(number)) => Self::Number(number),
            _ => Self::Item(text.to_owned()),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Item(name) => f.write_str(name),
        }
    }
}

/// Settings that another thread may change while the camera gives frames.
#[derive(Clone, Debug, Default)]
pub struct Settings(Arc<SharedSettings>);

#[derive(Debug, Default)]
struct SharedSettings {
    /// By name, with the number of the change that made it so.
    wanted: Mutex<Vec<(String, Setting, u64)>>,
    changes: AtomicU64,
}

impl Settings {
    /// Has the camera make a setting before its next frame, and again each time it is opened. A name that is set already
    /// takes the new value.
    pub fn set(&self, name: &str, setting: Setting) {
        let mut wanted = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let change = 1 + self.0.changes.fetch_add(1, Ordering::AcqRel);
        wanted.retain(|(known, ..)| known != name);
        wanted.push((name.to_owned(), setting, change));
    }

    /// All that were set, in the order in which they were.
    pub fn wanted(&self) -> Vec<(String, Setting)> {
        self.since(0)
    }

    /// Those that were made after a change.
    pub(super) fn since(&self, change: u64) -> Vec<(String, Setting)> {
        let wanted = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let later = wanted.iter().filter(|(.., made)| *made > change);
        later
            .map(|(name, setting, _)| (name.clone(), setting.clone()))
            .collect()
    }

    pub(super) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }
}
