//! Walks round the box before a flight, as a pilot walks round the aircraft: every part that the settings name is looked
//! at, and each finding says that it is well, or what to do.
//!
//! Nothing is changed: cameras are opened as the flight would open them and closed again, folders are written to and the
//! file taken away, the broker is greeted under another name than the flight's.

mod camera;
mod computer;
mod engine;
mod folders;
mod link;
mod position;

use std::time::Duration;

use serde::Serialize;

use crate::settings::{Loaded, SettingsError};

/// What was found of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The part, such as `camera left` or `broker`.
    pub part: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; nothing, where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_do: Option<String>,
}

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// One can fly with it, and should know of it.
    Attention,
    /// Not fit to fly.
    Fault,
}

impl Finding {
    fn ok(part: &str, found: impl ToString) -> Self {
        Self {
            part: part.to_owned(),
            verdict: Verdict::Ok,
            found: found.to_string(),
            to_do: None,
        }
    }

    fn attention(part: &str, found: impl ToString, to_do: &str) -> Self {
        Self {
            verdict: Verdict::Attention,
            to_do: Some(to_do.to_owned()),
            ..Self::ok(part, found)
        }
    }

    fn fault(part: &str, found: impl ToString, to_do: &str) -> Self {
        Self {
            verdict: Verdict::Fault,
            ..Self::attention(part, found, to_do)
        }
    }

    /// Settings that cannot be used; they say themselves what to do.
    fn settings(part: &str, error: &SettingsError) -> Self {
        Self::fault(
            part,
            in_words(error),
            "mend the settings; `callosity settings` explains each key",
        )
    }
}

/// An error with its causes, each said once: some errors say their cause themselves.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        if !said.contains(&cause_said) {
            said = format!("{said}: {cause_said}");
        }
        source = cause.source();
    }
    said
}

/// How patiently a box is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest that a camera is watched.
    pub camera: Duration,
    /// The longest that a position is waited for.
    pub position: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            camera: Duration::from_secs(6),
            position: Duration::from_secs(8),
        }
    }
}

/// Looks at every part and tells each finding as it is made.
pub fn walk_round(loaded: &Loaded, patience: Patience, tell: &mut dyn FnMut(Finding)) {
    settings(loaded, tell);
    let flies = folders::state(loaded, tell);
    folders::archive(loaded, flies, tell);
    engine::bundle_and_networks(loaded, tell);
    if flies {
        let to_do = "look at its page, or stop it first: `systemctl stop callosity`";
        for part in ["cameras", "broker"] {
            let found = "not looked at, because a callosity that flies has hold of it";
            tell(Finding::attention(part, found, to_do));
        }
    } else {
        camera::all(loaded, patience.camera, tell);
        link::broker(loaded, tell);
        link::page(loaded, tell);
    }
    position::clock(tell);
    position::gpsd(loaded, patience.position, tell);
    computer::all(loaded, tell);
}

fn settings(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) {
    let part = "settings";
    let files: Vec<_> = loaded
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    if files.is_empty() {
        let to_do =
            "write them: `callosity settings > /etc/callosity/callosity.toml`, then edit it";
        tell(Finding::attention(part, "no settings file was read", to_do));
    } else {
        tell(Finding::ok(part, format!("from {}", files.join(", "))));
    }
    for (key, value, origin) in loaded.all() {
        if origin.starts_with("set in flight") {
            tell(Finding::ok(part, format!("{key} is {value}, {origin}")));
        }
    }
    if let Err(error) = loaded.numbers() {
        tell(Finding::settings("flight", &error));
    }
    let survey = loaded.survey().map(|survey| survey.effort.is_some());
    match survey {
        Err(error) => tell(Finding::settings("survey", &error)),
        Ok(false) => {
            let to_do = "set survey.observers or page.address, so that effort is recorded: without it a survey says nothing \
                         of abundance";
            tell(Finding::attention(
                "survey",
                "nobody observes and no effort is recorded",
                to_do,
            ));
        }
        Ok(true) => {}
    }
}
