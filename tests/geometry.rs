//! Laws of plane geometry, for any transform and any head.

use std::f64::consts::PI;

use proptest::prelude::*;
use recognition::geometry::{Affine, HeadCrop, Landmarks, Point, Similarity};

fn point() -> impl Strategy<Value = Point> {
    (-5000.0..5000.0f64, -5000.0..5000.0f64).prop_map(|(x, y)| Point::new(x, y))
}

/// Transforms that an augmentation or a crop may be made of; none collapses the plane.
fn affine() -> impl Strategy<Value = Affine> {
    let scale = || prop_oneof![0.02..20.0f64, -20.0..-0.02f64];
    (scale(), scale(), -PI..PI, -2.0..2.0f64, point()).prop_map(|(x, y, turn, shear, by)| {
        Affine::scaling(x, y)
            .then(&Affine::shear_x(shear))
            .then(&Affine::rotation(turn))
            .then(&Affine::translation(by))
    })
}

fn landmarks() -> impl Strategy<Value = Landmarks> {
    (point(), 5.0..2000.0f64, -PI..PI).prop_map(|(blowhead, length, turn)| Landmarks {
        bonnet: blowhead + Point::new(length * turn.cos(), length * turn.sin()),
        blowhead,
    })
}

fn close(a: Point, b: Point, tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert!(a.distance(b) <= tolerance, "{a:?} is not {b:?}");
    Ok(())
}

proptest! {
    #[test]
    fn the_inverse_undoes_a_transform(t in affine(), p in point()) {
        let inverse = t.inverse().unwrap();
        close(inverse.apply(t.apply(p)), p, 1e-6)?;
        close(t.then(&inverse).apply(p), p, 1e-6)?;
        close(inverse.then(&t).apply(p), p, 1e-6)?;
    }

    #[test]
    fn then_applies_one_after_the_other_and_is_associative(
        a in affine(), b in affine(), c in affine(), p in point()
    ) {
        let one_by_one = c.apply(b.apply(a.apply(p)));
        let tolerance = 1e-9 * (1.0 + one_by_one.length() + 1e6);
        close(a.then(&b).then(&c).apply(p), one_by_one, tolerance)?;
        close(a.then(&b.then(&c)).apply(p), one_by_one, tolerance)?;
    }

    #[test]
    fn the_centre_of_a_turn_stays(turn in -PI..PI, centre in point()) {
        close(Affine::rotation(turn).about(centre).apply(centre), centre, 1e-8)?;
    }

    #[test]
    fn a_similarity_maps_segment_onto_segment(from in landmarks(), to in landmarks()) {
        let similarity = Similarity::between(
            (from.blowhead, from.bonnet), (to.blowhead, to.bonnet)
        ).unwrap();
        let t = Affine::from(similarity);
        close(t.apply(from.blowhead), to.blowhead, 1e-6)?;
        close(t.apply(from.bonnet), to.bonnet, 1e-6)?;
        let scale = to.head_length() / from.head_length();
        prop_assert!((similarity.scale / scale - 1.0).abs() < 1e-12);
        prop_assert!((t.determinant() / (scale * scale) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_head_crop_puts_the_landmarks_in_their_place(
        in_frame in landmarks(), width in 1u32..600, height in 1u32..600
    ) {
        let crop = HeadCrop::RIGHT_WHALE;
        let crop_from_frame = crop.crop_from_frame(&in_frame, width, height).unwrap();
        let fraction = Affine::scaling(1.0 / f64::from(width), 1.0 / f64::from(height));
        let seen = in_frame.map(&crop_from_frame.then(&fraction));
        close(seen.bonnet, Point::new(0.80, 0.50), 1e-6)?;
        close(seen.blowhead, Point::new(0.30, 0.50), 1e-6)?;
        prop_assert!(crop.landmarks(width, height).map(&fraction).error(&seen) < 1e-6);

        // Two head lengths wide and one high, whatever the crop's size in pixels, and not mirrored.
        let frame_from_fraction = crop_from_frame.then(&fraction).inverse().unwrap();
        let corner = |x, y| frame_from_fraction.apply(Point::new(x, y));
        let length = in_frame.head_length();
        prop_assert!((corner(0.0, 0.0).distance(corner(1.0, 0.0)) / length - 2.0).abs() < 1e-6);
        prop_assert!((corner(0.0, 0.0).distance(corner(0.0, 1.0)) / length - 1.0).abs() < 1e-6);
        prop_assert!(crop_from_frame.determinant() > 0.0);
    }

    /// A network sees the same pixels whether the frame is at hand or only a head photograph cut from it.
    #[test]
    fn a_crop_of_a_head_photograph_is_the_crop_of_its_frame(
        in_frame in landmarks(), photograph in (1u32..600, 1u32..600), size in (1u32..600, 1u32..600),
        bonnet_x in 0.6..1.0f64, blowhead_x in 0.0..0.4f64, landmark_y in 0.0..1.0f64, aspect in 0.5..4.0f64,
        at in (0.0..1.0f64, 0.0..1.0f64),
    ) {
        let crop = HeadCrop { bonnet_x, blowhead_x, landmark_y, aspect };
        let cut = HeadCrop::RIGHT_WHALE
            .crop_from_frame(&in_frame, photograph.0, photograph.1)
            .unwrap();
        let direct = crop.crop_from_frame(&in_frame, size.0, size.1).unwrap();
        let in_steps =
            cut.then(&crop.crop_from_head_photograph(photograph, size.0, size.1).unwrap());
        let p = direct
            .inverse()
            .unwrap()
            .apply(Point::new(at.0 * f64::from(size.0), at.1 * f64::from(size.1)));
        close(in_steps.apply(p), direct.apply(p), 1e-5)?;
    }

    #[test]
    fn landmarks_that_coincide_have_no_crop(p in point()) {
        let head = Landmarks { bonnet: p, blowhead: p };
        prop_assert_eq!(HeadCrop::RIGHT_WHALE.crop_from_frame(&head, 224, 224), None);
    }
}

#[test]
fn what_cannot_be_undone_has_no_inverse() {
    for t in [
        Affine::scaling(0.0, 1.0),
        Affine::scaling(f64::NAN, 1.0),
        Affine::scaling(f64::INFINITY, 1.0),
        Affine::translation(Point::new(f64::NAN, 0.0)),
    ] {
        assert_eq!(t.inverse(), None, "{t:?}");
    }
}
