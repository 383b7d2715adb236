use rand::Rng;
use recognition::geometry::{Affine, Landmarks, Point};

use super::head::{FRONT, HeadPhotograph, Mask, REAR};
use super::noise::{NoiseTile, NoiseView};
use super::raster::{Canvas, Colour, luminance, mix, smoothstep};

/// How one animal lies in the water.
pub(super) struct Whale {
    /// Whether the head shows; a back alone is no head to find.
    with_head: bool,
    mask: Mask,
    /// Bend of the body behind the head, in one over head lengths.
    bend: f32,
    half_width_at_rear: f32,
    half_width: f32,
    /// Head lengths behind the blowhead.
    widest_at: f32,
    length: f32,
    visible_to: f32,
    fade: f32,
    submerged: f32,
    opacity: f32,
    uniform_from: f32,
    uniformity: f32,
    shine: f32,
    shine_at: f32,
    shine_width: f32,
    flukes: bool,
    rim: f32,
    rim_width: f32,
    splashes: Vec<Splash>,
    foam: Colour,
}

/// White water, at a place in head units.
struct Splash {
    s: f32,
    t: f32,
    length: f32,
    width: f32,
    strength: f32,
}

impl Whale {
    /// Draws one at random; `sea` is the colour of the water around it.
    pub fn draw(rng: &mut impl Rng, with_head: bool, sea: Colour) -> Self {
        let length = rng.random_range(3.3..4.4);
        let visible_to = match rng.random_range(0..10) {
            0..4 => length + 1.0,
            4..8 => rng.random_range(1.0..length),
            _ => rng.random_range(0.5..1.1),
        };
        let mut splashes = Vec::new();
        if rng.random_bool(0.5) {
            for _ in 0..rng.random_range(1..4) {
                let s: f32 = -rng.random_range(0.5..4.2f32);
                splashes.push(Splash {
                    s,
                    t: rng.random_range(-0.7..0.7),
                    length: rng.random_range(0.15..0.8),
                    width: rng.random_range(0.12..0.5),
                    strength: rng.random_range(0.5..1.3),
                });
            }
        }
        if rng.random_bool(0.45) {
            // Beside the head, where it pushes through the surface.
            splashes.push(Splash {
                s: rng.random_range(-0.5..1.2),
                t: if rng.random_bool(0.5) { 1.0 } else { -1.0 } * rng.random_range(0.4..0.8),
                length: rng.random_range(0.15..0.5),
                width: rng.random_range(0.06..0.25),
                strength: rng.random_range(0.5..1.2),
            });
        }
        let light = (130.0 + 0.8 * luminance(sea) + rng.random_range(-20.0..70.0)).min(262.0);
        Self {
            with_head,
            mask: Mask::draw(rng),
            bend: rng.random_range(-0.28..0.28),
            half_width_at_rear: rng.random_range(0.36..0.47),
            // Right whales are stout, and seen aslant or diving the head is foreshortened beside the body.
            half_width: rng.random_range(0.45..0.85),
            widest_at: rng.random_range(1.0..2.0),
            length,
            visible_to,
            fade: rng.random_range(0.15..1.2),
            submerged: if rng.random_bool(0.5) {
                rng.random_range(0.0..0.5)
            } else {
                0.0
            },
            opacity: if rng.random_bool(0.75) {
                1.0
            } else {
                rng.random_range(0.5..1.0)
            },
            uniform_from: rng.random_range(0.7..1.6),
            uniformity: rng.random_range(0.3..1.0),
            shine: rng.random_range(-10.0..45.0),
            shine_at: rng.random_range(-0.6..0.6),
            shine_width: rng.random_range(0.2..0.7),
            flukes: rng.random_bool(0.6),
            rim: if rng.random_bool(0.55) {
                rng.random_range(0.3..1.3)
            } else {
                0.0
            },
            rim_width: rng.random_range(0.05..0.2),
            splashes,
            foam: mix([light; 3], sea, rng.random_range(0.02..0.2)),
        }
    }

    /// Takes away all white water and murk, so that a test sees the photograph alone.
    #[cfg(test)]
    pub fn keep_dry(&mut self) {
        self.splashes.clear();
        self.rim = 0.0;
        self.opacity = 1.0;
        self.shine = 0.0;
    }

