//! Laws of resampling and normalisation, for any photograph and any transform.

use image::{Rgb, RgbImage};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::iter::ParallelIterator;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, Point};
use recognition::pixels::{
    CameraCondition, OUTSIDE_FRAME, SensorNoise, encode_jpeg, prepare, reduce_to_fit, warp,
    warp_views, write_input,
};

const FILL: [u8; 3] = [1, 2, 3];

fn photograph() -> impl Strategy<Value = RgbImage> {
    (1u32..24, 1u32..24).prop_flat_map(|(w, h)| {
        prop::collection::vec(any::<u8>(), (3 * w * h) as usize)
            .prop_map(move |bytes| RgbImage::from_raw(w, h, bytes).unwrap())
    })
}

/// Any transform, sane or not.
fn any_affine() -> impl Strategy<Value = Affine> {
    let coefficient = || {
        prop_oneof![
            8 => -3.0..3.0f64,
            1 => Just(0.0),
            1 => prop::num::f64::ANY,
        ]
    };
    prop::array::uniform6(coefficient()).prop_map(|[xx, xy, x0, yx, yy, y0]| Affine {
        xx,
        xy,
        x0: x0 * 10.0,
        yx,
        yy,
        y0: y0 * 10.0,
    })
}

fn checkerboard(size: u32) -> RgbImage {
    RgbImage::from_fn(size, size, |x, y| Rgb([255 * ((x + y) % 2) as u8; 3]))
}

/// Shrinks and turns about the middle of a photograph of 200 pixels, which comes to the middle of 8.
fn shrinking(times: f64, turn: f64, shift: f64) -> Affine {
    Affine::translation(Point::new(-100.0 - shift, shift - 100.0))
        .then(&Affine::rotation(turn))
        .then(&Affine::scaling(1.0 / times, 1.0 / times))
        .then(&Affine::translation(Point::new(4.0, 4.0)))
}

/// The mean of the bilinear surface over what an output pixel covers, by brute force; away from borders.
fn mean_over_area(source: &RgbImage, output_from_source: &Affine, x: u32, y: u32) -> f64 {
    const SIDE: u32 = 20;
    let source_from_output = output_from_source.inverse().unwrap();
    let surface = |p: Point| {
        let (left, top) = ((p.x - 0.5).floor(), (p.y - 0.5).floor());
        let (fx, fy) = (p.x - 0.5 - left, p.y - 0.5 - top);
        let at = |dx, dy| f64::from(source.get_pixel(left as u32 + dx, top as u32 + dy)[0]);
        (at(0, 0) * (1.0 - fx) + at(1, 0) * fx) * (1.0 - fy)
            + (at(0, 1) * (1.0 - fx) + at(1, 1) * fx) * fy
    };
    let within = |i: u32| (f64::from(i) + 0.5) / f64::from(SIDE);
    let sum: f64 = (0..SIDE * SIDE)
        .map(|i| {
            Point::new(
                f64::from(x) + within(i % SIDE),
                f64::from(y) + within(i / SIDE),
            )
        })
        .map(|p| surface(source_from_output.apply(p)))
        .sum();
    sum / f64::from(SIDE * SIDE)
}

