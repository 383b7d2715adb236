//! Import, cache and their faults, on small folders made for the test and on the real photographs.

use std::fs;
use std::path::{Path, PathBuf};

use callosity_training::cache::{Cache, CacheError};
use callosity_training::index::{
    Import, Index, IndexError, Layout, PhotographKind, ProblemKind, Resemblance, import,
};
use callosity_training::split::{Role, Split, SplitOptions};
use image::RgbImage;
use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use recognition::geometry::Point;

/// A smooth picture that differs with its seed; as PNG, so that pixels come back exactly.
fn picture(seed: u64, width: u32, height: u32) -> RgbImage {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let waves: Vec<[f64; 4]> = (0..6)
        .map(|_| random.random::<[f64; 4]>().map(|v| v * 12.0 - 6.0))
        .collect();
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (
            f64::from(x) / f64::from(width),
            f64::from(y) / f64::from(height),
        );
        let sum: f64 = waves
            .iter()
            .map(|w| (w[0] * u + w[1] * v + w[2]).sin() * w[3])
            .sum();
        let grey = (128.0 + 8.0 * sum).clamp(0.0, 255.0) as u8;
        image::Rgb([grey, grey / 2, 255 - grey])
    })
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a table is written");
}

fn save(picture: &RgbImage, folder: &Path, name: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    picture.save(path).expect("a picture is written");
}

fn run(folder: &Path) -> Import {
    import(folder, &ProgressBar::hidden()).expect("imported")
}

fn right_whales(folder: &Path) {
    for i in 0..4 {
        save(&picture(i, 224, 224), folder, &format!("heads/w_{i}.png"));
    }
    // The same picture under another name, and a little brighter among the unlabelled.
    save(&picture(0, 224, 224), folder, "heads/w_9.png");
    let mut brighter = picture(1, 224, 224);
    brighter
        .pixels_mut()
        .for_each(|p| p.0[0] = p.0[0].saturating_add(6));
    save(&brighter, folder, "unlabelled_heads/u_1.png");
    save(&picture(50, 224, 224), folder, "unlabelled_heads/u_2.png");
    save(&picture(60, 300, 200), folder, "frames/w_2.png");
    fs::write(
        folder.join("heads/broken.jpg"),
        b"\xff\xd8\xff\xe0 no photograph",
    )
    .expect("written");
    write(
        folder,
        "heads.csv",
        "image,whale\nw_0.png,a\nw_1.png,a\nw_2.png,b\nmissing.png,c\nw_9.png,a\nw_2.png,d\n,e\n",
    );
    write(
        folder,
        "landmarks.csv",
        "image,width,height,bonnet_x,bonnet_y,blowhead_x,blowhead_y\n\
         w_0.png,3000,2000,100,200,300,200.5\n\
         w_1.png,3000,2000,100,200,3000.5,200\n\
         w_2.png,3000,2000,ten,200,300,200\n",
    );
    write(
        folder,
        "frames.csv",
        "image,whale,width,height,bonnet_x,bonnet_y,blowhead_x,blowhead_y,box_x,box_y,box_width,box_height\n\
         w_2.png,b,300,200,100,50,60,50,,,,\n\
         w_2.png,z,300,200,,,,,10,20,30,40\n\
         w_2.png,b,301,200,100,50,60,50,,,,\n\
         w_2.png,b,300,200,-1,50,60,50,,,,\n",
    );
}

