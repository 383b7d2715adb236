use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use minisign_verify::{PublicKey, Signature};
use recognition::bundle::Bundle;
use recognition::inference::{Engine, run_self_tests};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tracing::{info, warn};

use super::archive_file::unpack;
use super::{BundlesError, STARTS};

const CURRENT: &str = "current";
const RECORD: &str = "bundles.json";
/// What is being unpacked.
const STAGING: &str = "staging";

/// The bundles of a box, in a folder of their own. One process at a time installs.
pub struct Bundles {
    folder: PathBuf,
    /// Called before each step that changes something; tests cut the power there.
    pub(super) before_step: Box<dyn FnMut() -> io::Result<()> + Send>,
}

/// A bundle that is offered.
pub struct Offered<'a> {
    /// The `.tar.zst`.
    pub file: &'a Path,
    /// Its signature; beside it with `.minisig` at the end where none is named.
    pub signature: Option<&'a Path>,
    /// File with the minisign public key of whom this box trusts.
    pub key: &'a Path,
    /// Also where it is older than the one that is installed, or was rejected.
    pub force: bool,
}

/// A bundle of this box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// SHA-256 of the file that it came in.
    pub digest: String,
    /// Name and version.
    pub name: String,
    /// Where it lies.
    pub directory: PathBuf,
    /// Whether the box flies with it.
    pub current: bool,
    /// Whether it has still to show that it flies well.
    pub on_trial: bool,
}

/// How a new bundle has fared so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The bundle on trial.
    pub digest: String,
    /// Times that the program began with it.
    pub starts: u32,
}

/// What is written down of the bundles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    /// What to go back to.
    previous: Option<String>,
    trial: Option<Trial>,
    /// Why each was rejected, by digest.
    rejected: BTreeMap<String, Rejected>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    reason: String,
    time: Timestamp,
}

fn failed<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> BundlesError + use<'a> {
    move |source| BundlesError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

