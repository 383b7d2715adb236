use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::finder::{candidates, closer_input_from_frame, confirm, suppress};
use super::report::{FrameIdentification, HeadIdentification, StageTimes};
use super::{FoundHead, aligner, decision, ensemble};
use crate::bundle::{Bundle, CloserLook, Finder, Manifest, NetworkInput, Role};
use crate::geometry::{Affine, HeadCrop, Landmarks};
use crate::inference::{Engine, EngineConfig, EngineError, InferenceError, Network};
use crate::pixels::{
    DecodeError, EncodedPhotograph, OUTSIDE_FRAME, OUTSIDE_HEAD_PHOTOGRAPH, Photograph,
    prepare_views, reduce_to_fit,
};

/// How much smaller than the finder thinks a head may turn out to be before its pixels grow scarce.
const SCALE_MARGIN: f64 = 1.15;

/// Why nothing can be said of a photograph.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The photograph cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There is no engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network cannot be loaded or run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The threads that cut inputs cannot be started.
    #[error(transparent)]
    Threads(#[from] ThreadPoolBuildError),
    /// Landmarks were given that are no head's.
    #[error(
        "bonnet ({:.1}, {:.1}) and blowhead ({:.1}, {:.1}) are no landmarks of a head: they coincide or are no numbers",
        landmarks.bonnet.x, landmarks.bonnet.y, landmarks.blowhead.x, landmarks.blowhead.y
    )]
    Landmarks {
        /// The landmarks.
        landmarks: Landmarks,
    },
}

/// Where a photograph's pixels come from.
enum Source<'a> {
    Encoded(&'a EncodedPhotograph),
    Decoded(&'a Photograph),
}

impl<'a> Source<'a> {
    fn size(&self) -> (u32, u32) {
        match self {
            Self::Encoded(photograph) => photograph.size(),
            Self::Decoded(photograph) => (photograph.frame_width, photograph.frame_height),
        }
    }

    fn decode(&self, least_scale: f64) -> Result<Cow<'a, Photograph>, DecodeError> {
        match self {
            Self::Encoded(photograph) => photograph.decode(least_scale).map(Cow::Owned),
            Self::Decoded(photograph) => Ok(Cow::Borrowed(*photograph)),
        }
    }
}

/// A photograph decoded as large as has been needed so far.
struct Pixels<'a> {
    source: Source<'a>,
    photograph: Option<Cow<'a, Photograph>>,
    /// Threads that cut inputs out of it.
    pool: &'a ThreadPool,
    /// Spent on decoding.
    decoding: Duration,
    /// Spent in the networks.
    inference: Duration,
}

impl<'a> Pixels<'a> {
    fn new(source: Source<'a>, pool: &'a ThreadPool) -> Self {
        Self {
            source,
            photograph: None,
            pool,
            decoding: Duration::ZERO,
            inference: Duration::ZERO,
        }
    }

    /// The photograph at a scale not below `least`, or at full size where that is smaller.
    fn at_scale(&mut self, least: f64) -> Result<&Photograph, DecodeError> {
        let least = least.min(1.0);
        let enough = self.photograph.as_ref().is_some_and(|photograph| {
            let transform = photograph.pixels_from_frame();
            // Sides are whole pixels, so the scale may fall short of what was asked by a rounding.
            transform.xx.min(transform.yy) >= least * 0.99
        });
        if !enough || self.photograph.is_none() {
            // The smaller one goes before the larger one comes, so that only one is in memory.
            self.photograph = None;
            let start = Instant::now();
            let photograph = self.source.decode(least)?;
            self.decoding += start.elapsed();
            return Ok(self.photograph.insert(photograph));
        }
        match &self.photograph {
            Some(photograph) => Ok(photograph),
            None => unreachable!("decoded above"),
        }
    }