#[test]
fn imports_the_right_whale_layout_and_reports_every_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    right_whales(folder.path());
    let Import {
        layout,
        index,
        problems,
        duplicates,
    } = run(folder.path());
    assert_eq!(layout, Layout::RightWhales);

    let names: Vec<&str> = index.photographs.iter().map(|p| p.image.as_str()).collect();
    let expected = [
        "w_0.png",
        "w_1.png",
        "w_2.png",
        "w_3.png",
        "w_9.png",
        "u_1.png",
        "u_2.png",
        "frames/w_2.png",
    ];
    assert_eq!(names, expected);
    let head = index.get("w_2.png").expect("there");
    assert_eq!(head.individual.as_deref(), Some("b"));
    assert_eq!(head.frame.as_deref(), Some("frames/w_2.png"));
    let bonnet = head.landmarks[0].bonnet;
    assert!(bonnet.distance(Point::new(179.2, 112.0)) < 1e-9);
    let pose = index
        .get("w_0.png")
        .expect("there")
        .source_pose
        .expect("a pose");
    assert_eq!(pose.landmarks.blowhead, Point::new(300.0, 200.5));
    let frame = index.get("frames/w_2.png").expect("there");
    assert_eq!((frame.width, frame.height), (300, 200));
    assert_eq!(frame.landmarks.len(), 1);
    assert_eq!(frame.boxes.len(), 1);
    assert_eq!(frame.individual, None, "its heads have two names");

    let mut found: Vec<_> = problems
        .iter()
        .map(|p| (p.kind, p.file.to_string_lossy().into_owned(), p.line))
        .collect();
    found.sort();
    let at = |kind, file: &str, line| (kind, file.to_owned(), line);
    let expected = [
        at(ProblemKind::UnreadablePhotograph, "heads/broken.jpg", None),
        at(ProblemKind::LabelWithoutFile, "heads.csv", Some(5)),
        at(ProblemKind::HeadWithoutLabel, "heads/w_3.png", None),
        at(ProblemKind::MalformedRow, "heads.csv", Some(8)),
        at(ProblemKind::MalformedRow, "landmarks.csv", Some(4)),
        at(ProblemKind::LandmarksOutsideFrame, "frames.csv", Some(5)),
        at(ProblemKind::LandmarksOutsideFrame, "landmarks.csv", Some(3)),
        at(ProblemKind::SizeMismatch, "frames.csv", Some(4)),
        at(ProblemKind::ContradictoryLabel, "heads.csv", Some(7)),
    ];
    assert_eq!(found, expected);

    let pairs: Vec<_> = duplicates
        .iter()
        .map(|d| (d.image.as_str(), d.of.as_str()))
        .collect();
    assert_eq!(pairs, [("w_9.png", "w_0.png"), ("u_1.png", "w_1.png")]);
    assert_eq!(duplicates[0].resemblance, Resemblance::Exact);
    assert!(matches!(duplicates[1].resemblance, Resemblance::Near(c) if c > 0.97));
}

#[test]
fn imports_the_layout_of_the_challenge() {
    let folder = tempfile::tempdir().expect("a folder");
    save(&picture(1, 300, 200), folder.path(), "imgs/w_1.png");
    save(&picture(2, 300, 200), folder.path(), "imgs/w_2.png");
    write(
        folder.path(),
        "train.csv",
        "Image,whaleID\nw_1.png,whale_7\nw_5.png,whale_7\n",
    );
    let points = |x: f64| {
        serde_json::json!([
            {"class": "image", "filename": "imgs/w_1.png",
             "annotations": [{"class": "Point", "x": x, "y": 20.25}]},
            {"class": "image", "filename": "imgs/w_8.png", "annotations": [{"class": "point", "x": 1, "y": 2}]},
            {"class": "image", "filename": "imgs/w_2.png", "annotations": []},
        ])
        .to_string()
    };
    write(folder.path(), "points1.json", &points(120.5));
    write(folder.path(), "points2.json", &points(60.0));
    let Import {
        layout,
        index,
        problems,
        ..
    } = run(folder.path());
    assert_eq!(layout, Layout::Challenge);
    let first = index.get("w_1.png").expect("there");
    assert_eq!(first.kind, PhotographKind::Frame);
    assert_eq!(first.individual.as_deref(), Some("whale_7"));
    assert_eq!(first.landmarks[0].bonnet, Point::new(120.5, 20.25));
    assert_eq!(first.landmarks[0].blowhead, Point::new(60.0, 20.25));
    assert!(index.get("w_2.png").expect("there").landmarks.is_empty());
    let missing: Vec<&str> = problems.iter().map(|p| p.value.as_str()).collect();
    assert_eq!(missing, ["w_5.png", "w_8.png"]);
    assert!(
        problems
            .iter()
            .all(|p| p.kind == ProblemKind::LabelWithoutFile)
    );

    // Without cut heads, what is learnt from is cut from the frames by their landmarks.
    let cache = Cache::open_or_build(&index, &folder.path().join("cache")).expect("built");
    assert_eq!(cache.len(), 1, "the other frame has no landmarks");
    let (head, side, height) = cache.pixels("w_1.png").expect("cut");
    assert_eq!(side, height);
    let cut = recognition::geometry::HeadCrop::RIGHT_WHALE.landmarks(side, side);
    let frame = picture(1, 300, 200);
    for (in_head, in_frame) in [
        (cut.bonnet, first.landmarks[0].bonnet),
        (cut.blowhead, first.landmarks[0].blowhead),
    ] {
        let at = (in_head.y as u32 * side + in_head.x as u32) as usize * 3;
        let expected = frame.get_pixel(in_frame.x as u32, in_frame.y as u32);
        for (seen, expected) in head[at..at + 3].iter().zip(expected.0) {
            assert!(
                seen.abs_diff(expected) <= 3,
                "{seen} at {in_head:?}, {expected} in the frame"
            );
        }
    }
}

