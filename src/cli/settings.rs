use std::io::{self, Write};
use std::process::ExitCode;

use callosity::settings::TEMPLATE;

use super::settings_arguments;

/// Show the settings of a box.
///
/// Without options: a settings file with every key, what it means and what it is by default, to begin one's own with:
/// `callosity settings > /etc/callosity/callosity.toml`.
#[derive(clap::Args)]
pub struct Args {
    /// Show instead what is set on this machine, and where each value comes from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    settings: settings_arguments::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if !args.origin {
        out.write_all(TEMPLATE.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut layers = args.settings.layers()?;
    args.settings.set(&mut layers)?;
    let settings = layers.load()?;
    for (key, value, origin) in settings.all() {
        writeln!(out, "{key} = {value}  # {origin}")?;
    }
    Ok(ExitCode::SUCCESS)
}
