//! Batches, prepared on worker threads ahead of the network that eats them.

use std::any::Any;
use std::collections::{BTreeMap, TryReserveError};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Random numbers for one purpose of one run: the same seed and indices give the same numbers on any
/// machine and with any number of threads.
pub fn random(seed: u64, purpose: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&purpose.to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Something that makes training samples.
pub trait Samples: Send + Sync + 'static {
    /// How many different samples an epoch has.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Values of one sample's input.
    fn input_len(&self) -> usize;
    /// Values of one sample's target.
    fn target_len(&self) -> usize;
    /// The order in which an epoch takes the samples, each at most once unless it says otherwise.
    fn order(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut items: Vec<usize> = (0..self.len()).collect();
        items.shuffle(rng);
        items
    }
    /// Writes sample `item` (below [`len`](Self::len)), changed as `rng` says.
    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]);
}

/// Inputs and targets of one step, sample after sample.
pub struct Batch {
    step: u64,
    /// Samples in it.
    pub size: usize,
    /// `size ×` [`Samples::input_len`] values.
    pub input: Vec<f32>,
    /// `size ×` [`Samples::target_len`] values.
    pub target: Vec<f32>,
}

/// Why there is no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoaderError {
    #[error("a worker that prepares the batch of step {step} failed: {reason}")]
    Worker { step: u64, reason: String },
    #[error(
        "out of memory for the batch of step {step}, {samples} samples of {values} values: take fewer \
         --workers, or begin again with a smaller schedule.batch"
    )]
    Memory {
        step: u64,
        samples: usize,
        values: usize,
        source: TryReserveError,
    },
    #[error("the workers that prepare batches ended before step {step}")]
    Ended { step: u64 },
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "it panicked without a message".to_owned())
}

const SHUFFLE: u64 = 1;
const SAMPLE: u64 = 2;

/// Gives the batches of the steps asked for in their order; whole batches only, so an epoch has
/// `len / batch` steps. The first error is its last item.
pub struct Loader {
    ready: Receiver<Result<Batch, LoaderError>>,
    waiting: BTreeMap<u64, Batch>,
    next: u64,
    end: u64,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts `threads` workers on the steps of `steps`, counted from the start of the run.
    pub fn start(
        samples: &Arc<dyn Samples>,
        seed: u64,
        batch: usize,
        steps: Range<u64>,
        threads: usize,
    ) -> Self {
        let threads = threads.max(1);
        let (sender, ready) = bounded(2 * threads);
        let claim = Arc::new(AtomicU64::new(steps.start));
        let end = steps.end;
        let workers = (0..threads)
            .map(|_| {
                let (samples, sender, claim) =
                    (Arc::clone(samples), sender.clone(), Arc::clone(&claim));
                std::thread::spawn(move || {
                    let steps_in_epoch = (samples.len() / batch).max(1) as u64;
                    let mut epoch_order = (u64::MAX, Vec::new());
                    loop {
                        let step = claim.fetch_add(1, Ordering::Relaxed);
                        if step >= end {
                            return;
                        }
                        let (epoch, within) = (step / steps_in_epoch, step % steps_in_epoch);
                        if epoch_order.0 != epoch {
                            let mut rng = random(seed, SHUFFLE, epoch);
                            epoch_order = (epoch, samples.order(&mut rng));
                        }
                        let first = within as usize * batch;
                        let items = &epoch_order.1[first..(first + batch).min(epoch_order.1.len())];
                        let made = catch_unwind(AssertUnwindSafe(|| {
                            make_batch(&*samples, seed, step, items)
                        }));
                        let made = made.unwrap_or_else(|panic| {
                            let reason = panic_text(&*panic);
                            Err(LoaderError::Worker { step, reason })
                        });
                        let failed = made.is_err();
                        // A dropped receiver means that nobody wants more.
                        if sender.send(made).is_err() || failed {
                            return;
                        }
                    }
                })
            })
            .collect();
        Self {
            ready,
            waiting: BTreeMap::new(),
            next: steps.start,
            end,
            workers,
        }
    }
}

fn make_batch(
    samples: &dyn Samples,
    seed: u64,
    step: u64,
    items: &[usize],
) -> Result<Batch, LoaderError> {
    let (n, m) = (samples.input_len(), samples.target_len());
    // An allocation that fails inside `vec!` ends the process without a word in the run folder.
    let zeros = |values: usize| {
        let mut zeros = Vec::new();
        let reserved = zeros.try_reserve_exact(items.len().saturating_mul(values));
        reserved.map_err(|source| LoaderError::Memory {
            step,
            samples: items.len(),
            values,
            source,
        })?;
        zeros.resize(items.len() * values, 0.0);
        Ok(zeros)
    };
    let mut batch = Batch {
        step,
        size: items.len(),
        input: zeros(n)?,
        target: zeros(m)?,
    };
    let parts = batch
        .input
        .chunks_exact_mut(n)
        .zip(batch.target.chunks_exact_mut(m));
    for (k, (&item, (input, target))) in items.iter().zip(parts).enumerate() {
        let mut rng = random(seed, SAMPLE, (step << 16) + k as u64);
        samples.write(item, &mut rng, input, target);
    }
    Ok(batch)
}

