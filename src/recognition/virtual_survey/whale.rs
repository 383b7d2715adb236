//! Right whales from above.
//!
//! A whale is described in its own plane: the unit is the head length, the origin the blowhead, `x`
//! runs to the bonnet, whose tip is at `(1, 0)`, and `y` to the whale's right. Its individual features
//! are drawn once from its seed into a raster of that plane; pose, light and water come on top when it
//! is looked at, so the same individual keeps its pattern in every picture.

use std::f32::consts::PI;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::sea::{Colour, Disturbance, Sea, Water, smoothstep};
use super::texture::BANK;
use crate::geometry::{Affine, Landmarks, Point};

/// Texels a head length in the raster of the head.
const HEAD_DENSITY: f32 = 192.0;
/// Texels a head length in the raster of the body.
const BODY_DENSITY: f32 = 40.0;
/// What the head's raster covers: `x` from, `y` from, `x` to, `y` to.
const HEAD_EXTENT: [f32; 4] = [-0.62, -0.56, 1.22, 0.56];
const BODY_EXTENT: [f32; 4] = [-5.3, -1.3, -0.4, 1.3];
/// Where the body's raster takes over from the head's.
const NECK: f32 = -0.58;

/// Half the width of head and body over `x`, from the snout back.
const OUTLINE: [(f32, f32); 15] = [
    (1.07, 0.0),
    (1.04, 0.11),
    (0.97, 0.19),
    (0.80, 0.285),
    (0.50, 0.375),
    (0.20, 0.42),
    (-0.10, 0.425),
    (-0.35, 0.43),
    (-0.70, 0.49),
    (-1.40, 0.58),
    (-2.20, 0.53),
    (-3.00, 0.37),
    (-3.80, 0.17),
    (-4.30, 0.085),
    (-4.70, 0.07),
];

/// How far the back stands out of level water over `x`.
const BACK: [(f32, f32); 8] = [
    (0.3, 0.13),
    (-0.1, 0.17),
    (-0.45, 0.11),
    (-1.2, 0.20),
    (-2.0, 0.15),
    (-3.0, 0.0),
    (-3.9, -0.14),
    (-5.0, -0.26),
];

/// Smooth interpolation in a table ordered by falling `x`; the ends hold beyond it.
fn along(table: &[(f32, f32)], x: f32) -> f32 {
    let after = table.partition_point(|&(at, _)| at > x);
    match (after.checked_sub(1).map(|i| table[i]), table.get(after)) {
        (Some((x0, v0)), Some(&(x1, v1))) => {
            // The snout's end is round, the rest changes gently.
            let t = (x0 - x) / (x0 - x1);
            let t = if v0 == 0.0 {
                t.sqrt()
            } else {
                t * t * (3.0 - 2.0 * t) * 0.4 + t * 0.6
            };
            v0 + (v1 - v0) * t
        }
        (None, Some(_)) if table[0].1 == 0.0 => 0.0,
        (None, Some(&(_, v))) | (Some((_, v)), None) => v,
        (None, None) => 0.0,
    }
}

/// A patch of callosity: an ellipse with a ragged edge.
#[derive(Clone, Copy, Debug)]
struct Patch {
    centre: [f32; 2],
    radii: [f32; 2],
    angle: f32,
    raggedness: f32,
}

impl Patch {
    fn new(centre: [f32; 2], radii: [f32; 2], raggedness: f32) -> Self {
        Self {
            centre,
            radii,
            angle: 0.0,
            raggedness,
        }
    }

    /// 1 in the middle, 0 on the mean outline, negative outside.
    fn inside(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let reach = 1.6 * self.radii[0].max(self.radii[1]);
        if dx.abs() > reach || dy.abs() > reach {
            return -1.0;
        }
        let (sin, cos) = self.angle.sin_cos();
        let (a, b) = (
            (dx * cos + dy * sin) / self.radii[0],
            (dy * cos - dx * sin) / self.radii[1],
        );
        // Between an ellipse and a rounded rectangle.
        1.0 - (a.abs().powf(2.5) + b.abs().powf(2.5)).powf(0.4)
    }
}

/// A pale line on the skin that a net, a rope or another whale left.
#[derive(Clone, Copy, Debug)]
struct Scar {
    from: [f32; 2],
    to: [f32; 2],
    width: f32,
}

