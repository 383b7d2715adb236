use std::path::PathBuf;

use callosity::archive::{EVERY, Settings};

/// Options of commands that fly, for the pictures that are kept.
#[derive(clap::Args)]
#[command(next_help_heading = "Pictures that are kept")]
pub struct Args {
    /// Folder in which pictures are kept: every frame with a whale, some without, and crops, each with a JSON file that
    /// says why
    ///
    /// Whatever else lies in this folder is never touched. Without this, no pictures are kept but the crops that wait for
    /// the broker
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Most bytes that the archive takes, such as 200GB; above it the oldest frames without a whale go, then the oldest
    /// with one, pinned ones never
    /// [default: four fifths of the disk]
    #[arg(long, value_name = "BYTES", requires = "archive", value_parser = bytes)]
    archive_budget: Option<u64>,
    /// Of the frames of a camera that show no whale, one of so many is kept; 0 for none
    #[arg(long, value_name = "N", requires = "archive", default_value_t = EVERY)]
    archive_every: u64,
    /// Folder at or above --archive at which a disk has to be mounted: while none is, nothing is written and the flight
    /// goes on; once one is, pictures are kept. Mount points that /etc/fstab names above --archive count anyway
    #[arg(long, value_name = "DIR", requires = "archive")]
    archive_mount: Option<PathBuf>,
}

impl Args {
    /// Where pictures are kept, if they are.
    pub fn settings(self) -> Option<Settings> {
        Some(Settings {
            folder: self.archive?,
            budget: self.archive_budget,
            every: self.archive_every,
            mount: self.archive_mount,
        })
    }
}

/// The least that an archive is worth: some frames and the index.
const LEAST: u64 = 50_000_000;

/// A number with a unit, as disks are sold: MB, GB, TB.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("it is a number with MB, GB or TB, such as 200GB, from {LEAST} bytes");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        "TB" | "T" => 1e12,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * unit;
    if bytes.is_finite() && bytes >= LEAST as f64 {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_with_a_unit() {
        assert_eq!(bytes("200GB"), Ok(200_000_000_000));
        assert_eq!(bytes("1.5 tb"), Ok(1_500_000_000_000));
        assert_eq!(bytes("60000000"), Ok(60_000_000));
        for wrong in ["", "GB", "200GiB", "-1GB", "1MB", "NaN GB", "inf", "20 0GB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
