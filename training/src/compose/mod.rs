//! Composed photographs: training frames for the finder and training crops for the aligner.
//!
//! Real head photographs are un-squeezed and laid into real or drawn water at real poses, with a body
//! grown from the photograph's own rear edge, white water, glitter, decoys, and whatever a camera does.
//! A network must find no trace of how it was done, so nothing ever ends at a straight edge of a head
//! photograph, decoys have the same kinds of edges as heads, and water takes the colours of the head's
//! own surroundings. Where real frames with known heads may be trained on, windows of them come between
//! the composed frames.
//!
//! This room knows head photographs, poses and water; it knows no network and no file.

mod camera;
mod data;
mod decoy;
mod head;
mod noise;
pub mod open_water;
mod raster;
mod real_frame;
mod sea;
mod whale;

use std::path::PathBuf;

use image::{Rgb, RgbImage, imageops};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;
use recognition::geometry::{Affine, Landmarks, Point, Rectangle};

use crate::index::SourcePose;

pub use head::HeadPhotograph;
use noise::NoiseTile;
use raster::Canvas;
pub use real_frame::RealFrame;
use sea::Palette;
pub use sea::SeaSource;
use whale::Whale;

/// Why nothing can be composed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ComposeError {
    #[error("there are no head photographs to compose from: import data with `heads/` first")]
    NoHeads,
    #[error(
        "head photograph number {number} has {width} × {height} pixels; at least 16 × 16 are needed"
    )]
    HeadTooSmall {
        number: usize,
        width: u32,
        height: u32,
    },
    #[error(
        "pose number {number} is useless: a frame of {width} × {height} pixels with a head {head_length} pixels long"
    )]
    BadPose {
        number: usize,
        width: u32,
        height: u32,
        head_length: f64,
    },
    #[error("the cache lacks head photograph {0}: remove the cache and import again")]
    NotCached(String),
    #[error("{path}: {source}")]
    Frame {
        path: PathBuf,
        source: recognition::pixels::DecodeError,
    },
}

/// A frame, or a part of one, with its heads.
#[derive(Clone, Debug)]
pub struct ComposedFrame {
    /// The picture; a whole frame is already padded with mid-grey where its shape differs from the one
    /// asked for.
    pub image: RgbImage,
    /// All heads in it, in pixels of the picture; empty for a frame without heads.
    pub heads: Vec<Landmarks>,
}

/// A crop around a found head as the aligner sees it.
#[derive(Clone, Debug)]
pub struct ComposedCrop {
    /// The square picture.
    pub image: RgbImage,
    /// The true landmarks in pixels of the picture.
    pub landmarks: Landmarks,
}

/// Width and height in pixels of the frames of which [close-ups](Composer::close_up) show a part: those of
/// most of the survey's cameras, in which head lengths are 60 to 700 pixels.
pub const FULL_FRAME: (u32, u32) = (3072, 2048);

/// Longest side in pixels of a composed picture: of the largest cameras there are.
pub const LARGEST_SIDE: u32 = 16384;

/// Makes training pictures without end. One is shared by all worker threads.
pub struct Composer {
    heads: Vec<HeadPhotograph>,
    poses: Vec<SourcePose>,
    seas: Vec<SeaSource>,
    real_frames: Vec<RealFrame>,
    real_share: f64,
    tile: NoiseTile,
    fine_tile: NoiseTile,
}

impl Composer {
    /// Prepares head photographs (squeezed squares of any size, geometry
    /// [`HeadCrop::RIGHT_WHALE`](recognition::geometry::HeadCrop::RIGHT_WHALE)), the poses to draw from,
    /// and pieces of real water. Without poses the sizes and places are made up; without water all sea
    /// is drawn.
    ///
    /// # Errors
    /// Where there is no head photograph, one is too small, or a pose has no head length.
    pub fn new(
        heads: &[RgbImage],
        poses: Vec<SourcePose>,
        seas: Vec<SeaSource>,
    ) -> Result<Self, ComposeError> {
        if heads.is_empty() {
            return Err(ComposeError::NoHeads);
        }
        for (number, pose) in poses.iter().enumerate() {
            let head_length = pose.landmarks.head_length();
            if !(head_length > 1.0 && head_length.is_finite())
                || pose.frame_width == 0
                || pose.frame_height == 0
            {
                return Err(ComposeError::BadPose {
                    number,
                    width: pose.frame_width,
                    height: pose.frame_height,
                    head_length,
                });
            }
        }
        let heads = heads
            .par_iter()
            .enumerate()
            .map(|(number, image)| HeadPhotograph::new(image, number))
            .collect::<Result<_, _>>()?;
        let rng = &mut ChaCha8Rng::seed_from_u64(0x5ea);
        Ok(Self {
            heads,
            poses,
            seas,
            real_frames: Vec::new(),
            real_share: 0.0,
            tile: NoiseTile::new(rng, 32, 4, 0.6),
            fine_tile: NoiseTile::new(rng, 64, 3, 0.75),
        })
    }

