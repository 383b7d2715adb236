//! How the photograph of a head becomes a classifier's input, as its recipe's [`Framing`] says: in
//! training, in the measurements of training, and in the report.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recognition::bundle::NetworkInput;
use recognition::geometry::{Affine, Landmarks};
use recognition::pixels::{OUTSIDE_FRAME, OUTSIDE_HEAD_PHOTOGRAPH, warp};
use sha2::{Digest, Sha256};

use crate::boxes::padded_box;
use crate::cache::{Cache, cut_head};
use crate::compose::{Composer, HeadPhotograph};
use crate::index::Index;
use crate::recipe::{Framing, Input};
use crate::run_folder::TrainedRun;
use crate::split::Split;

/// Pixels of a composed close-up for each of the input's: as many as a box of 2 to 1 needs for each pixel
/// of a square input to have its own.
const CLOSE_UP_PIXELS: u32 = 2;

/// Makes pictures of heads as one recipe's classifier sees them.
#[derive(Clone)]
pub enum Framer {
    /// Aligned crops of the photographs themselves.
    HeadCrop(Input),
    /// Frames that are composed around them.
    Composed(ComposedFramer),
}

/// Composes frames with one head, and shows all of them or the box around the head.
#[derive(Clone)]
pub struct ComposedFramer {
    input: Input,
    /// Padding of the box; the whole frame is shown where there is none.
    padding: Option<f64>,
    scenery: Arc<Composer>,
}

/// A picture and the part of it that a network sees.
pub struct Framed {
    picture: RgbImage,
    input_from_picture: Affine,
    size: (u32, u32),
    outside: [u8; 3],
    /// How many times finer the input samples across than down.
    pub pixel_aspect: f64,
    /// Where the landmarks lie in the input, in its pixels.
    pub landmarks: Landmarks,
}

impl Framed {
    /// What the network sees, in its input's size, with `change`, a transform of the input onto itself.
    pub fn show(&self, change: &Affine) -> RgbImage {
        let (width, height) = self.size;
        self.resized(change, width, height)
    }

    /// The same part of the picture with as many pixels a unit across as down, `height` pixels high.
    pub fn unsqueezed(&self, height: u32) -> RgbImage {
        let aspect = f64::from(self.size.0) / f64::from(self.size.1) / self.pixel_aspect;
        let width = (f64::from(height) * aspect).round().max(1.0) as u32;
        self.resized(&Affine::IDENTITY, width, height)
    }

    fn resized(&self, change: &Affine, width: u32, height: u32) -> RgbImage {
        let across = f64::from(width) / f64::from(self.size.0);
        let down = f64::from(height) / f64::from(self.size.1);
        let transform = self.input_from_picture.then(change);
        let transform = transform.then(&Affine::scaling(across, down));
        warp(&self.picture, &transform, width, height, self.outside)
    }
}

impl Framer {
    /// For inputs of a recipe; asks for `scenery`, from which poses, water and decoys of frames are drawn,
    /// where frames are composed.
    ///
    /// # Errors
    /// Those of `scenery`.
    pub fn new<E>(
        input: &Input,
        scenery: impl FnOnce() -> Result<Arc<Composer>, E>,
    ) -> Result<Self, E> {
        let padding = match input.framing {
            Framing::HeadCrop => return Ok(Self::HeadCrop(input.clone())),
            Framing::Box { padding } => Some(padding),
            Framing::WholeFrame => None,
        };
        Ok(Self::Composed(ComposedFramer {
            input: input.clone(),
            padding,
            scenery: scenery()?,
        }))
    }

    /// Size and normalisation of the input.
    pub fn network_input(&self) -> NetworkInput {
        match self {
            Self::HeadCrop(input) => input.network_input(),
            Self::Composed(framer) => framer.input.network_input(),
        }
    }

