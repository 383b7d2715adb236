use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use rayon::prelude::*;

use crate::geometry::{Affine, Point};

/// Fixed-point coordinates: 32 bits after the point, so that adding up the step over a row of any
/// length stays exact to a thousandth of a pixel.
const ONE: f64 = 4_294_967_296.0;

/// What a sample weighs in the sums: bilinear weights add up to this.
const SAMPLE_WEIGHT: u32 = 256;

/// A step of this length between samples still counts as no shrinking: below it plain bilinear
/// interpolation is as sharp as it can be and aliases less than averaging blurs.
const NO_SHRINKING: f64 = 1.15;

/// From this step on, twice the frequency that the output can show lies within what the source holds,
/// and samples must lie closer to stand for the area between them. Below it, where training's
/// augmentation spends its time, fewer do.
const MUCH_SHRINKING: f64 = 1.5;

/// Distance between samples, in the source's pixels, beyond [`MUCH_SHRINKING`]: on a checkerboard, the
/// worst there is, the sum then stays within 10 grey levels of the mean over the area.
const CLOSE: f64 = 0.55;

/// From this step on, samples are the means of the four pixels around the nearest corner: cheaper than
/// interpolated ones, and with no checkerboard left in them they may lie further apart.
const FAR_SHRINKING: f64 = 3.0;

/// Distance between samples beyond [`FAR_SHRINKING`].
const CORNERS_APART: f64 = 0.8;

/// What remains to be shrunk after a reduction by whole blocks, so that the mean over an output pixel's
/// area averages over their edges.
const AFTER_REDUCTION: f64 = 3.0;

/// Most samples along one side of an output pixel, so that a degenerate transform costs no more than
/// the source has pixels. Only a transform that shrinks one axis over 64 times as much as the other
/// comes here, and aliases.
const MAX_SAMPLES: f64 = 64.0;

/// Draws `source` into a new image of `width × height` pixels, moved by `output_from_source`.
///
/// The centre of each output pixel is mapped back into the source and interpolated bilinearly between
/// the centres of the source's pixels. Where the transform shrinks, the output pixel is the mean over
/// the parallelogram that it covers in the source. What is too fine for the output then fades as that
/// mean lets it: all of it in the flat, and of the finest pattern there is, a checkerboard seen at 45°,
/// one fifth at the most. Positions outside the source are `fill`; positions within it, up to the outer edge of its
/// border pixels, never mix with it.
///
/// A transform without inverse, or an empty source, gives `fill` all over.
pub fn warp(
    source: &RgbImage,
    output_from_source: &Affine,
    width: u32,
    height: u32,
    fill: [u8; 3],
) -> RgbImage {
    let view = source_from_view(source, output_from_source);
    let reduced = reduce_region(source, &[view], width, height);
    show(source, reduced.as_ref(), view, (width, height), fill)
}

/// [`warp`] by each of several transforms that show about the same part of the source, such as the views
/// of one head: what they share is done once, the rest on the threads of the current rayon pool.
pub fn warp_views<'a>(
    source: &'a RgbImage,
    output_from_source: &[Affine],
    width: u32,
    height: u32,
    fill: [u8; 3],
) -> impl IndexedParallelIterator<Item = RgbImage> + 'a {
    let views: Vec<Option<Affine>> = output_from_source
        .iter()
        .map(|t| source_from_view(source, t))
        .collect();
    let reduced = reduce_region(source, &views, width, height);
    views
        .into_par_iter()
        .map(move |view| show(source, reduced.as_ref(), view, (width, height), fill))
}

/// The inverse, where there is one and something to see.
fn source_from_view(source: &RgbImage, view_from_source: &Affine) -> Option<Affine> {
    let nothing_to_see = source.width() == 0 || source.height() == 0;
    let inverse = view_from_source.inverse().filter(is_finite);
    inverse.filter(|_| !nothing_to_see)
}

/// One view of the source, through what was reduced of it where something was.
fn show(
    source: &RgbImage,
    reduced: Option<&(RgbImage, Affine)>,
    source_from_view: Option<Affine>,
    (width, height): (u32, u32),
    fill: [u8; 3],
) -> RgbImage {
    match (source_from_view, reduced) {
        (Some(view), Some((reduced, reduced_from_source))) => sample(
            reduced,
            &view.then(reduced_from_source),
            width,
            height,
            fill,
        ),
        (Some(view), None) => sample(source, &view, width, height, fill),
        (None, _) => filled(width, height, fill),
    }
}