    /// Lets a `share` (0 to 1) of the [frames](Self::frame) be windows of real ones, into some of which
    /// heads are composed too, and takes water from them.
    pub fn with_real_frames(mut self, frames: Vec<RealFrame>, share: f64) -> Self {
        let seas: Vec<Vec<SeaSource>> = frames
            .par_iter()
            .map(|frame| SeaSource::from_frame(frame.pixels()))
            .collect();
        self.seas.extend(seas.into_iter().flatten());
        self.real_frames = frames;
        self.real_share = share.clamp(0.0, 1.0);
        self
    }

    /// Number of head photographs.
    pub fn head_count(&self) -> usize {
        self.heads.len()
    }

    /// The head photographs, in the order in which they were given.
    pub fn heads(&self) -> &[HeadPhotograph] {
        &self.heads
    }

    /// A head photograph, each as likely as the others.
    pub fn draw_head(&self, rng: &mut impl Rng) -> &HeadPhotograph {
        &self.heads[rng.random_range(0..self.heads.len())]
    }

    /// Composes a frame of `width × height` pixels (both 32 to [`LARGEST_SIDE`]): one head in 55 % of the frames,
    /// several in 20 %, none in 25 %. Both landmarks of every head lie inside the picture. Where there
    /// are real frames, a share of them are windows of those.
    ///
    /// # Panics
    /// Where a side is out of range.
    pub fn frame(&self, rng: &mut impl Rng, width: u32, height: u32) -> ComposedFrame {
        self.framed(rng, width, height, |rng, width, height| {
            let real = !self.real_frames.is_empty() && rng.random_bool(self.real_share);
            if real {
                self.paint_real_frame(rng, width, height)
            } else {
                self.paint_composed_frame(rng, width, height)
            }
        })
    }

    /// Composes a frame of `width × height` pixels (both 32 to [`LARGEST_SIDE`]) as [`frame`](Self::frame) does, but
    /// with just one head in it, that of `head`, and never mirrored: callosities are not those of their
    /// mirror image. Decoys may be in it, real frames are not.
    ///
    /// # Panics
    /// Where a side is out of range.
    pub fn frame_with_head(
        &self,
        rng: &mut impl Rng,
        head: &HeadPhotograph,
        width: u32,
        height: u32,
    ) -> ComposedFrame {
        self.framed(rng, width, height, |rng, width, height| {
            let pose = self.draw_pose(rng, width, height);
            self.paint_group(rng, (width, height), vec![pose], 1, head, false)
        })
    }

