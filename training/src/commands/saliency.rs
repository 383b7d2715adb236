//! `callosity-train saliency`.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use minijinja::{Environment, context};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use recognition::pixels::encode_jpeg;
use tch::Device;

use crate::commands::export::write;
use crate::features::HeadPhotograph;
use crate::framing::{Framer, HeldOutComposers};
use crate::index::{Index, IndexedPhotograph};
use crate::progress::progress_bar;
use crate::recipe::Task;
use crate::run_folder::TrainedRun;
use crate::saliency::{Figure, Occlusion, places};
use crate::split::{Role, Split};

/// Height of each picture in pixels.
const HEIGHT: u32 = 240;
const QUALITY: u8 = 85;

/// Show on which parts of a photograph classifiers rely.
///
/// A grey patch is slid over each classifier's input, and a heat map over the photograph shows by how much
/// the probability of the true whale falls (red) or rises (blue) with the patch there. The maps of one
/// photograph are on one scale, so that classifiers can be compared; one that sees whole frames is shown the
/// head in a composed one. The folder gets a JPEG for each photograph, with the photograph and then a map for
/// each run from left to right, and saliency.html with all of them and the numbers. It shows photographs:
/// mind their licence before you publish it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of classifiers, such as a baseline and the best one
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Photographs, as the index calls them, of whales that the classifiers know [default: some of the
    /// validation part]
    #[arg(long = "photograph", value_name = "IMAGE", num_args = 1..)]
    photographs: Vec<String>,
    /// How many validation photographs are drawn where none is named
    #[arg(long, value_name = "N", default_value_t = 4)]
    count: usize,
    /// From which they are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of the patch, as a fraction of the input's side
    #[arg(long, value_name = "FRACTION", default_value_t = Occlusion::default().patch)]
    patch: f64,
    /// Step of the patch, as a fraction of the input's side; half as long takes four times as long
    #[arg(long, value_name = "FRACTION", default_value_t = Occlusion::default().stride)]
    stride: f64,
    /// Index of the photographs
    #[arg(long, default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split that the runs were trained on
    #[arg(long, default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Folder of decoded photographs, from which pictures are composed for networks that see such
    #[arg(long, default_value = "runs/data/cache")]
    cache: PathBuf,
    /// Folder for the pictures
    #[arg(long, value_name = "DIR", default_value = "runs/saliency")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A run is no classifier of this split, a photograph is not in the index or has no known whale, or
/// something cannot be read or written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let runs: Vec<TrainedRun> = args
        .runs
        .iter()
        .map(|folder| TrainedRun::open(folder, Device::cuda_if_available()))
        .collect::<anyhow::Result<_>>()?;
    for run in &runs {
        run.expect(Task::Classifier)?;
        run.expect_split(&split)?;
    }
    let occlusion = Occlusion {
        patch: args.patch,
        stride: args.stride,
    };
    let photographs = chosen(&args, &index, &split)?;
    let bar = progress_bar(
        "patches",
        places(&occlusion) * photographs.len() * runs.len(),
    );
    let mut composers = HeldOutComposers::new(&index, &split, &args.cache);
    let runs: Vec<(&TrainedRun, Framer)> = runs
        .iter()
        .map(|run| Ok((run, composers.framer(run)?)))
        .collect::<anyhow::Result<_>>()?;
    let mut figures = Vec::new();
    for (photograph, whale, role) in photographs {
        let head = HeadPhotograph::of(&index, photograph);
        let figure = Figure::new(&runs, &head, whale, &occlusion, HEIGHT, &bar)?;
        let name = photograph.image.replace('/', "_");
        let path = args.out.join(name).with_extension("jpg");
        let file = path.file_name().map(|name| name.to_string_lossy());
        let jpeg =
            encode_jpeg(&figure.strip(), QUALITY).with_context(|| path.display().to_string())?;
        write(&path, &jpeg)?;
        let maps: Vec<_> = figure
            .maps
            .iter()
            .map(|(recipe, map, _)| {
                context! {
                    recipe, probability => map.probability, largest => map.largest(),
                }
            })
            .collect();
        figures.push(context! {
            file, maps, whale, image => photograph.image,
            trained_on => matches!(role, Role::Training { .. }),
        });
    }
    bar.finish_and_clear();
    let mut environment = Environment::new();
    environment.add_template("saliency.html", include_str!("saliency.html"))?;
    let page = environment.get_template("saliency.html")?.render(context! {
        figures, patch => args.patch, stride => args.stride, version => env!("CARGO_PKG_VERSION"),
    })?;
    let path = args.out.join("saliency.html");
    write(&path, page.as_bytes())?;
    println!("{}", path.display());
    Ok(())
}

/// The photographs with their whales.
fn chosen<'a>(
    args: &Args,
    index: &'a Index,
    split: &'a Split,
) -> anyhow::Result<Vec<(&'a IndexedPhotograph, &'a str, Role)>> {
    if args.photographs.is_empty() {
        let all: Vec<_> = split.labelled(index, |r| r == Role::Validation).collect();
        ensure!(
            !all.is_empty(),
            "{} has no validation photographs; name some with --photograph",
            args.split.display()
        );
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        return Ok(all
            .choose_multiple(&mut random, args.count)
            .copied()
            .collect());
    }
    args.photographs
        .iter()
        .map(|image| {
            let mut labelled = split.labelled(index, |role| role != Role::Unknown);
            match labelled.find(|(photograph, ..)| photograph.image == *image) {
                Some(found) => Ok(found),
                None => bail!(
                    "{image}: {} has no such head photograph of a whale that {} has in its catalogue",
                    args.index.display(),
                    args.split.display()
                ),
            }
        })
        .collect()
}