    /// Frames a photograph, always in the same way: where a frame is composed, all that is drawn follows
    /// from the head's pixels. `landmarks` say where the head lies; absent where the photograph is a head
    /// crop already. `None` where the photograph is too small or the landmarks coincide.
    pub fn frame(&self, photograph: RgbImage, landmarks: Option<&Landmarks>) -> Option<Framed> {
        match self {
            Self::HeadCrop(input) => {
                let (crop, size) = (&input.head_crop, photograph.dimensions());
                let (width, height) = (input.width, input.height);
                let input_from_picture = match landmarks {
                    None => crop.crop_from_head_photograph(size, width, height),
                    Some(landmarks) => crop.crop_from_frame(landmarks, width, height),
                };
                Some(Framed {
                    picture: photograph,
                    input_from_picture: input_from_picture?,
                    size: (width, height),
                    outside: OUTSIDE_HEAD_PHOTOGRAPH,
                    pixel_aspect: f64::from(width) / f64::from(height) / crop.aspect,
                    landmarks: crop.landmarks(width, height),
                })
            }
            Self::Composed(framer) => {
                let head = match landmarks {
                    None => photograph,
                    Some(landmarks) => cut_head(&photograph, landmarks)?,
                };
                let mut rng = ChaCha8Rng::from_seed(Sha256::digest(head.as_raw()).into());
                let head = HeadPhotograph::new(&head, 0).ok()?;
                Some(framer.compose(&head, &mut rng))
            }
        }
    }
}

/// Compose from heads that runs never saw; each is made once, when a run first asks for it.
pub(crate) struct HeldOutComposers<'a> {
    pub(crate) index: &'a Index,
    pub(crate) split: &'a Split,
    /// Folder of decoded photographs.
    cache: &'a Path,
    of_fold: BTreeMap<u32, Arc<Composer>>,
}

impl<'a> HeldOutComposers<'a> {
    /// Decoded photographs come from the folder `cache`, which is built where it is not there when first needed.
    pub(crate) fn new(index: &'a Index, split: &'a Split, cache: &'a Path) -> Self {
        Self {
            index,
            split,
            cache,
            of_fold: BTreeMap::new(),
        }
    }

    /// Frames photographs as a run's classifier sees them.
    pub(crate) fn framer(&mut self, run: &TrainedRun) -> anyhow::Result<Framer> {
        Framer::new(&run.recipe.input, || self.of(run))
    }

    /// Of the fold that a run held out.
    pub(crate) fn of(&mut self, run: &TrainedRun) -> anyhow::Result<Arc<Composer>> {
        let (index, split) = (self.index, self.split);
        let composer = match self.of_fold.entry(run.record.held_out_fold) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let cache = Cache::open_or_build(index, self.cache)?;
                let composer = Composer::of_held_out_fold(index, split, &cache, *place.key())?;
                place.insert(Arc::new(composer))
            }
        };
        Ok(Arc::clone(composer))
    }
}

impl ComposedFramer {
    /// The heads of the scenery, in the order in which they were given.
    pub fn heads(&self) -> &[HeadPhotograph] {
        self.scenery.heads()
    }