    /// Composes what a rectangle of a frame with one head shows, without the rest of the frame: the frame
    /// has the size [`FULL_FRAME`], `head` lies in it as in [`frame_with_head`](Self::frame_with_head) but without decoys, and
    /// `part` chooses the rectangle by the head's landmarks and what the frame covers, both in the frame's
    /// pixels. The picture has the rectangle's shape, about `area` pixels (1024 to 16777216), and no side
    /// below 16.
    ///
    /// # Panics
    /// Where `area` is out of range or the rectangle has none.
    pub fn close_up(
        &self,
        rng: &mut impl Rng,
        head: &HeadPhotograph,
        area: u32,
        part: impl FnOnce(&Landmarks, &Rectangle) -> Rectangle,
    ) -> ComposedFrame {
        assert!(
            (1024..=16_777_216).contains(&area),
            "a close-up of {area} pixels is not of 1024 to 16777216"
        );
        let rng = &mut ChaCha8Rng::seed_from_u64(rng.random());
        let (frame_width, frame_height) = FULL_FRAME;
        let pose = self.draw_pose(rng, frame_width, frame_height);
        let part = part(&pose, &Rectangle::of_image(frame_width, frame_height));
        assert!(
            part.width() > 0.0 && part.height() > 0.0,
            "a close-up of {part:?} shows nothing"
        );
        let scale = (f64::from(area) / (part.width() * part.height())).sqrt();
        let [width, height] =
            [part.width(), part.height()].map(|side| (side * scale).round().max(16.0));
        let canvas_from_frame = Affine::translation(Point::new(-part.left, -part.top)).then(
            &Affine::scaling(width / part.width(), height / part.height()),
        );
        let pose = pose.map(&canvas_from_frame);
        let mut canvas = Canvas::new(width as usize, height as usize);
        let frame_width = (f64::from(frame_width) * scale) as f32;
        let palette = self.draw_palette(rng, head);
        self.paint_sea(&mut canvas, rng, &palette, frame_width);
        if let Some(units) = whale::units_from_canvas(&pose, false) {
            self.paint_whale(&mut canvas, rng, head, &units, &palette, true);
        }
        self.paint_over(&mut canvas, rng, frame_width);
        ComposedFrame {
            image: camera::photograph(canvas, rng),
            heads: vec![pose],
        }
    }

    /// What `paint` paints, as the camera shows it, padded to `width × height` pixels.
    fn framed(
        &self,
        rng: &mut impl Rng,
        width: u32,
        height: u32,
        paint: impl FnOnce(&mut ChaCha8Rng, u32, u32) -> (Canvas, Vec<Landmarks>),
    ) -> ComposedFrame {
        check_size(width, height);
        // One type of generator inside: what is drawn does not depend on the caller's.
        let rng = &mut ChaCha8Rng::seed_from_u64(rng.random());
        // Real frames are 3 : 2 and padded to the input's shape.
        let (w, h) = (f64::from(width), f64::from(height));
        let (content_w, content_h) = if rng.random_bool(0.15) {
            (width, height)
        } else if w * 2.0 > h * 3.0 {
            (((h * 1.5).round() as u32).min(width), height)
        } else {
            (width, ((w / 1.5).round() as u32).min(height))
        };
        let (canvas, heads) = paint(rng, content_w, content_h);
        let image = camera::photograph(canvas, rng);
        let (left, top) = ((width - content_w) / 2, (height - content_h) / 2);
        let image = if (content_w, content_h) == (width, height) {
            image
        } else {
            let mut padded = RgbImage::from_pixel(width, height, Rgb([128; 3]));
            imageops::replace(&mut padded, &image, left.into(), top.into());
            padded
        };
        let shift = Affine::translation(Point::new(left.into(), top.into()));
        ComposedFrame {
            image,
            heads: heads.iter().map(|l| l.map(&shift)).collect(),
        }
    }

    fn paint_composed_frame(
        &self,
        rng: &mut ChaCha8Rng,
        content_w: u32,
        content_h: u32,
    ) -> (Canvas, Vec<Landmarks>) {
        let heads = match rng.random_range(0..100) {
            0..55 => 1,
            55..75 => rng.random_range(2..5),
            _ => 0,
        };
        let first = self.draw_pose(rng, content_w, content_h);
        let mut poses = vec![first];
        while poses.len() < heads {
            match neighbour(rng, &first, &poses, content_w, content_h) {
                Some(pose) => poses.push(pose),
                None => break,
            }
        }
        let primary = self.draw_head(rng);
        self.paint_group(rng, (content_w, content_h), poses, heads, primary, true)
    }

    /// Water with decoys and a whale at each of the first `heads` poses, the first with the head `primary`,
    /// and with `mirrors` some of them mirrored. There is a pose even without heads: decoys have its size.
    fn paint_group(
        &self,
        rng: &mut ChaCha8Rng,
        (width, height): (u32, u32),
        mut poses: Vec<Landmarks>,
        heads: usize,
        primary: &HeadPhotograph,
        mirrors: bool,
    ) -> (Canvas, Vec<Landmarks>) {
        let mut canvas = Canvas::new(width as usize, height as usize);
        // How wide the frame's content is says how large the waves are.
        let frame_width = width as f32;
        let palette = self.draw_palette(rng, primary);
        self.paint_sea(&mut canvas, rng, &palette, frame_width);
        let size = poses[0].head_length();
        let decoys = if rng.random_bool(0.6) {
            rng.random_range(0..6)
        } else {
            0
        };
        for _ in 0..decoys {
            self.paint_decoy(&mut canvas, rng, &palette, size);
        }
        for (i, pose) in poses.iter().take(heads).enumerate() {
            let head = if i == 0 { primary } else { self.draw_head(rng) };
            let mirrored = mirrors && rng.random_bool(0.5);
            if let Some(units) = whale::units_from_canvas(pose, mirrored) {
                self.paint_whale(&mut canvas, rng, head, &units, &palette, true);
            }
        }
        self.paint_over(&mut canvas, rng, frame_width);
        poses.truncate(heads);
        (canvas, poses)
    }