impl Scar {
    fn at(&self, x: f32, y: f32) -> f32 {
        let (ax, ay) = (self.to[0] - self.from[0], self.to[1] - self.from[1]);
        let (px, py) = (x - self.from[0], y - self.from[1]);
        let t = ((px * ax + py * ay) / (ax * ax + ay * ay).max(1e-6)).clamp(0.0, 1.0);
        let d = (px - t * ax).hypot(py - t * ay);
        (1.0 - d / self.width).max(0.0)
    }
}

/// What one point of a whale's plane looks like.
#[derive(Clone, Copy, Default)]
struct Point8 {
    /// Share that callosity covers, 0…1.
    cover: f32,
    /// Lightness of the callosity there, 0…1.
    crust: f32,
    /// Lightness of the skin there, relative to the individual's, 0…2.
    skin: f32,
    /// Height over level water, head lengths.
    elevation: f32,
    /// Slopes of the elevation along `x` and `y`.
    slopes: [f32; 2],
    /// 1 on the whale, 0 beside it.
    whale: f32,
    /// Pale scars and folds, 0…1.
    pale: f32,
}

impl Point8 {
    fn encode(&self) -> [u8; 8] {
        let byte = |v: f32, low: f32, high: f32| ((v - low) / (high - low) * 255.0 + 0.5) as u8;
        [
            byte(self.cover, 0.0, 1.0),
            byte(self.crust, 0.0, 1.0),
            byte(self.skin, 0.0, 2.0),
            byte(self.elevation, -0.5, 0.4),
            byte(self.slopes[0], -3.0, 3.0),
            byte(self.slopes[1], -3.0, 3.0),
            byte(self.whale, 0.0, 1.0),
            byte(self.pale, 0.0, 1.0),
        ]
    }

    fn decode(v: [f32; 8]) -> Self {
        let value = |i: usize, low: f32, high: f32| low + v[i] * (high - low) / 255.0;
        Self {
            cover: value(0, 0.0, 1.0),
            crust: value(1, 0.0, 1.0),
            skin: value(2, 0.0, 2.0),
            elevation: value(3, -0.5, 0.4),
            slopes: [value(4, -3.0, 3.0), value(5, -3.0, 3.0)],
            whale: value(6, 0.0, 1.0),
            pale: value(7, 0.0, 1.0),
        }
    }
}

/// A rectangle of the whale's plane as texels, with coarser copies.
struct Raster {
    extent: [f32; 4],
    density: f32,
    levels: Vec<(usize, usize, Vec<[u8; 8]>)>,
}

impl Raster {
    fn new(extent: [f32; 4], density: f32, look: impl Fn(f32, f32) -> Point8) -> Self {
        let width = ((extent[2] - extent[0]) * density) as usize;
        let height = ((extent[3] - extent[1]) * density) as usize;
        let texels = (0..width * height)
            .map(|i| {
                let x = extent[0] + ((i % width) as f32 + 0.5) / density;
                let y = extent[1] + ((i / width) as f32 + 0.5) / density;
                look(x, y).encode()
            })
            .collect::<Vec<_>>();
        let mut levels = vec![(width, height, texels)];
        while let Some((w, h, fine)) = levels.last()
            && w.min(h) > &7
        {
            let (half_w, half_h) = (w / 2, h / 2);
            let coarse = (0..half_w * half_h)
                .map(|i| {
                    let at = 2 * (i / half_w) * w + 2 * (i % half_w);
                    std::array::from_fn(|c| {
                        let sum: u16 = [at, at + 1, at + w, at + w + 1]
                            .iter()
                            .map(|&j| u16::from(fine[j][c]))
                            .sum();
                        ((sum + 2) / 4) as u8
                    })
                })
                .collect();
            levels.push((half_w, half_h, coarse));
        }
        Self {
            extent,
            density,
            levels,
        }
    }

