//! Training windows out of real frames whose heads are known.

use image::RgbImage;
use rand::Rng;
use rand_distr::{Distribution, Normal};
use recognition::geometry::{Affine, Landmarks, Point};
use recognition::pixels::{OUTSIDE_FRAME, reduce_to_fit, warp};

use super::inside;

/// Windows narrower than this share of their frame are not cut: there a head fills the view.
const NARROWEST_WINDOW: f64 = 0.25;
/// A head further from a window than this many of its lengths leaves no part of itself in it.
const CLEARANCE_HEAD_LENGTHS: f64 = 0.9;
/// Longest head in a window, as a share of the window's width; composed frames have none longer.
const LONGEST_HEAD: f64 = 0.25;

/// A real frame, reduced, in which every head is known.
#[derive(Clone, Debug)]
pub struct RealFrame {
    pixels: RgbImage,
    heads: Vec<Landmarks>,
}

impl RealFrame {
    /// `heads` are all heads in it, in its pixels. It is best about 1500 pixels wide.
    pub fn new(pixels: RgbImage, heads: Vec<Landmarks>) -> Self {
        Self { pixels, heads }
    }

    /// The picture.
    pub(super) fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// A part of the frame of `width × height` pixels with the heads in it: turned by any quarter and a
    /// little more, mirrored, from a quarter of the frame to all of it. A head is wholly in the window or
    /// wholly out of it. More than half of the windows of a frame with heads show one.
    pub(super) fn window(
        &self,
        rng: &mut impl Rng,
        width: u32,
        height: u32,
    ) -> (RgbImage, Vec<Landmarks>) {
        let whole = || reduce_to_fit(self.pixels.dimensions(), width, height);
        let show_head = rng.random_bool(0.55);
        let (window_from_frame, heads) = (0..30)
            .find_map(|_| {
                let transform = self.draw_transform(rng, width, height, show_head)?;
                let heads = self.heads_in(&transform, width, height)?;
                (heads.is_empty() != show_head || self.heads.is_empty())
                    .then_some((transform, heads))
            })
            .unwrap_or_else(|| {
                let heads = self.heads.iter().map(|head| head.map(&whole())).collect();
                (whole(), heads)
            });
        let image = warp(
            &self.pixels,
            &window_from_frame,
            width,
            height,
            OUTSIDE_FRAME,
        );
        (image, heads)
    }

    fn draw_transform(
        &self,
        rng: &mut impl Rng,
        width: u32,
        height: u32,
        show_head: bool,
    ) -> Option<Affine> {
        let normal = Normal::new(0.0f64, 1.0).expect("a finite spread");
        let [frame_w, frame_h] = [self.pixels.width(), self.pixels.height()].map(f64::from);
        let [w, h] = [width, height].map(f64::from);
        let radians = f64::from(rng.random_range(0..4u8)) * std::f64::consts::FRAC_PI_2
            + 0.15 * normal.sample(rng);
        let stretch = (0.05 * normal.sample(rng)).exp();
        let mirrored = if rng.random_bool(0.5) { -1.0 } else { 1.0 };
        let (sin, cos) = (radians.sin().abs(), radians.cos().abs());
        // Frame pixels for each pixel of the window, at most what keeps the turned window in the frame.
        let largest = (frame_w / (w * cos + h * sin)).min(frame_h / (w * sin + h * cos));
        let smallest = (frame_w / w * NARROWEST_WINDOW).min(largest);
        let step = smallest * (largest / smallest).powf(rng.random());
        let (reach_x, reach_y) = (
            step * (w * cos + h * sin) / 2.0,
            step * (w * sin + h * cos) / 2.0,
        );
        let mut centre = Point::new(rng.random::<f64>() * frame_w, rng.random::<f64>() * frame_h);
        if show_head && !self.heads.is_empty() {
            let head = &self.heads[rng.random_range(0..self.heads.len())];
            let away = Point::new(
                rng.random_range(-1.0..1.0) * reach_x,
                rng.random_range(-1.0..1.0) * reach_y,
            );
            centre = head.centre() + away;
        }
        let within = |at: f64, reach: f64, size: f64| {
            at.clamp(reach.min(size / 2.0), (size - reach).max(size / 2.0))
        };
        let centre = Point::new(
            within(centre.x, reach_x, frame_w),
            within(centre.y, reach_y, frame_h),
        );
        let transform = Affine::translation(centre * -1.0)
            .then(&Affine::rotation(radians))
            .then(&Affine::scaling(
                mirrored * stretch / step,
                1.0 / (stretch * step),
            ))
            .then(&Affine::translation(Point::new(w / 2.0, h / 2.0)));
        transform.inverse().map(|_| transform)
    }

