use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use callosity::archive::{ArchiveError, Found, Store, Worth};
use uuid::Uuid;

use super::PARTLY_FAILED;

/// Look into the archive of a flight, and pin what must stay.
///
/// The archive belongs to one program at a time. Pictures can be pinned and unpinned while `callosity run` writes into it,
/// which is asked to; all else has to wait until it has ended.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Tell what there is: flights with their pictures and bytes
    List {
        /// Folder of the archive
        folder: PathBuf,
    },
    /// Keep pictures whatever the budget: they are never deleted to make room
    Pin {
        /// Folder of the archive
        folder: PathBuf,
        /// A flight (eventID), a sighting (occurrenceID), or a picture by its path below the folder
        #[arg(required = true, value_name = "WHAT")]
        what: Vec<String>,
    },
    /// Let pictures be deleted again when room is needed
    Unpin {
        /// Folder of the archive
        folder: PathBuf,
        /// As of pin
        #[arg(required = true, value_name = "WHAT")]
        what: Vec<String>,
    },
    /// Tell which files are missing or are not as long as they were written (exit code 2); changes nothing
    Verify {
        /// Folder of the archive
        folder: PathBuf,
    },
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { folder } => list(&Store::open_existing(&folder)?)?,
        Command::Pin { folder, what } => pin(&folder, &what, true)?,
        Command::Unpin { folder, what } => pin(&folder, &what, false)?,
        Command::Verify { folder } => return verify(&Store::open_existing(&folder)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store) -> anyhow::Result<()> {
    println!("flight                                 with a whale   pictures        MB");
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    for (flight, whales, total) in store.flights()? {
        let (pictures, bytes) = (total.pictures, megabytes(total.bytes));
        println!("{flight}   {whales:>12} {pictures:>10} {bytes:>9.1}");
    }
    for (name, total) in [
        ("frames with a whale", store.total(Worth::Whale)?),
        ("frames without", store.total(Worth::Empty)?),
        ("crops", store.total(Worth::Crop)?),
        ("pinned", store.pinned()?),
    ] {
        let (pictures, bytes) = (total.pictures, megabytes(total.bytes));
        println!("{name:<36}                {pictures:>10} {bytes:>9.1}");
    }
    println!(
        "{:<62} {:>9.1}",
        "all, with the index",
        megabytes(store.bytes()?)
    );
    Ok(())
}

fn pin(folder: &Path, what: &[String], pinned: bool) -> anyhow::Result<()> {
    let store = match Store::open_existing(folder) {
        Err(ArchiveError::InUse { .. }) => return ask(folder, what, pinned),
        opened => opened?,
    };
    for what in what {
        let pictures = store.pin(what, pinned)?;
        if pictures == 0 {
            bail!(
                "the archive has no flight, sighting or picture {what}: `callosity archive list` names flights, a \
                 picture's JSON file its sightings"
            );
        }
        let done = if pinned { "pinned" } else { "no longer pinned" };
        println!("{what}: {pictures} pictures {done}");
    }
    Ok(())
}

/// Whether there is such a flight or sighting, only the program knows that has the archive open.
fn ask(folder: &Path, what: &[String], pinned: bool) -> anyhow::Result<()> {
    for what in what {
        let is_known = Uuid::try_parse(what).is_ok() || folder.join(what).is_file();
        if !is_known {
            bail!(
                "{what} is no identifier of a flight or sighting, and there is no such picture below {}",
                folder.display()
            );
        }
        Store::ask(folder, what, pinned)?;
        let kept = if pinned {
            "it deletes nothing of it from now on"
        } else {
            "it may delete it again"
        };
        println!("{what}: asked of the callosity that has the archive open; {kept}");
    }
    Ok(())
}

fn verify(store: &Store) -> anyhow::Result<ExitCode> {
    let mut wrong = 0_u64;
    let pictures = store.verify(|name, found| {
        wrong += 1;
        match found {
            Found::Missing => println!("{name}: missing"),
            Found::Changed | Found::Ours => println!("{name}: not as it was written"),
        }
    })?;
    println!("{pictures} pictures, {wrong} files missing or changed");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PARTLY_FAILED)
    })
}
