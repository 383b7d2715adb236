use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use link::message::{Decision, Head, Sighting};
use recognition::geometry::{Landmarks, Point};

/// A found head belongs to a true one when their centres are nearer than this many true head lengths.
const SAME_HEAD: f64 = 0.5;

/// A head that is really in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueHead {
    /// The individual's label, which the catalogue may lack.
    pub individual: String,
    /// In the upright frame.
    pub landmarks: Landmarks,
}

/// The heads that are really in each frame, by the frame's file name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// A frame without heads has an empty list; one that is missing is not judged.
    pub frames: BTreeMap<String, Vec<TrueHead>>,
}

/// The truth cannot be read.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct TruthError {
    path: PathBuf,
    reason: String,
}

#[derive(Deserialize)]
struct Row {
    image: String,
    #[serde(default)]
    whale: Option<String>,
    bonnet_x: Option<f64>,
    bonnet_y: Option<f64>,
    blowhead_x: Option<f64>,
    blowhead_y: Option<f64>,
}

impl Truth {
    /// Reads `image,whale,bonnet_x,bonnet_y,blowhead_x,blowhead_y` (other columns are ignored). One
    /// row for each head. A row without landmarks says nothing of its frame, which is not judged.
    ///
    /// # Errors
    /// The file cannot be read, a value is no number, or a row has landmarks and no whale.
    pub fn read(path: &Path) -> Result<Self, TruthError> {
        let wrong = |reason: String| TruthError {
            path: path.to_owned(),
            reason,
        };
        let mut reader = csv::Reader::from_path(path).map_err(|e| wrong(e.to_string()))?;
        let mut truth = Self::default();
        for row in reader.deserialize() {
            let row: Row = row.map_err(|e: csv::Error| wrong(e.to_string()))?;
            let whale = row.whale.filter(|w| !w.is_empty());
            let landmarks = match (row.bonnet_x, row.bonnet_y, row.blowhead_x, row.blowhead_y) {
                (Some(bx), Some(by), Some(hx), Some(hy)) => Some(Landmarks {
                    bonnet: Point::new(bx, by),
                    blowhead: Point::new(hx, hy),
                }),
                _ => None,
            };
            match (whale, landmarks) {
                (Some(individual), Some(landmarks)) => {
                    let head = TrueHead {
                        individual,
                        landmarks,
                    };
                    truth.frames.entry(row.image).or_default().push(head);
                }
                // Where the head lies is not known, so nothing in this frame can be judged.
                (None | Some(_), None) => {}
                (None, Some(_)) => {
                    return Err(wrong(format!("{} has landmarks but no whale", row.image)));
                }
            }
        }
        Ok(truth)
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.frames.values().map(Vec::len).sum()
    }
}

/// Where a message says that the head is, in pixels of the upright frame.
pub fn landmarks(head: &Head) -> Landmarks {
    let point = |position| Point::from(<[f64; 2]>::from(position));
    Landmarks {
        bonnet: point(head.bonnet_pixels),
        blowhead: point(head.blowhead_pixels),
    }
}

/// How what arrived compares with the truth; counts of heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Frames with known truth.
    pub frames: usize,
    /// Heads in them.
    pub heads: usize,
    /// Identified, and so it is.
    pub right: usize,
    /// Uncertain, with the right individual first.
    pub right_uncertain: usize,
    /// Identified as somebody else of the catalogue, or though the catalogue lacks the whale.
    pub wrong: usize,
    /// Uncertain, with somebody else first.
    pub wrong_uncertain: usize,
    /// Unknown, and the catalogue lacks it.
    pub unknown_rightly: usize,
    /// Unknown, though the catalogue has it.
    pub unknown_wrongly: usize,
    /// Not found, or in a frame that was not looked at.
    pub missed: usize,
    /// Found where there is none.
    pub false_heads: usize,
}

