use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

use link::message::{Decision, Head};
use recognition::geometry::{Landmarks, Point};

use crate::sighting::{FrameRecord, HeadRecord, Named};

/// A found head belongs to a true one when their centres are nearer than this many true head lengths.
const SAME_HEAD: f64 = 0.5;

/// A head that is really in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueHead {
    /// The individual's label, which the catalogue may lack.
    pub individual: String,
    /// In the upright frame.
    pub landmarks: Landmarks,
    /// Number of the pass over the animal that the frame belongs to. In each pass it is one sighting.
    pub pass: u64,
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
    pass: Option<u64>,
}

impl Truth {
    /// Reads `image,whale,bonnet_x,bonnet_y,blowhead_x,blowhead_y` (other columns are ignored). One
    /// row for each head. A column `pass` numbers the passes; without it each frame is a pass of its own. A row without
    /// landmarks says nothing of its frame, which is not judged.
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
        for (number, row) in reader.deserialize().enumerate() {
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
                    let heads = truth.frames.entry(row.image).or_default();
                    // Frames without a pass are numbered apart from those with one.
                    let own = heads
                        .first()
                        .map_or(u64::MAX - number as u64, |head: &TrueHead| head.pass);
                    heads.push(TrueHead {
                        individual,
                        landmarks,
                        pass: row.pass.unwrap_or(own),
                    });
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

/// How names compare with the truth; counts of heads, or of animals in passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of animals of the catalogue and of others.
    pub seen: usize,
    /// Of animals of the catalogue.
    pub known: usize,
    /// Of animals of the catalogue, those with the right individual before all others, whatever was decided.
    pub first_right: usize,
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
}

impl Names {
    fn add(&mut self, individual: &str, known: bool, said: &Named) {
        let right = said.leading.as_deref() == Some(individual);
        self.seen += 1;
        self.known += usize::from(known);
        self.first_right += usize::from(known && right);
        *match (said.decision, right) {
            (Decision::Identified, true) => &mut self.right,
            (Decision::Identified, false) => &mut self.wrong,
            (Decision::Uncertain | Decision::Other, true) => &mut self.right_uncertain,
            (Decision::Uncertain | Decision::Other, false) => &mut self.wrong_uncertain,
            (Decision::Unknown, _) if known => &mut self.unknown_wrongly,
            (Decision::Unknown, _) => &mut self.unknown_rightly,
        } += 1;
    }

    /// Of animals of the catalogue, the share with the right individual before all others, 0…1; not a number where there
    /// are none.
    pub fn top1(&self) -> f64 {
        self.first_right as f64 / self.known as f64
    }
}

/// How a flight compares with the truth: heads frame by frame, and animals pass by pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Frames with known truth.
    pub frames: usize,
    /// Heads in them.
    pub heads: usize,
    /// Animals in passes: each animal counts once in each pass over it.
    pub passes: usize,
    /// What each frame alone says of its heads.
    pub by_frame: Names,
    /// What the sighting says in the end that has most of an animal's heads in a pass.
    pub by_pass: Names,
    /// Heads found where there is none.
    pub false_heads: usize,
    /// Sightings of nothing but such heads.
    pub false_sightings: usize,
    /// Times that a sighting went over from one animal to another.
    pub switches: usize,
    /// Sightings of an animal in a pass beyond the first.
    pub fragments: usize,
    /// Passes over an animal that the catalogue lacks and that was numbered in an earlier pass.
    pub strangers_again: usize,
    /// Of these, those in which it has the same number.
    pub strangers_recognised: usize,
    /// Passes over an animal that the catalogue lacks, with the number of another animal.
    pub strangers_confused: usize,
}

/// An animal in a pass.
type Pass<'t> = (u64, &'t str);