    /// One output of the network for each cut, given as transforms from the frame to the network's
    /// input, out of the photograph at a scale not below `least`. Every `views` cuts show about the same.
    fn run_on_cuts(
        &mut self,
        network: &SharedNetwork,
        input: &NetworkInput,
        outside: [u8; 3],
        least: f64,
        cuts: &[Affine],
        views: u32,
    ) -> Result<Vec<Vec<f32>>, IdentifyError> {
        let each = 3 * input.width as usize * input.height as usize;
        let mut outputs = Vec::with_capacity(cuts.len());
        let mut spent = Duration::ZERO;
        let pool = self.pool;
        let photograph = self.at_scale(least)?;
        let views = views.max(1) as usize;
        let at_once = views * (network.largest_batch / views).max(1);
        for batch in cuts.chunks(at_once) {
            let mut values = vec![0.0; each * batch.len()];
            pool.install(|| {
                let parts = batch
                    .par_chunks(views)
                    .zip(values.par_chunks_mut(views * each));
                parts.for_each(|(cuts, out)| {
                    let cuts: Vec<Affine> =
                        cuts.iter().map(|cut| in_pixels(photograph, cut)).collect();
                    prepare_views(&photograph.pixels, &cuts, input, outside, out);
                });
            });
            let mut network = network.lock();
            let start = Instant::now();
            let output = network.run(batch.len(), &values)?;
            spent += start.elapsed();
            outputs.extend(output.images().map(<[f32]>::to_vec));
        }
        self.inference += spent;
        Ok(outputs)
    }
}

/// A network that threads take in turns.
#[derive(Debug)]
struct SharedNetwork {
    network: Mutex<Network>,
    /// Known without waiting for a turn, so that inputs are cut while another thread has the network.
    largest_batch: usize,
}

