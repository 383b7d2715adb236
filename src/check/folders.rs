use std::fs;
use std::path::Path;

use super::{Finding, in_words};
use crate::archive::Store;
use crate::observe::Hardware;
use crate::outbox::{Limits, Outbox, OutboxError};
use crate::settings::Loaded;

const OUTBOX: &str = "outbox";

/// The folder of the outbox. Returns whether a callosity that flies has hold of it.
pub(super) fn state(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) -> bool {
    let folder = match loaded.state() {
        Ok(folder) => folder,
        Err(error) => {
            tell(Finding::settings(OUTBOX, &error));
            return false;
        }
    };
    let shown = folder.display();
    if let Err(e) = writable(&folder) {
        let to_do = "give the folder to the account that flies, or set `state` to another folder on this machine's own disk";
        tell(Finding::fault(
            OUTBOX,
            format!("{shown} cannot be written: {e}"),
            to_do,
        ));
        return false;
    }
    // One that is not there yet is made by the flight, under its own account.
    let depth = folder
        .join("outbox.sqlite")
        .exists()
        .then(|| Outbox::open(&folder, Limits::default()));
    let disk = disk(OUTBOX, &folder);
    match depth.transpose() {
        Err(OutboxError::InUse { .. }) => {
            tell(Finding::ok(
                OUTBOX,
                format!("{shown}: a callosity flies with it now; {disk}"),
            ));
            return true;
        }
        Err(error) => {
            let to_do = "set `state` to a folder on this machine's own disk";
            tell(Finding::fault(OUTBOX, in_words(&error), to_do));
        }
        Ok(outbox) => {
            let depth = outbox.map(|outbox| outbox.depth()).unwrap_or_default();
            let waits = match depth.messages + depth.set_aside {
                0 => "nothing waits".to_owned(),
                n => format!(
                    "{n} messages of earlier flights wait for a link, {} on sightings",
                    depth.sightings
                ),
            };
            tell(Finding::ok(OUTBOX, format!("{shown}: {waits}; {disk}")));
        }
    }
    false
}

pub(super) fn archive(loaded: &Loaded, flies: bool, tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "archive";
    let settings = match loaded.archive() {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            let to_do = "set archive.folder to have frames with whales kept";
            tell(Finding::attention(
                PART,
                "no pictures are kept but the crops that are sent",
                to_do,
            ));
            return;
        }
        Err(error) => {
            tell(Finding::settings(PART, &error));
            return;
        }
    };
    let shown = settings.folder.display();
    let disk = disk(PART, &settings.folder);
    if let Err(error) = Store::check_mounted(&settings) {
        tell(Finding::fault(
            PART,
            in_words(&error),
            "plug in the disk and mount it, or mend archive.mount",
        ));
    } else if flies {
        tell(Finding::ok(
            PART,
            format!("{shown}: a callosity writes to it now; {disk}"),
        ));
    } else if let Err(e) = writable(&settings.folder) {
        let to_do = "give the folder to the account that flies";
        tell(Finding::fault(
            PART,
            format!("{shown} cannot be written: {e}"),
            to_do,
        ));
    } else {
        tell(Finding::ok(PART, format!("{shown}; {disk}")));
    }
}

/// Writes a file and takes it away. A folder that is not there is looked at where it will be made.
fn writable(folder: &Path) -> std::io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(&folder);
    if !fs::metadata(there)?.is_dir() {
        return Err(std::io::Error::other(format!(
            "{} is no folder",
            there.display()
        )));
    }
    tempfile::tempfile_in(there).map(|_| ())
}

fn disk(holds: &str, folder: &Path) -> String {
    let computer = Hardware::of_this(vec![(holds.to_owned(), folder.to_owned())]);
    let disks = computer.health().disks;
    disks.first().map_or_else(String::new, |disk| {
        format!(
            "{:.1} of {:.1} GB of its disk are free",
            disk.free_bytes as f64 / 1e9,
            disk.total_bytes as f64 / 1e9
        )
    })
}