    /// A window of a real frame, and in some of them one more whale.
    fn paint_real_frame(
        &self,
        rng: &mut ChaCha8Rng,
        width: u32,
        height: u32,
    ) -> (Canvas, Vec<Landmarks>) {
        let frame = &self.real_frames[rng.random_range(0..self.real_frames.len())];
        let (window, mut heads) = frame.window(rng, width, height);
        let mut canvas = Canvas::from_image(&window);
        let pose = match heads.first() {
            None if rng.random_bool(0.4) => Some(self.draw_pose(rng, width, height)),
            Some(first) if rng.random_bool(0.15) => neighbour(rng, first, &heads, width, height),
            _ => None,
        };
        let head = self.draw_head(rng);
        if let Some(pose) = pose
            && let Some(units) = whale::units_from_canvas(&pose, rng.random_bool(0.5))
        {
            let palette = Palette::of(&canvas);
            self.paint_whale(&mut canvas, rng, head, &units, &palette, true);
            heads.push(pose);
        }
        (canvas, heads)
    }

    /// Composes a square crop of `side` pixels (32 to [`LARGEST_SIDE`]) that shows `field_head_lengths` (1 to 10)
    /// *estimated* head lengths, with a finder's errors in the estimate: centre off by up to a quarter
    /// of the head's length, scale 0.7 to 1.4, any rotation but mostly near upright, some shear.
    ///
    /// # Panics
    /// Where the side or the field is out of range.
    pub fn crop(&self, rng: &mut impl Rng, side: u32, field_head_lengths: f64) -> ComposedCrop {
        check_size(side, side);
        assert!(
            (1.0..=10.0).contains(&field_head_lengths),
            "a field of {field_head_lengths} head lengths is not from 1 to 10"
        );
        let rng = &mut ChaCha8Rng::seed_from_u64(rng.random());
        let normal = Normal::new(0.0f64, 1.0).expect("a finite spread");
        let estimated = f64::from(side) / field_head_lengths;
        let length = estimated * (0.18 * normal.sample(rng)).exp().clamp(0.7, 1.4);
        let radians = if rng.random_bool(0.7) {
            0.35 * normal.sample(rng)
        } else {
            rng.random_range(-std::f64::consts::PI..std::f64::consts::PI)
        };
        let middle = f64::from(side) / 2.0;
        let off = length * rng.random_range(0.0..0.25);
        let direction = rng.random_range(0.0..std::f64::consts::TAU);
        let mirrored = if rng.random_bool(0.5) { -1.0 } else { 1.0 };
        let stretch = (0.08 * normal.sample(rng)).exp();
        let canvas_from_units = Affine::translation(Point::new(-0.5, 0.0))
            .then(&Affine::scaling(
                length * stretch,
                mirrored * length / stretch,
            ))
            .then(&Affine::shear_x(0.1 * normal.sample(rng)))
            .then(&Affine::rotation(radians))
            .then(&Affine::translation(Point::new(
                middle + off * direction.cos(),
                middle + off * direction.sin(),
            )));
        let units = canvas_from_units
            .inverse()
            .expect("length and stretch are above 0");
        let fraction = match self.poses.as_slice() {
            [] => rng.random_range(0.03..0.15),
            poses => {
                let pose = &poses[rng.random_range(0..poses.len())];
                pose.landmarks.head_length() / f64::from(pose.frame_width)
            }
        };
        let frame_width = (length / fraction.clamp(0.02, 0.3)) as f32;

        let mut canvas = Canvas::new(side as usize, side as usize);
        let head = self.draw_head(rng);
        let palette = self.draw_palette(rng, head);
        self.paint_sea(&mut canvas, rng, &palette, frame_width);
        if rng.random_bool(0.3) {
            for _ in 0..rng.random_range(1..3) {
                self.paint_decoy(&mut canvas, rng, &palette, length);
            }
        }
        self.paint_whale(&mut canvas, rng, head, &units, &palette, true);
        self.paint_over(&mut canvas, rng, frame_width);
        ComposedCrop {
            image: camera::photograph(canvas, rng),
            landmarks: Landmarks {
                bonnet: canvas_from_units.apply(Point::new(1.0, 0.0)),
                blowhead: canvas_from_units.apply(Point::new(0.0, 0.0)),
            },
        }
    }

