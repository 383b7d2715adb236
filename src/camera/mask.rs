use recognition::geometry::Point;
use thiserror::Error;

/// Parts of a frame that show the aircraft itself: a strut, the wing, the edge of a window. A head whose centre seems to
/// lie there is none.
///
/// Polygons, in shares of the frame's width and height from its top left corner, so that they hold at each size. Where a
/// polygon crosses itself, a place is inside that is surrounded an odd number of times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mask {
    polygons: Vec<Vec<Point>>,
}

/// A polygon that is none.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum MaskError {
    /// Too few corners.
    #[error("a mask needs at least three corners, and this has {corners}")]
    Corners {
        /// How many there are.
        corners: usize,
    },
    /// A corner that is no place near the frame.
    #[error(
        "a mask's corner at {x}, {y}: places are shares of the frame's width and height, such as 0.5, from -1 to 2"
    )]
    Place {
        /// Share of the width.
        x: f64,
        /// Share of the height.
        y: f64,
    },
}

impl Mask {
    /// Also covers the polygon with these corners, each as its share of the frame's width and height.
    ///
    /// # Errors
    /// It has fewer than three corners, or one is far outside of the frame.
    pub fn cover(&mut self, corners: Vec<Point>) -> Result<(), MaskError> {
        if corners.len() < 3 {
            return Err(MaskError::Corners {
                corners: corners.len(),
            });
        }
        let near = |share: f64| (-1.0..=2.0).contains(&share);
        if let Some(corner) = corners.iter().find(|c| !(near(c.x) && near(c.y))) {
            return Err(MaskError::Place {
                x: corner.x,
                y: corner.y,
            });
        }
        self.polygons.push(corners);
        Ok(())
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.polygons.is_empty()
    }

    /// Whether it covers a place, given in pixels of a frame of this size.
    pub fn covers(&self, place: Point, (width, height): (u32, u32)) -> bool {
        let place = Point::new(place.x / f64::from(width), place.y / f64::from(height));
        self.polygons
            .iter()
            .any(|corners| surrounds(corners, place))
    }
}

/// Whether a ray to the right from `place` crosses the polygon's sides an odd number of times.
fn surrounds(corners: &[Point], place: Point) -> bool {
    let next = corners.iter().cycle().skip(1);
    let crossed = corners.iter().zip(next).filter(|(a, b)| {
        let spans = (a.y > place.y) != (b.y > place.y);
        spans && place.x < a.x + (place.y - a.y) / (b.y - a.y) * (b.x - a.x)
    });
    crossed.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(corners: &[(f64, f64)]) -> Mask {
        let mut mask = Mask::default();
        let corners = corners.iter().map(|&(x, y)| Point::new(x, y));
        mask.cover(corners.collect()).unwrap();
        mask
    }

    /// On which side of the line from a to b; 0 on it.
    fn side(a: Point, b: Point, p: Point) -> f64 {
        (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x)
    }

    proptest! {
        /// A star-shaped polygon is the fan of triangles around its middle, in each of which a place lies on one side of
        /// all three sides: another definition of inside.
        #[test]
        fn inside_is_inside_one_of_the_triangles(
            radii in prop::collection::vec(0.05..0.5_f64, 3..12),
            (x, y) in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            let middle = Point::new(0.5, 0.5);
            let turn = std::f64::consts::TAU / radii.len() as f64;
            let corners: Vec<Point> = radii
                .iter()
                .enumerate()
                .map(|(i, radius)| {
                    let (sin, cos) = (turn * i as f64).sin_cos();
                    Point::new(middle.x + radius * cos, middle.y + radius * sin)
                })
                .collect();
            let place = Point::new(x, y);
            let mut nearest = f64::INFINITY;
            let in_triangle = (0..corners.len()).any(|i| {
                let triangle = [middle, corners[i], corners[(i + 1) % corners.len()]];
                let sides = [0, 1, 2].map(|k| side(triangle[k], triangle[(k + 1) % 3], place));
                nearest = sides.iter().fold(nearest, |least, side| least.min(side.abs()));
                sides.iter().all(|&s| s >= 0.0)
            });
            // On a side, either answer will do.
            prop_assume!(nearest > 1e-9);
            let mut mask = Mask::default();
            mask.cover(corners).unwrap();
            let pixels = Point::new(x * 4000.0, y * 3000.0);
            prop_assert_eq!(mask.covers(pixels, (4000, 3000)), in_triangle);
        }
    }

    #[test]
    fn several_masks_cover_what_each_covers() {
        let mut mask = mask(&[(0.0, 0.0), (0.2, 0.0), (0.2, 1.0), (0.0, 1.0)]);
        let wing = [(0.5, 0.9), (1.0, 0.8), (1.0, 1.0), (0.5, 1.0)];
        mask.cover(wing.map(|(x, y)| Point::new(x, y)).to_vec())
            .unwrap();
        let covers = |x, y| mask.covers(Point::new(x, y), (1000, 500));
        assert!(covers(100.0, 250.0) && covers(900.0, 480.0));
        assert!(!covers(500.0, 250.0) && !covers(900.0, 250.0));
        assert!(!Mask::default().covers(Point::new(1.0, 1.0), (10, 10)));
    }

    #[test]
    fn what_is_no_polygon_is_refused() {
        let mut mask = Mask::default();
        let two = vec![Point::new(0.0, 0.0), Point::new(1.0, 1.0)];
        assert_eq!(mask.cover(two), Err(MaskError::Corners { corners: 2 }));
        let pixels = vec![
            Point::new(0.0, 0.0),
            Point::new(640.0, 0.0),
            Point::new(0.0, 1.0),
        ];
        let refused = mask.cover(pixels).unwrap_err().to_string();
        assert!(refused.contains("shares of the frame's width"), "{refused}");
        let no_number = vec![Point::new(f64::NAN, 0.0); 3];
        assert!(mask.cover(no_number).is_err());
        assert!(mask.is_empty());
    }
}
