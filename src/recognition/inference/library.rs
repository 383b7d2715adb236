//! Finding and loading ONNX Runtime's library.

use std::env;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::path::{Path, PathBuf};

use ort::sys::{OrtApi, OrtApiBase};

/// The oldest ONNX Runtime whose functions the bindings use (feature `api-20` of `ort`).
pub(super) const OLDEST_MINOR: u32 = 20;

/// Folders in which a system keeps its libraries, looked at after everything more specific.
const SYSTEM_FOLDERS: [&str; 6] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/cuda/lib64",
    "/opt/onnxruntime/lib",
];

/// ONNX Runtime's libraries on this machine, the first to try first.
///
/// Looked at in turn: `ORT_DYLIB_PATH`; a `.venv` with the `onnxruntime` package in the working
/// directory, beside the program and in the folders above it; the system's folders.
pub(super) fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        found.push(PathBuf::from(path));
    }
    let program = env::current_exe().unwrap_or_default();
    // The program lies in `target/release` below the checkout in which `.venv` lies.
    let roots = env::current_dir()
        .into_iter()
        .chain(program.ancestors().skip(1).take(4).map(Path::to_owned));
    for root in roots {
        for lib in ["lib", "lib64"] {
            for python in folders(&root.join(".venv").join(lib)) {
                found.extend(libraries(
                    &python
                        .join("site-packages")
                        .join("onnxruntime")
                        .join("capi"),
                ));
            }
        }
    }
    for folder in SYSTEM_FOLDERS {
        found.extend(libraries(Path::new(folder)));
    }
    let mut distinct = Vec::with_capacity(found.len());
    for path in found {
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    distinct
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    entries
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_dir())
}

fn libraries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    entries(folder).into_iter().filter(|path| {
        path.file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.starts_with("libonnxruntime.so"))
    })
}

/// A loaded library, before the bindings know of it.
pub(super) struct Library {
    library: libloading::Library,
    /// Such as `1.24.1`.
    pub version: String,
}

impl Library {
    /// Loads the library at `path`.
    ///
    /// # Errors
    /// In words: it cannot be loaded, is not ONNX Runtime, or is too old.
    pub fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers. The path is one that the user gave or a
        // place where only ONNX Runtime is installed under this name; nothing else can be verified
        // of a native library before it is loaded.
        let library = unsafe { libloading::Library::new(path) }.map_err(|e| e.to_string())?;
        let base = Self::base(&library)?;
        // SAFETY: `base` points to the library's static table (see `base`), whose functions take no
        // argument here and give a static, NUL-terminated string.
        let version = unsafe { CStr::from_ptr(((*base).GetVersionString)()) };
        let version = version.to_string_lossy().into_owned();
        let minor = minor(&version);
        if minor < OLDEST_MINOR {
            return Err(format!(
                "it is ONNX Runtime {version}, and 1.{OLDEST_MINOR} or later is needed"
            ));
        }
        Ok(Self { library, version })
    }

    /// Whether the bindings load this library themselves; else [`table`](Self::table) is needed.
    pub fn is_current(&self) -> bool {
        minor(&self.version) >= ort::MINOR_VERSION
    }

    fn base(library: &libloading::Library) -> Result<*const OrtApiBase, String> {
        // SAFETY: the type is that of the function in every ONNX Runtime since 1.0.
        let get = unsafe {
            library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0")
        }
        .map_err(|_| "it is not ONNX Runtime: it has no function OrtGetApiBase".to_owned())?;
        // SAFETY: the function has no precondition.
        let base = unsafe { get() };
        if base.is_null() {
            return Err("its OrtGetApiBase gives nothing".to_owned());
        }
        Ok(base)
    }

    /// The functions of a library that is older than the table which the bindings were compiled with.
    ///
    /// The built-in engine (feature `builtin-engine`) compiles the bindings' table at version 24, and the bindings themselves
    /// then refuse older libraries, though with feature `api-20` they call nothing newer than 1.20.
    /// The table only ever grows at its end. So the older library's functions are laid over the
    /// beginning of a table of stand-ins that answer "not implemented". The library stays loaded for
    /// as long as the process runs.
    pub fn table(self) -> Result<OrtApi, String> {
        // ONNX Runtime promises this size for ever ("Size of version 20 API cannot change").
        const KNOWN: usize = 285 * size_of::<usize>();
        const { assert!(KNOWN <= size_of::<OrtApi>()) };
        // The first function that 1.20 does not have: 1.21 added none, 1.22 begins here.
        #[cfg(feature = "builtin-engine")]
        const {
            assert!(KNOWN == std::mem::offset_of!(OrtApi, ReleaseValueInfo))
        };
        let base = Self::base(&self.library)?;
        // SAFETY: `base` is the library's static table and any version number may be asked for.
        let old = unsafe { ((*base).GetApi)(OLDEST_MINOR) };
        if old.is_null() {
            return Err(format!(
                "ONNX Runtime {} does not offer the functions of 1.{OLDEST_MINOR}",
                self.version
            ));
        }
        let mut table = ort::sys::stub::api();
        // SAFETY: the library promises that `old` points to all functions of version 1.20, which are
        // the first `KNOWN` bytes of the table; `table` is larger; both are plain function pointers
        // and do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(old.cast::<u8>(), (&raw mut table).cast::<u8>(), KNOWN);
        }
        std::mem::forget(self.library);
        Ok(table)
    }
}

fn minor(version: &str) -> u32 {
    let mut parts = version.split('.');
    match (parts.next(), parts.next()) {
        (Some("1"), Some(minor)) => minor.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_version_of_release_and_preview_names() {
        assert_eq!(minor("1.24.1"), 24);
        assert_eq!(minor("1.20.0-dev"), 20);
        assert_eq!(minor("0.5.0"), 0);
        assert_eq!(minor(""), 0);
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_in_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"not a library").unwrap();
        let error = Library::load(file.path()).err().unwrap();
        assert!(!error.is_empty());
    }
}
