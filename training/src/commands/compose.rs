//! `callosity-train compose`: composed training pictures for people to look at.

use std::path::PathBuf;

use anyhow::Context;
use callosity::geometry::{Landmarks, Rectangle};
use image::{Rgb, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::boxes::padded_box;
use crate::cache::Cache;
use crate::compose::{Composer, RealFrame};
use crate::index::Index;
use crate::split::Split;

/// Write composed training frames and crops with their landmarks drawn, and frames with one head and its box,
/// for people to look at
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
    let mut composer = Composer::from_data(&index, &split, &cache, |_| true)?;
    if args.real_frames > 0.0 {
        let (_, frames) = RealFrame::from_data(&index, |_| true)?;
        composer = composer.with_real_frames(frames, args.real_frames);
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    for i in 0..args.count {
        let frame = composer.frame(&mut rng, 384, 256);
        let crop = composer.crop(&mut rng, 128, 2.6);
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
