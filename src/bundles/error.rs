use std::io;
use std::path::PathBuf;

use recognition::bundle::BundleError;
use thiserror::Error;

/// A bundle that was not installed, or not taken back. Nothing has changed then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundlesError {
    /// A file or folder cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is none.
    #[error("{} holds no minisign public key: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The signature is not that of this file by this key.
    #[error(
        "the signature {} does not vouch for {}: {reason}. Fetch both again from whom you trust; it was not unpacked",
        signature.display(),
        bundle.display()
    )]
    Signature {
        /// The bundle.
        bundle: PathBuf,
        /// The signature.
        signature: PathBuf,
        /// Why.
        reason: String,
    },
    /// It cannot be unpacked.
    #[error("{} is no bundle that can be unpacked: {reason}", path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was unpacked is no bundle.
    #[error("{} is no bundle for this program", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<BundleError>,
    },
    /// Its networks do not give what they must on this box.
    #[error("the networks of {} do not work on this box: {reason}", path.display())]
    SelfTest {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An older version.
    #[error(
        "{name} {offered} is older than {current}, which is installed: --force installs it all the same"
    )]
    Older {
        /// The bundle's name.
        name: String,
        /// Its version.
        offered: String,
        /// The version that is installed.
        current: String,
    },
    /// It was rejected before.
    #[error(
        "this bundle (SHA-256 {digest}) was rejected on this box: {reason}. --force tries it again"
    )]
    Rejected {
        /// Of the file.
        digest: String,
        /// Why.
        reason: String,
    },
    /// There is no bundle before this one.
    #[error("there is no bundle to go back to in {}", folder.display())]
    NoneBefore {
        /// The folder of bundles.
        folder: PathBuf,
    },
}
