use std::process::ExitCode;

/// List the video devices of this machine: how `run --camera` names them, what they give, what can be set.
///
/// A device is named by where it is plugged in, which its cable decides, or by its serial number where it has one of its
/// own. What is marked "not read" cannot be asked for.
#[derive(clap::Args)]
pub struct Args {
    /// Without formats and controls
    #[arg(long)]
    short: bool,
}

#[cfg(not(target_os = "linux"))]
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("video devices can be listed on Linux only")
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    use std::io::Write;

    use anyhow::Context;
    use callosity::camera::v4l2;

    let listed = v4l2::list().context("cannot list the video devices")?;
    let mut out = std::io::stdout().lock();
    if listed.is_empty() {
        writeln!(
            out,
            "no video device gives frames here; look at the cable and at `dmesg`"
        )?;
    }
    for found in listed {
        let device = &found.device;
        writeln!(out, "v4l2:{}", device.path)?;
        if let Some(serial) = &device.serial {
            writeln!(
                out,
                "v4l2:{serial}  (by its serial number, if no other has the same)"
            )?;
        }
        writeln!(out, "  {}, today {}", device.name, device.node.display())?;
        if let Err(why) = &found.usable {
            writeln!(out, "  cannot be used: {why}")?;
        }
        if args.short {
            continue;
        }
        for (format, is_read, sizes) in &found.formats {
            let mark = if *is_read { "" } else { " (not read)" };
            writeln!(out, "  format {format}{mark}: {}", sizes.join(", "))?;
        }
        for control in found.controls.iter().filter(|control| control.settable) {
            writeln!(out, "  control {control}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
