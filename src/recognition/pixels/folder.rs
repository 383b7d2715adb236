use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Endings of the files that are read, without regard to case.
pub const READ_ENDINGS: [&str; 5] = ["jpg", "jpeg", "png", "tif", "tiff"];

/// Raw files that are built like a TIFF: of them the embedded JPEG is read.
const RAW_ENDINGS: [&str; 8] = ["dng", "nef", "nrw", "cr2", "arw", "sr2", "pef", "srw"];

/// Photographs that are not read.
const OTHER_ENDINGS: [&str; 27] = [
    "3fr", "avif", "bmp", "cr3", "crw", "dcr", "erf", "fff", "gif", "gpr", "heic", "heif", "hif",
    "iiq", "jp2", "jxl", "kdc", "mef", "mos", "mrw", "orf", "raf", "raw", "rw2", "rwl", "webp",
    "x3f",
];

/// Whether a file is one that is read, by its name: a photograph or a raw file, and not hidden.
pub fn is_photograph(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && (has_ending(path, &READ_ENDINGS) || has_ending(path, &RAW_ENDINGS))
}

/// The files of one folder or several, as their names sort them.
///
/// Nobody asks for hidden files (of which a Mac leaves `._name.jpg` on cards): they are counted and left alone. A
/// photograph of a kind that is not read is passed over, and so is a raw file beside a photograph of its name that
/// is read: both show the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Photographs that are read, of each folder by name.
    pub photographs: Vec<PathBuf>,
    /// How many files and folders are hidden.
    pub hidden: usize,
    /// How many photographs are passed over, by ending in lower case.
    passed_over: BTreeMap<String, usize>,
}

impl Folder {
    /// Of one folder, without those in it.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn list(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        let mut listed = Self::default();
        listed.add(files);
        Ok(listed)
    }

    /// Sorts in the files of another folder, given with their paths.
    pub fn add(&mut self, mut files: Vec<PathBuf>) {
        files.sort();
        files.retain(|file| !self.leaves_hidden(file));
        let seen: HashSet<OsString> = files
            .iter()
            .filter(|file| has_ending(file, &READ_ENDINGS))
            .map(|file| name_without_ending(file))
            .collect();
        for file in files {
            let is_raw = has_ending(&file, &RAW_ENDINGS);
            if has_ending(&file, &READ_ENDINGS)
                || is_raw && !seen.contains(&name_without_ending(&file))
            {
                self.photographs.push(file);
            } else if is_raw || has_ending(&file, &OTHER_ENDINGS) {
                *self.passed_over.entry(ending(&file)).or_default() += 1;
            }
        }
    }

    /// Whether a file or folder is hidden; then it is counted.
    pub fn leaves_hidden(&mut self, path: &Path) -> bool {
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        self.hidden += usize::from(is_hidden);
        is_hidden
    }

    /// In words what is passed over, such as `12 files passed over: 10 .nef, 2 .heic`; `None` where nothing is.
    pub fn passed_over(&self) -> Option<impl fmt::Display> {
        let mut endings: Vec<(&String, &usize)> = self.passed_over.iter().collect();
        endings.sort_by_key(|&(ending, &count)| (std::cmp::Reverse(count), ending));
        let total: usize = self.passed_over.values().sum();
        let listed: Vec<String> = endings
            .iter()
            .map(|(ending, count)| format!("{count} .{ending}"))
            .collect();
        let files = if total == 1 { "file" } else { "files" };
        (total > 0).then(|| format!("{total} {files} passed over: {}", listed.join(", ")))
    }
}

fn ending(file: &Path) -> String {
    let ending = file.extension().unwrap_or_default();
    ending.to_string_lossy().to_ascii_lowercase()
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    endings.contains(&ending(file).as_str())
}

fn name_without_ending(file: &Path) -> OsString {
    file.file_stem().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> Folder {
        let mut folder = Folder::default();
        folder.add(files.iter().map(PathBuf::from).collect());
        folder
    }

    #[test]
    fn hidden_files_are_counted_and_others_passed_over_by_kind() {
        let files = [
            "card/._a.jpg",
            "card/.DS_Store",
            "card/b.HEIC",
            "card/a.jpg",
            "card/c.webp",
            "card/d.heic",
            "card/notes.txt",
            "card/no_ending",
        ];
        let folder = folder(&files);
        assert_eq!(folder.photographs, [PathBuf::from("card/a.jpg")]);
        assert_eq!(folder.hidden, 2);
        let said = folder.passed_over().map(|said| said.to_string());
        assert_eq!(said.unwrap(), "3 files passed over: 2 .heic, 1 .webp");
    }

    #[test]
    fn a_raw_file_is_read_where_nothing_else_shows_the_same() {
        let folder = folder(&[
            "IMG_1.NEF",
            "img_1.JPG",
            "IMG_2.nef",
            "IMG_3.dng",
            "IMG_3.tif",
        ]);
        let read = ["IMG_2.nef", "IMG_3.tif", "img_1.JPG"].map(PathBuf::from);
        assert_eq!(folder.photographs, read);
        let said = folder.passed_over().map(|said| said.to_string());
        assert_eq!(said.unwrap(), "2 files passed over: 1 .dng, 1 .nef");
        assert!(super::Folder::default().passed_over().is_none());
    }
}
