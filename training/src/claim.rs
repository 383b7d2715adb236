//! A run folder belongs to one process at a time, and says why that one ended where it failed.
//!
//! While a process trains, its folder holds `running.txt`, locked. What ends in an orderly way removes it;
//! what is killed leaves it, unlocked, as the trace. `failure.txt` has the reason of a run that failed, until
//! the run goes on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::files::write_whole;

const RUNNING: &str = "running.txt";
const FAILURE: &str = "failure.txt";

/// A run folder in use by this process.
pub(crate) struct Claim {
    folder: PathBuf,
    file: File,
    /// Whether the process before was ended from outside.
    pub killed_before: bool,
    started: bool,
}

impl Claim {
    /// Makes the folder where it is not there, and claims it.
    ///
    /// # Errors
    /// Another process trains in it, or it cannot be written.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating run folder {}", folder.display()))?;
        let path = folder.join(RUNNING);
        let killed_before = path.exists();
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("writing {}", path.display()))?;
        match file.try_lock() {
            // Some network file systems have no locks; training needs none.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another process trains in {}, see {RUNNING} there; wait for it, or take another --out",
                folder.display()
            ),
        }
        Ok(Self {
            folder: folder.to_owned(),
            file,
            killed_before,
            started: false,
        })
    }

    /// Says in the folder that training begins or goes on.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.started = true;
        let text = format!(
            "Process {} trains here since {:.0}.\n\
             Where that process is gone and this file is still here, it was ended from outside: killed (by the\n\
             kernel where memory ran out, see `journalctl -k`), or power was lost. The same command with\n\
             --resume goes on from the last checkpoint.\n",
            std::process::id(),
            jiff::Timestamp::now(),
        );
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .with_context(|| format!("writing {}", self.folder.join(RUNNING).display()))?;
        let failure = self.folder.join(FAILURE);
        if failure.exists() {
            std::fs::remove_file(&failure)
                .with_context(|| format!("removing {}", failure.display()))?;
        }
        Ok(())
    }

    /// Leaves the reason of a failure in the folder.
    pub fn fail(&self, text: &str) {
        let path = self.folder.join(FAILURE);
        if let Err(error) = write_whole(&path, text.as_bytes()) {
            eprintln!("warning: cannot write {}: {error}\n{text}", path.display());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Who was refused leaves the trace of a killed process for the one that goes on.
        if (self.started || !self.killed_before)
            && let Err(error) = std::fs::remove_file(self.folder.join(RUNNING))
        {
            eprintln!("warning: cannot remove {RUNNING}: {error}");
        }
    }
}
