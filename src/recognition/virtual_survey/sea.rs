//! The sea from above.
//!
//! Waves are looked up in tileable [textures](super::texture) at four ranges of length, each turned,
//! scaled and shifted for the view at hand, so that no two views are alike and a pixel costs some tens
//! of nanoseconds. Colours are display values (0 black, 1 white), not radiances: what is copied is the
//! look of survey photographs.

use std::f32::consts::{PI, TAU};

use image::{Rgb, RgbImage};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::texture::{BANK, Texture};

/// A colour in display values: red, green, blue, 0 black, 1 white.
pub type Colour = [f32; 3];

/// Weather, light and camera of a view: everything but where exactly each wave stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SeaState {
    /// Colour of the water seen from straight above, without reflections.
    pub deep: Colour,
    /// Colour of the sky that the waves mirror.
    pub sky: Colour,
    /// Direction in which the wind blows, radians, clockwise in the picture.
    pub wind: f32,
    /// Direction from which light comes, radians, clockwise in the picture.
    pub light: f32,
    /// Slopes of long waves from afar, 0…1.5.
    pub swell: f32,
    /// Slopes of the wind's waves, 0…1.5.
    pub wind_sea: f32,
    /// Slopes of waves shorter than a head, 0…1.5.
    pub chop: f32,
    /// Slopes of ripples a few centimetres long, 0…1.5.
    pub ripples: f32,
    /// How much slopes change the sky's share of a pixel, 0…1.
    pub contrast: f32,
    /// Sky's share of a level pixel, 0…0.6.
    pub sheen: f32,
    /// Sun glitter, 0 none … 1 blinding.
    pub glitter: f32,
    /// Share of the sea under foam and whitecaps, 0…1 (1 is a gale).
    pub foam: f32,
    /// Mist between aircraft and water, 0…0.6.
    pub haze: f32,
    /// Height of the view over width of the same stretch of water, 0.5 (oblique) … 1 (straight down).
    pub foreshortening: f32,
    /// Darkening of the corners, 0…0.6.
    pub vignetting: f32,
    /// Factor of all display values; 1 is a well-exposed photograph.
    pub exposure: f32,
    /// Contrast of the developed photograph; 1 leaves it.
    pub gamma: f32,
    /// Factors of red and blue that a camera's white balance leaves behind.
    pub tint: [f32; 2],
    /// Standard deviation of the sensor's noise in display values.
    pub noise: f32,
}

/// Pixels that go through the steps of rendering together.
const PIECE: usize = 64;

/// Water colours of survey photographs with the sky that goes with them.
const PALETTE: [(Colour, Colour); 9] = [
    // Calm under overcast.
    ([0.44, 0.44, 0.42], [0.58, 0.58, 0.56]),
    // Slate.
    ([0.20, 0.29, 0.33], [0.50, 0.56, 0.60]),
    // Dark teal.
    ([0.10, 0.25, 0.27], [0.32, 0.46, 0.50]),
    // Deep blue.
    ([0.07, 0.21, 0.40], [0.34, 0.48, 0.66]),
    // Light blue in haze.
    ([0.33, 0.48, 0.63], [0.55, 0.66, 0.77]),
    // Green-black.
    ([0.12, 0.18, 0.19], [0.32, 0.40, 0.42]),
    // Steel.
    ([0.20, 0.31, 0.46], [0.46, 0.56, 0.70]),
    // Nearly black.
    ([0.04, 0.08, 0.10], [0.28, 0.34, 0.38]),
    // Teal of shelf water.
    ([0.12, 0.37, 0.45], [0.40, 0.58, 0.66]),
];

