use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Bundle, BundleError, Enrollment, Gallery, MANIFEST_FILE};

impl Bundle {
    /// Writes a bundle with another gallery into the folder `out`, which must not be there: all files of this
    /// one, the gallery, and a manifest that says what was enrolled, the patch version raised by one. `gallery`
    /// holds the photographs of this bundle and those of the enrollment; an individual that is new has the
    /// place after the last of [`Manifest::individuals`](super::Manifest::individuals).
    ///
    /// This bundle stays as it is. The new one is [opened](Self::open) before it gets its name, so that there
    /// is none or a whole one.
    ///
    /// # Errors
    /// This bundle has no gallery, `out` is there or lies in this bundle, a file cannot be read or written, or
    /// what was written does not pass the check.
    pub fn enroll(
        &self,
        out: &Path,
        gallery: &Gallery,
        enrollment: Enrollment,
    ) -> Result<Self, BundleError> {
        let mut manifest = self.manifest().clone();
        let known = manifest.individuals().any(|i| *i == enrollment.individual);
        let bytes = gallery.write();
        let Some(declared) = &mut manifest.gallery else {
            return Err(BundleError::NoGallery {
                directory: self.directory().to_owned(),
            });
        };
        if !known {
            declared.enrolled.push(enrollment.individual.clone());
        }
        declared.sha256 = hex::encode(Sha256::digest(&bytes));
        let file = declared.file.clone();
        manifest.version.patch += 1;
        manifest.version.pre = semver::Prerelease::EMPTY;
        manifest.provenance.enrollments.push(enrollment);
        manifest.check().map_err(|problem| BundleError::Manifest {
            path: out.join(MANIFEST_FILE),
            problem,
        })?;

        if out.symlink_metadata().is_ok() {
            return Err(BundleError::Occupied {
                path: out.to_owned(),
            });
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BundleError::Write { path, source }
        };
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let whole = |path: &Path| {
            fs::canonicalize(path).map_err(|source| BundleError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let from = whole(self.directory())?;
        if whole(parent)?.starts_with(&from) {
            return Err(BundleError::Within {
                path: out.to_owned(),
                directory: self.directory().to_owned(),
            });
        }
        let folder = tempfile::tempdir_in(parent).map_err(failed(parent))?;
        copy(&from, &from, folder.path())?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map_err(failed(&path))
        };
        write(&file, &bytes)?;
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| failed(out)(io::Error::other(error)))?;
        write(MANIFEST_FILE, (text + "\n").as_bytes())?;
        Self::open(folder.path())?;

        let folder = folder.keep();
        let place = || {
            // A temporary folder is its maker's alone; a bundle is for all to read.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
            }
            fs::rename(&folder, out)
        };
        if let Err(source) = place() {
            // What is left over is in nobody's way, and why it is there matters more.
            let _ = fs::remove_dir_all(&folder);
            return Err(failed(out)(source));
        }
        Self::open(out)
    }
}

/// Copies all files below `from` into the folder `to`. A link is followed to a file inside `root` only.
fn copy(root: &Path, from: &Path, to: &Path) -> Result<(), BundleError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::Read { path, source }
    };
    fs::create_dir_all(to).map_err(|source| BundleError::Write {
        path: to.to_owned(),
        source,
    })?;
    for entry in fs::read_dir(from).map_err(unread(from))? {
        let entry = entry.map_err(unread(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(unread(&path))?;
        let inside = |path: &PathBuf| path.starts_with(root) && path.is_file();
        if kind.is_dir() {
            copy(root, &path, &target)?;
        } else if kind.is_file() || fs::canonicalize(&path).is_ok_and(|file| inside(&file)) {
            fs::copy(&path, &target).map_err(|source| BundleError::Write {
                path: target.clone(),
                source,
            })?;
        }
    }
    Ok(())
}
