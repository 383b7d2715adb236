use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minisign::{KeyPair, sign};
use recognition::bundle::Bundle;

use super::*;

/// A box with an engineer who signs bundles.
struct World {
    folder: tempfile::TempDir,
    keys: KeyPair,
}

impl World {
    fn new() -> Self {
        let it = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: KeyPair::generate_unencrypted_keypair().unwrap(),
        };
        fs::write(it.path("key.pub"), it.keys.pk.to_box().unwrap().to_string()).unwrap();
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bundles(&self) -> Bundles {
        Bundles::new(self.path("bundles"))
    }

    fn sign(&self, file: &Path) {
        let signature = sign(None, &self.keys.sk, File::open(file).unwrap(), None, None).unwrap();
        let mut path = file.as_os_str().to_owned();
        path.push(".minisig");
        fs::write(path, signature.into_string()).unwrap();
    }

    /// A signed bundle of this version.
    fn bundle(&self, version: &str) -> PathBuf {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundles/tiny");
        let directory = self.path(&format!("made-{version}"));
        copy(&tiny, &directory);
        let manifest = directory.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["version"] = version.into();
        fs::write(&manifest, json.to_string()).unwrap();
        let file = self.path(&format!("tiny-{version}.tar.zst"));
        pack(&directory, &file).unwrap();
        self.sign(&file);
        file
    }

    /// Everything in the folder of bundles, links as they are.
    fn all_files(&self) -> Vec<PathBuf> {
        let mut found = vec![self.path("bundles")];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                found.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
        found
    }

    fn install(&self, file: &Path) -> Result<Installed, BundlesError> {
        self.install_by(&mut self.bundles(), file, false)
    }

    fn install_by(
        &self,
        bundles: &mut Bundles,
        file: &Path,
        force: bool,
    ) -> Result<Installed, BundlesError> {
        let offered = Offered {
            file,
            signature: None,
            key: &self.path("key.pub"),
            force,
        };
        bundles.install(&offered, None)
    }

