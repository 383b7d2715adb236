//! Tells the program when it was built: no clock that runs earlier than that is right.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    // Builds that are to be reproduced say when they take place (reproducible-builds.org).
    let said = std::env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = said.and_then(|said| said.parse::<u64>().ok());
    let seconds = seconds.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs())
    });
    println!("cargo:rustc-env=CALLOSITY_BUILT={seconds}");
}
