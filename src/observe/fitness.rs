use link::message::Health;
use serde::Serialize;

/// How far a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It flies.
    Flying,
    /// It was asked to stop and ends in order.
    Stopping,
    /// All stages have ended and everything is on the disk; or some had not by the deadline.
    Ended {
        /// Whether all had.
        in_order: bool,
    },
}

/// Whether the box is fit to fly: what an observer sees at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fitness {
    /// At a glance.
    pub level: Level,
    /// In a sentence, with what to do where something is to be done.
    pub sentence: String,
}

/// At a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// It flies and all is well.
    Fit,
    /// It flies, and something wants attention.
    Attention,
    /// It does not see whales, or may lose what it sees.
    Unfit,
    /// It is being stopped: power must stay on.
    Stopping,
    /// Power may be cut.
    Safe,
}

impl Fitness {
    /// Of what a health message tells.
    pub(super) fn of(health: &Health, phase: Phase) -> Self {
        match phase {
            Phase::Stopping => {
                Self::new(Level::Stopping, "Stopping. Leave the power on.".to_owned())
            }
            Phase::Ended { in_order } => Self::ended(health, in_order),
            Phase::Flying => Self::unfit(health)
                .or_else(|| Self::attention(health))
                .unwrap_or_else(|| Self::fit(health)),
        }
    }

    fn new(level: Level, sentence: String) -> Self {
        Self { level, sentence }
    }

    fn ended(health: &Health, in_order: bool) -> Self {
        let left = health.queues.sightings;
        let waits = match left {
            0 => String::new(),
            1 => " One message waits on the disk and goes with the next link.".to_owned(),
            _ => format!(" {left} messages wait on the disk and go with the next link."),
        };
        if in_order && health.queues.not_durable == 0 {
            Self::new(Level::Safe, format!("Stopped. Safe to cut power.{waits}"))
        } else {
            let sentence =
                "Stopped, but not everything is on the disk: cut power only if you must.";
            Self::new(Level::Attention, sentence.to_owned())
        }
    }

    fn unfit(health: &Health) -> Option<Self> {
        let unfit = |sentence| Some(Self::new(Level::Unfit, sentence));
        if health.queues.not_durable > 0 {
            let waiting = health.queues.not_durable;
            return unfit(format!(
                "The disk takes no more: {waiting} messages are in memory alone. Make room on it."
            ));
        }
        if let Some(problem) = health.problems.iter().find(|p| p.part == "recognition") {
            return unfit(format!("No whale is looked for: {}.", problem.reason));
        }
        let trouble = |name: &str| {
            let stage = format!("camera {name}");
            health.problems.iter().find(|problem| problem.part == stage)
        };
        let troubles: Vec<_> = health
            .cameras
            .iter()
            .map(|camera| trouble(&camera.name))
            .collect();
        match troubles.first() {
            Some(Some(first)) if troubles.iter().all(Option::is_some) => {
                unfit(format!("No camera gives frames: {}.", first.reason))
            }
            _ => None,
        }
    }

    fn attention(health: &Health) -> Option<Self> {
        let problem = health.problems.first()?;
        let others = match health.problems.len() - 1 {
            0 => String::new(),
            1 => " One more thing wants attention.".to_owned(),
            n => format!(" {n} more things want attention."),
        };
        let sentence = if problem.part == "link" {
            let waits = match health.queues.sightings {
                0 => "nothing waits".to_owned(),
                1 => "one message waits on the disk, nothing is lost".to_owned(),
                n => format!("{n} messages wait on the disk, nothing is lost"),
            };
            format!("The ground does not hear us; {waits}.{others}")
        } else {
            let mut part = problem.part.clone();
            if let Some(first) = part.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            format!("{part}: {}.{others}", problem.reason.trim_end_matches('.'))
        };
        Some(Self::new(Level::Attention, sentence))
    }

    fn fit(health: &Health) -> Self {
        let waits = health
            .cameras
            .iter()
            .filter(|c| c.captured == 0)
            .map(|c| c.name.as_str());
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() {
            let sentence = format!("Waiting for the first frame of {}.", waits.join(", "));
            return Self::new(Level::Attention, sentence);
        }
        let cameras = match health.cameras.len() {
            1 => "the camera gives frames".to_owned(),
            n => format!("{n} cameras give frames"),
        };
        Self::new(
            Level::Fit,
            format!("Fit to fly: {cameras}, the ground hears us."),
        )
    }
}

#[cfg(test)]
mod tests {
    use link::message::{CameraHealth, Engine, Problem, QueueDepths};

    use super::*;

    fn health(problems: &[(&str, &str)]) -> Health {
        let camera = |name: &str| CameraHealth {
            name: name.to_owned(),
            captured: 5,
            ..CameraHealth::default()
        };
        let problem =
            |(part, reason): &(&str, &str)| Problem::after(None, part, (*reason).to_owned());
        Health {
            platform: "test".to_owned(),
            time: jiff::Timestamp::UNIX_EPOCH,
            program_version: String::new(),
            uptime_seconds: 1.0,
            frames: Default::default(),
            cameras: ["left", "right"].map(camera).into(),
            last_failure: None,
            queues: QueueDepths {
                sightings: 3,
                ..QueueDepths::default()
            },
            engine: Engine {
                name: String::new(),
                bundle: String::new(),
                networks: Vec::new(),
            },
            stages: Default::default(),
            link: Default::default(),
            clock: None,
            position: None,
            hardware: None,
            archive: None,
            problems: problems.iter().map(problem).collect(),
        }
    }

    fn said(problems: &[(&str, &str)]) -> (Level, String) {
        let fitness = Fitness::of(&health(problems), Phase::Flying);
        (fitness.level, fitness.sentence)
    }

    #[test]
    fn what_is_worst_is_said_first() {
        let (level, sentence) = said(&[]);
        assert_eq!(level, Level::Fit);
        assert!(sentence.contains("2 cameras"), "{sentence}");
        let link = ("link", "connection refused");
        let (level, sentence) = said(&[link]);
        assert_eq!(level, Level::Attention);
        assert!(
            sentence.contains("3 messages wait on the disk, nothing is lost"),
            "{sentence}"
        );
        let left = ("camera left", "its cable");
        let (level, sentence) = said(&[left, link]);
        assert_eq!(level, Level::Attention);
        assert!(
            sentence.contains("Camera left: its cable. One more"),
            "{sentence}"
        );
        // A setting that a camera has not got is no camera without frames.
        let zoom = ("settings of camera right", "zoom");
        assert_eq!(said(&[left, zoom]).0, Level::Attention);
        let (level, sentence) = said(&[left, ("camera right", "gone"), link]);
        assert_eq!(level, Level::Unfit);
        assert!(sentence.contains("No camera gives frames"), "{sentence}");
        assert_eq!(said(&[link, ("recognition", "a defect")]).0, Level::Unfit);
        let mut full = health(&[link]);
        full.queues.not_durable = 2;
        assert_eq!(Fitness::of(&full, Phase::Flying).level, Level::Unfit);
    }

    #[test]
    fn power_may_be_cut_when_everything_is_on_the_disk() {
        let level = |health: &Health, phase| Fitness::of(health, phase).level;
        let well = health(&[]);
        assert_eq!(level(&well, Phase::Stopping), Level::Stopping);
        assert_eq!(level(&well, Phase::Ended { in_order: true }), Level::Safe);
        assert_ne!(level(&well, Phase::Ended { in_order: false }), Level::Safe);
        let mut full = well;
        full.queues.not_durable = 1;
        assert_ne!(level(&full, Phase::Ended { in_order: true }), Level::Safe);
    }
}