impl Score {
    /// Compares sightings with the truth. `catalogue` is whom the bundle can name.
    pub fn new(truth: &Truth, sightings: &[Sighting], catalogue: &BTreeSet<String>) -> Self {
        let mut score = Self {
            frames: truth.frames.len(),
            heads: truth.heads(),
            ..Self::default()
        };
        for (file, heads) in &truth.frames {
            let mut found: Vec<&Sighting> = sightings
                .iter()
                .filter(|s| s.frame.file.as_deref() == Some(file))
                .collect();
            for head in heads {
                let distance = |s: &Sighting| {
                    let seen = landmarks(&s.head).centre();
                    seen.distance(head.landmarks.centre()) / head.landmarks.head_length()
                };
                let nearest = found
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (i, distance(s)))
                    .filter(|(_, d)| *d < SAME_HEAD)
                    .min_by(|a, b| a.1.total_cmp(&b.1));
                let Some((index, _)) = nearest else {
                    score.missed += 1;
                    continue;
                };
                let sighting = found.swap_remove(index);
                let first = sighting.candidates.first();
                let right = first.is_some_and(|c| c.organism_id == head.individual);
                *match (sighting.decision, right) {
                    (Decision::Identified, true) => &mut score.right,
                    (Decision::Identified, false) => &mut score.wrong,
                    (Decision::Uncertain | Decision::Other, true) => &mut score.right_uncertain,
                    (Decision::Uncertain | Decision::Other, false) => &mut score.wrong_uncertain,
                    (Decision::Unknown, _) if catalogue.contains(&head.individual) => {
                        &mut score.unknown_wrongly
                    }
                    (Decision::Unknown, _) => &mut score.unknown_rightly,
                } += 1;
            }
            score.false_heads += found.len();
        }
        score
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_heads = |n: usize| 100.0 * n as f64 / self.heads.max(1) as f64;
        writeln!(f, "{} whales in {} frames", self.heads, self.frames)?;
        for (what, n) in [
            ("right, identified", self.right),
            ("right, uncertain", self.right_uncertain),
            ("wrong, identified", self.wrong),
            ("wrong, uncertain", self.wrong_uncertain),
            ("unknown, rightly", self.unknown_rightly),
            ("unknown, wrongly", self.unknown_wrongly),
            ("missed", self.missed),
        ] {
            writeln!(f, "  {what:<18} {n:>5}  {:>5.1} %", of_heads(n))?;
        }
        write!(f, "  {:<18} {:>5}", "false heads", self.false_heads)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use link::message::{BasisOfRecord, Candidate, FrameReference, PixelPosition, SightingState};

    fn at(x: f64) -> Landmarks {
        Landmarks {
            bonnet: Point::new(x + 50.0, 100.0),
            blowhead: Point::new(x - 50.0, 100.0),
        }
    }

    fn sighting(file: &str, x: f64, decision: Decision, first: &str) -> Sighting {
        let l = at(x);
        Sighting {
            occurrence_id: Uuid::now_v7(),
            state: SightingState::New,
            revision: 0,
            event_date: Timestamp::UNIX_EPOCH,
            platform: "p".into(),
            event_id: None,
            camera: None,
            basis_of_record: BasisOfRecord::MachineObservation,
            scientific_name: "Eubalaena glacialis".into(),
            identified_by: "test".into(),
            decision,
            organism_id: None,
            unknown_probability: Some(0.1),
            candidates: vec![Candidate {
                organism_id: first.into(),
                probability: 0.9,
            }],
            frame: FrameReference {
                number: 0,
                file: Some(file.into()),
                width_pixels: 1000,
                height_pixels: 1000,
                incomplete: None,
                damaged: None,
            },
            head: Head {
                bonnet_pixels: PixelPosition::from(<[f64; 2]>::from(l.bonnet)),
                blowhead_pixels: PixelPosition::from(<[f64; 2]>::from(l.blowhead)),
                head_length_pixels: 100.0,
                confidence: 0.9,
            },
        }
    }

    #[test]
    fn each_head_is_judged_once() {
        let heads = |list: &[(&str, f64)]| -> Vec<TrueHead> {
            let head = |&(name, x): &(&str, f64)| TrueHead {
                individual: name.to_owned(),
                landmarks: at(x),
            };
            list.iter().map(head).collect()
        };
        let truth = Truth {
            frames: BTreeMap::from([
                (
                    "a".into(),
                    heads(&[("Snow", 100.0), ("Calvin", 500.0), ("Stranger", 800.0)]),
                ),
                ("b".into(), heads(&[])),
                (
                    "c".into(),
                    heads(&[("Snow", 100.0), ("Other", 400.0), ("Calvin", 700.0)]),
                ),
            ]),
        };
        let catalogue = ["Snow", "Calvin"].map(str::to_owned).into();
        let sightings = [
            sighting("a", 110.0, Decision::Identified, "Snow"),
            sighting("a", 490.0, Decision::Unknown, "Snow"),
            sighting("a", 800.0, Decision::Unknown, "Snow"),
            sighting("b", 100.0, Decision::Unknown, "Snow"),
            sighting("c", 120.0, Decision::Uncertain, "Snow"),
            sighting("c", 400.0, Decision::Identified, "Calvin"),
            sighting("c", 100.0, Decision::Identified, "Calvin"),
            sighting("not judged", 1.0, Decision::Identified, "Snow"),
        ];
        let score = Score::new(&truth, &sightings, &catalogue);
        let expected = Score {
            frames: 3,
            heads: 6,
            right: 1,
            right_uncertain: 0,
            wrong: 2,
            wrong_uncertain: 0,
            unknown_rightly: 1,
            unknown_wrongly: 1,
            missed: 1,
            false_heads: 2,
        };
        assert_eq!(score, expected);
    }
}