fn mix(a: Colour, b: Colour, share: f32) -> Colour {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// 0 below `from`, 1 above `to`, smooth between.
pub(super) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

impl SeaState {
    /// A state as survey teams meet them: from glassy calm to whitecaps, mostly well lit.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let a = PALETTE[rng.random_range(0..PALETTE.len())];
        let b = PALETTE[rng.random_range(0..PALETTE.len())];
        let share = rng.random::<f32>() * 0.5;
        let lightness = rng.random_range(0.8..1.2);
        let mut jittered = |c: Colour| -> Colour {
            c.map(|v| (v * lightness * rng.random_range(0.95..1.05)).clamp(0.0, 0.9))
        };
        let (deep, sky) = (
            jittered(mix(a.0, b.0, share)),
            jittered(mix(a.1, b.1, share)),
        );
        // Surveys fly in good weather: rough seas are rare.
        let roughness = rng.random::<f32>().powf(1.3);
        let glitter = if rng.random_bool(0.55) {
            rng.random::<f32>().powf(1.5)
        } else {
            0.0
        };
        Self {
            deep,
            sky,
            wind: rng.random_range(0.0..TAU),
            light: rng.random_range(0.0..TAU),
            swell: rng.random_range(0.0..0.5),
            wind_sea: 0.2 + roughness * rng.random_range(0.5..1.1),
            chop: 0.25 + roughness * rng.random_range(0.4..1.0),
            ripples: rng.random_range(0.1..0.6) + 0.3 * roughness,
            contrast: rng.random_range(0.25..1.0),
            sheen: rng.random_range(0.05..0.35),
            glitter,
            foam: if rng.random_bool(0.5) {
                rng.random::<f32>().powi(2) * (0.35 + 0.65 * roughness)
            } else {
                0.0
            },
            haze: if rng.random_bool(0.4) {
                rng.random::<f32>().powi(2) * 0.55
            } else {
                rng.random_range(0.0..0.06)
            },
            foreshortening: rng.random_range(0.6..1.0),
            vignetting: rng.random::<f32>().powi(2) * 0.45,
            exposure: {
                let stops: f32 = StandardNormal.sample(rng);
                (stops * 0.22).clamp(-0.7, 0.6).exp2()
            },
            gamma: rng.random_range(0.85..1.2),
            tint: [rng.random_range(0.95..1.04), rng.random_range(0.95..1.05)],
            noise: rng.random_range(0.002..0.014),
        }
    }
}

/// Broken water at one place: foam that a whale, a boat or a breaking crest left.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Disturbance {
    /// Middle, in pixels.
    pub(super) centre: [f32; 2],
    /// Half axes, in pixels.
    pub(super) radii: [f32; 2],
    /// Direction of the first axis, radians.
    pub(super) angle: f32,
    /// 0 a filled patch … 0.9 a thin ring.
    pub(super) hollow: f32,
    /// Foam there, 0…2; from 1 on it closes.
    pub(super) foam: f32,
    /// Bright bubbles below the surface, 0…1.
    pub(super) glow: f32,
}

/// Foam that lies about on open water; often there is none.
pub(super) fn open_water(
    rng: &mut impl Rng,
    width: u32,
    height: u32,
    head_length: f64,
    out: &mut Vec<Disturbance>,
) {
    if !rng.random_bool(0.25) {
        return;
    }
    for _ in 0..rng.random_range(1..6) {
        let long = head_length as f32 * rng.random_range(0.15f32..1.4);
        out.push(Disturbance {
            centre: [
                rng.random::<f32>() * width as f32,
                rng.random::<f32>() * height as f32,
            ],
            radii: [long, long * rng.random_range(0.2..1.0)],
            angle: rng.random_range(0.0..PI),
            hollow: if rng.random_bool(0.2) { 0.5 } else { 0.0 },
            foam: rng.random_range(0.2..1.1),
            glow: rng.random::<f32>().powi(3),
        });
    }
}

/// One range of wave lengths as this view shows it.
struct Layer {
    texture: &'static Texture,
    level: usize,
    /// From picture pixels to periods: `u = ux·x + uy·y + u0`, and so for `v`.
    u: [f32; 3],
    v: [f32; 3],
    /// From slopes along the tile's axes to slopes along the picture's.
    turn: [f32; 2],
    slope: f32,
    height: f32,
    /// How far coarser waves' slopes push this one's look-up, in periods.
    push: f32,
    /// Share of the slope that gusts take away or give.
    gusts: f32,
}

