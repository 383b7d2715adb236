//! Flights over the virtual sea: who is met when, and where in each frame.

use image::RgbImage;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Catalogue, Pose, Scene, SeaState};
use crate::geometry::{Affine, Landmarks, Point};
use crate::pixels::{CameraCondition, EncodeError};

/// Plans are made for frames of this width, in pixels; other sizes show the same, scaled.
pub const REFERENCE_WIDTH: f64 = 3072.0;
/// Height over width of the frames for which plans are made.
const REFERENCE_HEIGHT: f64 = 2048.0;

/// A whale in a [`FramePlan`].
#[derive(Clone, Debug)]
pub struct PlannedHead {
    /// Index in [`Catalogue::individuals`].
    pub individual: usize,
    /// Its pose in a frame of 3072 × 2048 pixels.
    pub pose: Pose,
}

/// What a frame will show, before it is drawn at some size.
#[derive(Clone, Debug)]
pub struct FramePlan {
    /// Number of the frame in its survey, from 0.
    pub number: u64,
    /// Number of the pass over a whale or group that the frame belongs to; none over empty sea.
    pub pass: Option<u64>,
    /// Weather, light and camera.
    pub sea: SeaState,
    /// How long a head is at this height of flight, in pixels of a frame 3072 wide.
    pub head_length: f64,
    /// The whales whose heads lie within the frame.
    pub heads: Vec<PlannedHead>,
    /// Decides where each wave stands.
    pub seed: u64,
}

/// A head in a [`VirtualFrame`]: the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHead {
    /// Name in the catalogue.
    pub individual: String,
    /// Whether models trained on the catalogue know it.
    pub known: bool,
    /// In the frame's pixels.
    pub landmarks: Landmarks,
}

/// A rendered frame with its truth.
#[derive(Clone, Debug)]
pub struct VirtualFrame {
    /// Number of the frame in its survey, from 0.
    pub number: u64,
    /// Number of the pass over a whale or group that the frame belongs to; none over empty sea.
    pub pass: Option<u64>,
    /// The photograph.
    pub image: RgbImage,
    /// Every head in it.
    pub heads: Vec<VirtualHead>,
}

impl FramePlan {
    /// The frame's truth at `width × height` pixels. The plan's 3:2 view is scaled to fill the frame;
    /// where the frame has another shape, what sticks out above and below, or left and right, is cut.
    pub fn heads_at(&self, catalogue: &Catalogue, width: u32, height: u32) -> Vec<VirtualHead> {
        let to_frame = fill(width, height);
        self.heads
            .iter()
            .filter_map(|head| {
                let individual = catalogue.individuals().get(head.individual)?;
                let landmarks = head.pose.landmarks().map(&to_frame);
                inside(&landmarks, f64::from(width), f64::from(height), 0.0).then(|| VirtualHead {
                    individual: individual.name.clone(),
                    known: individual.known,
                    landmarks,
                })
            })
            .collect()
    }

    /// Draws the frame at `width × height` pixels. The catalogue is the one the plan was made for;
    /// whales that it lacks are left out.
    pub fn render(&self, catalogue: &Catalogue, width: u32, height: u32) -> VirtualFrame {
        let to_frame = fill(width, height);
        let whales: Vec<_> = self
            .heads
            .iter()
            .filter_map(|head| {
                let individual = catalogue.individuals().get(head.individual)?;
                let pose = Pose {
                    picture_from_whale: head.pose.picture_from_whale.then(&to_frame),
                    ..head.pose
                };
                Some((&individual.whale, pose))
            })
            .collect();
        let image = Scene {
            sea: &self.sea,
            seed: self.seed,
            head_length: self.head_length * to_frame.xx,
            stretch: 1.0,
            whales: &whales,
            open_water: true,
        }
        .render(width, height);
        VirtualFrame {
            number: self.number,
            pass: self.pass,
            image,
            heads: self.heads_at(catalogue, width, height),
        }
    }

    /// [`render`](Self::render), as `camera` would have taken the frame. Its noise follows from the plan, so that the
    /// same plan and camera give the same frame.
    ///
    /// # Errors
    /// The camera writes JPEGs of a quality that does not exist, or the frame is too large for one.
    pub fn photograph(
        &self,
        catalogue: &Catalogue,
        width: u32,
        height: u32,
        camera: &CameraCondition,
    ) -> Result<VirtualFrame, EncodeError> {
        let mut frame = self.render(catalogue, width, height);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        camera.apply(&mut frame.image, &mut rng)?;
        Ok(frame)
    }
}

