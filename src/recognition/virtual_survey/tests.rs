use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::geometry::Affine;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::new(11, 8, 2));

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A view without what may hide a head: foam, blow, mist, deep water.
fn clear_view(seed: u64) -> HeadView {
    let mut view = HeadView::draw(&mut rng(seed));
    view.sea.glitter = 0.0;
    view.sea.foam = 0.0;
    view.sea.haze = view.sea.haze.min(0.1);
    view.sea.exposure = view.sea.exposure.clamp(0.8, 1.2);
    view.pose.white_water = 0.0;
    view.pose.blow = 0.0;
    view.pose.submergence = view.pose.submergence.min(0.03);
    view
}

fn luma(picture: &RgbImage, x: f64, y: f64) -> f64 {
    let p = picture.get_pixel(x as u32, y as u32).0;
    p.iter().map(|&v| f64::from(v)).sum::<f64>() / 3.0
}

fn mean_luma(picture: &RgbImage, at: (f64, f64), radius: i32) -> f64 {
    let mut sum = 0.0;
    for dy in -radius..=radius {
        for dx in -radius..=radius {
            sum += luma(picture, at.0 + f64::from(dx), at.1 + f64::from(dy));
        }
    }
    sum / f64::from((2 * radius + 1) * (2 * radius + 1))
}

/// The head's middle, reduced and standardised, for correlation.
fn signature(picture: &RgbImage) -> Vec<f64> {
    let (w, h) = picture.dimensions();
    let middle = image::imageops::crop_imm(picture, w / 8, h / 4, w * 3 / 4, h / 2).to_image();
    let small = image::imageops::resize(&middle, 48, 32, image::imageops::FilterType::Triangle);
    let values: Vec<f64> = small
        .pixels()
        .map(|p| p.0.iter().map(|&v| f64::from(v)).sum())
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let norm = values
        .iter()
        .map(|v| (v - mean).powi(2))
        .sum::<f64>()
        .sqrt();
    values.iter().map(|v| (v - mean) / norm.max(1e-9)).collect()
}

#[test]
fn a_seed_decides_everything() {
    let sea = |seed| Sea::draw(&mut rng(seed), 160, 90, 40.0);
    assert_eq!(sea(3), sea(3));
    assert_ne!(sea(3), sea(4));
    let head = |seed| {
        let view = HeadView::draw(&mut rng(seed));
        render_head(&VirtualWhale::new(5), &view, 64, 64)
    };
    assert_eq!(head(1), head(1));
    assert_ne!(head(1), head(2));
    let flight = |seed| -> Vec<VirtualFrame> {
        RenderedSurvey::new(&CATALOGUE, seed, 192, 128)
            .take(12)
            .collect()
    };
    for (a, b) in flight(9).iter().zip(&flight(9)) {
        assert_eq!(a.image, b.image);
        assert_eq!(a.heads, b.heads);
        assert_eq!(a.pass, b.pass);
    }
    let larger = Catalogue::new(11, 10, 3);
    assert_eq!(larger.names()[..8], CATALOGUE.names());
    assert_eq!(
        larger.known()[7].whale.seed(),
        CATALOGUE.known()[7].whale.seed()
    );
    assert_eq!(
        larger.unknown()[1].whale.seed(),
        CATALOGUE.unknown()[1].whale.seed()
    );
}

#[test]
fn an_individual_resembles_itself_most() {
    let individuals = CATALOGUE.individuals();
    let mut right = 0;
    let mut asked = 0;
    let gallery: Vec<Vec<Vec<f64>>> = individuals
        .iter()
        .enumerate()
        .map(|(i, individual)| {
            (0..3)
                .map(|k| {
                    let view = clear_view(100 * i as u64 + k);
                    signature(&render_head(&individual.whale, &view, 128, 128))
                })
                .collect()
        })
        .collect();
    for (i, individual) in individuals.iter().enumerate() {
        for k in 0..3 {
            let view = clear_view(7000 + 100 * i as u64 + k);
            let probe = signature(&render_head(&individual.whale, &view, 128, 128));
            let likeness = |views: &Vec<Vec<f64>>| {
                views
                    .iter()
                    .map(|v| v.iter().zip(&probe).map(|(a, b)| a * b).sum::<f64>())
                    .fold(f64::MIN, f64::max)
            };
            let scores: Vec<f64> = gallery.iter().map(likeness).collect();
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            right += usize::from(best == Some(i));
            asked += 1;
        }
    }
    // Chance is one in ten.
    assert!(
        right * 10 >= asked * 6,
        "{right} of {asked} heads were nearest to their own"
    );
}