/// Slowly varying fields on a coarse grid, for bilinear look-up.
struct Grid {
    step: f32,
    columns: usize,
    /// Gusts, foam's strength, glow of bubbles, haze.
    nodes: Vec<[f32; 4]>,
}

impl Grid {
    /// The nodes' values along the picture's row at height `y`.
    fn row(&self, y: f32) -> Vec<[f32; 4]> {
        let rows = self.nodes.len() / self.columns;
        let y = (y / self.step).max(0.0);
        let yi = (y as usize).min(rows - 2);
        let fy = (y - yi as f32).min(1.0);
        let (above, below) = self.nodes[yi * self.columns..].split_at(self.columns);
        above
            .iter()
            .zip(below)
            .map(|(a, b)| std::array::from_fn(|i| a[i] + (b[i] - a[i]) * fy))
            .collect()
    }
}

/// The water at one pixel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Water {
    /// Water and mirrored sky, without glitter and foam.
    pub(super) body: Colour,
    /// What comes up from below, without mirrored sky.
    pub(super) deep: Colour,
    /// Glitter, added to everything at the surface.
    pub(super) glint: f32,
    /// Cover by foam, 0…1.
    pub(super) foam: f32,
    /// Height of the long waves in standard deviations.
    pub(super) height: f32,
    /// Slope towards the light.
    pub(super) towards_light: f32,
    /// Share of the pixel that mist hides, 0…1.
    pub(super) haze: f32,
}

/// A stretch of sea as one photograph shows it: a [`SeaState`] and where each wave stands.
pub struct Sea {
    state: SeaState,
    width: u32,
    height: u32,
    /// Pixels a head length.
    head: f32,
    layers: Vec<Layer>,
    grid: Grid,
    web: Option<WebView>,
    glint_centre: [f32; 2],
    glint_gradient: [f32; 2],
    glint_radius: f32,
    light: [f32; 2],
    noise_seed: u32,
}

/// How the foam's web is looked up.
struct WebView {
    level: usize,
    u: [f32; 3],
    v: [f32; 3],
}

/// Rows of the map from pixels to periods of a tile that is turned by `angle` and of which a period
/// covers `period` pixels along and `period · stretch` across; shifted by anything up to a period, and
/// so that no pixel of the picture comes out negative.
fn tile_map(
    rng: &mut impl Rng,
    angle: f32,
    period: f32,
    stretch: f32,
    foreshortening: f32,
    size: (u32, u32),
) -> ([f32; 3], [f32; 3]) {
    let (sin, cos) = angle.sin_cos();
    let f = foreshortening;
    let mut rows = [
        [cos / period, sin / (period * f), 0.0],
        [-sin / (period * stretch), cos / (period * stretch * f), 0.0],
    ];
    let (w, h) = (size.0 as f32, size.1 as f32);
    for row in &mut rows {
        let lowest = (row[0] * w).min(0.0) + (row[1] * h).min(0.0);
        row[2] = rng.random::<f32>() + 1.0 - lowest;
    }
    (rows[0], rows[1])
}

impl Sea {
    /// A photograph of open sea of `width × height` pixels in which a right whale's head (blowhead to
    /// bonnet) would be `head_length` pixels long, drawn anew in weather, light and waves. The same
    /// generator state gives the same picture.
    pub fn draw(rng: &mut impl Rng, width: u32, height: u32, head_length: f64) -> RgbImage {
        let state = SeaState::draw(rng);
        Self::with_state(state, rng, width, height, head_length).render()
    }

    /// A stretch of sea in a given state: waves, foam patches and disturbances are drawn.
    pub fn with_state(
        state: SeaState,
        rng: &mut impl Rng,
        width: u32,
        height: u32,
        head_length: f64,
    ) -> Self {
        let mut disturbances = Vec::new();
        open_water(rng, width, height, head_length, &mut disturbances);
        Self::with_disturbances(state, rng, width, height, head_length, 1.0, &disturbances)
    }