    /// The heads in a window; `None` where one is cut or too long.
    fn heads_in(
        &self,
        window_from_frame: &Affine,
        width: u32,
        height: u32,
    ) -> Option<Vec<Landmarks>> {
        let [w, h] = [width, height].map(f64::from);
        let mut shown = Vec::new();
        for head in self.heads.iter().map(|head| head.map(window_from_frame)) {
            let length = head.head_length();
            if inside(&head, w, h) && length <= LONGEST_HEAD * w {
                shown.push(head);
                continue;
            }
            let centre = head.centre();
            let nearest = Point::new(centre.x.clamp(0.0, w), centre.y.clamp(0.0, h));
            if centre.distance(nearest) < CLEARANCE_HEAD_LENGTHS * length {
                return None;
            }
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Dark water with a red square at the bonnet and a green one at the blowhead.
    fn marked_frame(head: Landmarks) -> RealFrame {
        let pixels = RgbImage::from_fn(900, 600, |x, y| {
            let near = |p: Point| {
                (f64::from(x) + 0.5 - p.x)
                    .abs()
                    .max((f64::from(y) + 0.5 - p.y).abs())
                    < 9.0
            };
            Rgb(match (near(head.bonnet), near(head.blowhead)) {
                (true, _) => [250, 0, 0],
                (_, true) => [0, 250, 0],
                _ => [10, 20, 30],
            })
        });
        RealFrame::new(pixels, vec![head])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn heads_are_where_windows_say_or_not_in_them(
            seed: u64, x in 60.0..840.0, y in 60.0..540.0, radians in 0.0..std::f64::consts::TAU,
        ) {
            let centre = Point::new(x, y);
            let half = Point::new(radians.cos(), radians.sin()) * 25.0;
            let frame = marked_frame(Landmarks { bonnet: centre + half, blowhead: centre - half });
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (image, heads) = frame.window(&mut rng, 384, 256);
            let centre_of = |channel: usize| {
                let (mut sum, mut n) = (Point::default(), 0.0);
                for (x, y, p) in image.enumerate_pixels() {
                    if p[channel] > 100 && p[(channel + 1) % 2] < 60 && p[2] < 60 {
                        sum = sum + Point::new(f64::from(x) + 0.5, f64::from(y) + 0.5);
                        n += 1.0;
                    }
                }
                (n > 0.0).then(|| sum * (1.0 / n))
            };
            match heads.first() {
                Some(head) => {
                    prop_assert!(inside(head, 384.0, 256.0));
                    for (channel, at) in [(0, head.bonnet), (1, head.blowhead)] {
                        let seen = centre_of(channel).expect("a landmark to be seen");
                        // A mark at the window's edge is cut.
                        prop_assert!(seen.distance(at) < 8.0, "{seen:?} {at:?}");
                    }
                }
                None => prop_assert!(centre_of(0).is_none() && centre_of(1).is_none()),
            }
        }
    }

    #[test]
    fn windows_with_and_without_heads_are_both_common() {
        let half = Point::new(25.0, 0.0);
        let centre = Point::new(400.0, 300.0);
        let frame = marked_frame(Landmarks {
            bonnet: centre + half,
            blowhead: centre - half,
        });
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let shown = (0..200)
            .filter(|_| !frame.window(&mut rng, 384, 256).1.is_empty())
            .count();
        assert!(
            (90..150).contains(&shown),
            "{shown} of 200 windows show the head"
        );
    }
}