    /// The colours of the water around a head photograph, or near them.
    fn draw_palette(&self, rng: &mut impl Rng, head: &HeadPhotograph) -> Palette {
        Palette {
            mean: head.sea.map(|v| v * rng.random_range(0.94..1.06)),
            contrast: head.sea_contrast.clamp(2.0, 30.0) * rng.random_range(0.7..1.3),
        }
    }

    fn paint_sea(
        &self,
        canvas: &mut Canvas,
        rng: &mut impl Rng,
        palette: &Palette,
        frame_width: f32,
    ) {
        if !self.seas.is_empty() && rng.random_bool(0.75) {
            let source = &self.seas[rng.random_range(0..self.seas.len())];
            sea::paint_real(canvas, rng, source, palette, frame_width);
        } else {
            sea::paint_drawn(canvas, rng, &self.fine_tile, palette, frame_width);
        }
        sea::shade(canvas, rng, &self.tile);
        if rng.random_bool(0.25) {
            let density = rng.random_range(0.0..1.0);
            sea::glitter(canvas, rng, &self.fine_tile, frame_width, density);
        }
    }

    fn paint_decoy(
        &self,
        canvas: &mut Canvas,
        rng: &mut impl Rng,
        palette: &Palette,
        head_length: f64,
    ) {
        let head = self.draw_head(rng);
        let size = head_length * rng.random_range(0.5..1.6);
        if rng.random_bool(0.3) {
            let at = Point::new(
                rng.random_range(0.0..canvas.width as f64),
                rng.random_range(0.0..canvas.height as f64),
            );
            let radians = rng.random_range(0.0..std::f64::consts::TAU);
            if let Some(units) = decoy::placed(at, size, radians) {
                self.paint_whale(canvas, rng, head, &units, palette, false);
            }
        } else {
            decoy::paint(canvas, rng, &self.tile, head, palette.mean, size);
        }
    }

    fn paint_whale(
        &self,
        canvas: &mut Canvas,
        rng: &mut impl Rng,
        head: &HeadPhotograph,
        units_from_canvas: &Affine,
        palette: &Palette,
        with_head: bool,
    ) {
        let gain = std::array::from_fn(|i| {
            ((palette.mean[i] + 15.0) / (head.sea[i] + 15.0)).clamp(0.5, 2.0)
        });
        let whale = Whale::draw(rng, with_head, palette.mean);
        whale.paint(canvas, rng, &self.tile, head, units_from_canvas, gain);
        if with_head && rng.random_bool(0.12) {
            let turned = Affine::rotation(rng.random_range(-3.0..3.0));
            let blow = units_from_canvas.then(&turned);
            let length = rng.random_range(0.8..2.5);
            decoy::blow(canvas, rng, &self.tile, &blow, length);
        }
    }

    /// What lies over water and whales alike.
    fn paint_over(&self, canvas: &mut Canvas, rng: &mut impl Rng, frame_width: f32) {
        if rng.random_bool(0.1) {
            let density = rng.random_range(0.0..0.5);
            sea::glitter(canvas, rng, &self.fine_tile, frame_width, density);
        }
    }