    /// A stretch of sea in a given state with exactly these disturbances. `stretch` is how many times
    /// longer a length is drawn down the picture than across it; `head_length` is the one across.
    pub(super) fn with_disturbances(
        state: SeaState,
        rng: &mut impl Rng,
        width: u32,
        height: u32,
        head_length: f64,
        stretch: f64,
        disturbances: &[Disturbance],
    ) -> Self {
        // A head of less than a pixel says nothing about waves; below that they are all averaged out.
        let head = if head_length.is_finite() {
            (head_length as f32).clamp(0.5, 1e5)
        } else {
            100.0
        };
        let bank = &*BANK;
        let size = (width, height);
        let f = state.foreshortening.clamp(0.3, 1.0) * stretch as f32;
        let mut layers = Vec::with_capacity(4);
        let mut slope_variance = 0.0;
        let crossing = rng.random_range(-0.9..0.9);
        for (texture, angle, periods, slope, tall, push, gusts) in [
            (
                &bank.swell,
                state.wind + crossing,
                17.0,
                state.swell,
                0.5,
                0.0,
                0.0,
            ),
            (
                &bank.wind_sea,
                state.wind,
                9.0,
                state.wind_sea,
                0.7,
                0.01,
                0.25,
            ),
            (
                &bank.wind_sea,
                state.wind + 0.35,
                3.1,
                state.chop,
                0.25,
                0.02,
                0.6,
            ),
            (
                &bank.ripples,
                state.wind + 1.0,
                1.1,
                state.ripples,
                0.0,
                0.03,
                0.8,
            ),
        ] {
            let angle = angle + rng.random_range(-0.15..0.15);
            let period = head * periods * rng.random_range(0.8..1.25);
            let (u, v) = tile_map(rng, angle, period, 1.0, f, size);
            let Some(level) = texture.level_for(period * f.sqrt()) else {
                continue;
            };
            let left = texture.slope_left(level);
            if slope * left < 0.01 {
                continue;
            }
            slope_variance += (slope * left).powi(2);
            let (sin, cos) = angle.sin_cos();
            layers.push(Layer {
                texture,
                level,
                u,
                v,
                turn: [cos, sin],
                slope,
                height: slope * tall,
                push: if layers.is_empty() { 0.0 } else { push },
                gusts,
            });
        }
        let deviation = slope_variance.sqrt().max(0.02);

        let grid = slow_fields(&state, rng, size, head, f, disturbances);
        let web_angle = state.wind + rng.random_range(-0.4..0.4);
        let web_period = head * rng.random_range(1.6..3.2);
        let (u, v) = tile_map(rng, web_angle, web_period, 1.0, f, size);
        let web = bank
            .cells
            .level_for(web_period * f.sqrt())
            .map(|level| WebView { level, u, v });

        // Glitter stands where a wave's slope throws the sun into the camera. That slope changes over
        // the picture, so glitter comes denser on one side.
        let far = 3.6 - 2.5 * state.glitter + rng.random_range(-0.2..0.2);
        let gradient = rng.random_range(0.3..2.2) * deviation;
        let across = state.light + rng.random_range(-0.7..0.7);
        let centre = far * deviation;
        let noise_seed = rng.next_u32();
        Self {
            width,
            height,
            head,
            layers,
            grid,
            web,
            glint_centre: [centre * state.light.cos(), centre * state.light.sin()],
            glint_gradient: [gradient * across.cos(), gradient * across.sin()],
            glint_radius: deviation * (0.22 + 0.5 * state.glitter),
            light: [state.light.cos(), state.light.sin()],
            noise_seed,
            state,
        }
    }

    /// The state that this sea is in.
    pub fn state(&self) -> &SeaState {
        &self.state
    }

    /// Pixels that a head length covers.
    pub fn head_length(&self) -> f64 {
        f64::from(self.head)
    }

