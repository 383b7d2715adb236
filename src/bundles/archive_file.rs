//! A bundle in one file: a tar archive, compressed by Zstandard.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

/// Most bytes of a bundle that is unpacked: an archive that says more is refused before it fills the disk.
const MOST_BYTES: u64 = 2 << 30;
/// Most files of a bundle.
const MOST_FILES: usize = 10_000;
/// Small bundles travel over thin links.
const LEVEL: i32 = 19;

/// Writes the bundle in `directory` as one file. The same bundle gives the same bytes: files in the order of their names,
/// without owners and times.
///
/// # Errors
/// A file cannot be read or written.
pub fn pack(directory: &Path, out: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    list(directory, directory, &mut files)?;
    files.sort();
    let compressed = zstd::Encoder::new(File::create_new(out)?, LEVEL)?;
    let mut tar = tar::Builder::new(compressed);
    for relative in files {
        let mut file = File::open(directory.join(&relative))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, &relative, &mut file)?;
    }
    tar.into_inner()?.finish()?.sync_all()
}

fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_owned());
        }
    }
    Ok(())
}

/// Unpacks a file into a folder that is there and empty; everything is on the disk when this returns.
///
/// # Errors
/// In words: it is cut short or no archive, too large, or holds what no bundle does: a link, a device, a path that leads out
/// of the folder, a file twice.
pub fn unpack(compressed: impl Read, into: &Path) -> Result<(), String> {
    let decompressed = zstd::Decoder::new(compressed).map_err(|e| e.to_string())?;
    // One byte more tells too many from just enough.
    let mut tar = tar::Archive::new(decompressed.take(MOST_BYTES + 1));
    let entries = tar.entries().map_err(|e| e.to_string())?;
    let (mut bytes, mut files) = (0u64, 0);
    for entry in entries {
        let mut entry = entry.map_err(|e| e.to_string())?;
        let path = entry.path().map_err(|e| e.to_string())?.into_owned();
        let shown = path.display();
        files += 1;
        bytes = bytes.saturating_add(entry.size());
        if bytes > MOST_BYTES || files > MOST_FILES {
            return Err(format!(
                "it has more than {MOST_BYTES} bytes or {MOST_FILES} files"
            ));
        }
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(format!("{shown:?} leads out of the bundle"));
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => continue,
            tar::EntryType::Regular => {}
            other => return Err(format!("{shown:?} is no file but a {other:?}")),
        }
        let target = into.join(&path);
        let folder = target.parent().unwrap_or(into);
        write(&mut entry, folder, &target).map_err(|e| format!("{shown:?}: {e}"))?;
    }
    // An archive that was cut short between two files ends without its last blocks.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|e| e.to_string())?;
    synchronise(into).map_err(|e| e.to_string())
}

fn write(from: &mut impl Read, folder: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = File::create_new(target)?;
    io::copy(from, &mut file)?;
    file.flush()?;
    file.sync_all()
}

/// Has the system write down which files its folders hold.
fn synchronise(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            synchronise(&path)?;
        }
    }
    File::open(folder)?.sync_all()
}
