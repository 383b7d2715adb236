//! Reference photographs of animals, in a folder with one folder for each animal, named as the animal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;
use tracing::warn;

use crate::store::{checked_name, folded};

/// A folder that cannot be used as a catalogue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The folder cannot be read.
    #[error("cannot read the catalogue {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Two folders are of one animal.
    #[error("the catalogue {} has two folders for one animal: {first:?} and {second:?} differ in case or spaces only", path.display())]
    Twice {
        /// The catalogue.
        path: PathBuf,
        /// A folder.
        first: String,
        /// Another.
        second: String,
    },
}

/// The photographs of a catalogue. They are shown as they lie there, and read when they are asked for.
#[derive(Default)]
pub struct Catalogue {
    animals: BTreeMap<String, Entry>,
}

struct Entry {
    name: String,
    photographs: Vec<PathBuf>,
}

/// A photograph of an animal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Its number among those of the animal, from 0.
    pub number: usize,
    /// Name of the file.
    pub file: String,
}

impl Catalogue {
    /// Lists a folder of folders. JPEG and PNG files are photographs; other files are passed over.
    ///
    /// # Errors
    /// A folder cannot be read, or two are of one animal.
    pub fn open(folder: &Path) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for path in entries(folder)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if !path.is_dir() || name.starts_with('.') {
                continue;
            }
            let name = match checked_name(name) {
                Ok(name) => name,
                Err(e) => {
                    warn!(
                        "folder {} of the catalogue is passed over: {e}",
                        path.display()
                    );
                    continue;
                }
            };
            let photographs = entries(&path)?;
            let photographs = photographs
                .into_iter()
                .filter(|file| media_type(file).is_some());
            let entry = Entry {
                name: name.clone(),
                photographs: photographs.collect(),
            };
            if let Some(first) = catalogue.animals.insert(folded(&name), entry) {
                return Err(CatalogueError::Twice {
                    path: folder.to_owned(),
                    first: first.name,
                    second: name,
                });
            }
        }
        Ok(catalogue)
    }

    /// Names of the animals.
    pub fn names(&self) -> Vec<String> {
        self.animals
            .values()
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// The photographs of an animal; none where the catalogue lacks it.
    pub fn references(&self, animal: &str) -> Vec<Reference> {
        let entry = self.animals.get(&folded(animal));
        let photographs = entry.map_or(&[][..], |entry| &entry.photographs);
        let references = photographs
            .iter()
            .enumerate()
            .map(|(number, path)| Reference {
                number,
                file: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            });
        references.collect()
    }

    /// A photograph with its media type; `None` where there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn photograph(
        &self,
        animal: &str,
        number: usize,
    ) -> std::io::Result<Option<(&'static str, Vec<u8>)>> {
        let entry = self.animals.get(&folded(animal));
        let Some(path) = entry.and_then(|entry| entry.photographs.get(number)) else {
            return Ok(None);
        };
        let media_type = media_type(path).unwrap_or("application/octet-stream");
        Ok(Some((media_type, fs::read(path)?)))
    }
}

/// In the order of their names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CatalogueError> {
    let error = |source| CatalogueError::Folder {
        path: folder.to_owned(),
        source,
    };
    let listed: Result<Vec<_>, _> = fs::read_dir(folder)
        .map_err(error)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut listed = listed.map_err(error)?;
    listed.sort();
    Ok(listed)
}

fn media_type(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => Some("image/jpeg"),
        "png" => Some("image/png"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_are_found_by_the_name_of_their_folder_and_by_no_path() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("Snow Ball/b.JPG", "b"),
            ("Snow Ball/a.png", "a"),
            ("Snow Ball/notes.txt", "no"),
            ("NA/a.jpg", "nobody"),
            ("README.jpg", "no animal"),
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let catalogue = Catalogue::open(folder.path()).unwrap();
        assert_eq!(catalogue.names(), ["Snow Ball"]);
        let files = catalogue
            .references("snow  ball")
            .into_iter()
            .map(|r| r.file);
        assert_eq!(files.collect::<Vec<_>>(), ["a.png", "b.JPG"]);
        let photograph = catalogue.photograph("SNOW BALL", 1).unwrap().unwrap();
        assert_eq!(photograph, ("image/jpeg", b"b".to_vec()));
        assert!(catalogue.photograph("Snow Ball", 2).unwrap().is_none());
        assert!(catalogue.photograph("../Snow Ball", 0).unwrap().is_none());
        fs::create_dir(folder.path().join("snow ball")).unwrap();
        let error = Catalogue::open(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains("Snow Ball") && error.contains("snow ball"),
            "{error}"
        );
    }
}
