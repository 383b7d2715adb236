use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

/// Write manual pages and completions of shells, as the package has them.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for them; it is made where it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    let failed = || format!("cannot write manual pages into {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    let program = super::Program::command();
    clap_mangen::generate_to(program.clone(), folder).with_context(failed)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut program.clone(), "callosity", folder)
            .with_context(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}