    /// Half the body's width, in head lengths, `x` head lengths behind the blowhead.
    fn profile(&self, x: f32) -> f32 {
        if x < self.widest_at {
            let u = smoothstep(-REAR, self.widest_at, x);
            self.half_width_at_rear + (self.half_width - self.half_width_at_rear) * u
        } else {
            let u = ((x - self.widest_at) / (self.length - self.widest_at)).min(1.0);
            (self.half_width - 0.07) * (1.0 - u.powf(1.4)) + 0.07
        }
    }

    /// Paints the animal.
    ///
    /// `units_from_canvas` maps canvas pixels to head units; with a negative determinant the animal is
    /// mirrored. `gain` adapts the photograph's colours to the canvas.
    pub fn paint(
        &self,
        canvas: &mut Canvas,
        rng: &mut impl Rng,
        tile: &NoiseTile,
        head: &HeadPhotograph,
        units_from_canvas: &Affine,
        gain: Colour,
    ) {
        let Some(canvas_from_units) = units_from_canvas.inverse() else {
            return;
        };
        let reach = f64::from(self.length) + 1.0;
        let Some((x_range, y_range)) =
            bounds(canvas, &canvas_from_units, [-reach, 1.5], [-2.6, 2.6])
        else {
            return;
        };
        let step = units_from_canvas.determinant().abs().sqrt() as f32;
        let read = head.sampler(step);
        let edge = NoiseView::new(rng, tile, 9.0, 0.0, 1.0);
        let lace_stretch = rng.random_range(0.7..2.0);
        let lace = NoiseView::new(rng, tile, 40.0, 0.0, lace_stretch);
        let patches = NoiseView::new(rng, tile, 4.0, 0.0, 1.0);
        let [xx, xy, x0, yx, yy, y0] = [
            units_from_canvas.xx,
            units_from_canvas.xy,
            units_from_canvas.x0,
            units_from_canvas.yx,
            units_from_canvas.yy,
            units_from_canvas.y0,
        ]
        .map(|v| v as f32);
        // A soft rim of about one pixel, so that edges are as sharp as the picture and no sharper.
        let pixel = step.max(0.02);
        for y in y_range {
            let row = canvas.row_mut(y);
            for x in x_range.clone() {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let mut s = xx * px + xy * py + x0;
                let mut t = yx * px + yy * py + y0;
                if s > FRONT {
                    continue;
                }
                if s < REAR && self.bend.abs() > 1e-3 {
                    let radius = 1.0 / self.bend.abs();
                    let side = self.bend.signum();
                    let (dx, dy) = (REAR - s, radius - t * side);
                    s = REAR - dx.atan2(dy) * radius;
                    t = side * (radius - dx.hypot(dy));
                }
                let behind = -s;
                if behind > self.length + 0.9 || t.abs() > 1.3 {
                    continue;
                }
                let noise = edge.at(s, t);
                let c = &mut row[x];

                let mut alpha = 0.0;
                let mut colour = [0.0; 3];
                if behind < self.length + 0.5 {
                    let (texture_s, texture_t, rear_share) = if s < REAR {
                        // Reflected to and fro in the back that the photograph shows.
                        let span = 0.4;
                        let u = (REAR - s).rem_euclid(2.0 * span);
                        let u = if u > span { 2.0 * span - u } else { u };
                        let k = self.half_width_at_rear / self.profile(behind);
                        (REAR + u, (t * k).clamp(-0.49, 0.49), 1.0)
                    } else {
                        (s, t, smoothstep(0.1, -REAR, behind))
                    };
                    let (mut shown, trusted) = read(texture_s, texture_t);
                    for i in 0..3 {
                        shown[i] *= gain[i];
                    }
                    if s > -0.35 && trusted > 0.0 && s < FRONT && t.abs() < 0.5 {
                        let raw = [shown[0] / gain[0], shown[1] / gain[1], shown[2] / gain[2]];
                        alpha = self.mask.at(s, t, noise, raw, head);
                    } else if s > REAR && t.abs() < 0.5 {
                        let raw = [shown[0] / gain[0], shown[1] / gain[1], shown[2] / gain[2]];
                        alpha = self.mask.at(0.0, t, noise, raw, head);
                    }
                    if rear_share > 0.0 {
                        let half = self.profile(behind);
                        let inside = half * (1.0 + 0.06 * noise) - t.abs();
                        let mut body = smoothstep(-pixel, pixel, inside);
                        if self.flukes {
                            body = body.max(self.fluke(behind, t, pixel));
                        } else if behind > self.length {
                            body = 0.0;
                        }
                        let ragged = behind + 0.25 * noise;
                        let above = 1.0
                            - smoothstep(
                                self.visible_to - self.fade,
                                self.visible_to + self.fade,
                                ragged,
                            );
                        body *= above + (1.0 - above) * self.submerged;
                        alpha += (body - alpha) * rear_share;

                        let plain = self.uniformity
                            * smoothstep(self.uniform_from - 0.5, self.uniform_from + 0.5, behind);
                        let skin_noise = 0.12 * patches.at(s, t);
                        let skin: Colour =
                            std::array::from_fn(|i| head.skin[i] * gain[i] * (1.0 + skin_noise));
                        let plain = if trusted < 0.99 { 1.0 } else { plain };
                        shown = mix(shown, skin, plain);
                        let glow = self.shine
                            * rear_share
                            * (-((t / half - self.shine_at) / self.shine_width).powi(2)).exp();
                        shown = shown.map(|v| v + glow);
                    } else {
                        alpha *= trusted;
                    }
                    alpha *= self
                        .opacity
                        .max(smoothstep(0.9, 0.2, behind + 0.6).min(0.85));
                    if !self.with_head {
                        alpha *= smoothstep(0.35, 0.75, behind + 0.15 * noise + 0.5 * t * t);
                    }
                    colour = shown;
                }
                if alpha > 0.002 {
                    *c = mix(*c, colour, alpha.min(1.0));
                }

                let mut foam = 0.0;
                if self.rim > 0.0 && behind > -0.2 && behind < self.visible_to.min(self.length) {
                    let off = t.abs() - self.profile(behind.max(-REAR));
                    let along =
                        smoothstep(-0.2, 0.6, behind) * (0.5 + 0.7 * patches.at(s, 0.3 * t));
                    foam += self.rim * along.max(0.0) * (-(off / self.rim_width).powi(2)).exp();
                }
                for p in &self.splashes {
                    let d = ((s - p.s) / p.length).powi(2) + ((t - p.t) / p.width).powi(2);
                    if d < 6.0 {
                        foam += p.strength * (-d).exp();
                    }
                }
                if foam > 0.05 {
                    // The head itself stays to be seen.
                    let clear = smoothstep(0.25, 0.5, t.abs()).max(smoothstep(0.1, 0.5, behind));
                    let n = lace.at(s, t) * 0.5 + patches.at(s, t) * 0.2;
                    let share = smoothstep(0.35, 0.85, foam * clear + n * foam.min(1.0));
                    *c = mix(*c, self.foam, share * 0.95);
                }
            }
        }
    }

