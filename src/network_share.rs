//! Whether a folder lies on another machine.

use std::path::Path;

/// The kind of network share that a folder lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkShare {
    Nfs,
    /// SMB, CIFS.
    Windows,
    /// 9P, FUSE (sshfs), AFS, Ceph.
    Other,
}

impl NetworkShare {
    /// `None` for a folder of this machine, and where that cannot be told.
    #[cfg(target_os = "linux")]
    pub fn of(folder: &Path) -> Option<Self> {
        // From Linux' magic.h.
        match rustix::fs::statfs(folder).ok()?.f_type as u32 {
            0x6969 => Some(Self::Nfs),
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some(Self::Windows),
            0x0102_1997 | 0x6573_5546 | 0x5346_414f | 0x00c3_6400 => Some(Self::Other),
            _ => None,
        }
    }

    /// `None`: it cannot be told.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_: &Path) -> Option<Self> {
        None
    }
}
