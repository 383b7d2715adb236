//! Model bundles on a box: verify → stage → self-test → switch → commit, or roll back.
//!
//! A bundle travels as one file `NAME.tar.zst` with a minisign signature `NAME.tar.zst.minisig` beside it
//! (<https://jedisct1.github.io/minisign/>). [`Bundles::install`] checks the signature before a byte of it is unpacked,
//! unpacks it under its digest, has its networks give known answers on this box, and only then points the link `current` to
//! it. The bundle is on trial until it has flown well for [`TRIAL`]; one that cannot be loaded, breaks recognition or brings
//! the program down [`STARTS`] times is rejected, and the box flies with the one before. A rejected digest is remembered and
//! never installed again.
//!
//! # What always holds, also after a loss of power at any moment
//! - `current` points to a bundle that is whole, or does not exist.
//! - What lies under a digest is what the signature covers: it was unpacked elsewhere, synchronised, and then renamed.
//! - What an installation that was cut short left behind is removed by the next one.

mod archive_file;
mod error;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use archive_file::pack;
#[cfg(fuzzing)]
pub use archive_file::unpack;
pub use error::BundlesError;
pub use store::{Bundles, Installed, Offered, Trial};

/// A new bundle is kept once it has flown so long without trouble.
pub const TRIAL: Duration = Duration::from_secs(10 * 60);

/// A new bundle with which the program began so often without flying well for [`TRIAL`] is rejected.
pub const STARTS: u32 = 3;
