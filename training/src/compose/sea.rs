use image::RgbImage;
use rand::Rng;
use rand_distr::{Distribution, Normal};

use super::noise::{NoiseTile, NoiseView};
use super::raster::{Canvas, Colour, Texture, luminance, mix, smoothstep};

/// A piece of real open water.
pub struct SeaSource {
    texture: Texture,
    mean: Colour,
    contrast: f32,
    frame_width: f32,
}

/// The smallest side of a piece of water that is worth tiling, in pixels.
const SMALLEST_PIECE: u32 = 96;

impl SeaSource {
    /// A piece cut from a frame that was `frame_width` pixels wide at the piece's resolution.
    ///
    /// `None` where the piece has a side under 96 pixels or the width is not above 0.
    pub fn new(piece: &RgbImage, frame_width: f64) -> Option<Self> {
        if piece.width().min(piece.height()) < SMALLEST_PIECE
            || frame_width.is_nan()
            || frame_width <= 0.0
        {
            return None;
        }
        let flat = flattened(piece);
        let Palette { mean, contrast } = Palette::of(&Canvas::from_image(&flat));
        Some(Self {
            texture: Texture::opaque(&flat),
            mean,
            contrast,
            frame_width: frame_width as f32,
        })
    }

    /// All large quiet rectangles of a frame that may hold whales somewhere, found by what most of its
    /// blocks look like. `frame` is best about 1500 pixels wide.
    pub fn from_frame(frame: &RgbImage) -> Vec<Self> {
        quiet_rectangles(frame)
            .into_iter()
            .filter_map(|[x, y, w, h]| {
                let piece = image::imageops::crop_imm(frame, x, y, w, h).to_image();
                Self::new(&piece, f64::from(frame.width()))
            })
            .collect()
    }
}

