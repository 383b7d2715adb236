//! What the archive's folders and files are called.
//!
//! ```text
//! 2026-03-01_9c1d20ab64f7/left/20260301T141559.123Z_000042.jpg                a frame, with .json beside it
//! 2026-03-01_9c1d20ab64f7/left/20260301T141559.123Z_000042_crop-52be0c8d1a3f.jpg
//! undated_9c1d20ab64f7/left/undated-000000731250_000003.jpg                   the time is not known to be right
//! ```
//! A flight has the last twelve digits of its identifier. A picture whose time is not trusted has milliseconds of flight
//! time since the program's floor of time in the place of a date, so that the order of names is that of frames there as
//! well.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use link::archive::{ArchiveRecord, KeptBecause};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::{built, is_trusted};

/// A camera's folder has no longer name, in bytes.
const LONGEST: usize = 100;

/// Where a picture lies: below the archive's folder, with `/`; and its name without an ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub folder: String,
    pub stem: String,
}

impl Name {
    pub fn of(record: &ArchiveRecord) -> Self {
        let flight = last_digits(record.event_id);
        let camera = camera_folder(&record.camera);
        let number = record.frame.number;
        let crop = match (record.kept_because, record.heads.first()) {
            (KeptBecause::Crop, Some(head)) => {
                format!("_crop-{}", last_digits(head.occurrence_id))
            }
            _ => String::new(),
        };
        if is_trusted(record.time_quality) {
            let time = record.time.to_zoned(TimeZone::UTC);
            let date = time.strftime("%Y-%m-%d");
            let milliseconds = record.time.subsec_millisecond();
            let time = time.strftime("%Y%m%dT%H%M%S");
            Self {
                folder: format!("{date}_{flight}/{camera}"),
                stem: format!("{time}.{milliseconds:03}Z_{number:06}{crop}"),
            }
        } else {
            let since = milliseconds_since_built(record.flight_time);
            Self {
                folder: format!("undated_{flight}/{camera}"),
                stem: format!("undated-{since:012}_{number:06}{crop}"),
            }
        }
    }

    /// The stem for the `n`th attempt: where another file has that name already.
    pub fn attempt(&self, n: u32) -> String {
        match n {
            0 => self.stem.clone(),
            n => format!("{}-{}", self.stem, n + 1),
        }
    }
}

fn milliseconds_since_built(time: Timestamp) -> u64 {
    let since = time.as_millisecond() - built().as_millisecond();
    since.max(0).unsigned_abs()
}

/// The random part of a UUID of version 7; its first digits are a time.
fn last_digits(id: Uuid) -> String {
    let digits = id.simple().to_string();
    digits[digits.len() - 12..].to_owned()
}

/// A folder's name for a camera, whatever that is called: letters, digits, `-`, `_` and dots within; other bytes as `%`
/// and two digits. Two cameras never have one folder.
pub(super) fn camera_folder(camera: &str) -> String {
    let mut folder = String::new();
    for (i, byte) in camera.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if is_plain || (byte == b'.' && i > 0 && i + 1 < camera.len()) {
            folder.push(char::from(byte));
        } else {
            folder += &format!("%{byte:02X}");
        }
    }
    if folder.is_empty() {
        // As no byte is written.
        return "%".to_owned();
    }
    if folder.len() > LONGEST {
        let digest = hex::encode(&Sha256::digest(camera.as_bytes())[..8]);
        folder.truncate(LONGEST - digest.len() - 2);
        folder += &format!("%-{digest}");
    }
    folder
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cameras_of_any_name_have_folders_of_their_own(a in ".{0,200}", b in ".{0,200}") {
            let folder = camera_folder(&a);
            prop_assert!(!folder.is_empty() && folder.len() <= LONGEST);
            prop_assert!(folder != "." && folder != ".." && !folder.starts_with('.'));
            prop_assert!(!folder.contains(['/', '\\', ':', '\0', ' ']) && folder.is_ascii());
            prop_assert_eq!(a == b, folder == camera_folder(&b));
        }
    }

    #[test]
    fn names_that_look_alike_differ() {
        let names = [
            "left/1", "left_1", "left%2F1", ".left", "left.", "..", ".", "", "%",
        ];
        let folders: std::collections::BTreeSet<_> =
            names.iter().map(|name| camera_folder(name)).collect();
        assert_eq!(folders.len(), names.len(), "{folders:?}");
        assert_eq!(camera_folder("left-1.2"), "left-1.2");
    }
}
