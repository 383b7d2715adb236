//! `callosity virtual-survey`: writes a data set of drawn whales in the layout of the real one.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use indicatif::{ParallelProgressIterator, ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::camera::Camera;
use recognition::geometry::Landmarks;
use recognition::virtual_survey::{
    Catalogue, FlownFrame, GeographicPoint, HeadView, Individual, Survey, SurveyCamera,
    VirtualFlight, render_head,
};

/// Write a data set of drawn right whales, with truth, for training, tests and rehearsals.
///
/// The layout is that of the real photographs: heads/ with heads.csv and landmarks.csv, frames/ with
/// frames.csv. Strangers, of which a model shall know nothing, have fewer heads than the others, so that
/// `callosity-train split --unknown-maximum` can hold just them out; they swim in the frames too.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folder to write to; made where it does not exist, must be empty where it does
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The same seed gives the same data set
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Known whales
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub individuals: usize,
    /// Head photographs of each whale
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub heads_per_individual: usize,
    /// Whales outside the catalogue
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub unknown_individuals: usize,
    /// Head photographs of each whale outside the catalogue
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub heads_per_unknown: usize,
    /// Survey frames
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub frames: usize,
    /// Width of a frame in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 3072, value_parser = clap::value_parser!(u32).range(16..=16384))]
    pub frame_width: u32,
    /// Height of a frame in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..=16384))]
    pub frame_height: u32,
    /// Side of a head photograph in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub head_size: u32,
    /// Frames of one flight along a path, of two cameras that take two a second: groups are flown over and circled, and
    /// animals are met again. frames.csv then has the camera, the time in seconds and where each animal is, too
    #[arg(long)]
    revisiting: bool,
    /// The camera that takes heads and frames
    #[arg(long, value_enum, default_value_t = Camera::AsIs)]
    pub camera: Camera,
}

/// Seconds between two frames of a camera on a flight along a path.
const INTERVAL: f64 = 0.5;

/// Columns that tell where a head is in a picture of which size, in pixels.
const LANDMARKS: [&str; 6] = [
    "width",
    "height",
    "bonnet_x",
    "bonnet_y",
    "blowhead_x",
    "blowhead_y",
];

/// Quality of JPEG files, 1…100.
const QUALITY: u8 = 90;

/// Writes the data set.
///
/// # Errors
/// The folder is not empty, or a file cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    write(&args)?;
    Ok(ExitCode::SUCCESS)
}

fn write(args: &Args) -> anyhow::Result<()> {
    let out = &args.out;
    ensure!(
        args.individuals > 0 || args.unknown_individuals > 0 || args.frames > 0,
        "nothing to draw: give --individuals, --unknown-individuals or --frames a number above 0"
    );
    if out.exists() {
        let mut entries =
            fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))?;
        ensure!(
            entries.next().is_none(),
            "{} is not empty: name a new folder, so that nothing of an older data set stays in it",
            out.display()
        );
    }
    for folder in ["heads", "frames"] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let catalogue = Catalogue::new(args.seed, args.individuals, args.unknown_individuals);

    let known = draw_heads(args, catalogue.known(), args.heads_per_individual, 1)?;
    let strangers = draw_heads(args, catalogue.unknown(), args.heads_per_unknown, 2)?;
    let mut labels = table(&out.join("heads.csv"), &["image", "whale"])?;
    let mut landmarks = table(
        &out.join("landmarks.csv"),
        &[&["image"], LANDMARKS.as_slice()].concat(),
    )?;
    for head in known.iter().chain(&strangers) {
        labels.write_record([&head.image, &head.whale])?;
        let size = ["3072".to_owned(), "2048".to_owned()];
        let row = [head.image.clone()]
            .into_iter()
            .chain(size)
            .chain(coordinates(&head.in_frame));
        landmarks.write_record(row)?;
    }
    labels.flush()?;
    landmarks.flush()?;

    draw_frames(args, &catalogue)?;
    println!(
        "{}: {} heads of {} whales, {} heads of {} strangers, {} frames",
        out.display(),
        known.len(),
        catalogue.known().len(),
        strangers.len(),
        catalogue.unknown().len(),
        args.frames
    );
    Ok(())
}

