//! Plane geometry of photographs: points, rectangles, affine and similarity transforms, and the head crop.
//!
//! # The one coordinate convention
//! Image coordinates are continuous, in pixels, with the origin at the outer corner of the top-left
//! pixel, `x` to the right and `y` **down**. The pixel in column `i` and row `j` covers
//! `[i, i + 1) × [j, j + 1)` and its centre is `(i + 0.5, j + 0.5)`. So the fraction `f` of an image
//! of width `w` is at `f · w`, and reducing an image by a factor scales coordinates by that factor
//! with no offset. Angles are in radians and, `y` being down, turn clockwise on the screen.
//!
//! This room knows no pixels, files or networks.

mod affine;
mod head_crop;
mod rectangle;

pub use affine::{Affine, Point, Similarity};
pub use head_crop::{HeadCrop, Landmarks};
pub use rectangle::Rectangle;
