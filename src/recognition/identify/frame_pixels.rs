use std::borrow::Cow;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::bundle::NetworkInput;
use crate::geometry::{Affine, Rectangle};
use crate::pixels::{DecodeError, Faults, ImageRef, Photograph, prepare_views};

/// How much more than is needed may be on each side once landmarks have moved, as a share of the longer one.
const MARGIN: f64 = 0.15;

/// How much smaller than its landmarks say a head may turn out to be before its pixels grow scarce.
const SCALE_MARGIN: f64 = 1.15;

/// A part of a frame and how large it is shown.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// In pixels of the upright frame at full size; what lies outside of it is not needed.
    part: Rectangle,
    /// Pixels for each of the frame's, along either axis; above 1 counts as 1.
    scale: f64,
}

impl Extent {
    fn union(&self, other: &Self) -> Self {
        Self {
            part: self.part.union(&other.part),
            scale: self.scale.max(other.scale),
        }
    }

    fn within(&self, frame: &Rectangle) -> Self {
        Self {
            part: self.part.clamped(frame),
            ..*self
        }
    }

    /// Whether the photograph shows all of it as large.
    fn is_shown_by(&self, photograph: &Photograph) -> bool {
        let transform = photograph.pixels_from_frame();
        // Sides are whole pixels, so the scale may fall short of what was asked by a rounding.
        photograph.part.contains(&self.part)
            && transform.xx.min(transform.yy) >= self.scale.min(1.0) * 0.99
    }

    /// What decoding it and cutting inputs out of it costs, in pixels of a frame this wide that are read
    /// over: a JPEG is read from its top to the part's bottom. What follows for the part's pixels takes
    /// about twice as long for each, and the less the more they are reduced; they weigh eight times that, for
    /// they take memory too: a fourth less of it on the real frames, in hardly more time.
    fn cost(&self, frame_width: f64) -> f64 {
        let area = self.part.width() * self.part.height();
        self.part.bottom * frame_width + 16.0 * area * self.scale.min(1.0)
    }
}

/// What is needed of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// What must be there.
    now: Extent,
    /// What is decoded where that is not there: as much, or what may be needed next as well.
    later: Extent,
}

impl Need {
    /// What cuts need, given as transforms from the frame to a network's input.
    pub fn of(cuts: &[Affine], input: &NetworkInput) -> Self {
        let input = Rectangle::of_image(input.width, input.height);
        let parts = cuts
            .iter()
            .filter_map(|cut| Some(input.bounds_after(&cut.inverse()?)));
        let now = Extent {
            part: parts
                .reduce(|a, b| a.union(&b))
                .unwrap_or(Rectangle::of_image(0, 0)),
            scale: cuts.iter().map(scale).fold(0.0, f64::max),
        };
        Self { now, later: now }
    }

    /// Of cuts around landmarks that are going to be placed better: these will need about the same.
    pub fn with_margin(self) -> Self {
        let Extent { part, scale } = self.now;
        Self {
            later: Extent {
                part: part.grown(MARGIN * part.width().max(part.height())),
                scale: SCALE_MARGIN * scale,
            },
            ..self
        }
    }
}

/// The pixels of a frame, decoded where and as large as they are needed.
pub(super) struct FramePixels<'a> {
    source: ImageRef<'a>,
    decoded: Vec<Cow<'a, Photograph>>,
    /// The last inputs that were cut: in memory that is there already the next ones are written faster.
    inputs: Vec<f32>,
    /// Threads that cut inputs out of them.
    pool: &'a ThreadPool,
    /// Spent on decoding.
    pub decoding: Duration,
    /// Spent in the networks.
    pub inference: Duration,
}

impl<'a> FramePixels<'a> {
    pub fn new(source: ImageRef<'a>, pool: &'a ThreadPool) -> Self {
        Self {
            source,
            decoded: source.decoded().map(Cow::Borrowed).into_iter().collect(),
            inputs: Vec::new(),
            pool,
            decoding: Duration::ZERO,
            inference: Duration::ZERO,
        }
    }

