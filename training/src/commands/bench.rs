//! `callosity-train bench`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use tch::{Device, Kind, Tensor};

use crate::network::{Mode, Network, Precision};
use crate::optimiser::AdamW;
use crate::recipe::Recipe;

/// Time training steps of a recipe's classifier on random images.
///
/// Prints the network as training/benches/pytorch_peer.py reads it with --describe, else images a
/// second of the median step. `make bench` compares the two.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Steps that are timed, after two that are not
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Individuals that the classifier tells apart
    #[arg(long, default_value_t = 400)]
    individuals: usize,
    /// Print the network's nodes as JSON instead
    #[arg(long)]
    describe: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let graph = recipe.graph(args.individuals)?;
    if args.describe {
        let nodes = serde_json::to_string(&graph.nodes)?;
        println!(
            "{{\"batch\": {}, \"width\": {}, \"height\": {}, \"nodes\": {nodes}}}",
            recipe.schedule.batch, recipe.input.width, recipe.input.height
        );
        return Ok(());
    }
    let device = Device::cuda_if_available();
    let precision = Precision::fastest(device);
    let network = Network::new(graph, device);
    let mut optimiser = AdamW::new(&network, recipe.schedule.weight_decay);
    let batch = recipe.schedule.batch as i64;
    let (h, w) = (
        i64::from(recipe.input.height),
        i64::from(recipe.input.width),
    );
    let input = Tensor::randn([batch, 3, h, w], (Kind::Float, device));
    let labels = Tensor::randint(args.individuals as i64, [batch], (Kind::Int64, device));
    let mut seconds: Vec<f64> = Vec::new();
    for step in 0..args.steps + 2 {
        let start = Instant::now();
        let outputs = network.forward(&input, Mode::Train, precision);
        let loss = outputs.output.cross_entropy_for_logits(&labels);
        loss.backward();
        optimiser.step(&network, 1e-4, step as u64 + 1);
        // Reading the value waits for a GPU to finish.
        anyhow::ensure!(loss.double_value(&[]).is_finite(), "the loss became NaN");
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut timed = seconds.split_off(2);
    timed.sort_by(f64::total_cmp);
    println!("{:.1}", batch as f64 / timed[timed.len() / 2]);
    Ok(())
}
