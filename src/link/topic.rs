//! The topics `callosity/v1/<platform>/…`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// What all topics begin with; `v1` is the major version of the messages.
pub const ROOT: &str = "callosity/v1";

/// Filter under which a ground station receives everything of all platforms.
pub const EVERYTHING: &str = "callosity/v1/+/#";

/// The name of an aircraft in topics: one level, so without `/`, `+`, `#`; not empty, no control
/// characters, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform(String);

/// A name that cannot stand in a topic.
#[derive(Debug, Error)]
#[error(
    "platform name {0:?} cannot stand in an MQTT topic: it needs 1 to 64 bytes without '/', '+', '#' and control characters"
)]
pub struct PlatformError(String);

impl Platform {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the platform is there: retained, and the last will.
    pub fn status(&self) -> String {
        self.topic("status")
    }

    /// Sightings.
    pub fn sighting(&self) -> String {
        self.topic("sighting")
    }

    /// The picture of one sighting's head.
    pub fn crop(&self, sighting: Uuid) -> String {
        self.topic(&format!("crop/{sighting}"))
    }

    /// How the service fares.
    pub fn health(&self) -> String {
        self.topic("health")
    }

    /// Where the aircraft was.
    pub fn track(&self) -> String {
        self.topic("track")
    }

    /// How the survey is flown.
    pub fn effort(&self) -> String {
        self.topic("effort")
    }

    /// What the ground asks the aircraft to set.
    pub fn command(&self) -> String {
        self.topic("command")
    }

    fn topic(&self, last: &str) -> String {
        format!("{ROOT}/{}/{last}", self.0)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unfit = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
        if name.is_empty() || name.len() > 64 || name.contains(unfit) {
            return Err(PlatformError(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a topic says of the message that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Platform::status`].
    Status,
    /// [`Platform::sighting`].
    Sighting,
    /// [`Platform::crop`] with its sighting.
    Crop(Uuid),
    /// [`Platform::health`].
    Health,
    /// [`Platform::track`].
    Track,
    /// [`Platform::effort`].
    Effort,
    /// [`Platform::command`].
    Command,
}

/// Reads a topic, or `None` where it is none of ours.
pub fn parse(topic: &str) -> Option<(Platform, Kind)> {
    let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?;
    let (platform, last) = rest.split_once('/')?;
    let kind = match last.split_once('/') {
        None => match last {
            "status" => Kind::Status,
            "sighting" => Kind::Sighting,
            "health" => Kind::Health,
            "track" => Kind::Track,
            "effort" => Kind::Effort,
            "command" => Kind::Command,
            _ => return None,
        },
        Some(("crop", sighting)) => Kind::Crop(sighting.parse().ok()?),
        Some(_) => return None,
    };
    Some((platform.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn topics_read_back(name in "[^/+#\\p{Cc}]{1,16}", id: u128) {
            let platform: Platform = name.parse().unwrap();
            let id = Uuid::from_u128(id);
            for (topic, kind) in [
                (platform.status(), Kind::Status),
                (platform.sighting(), Kind::Sighting),
                (platform.crop(id), Kind::Crop(id)),
                (platform.health(), Kind::Health),
                (platform.track(), Kind::Track),
                (platform.effort(), Kind::Effort),
                (platform.command(), Kind::Command),
            ] {
                prop_assert_eq!(parse(&topic), Some((platform.clone(), kind)));
            }
        }

        #[test]
        fn any_text_is_a_topic_or_none(text in ".*") {
            if let Some((platform, _)) = parse(&text) {
                prop_assert!(text.contains(platform.as_str()));
            }
        }
    }

    #[test]
    fn wildcards_are_no_platform() {
        for name in ["", "a/b", "+", "#", "a\nb"] {
            assert!(name.parse::<Platform>().is_err(), "{name:?}");
        }
    }
}
