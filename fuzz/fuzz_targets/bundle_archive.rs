//! Any bytes are a bundle's archive that is unpacked into its folder and nowhere else, or a clear error.
#![no_main]

use std::fs;
use std::path::Path;

use callosity::bundles::unpack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let around = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let into = around.path().join("bundle");
    fs::create_dir(&into).expect("a folder");
    let unpacked = unpack(bytes, &into);
    let beside: Vec<_> = fs::read_dir(around.path()).expect("a folder").collect();
    assert_eq!(beside.len(), 1, "something was written beside the folder");
    only_files(&into);
    if let Err(e) = unpacked {
        assert!(!e.is_empty());
    }
});

fn only_files(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            only_files(&entry.path());
        } else {
            assert!(kind.is_file(), "{:?} is no file", entry.path());
        }
    }
}
