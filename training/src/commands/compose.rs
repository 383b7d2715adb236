//! `callosity-train compose`: composed pictures for people to look at, and composed frames to measure on.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use indicatif::ParallelProgressIterator;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::geometry::{Landmarks, Rectangle};

use super::evaluate::FrameRow;
use crate::boxes::padded_box;
use crate::cache::Cache;
use crate::compose::{Composer, FULL_FRAME, LARGEST_SIDE, RealFrame};
use crate::index::{Index, IndexedPhotograph};
use crate::loader::random;
use crate::progress::progress_bar;
use crate::split::{Role, Split};
use crate::tasks::ALIGNER_FIELD_HEAD_LENGTHS;

/// Quality of the JPEGs of frames to measure on; what a camera's file takes away is composed already.
const JPEG_QUALITY: u8 = 95;
/// Purpose of the random numbers behind them.
const VALIDATION_FRAMES: u64 = 7;

/// Write composed training frames and crops with their landmarks drawn, and frames with one head and its box,
/// for people to look at; or whole frames to measure on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The index that `import` wrote
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,

    /// The split that `split` wrote
    #[arg(long, value_name = "FILE", default_value = "runs/data/split.json")]
    split: PathBuf,

    /// Folder of decoded photographs, built where it is missing
    #[arg(long, value_name = "DIR", default_value = "runs/data/cache")]
    cache: PathBuf,

    /// Folder for the pictures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Instead of these, whole frames with the head of a validation photograph in each, as a camera might have
    /// taken them, and frames.csv, the table that `evaluate --frames DIR --truth DIR/frames.csv` measures with
    #[arg(long, conflicts_with = "real_frames")]
    validation_frames: bool,

    /// Width in pixels of these frames, which are 3 : 2
    #[arg(long, value_name = "PIXELS", default_value_t = FULL_FRAME.0, value_parser = clap::value_parser!(u32).range(64..=i64::from(LARGEST_SIDE)))]
    frame_width: u32,

    /// How many frames, as many crops, and as many frames with a box
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: usize,

    /// Share of the frames that are windows of real ones with landmarks, as a recipe's
    /// `schedule.real_frames`
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    real_frames: f64,

    /// Seed of everything drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Composes and writes.
///
/// # Errors
/// Where the data cannot be read or a picture cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let cache = Cache::open_or_build(&index, &args.cache)?;
    if args.validation_frames {
        return write_validation_frames(&index, &split, &cache, &args);
    }
    let mut composer = Composer::from_data(&index, &split, &cache, |_| true)?;
    if args.real_frames > 0.0 {
        let (_, frames) = RealFrame::from_data(&index, |_| true)?;
        composer = composer.with_real_frames(frames, args.real_frames);
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    for i in 0..args.count {
        let frame = composer.frame(&mut rng, 384, 256);
        let crop = composer.crop(&mut rng, 128, ALIGNER_FIELD_HEAD_LENGTHS);
        let head = composer.draw_head(&mut rng);
        let boxed = composer.frame_with_head(&mut rng, head, 384, 256);
        let whole = Rectangle::of_image(384, 256);
        let bounds = padded_box(&boxed.heads[0], 0.0, &whole).context("a head without a length")?;
        let mut boxed_image = boxed.image;
        outline(&mut boxed_image, &bounds);
        for (name, mut image, heads) in [
            ("frame", frame.image, frame.heads),
            ("crop", crop.image, vec![crop.landmarks]),
            ("box", boxed_image, vec![]),
        ] {
            for head in &heads {
                mark(&mut image, head);
            }
            let path = args.out.join(format!("{name}_{i:04}.png"));
            image
                .save(&path)
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes a frame each for some of the validation photographs, and the table of what is in them.
fn write_validation_frames(
    index: &Index,
    split: &Split,
    cache: &Cache,
    args: &Args,
) -> anyhow::Result<()> {
    let mut photographs: Vec<(&IndexedPhotograph, &str)> = split
        .labelled(index, |role| role == Role::Validation)
        // Of a head that has its whole frame here a finder may have seen that.
        .filter(|(p, ..)| p.duplicate_of.is_none() && p.frame.is_none())
        .map(|(photograph, whale, _)| (photograph, whale))
        .collect();
    ensure!(
        !photographs.is_empty(),
        "{} has no validation photographs",
        args.split.display()
    );
    photographs.shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed));
    photographs.truncate(args.count);
    let heads: Vec<&IndexedPhotograph> = photographs.iter().map(|p| p.0).collect();
    let composer = Composer::from_photographs(index, split, cache, &heads)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let (width, height) = (args.frame_width, args.frame_width * 2 / 3);
    let rows = photographs
        .par_iter()
        .zip(composer.heads())
        .enumerate()
        .progress_with(progress_bar("frames", photographs.len()))
        .map(|(i, ((photograph, whale), head))| {
            let mut rng = random(args.seed, VALIDATION_FRAMES, i as u64);
            let frame = composer.frame_with_head(&mut rng, head, width, height);
            let name = Path::new(&photograph.image).file_stem();
            let name = name.context("a photograph without a name")?;
            let name = format!("composed_{}.jpg", name.to_string_lossy());
            let path = args.out.join(&name);
            let context = || path.display().to_string();
            let mut file = BufWriter::new(File::create(&path).with_context(context)?);
            JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY)
                .encode_image(&frame.image)
                .with_context(context)?;
            file.flush().with_context(context)?;
            Ok(FrameRow::new(name, (*whale).to_owned(), &frame.heads[0]))
        })
        .collect::<anyhow::Result<Vec<FrameRow>>>()?;
    let path = args.out.join("frames.csv");
    let context = || path.display().to_string();
    let mut table = csv::Writer::from_path(&path).with_context(context)?;
    rows.iter()
        .try_for_each(|row| table.serialize(row))
        .with_context(context)?;
    table.flush().with_context(context)?;
    println!("{}: {} frames", path.display(), rows.len());
    Ok(())
}

/// A red cross at the bonnet, a green one at the blowhead.
fn mark(image: &mut RgbImage, head: &Landmarks) {
    for (at, colour) in [(head.bonnet, [255, 0, 0]), (head.blowhead, [0, 255, 0])] {
        for k in -2..=2 {
            for (dx, dy) in [(k, 0), (0, k)] {
                let (x, y) = (at.x.floor() as i64 + dx, at.y.floor() as i64 + dy);
                let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
                    continue;
                };
                if let Some(pixel) = image.get_pixel_mut_checked(x, y) {
                    *pixel = Rgb(colour);
                }
            }
        }
    }
}

/// Yellow sides of a rectangle within the image.
fn outline(image: &mut RgbImage, bounds: &Rectangle) {
    let last = |side: u32| side.saturating_sub(1);
    let (width, height) = image.dimensions();
    let x = [bounds.left, bounds.right].map(|x| (x as u32).min(last(width)));
    let y = [bounds.top, bounds.bottom].map(|y| (y as u32).min(last(height)));
    let across = (x[0]..=x[1]).flat_map(|i| y.map(|j| (i, j)));
    let down = (y[0]..=y[1]).flat_map(|j| x.map(|i| (i, j)));
    for (i, j) in across.chain(down) {
        image.put_pixel(i, j, Rgb([255, 255, 0]));
    }
}
