use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affine, Point, Similarity};

/// The two landmarks of a head, in one image's coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Landmarks {
    /// Tip of the snout.
    pub bonnet: Point,
    /// Just ahead of the blowholes.
    pub blowhead: Point,
}

impl Landmarks {
    /// Distance from blowhead to bonnet in pixels: the unit in which landmark errors are given.
    pub fn head_length(&self) -> f64 {
        self.bonnet.distance(self.blowhead)
    }

    /// The point half-way between the landmarks.
    pub fn centre(&self) -> Point {
        self.bonnet.midpoint(self.blowhead)
    }

    /// The landmarks as another image sees them.
    pub fn map(&self, transform: &Affine) -> Self {
        Self {
            bonnet: transform.apply(self.bonnet),
            blowhead: transform.apply(self.blowhead),
        }
    }

    /// Mean distance of the two landmarks from the true ones, as a fraction of the true head length.
    pub fn error(&self, truth: &Self) -> f64 {
        let sum = self.bonnet.distance(truth.bonnet) + self.blowhead.distance(truth.blowhead);
        sum / 2.0 / truth.head_length()
    }
}

/// Which rectangle around the landmarks is cut out, whatever its size in pixels.
///
/// The rectangle is turned so that the bonnet lies to the right of the blowhead, then stretched to
/// the size asked for. Positions are fractions of the crop's width and height.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadCrop {
    /// Where the bonnet comes to lie across the width; above `blowhead_x`.
    pub bonnet_x: f64,
    /// Where the blowhead comes to lie across the width.
    pub blowhead_x: f64,
    /// Where both landmarks come to lie down the height.
    pub landmark_y: f64,
    /// Width of the rectangle in the frame divided by its height there.
    pub aspect: f64,
}

impl HeadCrop {
    /// How head photographs are cut, in data sets and in what Callosity sends: two head lengths wide,
    /// one high, bonnet at (0.80, 0.50), blowhead at (0.30, 0.50).
    pub const RIGHT_WHALE: Self = Self {
        bonnet_x: 0.80,
        blowhead_x: 0.30,
        landmark_y: 0.50,
        aspect: 2.0,
    };

    /// The landmarks in a crop of `width × height` pixels.
    pub fn landmarks(&self, width: u32, height: u32) -> Landmarks {
        let (w, h) = (f64::from(width), f64::from(height));
        Landmarks {
            bonnet: Point::new(self.bonnet_x * w, self.landmark_y * h),
            blowhead: Point::new(self.blowhead_x * w, self.landmark_y * h),
        }
    }

    /// The transform from frame to crop pixels for a crop of `width × height` pixels, or `None` where
    /// the landmarks coincide or are no finite numbers. Its [inverse](Affine::inverse) maps the crop
    /// back into the frame.
    pub fn crop_from_frame(&self, in_frame: &Landmarks, width: u32, height: u32) -> Option<Affine> {
        let (w, h) = (f64::from(width), f64::from(height));
        // First a similarity into the un-squeezed crop, whose height follows from the aspect.
        let natural_height = w / self.aspect;
        let y = self.landmark_y * natural_height;
        let natural = (
            Point::new(self.blowhead_x * w, y),
            Point::new(self.bonnet_x * w, y),
        );
        let similarity = Similarity::between((in_frame.blowhead, in_frame.bonnet), natural)?;
        Some(Affine::from(similarity).then(&Affine::scaling(1.0, h / natural_height)))
    }

    /// The transform from a head photograph, a picture of `photograph` (width, height) pixels that was
    /// cut as [`RIGHT_WHALE`](Self::RIGHT_WHALE) says, to this crop at `width × height` pixels; `None`
    /// where a side of the photograph is 0.
    pub fn crop_from_head_photograph(
        &self,
        photograph: (u32, u32),
        width: u32,
        height: u32,
    ) -> Option<Affine> {
        let cut = Self::RIGHT_WHALE;
        let (w, h) = (f64::from(photograph.0), f64::from(photograph.1));
        if w == 0.0 || h == 0.0 {
            return None;
        }
        let unsqueezed = Affine::scaling(1.0, w / cut.aspect / h);
        let landmarks = cut.landmarks(photograph.0, photograph.1).map(&unsqueezed);
        Some(unsqueezed.then(&self.crop_from_frame(&landmarks, width, height)?))
    }
}