impl Bundles {
    /// The bundles in a folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            before_step: Box::new(|| Ok(())),
        }
    }

    /// The directory of the bundle that the box flies with, where one was ever installed.
    pub fn current(&self) -> Option<PathBuf> {
        let digest = self.current_digest()?;
        let directory = self.folder.join(digest);
        directory.is_dir().then_some(directory)
    }

    fn current_digest(&self) -> Option<String> {
        let target = fs::read_link(self.folder.join(CURRENT)).ok()?;
        Some(target.to_str()?.to_owned())
    }

    /// Everything that is installed, the current one first.
    pub fn list(&self) -> Vec<Installed> {
        let current = self.current_digest();
        let trial = self.record().trial.map(|trial| trial.digest);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let installed = entries.filter_map(|entry| {
            let digest = entry.file_name().into_string().ok()?;
            let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            let directory = entry.path();
            let bundle = Bundle::open(&directory).ok().filter(|_| is_digest)?;
            let manifest = bundle.manifest();
            Some(Installed {
                name: format!("{} {}", manifest.name, manifest.version),
                current: current.as_ref() == Some(&digest),
                on_trial: trial.as_ref() == Some(&digest),
                digest,
                directory,
            })
        });
        let mut installed: Vec<_> = installed.collect();
        installed.sort_by(|a, b| (!a.current, &a.name).cmp(&(!b.current, &b.name)));
        installed
    }

    /// Installs a bundle: on success the next flight flies with it, on trial. `engine` is what it has to work on; without
    /// one its networks are not run.
    ///
    /// # Errors
    /// Its signature, archive, manifest, version or networks are not as they must be; nothing has changed then.
    pub fn install(
        &mut self,
        offered: &Offered,
        engine: Option<&Engine>,
    ) -> Result<Installed, BundlesError> {
        let key = read_key(offered.key)?;
        self.step("make the folder", |folder| {
            fs::create_dir_all(folder)?;
            hand_over(folder, folder)
        })?;
        // The file is copied first: what is verified is what is unpacked, whatever becomes of the file meanwhile.
        let mut copy =
            tempfile::tempfile_in(&self.folder).map_err(failed("write in", &self.folder))?;
        let digest = verify(offered, &key, &mut copy)?;
        let record = self.record();
        if let Some(rejected) = record.rejected.get(&digest)
            && !offered.force
        {
            return Err(BundlesError::Rejected {
                digest,
                reason: rejected.reason.clone(),
            });
        }
        let staged = self.stage(offered.file, &digest, copy)?;
        let bundle = Bundle::open(&staged).map_err(|source| BundlesError::Bundle {
            path: offered.file.to_owned(),
            source: Box::new(source),
        })?;
        self.check_version(&bundle, offered.force)?;
        if let Some(engine) = engine {
            self_test(engine, &bundle, offered.file)?;
        }
        let name = format!("{} {}", bundle.manifest().name, bundle.manifest().version);
        let directory = self.folder.join(&digest);
        if staged != directory {
            self.step("rename what was unpacked in", |folder| {
                fs::rename(&staged, &directory)?;
                File::open(folder)?.sync_all()
            })?;
        }
        self.switch_to(&digest, record)?;
        info!("{name} is installed, on trial");
        Ok(Installed {
            digest,
            name,
            directory,
            current: true,
            on_trial: true,
        })
    }

    /// The program begins with the current bundle. One on trial that was begun with too often is rejected here, and the
    /// box goes back to the one before.
    ///
    /// # Errors
    /// It cannot be written down; the flight goes on with what is current.
    pub fn begin(&mut self) -> Result<Option<Trial>, BundlesError> {
        self.finish_what_was_cut_short()?;
        let mut record = self.record();
        let Some(trial) = record.trial.as_mut() else {
            return Ok(None);
        };
        if self.current_digest().as_ref() != Some(&trial.digest) {
            // Power was cut between writing down and switching: nothing is on trial.
            record.trial = None;
            self.write(&record)?;
            return Ok(None);
        }
        if trial.starts >= STARTS {
            let reason =
                format!("the program began {STARTS} times with it and did not fly well for long");
            self.reject(&reason)?;
            return Ok(None);
        }
        trial.starts += 1;
        let trial = trial.clone();
        self.write(&record)?;
        Ok(Some(trial))
    }

    /// Whether the current bundle has still to show that it flies well.
    pub fn is_on_trial(&self) -> bool {
        let trial = self.record().trial.map(|trial| trial.digest);
        trial.is_some() && trial == self.current_digest()
    }

    /// The bundle on trial has flown well: it stays.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn commit(&mut self) -> Result<(), BundlesError> {
        let mut record = self.record();
        if record.trial.take().is_some() {
            self.write(&record)?;
            info!("the new bundle has flown well and stays");
        }
        Ok(())
    }

    /// Rejects the current bundle for good, and goes back to the one before; where there is none, to none.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn reject(&mut self, reason: &str) -> Result<(), BundlesError> {
        let mut record = self.record();
        let Some(digest) = self.current_digest() else {
            return Ok(());
        };
        warn!("the bundle {digest} is rejected: {reason}");
        let rejected = Rejected {
            reason: reason.to_owned(),
            time: Timestamp::now(),
        };
        record.rejected.insert(digest, rejected);
        record.trial = None;
        // Rejected first: where power is lost in between, the next start finds that and goes back.
        self.write(&record)?;
        self.point_to(record.previous.as_deref())
    }

    /// Goes back to the bundle before the current one, because somebody wants to.
    ///
    /// # Errors
    /// There is none.
    pub fn roll_back(&mut self) -> Result<PathBuf, BundlesError> {
        let mut record = self.record();
        let current = self.current_digest();
        let is_another =
            |digest: &String| current.as_ref() != Some(digest) && self.folder.join(digest).is_dir();
        let Some(previous) = record.previous.take().filter(is_another) else {
            return Err(BundlesError::NoneBefore {
                folder: self.folder.clone(),
            });
        };
        record.trial = None;
        record.previous = current;
        self.point_to(Some(&previous))?;
        self.write(&record)?;
        Ok(self.folder.join(previous))
    }

    /// Why digests were rejected.
    pub fn rejected(&self) -> Vec<(String, String)> {
        let rejected = self.record().rejected.into_iter();
        rejected
            .map(|(digest, rejected)| (digest, rejected.reason))
            .collect()
    }

    /// Goes back from a rejected bundle where power was lost before the link was switched.
    fn finish_what_was_cut_short(&mut self) -> Result<(), BundlesError> {
        let record = self.record();
        match self.current_digest() {
            Some(current) if record.rejected.contains_key(&current) => {
                self.point_to(record.previous.as_deref())
            }
            _ => Ok(()),
        }
    }

    fn stage(&mut self, file: &Path, digest: &str, copy: File) -> Result<PathBuf, BundlesError> {
        let directory = self.folder.join(digest);
        if Bundle::open(&directory).is_ok() {
            return Ok(directory);
        }
        let staging = self.folder.join(STAGING);
        // What was cut short before, and what lies under the digest and is no bundle.
        for left in [&staging, &directory] {
            if left.exists() {
                self.step("remove what is left in", |_| fs::remove_dir_all(left))?;
            }
        }
        self.step("make a folder in", |_| fs::create_dir(&staging))?;
        (self.before_step)().map_err(failed("unpack into", &staging))?;
        unpack(copy, &staging).map_err(|reason| {
            let _ = fs::remove_dir_all(&staging);
            BundlesError::Unpack {
                path: file.to_owned(),
                reason,
            }
        })?;
        self.step("hand over what was unpacked in", |folder| {
            hand_over_all(&staging, folder)
        })?;
        Ok(staging)
    }

    fn check_version(&self, offered: &Bundle, force: bool) -> Result<(), BundlesError> {
        let Some(current) = self.current().and_then(|at| Bundle::open(at).ok()) else {
            return Ok(());
        };
        let (offered, current) = (offered.manifest(), current.manifest());
        if force || offered.name != current.name || offered.version >= current.version {
            return Ok(());
        }
        Err(BundlesError::Older {
            name: offered.name.clone(),
            offered: offered.version.to_string(),
            current: current.version.to_string(),
        })
    }

    fn switch_to(&mut self, digest: &str, mut record: Record) -> Result<(), BundlesError> {
        let current = self.current_digest();
        if current.as_deref() != Some(digest) {
            record.previous = current;
        }
        record.rejected.remove(digest);
        record.trial = Some(Trial {
            digest: digest.to_owned(),
            starts: 0,
        });
        // Written down first: a trial of what is not current is none.
        self.write(&record)?;
        self.point_to(Some(digest))
    }

    /// Points `current` to a digest, at once and for good; with `None` takes it away.
    fn point_to(&mut self, digest: Option<&str>) -> Result<(), BundlesError> {
        self.step("switch the bundle in", |folder| {
            let link = folder.join(CURRENT);
            match digest {
                None => match fs::remove_file(&link) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                },
                Some(digest) => {
                    let new = folder.join("current.new");
                    let _ = fs::remove_file(&new);
                    std::os::unix::fs::symlink(digest, &new)?;
                    fs::rename(&new, &link)?;
                }
            }
            File::open(folder)?.sync_all()
        })
    }

    fn record(&self) -> Record {
        let path = self.folder.join(RECORD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) => return Record::default(),
        };
        serde_json::from_str(&text).unwrap_or_else(|e| {
            warn!("{} cannot be read: {e}", path.display());
            Record::default()
        })
    }

    fn write(&mut self, record: &Record) -> Result<(), BundlesError> {
        let text = serde_json::to_string_pretty(record).expect("a record is texts and numbers");
        self.step("write down the bundles in", |folder| {
            let mut new = NamedTempFile::new_in(folder)?;
            new.write_all(text.as_bytes())?;
            new.as_file().sync_all()?;
            hand_over(new.path(), folder)?;
            new.persist(folder.join(RECORD)).map_err(|e| e.error)?;
            File::open(folder)?.sync_all()
        })
    }

    fn step(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), BundlesError> {
        let acted = (self.before_step)().and_then(|()| act(&self.folder));
        acted.map_err(failed(what, &self.folder))
    }
}

