//! The pieces of real open water on which false heads are counted.

use serde::{Deserialize, Serialize};

/// A rectangle of a real frame that holds water, waves, glitter or foam but no part of a whale.
///
/// It has the shape of its frame and at least a third of its width, so that it looks like a frame taken
/// from lower down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWater {
    /// File name of the frame.
    pub image: String,
    /// Left edge in the frame, in pixels.
    pub x: u32,
    /// Upper edge in the frame, in pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// 200 pieces from the 20 frames with landmarks, ten from each: drawn at random outside of rectangles
/// around everything that is or may be a whale, then looked at one by one.
///
/// # Panics
/// Never with the table that is compiled in.
pub fn open_water() -> Vec<OpenWater> {
    csv::Reader::from_reader(&include_bytes!("../../data/open_water.csv")[..])
        .deserialize()
        .collect::<Result<_, _>>()
        .expect("the table is part of the program and tested")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn two_hundred_pieces_ten_from_each_frame() {
        let pieces = open_water();
        assert_eq!(pieces.len(), 200);
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for piece in &pieces {
            *count.entry(&piece.image).or_default() += 1;
            let aspect = f64::from(piece.width) / f64::from(piece.height);
            assert!((1.45..1.55).contains(&aspect), "{piece:?}");
        }
        assert_eq!(count.len(), 20);
        assert!(count.values().all(|&n| n == 10), "{count:?}");
    }
}