#[test]
fn landmarks_are_callosity_at_the_crop_s_places() {
    let size = 224u32;
    let expected = HeadCrop::RIGHT_WHALE.landmarks(size, size);
    let mut brighter = 0;
    let mut asked = 0;
    for (i, individual) in CATALOGUE.individuals().iter().enumerate() {
        let view = clear_view(500 + i as u64);
        let crop = HeadCrop::RIGHT_WHALE
            .crop_from_frame(&view.pose.landmarks(), size, size)
            .expect("landmarks are apart");
        let there = view.pose.landmarks().map(&crop);
        assert!(there.error(&expected) < 1e-9);

        let picture = render_head(&individual.whale, &view, size, size);
        let (b, h) = (expected.bonnet, expected.blowhead);
        // A little behind the tip, so that water ahead of it is not measured.
        let bonnet = mean_luma(&picture, (b.x - 5.0, b.y), 2);
        let blowhead = mean_luma(&picture, (h.x + 2.0, h.y), 2);
        // The black gape on both sides of the rostrum.
        let gape = [-0.22, 0.22].map(|y| {
            let x = 0.30 + 0.45 * 0.5;
            mean_luma(
                &picture,
                (x * f64::from(size), (0.5 + y) * f64::from(size)),
                2,
            )
        });
        let dark = gape[0].min(gape[1]);
        brighter += usize::from(bonnet > dark + 15.0) + usize::from(blowhead > dark + 15.0);
        asked += 2;
    }
    assert!(
        brighter * 10 >= asked * 9,
        "{brighter} of {asked} landmarks are brighter than the skin"
    );
}

#[test]
fn a_flight_has_frames_with_none_one_and_several() {
    let plans: Vec<FramePlan> = Survey::new(&CATALOGUE, 2).take(400).collect();
    let count = |f: fn(usize) -> bool| plans.iter().filter(|p| f(p.heads.len())).count();
    let (none, one, several) = (count(|n| n == 0), count(|n| n == 1), count(|n| n > 1));
    assert!(
        none > 80 && one > 80 && several > 20,
        "{none} empty, {one} with one, {several} with several"
    );
    let mut lengths: Vec<f64> = Vec::new();
    let (mut known, mut unknown) = (0, 0);
    for (k, plan) in plans.iter().enumerate() {
        assert_eq!(plan.number, k as u64);
        assert_eq!(plan.pass.is_some(), !plan.heads.is_empty());
        let heads = plan.heads_at(&CATALOGUE, 3072, 2048);
        assert_eq!(heads.len(), plan.heads.len());
        for head in heads {
            for p in [head.landmarks.bonnet, head.landmarks.blowhead] {
                assert!((0.0..=3072.0).contains(&p.x) && (0.0..=2048.0).contains(&p.y));
            }
            lengths.push(head.landmarks.head_length());
            if head.known {
                known += 1;
            } else {
                unknown += 1;
            }
        }
    }
    assert!(
        known > 3 * unknown / 2 && unknown > 20,
        "{known}, {unknown}"
    );
    lengths.sort_by(f64::total_cmp);
    let median = lengths[lengths.len() / 2];
    assert!((200.0..360.0).contains(&median), "median head {median}");
    assert!(lengths[0] > 85.0 && lengths[lengths.len() - 1] < 720.0);
}

#[test]
fn a_frame_s_truth_agrees_with_its_head_crops() {
    // Cut from a frame by its truth, the bonnet is where the crop's geometry says and brighter than
    // the gape: checked on the frame's own pixels.
    let mut asked = 0;
    let mut brighter = 0;
    for mut plan in Survey::new(&CATALOGUE, 21)
        .filter(|p| p.heads.len() == 1)
        .take(12)
    {
        plan.sea.glitter = 0.0;
        plan.sea.foam = 0.0;
        plan.sea.haze = 0.0;
        plan.sea.exposure = 1.0;
        let pose = &mut plan.heads[0].pose;
        (pose.submergence, pose.white_water, pose.blow) = (0.0, 0.0, 0.0);
        (pose.roll, pose.pitch) = (0.0, 0.0);
        let frame = plan.render(&CATALOGUE, 1536, 1024);
        let landmarks = frame.heads[0].landmarks;
        let crop = HeadCrop::RIGHT_WHALE
            .crop_from_frame(&landmarks, 200, 200)
            .and_then(|a| a.inverse())
            .expect("landmarks are apart");
        let at = |x: f64, y: f64| {
            let p = crop.apply(Point::new(200.0 * x, 200.0 * y));
            let inside = p.x >= 2.0 && p.y >= 2.0 && p.x < 1534.0 && p.y < 1022.0;
            inside.then(|| mean_luma(&frame.image, (p.x, p.y), 1))
        };
        let (Some(bonnet), Some(left), Some(right)) =
            (at(0.775, 0.5), at(0.52, 0.28), at(0.52, 0.72))
        else {
            continue;
        };
        asked += 1;
        brighter += usize::from(bonnet > left.min(right) + 10.0);
    }
    assert!(
        asked >= 6 && brighter * 10 >= asked * 8,
        "{brighter} of {asked}"
    );
}