proptest! {
    #[test]
    fn the_identity_changes_nothing(image in photograph()) {
        let (w, h) = image.dimensions();
        prop_assert_eq!(warp(&image, &Affine::IDENTITY, w, h, FILL), image);
    }

    #[test]
    fn a_move_by_whole_pixels_is_exact(image in photograph(), dx in -30i32..30, dy in -30i32..30) {
        let by = Affine::translation(Point::new(f64::from(dx), f64::from(dy)));
        let moved = warp(&image, &by, 20, 20, FILL);
        for (x, y, pixel) in moved.enumerate_pixels() {
            let from = (x as i32 - dx, y as i32 - dy);
            let within = from.0 >= 0 && from.1 >= 0;
            let expected = within
                .then(|| image.get_pixel_checked(from.0 as u32, from.1 as u32))
                .flatten();
            prop_assert_eq!(pixel, expected.unwrap_or(&Rgb(FILL)));
        }
    }

    #[test]
    fn quarter_turns_and_mirrors_are_exact(image in photograph()) {
        let (w, h) = image.dimensions();
        let quarter = Affine { xx: 0.0, xy: -1.0, x0: f64::from(h), yx: 1.0, yy: 0.0, y0: 0.0 };
        prop_assert_eq!(
            warp(&image, &quarter, h, w, FILL),
            image::imageops::rotate90(&image)
        );
        let mirror = Affine { xx: -1.0, x0: f64::from(w), ..Affine::IDENTITY };
        prop_assert_eq!(
            warp(&image, &mirror, w, h, FILL),
            image::imageops::flip_horizontal(&image)
        );
    }

    /// Views together, those that are mirror images of others among them, are each what it is alone.
    #[test]
    fn views_are_what_each_is_alone(
        image in photograph(), turn in -4.0..4.0f64, scale in (0.2..4.0f64, 0.2..4.0f64),
        at in (-9.0..9.0f64, -9.0..9.0f64), size in (1u32..30, 1u32..30),
    ) {
        let (w, h) = size;
        let first = Affine::rotation(turn)
            .then(&Affine::scaling(scale.0, scale.1))
            .then(&Affine::translation(Point::new(at.0, at.1)));
        let centre = Point::new(f64::from(w) / 2.0, f64::from(h) / 2.0);
        let views: Vec<Affine> = [(1.0, 1.0), (-1.0, 1.0), (1.1, 1.0), (1.0, -1.0), (-1.0, -1.0)]
            .into_iter()
            .map(|(x, y)| first.then(&Affine::scaling(x, y).about(centre)))
            .collect();
        let together: Vec<RgbImage> = warp_views(&image, &views, w, h, FILL).collect();
        for (view, seen) in views.iter().zip(&together) {
            let alone = warp(&image, view, w, h, FILL);
            for (a, b) in alone.iter().zip(seen.iter()) {
                prop_assert!(a.abs_diff(*b) <= 1, "{view:?}: {a} alone, {b} together");
            }
        }
    }

    /// Upright views are resized, others drawn sample by sample: a turn too small to be seen changes the way, and
    /// nothing else.
    #[test]
    fn upright_views_show_what_those_turned_by_next_to_nothing_do(
        scale in (0.15..3.0f64, 0.15..3.0f64), mirrored in any::<(bool, bool)>(),
        at in (-0.4..0.4f64, -0.4..0.4f64),
    ) {
        let image = RgbImage::from_fn(90, 70, |x, y| {
            let wave = |phase: f64| (128.0 + 100.0 * (f64::from(x) / 9.0 + phase).sin()
                * (f64::from(y) / 7.0 - phase).cos()) as u8;
            Rgb([wave(0.0), wave(1.0), wave(2.5)])
        });
        let side = |mirrored: bool| if mirrored { -1.0 } else { 1.0 };
        let upright = Affine::translation(Point::new(-45.0 - 90.0 * at.0, -35.0 - 70.0 * at.1))
            .then(&Affine::scaling(side(mirrored.0) * scale.0, side(mirrored.1) * scale.1))
            .then(&Affine::translation(Point::new(20.0, 16.0)));
        let turned = upright.then(&Affine::rotation(1e-6));
        let (a, b) = (warp(&image, &upright, 40, 32, FILL), warp(&image, &turned, 40, 32, FILL));
        let differences = a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let mean = differences.sum::<f64>() / a.len() as f64;
        prop_assert!(mean < 1.5, "{mean} grey levels at {upright:?}");
    }

    #[test]
    fn a_constant_photograph_stays_constant(
        colour in any::<[u8; 3]>(), size in (1u32..80, 1u32..80), t in any_affine()
    ) {
        let image = RgbImage::from_pixel(size.0, size.1, Rgb(colour));
        let warped = warp(&image, &t, 17, 13, colour);
        prop_assert!(warped.pixels().all(|p| p.0 == colour), "{:?}", t);
    }

    #[test]
    fn what_lies_within_never_mixes_with_the_outside(
        image in photograph(), scale in (0.05..4.0f64, 0.05..4.0f64), at in (0.0..1.0f64, 0.0..1.0f64)
    ) {
        // A white photograph, enlarged or shrunk, seen through a window that lies within it.
        let (w, h) = image.dimensions();
        let white = RgbImage::from_pixel(w, h, Rgb([255; 3]));
        let (sw, sh) = (f64::from(w) * scale.0, f64::from(h) * scale.1);
        let (out_w, out_h) = (sw.floor() as u32, sh.floor() as u32);
        let corner = Point::new(
            -at.0 * (sw - f64::from(out_w)), -at.1 * (sh - f64::from(out_h))
        );
        let t = Affine::scaling(scale.0, scale.1).then(&Affine::translation(corner));
        let seen = warp(&white, &t, out_w, out_h, [0; 3]);
        prop_assert!(seen.pixels().all(|p| p.0 == [255; 3]));
    }

    #[test]
    fn any_transform_gives_an_image_of_the_size_asked_for(
        image in photograph(), t in any_affine(), w in 0u32..20, h in 0u32..20
    ) {
        let warped = warp(&image, &t, w, h, FILL);
        prop_assert_eq!(warped.dimensions(), (w, h));
        if t.inverse().is_none() {
            prop_assert!(warped.pixels().all(|p| p.0 == FILL));
        }
    }

    #[test]
    fn shrinking_a_checkerboard_gives_its_mean(
        times in 3.0..12.0f64, turn in -3.2..3.2f64, shift in 0.0..1.0f64
    ) {
        let t = shrinking(times, turn, shift);
        for pixel in warp(&checkerboard(200), &t, 8, 8, FILL).pixels() {
            let grey = i32::from(pixel[0]);
            prop_assert!((grey - 127).abs() <= 14, "{} at {} times", grey, times);
        }
    }

    /// Shrunk less than this, the mean over an output pixel's area is not that of the checkerboard:
    /// no box filter is (up to 18 grey levels remain at 45° and 2 times). So the area's own is asked.
    #[test]
    fn shrinking_a_checkerboard_a_little_gives_the_mean_over_each_area(
        times in 1.5..3.0f64, turn in -3.2..3.2f64, shift in 0.0..1.0f64
    ) {
        let t = shrinking(times, turn, shift);
        let source = checkerboard(200);
        for (x, y, pixel) in warp(&source, &t, 8, 8, FILL).enumerate_pixels() {
            let mean = mean_over_area(&source, &t, x, y);
            let grey = f64::from(pixel[0]);
            prop_assert!((grey - mean).abs() <= 12.0, "{} for {} at {} times", grey, mean, times);
        }
    }

    #[test]
    fn an_input_is_the_warped_photograph_normalised(
        image in photograph(), t in any_affine(),
        mean in prop::array::uniform3(0.0..1.0f32), std in prop::array::uniform3(0.1..1.0f32)
    ) {
        let input = NetworkInput { name: "x".into(), width: 9, height: 7, mean, std };
        let mut prepared = vec![f32::NAN; 3 * 9 * 7];
        prepare(&image, &t, &input, OUTSIDE_FRAME, &mut prepared);
        let warped = warp(&image, &t, 9, 7, [128; 3]);
        for (x, y, pixel) in warped.enumerate_pixels() {
            for c in 0..3 {
                let expected = (f32::from(pixel[c]) / 255.0 - mean[c]) / std[c];
                prop_assert_eq!(prepared[c * 63 + (y * 9 + x) as usize], expected);
            }
        }
        let mut written = vec![0.0; 3 * 9 * 7];
        write_input(&warped, &input, &mut written);
        prop_assert_eq!(written, prepared);
    }

    #[test]
    fn a_photograph_reduced_to_fit_lies_whole_and_centred(
        size in (1u32..30_000, 1u32..30_000), width in 1u32..1000, height in 1u32..1000
    ) {
        let t = reduce_to_fit(size, width, height);
        let first = t.apply(Point::default());
        let last = t.apply(Point::new(f64::from(size.0), f64::from(size.1)));
        prop_assert!(first.x > -1e-6 && first.y > -1e-6);
        prop_assert!(last.x < f64::from(width) + 1e-6 && last.y < f64::from(height) + 1e-6);
        prop_assert!((first.x + last.x - f64::from(width)).abs() < 1e-6);
        prop_assert!((first.y + last.y - f64::from(height)).abs() < 1e-6);
        prop_assert!(first.x.abs() < 1e-6 || first.y.abs() < 1e-6, "touches two sides");
        prop_assert!(t.xx == t.yy && t.xx > 0.0);
    }

    #[test]
    fn a_camera_as_is_changes_nothing(image in photograph()) {
        prop_assert_eq!(seen_by(&CameraCondition::AS_IS, &image), image);
    }

    #[test]
    fn grey_has_one_value_a_pixel_whatever_else_the_camera_does(
        image in photograph(), condition in any_condition(),
    ) {
        let grey = CameraCondition { grey: 1.0, jpeg_quality: None, ..condition };
        let seen = seen_by(&grey, &image);
        prop_assert!(seen.pixels().all(|p| p[0] == p[1] && p[1] == p[2]));
        prop_assert_eq!(seen.dimensions(), image.dimensions());
    }

    #[test]
    fn brighter_stays_brighter(a: u8, b: u8, condition in any_condition()) {
        let even = CameraCondition { noise: None, jpeg_quality: None, ..condition };
        let value = |v| seen_by(&even, &RgbImage::from_pixel(1, 1, Rgb([v; 3])));
        let (dark, bright) = (value(a.min(b)), value(a.max(b)));
        prop_assert!(dark.iter().zip(bright.iter()).all(|(d, b)| d <= b), "{dark:?} {bright:?}");
    }
}