impl Score {
    /// Compares frames, in the order in which they were looked at, with the truth. `finally` is what each sighting said
    /// at its end, `catalogue` whom the bundle can name.
    pub fn new(
        truth: &Truth,
        records: &[FrameRecord],
        finally: &BTreeMap<Uuid, Named>,
        catalogue: &BTreeSet<String>,
    ) -> Self {
        let passes: BTreeSet<Pass> = truth
            .frames
            .values()
            .flatten()
            .map(|head| (head.pass, head.individual.as_str()))
            .collect();
        let mut score = Self {
            frames: truth.frames.len(),
            heads: truth.heads(),
            passes: passes.len(),
            ..Self::default()
        };
        // The animals of each sighting's heads and the sightings of each animal's, in order.
        let mut animals: BTreeMap<Uuid, Vec<Option<Pass>>> = BTreeMap::new();
        let mut sightings: BTreeMap<Pass, Vec<Uuid>> = BTreeMap::new();
        for record in records {
            let Some(heads) = record.frame.file.as_ref().and_then(|f| truth.frames.get(f)) else {
                continue;
            };
            for (found, animal) in pair_heads(heads, &record.heads) {
                let animal = animal.map(|head| (head.pass, head.individual.as_str()));
                animals.entry(found.occurrence_id).or_default().push(animal);
                let Some(pass) = animal else {
                    score.false_heads += 1;
                    continue;
                };
                sightings.entry(pass).or_default().push(found.occurrence_id);
                score
                    .by_frame
                    .add(pass.1, catalogue.contains(pass.1), &found.alone);
            }
        }
        for of_sighting in animals.values() {
            let individuals: Vec<&str> = of_sighting.iter().flatten().map(|p| p.1).collect();
            score.false_sightings += usize::from(individuals.is_empty());
            let changes = individuals.windows(2).filter(|pair| pair[0] != pair[1]);
            score.switches += changes.count();
        }
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        for (&(_, individual), of_pass) in &sightings {
            let different: BTreeSet<_> = of_pass.iter().collect();
            score.fragments += different.len() - 1;
            let heads = |id: &Uuid| of_pass.iter().filter(|other| *other == id).count();
            // Of as many heads, the later sighting.
            let Some(most) = of_pass.iter().max_by_key(|id| heads(id)) else {
                continue;
            };
            let Some(said) = finally.get(most) else {
                continue;
            };
            let known = catalogue.contains(individual);
            score.by_pass.add(individual, known, said);
            if let Some(number) = said.stranger.filter(|_| !known) {
                let others = numbers
                    .iter()
                    .any(|(who, n)| *who != individual && *n == number);
                score.strangers_confused += usize::from(others);
                match numbers.get(individual) {
                    Some(before) => {
                        score.strangers_again += 1;
                        score.strangers_recognised += usize::from(*before == number);
                    }
                    None => {
                        numbers.insert(individual, number);
                    }
                }
            }
        }
        score
    }
}

