use super::{Affine, Point};

/// A rectangle with upright sides, in one image's coordinates. One without area has its place still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rectangle {
    /// Smallest `x`.
    pub left: f64,
    /// Smallest `y`.
    pub top: f64,
    /// Largest `x`; not below `left`.
    pub right: f64,
    /// Largest `y`; not below `top`.
    pub bottom: f64,
}

impl Rectangle {
    /// What an image of `width × height` pixels covers.
    pub fn of_image(width: u32, height: u32) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            right: f64::from(width),
            bottom: f64::from(height),
        }
    }

    /// Distance from left to right.
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Distance from top to bottom.
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// The corners, clockwise on the screen from the one at left and top.
    pub fn corners(&self) -> [Point; 4] {
        [
            Point::new(self.left, self.top),
            Point::new(self.right, self.top),
            Point::new(self.right, self.bottom),
            Point::new(self.left, self.bottom),
        ]
    }

    /// The smallest rectangle that holds this one as another image sees it.
    pub fn bounds_after(&self, transform: &Affine) -> Self {
        let corners = self.corners().map(|corner| transform.apply(corner));
        let fold = |axis: fn(&Point) -> f64, with: fn(f64, f64) -> f64, start: f64| {
            corners.iter().map(axis).fold(start, with)
        };
        Self {
            left: fold(|p| p.x, f64::min, f64::INFINITY),
            top: fold(|p| p.y, f64::min, f64::INFINITY),
            right: fold(|p| p.x, f64::max, f64::NEG_INFINITY),
            bottom: fold(|p| p.y, f64::max, f64::NEG_INFINITY),
        }
    }

    /// The smallest rectangle that holds both.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// With each side moved outwards by `margin`.
    pub fn grown(&self, margin: f64) -> Self {
        Self {
            left: self.left - margin,
            top: self.top - margin,
            right: self.right + margin,
            bottom: self.bottom + margin,
        }
    }

    /// With each side moved to the nearest place within `limits`: what both cover, where they overlap.
    pub fn clamped(&self, limits: &Self) -> Self {
        Self {
            left: self.left.clamp(limits.left, limits.right),
            top: self.top.clamp(limits.top, limits.bottom),
            right: self.right.clamp(limits.left, limits.right),
            bottom: self.bottom.clamp(limits.top, limits.bottom),
        }
    }

    /// Whether no point of `other` lies outside.
    pub fn contains(&self, other: &Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && self.right >= other.right
            && self.bottom >= other.bottom
    }
}