    /// The point `(x, y)` as seen with so many pixels a head length; `None` outside.
    fn sample(&self, x: f32, y: f32, pixels: f32) -> Option<Point8> {
        let (dx, dy) = (x - self.extent[0], y - self.extent[1]);
        if !(dx >= 0.0 && dy >= 0.0 && x < self.extent[2] && y < self.extent[3]) {
            return None;
        }
        let level = (self.density / pixels.max(1e-3)).log2().round().max(0.0) as usize;
        let level = level.min(self.levels.len() - 1);
        let (width, height, texels) = &self.levels[level];
        let density = self.density / (1u32 << level) as f32;
        let (u, v) = ((dx * density - 0.5).max(0.0), (dy * density - 0.5).max(0.0));
        let (i, j) = ((u as usize).min(width - 1), (v as usize).min(height - 1));
        let (fx, fy) = ((u - i as f32).min(1.0), (v - j as f32).min(1.0));
        let (i1, j1) = ((i + 1).min(width - 1), (j + 1).min(height - 1));
        let weights = [
            (1.0 - fx) * (1.0 - fy),
            fx * (1.0 - fy),
            (1.0 - fx) * fy,
            fx * fy,
        ];
        let four = [
            &texels[j * width + i],
            &texels[j * width + i1],
            &texels[j1 * width + i],
            &texels[j1 * width + i1],
        ];
        Some(Point8::decode(std::array::from_fn(|c| {
            (0..4).map(|k| weights[k] * f32::from(four[k][c])).sum()
        })))
    }
}

/// One individual: everything about it that stays the same from picture to picture.
pub struct VirtualWhale {
    seed: u64,
    skin: Colour,
    crust: Colour,
    head: Raster,
    body: Raster,
}

/// The traits from which the rasters are drawn.
struct Traits {
    stoutness: f32,
    rostrum: f32,
    patches: Vec<Patch>,
    scars: Vec<Scar>,
    noise_at: [f32; 2],
    pits: f32,
}

impl Traits {
    fn draw(rng: &mut impl Rng) -> Self {
        let raggedness = rng.random_range(0.15..0.7);
        let mut patches = Vec::new();
        // Bonnet: always reaches the snout's tip.
        let length = rng.random_range(0.09f32..0.17);
        let width = rng.random_range(0.058..0.105);
        let mut bonnet = Patch::new([1.03 - length, 0.0], [length, width], raggedness * 0.8);
        bonnet.angle = rng.random_range(-0.12..0.12);
        patches.push(bonnet);
        if rng.random_bool(0.5) {
            // A second lobe behind or beside the first.
            let back = rng.random_range(0.6..1.9) * length;
            let lobe = [
                length * rng.random_range(0.4..0.9),
                width * rng.random_range(0.5..1.1),
            ];
            let side = rng.random_range(-0.04..0.04);
            patches.push(Patch::new([1.03 - length - back, side], lobe, raggedness));
        }
        let bonnet_end = 1.03 - 2.0 * length;
        // Coaming: always covers the blowhead.
        let coaming = [rng.random_range(0.045..0.10), rng.random_range(0.045..0.11)];
        patches.push(Patch::new(
            [0.6 * coaming[0], 0.0],
            coaming,
            raggedness * 0.6,
        ));
        let coaming_end = 1.5 * coaming[0];
        // The rostral ridge: continuous, broken into islands, a peninsula from one end, or bare.
        let thickness = rng.random_range(0.025f32..0.07);
        let ridge = |patches: &mut Vec<Patch>, rng: &mut dyn rand::RngCore, from: f32, to: f32| {
            let mut x = from;
            while x < to {
                let r = thickness * rng.random_range(0.55..1.25);
                patches.push(Patch::new(
                    [x, rng.random_range(-0.018..0.018)],
                    [0.06, r],
                    raggedness,
                ));
                x += 0.065;
            }
        };
        match rng.random_range(0..5) {
            0 => ridge(&mut patches, rng, coaming_end, bonnet_end),
            1 => {
                let end = rng.random_range(0.35..0.75) * bonnet_end;
                ridge(&mut patches, rng, coaming_end, end);
            }
            2 => {
                let start = bonnet_end * rng.random_range(0.3..0.65);
                ridge(&mut patches, rng, start, bonnet_end);
            }
            3 => {
                let count = rng.random_range(1..=4);
                for k in 0..count {
                    let share = (k as f32 + rng.random_range(0.25..0.75)) / count as f32;
                    let x = coaming_end + 0.03 + share * (bonnet_end - coaming_end - 0.06);
                    let island = [
                        rng.random_range(0.025..0.09),
                        rng.random_range(0.025..0.075),
                    ];
                    patches.push(Patch::new(
                        [x, rng.random_range(-0.04..0.04)],
                        island,
                        raggedness,
                    ));
                }
            }
            _ => {
                let gap = rng.random_range(0.3..0.7);
                let (from, to) = (coaming_end, bonnet_end);
                let middle = from + gap * (to - from);
                ridge(&mut patches, rng, from, middle - 0.08);
                ridge(&mut patches, rng, middle + 0.08, to);
            }
        }
        for side in [-1.0f32, 1.0] {
            // Lips.
            for _ in 0..rng.random_range(0..5) {
                let x = rng.random_range(0.05..0.85);
                let y = side * along(&OUTLINE, x) * rng.random_range(0.74..0.9);
                let mut patch = Patch::new(
                    [x, y],
                    [
                        rng.random_range(0.02..0.085),
                        rng.random_range(0.015..0.035),
                    ],
                    raggedness,
                );
                patch.angle = -side * 0.3;
                patches.push(patch);
            }
            // Chin, as far as it shows beside the snout.
            for _ in 0..rng.random_range(0..3) {
                let x = rng.random_range(0.90..1.02);
                let y = side * along(&OUTLINE, x) * rng.random_range(0.75..0.95);
                let r = rng.random_range(0.02..0.055);
                patches.push(Patch::new([x, y], [r, r * 0.8], raggedness));
            }
            // Eyebrows.
            if rng.random_bool(0.7) {
                let at = [
                    rng.random_range(-0.12..0.02),
                    side * rng.random_range(0.33..0.39),
                ];
                let size = [rng.random_range(0.03..0.07), rng.random_range(0.015..0.03)];
                patches.push(Patch::new(at, size, raggedness));
            }
            // Behind and beside the blowholes.
            if rng.random_bool(0.45) {
                let at = [
                    rng.random_range(-0.24..-0.06),
                    side * rng.random_range(0.05..0.16),
                ];
                let r = rng.random_range(0.018..0.05);
                patches.push(Patch::new(at, [r, r], raggedness));
            }
        }
        let scars = (0..rng.random_range(0..5))
            .map(|_| {
                let from = [
                    rng.random_range(-2.5f32..0.7),
                    rng.random_range(-0.38f32..0.38),
                ];
                let turn = rng.random_range(0.0..PI);
                let length = rng.random_range(0.05..0.35);
                Scar {
                    from,
                    to: [from[0] + length * turn.cos(), from[1] + length * turn.sin()],
                    width: rng.random_range(0.008..0.03),
                }
            })
            .collect();
        Self {
            stoutness: rng.random_range(0.92..1.1),
            rostrum: rng.random_range(0.9..1.15),
            patches,
            scars,
            noise_at: [rng.random_range(1.0..2.0), rng.random_range(1.0..2.0)],
            pits: rng.random_range(0.15..0.6),
        }
    }

