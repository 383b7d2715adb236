use std::ops::{Add, Mul, Sub};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point or a vector in image coordinates, in pixels (see the [module](super) for the convention).
///
/// In JSON it is the pair `[x, y]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
#[schemars(with = "[f64; 2]")]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Down.
    pub y: f64,
}

impl Point {
    /// The point `(x, y)`.
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// Length of the vector from the origin, in pixels.
    pub fn length(self) -> f64 {
        self.x.hypot(self.y)
    }

    /// Distance to another point, in pixels.
    pub fn distance(self, other: Self) -> f64 {
        (self - other).length()
    }

    /// The point half-way to another.
    pub fn midpoint(self, other: Self) -> Self {
        (self + other) * 0.5
    }

    /// Whether both coordinates are finite numbers.
    pub fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite()
    }
}

impl From<[f64; 2]> for Point {
    fn from([x, y]: [f64; 2]) -> Self {
        Self { x, y }
    }
}

impl From<Point> for [f64; 2] {
    fn from(p: Point) -> Self {
        [p.x, p.y]
    }
}

impl Add for Point {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self::new(self.x + o.x, self.y + o.y)
    }
}

impl Sub for Point {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self::new(self.x - o.x, self.y - o.y)
    }
}

impl Mul<f64> for Point {
    type Output = Self;
    fn mul(self, s: f64) -> Self {
        Self::new(self.x * s, self.y * s)
    }
}

/// An affine transform of the plane: `x' = xx·x + xy·y + x0`, `y' = yx·x + yy·y + y0`.
///
/// Names of transforms say what they map from and to, in the order of function composition:
/// `crop_from_frame.apply(point_in_frame)` is a point in the crop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Affine {
    pub xx: f64,
    pub xy: f64,
    pub x0: f64,
    pub yx: f64,
    pub yy: f64,
    pub y0: f64,
}

impl Affine {
    /// The transform that moves nothing.
    pub const IDENTITY: Self = Self {
        xx: 1.0,
        xy: 0.0,
        x0: 0.0,
        yx: 0.0,
        yy: 1.0,
        y0: 0.0,
    };

    /// Moves by a vector.
    pub const fn translation(by: Point) -> Self {
        Self {
            x0: by.x,
            y0: by.y,
            ..Self::IDENTITY
        }
    }

    /// Stretches about the origin, by a factor for each axis.
    pub const fn scaling(x: f64, y: f64) -> Self {
        Self {
            xx: x,
            yy: y,
            ..Self::IDENTITY
        }
    }

    /// Turns about the origin by `radians`, from the `x` axis towards the `y` axis
    /// (clockwise on the screen).
    pub fn rotation(radians: f64) -> Self {
        let (sin, cos) = radians.sin_cos();
        Self {
            xx: cos,
            xy: -sin,
            x0: 0.0,
            yx: sin,
            yy: cos,
            y0: 0.0,
        }
    }

    /// Shears along `x`: `x' = x + factor·y`.
    pub const fn shear_x(factor: f64) -> Self {
        Self {
            xy: factor,
            ..Self::IDENTITY
        }
    }

    /// The transform that applies `self` first and `next` after it.
    pub fn then(&self, next: &Self) -> Self {
        Self {
            xx: next.xx * self.xx + next.xy * self.yx,
            xy: next.xx * self.xy + next.xy * self.yy,
            x0: next.xx * self.x0 + next.xy * self.y0 + next.x0,
            yx: next.yx * self.xx + next.yy * self.yx,
            yy: next.yx * self.xy + next.yy * self.yy,
            y0: next.yx * self.x0 + next.yy * self.y0 + next.y0,
        }
    }

    /// The same transform done about `centre` instead of the origin.
    pub fn about(&self, centre: Point) -> Self {
        Self::translation(Point::new(-centre.x, -centre.y))
            .then(self)
            .then(&Self::translation(centre))
    }

    /// Where a point comes to lie.
    pub fn apply(&self, p: Point) -> Point {
        Point::new(
            self.xx * p.x + self.xy * p.y + self.x0,
            self.yx * p.x + self.yy * p.y + self.y0,
        )
    }

    /// Factor by which areas grow; negative where the transform mirrors.
    pub fn determinant(&self) -> f64 {
        self.xx * self.yy - self.xy * self.yx
    }

    /// The transform that undoes this one, or `None` where it collapses the plane
    /// or has coefficients that are no finite numbers.
    pub fn inverse(&self) -> Option<Self> {
        let det = self.determinant();
        if !det.is_normal() || !self.x0.is_finite() || !self.y0.is_finite() {
            return None;
        }
        let (xx, xy, yx, yy) = (self.yy / det, -self.xy / det, -self.yx / det, self.xx / det);
        Some(Self {
            xx,
            xy,
            x0: -(xx * self.x0 + xy * self.y0),
            yx,
            yy,
            y0: -(yx * self.x0 + yy * self.y0),
        })
    }
}

/// Scale, rotation and translation: the transforms that keep shapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Factor of lengths; above 0.
    pub scale: f64,
    /// Rotation in radians, clockwise on the screen.
    pub radians: f64,
    /// Where the origin comes to lie, in pixels.
    pub translation: Point,
}

impl Similarity {
    /// The similarity that brings the segment `from.0 → from.1` onto `to.0 → to.1`, or `None` where
    /// a segment has no length or a coordinate is no finite number.
    pub fn between(from: (Point, Point), to: (Point, Point)) -> Option<Self> {
        let (a, b) = (from.1 - from.0, to.1 - to.0);
        let scale = b.length() / a.length();
        if !scale.is_normal() {
            return None;
        }
        let radians = b.y.atan2(b.x) - a.y.atan2(a.x);
        let turned = Affine::rotation(radians).apply(from.0 * scale);
        Some(Self {
            scale,
            radians,
            translation: to.0 - turned,
        })
    }
}

impl From<Similarity> for Affine {
    fn from(s: Similarity) -> Self {
        Affine::scaling(s.scale, s.scale)
            .then(&Affine::rotation(s.radians))
            .then(&Affine::translation(s.translation))
    }
}
