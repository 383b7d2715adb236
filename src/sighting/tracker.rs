use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use link::message::SightingState;
use recognition::geometry::{Landmarks, Point};
use recognition::identify::{Appearance, Decision, Identification, PooledOpinion};
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use super::association::{Candidate, Head, associate};
use super::motion::{Place, Sea, seconds};
use super::strangers::Strangers;
use super::{BestFrame, Judge, Observed, SeenFrame, SeenHead, SightingChange, Summary};
use crate::position::View;

/// Candidates that a sighting names.
const CANDIDATES: usize = 5;
/// By this factor a frame must show a head better than the best one before to take its place.
const CLEARLY_BETTER: f64 = 1.25;
/// Pictures of one sighting that are kept at most.
const MOST_PICTURES: u32 = 3;
/// A head of this length in pixels fills the picture that is kept of it; more adds nothing.
const FILLS_PICTURE: f64 = 224.0;

/// Frames are not nearer than so many seconds.
const LEAST_ELAPSED: f64 = 0.02;

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
    /// From where the last frame was taken.
    #[serde(default)]
    view: Option<View>,
}

/// Where a camera's animals are expected in a frame, were it not for their swimming, and how the sea moves in it.
struct Expectation {
    /// Of each open sighting that the camera saw.
    places: Vec<Option<Place>>,
    sea: Sea,
    /// Whether position has carried the places: then the sea's speed is by how much that errs, in pixels.
    by_position: bool,
}

impl Expectation {
    /// How fast the sea moved since a place was seen, by what is expected here.
    fn sea_since(&self, place: &Place, now: Timestamp) -> Sea {
        if !self.by_position {
            return self.sea;
        }
        let elapsed = seconds(place.time, now).abs().max(LEAST_ELAPSED);
        Sea {
            speed: self.sea.speed * (1.0 / elapsed),
            variance: self.sea.variance / (elapsed * elapsed),
            time: self.sea.time,
        }
    }
}

/// What a frame's heads belong to.
struct Associated {
    /// The open sighting of each head, by index; none for a new animal.
    of_heads: Vec<Option<usize>>,
    expected: Expectation,
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
        let Associated { of_heads, expected } = self.associate(frame);
        let mut heads = Vec::with_capacity(frame.heads.len());
        for (index, (head, candidate)) in frame.heads.iter().zip(of_heads).enumerate() {
            let at = match candidate {
                Some(at) => {
                    let place = expected.places[at];
                    let place = place.map(|p| (p, expected.sea_since(&p, frame.time)));
                    self.open[at].see(frame, head, place, judge);
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

    fn associate(&mut self, frame: &SeenFrame) -> Associated {
        let mut expected = self.expect(frame);
        let open = self.open.iter().zip(&expected.places);
        let candidates: Vec<Candidate> = open
            .map(|(track, place)| Candidate {
                place: place.as_ref(),
                by_position: expected.by_position,
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
        let (width, height) = size(frame);
        let found = associate(
            &candidates,
            &heads,
            expected.sea,
            frame.time,
            width * height,
        );
        expected.sea = found.sea;
        let camera = self.cameras.get_mut(&frame.camera);
        if let Some(camera) = camera.filter(|_| !expected.by_position) {
            camera.sea = found.sea;
        }
        Associated {
            of_heads: found.of_heads,
            expected,
        }
    }

    /// Where animals are expected in a frame: carried by position where that is known, or else with the sea as it moved in
    /// the frames before.
    fn expect(&mut self, frame: &SeenFrame) -> Expectation {
        let (width, height) = size(frame);
        let unknown = CameraState {
            sea: Sea::unknown(height, frame.time),
            last_frame: frame.time,
            view: None,
        };
        let camera = self.cameras.entry(frame.camera.clone());
        let camera = camera.or_insert(unknown);
        let mut sea = camera.sea.at(height, frame.time);
        let elapsed = seconds(camera.last_frame, frame.time);
        let middle = (width / 2.0, height / 2.0);
        if let (Some(before), Some(now)) = (&camera.view, &frame.view)
            && elapsed > 0.0
            && let Some(carried) = before.carried(now, middle, elapsed)
        {
            let way = Point::new(carried.x - middle.0, carried.y - middle.1);
            let variance = (carried.deviation / elapsed).powi(2);
            sea = sea.with(way * (1.0 / elapsed), variance.max(f64::MIN_POSITIVE));
        }
        camera.sea = sea;
        if elapsed >= 0.0 {
            camera.last_frame = frame.time;
            camera.view = frame.view;
        }
        let places = self.open.iter().map(|t| t.places.get(&frame.camera));
        let places: Vec<Option<&Place>> = places.collect();
        let carry = |place: &Place| place.carried(frame.view.as_ref()?, frame.time);
        let carried: Vec<_> = places.iter().map(|place| carry((*place)?)).collect();
        // By how much all of them err together, in pixels.
        let errs = carried.iter().flatten();
        let errs = errs.map(|(_, deviation)| deviation * deviation);
        let errs: Vec<f64> = errs.collect();
        if errs.is_empty() {
            return Expectation {
                places: places.into_iter().map(|place| place.copied()).collect(),
                sea,
                by_position: false,
            };
        }
        let known = places.iter().zip(carried).map(|(place, carried)| {
            carried.map_or_else(
                || Some((*place)?.drifted(&sea, frame.time)),
                |(place, _)| Some(place),
            )
        });
        Expectation {
            places: known.collect(),
            sea: Sea {
                speed: Point::default(),
                variance: errs.iter().sum::<f64>() / errs.len() as f64,
                time: frame.time,
            },
            by_position: true,
        }
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
                Place::new(head.landmarks, frame.view, frame.time),
            )]),
            opinion,
            appearance: head.appearance.clone(),
            number: None,
            pictures: 0,
        }
    }

    /// `expected` is where its camera expected it, and how the sea has moved.
    fn see(
        &mut self,
        frame: &SeenFrame,
        head: &SeenHead,
        expected: Option<(Place, Sea)>,
        judge: &impl Judge,
    ) {
        let place = match expected {
            // A frame that comes late changes nothing: where the animal was later is known.
            Some((place, _)) if seconds(place.time, frame.time) < 0.0 => None,
            Some((mut place, sea)) => {
                place.update(head.landmarks, frame.view, &sea, frame.time);
                Some(place)
            }
            None => Some(Place::new(head.landmarks, frame.view, frame.time)),
        };
        if let Some(place) = place {
            self.places.insert(frame.camera.clone(), place);
        }
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

/// Width and height of a frame, in pixels.
fn size(frame: &SeenFrame) -> (f64, f64) {
    let (width, height) = (frame.frame.width_pixels, frame.frame.height_pixels);
    (f64::from(width.max(1)), f64::from(height.max(1)))
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