    /// Width and height of the upright frame at full size.
    pub fn size(&self) -> (u32, u32) {
        self.source.size()
    }

    /// Decodes what is needed and not there yet: at once what lies together, apart what lies far apart. What
    /// is there and not needed goes first.
    pub fn provide(&mut self, needs: impl IntoIterator<Item = Need>) -> Result<(), DecodeError> {
        if self.source.decoded().is_some() {
            return Ok(());
        }
        let source = self.source;
        let readable = self.readable();
        let needs: Vec<Need> = needs
            .into_iter()
            .map(|need| Need {
                now: need.now.within(&readable),
                later: need.later.within(&readable),
            })
            .collect();
        self.decoded
            .retain(|decoded| needs.iter().any(|need| need.now.is_shown_by(decoded)));
        let is_missing = |need: &&Need| !self.decoded.iter().any(|d| need.now.is_shown_by(d));
        let missing = needs.iter().filter(is_missing).map(|need| need.later);
        let joined = if source.is_decoded_in_part() {
            join(missing.collect(), f64::from(self.size().0))
        } else {
            missing.reduce(|a, b| a.union(&b)).into_iter().collect()
        };
        let start = Instant::now();
        let decode = |extent: &Extent| source.decode_part(&extent.part, extent.scale);
        let decoded: Vec<Photograph> = run_on(self.pool, || {
            joined.par_iter().map(decode).collect::<Result<_, _>>()
        })?;
        self.decoding += start.elapsed();
        self.decoded.extend(decoded.into_iter().map(Cow::Owned));
        Ok(())
    }

    /// The part of the frame that has pixels, as far as decoding has found out; what lies outside of it is
    /// outside of the frame for the networks.
    pub fn readable(&self) -> Rectangle {
        self.source.readable()
    }

    /// What is wrong with the photograph, as far as decoding has found out.
    pub fn faults(&self) -> Faults {
        self.source.faults()
    }

    /// Of the photographs that meet a need, the one with the least to reduce; a photograph that came
    /// decoded has to do.
    fn best_for(&self, need: &Need) -> Option<&Photograph> {
        let now = need.now.within(&self.readable());
        let scale = |photograph: &&Cow<Photograph>| photograph.pixels_from_frame().xx;
        let decoded = self.decoded.iter();
        decoded
            .filter(|photograph| now.is_shown_by(photograph))
            .min_by(|a, b| scale(a).total_cmp(&scale(b)))
            .or(self.decoded.first())
            .map(AsRef::as_ref)
    }

    /// The network's inputs, one after the other, for cuts whose needs have been provided. There is one
    /// need for each equal share of the cuts, which show about the same.
    pub fn cut(
        &mut self,
        cuts: &[Affine],
        needs: &[Need],
        input: &NetworkInput,
        outside: [u8; 3],
    ) -> &[f32] {
        let each = 3 * input.width as usize * input.height as usize;
        let views = cuts.len() / needs.len().max(1);
        let mut values = std::mem::take(&mut self.inputs);
        values.resize(each * cuts.len(), 0.0);
        let this = &*self;
        run_on(this.pool, || {
            let shares = cuts
                .par_chunks(views.max(1))
                .zip(values.par_chunks_mut((views * each).max(1)));
            shares.zip(needs).for_each(|((cuts, out), need)| {
                let Some(photograph) = this.best_for(need) else {
                    out.fill(0.0);
                    return;
                };
                let from_pixels = photograph.frame_from_pixels();
                let cuts: Vec<Affine> = cuts.iter().map(|cut| from_pixels.then(cut)).collect();
                prepare_views(&photograph.pixels, &cuts, input, outside, out);
            });
        });
        self.inputs = values;
        &self.inputs
    }
}

