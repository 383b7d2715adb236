use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use callosity::check::{Finding, Patience, Verdict, walk_round};
use clap::ValueEnum;
use serde_json::json;

use super::{PARTLY_FAILED, settings_arguments};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each part
    Text,
    /// One document, for programs
    Json,
}

/// Tell whether this box is fit to fly.
///
/// Walks round it as a pilot walks round the aircraft: settings, folders and their disks, model bundle, networks and what
/// they run on, cameras, broker, page, clock, position, temperatures. Each line says ok, or what to do. Nothing is changed.
///
/// Exit code 0: fit to fly, perhaps with things to know. 2: not fit. 1: the settings cannot be read.
#[derive(clap::Args)]
pub struct Args {
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Longest that each camera and the position are waited for, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    patience: Option<u32>,
    #[command(flatten)]
    settings: settings_arguments::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut layers = args.settings.layers()?;
    args.settings.set(&mut layers)?;
    let settings = layers.load()?;
    let patience = args.patience.map_or_else(Patience::default, |seconds| {
        let patience = Duration::from_secs(seconds.into());
        Patience {
            camera: patience,
            position: patience,
        }
    });
    let mut findings = Vec::new();
    let in_colour = io::stdout().is_terminal();
    walk_round(&settings, patience, &mut |finding| {
        if args.format == Format::Text {
            // Who reads the lines through a pipe that closes still gets the exit code.
            let _ = write_line(&finding, in_colour);
        }
        findings.push(finding);
    });
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (faults, attentions) = (count(Verdict::Fault), count(Verdict::Attention));
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => {
            let told = json!({ "fitToFly": faults == 0, "findings": findings });
            serde_json::to_writer_pretty(&mut out, &told)?;
            writeln!(out)?;
        }
        Format::Text => {
            let fit = if faults == 0 {
                "Fit to fly"
            } else {
                "Not fit to fly"
            };
            let of = |count: usize, what: &str| match count {
                0 => format!("no {what}s"),
                1 => format!("1 {what}"),
                count => format!("{count} {what}s"),
            };
            writeln!(
                out,
                "\n{fit}: {}, {} to know",
                of(faults, "fault"),
                of(attentions, "thing")
            )?;
        }
    }
    Ok(if faults == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}

fn write_line(finding: &Finding, in_colour: bool) -> io::Result<()> {
    let (word, colour) = match finding.verdict {
        Verdict::Ok => ("ok   ", "\x1b[32m"),
        Verdict::Attention => ("know ", "\x1b[33m"),
        Verdict::Fault => ("FAULT", "\x1b[31m"),
    };
    let (colour, end) = if in_colour {
        (colour, "\x1b[0m")
    } else {
        ("", "")
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{colour}{word}{end}  {:<17} {}",
        finding.part, finding.found
    )?;
    if let Some(to_do) = &finding.to_do {
        writeln!(out, "{:24} → {to_do}", "")?;
    }
    out.flush()
}
