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
fn a_flight_along_a_path_has_passes_that_can_be_followed() {
    let cameras = [SurveyCamera::BELLY, SurveyCamera::WINDOW];
    let flown = |exposures| -> Vec<FlownFrame> {
        let flight = VirtualFlight::new(&CATALOGUE, 3, &cameras, 0.5, exposures);
        flight.frames().collect()
    };
    let flight = flown(2400);
    // The same seed gives the same flight, and a longer one begins with it.
    for (a, b) in flight.iter().zip(flown(100)) {
        let heads = |f: &FlownFrame| f.plan.heads_at(&CATALOGUE, 3072, 2048);
        assert_eq!((heads(a), a.plan.seed), (heads(&b), b.plan.seed));
    }
    // The frames in which each animal is seen in each pass, and the passes of each.
    let mut frames: BTreeMap<(u64, usize), Vec<&FlownFrame>> = BTreeMap::new();
    let mut passes: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut largest = 0;
    for (number, seen) in flight.iter().enumerate() {
        let plan = &seen.plan;
        assert_eq!(plan.number, number as u64);
        assert_eq!(seen.seconds, 0.5 * seen.exposure as f64);
        assert_eq!(plan.pass.is_some(), !plan.heads.is_empty());
        largest = largest.max(plan.heads.len());
        let mut individuals = BTreeSet::new();
        for head in &plan.heads {
            assert!(individuals.insert(head.individual), "in two places");
            let pass = plan.pass.unwrap();
            frames
                .entry((pass, head.individual))
                .or_default()
                .push(seen);
            passes.entry(head.individual).or_default().insert(pass);
        }
    }
    assert!(largest >= 6, "groups of {largest} at most");
    let known = CATALOGUE.known().len();
    let met_again = |stranger: bool| {
        let of_kind = passes.iter().filter(|(i, _)| (**i >= known) == stranger);
        of_kind.filter(|(_, passes)| passes.len() > 1).count()
    };
    assert!(met_again(false) >= 4 && met_again(true) >= 1, "{passes:?}");
    // Flown over, 1 to 3 frames; circled, more.
    let mut of_camera: [Vec<usize>; 2] = Default::default();
    for of_pass in frames.values() {
        for (camera, counts) in of_camera.iter_mut().enumerate() {
            let count = of_pass.iter().filter(|seen| seen.camera == camera).count();
            if count > 0 {
                counts.push(count);
            }
        }
    }
    for counts in &mut of_camera {
        counts.sort_unstable();
    }
    let median = of_camera.each_ref().map(|counts| counts[counts.len() / 2]);
    assert!(*of_camera[0].last().unwrap() <= 3, "{of_camera:?}");
    assert!(
        (1..=2).contains(&median[0]) && (6..=16).contains(&median[1]),
        "{of_camera:?}"
    );
    // Heads keep the sizes on which networks were trained, and turn as an aircraft circles, not more.
    for ((_, individual), of_pass) in &frames {
        for pair in of_pass.windows(2) {
            let [before, now] = [pair[0], pair[1]].map(|seen| {
                let heads = &seen.plan.heads;
                let head = heads.iter().find(|h| h.individual == *individual).unwrap();
                head.pose.landmarks()
            });
            assert!((70.0..250.0).contains(&now.head_length()), "{now:?}");
            if pair[0].camera != pair[1].camera || pair[1].exposure != pair[0].exposure + 1 {
                continue;
            }
            let ratio = now.head_length() / before.head_length();
            assert!((0.7..1.4).contains(&ratio), "grown by {ratio}");
        }
    }
}

/// What differs from frame to frame does so in seconds: nearby frames are alike, distant ones less, and a part stays.
#[test]
fn frames_of_a_pass_are_not_independent() {
    let flight = VirtualFlight::new(&CATALOGUE, 8, &[SurveyCamera::WINDOW], 0.25, 6000);
    let mut depths: BTreeMap<(u64, usize), Vec<(u64, f64)>> = BTreeMap::new();
    for seen in flight.frames() {
        for head in &seen.plan.heads {
            let of_pass = depths.entry((seen.plan.pass.unwrap(), head.individual));
            let depth = f64::from(head.pose.submergence);
            of_pass.or_default().push((seen.exposure, depth));
        }
    }
    let all: Vec<f64> = depths.values().flatten().map(|(_, depth)| *depth).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / all.len() as f64;
    // Correlation of depths that so many exposures lie between.
    let correlation = |apart: u64| {
        let (mut sum, mut count) = (0.0, 0);
        for of_pass in depths.values() {
            for (i, a) in of_pass.iter().enumerate() {
                let later = of_pass[i..].iter().find(|b| b.0 == a.0 + apart);
                if let Some(b) = later {
                    sum += (a.1 - mean) * (b.1 - mean);
                    count += 1;
                }
            }
        }
        sum / f64::from(count) / variance
    };
    let [near, second, far] = [1, 4, 20].map(correlation);
    println!("after 0.25 s {near:.2}, 1 s {second:.2}, 5 s {far:.2}");
    assert!(
        near > 0.85 && near > second && second > far,
        "{near} {second} {far}"
    );
    assert!(
        (0.5..0.9).contains(&second) && (0.15..0.65).contains(&far),
        "{second} {far}"
    );
}

#[test]
fn a_blur_moves_light_along_the_way_and_loses_none() {
    let plan = |blur| {
        let mut plan = Survey::new(&CATALOGUE, 6).next().unwrap();
        plan.sea.noise = 0.0;
        plan.blur = blur;
        plan.render(&CATALOGUE, 300, 200).image
    };
    let sharp = plan(Point::default());
    assert_eq!(sharp, plan(Point::new(1.0, 1.0)), "less than a pixel");
    let blurred = plan(Point::new(82.0, 0.0));
    let roughness = |image: &RgbImage, dx: u32, dy: u32| {
        let (mut sum, mut count) = (0.0, 0);
        for y in 20..180 {
            for x in 20..280 {
                let step = luma(image, f64::from(x + dx), f64::from(y + dy))
                    - luma(image, f64::from(x), f64::from(y));
                sum += step * step;
                count += 1;
            }
        }
        sum / f64::from(count)
    };
    assert!(roughness(&blurred, 1, 0) < 0.4 * roughness(&sharp, 1, 0));
    let lost = |dx, dy| roughness(&blurred, dx, dy) / roughness(&sharp, dx, dy);
    assert!(lost(1, 0) < lost(0, 1));
    let mean = |image: &RgbImage| mean_luma(image, (150.0, 100.0), 60);
    assert!((mean(&sharp) - mean(&blurred)).abs() < 2.0);
}
