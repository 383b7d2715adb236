use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use link::message::SightingState;
use recognition::geometry::Landmarks;
use recognition::identify::{Appearance, Decision, Identification, PooledOpinion};
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use super::association::{Candidate, Head, associate};
use super::motion::{Place, Sea, seconds};
use super::strangers::Strangers;
use super::{BestFrame, Judge, Observed, SeenFrame, SeenHead, SightingChange, Summary};

/// Candidates that a sighting names.
const CANDIDATES: usize = 5;
/// By this factor a frame must show a head better than the best one before to take its place.
const CLEARLY_BETTER: f64 = 1.25;
/// Pictures of one sighting that are kept at most.
const MOST_PICTURES: u32 = 3;
/// A head of this length in pixels fills the picture that is kept of it; more adds nothing.
const FILLS_PICTURE: f64 = 224.0;

/// See the [module](super). It can be written down and read back, so that a program that was killed goes on where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracker {
    lost_after: Duration,
    /// The latest time of a frame.
    clock: Option<Timestamp>,
    cameras: BTreeMap<String, CameraState>,
    open: Vec<Track>,
    strangers: Strangers,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CameraState {
    sea: Sea,
    last_frame: Timestamp,
}

/// An open sighting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Track {
    /// As it is now; its revision is that of the next change.
    summary: Summary,
    /// The name, decision and number that were told last.
    told: Option<Told>,
    /// By camera.
    places: BTreeMap<String, Place>,
    opinion: PooledOpinion,
    appearance: Option<Appearance>,
    /// The number that it has whenever it is taken for a stranger.
    number: Option<u32>,
    pictures: u32,
}

/// What of a sighting is told anew when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    decision: Decision,
    leading: Option<String>,
    stranger: Option<u32>,
}

impl Tracker {
    /// Nothing has been seen yet. A sighting ends when its animal has not been seen for `lost_after`, which is
    /// [`LOST_AFTER`](super::LOST_AFTER) as a rule; at 0 each head of each frame is a sighting of its own.
    pub fn new(lost_after: Duration) -> Self {
        Self {
            lost_after,
            clock: None,
            cameras: BTreeMap::new(),
            open: Vec::new(),
            strangers: Strangers::default(),
        }
    }

    /// With another time after which a sighting ends.
    pub fn with_lost_after(mut self, lost_after: Duration) -> Self {
        self.lost_after = lost_after;
        self
    }

    /// The latest time of a frame; `None` before the first.
    pub fn clock(&self) -> Option<Timestamp> {
        self.clock
    }

    /// Number of sightings that have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes the heads of a frame. What comes later than other frames by more than the time after which sightings end is
    /// of an animal that has been lost since.
    pub fn observe(&mut self, frame: &SeenFrame, judge: &impl Judge) -> Observed {
        let mut changes = self.pass_time(frame.time);
        let assigned = self.associate(frame);
        let mut heads = Vec::with_capacity(frame.heads.len());
        for (index, (head, candidate)) in frame.heads.iter().zip(assigned).enumerate() {
            let at = match candidate {
                Some(at) => {
                    let sea = self.cameras[&frame.camera].sea;
                    self.open[at].see(frame, head, &sea, judge);
                    at
                }
                None => {
                    self.open.push(Track::begin(frame, head, judge));
                    self.open.len() - 1
                }
            };
            heads.push((index, at));
        }
        for &(index, at) in &heads {
            self.number_stranger(at);
            changes.extend(self.open[at].tell(frame, index));
        }
        let sightings = heads.iter().map(|&(_, at)| self.open[at].summary.clone());
        Observed {
            sightings: sightings.collect(),
            changes,
        }
    }

    /// Ends what has not been seen for too long by this time.
    pub fn pass_time(&mut self, now: Timestamp) -> Vec<SightingChange> {
        let lost_after = self.lost_after.as_secs_f64();
        let clock = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(clock);
        self.end(|track| seconds(track.summary.last_seen, clock) >= lost_after)
    }

    /// Ends all sightings, as at the end of a flight. Frames after it may be of any time.
    pub fn end_all(&mut self) -> Vec<SightingChange> {
        self.clock = None;
        self.cameras.clear();
        self.end(|_| true)
    }

    fn end(&mut self, ended: impl Fn(&Track) -> bool) -> Vec<SightingChange> {
        let (ended, open) = std::mem::take(&mut self.open).into_iter().partition(ended);
        self.open = open;
        let ended: Vec<Track> = ended;
        ended
            .into_iter()
            .map(|track| {
                if let Some(number) = track.summary.stranger {
                    self.strangers.left(number, track.appearance.as_ref());
                }
                SightingChange {
                    state: SightingState::End,
                    sighting: track.summary,
                    picture: None,
                }
            })
            .collect()
    }

