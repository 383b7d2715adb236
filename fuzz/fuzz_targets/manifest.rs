//! Any bytes are a manifest or a clear error, and what is a manifest survives being written.
#![no_main]

use recognition::bundle::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
        // NaN cannot be said in JSON, so a manifest that was read holds none.
        let written = serde_json::to_vec(&manifest).expect("a manifest can be written");
        let again: Manifest =
            serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, manifest);
    }
});
