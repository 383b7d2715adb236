//! Boxes around heads: upright rectangles, of the mask of a head as a transform leaves it.
//!
//! The published localiser was trained on boxes of transformed masks, not on transformed boxes: the box of
//! a rotated rectangle is larger than that of the head in it, so boxes that are transformed again and again
//! grow away from their heads.

use recognition::geometry::{Affine, HeadCrop, Landmarks, Point, Rectangle};

/// Points on the outline of a mask: its box is then within a thousandth of the ellipse's.
const OUTLINE: usize = 96;

/// Where a head lies in a picture: a convex region, in the picture's pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadMask {
    /// Corners in order; none where the region is empty.
    outline: Vec<Point>,
}

impl HeadMask {
    /// The ellipse inscribed in the crop [`HeadCrop::RIGHT_WHALE`] around the landmarks, two head lengths
    /// long and one wide; `None` where the landmarks coincide or are no finite numbers.
    pub fn of(head: &Landmarks) -> Option<Self> {
        let picture_from_crop = HeadCrop::RIGHT_WHALE
            .crop_from_frame(head, 1, 1)?
            .inverse()?;
        let outline = (0..OUTLINE)
            .map(|i| {
                let radians = std::f64::consts::TAU * i as f64 / OUTLINE as f64;
                let (sin, cos) = radians.sin_cos();
                picture_from_crop.apply(Point::new(0.5 + 0.5 * cos, 0.5 + 0.5 * sin))
            })
            .collect();
        Some(Self { outline })
    }

    /// The mask as another picture shows it.
    pub fn map(&self, transform: &Affine) -> Self {
        Self {
            outline: self.outline.iter().map(|&p| transform.apply(p)).collect(),
        }
    }

    /// The part of the mask within a rectangle, such as what a picture covers (Sutherland & Hodgman 1974,
    /// "Reentrant polygon clipping").
    pub fn within(&self, limits: &Rectangle) -> Self {
        let mut outline = self.outline.clone();
        type Coordinate = fn(Point) -> f64;
        let sides: [(Coordinate, f64, f64); 4] = [
            (|p| p.x, limits.left, 1.0),
            (|p| p.x, limits.right, -1.0),
            (|p| p.y, limits.top, 1.0),
            (|p| p.y, limits.bottom, -1.0),
        ];
        for (axis, limit, sign) in sides {
            let depth = |p: Point| sign * (axis(p) - limit);
            let mut kept = Vec::with_capacity(outline.len() + 1);
            for (i, &to) in outline.iter().enumerate() {
                let from = outline[(i + outline.len() - 1) % outline.len()];
                let (a, b) = (depth(from), depth(to));
                if (a < 0.0) != (b < 0.0) {
                    kept.push(from + (to - from) * (a / (a - b)));
                }
                if b >= 0.0 {
                    kept.push(to);
                }
            }
            outline = kept;
        }
        Self { outline }
    }

    /// The smallest upright rectangle that holds the mask; `None` where it is empty.
    pub fn bounds(&self) -> Option<Rectangle> {
        self.outline
            .iter()
            .map(|p| Rectangle {
                left: p.x,
                top: p.y,
                right: p.x,
                bottom: p.y,
            })
            .reduce(|a, b| a.union(&b))
    }
}

/// The rectangle with each side moved outwards by `padding` times its width or height, as far as `limits`
/// reach.
pub fn padded(bounds: &Rectangle, padding: f64, limits: &Rectangle) -> Rectangle {
    let (across, down) = (padding * bounds.width(), padding * bounds.height());
    Rectangle {
        left: bounds.left - across,
        top: bounds.top - down,
        right: bounds.right + across,
        bottom: bounds.bottom + down,
    }
    .clamped(limits)
}

/// The [padded] box of a head as far as a picture shows it; `None` where it shows none, or the landmarks
/// coincide.
pub fn padded_box(head: &Landmarks, padding: f64, picture: &Rectangle) -> Option<Rectangle> {
    let bounds = HeadMask::of(head)?.within(picture).bounds()?;
    Some(padded(&bounds, padding, picture))
}

