//! Things on the water that are no heads.

use rand::Rng;
use recognition::geometry::{Affine, Point};

use super::head::HeadPhotograph;
use super::noise::{NoiseTile, NoiseView};
use super::raster::{Canvas, Colour, luminance, mix, smoothstep};
use super::whale::bounds;

/// Maps canvas pixels to units of `size` pixels around `centre`, turned by `radians`.
pub(super) fn placed(centre: Point, size: f64, radians: f64) -> Option<Affine> {
    Affine::scaling(size, size)
        .then(&Affine::rotation(radians))
        .then(&Affine::translation(centre))
        .inverse()
}

/// Calls `paint` with each pixel in reach and its position in units.
fn each(
    canvas: &mut Canvas,
    units_from_canvas: &Affine,
    reach: f64,
    mut paint: impl FnMut(&mut Colour, f32, f32),
) {
    let Some(inverse) = units_from_canvas.inverse() else {
        return;
    };
    let Some((xs, ys)) = bounds(canvas, &inverse, [-reach, reach], [-reach, reach]) else {
        return;
    };
    for y in ys {
        let row = canvas.row_mut(y);
        for x in xs.clone() {
            let p = units_from_canvas.apply(Point::new(x as f64 + 0.5, y as f64 + 0.5));
            paint(&mut row[x], p.x as f32, p.y as f32);
        }
    }
}