/// Does `work` on the threads of `pool`. A thread of another pool that waits in [`ThreadPool::install`] meanwhile begins
/// other work of its own pool; where that comes here too, work lies upon work until the stack is full. So a thread that
/// belongs to no pool waits in its place.
fn run_on<R: Send>(pool: &ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    let of_another =
        rayon::current_thread_index().is_some() && pool.current_thread_index().is_none();
    if !of_another {
        return pool.install(work);
    }
    let done = thread::scope(|scope| scope.spawn(|| pool.install(work)).join());
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Extents joined where decoding them at once costs no more than one after the other.
fn join(mut extents: Vec<Extent>, frame_width: f64) -> Vec<Extent> {
    let mut i = 0;
    while i < extents.len() {
        let saves = |other: &Extent| {
            extents[i].union(other).cost(frame_width)
                <= extents[i].cost(frame_width) + other.cost(frame_width)
        };
        match extents[i + 1..].iter().position(saves) {
            Some(offset) => {
                let other = extents.swap_remove(i + 1 + offset);
                extents[i] = extents[i].union(&other);
                // It may now join those that it was kept apart from.
                i = 0;
            }
            None => i += 1,
        }
    }
    extents
}

/// The larger of the factors by which a transform stretches the frame's axes: at this scale a
/// photograph has a pixel for each of the output's.
fn scale(from_frame: &Affine) -> f64 {
    // Largest singular value.
    let sum = from_frame.xx.powi(2)
        + from_frame.xy.powi(2)
        + from_frame.yx.powi(2)
        + from_frame.yy.powi(2);
    let det = from_frame.determinant();
    ((sum + (sum * sum - 4.0 * det * det).max(0.0).sqrt()) / 2.0).sqrt()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;
    use rayon::ThreadPoolBuilder;

    use super::*;

    /// Photographs that another pool goes through are looked at one after the other by each of its threads.
    #[test]
    fn waiting_for_the_pool_begins_nothing_else() {
        thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
        let pool = |threads| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
        };
        let (own, other) = (pool(2), pool(2));
        let look = |_| {
            DEPTH.set(DEPTH.get() + 1);
            run_on(&own, || thread::sleep(Duration::from_micros(100)));
            let depth = DEPTH.get();
            DEPTH.set(depth - 1);
            depth
        };
        let deepest = other.install(|| (0..300).into_par_iter().map(look).max());
        assert_eq!(deepest, Some(1));
        let defect = || other.install(|| run_on(&own, || panic!("a lens cap")));
        let panics = catch_unwind(AssertUnwindSafe(defect));
        let said = panics.unwrap_err();
        assert_eq!(said.downcast_ref(), Some(&"a lens cap"));
    }

    proptest! {
        #[test]
        fn scale_is_the_largest_stretch(
            turn in 0.0..7.0_f64, x in 0.01..10.0_f64, y in 0.01..10.0_f64, after in 0.0..7.0_f64,
        ) {
            let transform = Affine::rotation(turn)
                .then(&Affine::scaling(x, y))
                .then(&Affine::rotation(after));
            prop_assert!((scale(&transform) - x.max(y)).abs() < 1e-6);
        }

        #[test]
        fn joined_extents_hold_all_at_no_more_cost(
            extents in prop::collection::vec(
                ((0.0..3000.0_f64, 0.0..2000.0_f64), (1.0..1500.0_f64, 1.0..1500.0_f64), 0.05..1.0_f64),
                0..12,
            ),
        ) {
            let extents: Vec<Extent> = extents
                .into_iter()
                .map(|((left, top), (width, height), scale)| Extent {
                    part: Rectangle { left, top, right: left + width, bottom: top + height },
                    scale,
                })
                .collect();
            let joined = join(extents.clone(), 3000.0);
            for extent in &extents {
                prop_assert!(joined
                    .iter()
                    .any(|j| j.part.contains(&extent.part) && j.scale >= extent.scale));
            }
            let cost = |extents: &[Extent]| extents.iter().map(|extent| extent.cost(3000.0)).sum::<f64>();
            prop_assert!(cost(&joined) <= cost(&extents) * (1.0 + 1e-9));
        }
    }
}
