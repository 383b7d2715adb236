//! Decoded head photographs in a memory-mapped file, so that an epoch decodes nothing.
//!
//! Where the data has frames with landmarks instead of aligned heads, the heads are cut here, as
//! [`HeadCrop::RIGHT_WHALE`] says, so that whatever learns from the cache sees head photographs alone.
//! A cache is two files: `<key>.rgb`, the pixels one photograph after the other, and `<key>.json`,
//! where each lies. The key follows from the photographs' content, so another data set gets another
//! cache. The JSON is written last: where it is, the pixels are complete. A build that was interrupted
//! leaves at most a `.partial` file, which nothing reads.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use image::RgbImage;
use indicatif::ParallelProgressIterator;
use memmap2::{Mmap, MmapMut};
use rayon::prelude::*;
use recognition::geometry::{HeadCrop, Landmarks};
use recognition::pixels::{OUTSIDE_HEAD_PHOTOGRAPH, warp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::index::{Index, IndexedPhotograph, PhotographKind, write_json};
use crate::photograph;
use crate::progress::progress_bar;

/// Part of the key: changes where decoding gives other pixels.
const FORMAT_VERSION: u32 = 3;

/// Width and height in pixels of a head photograph that is cut from a frame.
const CUT_SIDE: u32 = 256;

/// Why a cache could not be built or opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A photograph that the index names cannot be decoded any more.
    #[error("{path}: {reason}; run `callosity-train import` again")]
    Photograph {
        /// The photograph.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The files of a cache do not belong together.
    #[error("{path}: damaged cache: {reason}; delete it and it is built again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Where a photograph lies in the data file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Bytes before it.
    offset: u64,
    width: u32,
    height: u32,
}

impl Entry {
    fn of(photograph: &IndexedPhotograph, offset: u64) -> Self {
        let (width, height) = match photograph.kind {
            PhotographKind::Frame => (CUT_SIDE, CUT_SIDE),
            PhotographKind::Head | PhotographKind::UnlabelledHead => {
                (photograph.width, photograph.height)
            }
        };
        Self {
            offset,
            width,
            height,
        }
    }

    fn bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * 3
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    data_digest: String,
    entries: Vec<(String, Entry)>,
}

/// Decoded head photographs by identifier.
pub struct Cache {
    data: Option<Mmap>,
    entries: HashMap<String, Entry>,
}

impl Cache {
    /// Opens the cache in `dir` of the [head photographs](Index::head_photographs) of `index`, or builds
    /// it there.
    ///
    /// # Errors
    /// Where a file cannot be read or written, or a photograph is not what it was at import.
    pub fn open_or_build(index: &Index, dir: &Path) -> Result<Self, CacheError> {
        Self::of(index, index.head_photographs().collect(), dir)
    }

    /// Opens the cache in `dir` of the [heads without names](Index::unlabelled_heads), or builds it there.
    ///
    /// # Errors
    /// As [`open_or_build`](Self::open_or_build).
    pub fn of_unlabelled_heads(index: &Index, dir: &Path) -> Result<Self, CacheError> {
        Self::of(index, index.unlabelled_heads().collect(), dir)
    }

    fn of(
        index: &Index,
        photographs: Vec<&IndexedPhotograph>,
        dir: &Path,
    ) -> Result<Self, CacheError> {
        let mut hasher = Sha256::new();
        hasher.update(FORMAT_VERSION.to_le_bytes());
        for photograph in &photographs {
            hasher.update(photograph.image.as_bytes());
            hasher.update([0]);
            hasher.update(photograph.sha256.as_bytes());
        }
        let digest = hex::encode(hasher.finalize());
        let header = dir.join(format!("{}.json", &digest[..16]));
        let data = dir.join(format!("{}.rgb", &digest[..16]));
        if !header.exists() {
            build(index, &photographs, &digest, &header, &data)?;
        }
        Self::open(&digest, &header, &data)
    }

    fn open(digest: &str, header_path: &Path, data_path: &Path) -> Result<Self, CacheError> {
        let damaged = |path: &Path, reason: String| CacheError::Damaged {
            path: path.into(),
            reason,
        };
        let text = std::fs::read(header_path).map_err(at(header_path))?;
        let header: Header =
            serde_json::from_slice(&text).map_err(|e| damaged(header_path, e.to_string()))?;
        if header.format_version != FORMAT_VERSION || header.data_digest != digest {
            return Err(damaged(header_path, "belongs to other photographs".into()));
        }
        let file = File::open(data_path).map_err(at(data_path))?;
        let length = file.metadata().map_err(at(data_path))?.len();
        let mut expected = 0;
        for (image, entry) in &header.entries {
            if entry.offset != expected {
                return Err(damaged(header_path, format!("{image} is misplaced")));
            }
            expected += entry.bytes();
        }
        if length != expected {
            let reason = format!("{length} bytes, expected {expected}");
            return Err(damaged(data_path, reason));
        }
        let data = if length == 0 {
            None
        } else {
            // SAFETY: a data file gets its name when it is complete and is never written again; nothing
            // in this program truncates one.
            Some(unsafe { Mmap::map(&file) }.map_err(at(data_path))?)
        };
        Ok(Self {
            data,
            entries: header.entries.into_iter().collect(),
        })
    }

    /// RGB bytes of a photograph (row after row, 3 bytes a pixel), its width and its height in pixels;
    /// `None` where the cache does not have it.
    pub fn pixels(&self, image: &str) -> Option<(&[u8], u32, u32)> {
        let entry = self.entries.get(image)?;
        let start = usize::try_from(entry.offset).ok()?;
        let end = start + usize::try_from(entry.bytes()).ok()?;
        Some((
            self.data.as_ref()?.get(start..end)?,
            entry.width,
            entry.height,
        ))
    }

    /// How many photographs it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::File {
        path: path.clone(),
        source,
    }
}