/// One random decoy; `size` is about one head length in pixels.
pub(super) fn paint(
    canvas: &mut Canvas,
    rng: &mut impl Rng,
    tile: &NoiseTile,
    head: &HeadPhotograph,
    sea: Colour,
    size: f64,
) {
    let centre = Point::new(
        rng.random_range(0.0..canvas.width as f64),
        rng.random_range(0.0..canvas.height as f64),
    );
    let radians = rng.random_range(0.0..std::f64::consts::TAU);
    let Some(units) = placed(centre, size, radians) else {
        return;
    };
    let edge = NoiseView::new(rng, tile, 9.0, 0.0, 1.0);
    let lace = NoiseView::new(rng, tile, 40.0, 0.0, 1.0);
    let coarse = NoiseView::new(rng, tile, 4.0, 0.0, 1.0);
    let white = [(140.0 + 0.8 * luminance(sea) + rng.random_range(-20.0..60.0)).min(260.0); 3];
    let white = mix(white, sea, rng.random_range(0.0..0.25));
    match rng.random_range(0..15) {
        // Footprint: a ring or a heap of lacy foam.
        0..3 => {
            let radius = rng.random_range(0.0..1.6f32);
            let width = rng.random_range(0.15..0.6f32);
            let density = rng.random_range(0.45..0.95f32);
            each(canvas, &units, 2.6, |c, u, v| {
                let off = (u.hypot(v * 1.3) - radius) / width;
                let body = (-off * off).exp() * (density + 0.25 * coarse.at(u, v));
                let share = smoothstep(0.45, 0.9, body + 0.5 * lace.at(u, v) * body.min(1.0));
                *c = mix(*c, white, share);
            });
        }
        // Streak of foam or of weed.
        3 => {
            let length = rng.random_range(0.5..3.0f32);
            let width = rng.random_range(0.03..0.2f32);
            let colour = if rng.random_bool(0.3) {
                [120.0, 90.0, 40.0]
            } else {
                white
            };
            each(canvas, &units, 3.2, |c, u, v| {
                let bent = v + 0.12 * coarse.at(u * 0.5, 0.0);
                let body = (-(bent / width).powi(2) - (u / length).powi(4)).exp();
                let share = smoothstep(0.4, 1.0, body + 0.35 * lace.at(u, v) * body);
                *c = mix(*c, colour, share * 0.9);
            });
        }
        // Something dark under water.
        4..6 => {
            let length = rng.random_range(0.4..2.2f32);
            let width = length * rng.random_range(0.2..0.6f32);
            let opacity = rng.random_range(0.2..1.0f32);
            let soft = rng.random_range(0.1..0.7f32);
            each(canvas, &units, 2.6, |c, u, v| {
                let d = (u / length).hypot(v / width) + 0.08 * edge.at(u, v);
                let share = opacity * (1.0 - smoothstep(1.0 - soft, 1.0, d));
                *c = mix(*c, head.skin, share);
            });
        }
        // Something pale green under water: a belly, a flipper, a jellyfish.
        6 => {
            let (length, width) = (
                rng.random_range(0.15..0.8f32),
                rng.random_range(0.05..0.3f32),
            );
            let opacity = rng.random_range(0.2..0.8f32);
            let pale = [
                sea[0] * 1.1 + 20.0,
                sea[1] * 1.2 + 55.0,
                sea[2] * 1.1 + 45.0,
            ];
            each(canvas, &units, 1.5, |c, u, v| {
                let d = (u / length).hypot(v / width) + 0.1 * edge.at(u, v);
                *c = mix(*c, pale, opacity * (1.0 - smoothstep(0.4, 1.0, d)));
            });
        }
        // Patch of glare or a cloud's mirror.
        7 => {
            let (length, width) = (rng.random_range(0.2..2.0f32), rng.random_range(0.1..0.8f32));
            let opacity = rng.random_range(0.2..1.0f32);
            each(canvas, &units, 2.6, |c, u, v| {
                let d = (u / length).powi(2) + (v / width).powi(2);
                let share = (-d).exp() * opacity + 0.12 * lace.at(u, v) * (-d).exp();
                *c = mix(*c, [250.0, 250.0, 245.0], share.clamp(0.0, 1.0));
            });
        }
        // Birds.
        8 => {
            let dark = rng.random_bool(0.2);
            let colour = if dark { [30.0; 3] } else { [235.0; 3] };
            for _ in 0..rng.random_range(1..5) {
                let at = Point::new(
                    rng.random_range(0.0..canvas.width as f64),
                    rng.random_range(0.0..canvas.height as f64),
                );
                let turn = rng.random_range(0.0..std::f64::consts::TAU);
                let Some(units) = placed(at, size * rng.random_range(0.04..0.12), turn) else {
                    continue;
                };
                let open = rng.random_range(0.0..0.8f32);
                each(canvas, &units, 2.0, |c, u, v| {
                    let wing = v - open * u.abs();
                    let d = (u / 1.4).powi(2) + (wing / 0.35).powi(2);
                    let body = (u / 0.3).powi(2) + (v / 0.8).powi(2);
                    *c = mix(*c, colour, (1.0 - smoothstep(0.4, 1.6, d.min(body))) * 0.9);
                });
            }
        }
        // A boat and its wake.
        9 if rng.random_bool(0.4) => {
            let width = rng.random_range(0.12..0.3f32);
            let hull: Colour = if rng.random_bool(0.7) {
                [240.0, 240.0, 238.0]
            } else {
                [
                    rng.random_range(20.0..200.0),
                    rng.random_range(20.0..120.0),
                    60.0,
                ]
            };
            each(canvas, &units, 4.0, |c, u, v| {
                let wake = (-(v.abs() - 0.12 * (-u).max(0.0)).powi(2) / 0.01).exp()
                    * smoothstep(0.0, -0.5, u)
                    * smoothstep(-4.0, -1.0, u);
                *c = mix(
                    *c,
                    white,
                    (wake * (0.6 + 0.4 * lace.at(u, v))).clamp(0.0, 1.0),
                );
                let taper = width * (1.0 - smoothstep(0.3, 1.0, u));
                if u > -0.8 && u < 1.0 && v.abs() < taper {
                    *c = mix(*c, hull, 0.9 - 0.5 * smoothstep(0.3, 0.0, v.abs() / width));
                }
            });
        }
        // Blow: a diffuse plume.
        9 => blow(canvas, rng, tile, &units, 2.0),
        // Sun glitter gathered on the crests of waves: spots in a chain, as long as a head and as bright as
        // its callosity.
        10..14 => {
            let glare: Colour = [250.0, 250.0, 245.0];
            let (spread, bend) = (
                rng.random_range(0.03..0.3f32),
                rng.random_range(-0.5..0.5f32),
            );
            let radius = rng.random_range(0.015..0.07f32);
            let spots: Vec<[f32; 3]> = (0..rng.random_range(5..60))
                .map(|_| {
                    let u = rng.random_range(-1.2..1.2f32) * rng.random_range(0.3..1.0f32);
                    let v = rng.random_range(-1.0..1.0f32) * rng.random_range(0.0..1.0f32);
                    [
                        u,
                        bend * u * u + spread * v,
                        radius * rng.random_range(0.4..1.5f32),
                    ]
                })
                .collect();
            // Where a spot is smaller than a pixel it lends the pixel its share of light.
            let pixel = (1.0 / size) as f32;
            each(canvas, &units, 1.8, |c, u, v| {
                let light: f32 = spots
                    .iter()
                    .map(|[x, y, r]| {
                        let blurred = (r * r + 0.25 * pixel * pixel).sqrt();
                        let d = ((u - x) / (1.6 * blurred)).powi(2) + ((v - y) / blurred).powi(2);
                        if d < 6.0 {
                            (-d).exp() * 2.0 * (r / blurred).powi(2)
                        } else {
                            0.0
                        }
                    })
                    .sum();
                *c = mix(*c, glare, light.min(1.0));
            });
        }
        // Water cut from beside a head with the same kind of edge as a head has.
        _ => {
            let read = head.sampler(units.determinant().abs().sqrt() as f32);
            let (length, width) = (
                rng.random_range(0.08..0.13f32),
                rng.random_range(0.2..0.42f32),
            );
            let soft = rng.random_range(0.1..0.5f32);
            let stretch = rng.random_range(1.0..4.0f32);
            each(canvas, &units, 1.0, |c, u, v| {
                let s = u / stretch;
                let d = (s / length).hypot(v / width) + 0.1 * edge.at(u, v);
                if d < 1.0 {
                    let (colour, trusted) = read(1.26 + s, v);
                    *c = mix(*c, colour, trusted * (1.0 - smoothstep(1.0 - soft, 1.0, d)));
                }
            });
        }
    }
}

/// Breath hanging over the water, rising from the origin of the units along −x.
pub(super) fn blow(
    canvas: &mut Canvas,
    rng: &mut impl Rng,
    tile: &NoiseTile,
    units_from_canvas: &Affine,
    length: f32,
) {
    let density = rng.random_range(0.15..0.7f32);
    let puffs = NoiseView::new(rng, tile, 5.0, 0.0, 1.0);
    let spread = rng.random_range(0.15..0.4f32);
    each(
        canvas,
        units_from_canvas,
        f64::from(length) + 0.5,
        |c, u, v| {
            let along = -u / length;
            if !(0.0..1.0).contains(&along) {
                return;
            }
            let width = 0.08 + spread * along;
            let body = (-(v / width).powi(2)).exp() * (along * 8.0).min(1.0) * (1.0 - along);
            let share = density * body * (1.2 + 0.4 * puffs.at(u, v));
            *c = mix(*c, [236.0, 238.0, 240.0], share.clamp(0.0, 0.9));
        },
    );
}
