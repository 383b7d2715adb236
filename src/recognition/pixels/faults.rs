use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of a photograph there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incomplete {
    /// Share of its rows that could be read, from 0.5 to below 1.
    pub share_read: f64,
}

/// What is wrong with a photograph that was looked at all the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Faults {
    /// The file ends early, or its data does: what lies in the rows that are missing was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// The first that the decoder objected to. Some pixels may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

impl Faults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Share of the photograph's rows that could be read; 1 where it is whole.
    pub fn share_read(&self) -> f64 {
        self.incomplete.map_or(1.0, |part| part.share_read)
    }
}

/// Such as `incomplete, 87.5 % read; damaged: Corrupt JPEG data: bad Huffman code`; nothing where nothing is wrong.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.incomplete.is_some() {
            // Never rounded to all of it.
            let percent = (1000.0 * self.share_read()).floor() / 10.0;
            write!(f, "incomplete, {percent:.1} % read")?;
        }
        if let Some(reason) = &self.damaged {
            let separator = if self.incomplete.is_some() { "; " } else { "" };
            write!(f, "{separator}damaged: {reason}")?;
        }
        Ok(())
    }
}