fn build(
    index: &Index,
    photographs: &[&IndexedPhotograph],
    digest: &str,
    header_path: &Path,
    data_path: &Path,
) -> Result<(), CacheError> {
    let dir = data_path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    let mut entries = Vec::with_capacity(photographs.len());
    let mut offset = 0;
    for photograph in photographs {
        let entry = Entry::of(photograph, offset);
        offset += entry.bytes();
        entries.push((photograph.image.clone(), entry));
    }

    // Under a name of its own, so that two programs may build the same cache at once.
    let partial = tempfile::Builder::new()
        .suffix(".partial")
        .tempfile_in(dir)
        .map_err(at(dir))?;
    partial.as_file().set_len(offset).map_err(at(data_path))?;
    if offset > 0 {
        // SAFETY: the file was just made under a random name, for this process alone.
        let mut map = unsafe { MmapMut::map_mut(partial.as_file()) }.map_err(at(data_path))?;
        let mut slots = Vec::with_capacity(entries.len());
        let mut rest: &mut [u8] = &mut map;
        for (_, entry) in &entries {
            let (slot, after) = rest.split_at_mut(entry.bytes() as usize);
            slots.push(slot);
            rest = after;
        }
        let progress = progress_bar("caching photographs", photographs.len());
        photographs
            .par_iter()
            .zip(slots)
            .progress_with(progress)
            .try_for_each(|(photograph, slot)| decode_into(index, photograph, slot))?;
        map.flush().map_err(at(data_path))?;
    }
    partial
        .persist(data_path)
        .map_err(|e| at(data_path)(e.error))?;
    let header = Header {
        format_version: FORMAT_VERSION,
        data_digest: digest.into(),
        entries,
    };
    write_json(header_path, &header).map_err(at(header_path))
}

/// The head photograph that is cut from a frame; `None` where the landmarks coincide.
pub(crate) fn cut_head(frame: &RgbImage, landmarks: &Landmarks) -> Option<RgbImage> {
    let cut = HeadCrop::RIGHT_WHALE.crop_from_frame(landmarks, CUT_SIDE, CUT_SIDE)?;
    Some(warp(
        frame,
        &cut,
        CUT_SIDE,
        CUT_SIDE,
        OUTSIDE_HEAD_PHOTOGRAPH,
    ))
}

fn decode_into(
    index: &Index,
    photograph: &IndexedPhotograph,
    slot: &mut [u8],
) -> Result<(), CacheError> {
    let path = index.path(photograph);
    let changed = |reason: String| CacheError::Photograph {
        path: path.clone(),
        reason,
    };
    let bytes = std::fs::read(&path).map_err(at(&path))?;
    if hex::encode(Sha256::digest(&bytes)) != photograph.sha256 {
        return Err(changed("has changed since it was imported".into()));
    }
    let pixels = photograph::decode(bytes).map_err(|e| changed(e.to_string()))?;
    if pixels.dimensions() != (photograph.width, photograph.height) {
        return Err(changed(format!(
            "is {} × {}, the index says {} × {}",
            pixels.width(),
            pixels.height(),
            photograph.width,
            photograph.height
        )));
    }
    let head = match (photograph.kind, photograph.landmarks.first()) {
        (PhotographKind::Frame, Some(landmarks)) => cut_head(&pixels, landmarks)
            .ok_or_else(|| changed("has landmarks that coincide".into()))?,
        _ => pixels,
    };
    slot.copy_from_slice(head.as_raw());
    Ok(())
}