/// A batch of the given samples for measuring: the same in each epoch.
///
/// # Errors
/// There is not enough memory.
pub fn measured_batch(
    samples: &dyn Samples,
    seed: u64,
    items: &[usize],
) -> Result<Batch, LoaderError> {
    make_batch(samples, seed, 0, items)
}

impl Iterator for Loader {
    type Item = Result<Batch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        while !self.waiting.contains_key(&self.next) {
            let received = self.ready.recv();
            let made = received.unwrap_or(Err(LoaderError::Ended { step: self.next }));
            match made {
                Ok(batch) => self.waiting.insert(batch.step, batch),
                Err(error) => {
                    self.next = self.end;
                    return Some(Err(error));
                }
            };
        }
        self.next += 1;
        self.waiting.remove(&(self.next - 1)).map(Ok)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Workers blocked on a full channel wake when the receiver is gone.
        self.ready = crossbeam_channel::never();
        for worker in self.workers.drain(..) {
            // What a worker panicked with was sent to the iterator.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    struct Numbers;

    impl Samples for Numbers {
        fn len(&self) -> usize {
            10
        }
        fn input_len(&self) -> usize {
            1
        }
        fn target_len(&self) -> usize {
            1
        }
        fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
            input[0] = item as f32;
            target[0] = rng.random();
        }
    }

    fn batches(steps: Range<u64>, threads: usize) -> Vec<(Vec<f32>, Vec<f32>)> {
        let samples: Arc<dyn Samples> = Arc::new(Numbers);
        Loader::start(&samples, 7, 3, steps, threads)
            .map(|b| b.expect("a batch"))
            .map(|b| (b.input, b.target))
            .collect()
    }

    /// Panics on one of its samples.
    struct Trap;

    impl Samples for Trap {
        fn len(&self) -> usize {
            10
        }
        fn input_len(&self) -> usize {
            1
        }
        fn target_len(&self) -> usize {
            1
        }
        fn write(&self, item: usize, _: &mut ChaCha8Rng, _: &mut [f32], _: &mut [f32]) {
            assert_ne!(item, 4, "photograph 4 is missing");
        }
    }

    /// More than any machine has.
    struct Huge;

    impl Samples for Huge {
        fn len(&self) -> usize {
            10
        }
        fn input_len(&self) -> usize {
            1 << 55
        }
        fn target_len(&self) -> usize {
            1
        }
        fn write(&self, _: usize, _: &mut ChaCha8Rng, _: &mut [f32], _: &mut [f32]) {}
    }

    #[test]
    fn the_failure_of_a_worker_ends_the_batches_with_its_reason() {
        for threads in [1, 3] {
            let samples: Arc<dyn Samples> = Arc::new(Trap);
            let mut loader = Loader::start(&samples, 7, 3, 0..1_000_000, threads);
            let error = loader.find_map(Result::err).expect("it fails");
            assert!(error.to_string().contains("photograph 4 is missing"));
            assert!(loader.next().is_none());
        }
        let samples: Arc<dyn Samples> = Arc::new(Huge);
        let error = Loader::start(&samples, 7, 3, 0..9, 1).find_map(Result::err);
        assert!(error.is_some_and(|e| e.to_string().contains("out of memory")));
    }

    #[test]
    fn batches_do_not_depend_on_threads_or_on_where_a_run_was_resumed() {
        let all = batches(0..9, 1);
        assert_eq!(all, batches(0..9, 4));
        assert_eq!(all[4..], batches(4..9, 2)[..]);
        let mut epoch: Vec<_> = all[..3].iter().flat_map(|b| b.0.clone()).collect();
        epoch.sort_by(f32::total_cmp);
        epoch.dedup();
        assert_eq!(epoch.len(), 9, "no sample twice in an epoch");
    }

    #[test]
    fn an_abandoned_loader_stops_its_workers() {
        let samples: Arc<dyn Samples> = Arc::new(Numbers);
        let mut loader = Loader::start(&samples, 7, 3, 0..1_000_000, 2);
        assert!(loader.next().is_some());
        drop(loader);
    }
}