    /// Independent noises at a point: broad, fine, and distance from a web.
    fn noise(&self, x: f32, y: f32, period: f32) -> [f32; 4] {
        let u = self.noise_at[0] + 8.0 + x / period;
        let v = self.noise_at[1] + 8.0 + y / period;
        BANK.cells.view(0).sample(u, v)
    }

    fn rostrum_half_width(&self, x: f32) -> f32 {
        let body = 0.15 - 0.05 * smoothstep(-0.1, 0.5, x) + 0.012 * smoothstep(0.6, 0.9, x);
        let tip = ((1.045 - x) / 0.09).clamp(0.0, 1.0).sqrt();
        self.rostrum * body * tip
    }

    fn elevation(&self, x: f32, y: f32) -> f32 {
        let side = y.abs();
        let half = (self.stoutness * along(&OUTLINE, x)).max(1e-3);
        let arch = (1.0 - (side / half).powi(2)).max(0.0).sqrt();
        let back = along(&BACK, x) - 0.42 * (1.0 - arch);
        if x < -0.45 {
            return back;
        }
        let rostrum = self.rostrum_half_width(x).max(1e-3);
        let crown = 0.15 - 0.10 * (side / rostrum).powi(4).min(2.0);
        // The lips arch up beside the rostrum and sink towards the chin.
        let crest = half * 0.78;
        let lip = 0.10 * smoothstep(1.05, 0.6, x)
            - 0.04
            - if side > crest {
                0.30 * ((side - crest) / (half - crest)).powi(2)
            } else {
                0.45 * (crest - side)
            };
        let mound = 0.05 * (1.0 - (x + 0.07).hypot(y * 0.9) / 0.18).max(0.0);
        let head = crown.max(lip).max(-0.12) + mound;
        let share = smoothstep(-0.45, -0.02, x);
        back * (1.0 - share) + head * share
    }