    /// Composes a frame with this head and nothing else than `rng` to decide how.
    pub fn compose(&self, head: &HeadPhotograph, rng: &mut ChaCha8Rng) -> Framed {
        let (width, height) = (self.input.width, self.input.height);
        let shown = match self.padding {
            None => self.scenery.frame_with_head(rng, head, width, height),
            Some(padding) => {
                let area = CLOSE_UP_PIXELS * width * height;
                self.scenery.close_up(rng, head, area, |landmarks, frame| {
                    padded_box(landmarks, padding, frame)
                        .expect("composed heads lie in their frame")
                })
            }
        };
        let across = f64::from(width) / f64::from(shown.image.width());
        let down = f64::from(height) / f64::from(shown.image.height());
        let input_from_picture = Affine::scaling(across, down);
        Framed {
            picture: shown.image,
            input_from_picture,
            landmarks: shown.heads[0].map(&input_from_picture),
            size: (width, height),
            outside: OUTSIDE_FRAME,
            pixel_aspect: across / down,
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::loader::random;
    use crate::recipe::Recipe;

    /// A grey head with a red disc at the bonnet and a green one at the blowhead, on blue water.
    fn dotted_head() -> RgbImage {
        RgbImage::from_fn(224, 224, |x, y| {
            let s = (f64::from(x) + 0.5) / 112.0 - 0.6;
            let t = (f64::from(y) + 0.5) / 224.0 - 0.5;
            Rgb(if (s - 1.0).hypot(t) < 0.12 {
                [255, 0, 0]
            } else if s.hypot(t) < 0.12 {
                [0, 255, 0]
            } else if t.abs() < 0.3 && s < 1.1 {
                [60; 3]
            } else {
                [20, 40, 90]
            })
        })
    }

    fn framer(framing: Framing) -> Framer {
        let recipe: Recipe =
            toml::from_str(include_str!("../recipes/small-naive-baseline.toml")).expect("a recipe");
        let input = Input {
            width: 96,
            height: 64,
            framing,
            ..recipe.input
        };
        Framer::new(&input, || {
            Composer::new(&[dotted_head()], vec![], vec![]).map(Arc::new)
        })
        .expect("a head")
    }

    /// Pixels that red, and that green dominates.
    fn dots(image: &RgbImage) -> [usize; 2] {
        [0, 1].map(|channel| {
            let dominated = image.pixels().filter(|p| {
                let others = (0..3).filter(|&c| c != channel).map(|c| p[c]);
                p[channel] > others.max().unwrap_or(0).saturating_add(50)
            });
            dominated.count()
        })
    }

    #[test]
    fn boxes_show_both_landmarks_larger_than_frames_do() {
        let [boxed, padded, whole] = [
            Framing::Box { padding: 0.0 },
            Framing::Box { padding: 0.5 },
            Framing::WholeFrame,
        ]
        .map(|framing| {
            let Framer::Composed(framer) = framer(framing) else {
                panic!("frames are composed for {framing:?}");
            };
            let mut sums = [0; 2];
            let mut seen = 0;
            for i in 0..40 {
                let framed = framer.compose(&framer.heads()[0], &mut random(9, 0, i));
                let image = framed.show(&Affine::IDENTITY);
                assert_eq!(image.dimensions(), (96, 64));
                let found = dots(&image);
                seen += usize::from(found.iter().all(|&n| n > 0));
                sums = [sums[0] + found[0], sums[1] + found[1]];
            }
            (sums, seen)
        });
        // Murk, spray and glitter hide some.
        assert!(boxed.1 >= 34, "{} of 40 boxes show both dots", boxed.1);
        for dot in 0..2 {
            let counts = (boxed.0[dot], padded.0[dot], whole.0[dot]);
            assert!(
                counts.0 > 2 * counts.1 && counts.1 > 2 * counts.2,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_photograph_is_framed_alike_each_time_and_others_differently() {
        for framing in [
            Framing::HeadCrop,
            Framing::Box { padding: 0.1 },
            Framing::WholeFrame,
        ] {
            let show = |photograph: RgbImage| {
                let framed = framer(framing).frame(photograph, None).expect("pixels");
                framed.show(&Affine::IDENTITY)
            };
            let one = show(dotted_head());
            assert!(one == show(dotted_head()), "{framing:?}");
            let mut other = dotted_head();
            other.put_pixel(100, 100, Rgb([61; 3]));
            let difference = one
                .iter()
                .zip(show(other).iter())
                .filter(|(a, b)| a.abs_diff(**b) > 3)
                .count();
            let composed = framing != Framing::HeadCrop;
            assert_eq!(
                difference > 1000,
                composed,
                "{framing:?}: {difference} values"
            );
        }
    }
}
