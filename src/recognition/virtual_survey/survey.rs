//! Frames of a survey for training and tests: who is met when, and where in each frame.

use image::RgbImage;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::{Catalogue, GeographicPoint, Pose, Scene, SeaState};
use crate::geometry::{Affine, Landmarks, Point};
use crate::pixels::{CameraCondition, EncodeError};

/// Plans are made for frames of this width, in pixels; other sizes show the same, scaled.
pub const REFERENCE_WIDTH: f64 = 3072.0;
/// Height over width of the frames for which plans are made.
pub(super) const REFERENCE_HEIGHT: f64 = 2048.0;

/// A whale in a [`FramePlan`].
#[derive(Clone, Debug)]
pub struct PlannedHead {
    /// Index in [`Catalogue::individuals`].
    pub individual: usize,
    /// Its pose in a frame of 3072 × 2048 pixels.
    pub pose: Pose,
    /// Where on the sea the middle between its landmarks is, in a flight along a path.
    pub place: Option<GeographicPoint>,
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
    /// By how much the picture moves during the exposure, in pixels of a frame 3072 wide.
    pub blur: Point,
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
    /// Where on the sea the middle between its landmarks is, in a flight along a path.
    pub place: Option<GeographicPoint>,
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
                    place: head.place,
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
        let mut image = Scene {
            sea: &self.sea,
            seed: self.seed,
            head_length: self.head_length * to_frame.xx,
            stretch: 1.0,
            whales: &whales,
            open_water: true,
        }
        .render(width, height);
        smear(&mut image, self.blur * to_frame.xx);
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

/// Averages over the way that the picture moves during the exposure, in steps of about a pixel.
fn smear(image: &mut RgbImage, way: Point) {
    let steps = way.length().min(100.0).round() as i32;
    let width = image.width() as usize;
    if steps < 1 || width == 0 || !way.is_finite() {
        return;
    }
    let sharp = image.clone();
    let last_row = i64::from(image.height()) - 1;
    let row_bytes = 3 * width;
    let shifts: Vec<(i64, i64)> = (0..=steps)
        .map(|k| way * (f64::from(k) / f64::from(steps) - 0.5))
        .map(|shift| (shift.x.round() as i64, shift.y.round() as i64))
        .collect();
    let rows = image.par_chunks_mut(row_bytes).enumerate();
    rows.for_each(|(j, row)| {
        let mut sums = vec![0_u32; row_bytes];
        for &(dx, dy) in &shifts {
            let from = (j as i64 + dy).clamp(0, last_row) as usize * row_bytes;
            let from = &sharp.as_raw()[from..from + row_bytes];
            for i in 0..width {
                let at = 3 * (i as i64 + dx).clamp(0, width as i64 - 1) as usize;
                for c in 0..3 {
                    sums[3 * i + c] += u32::from(from[at + c]);
                }
            }
        }
        let count = shifts.len() as u32;
        for (value, sum) in row.iter_mut().zip(sums) {
            *value = ((sum + count / 2) / count) as u8;
        }
    });
}

pub(super) fn inside(landmarks: &Landmarks, width: f64, height: f64, margin: f64) -> bool {
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

    fn next(&mut self) -> Option<FramePlan> {
        while self.ahead.is_empty() {
            self.plan();
        }
        self.ahead.pop()
    }

    /// Weather changes from leg to leg; on each, empty sea comes first and then a pass.
    fn plan(&mut self) {
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
                blur: Point::default(),
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
    let mut whales = draw_group(catalogue, size, heading, head_length, rng);
    frames_of_pass(&mut whales, frames, way, head_length, rng)
}

/// Anybody; one of five is unknown, where there are such.
pub(super) fn draw_individual(catalogue: &Catalogue, rng: &mut impl Rng) -> usize {
    let (known, all) = (catalogue.known().len(), catalogue.individuals().len());
    let unknown = known == 0 || (known < all && rng.random_bool(0.2));
    if unknown {
        rng.random_range(known..all)
    } else {
        rng.random_range(0..known)
    }
}

/// At most `size` whales, most of them on about one heading.
fn draw_group(
    catalogue: &Catalogue,
    size: usize,
    common_heading: f64,
    head_length: f64,
    rng: &mut impl Rng,
) -> Vec<Passing> {
    let (w, h) = (REFERENCE_WIDTH, REFERENCE_HEIGHT);
    let mut whales: Vec<Passing> = Vec::new();
    for _ in 0..size {
        let individual = draw_individual(catalogue, rng);
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
                    place: None,
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
        self.legs.next()
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