    fn look(&self, x: f32, y: f32, texel: f32) -> Point8 {
        let side = y.abs();
        let half = self.stoutness * along(&OUTLINE, x);
        let mut whale = if half > 0.0 {
            smoothstep(-texel, texel, half - side)
        } else {
            0.0
        };
        let mut elevation = self.elevation(x, y);
        let mut limb = |inside: f32, height: f32| {
            let share = smoothstep(0.0, texel * 4.0, inside);
            if share > whale {
                whale = share;
                elevation = height;
            }
        };
        if x < -4.3 {
            // Flukes sweep back from the tail and are always well under water.
            let lead = -4.5 - 0.42 * side;
            let trail = -4.78 - 0.22 * (side * 3.2).sin().abs() - 0.15 * side;
            limb(
                (lead - x).min(x - trail).min(0.95 - side),
                -0.24 - 0.05 * side,
            );
        }
        if (-1.7..-0.3).contains(&x) {
            let (dx, dy) = (x + 0.95, side - 0.72);
            let (a, b) = (dx * 0.80 - dy * 0.6, dx * 0.6 + dy * 0.80);
            limb(1.0 - (a / 0.42).hypot(b / 0.15), -0.27);
        }
        let h = 0.006;
        let slopes = [
            (self.elevation(x + h, y) - self.elevation(x - h, y)) / (2.0 * h),
            (self.elevation(x, y + h) - self.elevation(x, y - h)) / (2.0 * h),
        ];

        let broad = self.noise(x, y, 1.7);
        let fine = self.noise(x + 5.0, y, 0.45);
        let ragged = 0.32 * broad[1].clamp(-2.0, 2.0) + 0.34 * fine[1].clamp(-2.0, 2.0);
        let edge = 0.10;
        let mut cover = 0.0f32;
        for patch in &self.patches {
            let inside = patch.inside(x, y);
            if inside > -0.7 {
                cover = cover.max(smoothstep(-edge, edge, inside + patch.raggedness * ragged));
            }
        }
        // The landmarks themselves are callosity on every whale.
        for at in [0.0f32, 0.985] {
            let near = 1.0 - (x - at).hypot(y) / 0.035;
            cover = cover.max(smoothstep(0.0, 0.5, near));
        }
        // Rough, with pits and cracks: coarse cracks on some, fine grain on all.
        let grain = self.noise(x, y + 3.0, 0.21);
        let crust = (0.80 + 0.10 * broad[2] + 0.08 * fine[3] + 0.07 * grain[1]
            - self.pits * 0.7 * (1.0 - smoothstep(0.0, 0.25 + 0.1 * grain[2], fine[0]))
            - 0.30 * (1.0 - smoothstep(0.05, 0.45, grain[0])))
        .clamp(0.12, 1.0);

        let mut skin = 1.0 + 0.10 * broad[3] + 0.06 * fine[2];
        // The gape between rostrum and lips, and the blowholes, are black.
        let rostrum = self.rostrum_half_width(x);
        if (-0.05..1.05).contains(&x) {
            let gape = smoothstep(0.0, 0.03, side - rostrum)
                * smoothstep(0.0, 0.05, half * 0.74 - side)
                * smoothstep(-0.05, 0.15, x);
            skin *= 1.0 - 0.6 * gape;
        }
        let blow = {
            let (dx, dy) = (x + 0.085, side - 0.038);
            let (a, b) = (dx * 0.9 - dy * 0.44, dx * 0.44 + dy * 0.9);
            1.0 - (a / 0.045).hypot(b / 0.016)
        };
        let blow = smoothstep(0.0, 0.4, blow);
        skin *= 1.0 - 0.85 * blow;
        cover *= 1.0 - blow;
        let lip_edge = if (0.0..0.95).contains(&x) {
            (1.0 - (side - half * 0.77).abs() / 0.012).max(0.0) * 0.25
        } else {
            0.0
        };
        let scar = self.scars.iter().fold(0.0f32, |m, s| m.max(s.at(x, y)));
        let pale = lip_edge
            .max(0.8 * scar * (1.0 + 0.3 * fine[1]))
            .clamp(0.0, 1.0);
        Point8 {
            cover,
            crust,
            skin: skin.clamp(0.0, 2.0),
            elevation: elevation + 0.02 * cover * (0.7 + crust),
            slopes,
            whale,
            pale,
        }
    }
}