/// Whoever owns the state folder, in which `folder` is, flies with what is installed there and writes down how that went; so
/// what an engineer installs as root is theirs.
fn hand_over(path: &Path, folder: &Path) -> io::Result<()> {
    let Some(state) = folder.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    let owner = fs::metadata(state)?;
    if fs::symlink_metadata(path)?.uid() == owner.uid() {
        return Ok(());
    }
    lchown(path, Some(owner.uid()), Some(owner.gid()))
}

fn hand_over_all(path: &Path, folder: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over_all(&entry?.path(), folder)?;
        }
    }
    hand_over(path, folder)
}

fn read_key(path: &Path) -> Result<PublicKey, BundlesError> {
    let text = fs::read_to_string(path).map_err(failed("read the key", path))?;
    let wrong = |reason: String| BundlesError::Key {
        path: path.to_owned(),
        reason,
    };
    // With or without its comment.
    let key = text.lines().rfind(|line| !line.trim().is_empty());
    let key = key.ok_or_else(|| wrong("it is empty".to_owned()))?;
    PublicKey::from_base64(key.trim()).map_err(|e| wrong(e.to_string()))
}

/// Copies the file and checks that the signature is its own. Returns its digest.
fn verify(offered: &Offered, key: &PublicKey, copy: &mut File) -> Result<String, BundlesError> {
    let beside = || {
        let mut path = offered.file.as_os_str().to_owned();
        path.push(".minisig");
        PathBuf::from(path)
    };
    let path = offered.signature.map_or_else(beside, Path::to_owned);
    let wrong = |reason: String| BundlesError::Signature {
        bundle: offered.file.to_owned(),
        signature: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(failed("read the signature", &path))?;
    let signature = Signature::decode(&text).map_err(|e| wrong(e.to_string()))?;
    let mut verifier = key
        .verify_stream(&signature)
        .map_err(|e| wrong(e.to_string()))?;
    let mut file = File::open(offered.file).map_err(failed("read", offered.file))?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file
            .read(&mut buffer)
            .map_err(failed("read", offered.file))?;
        if n == 0 {
            break;
        }
        verifier.update(&buffer[..n]);
        sha.update(&buffer[..n]);
        copy.write_all(&buffer[..n])
            .map_err(failed("copy", offered.file))?;
    }
    verifier.finalize().map_err(|e| wrong(e.to_string()))?;
    io::Seek::rewind(copy).map_err(failed("copy", offered.file))?;
    Ok(hex::encode(sha.finalize()))
}

fn self_test(engine: &Engine, bundle: &Bundle, file: &Path) -> Result<(), BundlesError> {
    let wrong = |reason: String| BundlesError::SelfTest {
        path: file.to_owned(),
        reason,
    };
    let outcomes = run_self_tests(engine, bundle).map_err(|e| wrong(e.to_string()))?;
    match outcomes.iter().find(|outcome| !outcome.passed()) {
        None => Ok(()),
        Some(outcome) => Err(wrong(format!(
            "the {} gives answers that are {:.2e} off on {}, allowed is {:.1e}",
            outcome.role, outcome.difference, outcome.engine, outcome.tolerance
        ))),
    }
}
