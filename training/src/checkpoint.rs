//! Checkpoints of a run: the last two, each one file, each known to be whole.
//!
//! A checkpoint is `checkpoint-<step>-<digest>.safetensors`; the digest is the start of the file's SHA-256.
//! The run's position is one of its tensors, as JSON. A new one is on the disk under its name before an
//! older one goes, so a run that is killed at any moment leaves at least one that is good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use crate::files::{Partial, sha256_of_file};
use crate::network::{load_tensors, write_tensors};

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";
/// Name of the tensor that holds the position.
const POSITION: &str = "position";
/// Hexadecimal digits of the digest in a name.
const DIGITS: usize = 16;

/// The checkpoints of one run folder.
pub struct Checkpoints {
    folder: PathBuf,
    /// The newest that is known to be good.
    good: Option<PathBuf>,
}

impl Checkpoints {
    /// Those in `folder`, none of them read yet.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            good: None,
        }
    }

    /// The newest that this process wrote or read.
    pub fn good(&self) -> Option<&Path> {
        self.good.as_deref()
    }

    /// All that are there, good or not, the newest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<PathBuf>> {
        let context = || format!("reading {}", self.folder.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            if let Some((step, _)) = parse(&path) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found.into_iter().rev().map(|(_, path)| path).collect())
    }

    /// Writes a checkpoint of `step`, and then removes all but this one and the good one before it.
    ///
    /// # Errors
    /// A file cannot be written (those before it stay) or removed.
    pub fn write(
        &mut self,
        step: u64,
        mut tensors: BTreeMap<String, Tensor>,
        position: &impl Serialize,
    ) -> anyhow::Result<()> {
        let position = serde_json::to_vec(position).context("writing the position")?;
        tensors.insert(POSITION.to_owned(), Tensor::from_slice(&position));
        let path = self.put(step, &tensors).with_context(|| {
            let good = match &self.good {
                Some(path) => format!("{} is good", path.display()),
                None => "there is none before it".to_owned(),
            };
            format!(
                "writing the checkpoint of step {step} in {} ({good}); is there space left on its disk?",
                self.folder.display()
            )
        })?;
        let before = self.good.replace(path.clone());
        for other in self.list()? {
            if other != path && Some(&other) != before.as_ref() {
                remove(&other)?;
            }
        }
        Ok(())
    }

    fn put(&self, step: u64, tensors: &BTreeMap<String, Tensor>) -> anyhow::Result<PathBuf> {
        let partial = Partial::new(&self.folder)?;
        write_tensors(tensors, partial.path())?;
        let digest = &sha256_of_file(partial.path())?[..DIGITS];
        let path = self
            .folder
            .join(format!("{PREFIX}{step:08}-{digest}{SUFFIX}"));
        partial.keep(&path)?;
        Ok(path)
    }

    /// Position and tensors of the newest that is whole. Says on standard error which were not.
    ///
    /// # Errors
    /// None is.
    pub fn read<P: DeserializeOwned>(&mut self) -> anyhow::Result<(P, BTreeMap<String, Tensor>)> {
        for path in self.list()? {
            match read(&path) {
                Ok(content) => {
                    self.good = Some(path);
                    return Ok(content);
                }
                Err(reason) => eprintln!(
                    "warning: {} is damaged: {reason:#}; trying the checkpoint before it",
                    path.display()
                ),
            }
        }
        bail!(
            "{} has no checkpoint that is whole; remove the folder and start again",
            self.folder.display()
        )
    }

    /// Removes all, the oldest first.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn remove(&mut self) -> anyhow::Result<()> {
        self.list()?.iter().rev().try_for_each(|path| remove(path))
    }
}

/// Step and digest from a checkpoint's name.
fn parse(path: &Path) -> Option<(u64, &str)> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (step, digest) = stem.split_once('-')?;
    Some((step.parse().ok()?, digest))
}

fn read<P: DeserializeOwned>(path: &Path) -> anyhow::Result<(P, BTreeMap<String, Tensor>)> {
    let found = sha256_of_file(path)?;
    let (_, wanted) = parse(path).context("it has another name")?;
    ensure!(
        found[..DIGITS] == *wanted,
        "its SHA-256 begins with {}, not with {wanted} as when it was written",
        &found[..DIGITS]
    );
    let mut tensors = load_tensors(path)?;
    let position = tensors.remove(POSITION).context("it has no position")?;
    let position = Vec::<u8>::try_from(&position).context("its position is no text")?;
    let position = serde_json::from_slice(&position).context("its position has another form")?;
    Ok((position, tensors))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        BTreeMap::from([("weight".to_owned(), Tensor::from_slice(&[value; 20]))])
    }

    /// Position and the value of the tensors.
    fn newest(folder: &Path) -> anyhow::Result<(u64, f64)> {
        let (position, tensors) = Checkpoints::of(folder).read::<u64>()?;
        Ok((position, tensors["weight"].double_value(&[0])))
    }

    fn two(folder: &Path) -> Vec<PathBuf> {
        let mut checkpoints = Checkpoints::of(folder);
        for step in 1..=5u64 {
            let written = checkpoints.write(step, tensors(step as f32), &(step * 10));
            written.expect("written");
        }
        checkpoints.list().expect("a folder")
    }

    #[test]
    fn the_last_two_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = two(folder.path());
        let steps: Vec<u64> = kept.iter().map(|p| parse(p).expect("a name").0).collect();
        assert_eq!(steps, [5, 4]);
        assert_eq!(newest(folder.path()).expect("whole"), (50, 5.0));
        let files = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, 2, "nothing else is left");
    }

    #[test]
    fn a_damaged_one_is_not_taken_for_the_good_one_before_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = two(folder.path());
        std::fs::write(&kept[0], b"").expect("emptied");
        let mut checkpoints = Checkpoints::of(folder.path());
        assert_eq!(checkpoints.read::<u64>().expect("the one before").0, 40);
        checkpoints.write(5, tensors(5.0), &50).expect("written");
        let mut left = checkpoints.list().expect("a folder");
        left.sort();
        let mut whole = kept.clone();
        whole.sort();
        // The same step, the same content, the same name as the damaged one.
        assert_eq!(left, whole);
        assert_eq!(newest(folder.path()).expect("whole"), (50, 5.0));
        std::fs::write(&kept[0], b"").expect("emptied");
        std::fs::write(&kept[1], b"").expect("emptied");
        let error = newest(folder.path()).expect_err("both are empty");
        assert!(error.to_string().contains("start again"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_damage_is_noticed_and_the_one_before_is_read(
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
            cut in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let newer = two(folder.path()).remove(0);
            let mut bytes = std::fs::read(&newer).expect("there");
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            std::fs::write(&newer, bytes).expect("damaged");
            prop_assert_eq!(newest(folder.path()).expect("the one before"), (40, 4.0));
        }
    }
}
