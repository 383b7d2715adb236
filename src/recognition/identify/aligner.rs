//! How the aligner looks at an estimated head, once or in several views, and what its answers mean in the
//! frame. Training measures aligners by the same code.

use crate::bundle::{Aligner, NetworkInput};
use crate::geometry::{Affine, Landmarks, Point};

/// Shortest head in a frame, in pixels.
const SHORTEST_HEAD: f64 = 2.0;

/// By how much a view differs from the crop as it is: turn in radians, factor of lengths, shift across
/// and down as fractions of the side, shear.
type Variation = (f64, f64, f64, f64, f64);

/// In the order in which they are used. Each is within what networks met in training; they come in opposite
/// pairs, so that what one pulls to one side the other pulls to the other.
const VARIATIONS: [Variation; 12] = [
    (0.10, 1.00, 0.00, 0.00, 0.0),
    (-0.10, 1.00, 0.00, 0.00, 0.0),
    (0.00, 1.08, 0.03, 0.03, 0.0),
    (0.00, 0.93, -0.03, -0.03, 0.0),
    (0.00, 1.00, 0.04, -0.04, 0.05),
    (0.00, 1.00, -0.04, 0.04, -0.05),
    (0.20, 0.95, 0.02, 0.00, 0.0),
    (-0.20, 1.05, -0.02, 0.00, 0.0),
    (0.05, 1.10, 0.00, -0.05, 0.0),
    (-0.05, 0.90, 0.00, 0.05, 0.0),
    (0.30, 1.00, 0.00, 0.00, 0.03),
    (-0.30, 1.00, 0.00, 0.00, -0.03),
];

/// The transform, within a crop of `width × height` pixels, that makes its `index`th view in the last round; the
/// first leaves it as it is. Every second one is the mirror image of the one before: seen from above, a head's two
/// sides are alike, and what pulls landmarks to one side then pulls them to the other.
pub fn view(index: u32, width: u32, height: u32) -> Affine {
    let varied = variation(index / 2, width, height);
    if index.is_multiple_of(2) {
        return varied;
    }
    let middle = Point::new(f64::from(width) / 2.0, f64::from(height) / 2.0);
    varied.then(&Affine::scaling(1.0, -1.0).about(middle))
}

/// The transform, within a crop of `width × height` pixels, that varies it a little; the first leaves it as it is.
/// Variations beyond those listed repeat them, twice as far from the middle.
pub(super) fn variation(index: u32, width: u32, height: u32) -> Affine {
    let Some(index) = (index as usize).checked_sub(1) else {
        return Affine::IDENTITY;
    };
    let (turn, scale, across, down, shear) = VARIATIONS[index % VARIATIONS.len()];
    let strength = 1.0 + (index / VARIATIONS.len()) as f64;
    let (w, h) = (f64::from(width), f64::from(height));
    Affine::rotation(turn * strength)
        .then(&Affine::shear_x(shear * strength))
        .then(&Affine::scaling(scale.powf(strength), scale.powf(strength)))
        .about(Point::new(w / 2.0, h / 2.0))
        .then(&Affine::translation(Point::new(
            across * strength * w,
            down * strength * h,
        )))
}

/// The transform from the frame to the aligner's input around estimated landmarks, `field_head_lengths`
/// estimated head lengths wide; `None` where the landmarks are no head's.
pub fn input_from_frame(
    input: &NetworkInput,
    field_head_lengths: f64,
    estimate: &Landmarks,
) -> Option<Affine> {
    let length = estimate.head_length();
    let centre = estimate.centre();
    if !centre.is_finite() || !length.is_finite() || length < SHORTEST_HEAD {
        return None;
    }
    let along = estimate.bonnet - estimate.blowhead;
    let (w, h) = (f64::from(input.width), f64::from(input.height));
    let side = field_head_lengths * length;
    Some(
        Affine::translation(Point::new(-centre.x, -centre.y))
            .then(&Affine::rotation(-along.y.atan2(along.x)))
            .then(&Affine::scaling(w / side, h / side))
            .then(&Affine::translation(Point::new(w / 2.0, h / 2.0))),
    )
}

/// The landmarks in the frame that one view's output means: bonnet x, bonnet y, blowhead x, blowhead y as
/// fractions of the input's sides. `None` where there are not four values.
pub fn landmarks_in_frame(
    input: &NetworkInput,
    output: &[f32],
    frame_from_input: &Affine,
) -> Option<Landmarks> {
    let &[bonnet_x, bonnet_y, blowhead_x, blowhead_y] = output else {
        return None;
    };
    let at = |x: f32, y: f32| {
        frame_from_input.apply(Point::new(
            f64::from(x) * f64::from(input.width),
            f64::from(y) * f64::from(input.height),
        ))
    };
    Some(Landmarks {
        bonnet: at(bonnet_x, bonnet_y),
        blowhead: at(blowhead_x, blowhead_y),
    })
}