/// From the plan's pixels to a frame's that it fills, centred.
fn fill(width: u32, height: u32) -> Affine {
    let (w, h) = (f64::from(width), f64::from(height));
    let scale = (w / REFERENCE_WIDTH).max(h / REFERENCE_HEIGHT);
    Affine::scaling(scale, scale).then(&Affine::translation(Point::new(
        (w - scale * REFERENCE_WIDTH) / 2.0,
        (h - scale * REFERENCE_HEIGHT) / 2.0,
    )))
}

fn inside(landmarks: &Landmarks, width: f64, height: f64, margin: f64) -> bool {
    [landmarks.bonnet, landmarks.blowhead].iter().all(|p| {
        (margin..=width - margin).contains(&p.x) && (margin..=height - margin).contains(&p.y)
    })
}

/// A whale during a pass.
struct Passing {
    individual: usize,
    centre: Point,
    heading: f64,
    pose: Pose,
}

/// The plans of an endless flight over a population: the same seed gives the same flight.
struct Legs<'a> {
    catalogue: &'a Catalogue,
    rng: ChaCha8Rng,
    number: u64,
    pass: u64,
    /// Frames planned but not yet handed out, the next one last.
    ahead: Vec<FramePlan>,
}

impl<'a> Legs<'a> {
    fn new(catalogue: &'a Catalogue, rng: ChaCha8Rng) -> Self {
        Self {
            catalogue,
            rng,
            number: 0,
            pass: 0,
            ahead: Vec::new(),
        }
    }

    /// The next frame. `plan_pass` gives the heads in each frame of a pass, by the length at which they appear.
    fn next(
        &mut self,
        mut plan_pass: impl FnMut(&Catalogue, &mut ChaCha8Rng, f64) -> Vec<Vec<PlannedHead>>,
    ) -> Option<FramePlan> {
        while self.ahead.is_empty() {
            self.plan(&mut plan_pass);
        }
        self.ahead.pop()
    }

    /// Weather changes from leg to leg; on each, empty sea comes first and then a pass.
    fn plan(
        &mut self,
        plan_pass: &mut impl FnMut(&Catalogue, &mut ChaCha8Rng, f64) -> Vec<Vec<PlannedHead>>,
    ) {
        let rng = &mut self.rng;
        let sea = SeaState::draw(rng);
        let spread: f64 = StandardNormal.sample(rng);
        // Median and percentiles of real survey frames.
        let head_length = (269.0 * (0.4 * spread).exp()).clamp(95.0, 660.0);
        let empty = rng.random_range(0..4);
        let mut frames: Vec<(Option<u64>, Vec<PlannedHead>)> = vec![(None, Vec::new()); empty];
        if self.catalogue.individuals().is_empty() {
            frames.push((None, Vec::new()));
        } else {
            for heads in plan_pass(self.catalogue, rng, head_length) {
                frames.push(((!heads.is_empty()).then_some(self.pass), heads));
            }
            self.pass += 1;
        }
        for (pass, heads) in frames {
            self.ahead.push(FramePlan {
                number: self.number,
                pass,
                sea: sea.clone(),
                head_length,
                heads,
                seed: self.rng.random(),
            });
            self.number += 1;
        }
        self.ahead.reverse();
    }
}

/// An endless flight over a population: a stretch of empty sea, a pass of one to three frames over a
/// whale or a group, empty sea again. The same seed gives the same flight.
pub struct Survey<'a> {
    legs: Legs<'a>,
}

impl<'a> Survey<'a> {
    /// A flight over that population.
    pub fn new(catalogue: &'a Catalogue, seed: u64) -> Self {
        Self {
            legs: Legs::new(catalogue, ChaCha8Rng::seed_from_u64(seed)),
        }
    }
}

