//! Whether the disk is there that a folder should lie on.

use std::fs;
use std::path::{Path, PathBuf};

/// The mount point that `folder` should lie on and that nothing is mounted at: `named`, or one of those that the
/// operating system's table of file systems (fstab(5)) has above the folder.
pub(super) fn missing(folder: &Path, named: Option<&Path>) -> Option<PathBuf> {
    let table = fs::read_to_string("/etc/fstab").unwrap_or_default();
    missing_by(folder, named, &table)
}

fn missing_by(folder: &Path, named: Option<&Path>, table: &str) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let listed = mount_points(table).filter(|at| folder.starts_with(at));
    named
        .map(Path::to_owned)
        .into_iter()
        .chain(listed)
        .find(|at| !is_mount_point(at))
}

/// The mount points of an fstab, but for the root.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| {
        let line = line.trim_start();
        if line.starts_with('#') {
            return None;
        }
        let at = line.split_ascii_whitespace().nth(1)?;
        let at = unescaped(at);
        (at.starts_with('/') && at.len() > 1).then(|| PathBuf::from(at))
    })
}

/// Blanks in an fstab are written as `\040`.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |field, (written, meant)| {
            field.replace(written, meant)
        })
}

/// Whether something is mounted there.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

    match statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS) {
        Ok(stat)
            if stat
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT) =>
        {
            stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        _ => is_other_device(path),
    }
}

/// Whether something is mounted there.
#[cfg(not(target_os = "linux"))]
fn is_mount_point(path: &Path) -> bool {
    is_other_device(path)
}

/// Whether a folder lies on another device than the one that it is in.
#[cfg(unix)]
fn is_other_device(path: &Path) -> bool {
    let above = device(&path.join(".."));
    device(path).is_some_and(|here| Some(here) != above)
}

#[cfg(not(unix))]
fn is_other_device(path: &Path) -> bool {
    path.is_dir()
}

/// The device that a path lies on; `None` where there is nothing.
#[cfg(unix)]
pub(super) fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|file| file.dev())
}

/// The device that a path lies on; `None` where there is nothing.
#[cfg(not(unix))]
pub(super) fn device(path: &Path) -> Option<u64> {
    path.exists().then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_disk_that_is_listed_and_not_mounted_is_missing_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let at = std::path::absolute(folder.path()).unwrap().join("my disk");
        fs::create_dir(&at).unwrap();
        let table = format!(
            "# <file system> <mount point>\nUUID=1 / ext4 errors=remount-ro 0 1\n\
             UUID=2 none swap sw 0 0\n\
             UUID=3 {} ext4 defaults,nofail 0 2\n",
            at.display().to_string().replace(' ', "\\040")
        );
        let archive = at.join("archive");
        assert_eq!(missing_by(&archive, None, &table), Some(at.clone()));
        assert_eq!(missing_by(folder.path(), None, &table), None);
        assert_eq!(missing_by(&archive, None, ""), None);
        assert_eq!(missing_by(&archive, Some(&at), ""), Some(at.clone()));
        let nowhere = at.join("nowhere");
        assert_eq!(missing_by(&archive, Some(&nowhere), ""), Some(nowhere));
        let root = Path::new("/");
        assert_eq!(missing_by(&archive, Some(root), ""), None);
    }
}