    /// The photograph.
    pub fn render(&self) -> RgbImage {
        let mut picture = RgbImage::new(self.width, self.height);
        if self.width == 0 {
            return picture;
        }
        let mut waters = vec![Water::default(); self.width as usize];
        for (j, row) in picture
            .chunks_exact_mut(self.width as usize * 3)
            .enumerate()
        {
            self.row(j as u32, 0, &mut waters);
            for (i, (pixel, water)) in row
                .as_chunks_mut::<3>()
                .0
                .iter_mut()
                .zip(&waters)
                .enumerate()
            {
                *pixel = self
                    .develop(i as u32, j as u32, self.surface(water), water.haze)
                    .0;
            }
        }
        picture
    }

    /// The water at the pixels of row `j` from column `from` on.
    ///
    /// Pixels go through in pieces, one step after another over a whole piece, which compilers turn
    /// into vector instructions.
    pub(super) fn row(&self, j: u32, from: u32, waters: &mut [Water]) {
        let y = j as f32 + 0.5;
        let slow = self.grid.row(y);
        let mut at = from;
        for piece in waters.chunks_mut(PIECE) {
            self.piece(y, at, &slow, piece);
            at += piece.len() as u32;
        }
    }

    fn piece(&self, y: f32, from: u32, slow: &[[f32; 4]], waters: &mut [Water]) {
        let s = &self.state;
        let n = waters.len();
        let mut gust = [0.0f32; PIECE];
        let mut foam = [0.0f32; PIECE];
        let (mut height, mut sx, mut sy, mut ruffle) = (
            [0.0f32; PIECE],
            [0.0f32; PIECE],
            [0.0f32; PIECE],
            [0.0f32; PIECE],
        );
        let per_pixel = 1.0 / self.grid.step;
        let x0 = from as f32 + 0.5;
        for (k, water) in waters.iter_mut().enumerate() {
            let x = (x0 + k as f32) * per_pixel;
            let i = (x as i32 as usize).min(slow.len() - 2);
            let f = x - i as f32;
            let (a, b) = (&slow[i], &slow[i + 1]);
            let v: [f32; 4] = std::array::from_fn(|c| a[c] + (b[c] - a[c]) * f);
            gust[k] = v[0];
            foam[k] = v[1];
            water.foam = v[2];
            water.haze = v[3];
        }
        for layer in &self.layers {
            let (u0, v0) = (
                layer.u[1] * y + layer.u[2] + layer.u[0] * x0,
                layer.v[1] * y + layer.v[2] + layer.v[0] * x0,
            );
            let view = layer.texture.view(layer.level);
            for k in 0..n {
                let x = k as f32;
                let t = view.sample(
                    u0 + layer.u[0] * x + layer.push * sx[k],
                    v0 + layer.v[0] * x + layer.push * sy[k],
                );
                let slope = layer.slope * (1.0 + layer.gusts * gust[k]).max(0.05);
                height[k] += layer.height * t[0];
                sx[k] += slope * (layer.turn[0] * t[1] - layer.turn[1] * t[2]);
                sy[k] += slope * (layer.turn[1] * t[1] + layer.turn[0] * t[2]);
                ruffle[k] = t[3];
            }
        }
        let (lx, ly) = (self.light[0], self.light[1]);
        let (to_nx, to_ny) = (1.0 / self.width as f32, 1.0 / self.height as f32);
        let ny = y * to_ny - 0.5;
        let per_radius = 1.0 / (self.glint_radius * self.glint_radius);
        let glitter = if s.glitter > 0.0 { 1.6 } else { 0.0 };
        for (k, water) in waters.iter_mut().enumerate() {
            let towards_light = sx[k] * lx + sy[k] * ly;
            let glow = water.foam;
            // The sky's share grows faster than the slope: bright flanks, flat dark troughs.
            let lean = (1.0 + 0.5 * towards_light + 0.08 * ruffle[k] * s.ripples).max(0.0);
            let share =
                (s.sheen + s.contrast * 0.40 * (lean * lean - 1.0) + 0.05 * gust[k]).max(0.0);
            // Never quite the sky alone.
            let share = share / (1.0 + 0.5 * share);
            let lift = 1.0 + 0.10 * height[k].clamp(-2.0, 3.0) * (0.3 + s.contrast);
            water.deep = [
                s.deep[0] * lift + 0.16 * glow,
                s.deep[1] * lift + 0.34 * glow,
                s.deep[2] * lift + 0.30 * glow,
            ];
            water.body = mix(water.deep, s.sky, share);
            let nx = (x0 + k as f32) * to_nx - 0.5;
            let along = nx * lx + ny * ly;
            let dx = sx[k] - self.glint_centre[0] - self.glint_gradient[0] * along;
            let dy = sy[k] - self.glint_centre[1] - self.glint_gradient[1] * along;
            let near = (1.0 - (dx * dx + dy * dy) * per_radius).max(0.0);
            water.glint = glitter * near * (2.0 - near);
            water.height = height[k];
            water.towards_light = towards_light;
            foam[k] += s.foam * 0.55 * (height[k] - 0.9);
            water.foam = 0.0;
        }
        let Some(web) = &self.web else { return };
        for (k, water) in waters.iter_mut().enumerate() {
            if foam[k] <= 0.02 {
                continue;
            }
            let x = x0 + k as f32;
            let u = web.u[0] * x + web.u[1] * y + web.u[2] + 0.01 * sx[k];
            let v = web.v[0] * x + web.v[1] * y + web.v[2] + 0.01 * sy[k];
            water.foam = self.web_foam(foam[k], web, u, v);
        }
    }