/// Each found head with the true one that it is, nearest pairs first.
fn pair_heads<'f, 't>(
    heads: &'t [TrueHead],
    found: &'f [HeadRecord],
) -> Vec<(&'f HeadRecord, Option<&'t TrueHead>)> {
    let mut near: Vec<(f64, usize, usize)> = Vec::new();
    for (f, record) in found.iter().enumerate() {
        for (h, head) in heads.iter().enumerate() {
            let seen = landmarks(&record.head).centre();
            let away = seen.distance(head.landmarks.centre()) / head.landmarks.head_length();
            if away < SAME_HEAD {
                near.push((away, f, h));
            }
        }
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut of_found = vec![None; found.len()];
    let mut taken = vec![false; heads.len()];
    for (_, f, h) in near {
        if of_found[f].is_none() && !taken[h] {
            taken[h] = true;
            of_found[f] = Some(&heads[h]);
        }
    }
    found.iter().zip(of_found).collect()
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            by_frame, by_pass, ..
        } = self;
        writeln!(
            f,
            "{} heads in {} frames, {} passes over an animal",
            self.heads, self.frames, self.passes
        )?;
        writeln!(f, "{:<32} {:>14}  {:>14}", "", "by frame", "by pass")?;
        let share = |n: usize, of: usize| {
            if of == 0 {
                return format!("{n:>6}");
            }
            format!("{n:>6} {:>5.1} %", 100.0 * n as f64 / of as f64)
        };
        let mut row = |what: &str, frame: String, pass: String| {
            writeln!(f, "{what:<32} {frame:>14}  {pass:>14}")
        };
        row(
            "found",
            share(by_frame.seen, self.heads),
            share(by_pass.seen, self.passes),
        )?;
        row(
            "known, right name first (top-1)",
            share(by_frame.first_right, by_frame.known),
            share(by_pass.first_right, by_pass.known),
        )?;
        type Count = fn(&Names) -> usize;
        let rows: [(&str, Count); 6] = [
            ("right, identified", |n| n.right),
            ("right, uncertain", |n| n.right_uncertain),
            ("wrong, identified", |n| n.wrong),
            ("wrong, uncertain", |n| n.wrong_uncertain),
            ("unknown, rightly", |n| n.unknown_rightly),
            ("unknown, wrongly", |n| n.unknown_wrongly),
        ];
        for (what, count) in rows {
            row(
                what,
                share(count(by_frame), by_frame.seen),
                share(count(by_pass), by_pass.seen),
            )?;
        }
        row(
            "false heads, false sightings",
            self.false_heads.to_string() + &" ".repeat(8),
            self.false_sightings.to_string() + &" ".repeat(8),
        )?;
        let mut row = |what: &str, pass: String| writeln!(f, "{what:<32} {:>14}  {pass:>14}", "");
        row("identity switches", share(self.switches, self.passes))?;
        row("fragments", share(self.fragments, self.passes))?;
        row(
            "unknown animals seen again",
            share(self.strangers_recognised, self.strangers_again),
        )?;
        write!(
            f,
            "{:<32} {:>14}  {:>14}",
            "unknown animals confused",
            "",
            share(self.strangers_confused, self.passes)
        )
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use link::message::{FrameReference, PixelPosition};

    use super::*;

    fn at(x: f64) -> Landmarks {
        Landmarks {
            bonnet: Point::new(x + 50.0, 100.0),
            blowhead: Point::new(x - 50.0, 100.0),
        }
    }

    fn named(decision: Decision, leading: &str, stranger: Option<u32>) -> Named {
        Named {
            decision,
            leading: Some(leading.into()),
            stranger,
        }
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn frame(file: &str, heads: &[(u128, f64, Named)]) -> FrameRecord {
        let head = |(sighting, x, alone): &(u128, f64, Named)| {
            let l = at(*x);
            HeadRecord {
                occurrence_id: id(*sighting),
                head: Head {
                    bonnet_pixels: PixelPosition::from(<[f64; 2]>::from(l.bonnet)),
                    blowhead_pixels: PixelPosition::from(<[f64; 2]>::from(l.blowhead)),
                    head_length_pixels: 100.0,
                    confidence: 0.9,
                },
                alone: alone.clone(),
                sighting: alone.clone(),
            }
        };
        FrameRecord {
            camera: "left".into(),
            time: Timestamp::UNIX_EPOCH,
            frame: FrameReference {
                number: 0,
                file: Some(file.into()),
                width_pixels: 1000,
                height_pixels: 1000,
                incomplete: None,
                damaged: None,
            },
            heads: heads.iter().map(head).collect(),
        }
    }

    /// File, pass and heads of a frame.
    type TrueFrame<'a> = (&'a str, u64, &'a [(&'a str, f64)]);

    fn truth(frames: &[TrueFrame]) -> Truth {
        let frames = frames.iter().map(|(file, pass, heads)| {
            let head = |&(name, x): &(&str, f64)| TrueHead {
                individual: name.to_owned(),
                landmarks: at(x),
                pass: *pass,
            };
            ((*file).to_owned(), heads.iter().map(head).collect())
        });
        Truth {
            frames: frames.collect(),
        }
    }

    #[test]
    fn each_head_and_each_pass_is_judged_once() {
        use Decision::{Identified, Uncertain, Unknown};
        let truth = truth(&[
            (
                "a",
                0,
                &[("Snow", 100.0), ("Calvin", 500.0), ("Stranger", 800.0)],
            ),
            ("b", 0, &[("Snow", 200.0), ("Calvin", 600.0)]),
            (
                "c",
                1,
                &[("Snow", 100.0), ("Stranger", 400.0), ("Other", 700.0)],
            ),
            ("d", 2, &[]),
        ]);
        let catalogue = ["Snow", "Calvin"].map(str::to_owned).into();
        let records = [
            frame(
                "a",
                &[
                    (1, 110.0, named(Identified, "Calvin", None)),
                    (2, 490.0, named(Unknown, "Calvin", None)),
                    (3, 800.0, named(Unknown, "Snow", None)),
                    (4, 300.0, named(Unknown, "Snow", None)),
                ],
            ),
            // Sightings 1 and 2 are mixed up, which is two switches.
            frame(
                "b",
                &[
                    (1, 600.0, named(Identified, "Calvin", None)),
                    (2, 200.0, named(Uncertain, "Snow", None)),
                ],
            ),
            frame(
                "c",
                &[
                    (5, 100.0, named(Identified, "Snow", None)),
                    (6, 400.0, named(Unknown, "Snow", None)),
                    (7, 700.0, named(Identified, "Snow", None)),
                ],
            ),
            frame("not judged", &[(8, 1.0, named(Identified, "Snow", None))]),
        ];
        let finally = BTreeMap::from([
            (id(1), named(Identified, "Calvin", None)),
            (id(2), named(Identified, "Snow", None)),
            (id(3), named(Unknown, "Snow", Some(1))),
            (id(5), named(Identified, "Snow", None)),
            (id(6), named(Unknown, "Snow", Some(1))),
            (id(7), named(Unknown, "Snow", Some(1))),
        ]);
        let score = Score::new(&truth, &records, &finally, &catalogue);
        assert_eq!((score.frames, score.heads, score.passes), (4, 8, 6));
        assert_eq!((score.false_heads, score.false_sightings), (1, 1));
        assert_eq!((score.switches, score.fragments), (2, 2));
        assert_eq!(
            (
                score.strangers_again,
                score.strangers_recognised,
                score.strangers_confused
            ),
            (1, 1, 2)
        );
        let frames = &score.by_frame;
        assert_eq!((frames.seen, frames.known, frames.first_right), (8, 5, 4));
        assert_eq!(
            (frames.right, frames.wrong, frames.right_uncertain),
            (2, 2, 1)
        );
        assert_eq!((frames.unknown_rightly, frames.unknown_wrongly), (2, 1));
        let passes = &score.by_pass;
        assert_eq!((passes.seen, passes.known), (6, 3));
        assert_eq!((passes.first_right, passes.unknown_rightly), (3, 3));
    }

    #[test]
    fn of_two_found_heads_the_nearer_one_is_the_animal() {
        let truth = truth(&[("a", 0, &[("Snow", 100.0)])]);
        let records = [frame(
            "a",
            &[
                (1, 140.0, named(Decision::Identified, "Snow", None)),
                (2, 101.0, named(Decision::Identified, "Calvin", None)),
            ],
        )];
        let score = Score::new(&truth, &records, &BTreeMap::new(), &BTreeSet::new());
        assert_eq!((score.by_frame.wrong, score.false_heads), (1, 1));
    }

    #[test]
    fn passes_are_read_from_their_column_or_are_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Truth::read(&path).unwrap()
        };
        let with = read(
            "image,whale,bonnet_x,bonnet_y,blowhead_x,blowhead_y,pass\na,Snow,1,2,3,4,5\nb,Snow,1,2,3,4,5\n",
        );
        let passes = |truth: &Truth| -> BTreeSet<u64> {
            truth.frames.values().flatten().map(|h| h.pass).collect()
        };
        assert_eq!(passes(&with), BTreeSet::from([5]));
        let without = read(
            "image,whale,bonnet_x,bonnet_y,blowhead_x,blowhead_y\na,Snow,1,2,3,4\na,Calvin,9,2,3,4\nb,Snow,1,2,3,4\n",
        );
        assert_eq!(passes(&without).len(), 2);
    }
}