/// How a whale lies in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// From the whale's plane (see the module) to pixels.
    pub picture_from_whale: Affine,
    /// How deep it lies, head lengths: −0.05 high in the water, 0.1 awash, 0.3 below the surface.
    pub submergence: f32,
    /// Lean to the whale's right, radians, small.
    pub roll: f32,
    /// Snout down, radians, small.
    pub pitch: f32,
    /// Sideways bend of the body behind the head, 1 / head lengths.
    pub bend: f32,
    /// White water about it, 0 none … 1 much.
    pub white_water: f32,
    /// How clouded the water is: 1 clear … 3 murky.
    pub turbidity: f32,
    /// Density of its blow, 0 none … 1.
    pub blow: f32,
}

impl Pose {
    /// Free choices of a pose whose landmarks come to lie exactly at `landmarks`, in pixels.
    /// `None` where they coincide or are no finite numbers.
    pub fn draw(rng: &mut impl Rng, landmarks: &Landmarks) -> Option<Self> {
        // Across the head, a camera that looks obliquely or a whale that rolls shows less width; a
        // whale seen aslant is sheared.
        let stretch = rng.random_range(0.86..1.08);
        let shear = rng.random_range(-0.08..0.08);
        Some(Self {
            picture_from_whale: picture_from_whale(landmarks, stretch, shear)?,
            submergence: {
                let deep: f32 = rng.random();
                -0.03 + 0.22 * deep.powf(1.6)
            },
            roll: rng.random_range(-0.22..0.22),
            pitch: rng.random_range(-0.04..0.05),
            bend: rng.random_range(-0.05..0.05),
            white_water: if rng.random_bool(0.75) {
                rng.random::<f32>()
            } else {
                0.0
            },
            turbidity: rng.random_range(0.8..2.6),
            blow: if rng.random_bool(0.08) {
                rng.random_range(0.3..0.9)
            } else {
                0.0
            },
        })
    }

    /// Bonnet tip and blowhead in pixels.
    pub fn landmarks(&self) -> Landmarks {
        Landmarks {
            bonnet: self.picture_from_whale.apply(Point::new(1.0, 0.0)),
            blowhead: self.picture_from_whale.apply(Point::default()),
        }
    }
}

/// The transform that puts the landmarks where they are asked for and draws lengths across the head
/// `stretch` times as long as along it, slanted by `shear`.
fn picture_from_whale(landmarks: &Landmarks, stretch: f64, shear: f64) -> Option<Affine> {
    let e = landmarks.bonnet - landmarks.blowhead;
    let across = Point::new(-e.y, e.x) * stretch + e * shear;
    let map = Affine {
        xx: e.x,
        xy: across.x,
        x0: landmarks.blowhead.x,
        yx: e.y,
        yy: across.y,
        y0: landmarks.blowhead.y,
    };
    map.inverse().map(|_| map)
}

impl VirtualWhale {
    /// The individual of that seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let tone = rng.random_range(0.10..0.17);
        let brown = rng.random_range(0.0..0.02);
        let light = rng.random_range(0.74..0.92);
        let yellow = rng.random_range(0.0..0.16);
        let traits = Traits::draw(&mut rng);
        Self {
            seed,
            skin: [tone + brown, tone, tone + 0.012 - brown * 0.4],
            crust: [light, light - 0.4 * yellow, light - yellow],
            head: Raster::new(HEAD_EXTENT, HEAD_DENSITY, |x, y| {
                traits.look(x, y, 0.6 / HEAD_DENSITY)
            }),
            body: Raster::new(BODY_EXTENT, BODY_DENSITY, |x, y| {
                traits.look(x, y, 0.6 / BODY_DENSITY)
            }),
        }
    }

    /// The seed from which it is drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A whale in a pose, ready to be painted.
pub(super) struct Posed<'a> {
    whale: &'a VirtualWhale,
    pose: Pose,
    whale_from_picture: [f32; 6],
    /// Direction of the light in the whale's plane.
    light: [f32; 2],
    /// Pixels a head length.
    pixels: f32,
    /// Rows and columns that may show it: `x` from, `y` from, `x` to, `y` to.
    pub(super) bounds: [f64; 4],
    noise_at: [f32; 2],
}