/// The mean of several views' landmarks; `None` where there is none.
pub fn mean(landmarks: &[Landmarks]) -> Option<Landmarks> {
    let (first, rest) = landmarks.split_first()?;
    let sum = rest.iter().fold(*first, |sum, one| Landmarks {
        bonnet: sum.bonnet + one.bonnet,
        blowhead: sum.blowhead + one.blowhead,
    });
    let share = 1.0 / landmarks.len() as f64;
    Some(Landmarks {
        bonnet: sum.bonnet * share,
        blowhead: sum.blowhead * share,
    })
}

/// Whether new landmarks can be those of the head that was estimated: of a length between a quarter and
/// four times the estimate's, and centred within the crop that showed it.
pub(super) fn plausible(aligner: &Aligner, estimate: &Landmarks, new: &Landmarks) -> bool {
    let (old_length, length) = (estimate.head_length(), new.head_length());
    let apart = estimate.centre().distance(new.centre());
    new.bonnet.is_finite()
        && new.blowhead.is_finite()
        && length >= SHORTEST_HEAD
        && (old_length / 4.0..=old_length * 4.0).contains(&length)
        && apart <= aligner.field_head_lengths * old_length / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{Network, NetworkInput};

    fn aligner() -> Aligner {
        Aligner {
            network: Network {
                file: "aligner.onnx".into(),
                sha256: String::new(),
                input: NetworkInput {
                    name: "image".into(),
                    width: 96,
                    height: 64,
                    mean: [0.5; 3],
                    std: [0.25; 3],
                },
                output: "landmarks".into(),
            },
            field_head_lengths: 2.5,
            rounds: 2,
            views: 4,
        }
    }

    proptest! {
        /// In the crop the bonnet lies to the right of the blowhead, both about the middle, one head
        /// length apart, which is the side over the field.
        #[test]
        fn the_crop_shows_the_estimate_upright_and_centred(
            x in -100.0..5000.0_f64, y in -100.0..3000.0_f64,
            angle in 0.0..std::f64::consts::TAU, length in 3.0..900.0_f64,
        ) {
            let aligner = aligner();
            let blowhead = Point::new(x, y);
            let bonnet = blowhead + Point::new(angle.cos(), angle.sin()) * length;
            let transform =
                input_from_frame(&aligner.network.input, 2.5, &Landmarks { bonnet, blowhead }).unwrap();
            let seen = Landmarks { bonnet, blowhead }.map(&transform);
            let half = 96.0 / 2.5 / 2.0;
            prop_assert!(seen.bonnet.distance(Point::new(48.0 + half, 32.0)) < 1e-6);
            prop_assert!(seen.blowhead.distance(Point::new(48.0 - half, 32.0)) < 1e-6);
        }

        /// Whatever the view, landmarks that an ideal aligner sees in it map back to where they are.
        #[test]
        fn every_view_maps_back(index in 0..64_u32, x in 0.0..1.0_f64, y in 0.0..1.0_f64) {
            let aligner = aligner();
            let truth = Landmarks {
                bonnet: Point::new(700.0 + 40.0 * x, 500.0),
                blowhead: Point::new(600.0, 480.0 + 40.0 * y),
            };
            let estimate = Landmarks { bonnet: Point::new(710.0, 505.0), blowhead: Point::new(605.0, 490.0) };
            let input = &aligner.network.input;
            let input_from_frame =
                input_from_frame(input, 2.5, &estimate).unwrap().then(&view(index, 96, 64));
            let seen = truth.map(&input_from_frame);
            let output = [
                (seen.bonnet.x / 96.0) as f32, (seen.bonnet.y / 64.0) as f32,
                (seen.blowhead.x / 96.0) as f32, (seen.blowhead.y / 64.0) as f32,
            ];
            let back = landmarks_in_frame(input, &output, &input_from_frame.inverse().unwrap()).unwrap();
            prop_assert!(back.error(&truth) < 1e-4, "{back:?}");
            prop_assert!(plausible(&aligner, &estimate, &back));
        }
    }

    #[test]
    fn landmarks_that_cannot_be_the_heads_are_refused() {
        let aligner = aligner();
        let at = |bx, by, hx, hy| Landmarks {
            bonnet: Point::new(bx, by),
            blowhead: Point::new(hx, hy),
        };
        let estimate = at(200.0, 100.0, 100.0, 100.0);
        assert!(plausible(
            &aligner,
            &estimate,
            &at(210.0, 95.0, 90.0, 110.0)
        ));
        assert!(!plausible(
            &aligner,
            &estimate,
            &at(150.0, 100.0, 150.0, 100.0)
        ));
        assert!(!plausible(
            &aligner,
            &estimate,
            &at(900.0, 100.0, 800.0, 100.0)
        ));
        assert!(!plausible(
            &aligner,
            &estimate,
            &at(f64::NAN, 100.0, 100.0, 100.0)
        ));
        let nowhere = at(5.0, 5.0, 5.0, 5.0);
        assert!(input_from_frame(&aligner.network.input, 2.5, &nowhere).is_none());
    }
}
