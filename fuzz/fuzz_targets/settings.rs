//! Any bytes are settings or a clear error that names the file; what are settings can be asked for everything, and shown.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use callosity::settings::Layers;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("callosity.toml");
    fs::write(&path, bytes).expect("a file");
    let loaded = Layers::new()
        .with_file(&path)
        .and_then(|mut layers| {
            // Nothing is written outside of the folder, whatever the settings name.
            let state = FOLDER.path().join("state").display().to_string();
            layers.set_text("state", &state, "fuzzer")?;
            layers.load()
        });
    match loaded {
        Ok(loaded) => {
            for (key, ..) in loaded.all() {
                assert!(!key.is_empty());
            }
            let _ = (loaded.link(), loaded.cameras(), loaded.survey(), loaded.engine(None));
            let _ = (loaded.archive(), loaded.page(), loaded.numbers());
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
});