impl<'a> Posed<'a> {
    /// `None` where the pose collapses the whale.
    pub(super) fn new(whale: &'a VirtualWhale, pose: Pose, light: f32, noise: u64) -> Option<Self> {
        let map = pose.picture_from_whale;
        let inverse = map.inverse()?;
        let pixels = map.determinant().abs().sqrt() as f32;
        let (lx, ly) = (f64::from(light.cos()), f64::from(light.sin()));
        let toward = Point::new(
            inverse.xx * lx + inverse.xy * ly,
            inverse.yx * lx + inverse.yy * ly,
        );
        let toward = toward * (1.0 / toward.length().max(1e-12));
        let mut bounds = [f64::MAX, f64::MAX, f64::MIN, f64::MIN];
        let sway = f64::from(pose.bend.abs()) * 28.0;
        for (x, y) in [
            (-5.3, -1.3 - sway),
            (-5.3, 1.3 + sway),
            (1.25, -1.3),
            (1.25, 1.3),
        ] {
            let p = map.apply(Point::new(x, y));
            bounds = [
                bounds[0].min(p.x),
                bounds[1].min(p.y),
                bounds[2].max(p.x),
                bounds[3].max(p.y),
            ];
        }
        Some(Self {
            whale,
            pose,
            whale_from_picture: [
                inverse.xx as f32,
                inverse.xy as f32,
                inverse.x0 as f32,
                inverse.yx as f32,
                inverse.yy as f32,
                inverse.y0 as f32,
            ],
            light: [toward.x as f32, toward.y as f32],
            pixels,
            bounds,
            noise_at: [
                8.0 + (noise & 0xFFFF) as f32 / 65536.0,
                8.0 + (noise >> 16 & 0xFFFF) as f32 / 65536.0,
            ],
        })
    }

    /// The scene's colour at a pixel with this whale in it, given the water and the colour without it.
    pub(super) fn paint(&self, sea: &Sea, x: f32, y: f32, water: &Water, under: Colour) -> Colour {
        let m = &self.whale_from_picture;
        let pose = &self.pose;
        // Waves bend the view of what is below them.
        let wobble = 0.012 * water.towards_light;
        let wx = m[0] * x + m[1] * y + m[2] + wobble * 0.5;
        let mut wy = m[3] * x + m[4] * y + m[5] + wobble * 0.5;
        if !(-5.3..=1.25).contains(&wx) {
            return under;
        }
        if wx < 0.0 {
            wy -= pose.bend * wx * wx;
        }
        let raster = if wx < NECK {
            &self.whale.body
        } else {
            &self.whale.head
        };
        let mut colour = under;
        if let Some(p) = raster
            .sample(wx, wy, self.pixels)
            .filter(|p| p.whale > 0.003)
        {
            colour = self.skin_and_water(sea, wx, wy, &p, water, under);
        }
        if pose.blow > 0.0 {
            let (dx, dy) = (wx + 0.25, wy - 0.1);
            let puff = 1.0 - (dx / 0.42).hypot(dy / 0.34);
            if puff > -0.4 {
                let t = self.noise(wx, wy, 1.3);
                let share = pose.blow * smoothstep(0.0, 0.9, puff + 0.22 * t[1] + 0.1 * t[2]);
                colour = lerp(colour, [0.93, 0.94, 0.95], share);
            }
        }
        colour
    }

    fn noise(&self, x: f32, y: f32, period: f32) -> [f32; 4] {
        let cells = &BANK.cells;
        let level = cells.level_for(period * self.pixels).unwrap_or(5);
        cells
            .view(level)
            .sample(self.noise_at[0] + x / period, self.noise_at[1] + y / period)
    }