    /// Landmarks in a picture of `width × height`, both well inside.
    fn draw_pose(&self, rng: &mut impl Rng, width: u32, height: u32) -> Landmarks {
        let (w, h) = (f64::from(width), f64::from(height));
        let normal = Normal::new(0.0f64, 1.0).expect("a finite spread");
        for _ in 0..50 {
            let (mut length, mut centre, mut radians) = match self.poses.as_slice() {
                [] => (
                    w * rng.random_range(0.03..0.13),
                    Point::new(w * rng.random::<f64>(), h * rng.random::<f64>()),
                    0.0,
                ),
                poses => {
                    let pose = &poses[rng.random_range(0..poses.len())];
                    let (c, l) = (pose.landmarks.centre(), &pose.landmarks);
                    let along = l.bonnet - l.blowhead;
                    (
                        l.head_length() / f64::from(pose.frame_width) * w,
                        Point::new(
                            c.x / f64::from(pose.frame_width) * w,
                            c.y / f64::from(pose.frame_height) * h,
                        ),
                        along.y.atan2(along.x),
                    )
                }
            };
            length *= (0.2 * normal.sample(rng)).exp();
            if rng.random_bool(0.12) {
                // 60 to 700 pixels in a frame 3072 wide: larger than real ones too, as a closer look
                // shows them.
                length = w * 60.0 / 3072.0 * (700.0f64 / 60.0).powf(rng.random());
            }
            if rng.random_bool(0.4) {
                centre = Point::new(w * rng.random::<f64>(), h * rng.random::<f64>());
            } else {
                centre.x += 0.05 * w * normal.sample(rng);
                centre.y += 0.05 * h * normal.sample(rng);
            }
            if rng.random_bool(0.6) {
                radians = rng.random_range(0.0..std::f64::consts::TAU);
            }
            let landmarks = placed_landmarks(centre, length, radians);
            if inside(&landmarks, w, h) {
                return landmarks;
            }
        }
        placed_landmarks(Point::new(w / 2.0, h / 2.0), w.min(h) * 0.12, 0.0)
    }
}

fn check_size(width: u32, height: u32) {
    let sides = 32..=LARGEST_SIDE;
    assert!(
        sides.contains(&width) && sides.contains(&height),
        "cannot compose {width} × {height} pixels: both sides must be from 32 to {LARGEST_SIDE}"
    );
}

fn placed_landmarks(centre: Point, length: f64, radians: f64) -> Landmarks {
    let half = Point::new(radians.cos(), radians.sin()) * (length / 2.0);
    Landmarks {
        bonnet: centre + half,
        blowhead: centre - half,
    }
}

fn inside(landmarks: &Landmarks, width: f64, height: f64) -> bool {
    [landmarks.bonnet, landmarks.blowhead]
        .iter()
        .all(|p| (2.0..width - 2.0).contains(&p.x) && (2.0..height - 2.0).contains(&p.y))
}

