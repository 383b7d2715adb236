//! The virtual survey: sea and right whales from above, drawn by rule instead of photographed.
//!
//! It serves tests, the demo and rehearsal flights, and gives composed training frames their sea. Every
//! picture follows from a seed alone, so truth is exact: who is where, to a fraction of a pixel.
//!
//! - [`Sea`] draws open water, for any size of picture and of whale.
//! - [`VirtualWhale`] is one individual, [`Catalogue`] a population of them, some known, some not.
//! - [`render_head`] draws a head crop, [`Survey`] plans a flight's frames, [`RenderedSurvey`] renders them;
//!   [`FramePlan::photograph`] shows them as another camera does.
//! - [`VirtualFlight`] plans what an aircraft sees on one [path](FlightPath) over the sea, on which animals are followed over
//!   frames and met again.
//!
//! Positions follow [`geometry`](crate::geometry). This room knows no networks and no files.

mod flight;
mod sea;
mod survey;
mod texture;
mod whale;

use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::geometry::{HeadCrop, Landmarks, Point};

pub use flight::{
    AircraftState, FlightPath, FlownFrame, GeographicPoint, SurveyCamera, VirtualFlight,
};
pub use sea::{Colour, Sea, SeaState};
pub use survey::{
    FramePlan, PlannedHead, REFERENCE_WIDTH, RenderedSurvey, Survey, VirtualFrame, VirtualHead,
};
pub use whale::{Pose, VirtualWhale};

use sea::Water;
use whale::Posed;

/// Names for the first individuals of a catalogue.
const NAMES: [&str; 48] = [
    "Anchor", "Basalt", "Beacon", "Birch", "Cinder", "Comet", "Coral", "Dapple", "Delta", "Drift",
    "Ember", "Fathom", "Flint", "Garnet", "Granite", "Harbor", "Heron", "Indigo", "Juniper",
    "Kelp", "Lantern", "Lichen", "Marble", "Meridian", "Mica", "Mosaic", "Nimbus", "Oriole",
    "Pebble", "Petrel", "Quartz", "Quill", "Ripple", "Saffron", "Sextant", "Shale", "Slate",
    "Sorrel", "Tern", "Thistle", "Topaz", "Umber", "Velvet", "Willow", "Yarrow", "Zenith",
    "Zephyr", "Zinnia",
];

/// One member of a [`Catalogue`].
pub struct Individual {
    /// Its name, each once in a catalogue.
    pub name: String,
    /// Whether a model trained on this catalogue has seen it.
    pub known: bool,
    /// What it looks like.
    pub whale: VirtualWhale,
}

/// A population of virtual whales: the known ones first, then the unknown.
pub struct Catalogue {
    individuals: Vec<Individual>,
    known: usize,
}

impl Catalogue {
    /// Draws a population. A larger one of the same seed begins with the same known individuals.
    /// Known ones are named from a fixed list and, after it, `VW-49` and so on; unknown ones
    /// `Stranger-01` and so on.
    pub fn new(seed: u64, known: usize, unknown: usize) -> Self {
        let individuals = (0..known + unknown)
            .into_par_iter()
            .map(|i| {
                let is_known = i < known;
                let (kind, number) = if is_known { (0, i) } else { (1, i - known) };
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(2 * number as u64 + kind);
                let name = match NAMES.get(number) {
                    Some(name) if is_known => (*name).to_owned(),
                    _ if is_known => format!("VW-{:02}", number + 1),
                    _ => format!("Stranger-{:02}", number + 1),
                };
                Individual {
                    name,
                    known: is_known,
                    whale: VirtualWhale::new(rng.random()),
                }
            })
            .collect();
        Self { individuals, known }
    }

    /// Everybody, known ones first.
    pub fn individuals(&self) -> &[Individual] {
        &self.individuals
    }

    /// The known ones.
    pub fn known(&self) -> &[Individual] {
        &self.individuals[..self.known]
    }

    /// The unknown ones.
    pub fn unknown(&self) -> &[Individual] {
        &self.individuals[self.known..]
    }

    /// The names of the known ones, in order.
    pub fn names(&self) -> Vec<String> {
        self.known().iter().map(|i| i.name.clone()).collect()
    }
}

/// Light, water and pose in which [`render_head`] shows a whale.
#[derive(Clone, Debug)]
pub struct HeadView {
    /// Sea, light and camera.
    pub sea: SeaState,
    /// How the whale lies; in a plane where its blowhead is at `(0, 0)` and its bonnet at `(1, 0)`.
    pub pose: Pose,
    /// Decides where each wave stands.
    pub seed: u64,
}