    /// The open sighting of each head, by index; none for a new animal.
    fn associate(&mut self, frame: &SeenFrame) -> Vec<Option<usize>> {
        let (width, height) = (frame.frame.width_pixels, frame.frame.height_pixels);
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let unknown = CameraState {
            sea: Sea::unknown(height, frame.time),
            last_frame: frame.time,
        };
        let camera = self.cameras.entry(frame.camera.clone());
        let camera = camera.or_insert(unknown);
        let mut sea = camera.sea.at(height, frame.time);
        let elapsed = seconds(camera.last_frame, frame.time);
        if let Some(motion) = frame.motion.filter(|_| elapsed > 0.0) {
            let variance = (motion.deviation / elapsed).powi(2).max(f64::MIN_POSITIVE);
            sea = sea.with(motion.displacement * (1.0 / elapsed), variance);
        }
        camera.last_frame = camera.last_frame.max(frame.time);
        let candidates: Vec<Candidate> = self
            .open
            .iter()
            .map(|track| Candidate {
                place: track.places.get(&frame.camera),
                appearance: track.appearance.as_ref(),
            })
            .collect();
        let heads: Vec<Head> = frame
            .heads
            .iter()
            .map(|head| Head {
                landmarks: &head.landmarks,
                appearance: head.appearance.as_ref(),
            })
            .collect();
        let found = associate(&candidates, &heads, sea, frame.time, width * height);
        camera.sea = found.sea;
        found.of_heads
    }

    /// Gives a number to an animal that is taken for nobody the bundle knows and has none.
    fn number_stranger(&mut self, at: usize) {
        let track = &self.open[at];
        if track.summary.identification.decision != Decision::Unknown || track.number.is_some() {
            return;
        }
        let in_view: BTreeSet<u32> = self.open.iter().filter_map(|t| t.number).collect();
        let number = self
            .strangers
            .number(self.open[at].appearance.as_ref(), &in_view);
        self.open[at].number = Some(number);
    }
}

impl Track {
    fn begin(frame: &SeenFrame, head: &SeenHead, judge: &impl Judge) -> Self {
        let opinion = PooledOpinion::of(&head.opinion);
        Self {
            summary: Summary {
                id: new_id(frame.time),
                revision: 0,
                frames_seen: 1,
                last_seen: frame.time,
                best: best_frame(frame, head),
                identification: identification(&opinion, judge),
                stranger: None,
            },
            told: None,
            places: BTreeMap::from([(
                frame.camera.clone(),
                Place::new(head.landmarks, frame.time),
            )]),
            opinion,
            appearance: head.appearance.clone(),
            number: None,
            pictures: 0,
        }
    }

    fn see(&mut self, frame: &SeenFrame, head: &SeenHead, sea: &Sea, judge: &impl Judge) {
        self.places
            .entry(frame.camera.clone())
            .and_modify(|place| place.update(head.landmarks, sea, frame.time))
            .or_insert_with(|| Place::new(head.landmarks, frame.time));
        self.opinion.add(&head.opinion);
        match (&mut self.appearance, &head.appearance) {
            (Some(mean), Some(one)) => mean.add(one),
            (none, one) => *none = none.take().or_else(|| one.clone()),
        }
        self.summary.frames_seen += 1;
        self.summary.last_seen = self.summary.last_seen.max(frame.time);
        self.summary.identification = identification(&self.opinion, judge);
    }

    /// What is to be said after a frame in which it was seen, `index` being its head's there: nothing, where name,
    /// certainty and the frame that shows it best are those that were told.
    fn tell(&mut self, frame: &SeenFrame, index: usize) -> Option<SightingChange> {
        let said = &self.summary.identification;
        let unknown = said.decision == Decision::Unknown;
        self.summary.stranger = self.number.filter(|_| unknown);
        let now = Told {
            decision: said.decision,
            // Whom a stranger is like changes often and says little.
            leading: said
                .candidates
                .first()
                .filter(|_| !unknown)
                .map(|c| c.individual.clone()),
            stranger: self.summary.stranger,
        };
        let head = &frame.heads[index];
        let first = self.told.is_none();
        let better = quality(frame, head) > CLEARLY_BETTER * self.summary.best.quality;
        if better && !first {
            self.summary.best = best_frame(frame, head);
        }
        if !better && self.told.as_ref() == Some(&now) {
            return None;
        }
        let picture = (first || better) && self.pictures < MOST_PICTURES;
        self.pictures += u32::from(picture);
        self.told = Some(now);
        let sighting = self.summary.clone();
        self.summary.revision += 1;
        Some(SightingChange {
            state: if first {
                SightingState::New
            } else {
                SightingState::Update
            },
            sighting,
            picture: picture.then_some(index),
        })
    }
}

fn identification(opinion: &PooledOpinion, judge: &impl Judge) -> Identification {
    let mut identification = judge.judge(&opinion.opinion());
    identification.candidates.truncate(CANDIDATES);
    identification
}

fn new_id(time: Timestamp) -> Uuid {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanoseconds))
}

fn best_frame(frame: &SeenFrame, head: &SeenHead) -> BestFrame {
    BestFrame {
        frame: frame.frame.clone(),
        camera: frame.camera.clone(),
        time: frame.time,
        landmarks: head.landmarks,
        confidence: head.confidence,
        quality: quality(frame, head),
    }
}

/// How well a frame shows a head, 0…1.
fn quality(frame: &SeenFrame, head: &SeenHead) -> f64 {
    let length = head.landmarks.head_length().min(FILLS_PICTURE) / FILLS_PICTURE;
    let whole = inside(&head.landmarks, frame)
        && frame.frame.incomplete.is_none()
        && frame.frame.damaged.is_none();
    f64::from(head.confidence) * length * if whole { 1.0 } else { 0.5 }
}

fn inside(landmarks: &Landmarks, frame: &SeenFrame) -> bool {
    let width = f64::from(frame.frame.width_pixels);
    let height = f64::from(frame.frame.height_pixels);
    [landmarks.bonnet, landmarks.blowhead]
        .iter()
        .all(|p| (0.0..=width).contains(&p.x) && (0.0..=height).contains(&p.y))
}