    fn version(&self) -> Option<String> {
        let current = self.bundles().current()?;
        Some(
            Bundle::open(current)
                .unwrap()
                .manifest()
                .version
                .to_string(),
        )
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_new_bundle_is_on_trial_until_it_has_flown_well() {
    let world = World::new();
    assert_eq!(world.bundles().current(), None);
    assert_eq!(world.bundles().begin().unwrap(), None);
    let first = world.install(&world.bundle("1.0.0")).unwrap();
    assert_eq!(first.name, "tiny 1.0.0");
    assert_eq!(world.version().as_deref(), Some("1.0.0"));
    let trial = world.bundles().begin().unwrap().unwrap();
    assert_eq!((trial.digest, trial.starts), (first.digest.clone(), 1));
    world.bundles().commit().unwrap();
    assert_eq!(world.bundles().begin().unwrap(), None);
    // The same once more is no news.
    let again = world.install(&world.path("tiny-1.0.0.tar.zst")).unwrap();
    assert_eq!(again.digest, first.digest);
    world.bundles().commit().unwrap();
    world.install(&world.bundle("1.1.0")).unwrap();
    let listed = world.bundles().list();
    let said: Vec<_> = listed
        .iter()
        .map(|i| (i.name.as_str(), i.current, i.on_trial))
        .collect();
    assert_eq!(
        said,
        [("tiny 1.1.0", true, true), ("tiny 1.0.0", false, false)]
    );
}

#[test]
fn one_that_does_not_fly_well_is_rejected_and_never_comes_back() {
    let world = World::new();
    world.install(&world.bundle("1.0.0")).unwrap();
    world.bundles().commit().unwrap();
    let bad = world.bundle("1.1.0");
    world.install(&bad).unwrap();
    for starts in 1..=STARTS {
        assert_eq!(world.bundles().begin().unwrap().unwrap().starts, starts);
        assert_eq!(world.version().as_deref(), Some("1.1.0"));
    }
    // The program was brought down each time.
    assert_eq!(world.bundles().begin().unwrap(), None);
    assert_eq!(world.version().as_deref(), Some("1.0.0"));
    let said = world.install(&bad).unwrap_err();
    assert!(
        matches!(&said, BundlesError::Rejected { reason, .. } if reason.contains("3 times")),
        "{said}"
    );
    assert_eq!(world.bundles().rejected().len(), 1);
    world.install_by(&mut world.bundles(), &bad, true).unwrap();
    assert_eq!(world.version().as_deref(), Some("1.1.0"));
    // Where none was before, the box goes back to what it came with.
    let other = World::new();
    other.install(&other.bundle("1.0.0")).unwrap();
    other.bundles().reject("a defect").unwrap();
    assert_eq!(other.bundles().current(), None);
}

#[test]
fn older_ones_are_refused_unless_somebody_wants_them() {
    let world = World::new();
    world.install(&world.bundle("1.1.0")).unwrap();
    let older = world.bundle("1.0.9");
    let said = world.install(&older).unwrap_err().to_string();
    assert!(
        said.contains("tiny 1.0.9 is older than 1.1.0") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(world.version().as_deref(), Some("1.1.0"));
    world
        .install_by(&mut world.bundles(), &older, true)
        .unwrap();
    assert_eq!(world.version().as_deref(), Some("1.0.9"));
    let back = world.bundles().roll_back().unwrap();
    assert_eq!(world.bundles().current(), Some(back));
    assert_eq!(world.version().as_deref(), Some("1.1.0"));
}

#[test]
fn what_the_signature_does_not_cover_changes_nothing() {
    let world = World::new();
    world.install(&world.bundle("1.0.0")).unwrap();
    let good = world.bundle("1.1.0");
    let bytes = fs::read(&good).unwrap();
    let signature = fs::read(world.path("tiny-1.1.0.tar.zst.minisig")).unwrap();
    let offer = |name: &str, bytes: &[u8], signature: Option<&[u8]>| {
        let path = world.path(name);
        fs::write(&path, bytes).unwrap();
        if let Some(signature) = signature {
            fs::write(world.path(&format!("{name}.minisig")), signature).unwrap();
        }
        world.install(&path).unwrap_err()
    };
    let mut tampered = bytes.clone();
    tampered[bytes.len() / 2] ^= 1;
    let strangers = World::new().keys;
    let by_stranger = sign(None, &strangers.sk, bytes.as_slice(), None, None)
        .unwrap()
        .into_string();
    for (name, bytes, signature) in [
        ("tampered", tampered.as_slice(), Some(signature.as_slice())),
        (
            "truncated",
            &bytes[..bytes.len() - 7],
            Some(signature.as_slice()),
        ),
        (
            "by-a-stranger",
            bytes.as_slice(),
            Some(by_stranger.as_bytes()),
        ),
        (
            "with-nonsense",
            bytes.as_slice(),
            Some(b"untrusted comment: x\n".as_slice()),
        ),
    ] {
        let said = offer(name, bytes, signature);
        assert!(
            matches!(said, BundlesError::Signature { .. }),
            "{name}: {said}"
        );
    }
    assert!(matches!(
        offer("unsigned", &bytes, None),
        BundlesError::File { .. }
    ));
    assert_eq!(world.version().as_deref(), Some("1.0.0"));
    assert_eq!(world.bundles().list().len(), 1);
    fs::write(world.path("key.pub"), "no key").unwrap();
    assert!(matches!(
        world.install(&good).unwrap_err(),
        BundlesError::Key { .. }
    ));
}

/// A signed archive of entries that `write` makes.
fn archive(
    world: &World,
    name: &str,
    write: impl FnOnce(&mut tar::Builder<zstd::Encoder<'_, File>>),
) -> PathBuf {
    let path = world.path(name);
    let mut tar = tar::Builder::new(zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap());
    write(&mut tar);
    tar.into_inner().unwrap().finish().unwrap();
    world.sign(&path);
    path
}

/// A header with a path that the crate would not write.
fn entry(path: &[u8], kind: tar::EntryType, link: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    header
}

#[test]
fn an_archive_that_plays_tricks_is_refused_though_it_is_signed() {
    use tar::EntryType;
    let world = World::new();
    world.install(&world.bundle("1.0.0")).unwrap();
    for (name, header) in [
        ("up", entry(b"../escaped", EntryType::Regular, "")),
        (
            "absolute",
            entry(b"/tmp/callosity-escaped", EntryType::Regular, ""),
        ),
        ("within", entry(b"a/../../escaped", EntryType::Regular, "")),
        (
            "link",
            entry(b"manifest.json", EntryType::Symlink, "/etc/passwd"),
        ),
        (
            "hard-link",
            entry(b"manifest.json", EntryType::Link, "/etc/passwd"),
        ),
        ("device", entry(b"manifest.json", EntryType::Char, "")),
        ("pipe", entry(b"manifest.json", EntryType::Fifo, "")),
    ] {
        let file = archive(&world, name, |tar| {
            tar.append(&header, std::io::empty()).unwrap();
        });
        let said = world.install(&file).unwrap_err();
        assert!(
            matches!(said, BundlesError::Unpack { .. }),
            "{name}: {said}"
        );
    }
    let twice = archive(&world, "twice", |tar| {
        let header = entry(b"manifest.json", EntryType::Regular, "");
        tar.append(&header, std::io::empty()).unwrap();
        tar.append(&header, std::io::empty()).unwrap();
    });
    assert!(matches!(
        world.install(&twice).unwrap_err(),
        BundlesError::Unpack { .. }
    ));
    // It says that it has more bytes than any bundle.
    let huge = archive(&world, "huge", |tar| {
        let mut header = entry(b"manifest.json", EntryType::Regular, "");
        header.set_size(1 << 40);
        header.set_cksum();
        tar.get_mut().write_all(header.as_bytes()).unwrap();
    });
    assert!(matches!(
        world.install(&huge).unwrap_err(),
        BundlesError::Unpack { .. }
    ));
    let no_bundle = archive(&world, "no-bundle", |_| ());
    assert!(matches!(
        world.install(&no_bundle).unwrap_err(),
        BundlesError::Bundle { .. }
    ));
    let no_archive = world.path("no-archive");
    fs::write(&no_archive, "text").unwrap();
    world.sign(&no_archive);
    assert!(matches!(
        world.install(&no_archive).unwrap_err(),
        BundlesError::Unpack { .. }
    ));
    assert!(!world.path("escaped").exists() && !world.path("bundles/escaped").exists());
    assert!(!Path::new("/tmp/callosity-escaped").exists());
    assert_eq!(world.version().as_deref(), Some("1.0.0"));
    assert_eq!(world.bundles().list().len(), 1);
}

/// Bundles of which the power is cut before a step.
fn cut_before(world: &World, step: usize) -> (Bundles, Arc<AtomicUsize>) {
    let mut bundles = world.bundles();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    bundles.before_step = Box::new(move || {
        if counted.fetch_add(1, Ordering::Relaxed) >= step {
            return Err(std::io::Error::other("the power is cut"));
        }
        Ok(())
    });
    (bundles, taken)
}

#[test]
fn a_loss_of_power_at_any_step_leaves_the_old_bundle_or_the_new_one() {
    let world = World::new();
    let (old, new) = (world.bundle("1.0.0"), world.bundle("1.1.0"));
    let mut cut = 0;
    for step in 0.. {
        let _ = fs::remove_dir_all(world.path("bundles"));
        world.install(&old).unwrap();
        world.bundles().commit().unwrap();
        let (mut bundles, _) = cut_before(&world, step);
        let installed = world.install_by(&mut bundles, &new, false).is_ok();
        // The next start finds a whole bundle and can go on from there.
        world.bundles().begin().unwrap();
        let version = world.version().unwrap();
        assert!(
            version == "1.0.0" || version == "1.1.0",
            "cut before step {step}"
        );
        world.install(&new).unwrap();
        assert_eq!(
            world.version().as_deref(),
            Some("1.1.0"),
            "cut before step {step}"
        );
        // Rejecting it may be cut short too.
        let (mut bundles, _) = cut_before(&world, step);
        let rejected = bundles.reject("a defect").is_ok();
        world.bundles().begin().unwrap();
        let version = world.version().unwrap();
        assert!(
            version == "1.0.0" || (!rejected && version == "1.1.0"),
            "cut before step {step}: {version}"
        );
        cut += 1;
        if installed && rejected {
            break;
        }
    }
    assert!(cut > 5, "only {cut} steps");
}

#[test]
fn the_same_bundle_is_packed_to_the_same_bytes() {
    let world = World::new();
    let first = fs::read(world.bundle("1.0.0")).unwrap();
    let again = world.path("again.tar.zst");
    pack(&world.path("made-1.0.0"), &again).unwrap();
    assert!(first == fs::read(again).unwrap());
}

/// An engineer installs as root; the service, which has an account of its own, writes down how the trial goes.
#[test]
fn what_root_installs_belongs_to_the_owner_of_the_state() {
    let world = World::new();
    let state = world.folder.path();
    if let Err(e) = std::os::unix::fs::chown(state, Some(4711), Some(4711)) {
        eprintln!("SKIPPED: only root may give a folder away: {e}");
        return;
    }
    world.install(&world.bundle("1.0.0")).unwrap();
    let files = world.all_files();
    assert!(files.len() > 5, "{files:?}");
    for path in files.iter().filter(|path| !path.is_symlink()) {
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
        assert_eq!(owner, 4711, "{}", path.display());
    }
}