/// Another animal of the group around `first`, not on top of one that is there.
fn neighbour(
    rng: &mut impl Rng,
    first: &Landmarks,
    others: &[Landmarks],
    width: u32,
    height: u32,
) -> Option<Landmarks> {
    for _ in 0..20 {
        let calf = rng.random_bool(0.25);
        let size = if calf {
            rng.random_range(0.45..0.75)
        } else {
            rng.random_range(0.8..1.2)
        };
        let length = first.head_length() * size;
        let away = first.head_length() * rng.random_range(1.0..7.0);
        let direction = rng.random_range(0.0..std::f64::consts::TAU);
        let centre = first.centre() + Point::new(direction.cos(), direction.sin()) * away;
        let radians = rng.random_range(0.0..std::f64::consts::TAU);
        let pose = placed_landmarks(centre, length, radians);
        let free = others
            .iter()
            .all(|o| o.centre().distance(centre) > 0.9 * o.head_length().max(length));
        if free && inside(&pose, width.into(), height.into()) {
            return Some(pose);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    // Named, for the prelude brings another version's.
    use rand::Rng;

    use super::*;

    /// A grey head with a red disc at the bonnet and a green one at the blowhead, on blue water.
    fn dotted_head() -> RgbImage {
        RgbImage::from_fn(224, 224, |x, y| {
            let (s, t) = (
                (f64::from(x) + 0.5) / 112.0 - 0.6,
                (f64::from(y) + 0.5) / 224.0 - 0.5,
            );
            if (s - 1.0).hypot(t) < 0.1 {
                Rgb([255, 0, 0])
            } else if s.hypot(t) < 0.1 {
                Rgb([0, 255, 0])
            } else if t.abs() < 0.3 && s < 1.1 {
                Rgb([60, 60, 60])
            } else {
                Rgb([20, 40, 90])
            }
        })
    }

    /// Centre of the pixels that one channel dominates, in pixels.
    fn centre_of(canvas: &Canvas, channel: usize) -> Option<Point> {
        let (mut sum, mut n) = (Point::default(), 0.0);
        for (i, c) in canvas.pixels.iter().enumerate() {
            let others = (0..3).filter(|&k| k != channel).map(|k| c[k]);
            if c[channel] > 100.0 + others.fold(0.0, f32::max) {
                let (x, y) = (i % canvas.width, i / canvas.width);
                sum = sum + Point::new(x as f64 + 0.5, y as f64 + 0.5);
                n += 1.0;
            }
        }
        (n > 0.0).then(|| sum * (1.0 / n))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn landmarks_lie_where_the_head_was_painted(
            seed: u64, x in 60.0..140.0, y in 60.0..140.0, length in 24.0..70.0,
            radians in 0.0..std::f64::consts::TAU, mirrored: bool,
        ) {
            let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
            let head = &composer.heads[0];
            let pose = placed_landmarks(Point::new(x, y), length, radians);
            let units = whale::units_from_canvas(&pose, mirrored).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut canvas = Canvas::new(200, 200);
            let mut whale = Whale::draw(&mut rng, true, head.sea);
            whale.keep_dry();
            whale.paint(&mut canvas, &mut rng, &composer.tile, head, &units, [1.0; 3]);
            let red = centre_of(&canvas, 0).expect("a bonnet to be seen");
            let green = centre_of(&canvas, 1).expect("a blowhead to be seen");
            // A soft mask may thin the front of the bonnet's disc.
            prop_assert!(red.distance(pose.bonnet) < 0.06 * length + 0.5, "{red:?} {pose:?}");
            prop_assert!(green.distance(pose.blowhead) < 0.03 * length + 0.5, "{green:?} {pose:?}");
        }

        #[test]
        fn heads_lie_inside_and_seeds_decide(seed: u64, width in 96u32..420, height in 96u32..300) {
            let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
            let compose = || composer.frame(&mut ChaCha8Rng::seed_from_u64(seed), width, height);
            let (one, two) = (compose(), compose());
            prop_assert_eq!(one.image.dimensions(), (width, height));
            prop_assert!(one.image == two.image);
            prop_assert_eq!(&one.heads, &two.heads);
            for head in &one.heads {
                prop_assert!(inside(head, width.into(), height.into()), "{:?}", head);
                prop_assert!(head.head_length() > 0.5);
            }
        }

        #[test]
        fn a_frame_with_one_head_has_that_head_and_no_mirror_image(
            seed: u64, width in 96u32..420, height in 96u32..300,
        ) {
            let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
            let head = HeadPhotograph::new(&dotted_head(), 0).unwrap();
            let compose = || {
                composer.frame_with_head(&mut ChaCha8Rng::seed_from_u64(seed), &head, width, height)
            };
            let frame = compose();
            prop_assert_eq!(frame.image.dimensions(), (width, height));
            prop_assert!(frame.image == compose().image);
            prop_assert_eq!(frame.heads.len(), 1);
            prop_assert!(inside(&frame.heads[0], width.into(), height.into()));
        }

        #[test]
        fn close_ups_show_the_part_that_was_chosen(seed: u64, margin in 0.3..2.0f64, area in 2000u32..40_000) {
            let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
            let mut chosen = None;
            let shown = composer.close_up(
                &mut ChaCha8Rng::seed_from_u64(seed),
                &composer.heads[0],
                area,
                |head, frame| {
                    let points = [head.bonnet, head.blowhead].map(|p| Rectangle {
                        left: p.x, top: p.y, right: p.x, bottom: p.y,
                    });
                    let part = points[0].union(&points[1]).grown(margin * head.head_length()).clamped(frame);
                    chosen = Some((*head, part));
                    part
                },
            );
            let (head, part) = chosen.expect("asked for");
            let (w, h) = (f64::from(shown.image.width()), f64::from(shown.image.height()));
            let same = |p: Point| Point::new(
                (p.x - part.left) / part.width() * w, (p.y - part.top) / part.height() * h,
            );
            prop_assert!(shown.heads[0].bonnet.distance(same(head.bonnet)) < 1e-6);
            prop_assert!(shown.heads[0].blowhead.distance(same(head.blowhead)) < 1e-6);
            prop_assert!((w * h / f64::from(area) - 1.0).abs() < 0.1, "{w} × {h} for {area}");
            let shapes = (w / h) / (part.width() / part.height());
            prop_assert!((0.9..1.1).contains(&shapes), "{w} × {h} shows {part:?}");
        }

        #[test]
        fn crops_hold_what_the_finder_may_have_missed(seed: u64, side in 64u32..160) {
            let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
            let field = crate::tasks::ALIGNER_FIELD_HEAD_LENGTHS;
            let crop = composer.crop(&mut ChaCha8Rng::seed_from_u64(seed), side, field);
            prop_assert_eq!(crop.image.dimensions(), (side, side));
            let estimated = f64::from(side) / field;
            let middle = Point::new(f64::from(side) / 2.0, f64::from(side) / 2.0);
            prop_assert!(crop.landmarks.centre().distance(middle) <= 0.25 * 1.4 * estimated + 1e-9);
            let ratio = crop.landmarks.head_length() / estimated;
            prop_assert!((0.4..2.4).contains(&ratio), "{}", ratio);
        }
    }

    #[test]
    fn the_asked_share_of_frames_is_real_and_shows_their_heads() {
        // Magenta water occurs in no composed frame.
        let water = RgbImage::from_pixel(600, 400, Rgb([200, 20, 200]));
        let head = placed_landmarks(Point::new(300.0, 200.0), 40.0, 0.3);
        let frames = vec![RealFrame::new(water, vec![head])];
        let composer = Composer::new(&[dotted_head()], vec![], vec![]).unwrap();
        let composer = composer.with_real_frames(frames, 0.5);
        // What is left of this frame as a piece of water is magenta too.
        let composer = Composer {
            seas: vec![],
            ..composer
        };
        let (mut real, mut with_head) = (0, 0);
        for seed in 0..60 {
            let frame = composer.frame(&mut ChaCha8Rng::seed_from_u64(seed), 192, 128);
            let magenta = frame
                .image
                .pixels()
                .filter(|p| p[0] > p[1].saturating_add(40));
            if magenta.count() > 192 * 128 / 3 {
                real += 1;
                with_head += usize::from(!frame.heads.is_empty());
            }
        }
        assert!((18..=42).contains(&real), "{real} of 60 frames are real");
        assert!(
            (real / 3..real).contains(&with_head),
            "{with_head} of {real} show heads"
        );
    }

    #[test]
    fn composers_without_heads_or_with_useless_ones_are_refused() {
        assert!(matches!(
            Composer::new(&[], vec![], vec![]),
            Err(ComposeError::NoHeads)
        ));
        assert!(matches!(
            Composer::new(&[RgbImage::new(3, 3)], vec![], vec![]),
            Err(ComposeError::HeadTooSmall { number: 0, .. })
        ));
        let pose = SourcePose {
            frame_width: 300,
            frame_height: 200,
            landmarks: placed_landmarks(Point::new(9.0, 9.0), 0.0, 0.0),
        };
        assert!(matches!(
            Composer::new(&[dotted_head()], vec![pose], vec![]),
            Err(ComposeError::BadPose { number: 0, .. })
        ));
    }

    #[test]
    fn real_water_keeps_its_contrast_where_pieces_overlap() {
        let rng = &mut ChaCha8Rng::seed_from_u64(4);
        let piece = RgbImage::from_fn(200, 160, |_, _| {
            let v = rng.random_range(60..140);
            Rgb([v, v, v])
        });
        let source = SeaSource::new(&piece, 200.0).unwrap();
        let mut canvas = Canvas::new(300, 200);
        let palette = Palette {
            mean: [100.0; 3],
            contrast: 20.0,
        };
        sea::paint_real(&mut canvas, rng, &source, &palette, 200.0);
        assert!(canvas.pixels.iter().flatten().all(|v| v.is_finite()));
        let n = canvas.pixels.len() as f32;
        let mean = canvas.pixels.iter().map(|c| c[0]).sum::<f32>() / n;
        assert!((mean - 100.0).abs() < 3.0, "{mean}");
        assert!(SeaSource::new(&RgbImage::new(20, 300), 200.0).is_none());
        assert!(SeaSource::new(&piece, f64::NAN).is_none());
    }
}