fn plan_pass(
    catalogue: &Catalogue,
    rng: &mut ChaCha8Rng,
    head_length: f64,
) -> Vec<Vec<PlannedHead>> {
    let sizes = [1, 1, 1, 1, 1, 1, 2, 2, 3, 5];
    let size = sizes.choose(rng).copied().unwrap_or(1);
    let frames: i32 = rng.random_range(1..=3);
    // The aircraft moves on by a third to half a frame between two photographs.
    let way = Affine::rotation(rng.random_range(0.0..std::f64::consts::TAU)).apply(Point::new(
        rng.random_range(0.25..0.45) * REFERENCE_HEIGHT,
        0.0,
    ));
    let heading = rng.random_range(0.0..std::f64::consts::TAU);
    let mut whales = draw_group(size, heading, head_length, rng, |rng| {
        draw_individual(catalogue, rng)
    });
    frames_of_pass(&mut whales, frames, way, head_length, rng)
}

/// Anybody; one of five is unknown, where there are such.
fn draw_individual(catalogue: &Catalogue, rng: &mut impl Rng) -> usize {
    let (known, all) = (catalogue.known().len(), catalogue.individuals().len());
    let unknown = known == 0 || (known < all && rng.random_bool(0.2));
    if unknown {
        rng.random_range(known..all)
    } else {
        rng.random_range(0..known)
    }
}

/// At most `size` whales, most of them on about one heading.
fn draw_group<R: Rng>(
    size: usize,
    common_heading: f64,
    head_length: f64,
    rng: &mut R,
    draw_individual: impl Fn(&mut R) -> usize,
) -> Vec<Passing> {
    let (w, h) = (REFERENCE_WIDTH, REFERENCE_HEIGHT);
    let mut whales: Vec<Passing> = Vec::new();
    for _ in 0..size {
        let individual = draw_individual(rng);
        let centre = Point::new(
            rng.random_range(0.15..0.85) * w,
            rng.random_range(0.15..0.85) * h,
        );
        // Animals of a group do not lie on top of each other, and nobody is in two places.
        let taken = whales
            .iter()
            .any(|o| o.individual == individual || o.centre.distance(centre) < 1.8 * head_length);
        if taken {
            continue;
        }
        let heading = if rng.random_bool(0.6) {
            common_heading + rng.random_range(-0.5..0.5)
        } else {
            rng.random_range(0.0..std::f64::consts::TAU)
        };
        if let Some(pose) = Pose::draw(rng, &placed(centre, heading, head_length)) {
            whales.push(Passing {
                individual,
                centre,
                heading,
                pose,
            });
        }
    }
    whales
}

/// The heads in each frame of a pass in which the aircraft moves on by `way` between two photographs.
fn frames_of_pass(
    whales: &mut [Passing],
    frames: i32,
    way: Point,
    head_length: f64,
    rng: &mut impl Rng,
) -> Vec<Vec<PlannedHead>> {
    let (w, h) = (REFERENCE_WIDTH, REFERENCE_HEIGHT);
    let middle = (f64::from(frames) - 1.0) / 2.0;
    (0..frames)
        .map(|k| {
            let shift = way * (f64::from(k) - middle);
            let mut heads = Vec::new();
            for whale in &mut *whales {
                whale.heading += rng.random_range(-0.12..0.12);
                let length = head_length * rng.random_range(0.94..1.06);
                let landmarks = placed(whale.centre - shift, whale.heading, length);
                let drawn = Pose::draw(rng, &landmarks);
                let Some(drawn) = drawn.filter(|_| inside(&landmarks, w, h, 12.0)) else {
                    continue;
                };
                // The animal keeps its place in the water between two frames, roughly.
                let pose = Pose {
                    submergence: 0.75 * whale.pose.submergence + 0.25 * drawn.submergence,
                    roll: 0.6 * whale.pose.roll + 0.4 * drawn.roll,
                    bend: 0.6 * whale.pose.bend + 0.4 * drawn.bend,
                    turbidity: whale.pose.turbidity,
                    white_water: 0.6 * whale.pose.white_water + 0.4 * drawn.white_water,
                    ..drawn
                };
                heads.push(PlannedHead {
                    individual: whale.individual,
                    pose,
                });
            }
            heads
        })
        .collect()
}

fn placed(centre: Point, heading: f64, length: f64) -> Landmarks {
    let half = Affine::rotation(heading).apply(Point::new(length / 2.0, 0.0));
    Landmarks {
        bonnet: centre + half,
        blowhead: centre - half,
    }
}