#[test]
fn an_unknown_layout_and_a_table_without_its_column_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let bar = ProgressBar::hidden();
    assert!(matches!(
        import(folder.path(), &bar),
        Err(IndexError::UnknownLayout(_))
    ));
    save(&picture(1, 224, 224), folder.path(), "heads/w_1.png");
    write(folder.path(), "heads.csv", "image,name\nw_1.png,a\n");
    let error = import(folder.path(), &bar).expect_err("no column whale");
    assert!(
        error
            .to_string()
            .contains("heads.csv: column whale is missing"),
        "{error}"
    );
}

#[test]
fn the_cache_gives_the_decoded_pixels_and_notices_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    right_whales(folder.path());
    let index = run(folder.path()).index;
    let cached = folder.path().join("cache");
    let cache = Cache::open_or_build(&index, &cached).expect("built");
    assert_eq!(cache.len(), 5);
    assert_eq!(
        cache.pixels("w_3.png"),
        Some((picture(3, 224, 224).as_raw().as_slice(), 224, 224))
    );
    assert_eq!(cache.pixels("u_1.png"), None);

    // A second opening reads no photograph.
    let photograph = folder.path().join("heads/w_3.png");
    save(&picture(77, 224, 224), folder.path(), "heads/w_3.png");
    let again = Cache::open_or_build(&index, &cached).expect("opened");
    assert_eq!(again.pixels("w_3.png"), cache.pixels("w_3.png"));
    // A build that meets a photograph which is not the one imported says which, and leaves nothing.
    let elsewhere = folder.path().join("elsewhere");
    match Cache::open_or_build(&index, &elsewhere).map(|c| c.len()) {
        Err(CacheError::Photograph { path, .. }) => {
            assert!(path.ends_with("heads/w_3.png"), "{path:?}")
        }
        other => panic!("{other:?} for {}", photograph.display()),
    }
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
    // A damaged data file.
    for entry in fs::read_dir(&cached).expect("there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "rgb") {
            fs::write(path, b"short").expect("written");
        }
    }
    let damaged = Cache::open_or_build(&index, &cached).map(|c| c.len());
    assert!(
        matches!(damaged, Err(CacheError::Damaged { .. })),
        "{damaged:?}"
    );
}

#[test]
fn an_index_reads_as_written_and_its_digest_does_not_depend_on_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    right_whales(folder.path());
    let index = run(folder.path()).index;
    let path = folder.path().join("index.json");
    index.save(&path).expect("written");
    assert_eq!(Index::load(&path).expect("read"), index);
    let moved = Index {
        root: PathBuf::from("elsewhere"),
        ..index.clone()
    };
    assert_eq!(moved.digest(), index.digest());
    let mut twice = index;
    twice.photographs.push(twice.photographs[0].clone());
    twice.save(&path).expect("written");
    assert!(matches!(
        Index::load(&path),
        Err(IndexError::Ambiguous { .. })
    ));
}