impl SharedNetwork {
    fn new(network: Network) -> Self {
        Self {
            largest_batch: network.largest_batch(),
            network: Mutex::new(network),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        // A thread that panicked left no network in pieces: sessions keep no state between runs.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bundle's networks, ready to find and name heads.
///
/// It may be used from several threads at once; networks take turns, decoding and cutting run beside
/// them. Cutting and the networks use as many threads as [`EngineConfig::threads`] says.
#[derive(Debug)]
pub struct Identifier {
    manifest: Manifest,
    finder: Option<SharedNetwork>,
    aligner: Option<SharedNetwork>,
    ensemble: SharedNetwork,
    bundle: std::path::PathBuf,
    engine: String,
    pool: ThreadPool,
}

impl Identifier {
    /// Loads the networks of a bundle.
    ///
    /// # Errors
    /// There is no engine as asked for, or it does not take a network.
    pub fn new(bundle: &Bundle, config: &EngineConfig) -> Result<Self, IdentifyError> {
        let engine = Engine::start(config)?;
        let load = |role| Network::load(&engine, bundle, role);
        let load_some = |role| match bundle.manifest().network(role) {
            Some(_) => load(role).map(|network| Some(SharedNetwork::new(network))),
            None => Ok(None),
        };
        let ensemble = load(Role::Ensemble)?;
        Ok(Self {
            finder: load_some(Role::Finder)?,
            aligner: load_some(Role::Aligner)?,
            engine: ensemble.engine().to_owned(),
            ensemble: SharedNetwork::new(ensemble),
            pool: ThreadPoolBuilder::new()
                .num_threads(config.threads.max(1))
                .build()?,
            manifest: bundle.manifest().clone(),
            bundle: bundle.directory().to_owned(),
        })
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the networks run on, such as `ONNX Runtime 1.24.1, CPU` or `built-in`.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Finds and names the heads in a frame.
    ///
    /// # Errors
    /// The photograph cannot be decoded, the bundle has no finder, or a network fails.
    pub fn identify_frame(
        &self,
        frame: &EncodedPhotograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify(Pixels::new(Source::Encoded(frame), &self.pool))
    }

    /// Finds and names the heads in a frame that is decoded already.
    ///
    /// # Errors
    /// The bundle has no finder, or a network fails.
    pub fn identify_photograph(
        &self,
        frame: &Photograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify(Pixels::new(Source::Decoded(frame), &self.pool))
    }

    /// Names the head in a head photograph, cut as [`HeadCrop::RIGHT_WHALE`] says, at any size.
    ///
    /// # Errors
    /// The photograph cannot be decoded, or a network fails.
    pub fn identify_head(
        &self,
        crop: &EncodedPhotograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify_crop(Pixels::new(Source::Encoded(crop), &self.pool))
    }

    /// [`identify_head`](Self::identify_head) of a photograph that is decoded already.
    ///
    /// # Errors
    /// A network fails.
    pub fn identify_head_photograph(
        &self,
        crop: &Photograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify_crop(Pixels::new(Source::Decoded(crop), &self.pool))
    }

    /// Names the heads at given landmarks, in pixels of the upright frame at full size.
    ///
    /// # Errors
    /// The photograph cannot be decoded, landmarks are no head's, or a network fails.
    pub fn identify_landmarks(
        &self,
        frame: &EncodedPhotograph,
        landmarks: &[Landmarks],
    ) -> Result<FrameIdentification, IdentifyError> {
        for &landmarks in landmarks {
            self.crop_from_frame(&landmarks)
                .ok_or(IdentifyError::Landmarks { landmarks })?;
        }
        let heads = landmarks.iter().map(|&landmarks| FoundHead {
            landmarks,
            confidence: 1.0,
        });
        self.name(
            Pixels::new(Source::Encoded(frame), &self.pool),
            heads.collect(),
            StageTimes::default(),
        )
    }

    /// Finds the heads in a frame and places their landmarks, without naming them. `refine` says
    /// whether the aligner is used.
    ///
    /// # Errors
    /// The photograph cannot be decoded, the bundle has no finder, or a network fails.
    pub fn locate(
        &self,
        frame: &EncodedPhotograph,
        refine: bool,
    ) -> Result<Vec<FoundHead>, IdentifyError> {
        self.locate_in(Pixels::new(Source::Encoded(frame), &self.pool), refine)
    }

    /// [`locate`](Self::locate) in a frame that is decoded already.
    ///
    /// # Errors
    /// The bundle has no finder, or a network fails.
    pub fn locate_in_photograph(
        &self,
        frame: &Photograph,
        refine: bool,
    ) -> Result<Vec<FoundHead>, IdentifyError> {
        self.locate_in(Pixels::new(Source::Decoded(frame), &self.pool), refine)
    }

    fn locate_in(&self, mut pixels: Pixels, refine: bool) -> Result<Vec<FoundHead>, IdentifyError> {
        let mut heads = self.find(&mut pixels)?;
        if refine {
            self.align(&mut pixels, &mut heads)?;
        }
        Ok(heads)
    }

    fn identify(&self, mut pixels: Pixels) -> Result<FrameIdentification, IdentifyError> {
        let mut times = StageTimes::default();
        let clock = Stopwatch::start(&pixels);
        let mut heads = self.find(&mut pixels)?;
        times.find = clock.stop(&pixels);
        let clock = Stopwatch::start(&pixels);
        self.align(&mut pixels, &mut heads)?;
        times.align = clock.stop(&pixels);
        self.name(pixels, heads, times)
    }

    /// The heads of a frame, as the finder sees them, in pixels of the frame.
    fn find(&self, pixels: &mut Pixels) -> Result<Vec<FoundHead>, IdentifyError> {
        let (Some(finder), Some(network)) = (&self.manifest.finder, &self.finder) else {
            return Err(InferenceError::Absent {
                bundle: self.bundle.clone(),
                role: Role::Finder,
            }
            .into());
        };
        let input = &finder.network.input;
        let (width, height) = pixels.source.size();
        let input_from_frame = reduce_to_fit((width, height), input.width, input.height);
        let Some(frame_from_input) = input_from_frame.inverse() else {
            return Ok(Vec::new());
        };
        let least = input_from_frame.xx;
        let whole = std::slice::from_ref(&input_from_frame);
        let outputs = pixels.run_on_cuts(network, input, OUTSIDE_FRAME, least, whole, 1)?;
        let mut heads: Vec<FoundHead> = outputs
            .iter()
            .flat_map(|output| candidates(finder, output))
            .map(|head| head.map(&frame_from_input))
            .collect();
        if let Some(look) = &finder.closer_look {
            heads = self.look_closer(finder, look, network, pixels, &heads)?;
        }
        let inside = |head: &FoundHead| {
            let centre = head.landmarks.centre();
            (0.0..f64::from(width)).contains(&centre.x)
                && (0.0..f64::from(height)).contains(&centre.y)
        };
        heads.retain(|head| inside(head) && self.crop_from_frame(&head.landmarks).is_some());
        Ok(heads)
    }

    /// Of candidates, those that are heads by both looks, in pixels of the frame.
    fn look_closer(
        &self,
        finder: &Finder,
        look: &CloserLook,
        network: &SharedNetwork,
        pixels: &mut Pixels,
        candidates: &[FoundHead],
    ) -> Result<Vec<FoundHead>, IdentifyError> {
        let input = &finder.network.input;
        let size = pixels.source.size();
        let cuts: Vec<(&FoundHead, Affine)> = candidates
            .iter()
            .filter_map(|head| {
                let cut = closer_input_from_frame(finder, look, size, &head.landmarks)?;
                Some((head, cut))
            })
            .collect();
        if cuts.is_empty() {
            return Ok(Vec::new());
        }
        let transforms: Vec<Affine> = cuts.iter().map(|(_, cut)| *cut).collect();
        // What the first look is sure of is most likely named later: decoded once for all that comes.
        let sure: Vec<FoundHead> = candidates
            .iter()
            .filter(|head| head.confidence >= finder.threshold)
            .copied()
            .collect();
        let least = largest_scale(&transforms).max(self.scale_for_heads(&sure));
        let outputs = pixels.run_on_cuts(network, input, OUTSIDE_FRAME, least, &transforms, 1)?;
        let heads = cuts
            .iter()
            .zip(&outputs)
            .filter_map(|((head, cut), output)| {
                let back = cut.inverse()?;
                Some(confirm(finder, &head.map(cut), output)?.map(&back))
            });
        Ok(suppress(finder, heads.collect()))
    }

    /// Moves the heads' landmarks to where the aligner sees them; of heads that meet there the surest
    /// stays.
    fn align(&self, pixels: &mut Pixels, heads: &mut Vec<FoundHead>) -> Result<(), IdentifyError> {
        let (Some(aligner), Some(network)) = (&self.manifest.aligner, &self.aligner) else {
            return Ok(());
        };
        if heads.is_empty() {
            return Ok(());
        }
        let input = &aligner.network.input;
        for round in 1..=aligner.rounds {
            let views = if round == aligner.rounds {
                aligner.views
            } else {
                1
            };
            // Every head's views go through the network together.
            let cuts: Vec<(usize, Affine)> = heads
                .iter()
                .enumerate()
                .filter_map(|(i, head)| {
                    Some((i, aligner::input_from_frame(aligner, &head.landmarks)?))
                })
                .flat_map(|(i, crop)| {
                    (0..views)
                        .map(move |v| (i, crop.then(&aligner::view(v, input.width, input.height))))
                })
                .collect();
            let transforms: Vec<Affine> = cuts.iter().map(|(_, cut)| *cut).collect();
            let least = largest_scale(&transforms).max(self.scale_for_heads(heads));
            let outputs =
                pixels.run_on_cuts(network, input, OUTSIDE_FRAME, least, &transforms, views)?;
            let mut seen: Vec<Vec<Landmarks>> = vec![Vec::new(); heads.len()];
            for ((i, cut), output) in cuts.iter().zip(&outputs) {
                let back = cut.inverse();
                let landmarks =
                    back.and_then(|back| aligner::landmarks_in_frame(aligner, output, &back));
                seen[*i].extend(landmarks);
            }
            for (head, seen) in heads.iter_mut().zip(&seen) {
                if let Some(mean) = aligner::mean(seen)
                    && aligner::plausible(aligner, &head.landmarks, &mean)
                {
                    head.landmarks = mean;
                }
            }
            if let Some(finder) = &self.manifest.finder {
                *heads = suppress(finder, std::mem::take(heads));
            }
        }
        Ok(())
    }

    /// Names heads at known landmarks.
    fn name(
        &self,
        mut pixels: Pixels,
        heads: Vec<FoundHead>,
        mut times: StageTimes,
    ) -> Result<FrameIdentification, IdentifyError> {
        let clock = Stopwatch::start(&pixels);
        let crops: Vec<(FoundHead, Affine)> = heads
            .iter()
            .filter_map(|&head| Some((head, self.crop_from_frame(&head.landmarks)?)))
            .collect();
        let transforms: Vec<Affine> = crops.iter().map(|(_, crop)| *crop).collect();
        let opinions = self.opinions(&mut pixels, &transforms)?;
        times.identify = clock.stop(&pixels);
        let heads = crops
            .iter()
            .zip(opinions)
            .map(|((head, _), opinion)| self.head(&head.landmarks, head.confidence, &opinion));
        Ok(self.frame(&pixels, heads.collect(), times))
    }

    fn identify_crop(&self, mut pixels: Pixels) -> Result<FrameIdentification, IdentifyError> {
        let clock = Stopwatch::start(&pixels);
        let (width, height) = pixels.source.size();
        let input = &self.manifest.ensemble.network.input;
        let cut =
            self.head_crop()
                .crop_from_head_photograph((width, height), input.width, input.height);
        let opinions = self.opinions(&mut pixels, cut.as_slice())?;
        let times = StageTimes {
            identify: clock.stop(&pixels),
            ..StageTimes::default()
        };
        let landmarks = HeadCrop::RIGHT_WHALE.landmarks(width, height);
        let heads = opinions
            .iter()
            .map(|opinion| self.head(&landmarks, 1.0, opinion));
        Ok(self.frame(&pixels, heads.collect(), times))
    }

    /// What the ensemble says of each crop, given as the transform from the frame to its input.
    fn opinions(
        &self,
        pixels: &mut Pixels,
        crops: &[Affine],
    ) -> Result<Vec<ensemble::Opinion>, IdentifyError> {
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        let ensemble = &self.manifest.ensemble;
        let input = &ensemble.network.input;
        let least = largest_scale(crops);
        let cuts: Vec<Affine> = crops
            .iter()
            .flat_map(|crop| {
                (0..ensemble.views)
                    .map(move |v| crop.then(&ensemble::view(v, input.width, input.height)))
            })
            .collect();
        let outside = OUTSIDE_HEAD_PHOTOGRAPH;
        let logits =
            pixels.run_on_cuts(&self.ensemble, input, outside, least, &cuts, ensemble.views)?;
        Ok(logits
            .chunks(ensemble.views as usize)
            .filter_map(|views| {
                ensemble::opinion(&self.manifest.decision, views.iter().map(Vec::as_slice))
            })
            .collect())
    }

    fn head(
        &self,
        landmarks: &Landmarks,
        confidence: f32,
        opinion: &ensemble::Opinion,
    ) -> HeadIdentification {
        HeadIdentification {
            bonnet: landmarks.bonnet,
            blowhead: landmarks.blowhead,
            confidence,
            decision: decision::decide(&self.manifest.decision, opinion),
            candidates: decision::candidates(&self.manifest.catalogue.individuals, opinion),
            unknown_probability: opinion.unknown,
        }
    }

    fn frame(
        &self,
        pixels: &Pixels,
        heads: Vec<HeadIdentification>,
        times: StageTimes,
    ) -> FrameIdentification {
        let (width, height) = pixels.source.size();
        FrameIdentification {
            width,
            height,
            heads,
            stages_ms: StageTimes {
                decode: milliseconds(pixels.decoding),
                inference: milliseconds(pixels.inference),
                ..times
            },
            engine: self.engine.clone(),
        }
    }

    fn head_crop(&self) -> &HeadCrop {
        &self.manifest.ensemble.head_crop
    }

    fn crop_from_frame(&self, landmarks: &Landmarks) -> Option<Affine> {
        let input = &self.manifest.ensemble.network.input;
        let crop = self
            .head_crop()
            .crop_from_frame(landmarks, input.width, input.height)?;
        // A crop that cannot be mapped back is of a head without size.
        crop.inverse().map(|_| crop)
    }

    /// The scale at which the heads' crops have a pixel of the photograph for each of their own.
    fn scale_for_heads(&self, heads: &[FoundHead]) -> f64 {
        heads
            .iter()
            .filter_map(|head| self.crop_from_frame(&head.landmarks))
            .map(|crop| scale(&crop) * SCALE_MARGIN)
            .fold(0.0, f64::max)
    }
}

/// Wall time of a stage without the decoding in it.
struct Stopwatch {
    start: Instant,
    decoded: Duration,
}

impl Stopwatch {
    fn start(pixels: &Pixels) -> Self {
        Self {
            start: Instant::now(),
            decoded: pixels.decoding,
        }
    }

    fn stop(self, pixels: &Pixels) -> f64 {
        let decoding = pixels.decoding - self.decoded;
        milliseconds(self.start.elapsed().saturating_sub(decoding))
    }
}

/// In milliseconds to a hundredth: more digits are noise.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// The transform as it is for the photograph's pixels instead of the frame.
fn in_pixels(photograph: &Photograph, from_frame: &Affine) -> Affine {
    let pixels_from_frame = photograph.pixels_from_frame();
    match pixels_from_frame.inverse() {
        Some(frame_from_pixels) => frame_from_pixels.then(from_frame),
        None => *from_frame,
    }
}

/// The largest [`scale`] of some transforms; 0 for none.
fn largest_scale(from_frame: &[Affine]) -> f64 {
    from_frame.iter().map(scale).fold(0.0, f64::max)
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
    use proptest::prelude::*;

    use super::*;

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
    }
}
