use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::finder::{self, LikelyHead, candidates, closer_input_from_frame, suppress};
use super::frame_pixels::{FramePixels, Need};
use super::report::{
    FrameDetections, FrameIdentification, HeadIdentification, Identification, StageTimes,
};
use super::{
    FoundHead, Neighbours, Opinion, PooledOpinion, Similarities, aligner, decision, ensemble,
    mean_embedding,
};
use crate::bundle::{Bundle, CloserLook, Finder, Manifest, NetworkInput, Role};
use crate::geometry::{Affine, HeadCrop, Landmarks};
use crate::inference::{
    Engine, EngineConfig, EngineError, ExecutionProvider, InferenceError, Network,
};
use crate::pixels::{
    DecodeError, EncodedPhotograph, Image, ImageRef, OUTSIDE_FRAME, OUTSIDE_HEAD_PHOTOGRAPH,
    Photograph, reduce_to_fit,
};

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

/// A network that threads share: as often as it is loaded, so many run it at once; further ones wait.
#[derive(Debug)]
struct SharedNetwork {
    copies: Vec<Mutex<Network>>,
    /// Known without waiting for a turn, so that inputs are cut while another thread has the network.
    largest_batch: usize,
}

impl SharedNetwork {
    fn load(engine: &Engine, bundle: &Bundle, role: Role) -> Result<Self, InferenceError> {
        let network = Network::load(engine, bundle, role)?;
        let largest_batch = network.largest_batch();
        // Other processors run one after the other anyway, and have less memory.
        let copies = match network.provider() {
            ExecutionProvider::Cpu => engine.config().at_once,
            ExecutionProvider::Cuda | ExecutionProvider::TensorRt => 1,
        };
        let further = (1..copies).map(|_| Network::load(engine, bundle, role));
        let networks: Vec<Network> = std::iter::once(Ok(network))
            .chain(further)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            copies: networks.into_iter().map(Mutex::new).collect(),
            largest_batch,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        // A thread that panicked left no network in pieces: sessions keep no state between runs.
        for copy in &self.copies {
            match copy.try_lock() {
                Ok(network) => return network,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let first = &self.copies[0];
        first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bundle's networks, ready to find and name heads.
///
/// It may be used from several threads at once, [`EngineConfig::at_once`] says from how many. Cutting and the networks use
/// as many threads as [`EngineConfig::threads`] says.
#[derive(Debug)]
pub struct Identifier {
    manifest: Manifest,
    finder: Option<SharedNetwork>,
    aligner: Option<SharedNetwork>,
    ensemble: SharedNetwork,
    neighbours: Option<Neighbours>,
    bundle: std::path::PathBuf,
    engines: Vec<(Role, String)>,
    pool: ThreadPool,
}

/// A head that the ensemble has seen and that is not named yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Where it is, in pixels of the upright frame at full size.
    pub landmarks: Landmarks,
    /// How sure the finder is that this is a head, 0…1; 1 where the head was given and not found.
    pub confidence: f32,
    /// Of each view.
    logits: Vec<Vec<f32>>,
    embedding: Option<Vec<f32>>,
}

impl Detection {
    /// What the ensemble says of each view: logits in the catalogue's order, before temperature.
    pub fn logits(&self) -> &[Vec<f32>] {
        &self.logits
    }

    /// A unit vector, near those of other photographs of the individual; `None` where the bundle's ensemble
    /// gives none.
    pub fn embedding(&self) -> Option<&[f32]> {
        self.embedding.as_deref()
    }
}

impl Identifier {
    /// Loads the networks of a bundle.
    ///
    /// # Errors
    /// There is no engine as asked for, or it does not take a network.
    pub fn new(bundle: &Bundle, config: &EngineConfig) -> Result<Self, IdentifyError> {
        let engine = Engine::start(config)?;
        let load = |role| SharedNetwork::load(&engine, bundle, role);
        let load_some = |role| match bundle.manifest().network(role) {
            Some(_) => load(role).map(Some),
            None => Ok(None),
        };
        let finder = load_some(Role::Finder)?;
        let aligner = load_some(Role::Aligner)?;
        let ensemble = load(Role::Ensemble)?;
        let networks = [finder.as_ref(), aligner.as_ref(), Some(&ensemble)];
        let engines = networks.into_iter().flatten().map(|shared| {
            let network = shared.lock();
            (network.role(), network.engine().to_owned())
        });
        Ok(Self {
            engines: engines.collect(),
            finder,
            aligner,
            ensemble,
            neighbours: Neighbours::of(bundle).map_err(InferenceError::from)?,
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

    /// The gallery that heads are compared with, where the bundle has one.
    pub fn neighbours(&self) -> Option<&Neighbours> {
        self.neighbours.as_ref()
    }

    /// What the networks run on, such as `ONNX Runtime 1.24.1, CPU` or `built-in`; where they run differently, such as
    /// `finder: …; ensemble: …`.
    pub fn engine(&self) -> String {
        let mut different = self.engines.iter().map(|(_, engine)| engine);
        match different.next() {
            Some(first) if different.all(|engine| engine == first) => first.clone(),
            _ => {
                let all = self
                    .engines
                    .iter()
                    .map(|(role, engine)| format!("{role}: {engine}"));
                all.collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// What each network really runs on.
    pub fn engines(&self) -> impl Iterator<Item = (Role, &str)> {
        self.engines
            .iter()
            .map(|(role, engine)| (*role, engine.as_str()))
    }

    /// Finds and names the heads in a frame.
    ///
    /// # Errors
    /// The photograph cannot be decoded, the bundle has no finder, or a network fails.
    pub fn identify_frame(
        &self,
        frame: &EncodedPhotograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify(FramePixels::new(ImageRef::Encoded(frame), &self.pool))
    }

    /// Finds and names the heads in a frame as a camera gave it.
    ///
    /// # Errors
    /// The frame cannot be decoded, the bundle has no finder, or a network fails.
    pub fn identify_image(&self, frame: &Image) -> Result<FrameIdentification, IdentifyError> {
        self.identify(FramePixels::new(frame.as_ref(), &self.pool))
    }

    /// Finds and names the heads in a frame that is decoded already.
    ///
    /// # Errors
    /// The bundle has no finder, or a network fails.
    pub fn identify_photograph(
        &self,
        frame: &Photograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify(FramePixels::new(ImageRef::Decoded(frame), &self.pool))
    }

    /// Names the head in a head photograph, cut as [`HeadCrop::RIGHT_WHALE`] says, at any size.
    ///
    /// # Errors
    /// The photograph cannot be decoded, or a network fails.
    pub fn identify_head(
        &self,
        crop: &EncodedPhotograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify_crop(FramePixels::new(ImageRef::Encoded(crop), &self.pool))
    }

    /// [`identify_head`](Self::identify_head) of a photograph that is decoded already.
    ///
    /// # Errors
    /// A network fails.
    pub fn identify_head_photograph(
        &self,
        crop: &Photograph,
    ) -> Result<FrameIdentification, IdentifyError> {
        self.identify_crop(FramePixels::new(ImageRef::Decoded(crop), &self.pool))
    }

    /// Finds the heads in a frame and shows them to the ensemble, without naming them.
    ///
    /// # Errors
    /// The photograph cannot be decoded, the bundle has no finder, or a network fails.
    pub fn detect_frame(&self, frame: &EncodedPhotograph) -> Result<Vec<Detection>, IdentifyError> {
        let mut pixels = FramePixels::new(ImageRef::Encoded(frame), &self.pool);
        let mut heads = self.find(&mut pixels)?;
        self.align(&mut pixels, &mut heads)?;
        let crops = self.crops(&heads);
        self.see(
            &mut pixels,
            &crops,
            self.manifest.ensemble.embedding.is_some(),
        )
    }

    /// Shows a head photograph, cut as [`HeadCrop::RIGHT_WHALE`] says, at any size, to the ensemble, without
    /// naming it. `None` where the photograph has no pixels.
    ///
    /// # Errors
    /// The photograph cannot be decoded, or a network fails.
    pub fn detect_head(
        &self,
        crop: &EncodedPhotograph,
    ) -> Result<Option<Detection>, IdentifyError> {
        let mut pixels = FramePixels::new(ImageRef::Encoded(crop), &self.pool);
        let crops: Vec<_> = self.crop_of_head_photograph(&pixels).into_iter().collect();
        let embed = self.manifest.ensemble.embedding.is_some();
        Ok(self.see(&mut pixels, &crops, embed)?.pop())
    }

    /// Finds the heads in a frame and shows them to the ensemble, without naming them: for who joins several frames
    /// before a name is said. [`identify_frame`](Self::identify_frame) is this and [`judge`](Self::judge).
    ///
    /// # Errors
    /// The photograph cannot be decoded, the bundle has no finder, or a network fails.
    pub fn examine_frame(
        &self,
        frame: &EncodedPhotograph,
    ) -> Result<FrameDetections, IdentifyError> {
        self.examine(FramePixels::new(ImageRef::Encoded(frame), &self.pool))
    }

    /// [`examine_frame`](Self::examine_frame) of a frame that is decoded already.
    ///
    /// # Errors
    /// The bundle has no finder, or a network fails.
    pub fn examine_photograph(&self, frame: &Photograph) -> Result<FrameDetections, IdentifyError> {
        self.examine(FramePixels::new(ImageRef::Decoded(frame), &self.pool))
    }

    /// [`examine_frame`](Self::examine_frame) of a frame as a camera gave it.
    ///
    /// # Errors
    /// As of that.
    pub fn examine_image(&self, frame: &Image) -> Result<FrameDetections, IdentifyError> {
        self.examine(FramePixels::new(frame.as_ref(), &self.pool))
    }

    fn examine(&self, mut pixels: FramePixels) -> Result<FrameDetections, IdentifyError> {
        let (found, mut times) = self.find_and_align(&mut pixels)?;
        let clock = Stopwatch::start(&pixels);
        let crops = self.crops(&found);
        let embed = self.manifest.ensemble.embedding.is_some();
        let heads = self.see(&mut pixels, &crops, embed)?;
        times.identify = clock.stop(&pixels);
        Ok(FrameDetections {
            faults: pixels.faults(),
            heads,
            stages_ms: with_pixels(times, &pixels),
        })
    }

    /// Names a head that was seen, by the networks and by its neighbours, which need not be those of the
    /// bundle ([`neighbours`](Self::neighbours)).
    pub fn judge(&self, head: &Detection, neighbours: Option<&Neighbours>) -> HeadIdentification {
        let said = self.conclude(&self.opinion(head, neighbours), neighbours);
        HeadIdentification {
            bonnet: head.landmarks.bonnet,
            blowhead: head.landmarks.blowhead,
            confidence: head.confidence,
            decision: said.decision,
            unknown_probability: said.unknown_probability,
            candidates: said.candidates,
        }
    }

    /// Names one animal's head by several frames of a pass, whose order does not matter; `None` without any.
    pub fn judge_together(
        &self,
        frames: &[Detection],
        neighbours: Option<&Neighbours>,
    ) -> Option<Identification> {
        let (first, others) = frames.split_first()?;
        let mut pooled = PooledOpinion::of(&self.opinion(first, neighbours));
        for head in others {
            pooled.add(&self.opinion(head, neighbours));
        }
        Some(self.conclude(&pooled.opinion(), neighbours))
    }

    /// What networks and neighbours say of a head, before anything is decided.
    pub fn opinion(&self, head: &Detection, neighbours: Option<&Neighbours>) -> Opinion {
        let compared = neighbours
            .zip(head.embedding())
            .map(|(neighbours, embedding)| {
                let nearest = neighbours.similarities(embedding);
                (neighbours, nearest, neighbours.familiarity(embedding))
            });
        let similarities =
            compared
                .as_ref()
                .map(|(neighbours, nearest, familiarity)| Similarities {
                    model: neighbours.model(),
                    nearest,
                    familiarity: *familiarity,
                });
        let views = head.logits.iter().map(Vec::as_slice);
        let decision = &self.manifest.decision;
        ensemble::opinion(decision, similarities, views).unwrap_or_else(|| {
            unreachable!("a head is seen in at least one view, by a catalogue of at least one")
        })
    }

    /// Decides by the bundle's rule, on an [`opinion`](Self::opinion) with the same `neighbours` or several
    /// [pooled](PooledOpinion).
    pub fn conclude(&self, opinion: &Opinion, neighbours: Option<&Neighbours>) -> Identification {
        // Without an embedding nobody is compared with the neighbours, and the catalogue alone is named.
        let catalogue = &self.manifest.catalogue.individuals;
        let individuals = neighbours
            .map(Neighbours::individuals)
            .filter(|individuals| individuals.len() == opinion.probabilities.len())
            .unwrap_or(catalogue);
        Identification {
            decision: decision::decide(&self.manifest.decision, opinion),
            unknown_probability: opinion.unknown,
            candidates: decision::candidates(individuals, opinion),
        }
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
            FramePixels::new(ImageRef::Encoded(frame), &self.pool),
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
        self.locate_in(
            FramePixels::new(ImageRef::Encoded(frame), &self.pool),
            refine,
        )
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
        self.locate_in(
            FramePixels::new(ImageRef::Decoded(frame), &self.pool),
            refine,
        )
    }

    fn locate_in(
        &self,
        mut pixels: FramePixels,
        refine: bool,
    ) -> Result<Vec<FoundHead>, IdentifyError> {
        let mut heads = self.find(&mut pixels)?;
        if refine {
            self.align(&mut pixels, &mut heads)?;
        }
        Ok(heads)
    }

    fn identify(&self, mut pixels: FramePixels) -> Result<FrameIdentification, IdentifyError> {
        let (heads, times) = self.find_and_align(&mut pixels)?;
        self.name(pixels, heads, times)
    }

    fn find_and_align(
        &self,
        pixels: &mut FramePixels,
    ) -> Result<(Vec<FoundHead>, StageTimes), IdentifyError> {
        let mut times = StageTimes::default();
        let clock = Stopwatch::start(pixels);
        let mut heads = self.find(pixels)?;
        times.find = clock.stop(pixels);
        let clock = Stopwatch::start(pixels);
        self.align(pixels, &mut heads)?;
        times.align = clock.stop(pixels);
        Ok((heads, times))
    }

    /// The heads of a frame, as the finder sees them, in pixels of the frame.
    fn find(&self, pixels: &mut FramePixels) -> Result<Vec<FoundHead>, IdentifyError> {
        let (Some(finder), Some(network)) = (&self.manifest.finder, &self.finder) else {
            return Err(InferenceError::Absent {
                bundle: self.bundle.clone(),
                role: Role::Finder,
            }
            .into());
        };
        let input = &finder.network.input;
        let (width, height) = pixels.size();
        let input_from_frame = reduce_to_fit((width, height), input.width, input.height);
        let Some(frame_from_input) = input_from_frame.inverse() else {
            return Ok(Vec::new());
        };
        let whole = std::slice::from_ref(&input_from_frame);
        pixels.provide(needed_for(whole, input, 1))?;
        let outputs = run_on_cuts(pixels, network, input, OUTSIDE_FRAME, whole, 1)?;
        let mut heads: Vec<FoundHead> = outputs
            .iter()
            .flat_map(|output| candidates(finder, output))
            .map(|head| head.map(&frame_from_input))
            .collect();
        if let Some(look) = &finder.closer_look {
            heads = self.look_closer(finder, look, network, pixels, &input_from_frame, heads)?;
        }
        let readable = pixels.readable();
        let inside = |head: &FoundHead| {
            let centre = head.landmarks.centre();
            (readable.left..readable.right).contains(&centre.x)
                && (readable.top..readable.bottom).contains(&centre.y)
        };
        heads.retain(|head| inside(head) && self.crop_from_frame(&head.landmarks).is_some());
        Ok(heads)
    }

    /// Of the `peaks` of the first look, those that are heads by both looks, in pixels of the frame.
    /// `input_from_frame` is the transform of the first look.
    ///
    /// Only what a single closer look leaves is seen in the other views and at the further sizes.
    fn look_closer(
        &self,
        finder: &Finder,
        look: &CloserLook,
        network: &SharedNetwork,
        pixels: &mut FramePixels,
        input_from_frame: &Affine,
        peaks: Vec<FoundHead>,
    ) -> Result<Vec<FoundHead>, IdentifyError> {
        let input = &finder.network.input;
        let size = pixels.size();
        let part = |candidate: &LikelyHead, head_length: f64| {
            closer_input_from_frame(input, size, candidate.landmarks(), head_length)
        };
        let views_of = |cut: &Affine, views: &Range<u32>| -> Vec<Affine> {
            let views = views.clone();
            views
                .map(|v| cut.then(&finder::view(v, input.width, input.height)))
                .collect()
        };
        let first = look.head_length_pixels;
        let further = look.further_head_lengths_pixels.iter().copied();
        let all_lengths: Vec<f64> = std::iter::once(first).chain(further.clone()).collect();
        let glance = [(first, 0..1)];
        let in_full: Vec<(f64, Range<u32>)> = std::iter::once((first, 1..look.views))
            .chain(further.map(|length| (length, 0..look.views)))
            .filter(|(_, views)| !views.is_empty())
            .collect();
        let worth_another_look = look.candidate_threshold.min(finder.threshold);
        let mut candidates: Vec<LikelyHead> = peaks.into_iter().map(LikelyHead::new).collect();
        for (views_of_whole, parts) in [(0..0, &glance[..]), (1..look.views, &in_full)] {
            if candidates.is_empty() || parts.is_empty() {
                break;
            }
            // Each decoding reads the file from its start, which takes longer than all else: so peaks are decoded for
            // every size at once, and for a name too where they seem to be heads.
            let mut needs = vec![Need::of(std::slice::from_ref(input_from_frame), input)];
            for candidate in &candidates {
                let cuts = all_lengths
                    .iter()
                    .filter_map(|&length| part(candidate, length));
                needs.extend(cuts.map(|cut| Need::of(&[cut], input)));
                if candidate.confidence() >= finder.threshold {
                    needs.extend(self.needed_for_name(candidate.landmarks()));
                }
            }
            pixels.provide(needs)?;
            let mut see = |cuts: &[Affine], views: &Range<u32>| {
                let views = views.len() as u32;
                run_on_cuts(pixels, network, input, OUTSIDE_FRAME, cuts, views)
            };
            if !views_of_whole.is_empty() {
                let cuts = views_of(input_from_frame, &views_of_whole);
                for (cut, output) in cuts.iter().zip(&see(&cuts, &views_of_whole)?) {
                    for candidate in &mut candidates {
                        candidate.see_whole(finder, cut, output);
                    }
                }
            }
            for (head_length, views) in parts {
                let (of, cuts): (Vec<usize>, Vec<Affine>) = candidates
                    .iter()
                    .enumerate()
                    .filter_map(|(i, candidate)| Some((i, part(candidate, *head_length)?)))
                    .flat_map(|(i, cut)| views_of(&cut, views).into_iter().map(move |c| (i, c)))
                    .unzip();
                let outputs = see(&cuts, views)?;
                for ((i, cut), output) in of.iter().zip(&cuts).zip(&outputs) {
                    candidates[*i].see_closer(finder, cut, output);
                }
            }
            candidates.retain(|candidate| candidate.head(worth_another_look).is_some());
        }
        let heads = candidates
            .iter()
            .filter_map(|candidate| candidate.head(finder.threshold));
        Ok(suppress(finder, heads.collect()))
    }

    /// Moves the heads' landmarks to where the aligner sees them; of heads that meet there the surest
    /// stays.
    fn align(
        &self,
        pixels: &mut FramePixels,
        heads: &mut Vec<FoundHead>,
    ) -> Result<(), IdentifyError> {
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
                    let field = aligner.field_head_lengths;
                    Some((i, aligner::input_from_frame(input, field, &head.landmarks)?))
                })
                .flat_map(|(i, crop)| {
                    (0..views)
                        .map(move |v| (i, crop.then(&aligner::view(v, input.width, input.height))))
                })
                .collect();
            let transforms: Vec<Affine> = cuts.iter().map(|(_, cut)| *cut).collect();
            let names = heads
                .iter()
                .filter_map(|head| self.needed_for_name(&head.landmarks));
            let needs = needed_for(&transforms, input, views).map(Need::with_margin);
            pixels.provide(needs.chain(names))?;
            let outputs = run_on_cuts(pixels, network, input, OUTSIDE_FRAME, &transforms, views)?;
            let mut seen: Vec<Vec<Landmarks>> = vec![Vec::new(); heads.len()];
            for ((i, cut), output) in cuts.iter().zip(&outputs) {
                let back = cut.inverse();
                let landmarks =
                    back.and_then(|back| aligner::landmarks_in_frame(input, output, &back));
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
        mut pixels: FramePixels,
        heads: Vec<FoundHead>,
        mut times: StageTimes,
    ) -> Result<FrameIdentification, IdentifyError> {
        let clock = Stopwatch::start(&pixels);
        let crops = self.crops(&heads);
        let heads = self.see_and_judge(&mut pixels, &crops)?;
        times.identify = clock.stop(&pixels);
        Ok(self.frame(&pixels, heads, times))
    }

    fn identify_crop(&self, mut pixels: FramePixels) -> Result<FrameIdentification, IdentifyError> {
        let clock = Stopwatch::start(&pixels);
        let crops: Vec<_> = self.crop_of_head_photograph(&pixels).into_iter().collect();
        let heads = self.see_and_judge(&mut pixels, &crops)?;
        let times = StageTimes {
            identify: clock.stop(&pixels),
            ..StageTimes::default()
        };
        Ok(self.frame(&pixels, heads, times))
    }

    /// Heads with the transforms from the frame to their crops.
    fn crops(&self, heads: &[FoundHead]) -> Vec<(FoundHead, Affine)> {
        heads
            .iter()
            .filter_map(|&head| Some((head, self.crop_from_frame(&head.landmarks)?)))
            .collect()
    }

    /// The head of a head photograph; `None` where that has no pixels.
    fn crop_of_head_photograph(&self, pixels: &FramePixels) -> Option<(FoundHead, Affine)> {
        let (width, height) = pixels.size();
        let input = &self.manifest.ensemble.network.input;
        let cut = self.head_crop().crop_from_head_photograph(
            (width, height),
            input.width,
            input.height,
        )?;
        let head = FoundHead {
            landmarks: HeadCrop::RIGHT_WHALE.landmarks(width, height),
            confidence: 1.0,
        };
        Some((head, cut))
    }

    fn see_and_judge(
        &self,
        pixels: &mut FramePixels,
        crops: &[(FoundHead, Affine)],
    ) -> Result<Vec<HeadIdentification>, IdentifyError> {
        let neighbours = self.neighbours();
        let seen = self.see(pixels, crops, neighbours.is_some())?;
        Ok(seen.iter().map(|h| self.judge(h, neighbours)).collect())
    }

    /// What the ensemble gives for each head, given with the transform from the frame to its crop; `embed`
    /// says whether embeddings are wanted.
    fn see(
        &self,
        pixels: &mut FramePixels,
        crops: &[(FoundHead, Affine)],
        embed: bool,
    ) -> Result<Vec<Detection>, IdentifyError> {
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        let ensemble = &self.manifest.ensemble;
        let input = &ensemble.network.input;
        let cuts: Vec<Affine> = crops
            .iter()
            .flat_map(|(_, crop)| {
                (0..ensemble.views)
                    .map(move |v| crop.then(&ensemble::view(v, input.width, input.height)))
            })
            .collect();
        let outside = OUTSIDE_HEAD_PHOTOGRAPH;
        pixels.provide(needed_for(&cuts, input, ensemble.views))?;
        let (logits, embeddings) = run_with_embeddings_on_cuts(
            pixels,
            &self.ensemble,
            input,
            outside,
            &cuts,
            ensemble.views,
            embed,
        )?;
        let views = ensemble.views as usize;
        let each = crops.iter().zip(logits.chunks(views));
        Ok(each
            .enumerate()
            .map(|(i, ((head, _), logits))| Detection {
                landmarks: head.landmarks,
                confidence: head.confidence,
                logits: logits.to_vec(),
                embedding: embeddings
                    .get(i * views..(i + 1) * views)
                    .map(|views| mean_embedding(views.iter().map(Vec::as_slice))),
            })
            .collect())
    }

    fn frame(
        &self,
        pixels: &FramePixels,
        heads: Vec<HeadIdentification>,
        times: StageTimes,
    ) -> FrameIdentification {
        let (width, height) = pixels.size();
        FrameIdentification {
            width,
            height,
            faults: pixels.faults(),
            heads,
            stages_ms: with_pixels(times, pixels),
            engine: self.engine(),
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

    /// What naming a head that is seen there will most likely need.
    fn needed_for_name(&self, landmarks: &Landmarks) -> Option<Need> {
        let crop = self.crop_from_frame(landmarks)?;
        Some(Need::of(&[crop], &self.manifest.ensemble.network.input).with_margin())
    }
}

/// Wall time of a stage without the decoding in it.
struct Stopwatch {
    start: Instant,
    decoded: Duration,
}

impl Stopwatch {
    fn start(pixels: &FramePixels) -> Self {
        Self {
            start: Instant::now(),
            decoded: pixels.decoding,
        }
    }

    fn stop(self, pixels: &FramePixels) -> f64 {
        let decoding = pixels.decoding - self.decoded;
        milliseconds(self.start.elapsed().saturating_sub(decoding))
    }
}

/// The times of a frame's stages with what decoding and the networks took.
fn with_pixels(times: StageTimes, pixels: &FramePixels) -> StageTimes {
    StageTimes {
        decode: milliseconds(pixels.decoding),
        inference: milliseconds(pixels.inference),
        ..times
    }
}

/// In milliseconds to a hundredth: more digits are noise.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// What each `views` cuts, given as transforms from the frame to a network's input, need together.
fn needed_for<'c>(
    cuts: &'c [Affine],
    input: &'c NetworkInput,
    views: u32,
) -> impl Iterator<Item = Need> + 'c {
    cuts.chunks(views.max(1) as usize)
        .map(|views| Need::of(views, input))
}

/// One output of the network for each cut, given as transforms from the frame to the network's input.
/// Every `views` cuts show about the same. What they [need](needed_for) has been provided.
fn run_on_cuts(
    pixels: &mut FramePixels,
    network: &SharedNetwork,
    input: &NetworkInput,
    outside: [u8; 3],
    cuts: &[Affine],
    views: u32,
) -> Result<ValuesOfCuts, IdentifyError> {
    let (outputs, _) =
        run_with_embeddings_on_cuts(pixels, network, input, outside, cuts, views, false)?;
    Ok(outputs)
}

/// What a network gives for each cut.
type ValuesOfCuts = Vec<Vec<f32>>;

/// [`run_on_cuts`], and where they are wanted and there are any an embedding for each cut.
fn run_with_embeddings_on_cuts(
    pixels: &mut FramePixels,
    network: &SharedNetwork,
    input: &NetworkInput,
    outside: [u8; 3],
    cuts: &[Affine],
    views: u32,
    embed: bool,
) -> Result<(ValuesOfCuts, ValuesOfCuts), IdentifyError> {
    let mut outputs = Vec::with_capacity(cuts.len());
    let mut embeddings = Vec::new();
    let needs: Vec<Need> = needed_for(cuts, input, views).collect();
    let views = views.max(1) as usize;
    let heads_at_once = (network.largest_batch / views).max(1);
    for (cuts, needs) in cuts
        .chunks(views * heads_at_once)
        .zip(needs.chunks(heads_at_once))
    {
        let values = pixels.cut(cuts, needs, input, outside);
        let mut network = network.lock();
        let start = Instant::now();
        let (output, embedding) = if embed {
            network.run_with_embedding(cuts.len(), values)?
        } else {
            (network.run(cuts.len(), values)?, None)
        };
        pixels.inference += start.elapsed();
        outputs.extend(output.images().map(<[f32]>::to_vec));
        let embedding = embedding.iter().flat_map(|output| output.images());
        embeddings.extend(embedding.map(<[f32]>::to_vec));
    }
    Ok((outputs, embeddings))
}