/// Takes out the plane of brightness that haze and the sun's side lay over a photograph.
fn flattened(piece: &RgbImage) -> RgbImage {
    let (w, h) = (piece.width() as f32, piece.height() as f32);
    let n = w * h;
    let mut slopes = [[0.0f32; 2]; 3];
    let (var_x, var_y) = ((w * w - 1.0) / 12.0, (h * h - 1.0) / 12.0);
    for (x, y, p) in piece.enumerate_pixels() {
        let (dx, dy) = (x as f32 + 0.5 - w / 2.0, y as f32 + 0.5 - h / 2.0);
        for i in 0..3 {
            slopes[i][0] += f32::from(p[i]) * dx / n / var_x;
            slopes[i][1] += f32::from(p[i]) * dy / n / var_y;
        }
    }
    let mut flat = piece.clone();
    for (x, y, p) in flat.enumerate_pixels_mut() {
        let (dx, dy) = (x as f32 + 0.5 - w / 2.0, y as f32 + 0.5 - h / 2.0);
        for i in 0..3 {
            let v = f32::from(p[i]) - slopes[i][0] * dx - slopes[i][1] * dy;
            p[i] = (v + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
    flat
}

/// Rectangles `[x, y, width, height]` in pixels in which every block is like most blocks of the frame.
pub(super) fn quiet_rectangles(frame: &RgbImage) -> Vec<[u32; 4]> {
    let block = (frame.width() / 48).max(8) as usize;
    let (columns, rows) = (
        frame.width() as usize / block,
        frame.height() as usize / block,
    );
    if columns < 8 || rows < 6 {
        return Vec::new();
    }
    // Three features of each block: mean luminance, its spread, and redness against blue.
    let mut features = vec![[0.0f32; 3]; columns * rows];
    for (i, f) in features.iter_mut().enumerate() {
        let (x0, y0) = ((i % columns) * block, (i / columns) * block);
        let (mut sum, mut squares, mut red) = (0.0, 0.0, 0.0);
        for y in y0..y0 + block {
            for x in x0..x0 + block {
                let c = frame.get_pixel(x as u32, y as u32).0.map(f32::from);
                let l = luminance(c);
                sum += l;
                squares += l * l;
                red += c[0] - c[2];
            }
        }
        let n = (block * block) as f32;
        *f = [
            sum / n,
            (squares / n - (sum / n).powi(2)).max(0.0).sqrt().ln_1p() * 20.0,
            red / n,
        ];
    }
    let mut odd = vec![false; columns * rows];
    for k in 0..3 {
        // Against the median of the surroundings' row and column bands, so that haze towards one side
        // of the frame is no oddity.
        let residual: Vec<f32> = (0..features.len())
            .map(|i| {
                let (x, y) = (i % columns, i / columns);
                let mut near: Vec<f32> = Vec::new();
                for j in y.saturating_sub(9)..(y + 10).min(rows) {
                    for c in x.saturating_sub(9)..(x + 10).min(columns) {
                        near.push(features[j * columns + c][k]);
                    }
                }
                features[i][k] - median(&mut near)
            })
            .collect();
        let mut sizes: Vec<f32> = residual.iter().map(|r| r.abs()).collect();
        let limit = 4.5 * median(&mut sizes).max(0.8);
        for (o, r) in odd.iter_mut().zip(&residual) {
            *o |= r.abs() > limit;
        }
    }
    let mut blocked = odd.clone();
    for i in (0..odd.len()).filter(|&i| odd[i]) {
        let (x, y) = (i % columns, i / columns);
        // A single odd block is a wave or a bird; a whale has odd neighbours.
        let neighbours = neighbourhood(x, y, columns, rows, 1)
            .filter(|&j| odd[j])
            .count();
        if neighbours < 3 {
            blocked[i] = false;
        } else {
            neighbourhood(x, y, columns, rows, 2).for_each(|j| blocked[j] = true);
        }
    }
    let mut found = Vec::new();
    for _ in 0..6 {
        let Some([x, y, w, h]) = largest_rectangle(&blocked, columns, rows) else {
            break;
        };
        if w.min(h) < 6 || w * h < 60 {
            break;
        }
        for j in y..y + h {
            blocked[j * columns + x..j * columns + x + w].fill(true);
        }
        found.push([x, y, w, h].map(|v| (v * block) as u32));
    }
    found
}

fn neighbourhood(
    x: usize,
    y: usize,
    columns: usize,
    rows: usize,
    reach: usize,
) -> impl Iterator<Item = usize> {
    (y.saturating_sub(reach)..(y + reach + 1).min(rows)).flat_map(move |j| {
        (x.saturating_sub(reach)..(x + reach + 1).min(columns)).map(move |c| j * columns + c)
    })
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// The free rectangle with the largest area, counting its longer side at most twice its shorter one.
fn largest_rectangle(blocked: &[bool], columns: usize, rows: usize) -> Option<[usize; 4]> {
    let mut best: Option<([usize; 4], usize)> = None;
    let mut free_above = vec![0usize; columns];
    for y in 0..rows {
        for x in 0..columns {
            free_above[x] = if blocked[y * columns + x] {
                0
            } else {
                free_above[x] + 1
            };
        }
        for x in 0..columns {
            let mut h = usize::MAX;
            for (c, &free) in free_above.iter().enumerate().skip(x) {
                h = h.min(free);
                if h == 0 {
                    break;
                }
                let w = c - x + 1;
                let short = w.min(h);
                let area = short * w.max(h).min(2 * short);
                if best.is_none_or(|(_, b)| area > b) {
                    best = Some(([x, y + 1 - h, w, h], area));
                }
            }
        }
    }
    best.map(|(r, _)| r)
}

/// What a sea looks like on the canvas.
#[derive(Clone, Copy)]
pub(super) struct Palette {
    pub mean: Colour,
    pub contrast: f32,
}

impl Palette {
    /// Mean colour, and standard deviation of the luminance around that of the mean.
    pub fn of(canvas: &Canvas) -> Self {
        let n = canvas.pixels.len() as f32;
        let mut mean = [0.0; 3];
        for c in &canvas.pixels {
            for i in 0..3 {
                mean[i] += c[i] / n;
            }
        }
        let level = luminance(mean);
        let squares = canvas
            .pixels
            .iter()
            .map(|&c| (luminance(c) - level).powi(2));
        Self {
            mean,
            contrast: (squares.sum::<f32>() / n).sqrt(),
        }
    }
}

/// Covers the canvas with real water, laid in overlapping pieces whose contrast is kept where they
/// overlap (variance-preserving blending, Heitz and Neyret 2018).
///
/// `frame_width` is the width in canvas pixels of the whole frame of which the canvas shows a part.
pub(super) fn paint_real(
    canvas: &mut Canvas,
    rng: &mut impl Rng,
    source: &SeaSource,
    palette: &Palette,
    frame_width: f32,
) {
    let normal = Normal::new(0.0f32, 1.0).expect("a finite spread");
    // Frames are also looked at in parts: waves then are as large as whales.
    let near = if rng.random_bool(0.3) {
        rng.random_range(0.3..1.0)
    } else {
        1.0
    };
    let zoom = near * (0.3 * normal.sample(rng)).exp().clamp(0.45, 2.0);
    let step = source.frame_width / frame_width * zoom;
    let stretch = rng.random_range(0.8..1.25f32).sqrt();
    let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let mirror = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let (xx, xy) = (cos * step * stretch, -sin * step * stretch * mirror);
    let (yx, yy) = (sin * step / stretch, cos * step / stretch * mirror);

    let (w, h) = (
        source.texture.width() as f32,
        source.texture.height() as f32,
    );
    let (cell_w, cell_h) = (0.62 * w, 0.62 * h);
    let (overlap_w, overlap_h) = (0.18 * w, 0.18 * h);
    let (slack_w, slack_h) = (0.2 * w - 1.0, 0.2 * h - 1.0);
    let (x0, y0) = (
        rng.random_range(0.0..cell_w) + 1e4 * cell_w,
        rng.random_range(0.0..cell_h) + 1e4 * cell_h,
    );
    // Far from zero so that cells count upwards; only differences matter.
    let corner = |x: f32, y: f32| (xx * x + xy * y, yx * x + yy * y);
    let corners = [
        corner(0.0, 0.0),
        corner(canvas.width as f32, 0.0),
        corner(0.0, canvas.height as f32),
        corner(canvas.width as f32, canvas.height as f32),
    ];
    let min_x = corners.iter().map(|c| c.0).fold(f32::MAX, f32::min);
    let min_y = corners.iter().map(|c| c.1).fold(f32::MAX, f32::min);
    let max_x = corners.iter().map(|c| c.0).fold(f32::MIN, f32::max);
    let max_y = corners.iter().map(|c| c.1).fold(f32::MIN, f32::max);
    let phase_x = x0 % cell_w + cell_w;
    let phase_y = y0 % cell_h + cell_h;
    let columns = ((max_x - min_x + phase_x) / cell_w) as usize + 2;
    let rows = ((max_y - min_y + phase_y) / cell_h) as usize + 2;
    let places: Vec<(f32, f32)> = (0..columns * rows)
        .map(|_| {
            (
                rng.random_range(0.0..slack_w),
                rng.random_range(0.0..slack_h),
            )
        })
        .collect();

    let sampler = source.texture.at_step(step);
    let light = (luminance(palette.mean) + 10.0) / (luminance(source.mean) + 10.0);
    let gain = (light.sqrt() * (palette.contrast + 2.0) / (source.contrast + 2.0))
        .sqrt()
        .clamp(0.4, 2.0)
        * (0.2 * normal.sample(rng)).exp();
    let tint = palette
        .mean
        .map(|v| ((v + 20.0) / (luminance(palette.mean) + 20.0)).sqrt() * gain);
    let width = canvas.width;
    for y in 0..canvas.height {
        let row = &mut canvas.pixels[y * width..(y + 1) * width];
        for (x, out) in row.iter_mut().enumerate() {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let qx = xx * px + xy * py - min_x + phase_x;
            let qy = yx * px + yy * py - min_y + phase_y;
            let (cx, cy) = ((qx / cell_w) as usize, (qy / cell_h) as usize);
            let (lx, ly) = (qx - cx as f32 * cell_w, qy - cy as f32 * cell_h);
            let read = |dx: usize, dy: usize| {
                let column = cx.saturating_sub(dx).min(columns - 1);
                let line = cy.saturating_sub(dy).min(rows - 1);
                let (ox, oy) = places[line * columns + column];
                sampler
                    .read(ox + lx + dx as f32 * cell_w, oy + ly + dy as f32 * cell_h)
                    .0
            };
            let own_x = smoothstep(0.0, overlap_w, lx);
            let own_y = smoothstep(0.0, overlap_h, ly);
            let mut sum = [0.0; 3];
            let mut squares = 0.0;
            for (dx, wx) in [(0, own_x), (1, 1.0 - own_x)] {
                for (dy, wy) in [(0, own_y), (1, 1.0 - own_y)] {
                    let weight = wx * wy;
                    if weight > 0.0 {
                        let c = read(dx, dy);
                        for i in 0..3 {
                            sum[i] += weight * (c[i] - source.mean[i]);
                        }
                        squares += weight * weight;
                    }
                }
            }
            let k = 1.0 / squares.sqrt();
            for i in 0..3 {
                out[i] = palette.mean[i] + sum[i] * k * tint[i];
            }
        }
    }
}

/// Covers the canvas with drawn waves: swell, chop and ripples of one wind.
pub(super) fn paint_drawn(
    canvas: &mut Canvas,
    rng: &mut impl Rng,
    tile: &NoiseTile,
    palette: &Palette,
    frame_width: f32,
) {
    let wind = rng.random_range(0.0..std::f32::consts::TAU);
    // Lattice points of the tile for each canvas pixel.
    let scale = rng.random_range(0.5..1.6) * 384.0 / frame_width;
    let mut layer = |frequency: f32, spread: f32, stretch: f32| {
        let angle = wind + rng.random_range(-spread..spread);
        NoiseView::new(rng, tile, frequency * scale, angle, stretch)
    };
    let (swell, chop, ripple) = (
        layer(0.35, 0.3, 3.0),
        layer(1.2, 0.5, 2.2),
        layer(2.8, 0.8, 1.6),
    );
    let weights: [f32; 3] = [
        rng.random_range(0.1..0.8),
        rng.random_range(0.3..0.9),
        rng.random_range(0.2..0.8),
    ];
    let norm = palette.contrast.min(16.0) * rng.random_range(0.5..1.1)
        / weights.iter().map(|w| w * w).sum::<f32>().sqrt();
    let crests = rng.random_range(0.0..0.5f32);
    let sky: Colour = [
        rng.random_range(0.7..1.2),
        rng.random_range(0.9..1.2),
        rng.random_range(0.9..1.3),
    ];
    let width = canvas.width;
    for y in 0..canvas.height {
        let row = &mut canvas.pixels[y * width..(y + 1) * width];
        for (x, out) in row.iter_mut().enumerate() {
            let (px, py) = (x as f32, y as f32);
            let v = weights[0] * swell.at(px, py)
                + weights[1] * chop.at(px, py)
                + weights[2] * ripple.at(px, py);
            // Crests are sharper than troughs.
            let v = norm * (v + crests * (v.max(0.0).powi(2) - 0.3));
            for i in 0..3 {
                out[i] = palette.mean[i] + v * sky[i];
            }
        }
    }
}

/// Brightness that changes slowly across the frame: haze, the sun's side, cloud shadows.
pub(super) fn shade(canvas: &mut Canvas, rng: &mut impl Rng, tile: &NoiseTile) {
    let strength = rng.random_range(0.0..0.12f32);
    let slope = rng.random_range(0.0..0.2f32);
    let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let clouds = NoiseView::new(rng, tile, 8.0 / w, 0.0, 1.5);
    for y in 0..canvas.height {
        let v = y as f32 / h - 0.5;
        for (x, c) in canvas.row_mut(y).iter_mut().enumerate() {
            let u = x as f32 / w - 0.5;
            let k =
                1.0 + slope * (u * cos + v * sin) + strength * clouds.at(x as f32, y as f32) * 0.4;
            *c = c.map(|v| v * k);
        }
    }
}

/// Sun on facets of the waves: bright specks, denser towards one place.
pub(super) fn glitter(
    canvas: &mut Canvas,
    rng: &mut impl Rng,
    tile: &NoiseTile,
    frame_width: f32,
    density: f32,
) {
    let wind = rng.random_range(0.0..std::f32::consts::TAU);
    let frequency = rng.random_range(1.2..4.5) * 384.0 / frame_width;
    let stretch = rng.random_range(1.0..2.5);
    let facets = NoiseView::new(rng, tile, frequency, wind, stretch);
    let patches = NoiseView::new(rng, tile, frequency * 0.12, wind, stretch);
    let threshold = 2.9 - 1.6 * density;
    let width = rng.random_range(0.2..0.9f32);
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let (cx, cy) = (rng.random_range(-0.3..1.3), rng.random_range(-0.3..1.3));
    let reach = rng.random_range(0.3..1.5f32);
    let white: Colour = [255.0, 253.0, 246.0];
    for y in 0..canvas.height {
        for (x, c) in canvas.row_mut(y).iter_mut().enumerate() {
            let away = ((x as f32 / w - cx).powi(2) + (y as f32 / h - cy).powi(2)).sqrt() / reach;
            let base = 0.8 - away.min(2.0);
            let n = facets.at(x as f32, y as f32);
            if n + base + 1.2 < threshold {
                continue;
            }
            let n = n + base + 0.45 * patches.at(x as f32, y as f32);
            let share = smoothstep(threshold, threshold + width, n);
            if share > 0.0 {
                *c = mix(*c, white, share);
            }
        }
    }
}
