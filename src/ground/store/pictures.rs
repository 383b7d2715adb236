use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::StoreError;

/// Pictures on the disk, each named by the SHA-256 of its content in hexadecimal digits.
pub struct Pictures {
    folder: PathBuf,
}

impl Pictures {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let pictures = Self {
            folder: folder.to_owned(),
        };
        fs::create_dir_all(folder).map_err(|e| pictures.error(folder, e))?;
        Ok(pictures)
    }

    /// Stores a picture and returns its name. On return it is on the disk whole, under that name.
    ///
    /// # Errors
    /// The disk takes no more, or the folder cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let name = hex::encode(Sha256::digest(bytes));
        let path = self.path(&name);
        // A file of this name was renamed after it was synchronised, so it is whole.
        if path.exists() {
            return Ok(name);
        }
        let folder = path.parent().unwrap_or(&self.folder);
        let write = || {
            if !folder.exists() {
                fs::create_dir_all(folder)?;
                File::open(&self.folder)?.sync_all()?;
            }
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|e| self.error(&path, e))?;
        Ok(name)
    }

    /// A picture, or `None` where there is none of this name.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        // Nothing but a name that we gave becomes a path.
        let is_name =
            name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_name {
            return Ok(None);
        }
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error(&path, e)),
        }
    }

    /// In 256 folders, so that none grows large.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(&name[..2]).join(format!("{name}.jpg"))
    }

    fn error(&self, path: &Path, source: std::io::Error) -> StoreError {
        StoreError::File {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_there_once_under_its_hash_and_names_are_no_paths() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = Pictures::open(&folder.path().join("pictures")).unwrap();
        let name = pictures.put(b"abc").unwrap();
        // From FIPS 180-2.
        assert_eq!(
            name,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(pictures.put(b"abc").unwrap(), name);
        assert_eq!(pictures.get(&name).unwrap().unwrap(), b"abc");
        fs::write(folder.path().join("secret.jpg"), "secret").unwrap();
        let beside = format!("{:0>64}", "/../../secret");
        for strange in [
            "",
            "ba",
            "../secret",
            &beside,
            &name.to_uppercase(),
            &"é".repeat(32),
        ] {
            assert!(pictures.get(strange).unwrap().is_none(), "{strange}");
        }
        let files = fs::read_dir(folder.path().join("pictures/ba")).unwrap();
        assert_eq!(files.count(), 1);
    }
}