impl HeadView {
    /// A view as surveys bring home.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let unit = Landmarks {
            bonnet: Point::new(1.0, 0.0),
            blowhead: Point::default(),
        };
        let mut sea = SeaState::draw(rng);
        // Heads are photographed from nearly above.
        sea.foreshortening = sea.foreshortening.max(0.8);
        Self {
            sea,
            pose: Pose::draw(rng, &unit).expect("the unit's landmarks are apart"),
            seed: rng.random(),
        }
    }
}

/// Draws a whale's head as [`HeadCrop::RIGHT_WHALE`] cuts it, `width × height` pixels: the bonnet's tip
/// comes to lie at (0.80, 0.50) and the blowhead at (0.30, 0.50), whatever the view.
pub fn render_head(whale: &VirtualWhale, view: &HeadView, width: u32, height: u32) -> RgbImage {
    if width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    let crop = HeadCrop::RIGHT_WHALE
        .crop_from_frame(&view.pose.landmarks(), width, height)
        .unwrap_or(crate::geometry::Affine::IDENTITY);
    let pose = Pose {
        picture_from_whale: view.pose.picture_from_whale.then(&crop),
        ..view.pose
    };
    let (w, h) = (f64::from(width), f64::from(height));
    let stretch = HeadCrop::RIGHT_WHALE.aspect * h / w;
    let head_length = (HeadCrop::RIGHT_WHALE.bonnet_x - HeadCrop::RIGHT_WHALE.blowhead_x) * w;
    Scene {
        sea: &view.sea,
        seed: view.seed,
        head_length,
        stretch,
        whales: &[(whale, pose)],
        // A crop shows water near the whale; other broken water would hide it.
        open_water: false,
    }
    .render(width, height)
}

/// What a picture shows.
struct Scene<'a> {
    sea: &'a SeaState,
    seed: u64,
    /// Pixels across the picture.
    head_length: f64,
    /// How many times longer a length is drawn down the picture than across it.
    stretch: f64,
    whales: &'a [(&'a VirtualWhale, Pose)],
    /// Whether foam lies about that no whale made.
    open_water: bool,
}

/// Rows that one thread renders at a time.
const BAND: usize = 16;

impl Scene<'_> {
    fn render(&self, width: u32, height: u32) -> RgbImage {
        let mut picture = RgbImage::new(width, height);
        if width == 0 || height == 0 {
            return picture;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let posed: Vec<Posed<'_>> = self
            .whales
            .iter()
            .filter_map(|(whale, pose)| Posed::new(whale, *pose, self.sea.light, rng.random()))
            .collect();
        let mut broken = Vec::new();
        for whale in &posed {
            whale.disturbances(&mut rng, &mut broken);
        }
        if self.open_water {
            sea::open_water(&mut rng, width, height, self.head_length, &mut broken);
        }
        let sea = Sea::with_disturbances(
            self.sea.clone(),
            &mut rng,
            width,
            height,
            self.head_length,
            self.stretch,
            &broken,
        );
        let row_bytes = width as usize * 3;
        picture
            .par_chunks_mut(row_bytes * BAND)
            .enumerate()
            .for_each(|(band, rows)| {
                let mut waters = vec![Water::default(); width as usize];
                let mut colours = vec![[0.0f32; 3]; width as usize];
                for (k, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
                    let j = (band * BAND + k) as u32;
                    sea.row(j, 0, &mut waters);
                    for (colour, water) in colours.iter_mut().zip(&waters) {
                        *colour = sea.surface(water);
                    }
                    let y = f64::from(j) + 0.5;
                    for whale in &posed {
                        let [x0, y0, x1, y1] = whale.bounds;
                        if y < y0 || y > y1 {
                            continue;
                        }
                        let columns =
                            x0.max(0.0) as usize..(x1.ceil().max(0.0) as usize).min(width as usize);
                        for i in columns {
                            colours[i] = whale.paint(
                                &sea,
                                i as f32 + 0.5,
                                j as f32 + 0.5,
                                &waters[i],
                                colours[i],
                            );
                        }
                    }
                    let pixels = row.as_chunks_mut::<3>().0.iter_mut();
                    for (i, (pixel, (colour, water))) in
                        pixels.zip(colours.iter().zip(&waters)).enumerate()
                    {
                        *pixel = sea.develop(i as u32, j, *colour, water.haze).0;
                    }
                }
            });
        picture
    }
}

#[cfg(test)]
mod tests;