/// Area that both rectangles cover, as a fraction of what either covers: 0 (apart) to 1 (the same). 0 where
/// neither has an area.
pub fn intersection_over_union(a: &Rectangle, b: &Rectangle) -> f64 {
    let across = (a.right.min(b.right) - a.left.max(b.left)).max(0.0);
    let down = (a.bottom.min(b.bottom) - a.top.max(b.top)).max(0.0);
    let shared = across * down;
    let either = a.width() * a.height() + b.width() * b.height() - shared;
    if either > 0.0 { shared / either } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rectangles() -> impl Strategy<Value = Rectangle> {
        (-50.0..50.0f64, -50.0..50.0f64, 0.1..60.0f64, 0.1..60.0f64).prop_map(|(x, y, w, h)| {
            Rectangle {
                left: x,
                top: y,
                right: x + w,
                bottom: y + h,
            }
        })
    }

    fn heads() -> impl Strategy<Value = Landmarks> {
        let turn = 0.0..std::f64::consts::TAU;
        (0.0..300.0f64, 0.0..200.0f64, 2.0..80.0f64, turn).prop_map(|(x, y, length, radians)| {
            let half = Point::new(radians.cos(), radians.sin()) * (length / 2.0);
            Landmarks {
                bonnet: Point::new(x, y) + half,
                blowhead: Point::new(x, y) - half,
            }
        })
    }

    fn transforms() -> impl Strategy<Value = Affine> {
        let turn = 0.0..std::f64::consts::TAU;
        (turn, 0.5..2.0f64, 0.5..2.0f64, -0.4..0.4f64, any::<bool>()).prop_map(
            |(radians, x, y, shear, mirrored)| {
                Affine::scaling(x, if mirrored { -y } else { y })
                    .then(&Affine::shear_x(shear))
                    .then(&Affine::rotation(radians))
                    .about(Point::new(150.0, 100.0))
            },
        )
    }

    fn holds(bounds: &Rectangle, p: Point) -> bool {
        (bounds.left..=bounds.right).contains(&p.x) && (bounds.top..=bounds.bottom).contains(&p.y)
    }

    proptest! {
        #[test]
        fn the_box_of_a_transformed_mask_holds_the_transformed_landmarks(
            head in heads(), transform in transforms(),
        ) {
            let mask = HeadMask::of(&head).expect("two points");
            let bounds = mask.map(&transform).bounds().expect("not empty");
            let there = head.map(&transform);
            prop_assert!(holds(&bounds, there.bonnet) && holds(&bounds, there.blowhead));
            // Of boxes that are transformed themselves it is never larger.
            let before = mask.bounds().expect("not empty");
            let transformed = before.bounds_after(&transform).grown(1e-9);
            prop_assert!(transformed.contains(&bounds), "{transformed:?} {bounds:?}");
        }

        /// Against another way: the picture's pixels, one by one.
        #[test]
        fn the_box_is_that_of_the_pixels_that_the_mask_covers(head in heads(), transform in transforms()) {
            let picture = Rectangle::of_image(300, 200);
            let mask = HeadMask::of(&head).expect("two points");
            let bounds = mask.within(&picture).map(&transform).within(&picture).bounds();
            let back = transform.inverse().expect("no collapse");
            let crop = HeadCrop::RIGHT_WHALE.crop_from_frame(&head, 1, 1).expect("two points");
            let mut pixels: Option<Rectangle> = None;
            for (x, y) in (0..200).flat_map(|y| (0..300).map(move |x| (f64::from(x), f64::from(y)))) {
                let before = back.apply(Point::new(x + 0.5, y + 0.5));
                let in_crop = crop.apply(before);
                if holds(&picture, before) && (in_crop.x - 0.5).hypot(in_crop.y - 0.5) <= 0.5 {
                    let pixel = Rectangle { left: x, top: y, right: x + 1.0, bottom: y + 1.0 };
                    pixels = Some(pixels.map_or(pixel, |p| p.union(&pixel)));
                }
            }
            // A mask narrower than a pixel may pass between the centres of all.
            if let Some(pixels) = pixels {
                let bounds = bounds.expect("some pixels are covered");
                prop_assert!(bounds.grown(1.0).contains(&pixels), "{bounds:?} {pixels:?}");
                // The tips of a sliver are narrower than a pixel too.
                let tip = 3.0 + 0.05 * bounds.width().max(bounds.height());
                let sliver = pixels.width().min(pixels.height()) < 4.0;
                prop_assert!(sliver || pixels.grown(tip).contains(&bounds), "{bounds:?} {pixels:?}");
            }
        }

        #[test]
        fn overlap_is_a_symmetric_fraction(a in rectangles(), b in rectangles()) {
            let overlap = intersection_over_union(&a, &b);
            prop_assert!((0.0..=1.0).contains(&overlap));
            prop_assert_eq!(overlap, intersection_over_union(&b, &a));
            prop_assert!((intersection_over_union(&a, &a) - 1.0).abs() < 1e-12);
        }

        #[test]
        fn a_padded_box_holds_the_landmarks_and_lies_in_the_picture(
            head in heads(), padding in 0.0..2.0f64,
        ) {
            let picture = Rectangle::of_image(300, 200);
            if holds(&picture, head.bonnet) && holds(&picture, head.blowhead) {
                let bounds = padded_box(&head, padding, &picture).expect("it is shown");
                prop_assert!(holds(&bounds, head.bonnet) && holds(&bounds, head.blowhead));
                prop_assert!(picture.contains(&bounds), "{bounds:?}");
            }
        }

        #[test]
        fn padding_grows_a_box_evenly_up_to_the_edge(a in rectangles(), padding in 0.0..1.0f64) {
            let wide = Rectangle { left: -200.0, top: -200.0, right: 200.0, bottom: 200.0 };
            let grown = padded(&a, padding, &wide);
            prop_assert!((grown.width() - a.width() * (1.0 + 2.0 * padding)).abs() < 1e-9);
            prop_assert!((grown.height() - a.height() * (1.0 + 2.0 * padding)).abs() < 1e-9);
            prop_assert!(a.contains(&padded(&a, padding, &a)));
        }
    }

    #[test]
    fn overlaps_that_can_be_counted() {
        let at = |left: f64, right: f64| Rectangle {
            left,
            top: 0.0,
            right,
            bottom: 2.0,
        };
        assert_eq!(
            intersection_over_union(&at(0.0, 3.0), &at(1.0, 4.0)),
            4.0 / 8.0
        );
        assert_eq!(intersection_over_union(&at(0.0, 1.0), &at(2.0, 3.0)), 0.0);
        assert_eq!(intersection_over_union(&at(1.0, 1.0), &at(1.0, 1.0)), 0.0);
    }
}
