//! T
use clap::Parser;
#[derive(clap::Parser)]
enum C {
    Import(callosity_training::commands::import::Args),
    Split(callosity_training::commands::split::Args),
}
fn main() -> anyhow::Result<()> {
    match C::parse() {
        C::Import(a) => callosity_training::commands::import::run(a),
        C::Split(a) => callosity_training::commands::split::run(a),
    }
}
