//! The program `callosity`: what flies, what receives, and what looks at photographs on disk.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