fn filled(width: u32, height: u32, fill: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(width, height, image::Rgb(fill))
}

fn is_finite(t: &Affine) -> bool {
    [t.xx, t.xy, t.x0, t.yx, t.yy, t.y0]
        .iter()
        .all(|v| v.is_finite())
}

/// The smaller singular value: by how much the transform stretches the direction that it stretches
/// least.
fn least_stretch(t: &Affine) -> f64 {
    let squares = t.xx * t.xx + t.xy * t.xy + t.yx * t.yx + t.yy * t.yy;
    let det = t.determinant().abs();
    let largest = ((squares + 2.0 * det).sqrt() + (squares - 2.0 * det).max(0.0).sqrt()) / 2.0;
    det / largest
}

/// The part of the source that the views need, reduced by a whole factor where all of them shrink so much
/// that reducing first is both cheaper and not visible in the result.
fn reduce_region(
    source: &RgbImage,
    source_from_view: &[Option<Affine>],
    width: u32,
    height: u32,
) -> Option<(RgbImage, Affine)> {
    let views = || source_from_view.iter().flatten();
    let least = views().map(least_stretch).fold(f64::INFINITY, f64::min);
    let factor = (least / AFTER_REDUCTION).floor();
    if !(factor >= 2.0 && factor.is_finite()) {
        return None;
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let corners: Vec<Point> = views()
        .flat_map(|view| {
            [(0.0, 0.0), (w, 0.0), (0.0, h), (w, h)].map(|(x, y)| view.apply(Point::new(x, y)))
        })
        .collect();
    let span = |axis: fn(&Point) -> f64, limit: u32| {
        let limit = f64::from(limit);
        let low = corners.iter().map(axis).fold(f64::INFINITY, f64::min);
        let high = corners.iter().map(axis).fold(f64::NEG_INFINITY, f64::max);
        let start = (low - 2.0 * factor).floor().clamp(0.0, limit);
        let blocks = ((high + 2.0 * factor).min(limit) - start) / factor;
        // The last block may be narrower than the factor: the scale then follows from the sizes.
        let length = (blocks.ceil() * factor).min(limit - start);
        let count = (length / factor).ceil();
        (length > 0.0).then_some((start, length, count))
    };
    let (left, across, columns) = span(|c| c.x, source.width())?;
    let (top, down, rows) = span(|c| c.y, source.height())?;
    let reduced = resize(
        source,
        (left, top, across, down),
        (columns as u32, rows as u32),
        FilterType::Box,
    );
    let reduced_from_source = Affine::translation(Point::new(-left, -top))
        .then(&Affine::scaling(columns / across, rows / down));
    Some((reduced, reduced_from_source))
}

/// The rectangle `(left, top, width, height)` of `source`, in its pixels, resized to `size`.
pub(super) fn resize(
    source: &RgbImage,
    rectangle: (f64, f64, f64, f64),
    size: (u32, u32),
    filter: FilterType,
) -> RgbImage {
    let (left, top, width, height) = rectangle;
    let from = ImageRef::new(
        source.width(),
        source.height(),
        source.as_raw(),
        PixelType::U8x3,
    )
    .expect("an RgbImage has three bytes a pixel");
    let mut to = Image::new(size.0, size.1, PixelType::U8x3);
    let options = ResizeOptions::new()
        .crop(left, top, width, height)
        .resize_alg(ResizeAlg::Convolution(filter))
        .use_alpha(false);
    Resizer::new()
        .resize(&from, &mut to, &options)
        .expect("the rectangle lies within the source and both images are RGB");
    RgbImage::from_raw(size.0, size.1, to.into_vec()).expect("an RGB image has three bytes a pixel")
}

/// Samples on one row of output pixels: position of the first, and the step to the next.
#[derive(Clone, Copy)]
struct Line {
    start: Point,
    step: Point,
}

impl Line {
    fn at(&self, i: usize) -> Point {
        self.start + self.step * i as f64
    }

    /// The samples of `0..count` whose position is at least `low` and below `high` on both axes.
    fn within(&self, low: Point, high: Point, count: usize) -> (usize, usize) {
        if !self.start.is_finite() {
            return (0, 0);
        }
        let (mut first, mut end) = (0.0f64, count as f64);
        for (start, step, low, high) in [
            (self.start.x, self.step.x, low.x, high.x),
            (self.start.y, self.step.y, low.y, high.y),
        ] {
            if step == 0.0 {
                if !(start >= low && start < high) {
                    return (0, 0);
                }
                continue;
            }
            let (a, b) = ((low - start) / step, (high - start) / step);
            if step > 0.0 {
                first = first.max(a.ceil());
                end = end.min(b.ceil());
            } else {
                first = first.max(b.floor() + 1.0);
                end = end.min(a.floor() + 1.0);
            }
        }
        if first < end {
            (first as usize, end as usize)
        } else {
            (0, 0)
        }
    }
}

fn sample(
    source: &RgbImage,
    source_from_output: &Affine,
    width: u32,
    height: u32,
    fill: [u8; 3],
) -> RgbImage {
    let t = source_from_output;
    let (across, down) = (t.xx.hypot(t.yx), t.xy.hypot(t.yy));
    let far = across.max(down) > FAR_SHRINKING;
    let samples = |length: f64| {
        let apart = if far {
            CORNERS_APART
        } else if length > MUCH_SHRINKING {
            CLOSE
        } else {
            NO_SHRINKING
        };
        (length / apart).ceil().clamp(1.0, MAX_SAMPLES)
    };
    let (across, down) = (samples(across), samples(down));
    let add_inner = if far {
        add_nearest_corner
    } else {
        add_interpolated
    };
    let columns = width as usize;
    let total = SAMPLE_WEIGHT * across as u32 * down as u32;

    let mut output = RgbImage::new(width, height);
    let mut sums = vec![[0u32; 3]; columns];
    for (j, row) in output.chunks_exact_mut(3 * columns.max(1)).enumerate() {
        sums.fill([0; 3]);
        for b in 0..down as usize {
            for a in 0..across as usize {
                let first = Point::new(
                    (a as f64 + 0.5) / across,
                    j as f64 + (b as f64 + 0.5) / down,
                );
                let line = Line {
                    start: t.apply(first),
                    step: Point::new(t.xx, t.yx),
                };
                add_line(source, line, fill, add_inner, &mut sums);
            }
        }
        write_row(&sums, total, row);
    }
    output
}

/// Divides sums of samples by their weight, rounding to nearest.
fn write_row(sums: &[[u32; 3]], total: u32, row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    if total.is_power_of_two() {
        let shift = total.trailing_zeros();
        for (pixel, sum) in pixels.iter_mut().zip(sums) {
            *pixel = sum.map(|s| ((s + total / 2) >> shift) as u8);
        }
    } else {
        for (pixel, sum) in pixels.iter_mut().zip(sums) {
            *pixel = sum.map(|s| ((s + total / 2) / total) as u8);
        }
    }
}

/// Adds one sample, times [`SAMPLE_WEIGHT`], to each sum.
fn add_line(
    source: &RgbImage,
    line: Line,
    fill: [u8; 3],
    add_inner: AddSamples,
    sums: &mut [[u32; 3]],
) {
    let (w, h) = (f64::from(source.width()), f64::from(source.height()));
    let (first, end) = line.within(Point::default(), Point::new(w, h), sums.len());
    let outside = fill.map(|v| u32::from(v) * SAMPLE_WEIGHT);
    let (before, rest) = sums.split_at_mut(first);
    let (inside, after) = rest.split_at_mut(end - first);
    for sum in before.iter_mut().chain(after) {
        add(sum, outside);
    }
    if inside.is_empty() {
        return;
    }

    let line = Line {
        start: line.at(first),
        ..line
    };
    // Where all four neighbours exist, with a margin for the rounding of fixed-point coordinates.
    let margin = 1.0 / 256.0;
    let (inner, inner_end) = line.within(
        Point::new(0.5 + margin, 0.5 + margin),
        Point::new(w - 0.5 - margin, h - 0.5 - margin),
        inside.len(),
    );
    for (i, sum) in inside.iter_mut().enumerate() {
        if i < inner || i >= inner_end {
            add(sum, sample_clamped(source, line.at(i)));
        }
    }
    if inner < inner_end {
        add_inner(
            source,
            line.at(inner),
            line.step,
            &mut inside[inner..inner_end],
        );
    }
}

#[inline(always)]
fn add(sum: &mut [u32; 3], value: [u32; 3]) {
    for (s, v) in sum.iter_mut().zip(value) {
        *s += v;
    }
}

/// The bilinear mixture of four pixels, times [`SAMPLE_WEIGHT`]; weights `fx`, `fy` in 0…256.
#[inline(always)]
fn mix(
    upper_left: &[u8],
    upper_right: &[u8],
    lower_left: &[u8],
    lower_right: &[u8],
    fx: u32,
    fy: u32,
) -> [u32; 3] {
    let (w11, w10, w01) = (fx * fy, (256 - fx) * fy, fx * (256 - fy));
    let w00 = 65_536 - w11 - w10 - w01;
    std::array::from_fn(|c| {
        (u32::from(upper_left[c]) * w00
            + u32::from(upper_right[c]) * w01
            + u32::from(lower_left[c]) * w10
            + u32::from(lower_right[c]) * w11
            + 128)
            >> 8
    })
}

/// A sample within the source whose neighbours may lie beyond its border, where the border repeats.
fn sample_clamped(source: &RgbImage, p: Point) -> [u32; 3] {
    let axis = |v: f64, size: u32| {
        let v = (v - 0.5).clamp(0.0, f64::from(size - 1));
        let low = v.floor();
        let weight = ((v - low) * 256.0).round() as u32;
        (low as u32, (low as u32 + 1).min(size - 1), weight)
    };
    let (left, right, fx) = axis(p.x, source.width());
    let (top, bottom, fy) = axis(p.y, source.height());
    let at = |x, y| &source.get_pixel(x, y).0;
    mix(
        at(left, top),
        at(right, top),
        at(left, bottom),
        at(right, bottom),
        fx,
        fy,
    )
}

/// Adds samples of the source, all of whose neighbours exist: the first at a position, each other one a
/// step further.
type AddSamples = fn(&RgbImage, Point, Point, &mut [[u32; 3]]);

fn add_interpolated(source: &RgbImage, start: Point, step: Point, sums: &mut [[u32; 3]]) {
    let stride = 3 * source.width() as usize;
    let pixels = source.as_raw().as_slice();
    // The half of 1/256 makes the truncation to 8 bits a rounding.
    let shift = 0.5 / 256.0 - 0.5;
    let (mut x, mut y) = (fixed(start.x + shift), fixed(start.y + shift));
    let (dx, dy) = (fixed(step.x), fixed(step.y));
    for sum in sums {
        let offset = (y >> 32) as usize * stride + 3 * (x >> 32) as usize;
        let upper = &pixels[offset..offset + 6];
        let lower = &pixels[offset + stride..offset + stride + 6];
        let (fx, fy) = ((x >> 24) as u32 & 255, (y >> 24) as u32 & 255);
        add(
            sum,
            mix(&upper[..3], &upper[3..], &lower[..3], &lower[3..], fx, fy),
        );
        // Only past the last sample can this leave the range.
        x = x.wrapping_add(dx);
        y = y.wrapping_add(dy);
    }
}

fn add_nearest_corner(source: &RgbImage, start: Point, step: Point, sums: &mut [[u32; 3]]) {
    let stride = 3 * source.width() as usize;
    let pixels = source.as_raw().as_slice();
    let (mut x, mut y) = (fixed(start.x - 0.5), fixed(start.y - 0.5));
    let (dx, dy) = (fixed(step.x), fixed(step.y));
    for sum in sums {
        let offset = (y >> 32) as usize * stride + 3 * (x >> 32) as usize;
        let upper = &pixels[offset..offset + 6];
        let lower = &pixels[offset + stride..offset + stride + 6];
        let four = |c: usize| {
            let [a, b] = [upper[c], lower[c]].map(u32::from);
            let [d, e] = [upper[c + 3], lower[c + 3]].map(u32::from);
            a + b + d + e
        };
        add(sum, std::array::from_fn(|c| four(c) * (SAMPLE_WEIGHT / 4)));
        // Only past the last sample can this leave the range.
        x = x.wrapping_add(dx);
        y = y.wrapping_add(dy);
    }
}

fn fixed(v: f64) -> i64 {
    (v * ONE) as i64
}
