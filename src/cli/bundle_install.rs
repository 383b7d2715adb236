//! `callosity bundle pack`, `install`, `list` and `roll-back`: bundles on a box.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use callosity::bundles::{self, Bundles, Offered};
use callosity::settings::Loaded;
use recognition::bundle::Bundle;
use recognition::inference::Engine;

use super::settings_arguments;

#[derive(clap::Args)]
pub struct PackArgs {
    /// The bundle's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The file to write, NAME.tar.zst; must not exist
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
pub struct InstallArgs {
    /// The file that `callosity bundle pack` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its signature [default: FILE.minisig]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// minisign's public key of whom this box trusts [default: `bundle_key` of the settings]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Install it also where it is older than the present one, or was rejected on this box
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: settings_arguments::Args,
}

#[derive(clap::Args)]
pub struct OnBoxArgs {
    #[command(flatten)]
    settings: settings_arguments::Args,
}

pub fn pack(args: &PackArgs) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::open(&args.directory)?;
    bundles::pack(bundle.directory(), &args.out)
        .with_context(|| format!("cannot pack it into {}", args.out.display()))?;
    let mut out = io::stdout().lock();
    let shown = args.out.display();
    writeln!(
        out,
        "{shown}; now sign it: minisign -S -s YOUR.key -m {shown}"
    )?;
    Ok(ExitCode::SUCCESS)
}

pub fn install(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.settings)?;
    let mut bundles = of_box(&settings)?;
    let key = args
        .key
        .clone()
        .unwrap_or_else(|| settings.settings.bundle_key.clone());
    let engine = Engine::start(&settings.engine(None)?)?;
    let offered = Offered {
        file: &args.file,
        signature: args.signature.as_deref(),
        key: &key,
        force: args.force,
    };
    let installed = bundles.install(&offered, Some(&engine))?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} is installed: its signature holds and its networks work on {}. The next flight is with it, on trial for {} \
         minutes; a callosity that flies goes on with the one before until it is started again",
        installed.name,
        engine.name(),
        bundles::TRIAL.as_secs() / 60
    )?;
    Ok(ExitCode::SUCCESS)
}

pub fn list(args: &OnBoxArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.settings)?;
    let bundles = of_box(&settings)?;
    let mut out = io::stdout().lock();
    let installed = bundles.list();
    for bundle in &installed {
        let state = match (bundle.current, bundle.on_trial) {
            (true, true) => "flies, on trial",
            (true, false) => "flies",
            _ => "before",
        };
        writeln!(
            out,
            "{:<15}  {}  {}",
            state,
            bundle.name,
            bundle.directory.display()
        )?;
    }
    if !installed.iter().any(|bundle| bundle.current) {
        writeln!(out, "{:<15}  {}", "flies", settings.bundle().display())?;
    }
    for (digest, reason) in bundles.rejected() {
        writeln!(out, "{:<15}  {digest}: {reason}", "rejected")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn roll_back(args: &OnBoxArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.settings)?;
    let back = of_box(&settings)?.roll_back()?;
    writeln!(
        io::stdout().lock(),
        "the next flight is with {}",
        back.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn load(args: &settings_arguments::Args) -> anyhow::Result<Loaded> {
    let mut layers = args.layers()?;
    args.set(&mut layers)?;
    Ok(layers.load()?)
}

fn of_box(settings: &Loaded) -> anyhow::Result<Bundles> {
    match settings.bundles() {
        Some(bundles) => Ok(bundles),
        None => bail!(
            "the settings name a bundle ({}), which is flown with whatever is installed: take `bundle` out of {}",
            settings.settings.bundle.display(),
            settings.origin("bundle").unwrap_or("the settings")
        ),
    }
}