/// Any camera, within what its fields may be.
fn any_condition() -> impl Strategy<Value = CameraCondition> {
    let share = || 0.0..=1.0f32;
    let noise = (1.0..10_000.0f32, 0.0..50.0f32, 0.0..50.0f32)
        .prop_map(|(white, read, row)| SensorNoise { white, read, row });
    (
        (0.0..3.0f32, share(), prop::array::uniform3(0.0..3.0f32)),
        (0.0..3.0f32, -100.0..100.0f32, prop::option::of(noise)),
        (0.1..4.0f32, share(), prop::option::of(1..=100u8)),
    )
        .prop_map(
            |((blur, haze, gains), (exposure, offset, noise), (gamma, grey, jpeg_quality))| {
                CameraCondition {
                    blur,
                    haze,
                    gains,
                    exposure,
                    offset,
                    noise,
                    gamma,
                    grey,
                    jpeg_quality,
                }
            },
        )
}

fn seen_by(condition: &CameraCondition, image: &RgbImage) -> RgbImage {
    let mut seen = image.clone();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    condition.apply(&mut seen, &mut rng).unwrap();
    seen
}

#[test]
fn values_are_clipped_at_both_ends() {
    let pixel = RgbImage::from_pixel(1, 1, Rgb([0, 100, 230]));
    let seen = |condition: CameraCondition| seen_by(&condition, &pixel).get_pixel(0, 0).0;
    assert_eq!(seen(CameraCondition::OVER_EXPOSED), [20, 180, 255]);
    let darker = CameraCondition {
        offset: -120.0,
        ..CameraCondition::AS_IS
    };
    assert_eq!(seen(darker), [0, 0, 110]);
    assert_eq!(seen(CameraCondition::WHITE_BALANCE), [0, 100, 255]);
}