impl Iterator for Survey<'_> {
    type Item = FramePlan;

    fn next(&mut self) -> Option<FramePlan> {
        self.legs.next(plan_pass)
    }
}

/// An endless flight that is to be tracked: passes of one to four frames over whales and groups of up to twelve, with
/// up to three frames of empty sea between them. The aircraft keeps its course over the picture to some degrees, and its
/// speed goes with the size at which heads appear. A quarter of the whales, known and unknown, were seen some passes
/// before. The same seed gives the same flight.
pub struct RevisitingSurvey<'a> {
    legs: Legs<'a>,
    passes: RevisitingPasses,
}

struct RevisitingPasses {
    /// The direction in which the sea moves through the picture, in radians.
    course: f64,
    /// Who was met in each pass.
    met: Vec<Vec<usize>>,
}

/// Nobody is met again before so many other passes.
const PASSES_BEFORE_SEEN_AGAIN: usize = 2;

impl<'a> RevisitingSurvey<'a> {
    /// A flight over that population.
    pub fn new(catalogue: &'a Catalogue, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            passes: RevisitingPasses {
                course: rng.random_range(0.0..std::f64::consts::TAU),
                met: Vec::new(),
            },
            legs: Legs::new(catalogue, rng),
        }
    }
}

impl RevisitingPasses {
    fn plan(
        &mut self,
        catalogue: &Catalogue,
        rng: &mut ChaCha8Rng,
        head_length: f64,
    ) -> Vec<Vec<PlannedHead>> {
        let h = REFERENCE_HEIGHT;
        let frames = rng.random_range(1..=4);
        let drift: f64 = StandardNormal.sample(rng);
        let speed = rng.random_range(2.0..3.0) * head_length;
        let way = Affine::rotation(self.course + 0.1 * drift)
            .apply(Point::new(speed.clamp(0.2 * h, 0.4 * h), 0.0));
        let heading = rng.random_range(0.0..std::f64::consts::TAU);
        let size = *[1, 1, 1, 1, 1, 1, 2, 2, 3, 5, 12]
            .choose(rng)
            .expect("there are sizes");
        let mut whales = draw_group(size, heading, head_length, rng, |rng| {
            self.draw_individual(catalogue, rng)
        });
        self.met.push(whales.iter().map(|w| w.individual).collect());
        frames_of_pass(&mut whales, frames, way, head_length, rng)
    }

    /// Somebody who was met before, or anybody.
    fn draw_individual(&self, catalogue: &Catalogue, rng: &mut impl Rng) -> usize {
        let before = self.met.len().saturating_sub(PASSES_BEFORE_SEEN_AGAIN);
        let (before, lately) = self.met.split_at(before);
        let lately: Vec<usize> = lately.iter().flatten().copied().collect();
        let mut again: Vec<usize> = before.iter().flatten().copied().collect();
        again.retain(|individual| !lately.contains(individual));
        // One who was met often is not met again more often.
        again.sort_unstable();
        again.dedup();
        if rng.random_bool(0.25)
            && let Some(individual) = again.choose(rng)
        {
            return *individual;
        }
        draw_individual(catalogue, rng)
    }
}

impl Iterator for RevisitingSurvey<'_> {
    type Item = FramePlan;

    fn next(&mut self) -> Option<FramePlan> {
        let passes = &mut self.passes;
        self.legs
            .next(|catalogue, rng, head_length| passes.plan(catalogue, rng, head_length))
    }
}

/// A [`Survey`] whose frames are rendered at one size; endless.
pub struct RenderedSurvey<'a> {
    survey: Survey<'a>,
    width: u32,
    height: u32,
}

impl<'a> RenderedSurvey<'a> {
    /// A flight over that population with frames of `width × height` pixels.
    pub fn new(catalogue: &'a Catalogue, seed: u64, width: u32, height: u32) -> Self {
        Self {
            survey: Survey::new(catalogue, seed),
            width,
            height,
        }
    }
}

impl Iterator for RenderedSurvey<'_> {
    type Item = VirtualFrame;

    fn next(&mut self) -> Option<VirtualFrame> {
        let plan = self.survey.next()?;
        Some(plan.render(self.survey.legs.catalogue, self.width, self.height))
    }
}