/// A head photograph that was written.
struct Written {
    image: String,
    whale: String,
    /// Where its landmarks lay in the frame of 3072 × 2048 pixels that it stands for.
    in_frame: Landmarks,
}

fn draw_heads(
    args: &Args,
    individuals: &[Individual],
    heads_each: usize,
    stream: u64,
) -> anyhow::Result<Vec<Written>> {
    // Where heads lie in frames follows the survey's own distribution.
    let places: Vec<Landmarks> = Survey::new(&Catalogue::new(args.seed, 2, 0), args.seed ^ stream)
        .flat_map(|plan| plan.heads.into_iter().map(|head| head.pose.landmarks()))
        .take(individuals.len() * heads_each)
        .collect();
    let bar = progress(places.len() as u64, "heads");
    let heads = places
        .into_par_iter()
        .enumerate()
        .progress_with(bar.clone())
        .map(|(i, in_frame)| {
            let individual = &individuals[i / heads_each];
            let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
            rng.set_stream((stream << 40) + i as u64);
            let view = HeadView::draw(&mut rng);
            // A photograph holds no more detail than its frame did; small heads come out soft.
            let across = 2.0 * in_frame.head_length();
            let soft = (across.round() as u32).clamp(args.head_size.min(48), args.head_size);
            let drawn = render_head(&individual.whale, &view, soft, soft);
            let mut picture = if soft == args.head_size {
                drawn
            } else {
                let filter = image::imageops::FilterType::CatmullRom;
                image::imageops::resize(&drawn, args.head_size, args.head_size, filter)
            };
            let image = format!("v_{}_{:05}.jpg", stream, i + 1);
            let quality = rng.random_range(75..=95);
            args.camera.condition().apply(&mut picture, &mut rng)?;
            save(&args.out.join("heads").join(&image), &picture, quality)?;
            Ok(Written {
                image,
                whale: individual.name.clone(),
                in_frame,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    bar.finish_and_clear();
    Ok(heads)
}

fn draw_frames(args: &Args, catalogue: &Catalogue) -> anyhow::Result<()> {
    let (width, height) = (args.frame_width, args.frame_height);
    let cameras = [SurveyCamera::BELLY, SurveyCamera::WINDOW];
    let mut header = [&["image", "whale"], LANDMARKS.as_slice(), &["pass"]].concat();
    let flown: Vec<FlownFrame> = if args.revisiting {
        header.extend(["camera", "seconds", "latitude", "longitude"]);
        let exposures = args.frames.div_ceil(cameras.len()) as u64;
        let flight = VirtualFlight::new(catalogue, args.seed, &cameras, INTERVAL, exposures);
        flight.frames().take(args.frames).collect()
    } else {
        let alone = |plan| FlownFrame {
            camera: 0,
            exposure: 0,
            seconds: 0.0,
            plan,
        };
        let plans = Survey::new(catalogue, args.seed).take(args.frames);
        plans.map(alone).collect()
    };
    let mut rows = table(&args.out.join("frames.csv"), &header)?;
    let bar = progress(flown.len() as u64, "frames");
    // One after another: a frame is drawn on all cores, and needs memory for one only.
    for flown in bar.wrap_iter(flown.iter()) {
        let plan = &flown.plan;
        let frame = plan.photograph(catalogue, width, height, &args.camera.condition())?;
        let of_flight = |place: Option<GeographicPoint>| -> Vec<String> {
            if !args.revisiting {
                return Vec::new();
            }
            let degrees = |degrees: f64| format!("{degrees:.7}");
            vec![
                cameras[flown.camera].name.to_owned(),
                format!("{:.3}", flown.seconds),
                place.map_or_else(String::new, |place| degrees(place.latitude)),
                place.map_or_else(String::new, |place| degrees(place.longitude)),
            ]
        };
        let image = format!("v_{:05}.jpg", frame.number + 1);
        save(&args.out.join("frames").join(&image), &frame.image, QUALITY)?;
        let size = [width.to_string(), height.to_string()];
        let pass = frame.pass.map(|pass| pass.to_string()).unwrap_or_default();
        for head in &frame.heads {
            let row = [image.clone(), head.individual.clone()]
                .into_iter()
                .chain(size.clone())
                .chain(coordinates(&head.landmarks))
                .chain([pass.clone()])
                .chain(of_flight(head.place));
            rows.write_record(row)?;
        }
        if frame.heads.is_empty() {
            let row = [image, String::new()]
                .into_iter()
                .chain(size)
                .chain(std::iter::repeat_n(String::new(), 5))
                .chain(of_flight(None));
            rows.write_record(row)?;
        }
    }
    rows.flush()?;
    bar.finish_and_clear();
    Ok(())
}

fn coordinates(landmarks: &Landmarks) -> [String; 4] {
    let (a, b) = (landmarks.bonnet, landmarks.blowhead);
    [a.x, a.y, b.x, b.y].map(|v| format!("{v:.1}"))
}

fn table(path: &Path, header: &[&str]) -> anyhow::Result<csv::Writer<File>> {
    let mut writer =
        csv::Writer::from_path(path).with_context(|| format!("cannot write {}", path.display()))?;
    writer.write_record(header)?;
    Ok(writer)
}

fn save(path: &Path, picture: &RgbImage, quality: u8) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    picture
        .write_with_encoder(JpegEncoder::new_with_quality(BufWriter::new(file), quality))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn progress(length: u64, what: &str) -> ProgressBar {
    let style = "{msg:16} {wide_bar} {pos}/{len} {per_sec} {eta} left";
    ProgressBar::new(length)
        .with_style(ProgressStyle::with_template(style).expect("the template is valid"))
        .with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(out: PathBuf) -> Args {
        Args {
            out,
            seed: 3,
            individuals: 2,
            heads_per_individual: 2,
            unknown_individuals: 1,
            heads_per_unknown: 1,
            frames: 6,
            frame_width: 96,
            frame_height: 64,
            head_size: 32,
            revisiting: false,
            camera: Camera::AsIs,
        }
    }

    #[test]
    fn files_and_tables_agree_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let args = small(folder.path().join("set"));
        write(&args).expect("the data set is written");
        let rows = |name: &str| -> Vec<csv::StringRecord> {
            csv::Reader::from_path(args.out.join(name))
                .expect(name)
                .records()
                .collect::<Result<_, _>>()
                .expect(name)
        };
        assert_eq!(rows("heads.csv").len(), 5);
        assert_eq!(rows("landmarks.csv").len(), 5);
        for row in rows("heads.csv") {
            let head = image::open(args.out.join("heads").join(&row[0])).expect("a head");
            assert_eq!((head.width(), head.height()), (32, 32));
        }
        let frames = rows("frames.csv");
        let names: std::collections::BTreeSet<&str> = frames.iter().map(|r| &r[0]).collect();
        assert_eq!(names.len(), 6);
        assert!(frames.iter().all(|r| r[1].is_empty() == r[4].is_empty()));

        let refused = write(&args).expect_err("the folder is not empty any more");
        assert!(refused.to_string().contains("not empty"), "{refused}");
    }

    #[test]
    fn a_mono_camera_takes_the_same_heads_and_frames_without_colour() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let in_colour = small(folder.path().join("colour"));
        let mono = Args {
            camera: Camera::Mono,
            ..small(folder.path().join("mono"))
        };
        write(&in_colour).expect("written");
        write(&mono).expect("written");
        let read = |args: &Args, name: &str| fs::read(args.out.join(name)).expect(name);
        for table in ["heads.csv", "landmarks.csv", "frames.csv"] {
            assert_eq!(read(&in_colour, table), read(&mono, table), "{table}");
        }
        for below in ["heads", "frames"] {
            let colourful = |args: &Args| {
                let pictures = fs::read_dir(args.out.join(below)).expect(below);
                let saturation =
                    |image::Rgb([r, g, b]): &image::Rgb<u8>| *r.max(g).max(b) - *r.min(g).min(b);
                let most = |entry: std::io::Result<fs::DirEntry>| {
                    let picture = image::open(entry.expect(below).path()).expect(below);
                    picture.to_rgb8().pixels().map(saturation).max()
                };
                pictures.filter_map(most).max()
            };
            assert!(colourful(&in_colour) > Some(10), "{below}");
            assert!(colourful(&mono) <= Some(1), "{below}");
        }
    }
}