    fn fluke(&self, behind: f32, t: f32, pixel: f32) -> f32 {
        let span = 0.2 + 1.1 * self.half_width;
        let u = t.abs() / span;
        if u >= 1.0 {
            return 0.0;
        }
        let centre = self.length + 0.05 + 0.22 * u;
        let chord = 0.24 * (1.0 - u).sqrt();
        smoothstep(-pixel, pixel, chord - (behind - centre).abs())
    }
}

/// Columns and rows of the canvas that a rectangle in units can reach, or `None` where it misses it.
pub(super) fn bounds(
    canvas: &Canvas,
    canvas_from_units: &Affine,
    s: [f64; 2],
    t: [f64; 2],
) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        .map(|(i, j)| canvas_from_units.apply(Point::new(s[i], t[j])));
    let range = |values: [f64; 4], size: usize| {
        let low = values.iter().copied().fold(f64::MAX, f64::min).floor();
        let high = values.iter().copied().fold(f64::MIN, f64::max).ceil();
        let range = low.clamp(0.0, size as f64) as usize..high.clamp(0.0, size as f64) as usize;
        (!range.is_empty()).then_some(range)
    };
    Some((
        range(corners.map(|p| p.x), canvas.width)?,
        range(corners.map(|p| p.y), canvas.height)?,
    ))
}

/// Maps canvas pixels to the head units of a head that lies at `landmarks`.
pub(super) fn units_from_canvas(landmarks: &Landmarks, mirrored: bool) -> Option<Affine> {
    let along = landmarks.bonnet - landmarks.blowhead;
    let side = if mirrored { -1.0 } else { 1.0 };
    Affine {
        xx: along.x,
        xy: -along.y * side,
        x0: landmarks.blowhead.x,
        yx: along.y,
        yy: along.x * side,
        y0: landmarks.blowhead.y,
    }
    .inverse()
}