#[test]
fn a_smaller_frame_shows_the_same_scaled() {
    let plan = Survey::new(&CATALOGUE, 4)
        .find(|p| !p.heads.is_empty())
        .expect("an endless flight meets whales");
    let (large, small) = (
        plan.heads_at(&CATALOGUE, 3072, 2048),
        plan.heads_at(&CATALOGUE, 384, 256),
    );
    for (a, b) in large.iter().zip(&small) {
        assert_eq!(a.individual, b.individual);
        let scaled = a.landmarks.map(&Affine::scaling(0.125, 0.125));
        assert!(b.landmarks.error(&scaled) < 1e-9);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_size_can_be_drawn(
        seed in any::<u64>(),
        width in 0u32..70,
        height in 0u32..70,
        head in prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), 1e-3..1e4f64],
    ) {
        let mut rng = rng(seed);
        prop_assert_eq!(Sea::draw(&mut rng, width, height, head).dimensions(), (width, height));
        let view = HeadView::draw(&mut rng);
        let whale = &CATALOGUE.known()[seed as usize % 8].whale;
        prop_assert_eq!(render_head(whale, &view, width, height).dimensions(), (width, height));
        let plan = Survey::new(&CATALOGUE, seed).nth(3).expect("flights are endless");
        let frame = plan.render(&CATALOGUE, width, height);
        prop_assert_eq!(frame.image.dimensions(), (width, height));
        for head in frame.heads {
            for p in [head.landmarks.bonnet, head.landmarks.blowhead] {
                prop_assert!((0.0..=f64::from(width)).contains(&p.x));
                prop_assert!((0.0..=f64::from(height)).contains(&p.y));
            }
        }
    }
}

#[test]
fn a_revisiting_flight_has_passes_that_can_be_followed() {
    let plans: Vec<FramePlan> = RevisitingSurvey::new(&CATALOGUE, 3).take(1500).collect();
    let again: Vec<FramePlan> = RevisitingSurvey::new(&CATALOGUE, 3).take(50).collect();
    for (a, b) in plans.iter().zip(&again) {
        assert_eq!(
            a.heads_at(&CATALOGUE, 3072, 2048),
            b.heads_at(&CATALOGUE, 3072, 2048)
        );
    }
    // The frames in which each animal is seen in each pass, and the passes of each.
    let mut frames: BTreeMap<(u64, usize), Vec<&FramePlan>> = BTreeMap::new();
    let mut passes: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut largest = 0;
    for (number, plan) in plans.iter().enumerate() {
        assert_eq!(plan.number, number as u64);
        assert_eq!(plan.pass.is_some(), !plan.heads.is_empty());
        largest = largest.max(plan.heads.len());
        let mut individuals = BTreeSet::new();
        for head in &plan.heads {
            assert!(individuals.insert(head.individual), "in two places");
            frames
                .entry((plan.pass.unwrap(), head.individual))
                .or_default()
                .push(plan);
            passes
                .entry(head.individual)
                .or_default()
                .insert(plan.pass.unwrap());
        }
    }
    assert!(largest >= 6, "groups of {largest} at most");
    let counts: BTreeSet<usize> = frames.values().map(Vec::len).collect();
    assert_eq!(counts, BTreeSet::from([1, 2, 3, 4]));
    let known = CATALOGUE.known().len();
    let met_again = |stranger: bool| {
        let of_kind = passes.iter().filter(|(i, _)| (**i >= known) == stranger);
        of_kind.filter(|(_, passes)| passes.len() > 1).count()
    };
    assert!(met_again(false) >= 4 && met_again(true) >= 1, "{passes:?}");
    for ((_, individual), of_pass) in &frames {
        for pair in of_pass.windows(2) {
            assert_eq!(
                pair[0].number + 1,
                pair[1].number,
                "it is seen without a gap"
            );
            let [before, now] = [pair[0], pair[1]].map(|plan| {
                let head = plan.heads.iter().find(|h| h.individual == *individual);
                head.unwrap().pose.landmarks()
            });
            let moved = before.centre().distance(now.centre());
            assert!((350.0..900.0).contains(&moved), "moved by {moved} pixels");
            let ratio = now.head_length() / before.head_length();
            assert!((0.8..1.25).contains(&ratio), "grown by {ratio}");
        }
    }
}