    /// Cover by foam of a given strength at a place of the web.
    #[inline]
    fn web_foam(&self, strength: f32, web: &WebView, u: f32, v: f32) -> f32 {
        let view = BANK.cells.view(web.level);
        let broad = view.sample(u, v);
        let fine = view.sample(3.3 * u, 3.3 * v);
        let ragged = strength * (1.0 + 0.35 * broad[1]) + 0.12 * fine[2];
        let lace = 0.6 * broad[0].min(1.4) + 0.35 * fine[0].min(1.4);
        smoothstep(0.0, 0.45, ragged - lace)
    }

    /// Colour of the water's surface with its glitter and foam.
    #[inline]
    pub(super) fn surface(&self, water: &Water) -> Colour {
        let lit = water.body.map(|c| c + water.glint);
        if water.foam <= 0.0 {
            return lit;
        }
        mix(lit, self.foam_colour(water), water.foam * 0.95)
    }

    /// Colour of foam at a pixel.
    #[inline]
    pub(super) fn foam_colour(&self, water: &Water) -> Colour {
        let light = (0.93 + 0.06 * water.towards_light).clamp(0.75, 1.1);
        [light, light * 1.01, light * 1.02]
    }

    /// From the scene's colour to the photograph's pixel: haze, vignetting, exposure, tint, noise.
    #[inline]
    pub(super) fn develop(&self, i: u32, j: u32, colour: Colour, haze: f32) -> Rgb<u8> {
        let s = &self.state;
        let (x, y) = (i as f32 + 0.5, j as f32 + 0.5);
        let (nx, ny) = (
            2.0 * x / self.width as f32 - 1.0,
            2.0 * y / self.height as f32 - 1.0,
        );
        let gain = s.exposure * (1.0 - 0.5 * s.vignetting * (nx * nx + ny * ny));
        let veil = [0.62, 0.68, 0.74];
        let tint = [s.tint[0], 1.0, s.tint[1]];
        let noise = hash_noise(i, j, self.noise_seed);
        let contrast = s.gamma;
        Rgb(std::array::from_fn(|c| {
            let seen = colour[c] + (veil[c] - colour[c]) * haze;
            let v = (seen * gain * tint[c] - 0.35) * contrast + 0.35 + s.noise * noise[c];
            // `as` saturates, and the offset rounds.
            (v * 255.0 + 0.5) as u8
        }))
    }
}