    fn skin_and_water(
        &self,
        sea: &Sea,
        wx: f32,
        wy: f32,
        p: &Point8,
        water: &Water,
        under: Colour,
    ) -> Colour {
        let pose = &self.pose;
        let elevation = p.elevation - pose.roll * wy - pose.pitch * (wx + 0.5);
        let swell = 0.022 * water.height.clamp(-2.5, 2.5);
        let detail = self.noise(wx, wy, 1.1);
        let depth = pose.submergence + swell - elevation + 0.012 * detail[1];

        let slopes = [p.slopes[0] - pose.pitch, p.slopes[1] - pose.roll];
        let away = slopes[0] * self.light[0] + slopes[1] * self.light[1];
        let lit = (0.95 - 0.38 * away + 0.05 * detail[2]).clamp(0.35, 1.55);
        let state = sea.state();
        // Wet skin mirrors the sky, most where it faces the light.
        let gloss = (0.10 - 0.16 * away + 0.05 * detail[3]).clamp(0.0, 0.4);
        let skin: Colour = std::array::from_fn(|c| {
            let pale = self.whale.skin[c] + (0.55 - self.whale.skin[c]) * p.pale;
            pale * p.skin * lit + gloss * state.sky[c] + 0.25 * water.glint
        });
        let crust = self.whale.crust.map(|c| c * p.crust * (0.55 + 0.45 * lit));
        let dry = lerp(skin, crust, p.cover);
        let wet = depth.max(0.0) * pose.turbidity;
        let extinction = [6.6, 5.0, 4.6];
        let below: Colour = std::array::from_fn(|c| {
            // Light goes the way twice.
            let through = (-extinction[c] * wet).exp();
            let seen = water.deep[c] + (dry[c] * 0.95 - water.deep[c]) * through;
            seen + (water.body[c] - water.deep[c]) + water.glint
        });
        let mut colour = lerp(dry, below, smoothstep(-0.012, 0.012, depth));

        // Water laps white where it meets the skin, and what foam drifts there lies over what is below.
        let places = self.noise(wx, wy + 5.0, 2.6)[1];
        let lapping = pose.white_water
            * (0.45 + 0.75 * places)
            * (1.3 - (depth - 0.008).abs() / 0.05).max(0.0);
        let floating = water.foam * smoothstep(-0.05, 0.03, depth);
        let mut foam = floating;
        if lapping > 0.0 {
            let fine = self.noise(wx + 3.0, wy, 0.6);
            let lace = lapping * (0.85 + 0.35 * detail[2]) - 0.55 * fine[0].min(1.2);
            foam = foam.max(smoothstep(0.0, 0.45, lace));
        }
        colour = lerp(colour, sea.foam_colour(water), 0.95 * foam);
        lerp(under, colour, p.whale)
    }

    /// White water that the whale makes around itself.
    pub(super) fn disturbances(&self, rng: &mut impl Rng, out: &mut Vec<Disturbance>) {
        let pose = &self.pose;
        let map = &pose.picture_from_whale;
        if pose.white_water <= 0.0 {
            return;
        }
        let angle = (map.yx as f32).atan2(map.xx as f32);
        let mut add = |rng: &mut dyn rand::RngCore, at: [f32; 2], size: [f32; 2], foam: f32| {
            let p = map.apply(Point::new(at[0].into(), at[1].into()));
            out.push(Disturbance {
                centre: [p.x as f32, p.y as f32],
                radii: size.map(|s| s * self.pixels),
                angle: angle + rng.random_range(-0.3..0.3),
                hollow: 0.0,
                foam,
                glow: 0.3 * rng.random::<f32>() * foam,
            });
        };
        let strength = pose.white_water;
        for side in [-1.0f32, 1.0] {
            // Along the flanks, beside the lips, and ahead of the snout.
            for (x, y, chance) in [
                (-1.3, 0.62, 0.5),
                (-0.6, 0.55, 0.5),
                (0.2, 0.48, 0.45),
                (0.8, 0.36, 0.4),
                (1.12, 0.12, 0.35),
                (-2.4, 0.4, 0.4),
            ] {
                if rng.random_bool(chance * f64::from(strength)) {
                    let at = [
                        x + rng.random_range(-0.2..0.2),
                        side * (y + rng.random_range(-0.05..0.12)),
                    ];
                    let long = rng.random_range(0.15..0.55);
                    let wide = long * rng.random_range(0.2..0.6);
                    let foam = rng.random_range(0.3..0.5) + 0.5 * strength;
                    add(rng, at, [long, wide], foam);
                }
            }
        }
        if rng.random_bool(0.4 * f64::from(strength)) {
            // Churned water over the tail's stroke.
            for _ in 0..rng.random_range(1..4) {
                let at = [
                    rng.random_range(-6.0f32..-3.0),
                    rng.random_range(-0.8f32..0.8),
                ];
                let long = rng.random_range(0.3..0.9);
                let foam = rng.random_range(0.4..1.0);
                add(rng, at, [long, long * 0.7], foam);
            }
        }
    }
}

fn lerp(a: Colour, b: Colour, share: f32) -> Colour {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}