#[test]
fn conditions_say_what_they_do() {
    let said: Vec<String> = CameraCondition::MEASURED
        .iter()
        .map(|(name, condition)| format!("{name}: {condition}"))
        .collect();
    assert_eq!(
        said,
        [
            "as is: unchanged",
            "white balance: red × 0.75, blue × 1.25",
            "under-exposed: all × 0.35",
            "over-exposed: all × 1.6, + 20",
            "grey: grey",
            "gamma: gamma 1.9",
            "haze: 50 % haze",
            "noise: noise of 400 electrons at white, 3 of reading",
            "blur: blur of 1.5 pixels",
            "jpeg 20: JPEG of quality 20",
        ]
    );
}

#[test]
fn a_quality_that_does_not_exist_leaves_the_picture() {
    let mut picture = RgbImage::from_pixel(8, 8, Rgb([1, 2, 3]));
    let before = picture.clone();
    let camera = CameraCondition {
        jpeg_quality: Some(101),
        ..CameraCondition::AS_IS
    };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let error = camera.apply(&mut picture, &mut rng).unwrap_err();
    assert!(error.to_string().contains("101"), "{error}");
    assert_eq!(picture, before);
    // Nothing to change, nothing to encode.
    camera.apply(&mut RgbImage::new(0, 3), &mut rng).unwrap();
}

#[test]
fn an_empty_photograph_gives_fill() {
    let warped = warp(&RgbImage::new(0, 0), &Affine::IDENTITY, 2, 2, FILL);
    assert!(warped.pixels().all(|p| p.0 == FILL));
}

#[test]
fn a_quality_that_does_not_exist_is_refused() {
    let error = encode_jpeg(&RgbImage::new(4, 3), 101).unwrap_err();
    assert!(error.to_string().contains("4 × 3"), "{error}");
    assert!(encode_jpeg(&RgbImage::new(0, 3), 90).is_err());
}