#[test]
fn real_photographs_import_without_problems_and_split_as_asked() {
    let data = std::env::var_os("CALLOSITY_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/right_whales"),
        PathBuf::from,
    );
    if !data.join("heads.csv").exists() {
        println!(
            "skipped: no photographs in {} (CALLOSITY_DATA)",
            data.display()
        );
        return;
    }
    let import = run(&data);
    assert_eq!(import.problems, []);
    let split = Split::make(&import.index, SplitOptions::default()).expect("a split");
    let count = |wanted: fn(Role) -> bool| split.labelled(&import.index, wanted).count();
    let validation = count(|role| role == Role::Validation);
    let known = count(|role| role != Role::Unknown);
    assert!(
        (validation as f64 / known as f64 - 0.15).abs() < 0.002,
        "{validation} of {known}"
    );
    assert_eq!(split.unknown_individuals.len(), 20);
    let framed = import
        .index
        .photographs
        .iter()
        .filter(|p| p.frame.is_some());
    let in_training = framed
        .filter(|p| {
            p.kind == PhotographKind::Head && split.role(&p.image) != Some(Role::Validation)
        })
        .filter(|p| !split.hidden_from_finder.contains(&p.image))
        .map(|p| p.image.as_str());
    // Its frame has no landmarks, so it is not measured on.
    assert!(in_training.eq(["w_7489.jpg"]) || split.role("w_7489.jpg") == Some(Role::Validation));
}

/// As the virtual survey writes it: frames of several whales and of none, beside heads of other names.
#[test]
fn frames_beside_heads_are_only_measured_on_and_count_for_no_whale() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut labels = String::from("image,whale\n");
    for i in 0..12 {
        save(&picture(i, 64, 64), folder, &format!("heads/v_1_{i}.png"));
        labels += &format!("v_1_{i}.png,{}\n", ["ann", "bob"][i as usize % 2]);
    }
    for i in 0..4 {
        let name = format!("v_2_{i}.png");
        save(&picture(20 + i, 64, 64), folder, &format!("heads/{name}"));
        labels += &format!("{name},Stranger-0{}\n", i % 2);
    }
    write(folder, "heads.csv", &labels);
    for i in 0..3 {
        save(
            &picture(40 + i, 300, 200),
            folder,
            &format!("frames/v_{i}.png"),
        );
    }
    write(
        folder,
        "frames.csv",
        "image,whale,width,height,bonnet_x,bonnet_y,blowhead_x,blowhead_y\n\
         v_0.png,ann,300,200,100,50,60,50\n\
         v_0.png,Stranger-00,300,200,100,150,60,150\n\
         v_1.png,ann,300,200,100,50,60,50\n\
         v_2.png,,300,200,,,,\n",
    );
    let Import {
        index, problems, ..
    } = run(folder);
    assert_eq!(problems, []);
    let whales = |image: &str| index.get(image).expect("there").head_individuals.clone();
    let two = ["ann", "Stranger-00"].map(|w| Some(w.to_owned()));
    assert_eq!(whales("v_0.png"), two);
    assert_eq!(whales("v_2.png"), []);

    let options = SplitOptions {
        unknown_whales: 2,
        unknown_minimum: 1,
        unknown_maximum: 2,
        folds: 2,
        ..SplitOptions::default()
    };
    let split = Split::make(&index, options).expect("a split");
    assert_eq!(split.individuals, ["ann", "bob"]);
    assert_eq!(split.unknown_individuals, ["Stranger-00", "Stranger-01"]);
    for i in 0..4 {
        assert_eq!(split.role(&format!("v_2_{i}.png")), Some(Role::Unknown));
    }
    assert_eq!(split.role("v_0.png"), Some(Role::Validation));
    assert_eq!(split.role("v_1.png"), Some(Role::Validation));
    assert!(matches!(split.role("v_2.png"), Some(Role::Training { .. })));
    let labelled: Vec<_> = split.labelled(&index, |_| true).collect();
    assert_eq!(labelled.len(), 16);
    assert!(
        labelled
            .iter()
            .all(|(p, ..)| p.kind != PhotographKind::Frame)
    );
}
