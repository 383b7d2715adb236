//! A run folder belongs to one process at a time, and says why that one ended where it failed.
//!
//! While a process trains, its folder holds `running.txt`, locked. What ends in an orderly way removes it;
//! what is killed leaves it, unlocked, as the trace. `failure.txt` has the reason of a run that failed, until
//! the run goes on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::files::write_whole;

const RUNNING: &str = "running.txt";
const FAILURE: &str = "failure.txt";
/// "No locks available", as NFS says without a lock daemon; the standard library has no kind for it.
const ENOLCK: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };

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
    /// Another process trains in it, or it cannot be written or locked. Where the file system has no locks, which
    /// nothing can be done about, it says on standard error that nobody is kept out.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        Self::take_with(folder, File::try_lock)
    }

    fn take_with(
        folder: &Path,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> anyhow::Result<Self> {
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
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another process trains in {}, see {RUNNING} there; wait for it, or take another --out",
                folder.display()
            ),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => eprintln!(
                "warning: the file system of {} has no locks ({error}): nothing keeps a second process from training \
                 there too; see to it, or take an --out on another file system",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| {
                    format!(
                        "locking {}, so that no other process trains there; take an --out on another file system",
                        path.display()
                    )
                });
            }
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

/// Whether a lock failed as the file system has none, like some network file systems.
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_without_locks_is_trained_on_without_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let take = |error: fn() -> io::Error| {
            Claim::take_with(folder.path(), |_| Err(TryLockError::Error(error())))
        };
        assert!(take(|| io::ErrorKind::Unsupported.into()).is_ok());
        assert!(take(|| io::Error::from_raw_os_error(ENOLCK)).is_ok());
        let error = take(|| io::ErrorKind::PermissionDenied.into());
        let error = format!("{:#}", error.err().expect("refused"));
        let folder = folder.path().display().to_string();
        for words in ["locking", &folder, "permission denied", "--out"] {
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_folder_is_for_one_and_keeps_the_trace_of_who_was_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let running = folder.path().join(RUNNING);
        let mut first = Claim::take(folder.path()).expect("free");
        first.start().expect("written");
        let error = Claim::take(folder.path()).err().expect("taken");
        assert!(error.to_string().contains("another process"), "{error}");
        first.fail("out of luck");
        drop(first);
        assert!(!running.exists());
        assert!(folder.path().join(FAILURE).exists());

        // As a killed process leaves it.
        std::fs::write(&running, "Process 1 trains here").expect("written");
        let refused = Claim::take(folder.path()).expect("free");
        assert!(refused.killed_before);
        drop(refused);
        assert!(running.exists());

        let mut next = Claim::take(folder.path()).expect("free");
        next.start().expect("written");
        assert!(!folder.path().join(FAILURE).exists());
        drop(next);
        assert!(!running.exists());
    }
}