/// Three nearly normal numbers of standard deviation 1 that depend on the pixel alone; neighbouring
/// channels are correlated as after a colour filter's interpolation.
#[inline]
fn hash_noise(i: u32, j: u32, seed: u32) -> [f32; 3] {
    let mut h = i
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(j.wrapping_mul(0x85EB_CA77))
        ^ seed;
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^= h >> 15;
    let byte = |shift: u32| ((h >> shift) & 0xFF) as f32 * (1.0 / 128.0) - 1.0;
    let (a, b, c, d) = (byte(0), byte(8), byte(16), byte(24));
    [a + 0.7 * b, 0.7 * b + 0.7 * c + 0.3 * a, c + 0.7 * d]
}

fn slow_fields(
    state: &SeaState,
    rng: &mut impl Rng,
    size: (u32, u32),
    head: f32,
    f: f32,
    disturbances: &[Disturbance],
) -> Grid {
    let cells = &BANK.cells;
    let (w, h) = (size.0 as f32, size.1 as f32);
    let step = (head / 10.0).clamp(3.0, 24.0);
    let columns = (w / step) as usize + 2;
    let rows = (h / step) as usize + 2;
    let gust_period = head * rng.random_range(18.0..50.0);
    let gusts = tile_map(rng, state.wind, gust_period, 0.5, f, size);
    // Foam lies in streaks along the wind.
    let foam_period = head * rng.random_range(14.0..30.0);
    let narrow = rng.random_range(0.2..0.7);
    let streaks = tile_map(rng, state.wind, foam_period, narrow, f, size);
    let level = |period: f32| cells.level_for(period / step);
    let (gust_level, foam_level) = (level(gust_period), level(foam_period * 0.3));
    let haze_angle = rng.random_range(0.0..TAU);
    let haze_slope = rng.random_range(0.0..1.0);
    let foam_bias = -2.9 + 2.6 * state.foam.sqrt();
    let node = |x: f32, y: f32| {
        let look = |map: &([f32; 3], [f32; 3]), level: Option<usize>| {
            level.map_or([0.0; 4], |level| {
                let (u, v) = map;
                cells
                    .view(level)
                    .sample(u[0] * x + u[1] * y + u[2], v[0] * x + v[1] * y + v[2])
            })
        };
        let gust = look(&gusts, gust_level)[1].clamp(-1.5, 1.5);
        let mut foam = if state.foam > 0.0 {
            (0.5 * (look(&streaks, foam_level)[2] + foam_bias)).clamp(0.0, 0.9)
        } else {
            0.0
        };
        let mut glow = 0.0f32;
        for d in disturbances {
            let (dx, dy) = (x - d.centre[0], y - d.centre[1]);
            let reach = d.radii[0].max(d.radii[1]) * 1.4;
            if dx.abs() > reach || dy.abs() > reach {
                continue;
            }
            let (sin, cos) = d.angle.sin_cos();
            let r = ((dx * cos + dy * sin) / d.radii[0].max(0.1))
                .hypot((dy * cos - dx * sin) / d.radii[1].max(0.1));
            let inside = if d.hollow > 0.0 {
                1.0 - (r - 1.0).abs() / (1.0 - d.hollow)
            } else {
                1.25 - r
            };
            let inside = inside.clamp(0.0, 1.0);
            foam = foam.max(d.foam * inside);
            glow = glow.max(d.glow * inside);
        }
        let along = (x / w - 0.5) * haze_angle.cos() + (y / h - 0.5) * haze_angle.sin();
        let haze = (state.haze * (1.0 + haze_slope * 1.6 * along)).clamp(0.0, 0.9);
        [gust, foam, glow, haze]
    };
    let nodes = (0..rows * columns)
        .map(|i| node((i % columns) as f32 * step, (i / columns) as f32 * step))
        .collect();
    Grid {
        step,
        columns,
        nodes,
    }
}
