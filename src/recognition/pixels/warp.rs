use std::ops::Range;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use image::imageops::{flip_horizontal_in_place, flip_vertical_in_place, replace};
use rayon::prelude::*;

use crate::geometry::{Affine, Point, Rectangle};

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

/// Below this step, so much enlarged that nothing is to be seen, an upright view is drawn as others are: a resizer
/// loses the few digits that are left.
const LEAST_RESIZED: f64 = 1e-3;

/// Rows that a thread samples at a time.
const ROWS_SAMPLED: usize = 16;

/// Rows that a thread resizes at a time: more, as rows of the source that two bands need are read for both.
const ROWS_RESIZED: usize = 64;

/// Most samples along one side of an output pixel, so that a degenerate transform costs no more than
/// the source has pixels. Only a transform that shrinks one axis over 64 times as much as the other
/// comes here, and aliases.
const MAX_SAMPLES: f64 = 64.0;

/// Draws `source` into a new image of `width × height` pixels, moved by `output_from_source`.
///
/// The centre of each output pixel is mapped back into the source and interpolated bilinearly between
/// the centres of the source's pixels. Where the transform shrinks, the output pixel is the mean over
/// the parallelogram that it covers in the source, or nearly that where rows stay rows: those are resized, which is
/// cheaper. What is too fine for the output then fades as that mean lets it: all of it in the flat, and of the finest
/// pattern there is, a checkerboard seen at 45°, one fifth at the most. Positions outside the source are `fill`;
/// positions within it, up to the outer edge of its border pixels, never mix with it.
///
/// A transform without inverse, or an empty source, gives `fill` all over. On a thread of a rayon pool, its threads
/// share the work.
pub fn warp(
    source: &RgbImage,
    output_from_source: &Affine,
    width: u32,
    height: u32,
    fill: [u8; 3],
) -> RgbImage {
    let view = source_from_view(source, output_from_source);
    let seen = Seen::by(source, &[view], (width, height));
    seen.show(source, view, (width, height), fill)
}

/// [`warp`] by each of several transforms that show about the same part of the source, such as the views
/// of one head: what they share is done once, the rest on the threads of the current rayon pool. A view that is the
/// mirror image of another is not drawn anew but turned over.
pub fn warp_views(
    source: &RgbImage,
    output_from_source: &[Affine],
    width: u32,
    height: u32,
    fill: [u8; 3],
) -> impl IndexedParallelIterator<Item = RgbImage> + use<> {
    let views: Vec<Option<Affine>> = output_from_source
        .iter()
        .map(|t| source_from_view(source, t))
        .collect();
    let seen = Seen::by(source, &views, (width, height));
    // Of each view, the first that shows the same, and how that is turned over.
    let turned: Vec<(usize, Mirroring)> = (0..views.len())
        .map(|i| {
            let of = |j: usize| {
                let other_from_view = views[i]?.then(&output_from_source[j]);
                Some((j, Mirroring::by(&other_from_view, (width, height))?))
            };
            (0..i).find_map(of).unwrap_or((i, Mirroring::default()))
        })
        .collect();
    let drawn: Vec<Option<RgbImage>> = views
        .par_iter()
        .zip(&turned)
        .enumerate()
        .map(|(i, (view, (first, _)))| {
            (*first == i).then(|| seen.show(source, *view, (width, height), fill))
        })
        .collect();
    turned.into_par_iter().map(move |(first, mirroring)| {
        let image = drawn[first].clone();
        mirroring.apply(image.expect("the first view that shows something is drawn"))
    })
}

/// Positions that are nearer to each other, in pixels, are the same.
const EXACT: f64 = 1e-6;

/// How an image is turned over.
#[derive(Clone, Copy, Default)]
struct Mirroring {
    left_to_right: bool,
    top_to_bottom: bool,
}

impl Mirroring {
    /// What a transform between images of this size, in pixels, does; `None` where that is something else.
    fn by(transform: &Affine, size: (u32, u32)) -> Option<Self> {
        let t = transform;
        let longest = longest_side(size);
        let is_mirrored = |stretch: f64, shift: f64, side: u32| {
            let away = |from: f64, by: f64| (stretch - from).abs() * longest + (shift - by).abs();
            if away(1.0, 0.0) < EXACT {
                Some(false)
            } else {
                (away(-1.0, f64::from(side)) < EXACT).then_some(true)
            }
        };
        Some(Self {
            left_to_right: is_mirrored(t.xx, t.x0, size.0)?,
            top_to_bottom: is_mirrored(t.yy, t.y0, size.1)?,
        })
        .filter(|_| rows_stay_rows(t, size))
    }

    fn apply(self, mut image: RgbImage) -> RgbImage {
        if self.left_to_right {
            flip_horizontal_in_place(&mut image);
        }
        if self.top_to_bottom {
            flip_vertical_in_place(&mut image);
        }
        image
    }
}

/// The inverse, where there is one and something to see.
fn source_from_view(source: &RgbImage, view_from_source: &Affine) -> Option<Affine> {
    let nothing_to_see = source.width() == 0 || source.height() == 0;
    let inverse = view_from_source.inverse().filter(is_finite);
    inverse.filter(|_| !nothing_to_see)
}

/// The part of the source that views show, as their samples need it. Upright ones need none.
struct Seen {
    /// For views that do not shrink far: the pixels.
    near: Option<Region>,
    /// For those that do: means of pixels around corners.
    far: Option<Region>,
}

impl Seen {
    fn by(source: &RgbImage, source_from_view: &[Option<Affine>], size: (u32, u32)) -> Self {
        let (far, near): (Vec<&Affine>, Vec<&Affine>) = source_from_view
            .iter()
            .flatten()
            .filter(|view| Upright::of(source, view, size).is_none())
            .partition(|view| shrinks_far(view));
        let least = far.iter().map(|view| least_stretch(view));
        let factor = (least.fold(f64::INFINITY, f64::min) / FAR_SHRINKING).floor();
        Self {
            near: Region::of(source, &near, size, 1.0),
            far: Region::of(source, &far, size, factor.max(1.0)).map(Region::average_at_corners),
        }
    }

    /// Draws a view of the same source and size.
    fn show(
        &self,
        source: &RgbImage,
        source_from_view: Option<Affine>,
        size: (u32, u32),
        fill: [u8; 3],
    ) -> RgbImage {
        let shown = source_from_view.and_then(|view| {
            Some(if let Some(upright) = Upright::of(source, &view, size) {
                upright.draw(source, size, fill)
            } else if shrinks_far(&view) {
                self.far.as_ref()?.sample_corners(&view, size, fill)
            } else {
                self.near.as_ref()?.interpolate(&view, size, fill)
            })
        });
        shown.unwrap_or_else(|| RgbImage::from_pixel(size.0, size.1, image::Rgb(fill)))
    }
}

/// A view in which the source's rows are rows: what lies within the source is resized, which costs a fraction of
/// drawing sample by sample.
struct Upright {
    mirroring: Mirroring,
    /// Of the view before it is mirrored.
    source_from_view: Affine,
    /// The pixels of that view that lie within the source.
    columns: Range<u32>,
    rows: Range<u32>,
}

impl Upright {
    /// `None` where rows do not stay rows, or no pixel lies within the source.
    fn of(source: &RgbImage, source_from_view: &Affine, size: (u32, u32)) -> Option<Self> {
        let t = source_from_view;
        if !rows_stay_rows(t, size) {
            return None;
        }
        let mirroring = Mirroring {
            left_to_right: t.xx < 0.0,
            top_to_bottom: t.yy < 0.0,
        };
        let (across, left) = unmirrored(t.xx, t.x0, size.0);
        let (down, top) = unmirrored(t.yy, t.y0, size.1);
        if across.min(down) < LEAST_RESIZED {
            return None;
        }
        let columns = pixels_within(across, left, source.width(), size.0)?;
        let rows = pixels_within(down, top, source.height(), size.1)?;
        Some(Self {
            mirroring,
            source_from_view: Affine::scaling(across, down)
                .then(&Affine::translation(Point::new(left, top))),
            columns,
            rows,
        })
    }

    fn draw(&self, source: &RgbImage, size: (u32, u32), fill: [u8; 3]) -> RgbImage {
        let t = &self.source_from_view;
        let (columns, rows) = (&self.columns, &self.rows);
        let inner = Rectangle {
            left: f64::from(columns.start),
            top: f64::from(rows.start),
            right: f64::from(columns.end),
            bottom: f64::from(rows.end),
        };
        let whole = Rectangle::of_image(source.width(), source.height());
        let part = inner.bounds_after(t).clamped(&whole);
        // As sharp as the mean over each pixel's area is, without its steps; where it enlarges it would make some.
        let filter = if t.xx.min(t.yy) > NO_SHRINKING {
            FilterType::Hamming
        } else {
            FilterType::Bilinear
        };
        let resized = resize(
            source,
            (part.left, part.top, part.width(), part.height()),
            (columns.end - columns.start, rows.end - rows.start),
            filter,
        );
        let image = if resized.dimensions() == size {
            resized
        } else {
            let mut image = RgbImage::new(size.0, size.1);
            let mut put = |part: &RgbImage, columns: &Range<u32>, rows: &Range<u32>| {
                replace(&mut image, part, columns.start.into(), rows.start.into());
            };
            put(&resized, columns, rows);
            // Around it, pixels that the source's border crosses, and those outside.
            for (columns, rows) in [
                (0..size.0, 0..rows.start),
                (0..size.0, rows.end..size.1),
                (0..columns.start, rows.clone()),
                (columns.end..size.0, rows.clone()),
            ] {
                if columns.is_empty() || rows.is_empty() {
                    continue;
                }
                let corner = Point::new(columns.start.into(), rows.start.into());
                let view = Some(Affine::translation(corner).then(t));
                let size = (columns.end - columns.start, rows.end - rows.start);
                let strip = Seen::by(source, &[view], size).show(source, view, size, fill);
                put(&strip, &columns, &rows);
            }
            image
        };
        self.mirroring.apply(image)
    }
}

fn longest_side(size: (u32, u32)) -> f64 {
    f64::from(size.0.max(size.1))
}

/// Whether a transform from an image of this size, in pixels, neither turns nor shears.
fn rows_stay_rows(t: &Affine, size: (u32, u32)) -> bool {
    (t.xy.abs() + t.yx.abs()) * longest_side(size) < EXACT
}

/// One axis of a view as it is before it is mirrored, where it is: stretch and shift, in the source's pixels.
fn unmirrored(stretch: f64, shift: f64, side: u32) -> (f64, f64) {
    if stretch < 0.0 {
        (-stretch, shift + stretch * f64::from(side))
    } else {
        (stretch, shift)
    }
}

/// Along one axis, the pixels of a view of `side` that lie within a source of `length`; `None` where none do.
fn pixels_within(stretch: f64, shift: f64, length: u32, side: u32) -> Option<Range<u32>> {
    let at = |position: f64| (position - shift) / stretch;
    let start = at(-EXACT).ceil().max(0.0);
    let end = at(f64::from(length) + EXACT).floor().min(f64::from(side));
    (start < end).then_some(start as u32..end as u32)
}

fn is_finite(t: &Affine) -> bool {
    [t.xx, t.xy, t.x0, t.yx, t.yy, t.y0]
        .iter()
        .all(|v| v.is_finite())
}

/// Sides of the parallelogram that an output pixel covers in the source.
fn steps(source_from_output: &Affine) -> (f64, f64) {
    let t = source_from_output;
    (t.xx.hypot(t.yx), t.xy.hypot(t.yy))
}

fn shrinks_far(source_from_output: &Affine) -> bool {
    let (across, down) = steps(source_from_output);
    across.max(down) > FAR_SHRINKING
}

/// The smaller singular value: by how much the transform stretches the direction that it stretches
/// least.
fn least_stretch(t: &Affine) -> f64 {
    let squares = t.xx * t.xx + t.xy * t.xy + t.yx * t.yx + t.yy * t.yy;
    let det = t.determinant().abs();
    let largest = ((squares + 2.0 * det).sqrt() + (squares - 2.0 * det).max(0.0).sqrt()) / 2.0;
    det / largest
}

/// A pixel's red, green and blue, and a 0 that makes it a machine word.
type Word = [u8; 4];

/// A part of the source, reduced by a whole factor where that is both cheaper and not visible in the
/// result.
struct Region {
    /// Row by row, with one pixel more on each side, where those of the border are repeated.
    words: Vec<Word>,
    /// Words in a row.
    stride: usize,
    /// Width and height in its own pixels, without what is repeated.
    size: (f64, f64),
    from_source: Affine,
}

impl Region {
    /// The part that views of this size show; `None` where none shows anything.
    fn of(
        source: &RgbImage,
        source_from_view: &[&Affine],
        size: (u32, u32),
        factor: f64,
    ) -> Option<Self> {
        let view = Rectangle::of_image(size.0, size.1);
        let part = source_from_view
            .iter()
            .map(|source_from_view| view.bounds_after(source_from_view))
            .reduce(|a, b| a.union(&b))?
            .grown(2.0 * factor);
        let span = |low: f64, high: f64, limit: u32| {
            let limit = f64::from(limit);
            let start = low.floor().clamp(0.0, limit);
            // The last block may be narrower than the factor: the scale then follows from the sizes.
            let blocks = (high.min(limit) - start) / factor;
            let length = (blocks.ceil() * factor).min(limit - start);
            let count = (length / factor).ceil();
            (length > 0.0).then_some((start, length, count))
        };
        let (left, across, columns) = span(part.left, part.right, source.width())?;
        let (top, down, rows) = span(part.top, part.bottom, source.height())?;
        let from_source = Affine::translation(Point::new(-left, -top))
            .then(&Affine::scaling(columns / across, rows / down));
        let size = (columns, rows);
        let (columns, rows) = (columns as usize, rows as usize);
        let words = if factor > 1.0 {
            let part = (left, top, across, down);
            let reduced = resize(source, part, (columns as u32, rows as u32), FilterType::Box);
            bordered(&reduced, (0, 0), (columns, rows))
        } else {
            bordered(source, (left as usize, top as usize), (columns, rows))
        };
        Some(Self {
            words,
            stride: columns + 2,
            size,
            from_source,
        })
    }

    /// Of each pixel, the mean with its neighbours at right and below: those around its lower right
    /// corner.
    fn average_at_corners(self) -> Self {
        let values = self.words.as_flattened();
        let from = |word: usize| values.get(4 * word..).unwrap_or_default();
        let (right, below, both) = (from(1), from(self.stride), from(self.stride + 1));
        let mean = |[a, b, c, d]: [u8; 4]| {
            ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) >> 2) as u8
        };
        let means: Vec<u8> = values
            .iter()
            .zip(right)
            .zip(below)
            .zip(both)
            .map(|(((a, b), c), d)| mean([*a, *b, *c, *d]))
            .collect();
        Self {
            words: means.as_chunks().0.to_vec(),
            ..self
        }
    }

    /// A view out of [`average_at_corners`](Self::average_at_corners): samples of the nearest corner.
    fn sample_corners(
        &self,
        source_from_view: &Affine,
        size: (u32, u32),
        fill: [u8; 3],
    ) -> RgbImage {
        let t = source_from_view.then(&self.from_source);
        sample(&t, self.size, CORNERS_APART, size, fill, |line, sums| {
            for (sum, (x, y)) in sums.iter_mut().zip(line.fixed(0.5)) {
                let word = self.words[whole(y) * self.stride + whole(x)];
                for (sum, value) in sum.iter_mut().zip(word) {
                    *sum += u32::from(value) * SAMPLE_WEIGHT;
                }
            }
        })
    }

    /// A view out of the pixels: samples interpolated between their centres.
    fn interpolate(&self, source_from_view: &Affine, size: (u32, u32), fill: [u8; 3]) -> RgbImage {
        let t = source_from_view.then(&self.from_source);
        // From the region's coordinates to those of the pixels' centres, of which the first is repeated;
        // the half of 1/256 makes the truncation of weights to 8 bits a rounding.
        let shift = 0.5 + 0.5 / 256.0;
        sample(&t, self.size, CLOSE, size, fill, |line, sums| {
            for (sum, (x, y)) in sums.iter_mut().zip(line.fixed(shift)) {
                let at = whole(y) * self.stride + whole(x);
                let upper = self.words[at..at + 2].as_flattened();
                let lower = self.words[at + self.stride..at + self.stride + 2].as_flattened();
                let (fx, fy) = (u16::from(first_bits(x)), u16::from(first_bits(y)));
                // In 16 bits throughout: then vector instructions take both pixels at once.
                let mut mixed = [0u16; 8];
                for ((mixed, upper), lower) in mixed.iter_mut().zip(upper).zip(lower) {
                    *mixed = u16::from(*upper) * (256 - fy) + u16::from(*lower) * fy;
                }
                let shares = mixed.map(|v| ((u32::from(v) * u32::from(fx << 8)) >> 16) as u16);
                for (c, sum) in sum.iter_mut().enumerate() {
                    *sum += u32::from(mixed[c] - shares[c] + shares[c + 4]);
                }
            }
        })
    }
}

/// The pixels of a part of the source, and around it those of its border once more.
fn bordered(
    source: &RgbImage,
    (left, top): (usize, usize),
    (columns, rows): (usize, usize),
) -> Vec<Word> {
    let width = source.width() as usize;
    let (pixels, _) = source.as_raw().as_chunks::<3>();
    let mut words = Vec::with_capacity((columns + 2) * (rows + 2));
    for j in 0..rows + 2 {
        let start = (top + j.saturating_sub(1).min(rows - 1)) * width + left;
        let row = &pixels[start..start + columns];
        let ends = [row[0], row[columns - 1]];
        let bordered = ends[..1].iter().chain(row).chain(&ends[1..]);
        words.extend(bordered.map(|&[red, green, blue]| [red, green, blue, 0]));
    }
    words
}

/// The rectangle `(left, top, width, height)` of `source`, in its pixels, resized to `size`. On a thread of a rayon
/// pool, its threads share the work.
pub(super) fn resize(
    source: &RgbImage,
    rectangle: (f64, f64, f64, f64),
    size: (u32, u32),
    filter: FilterType,
) -> RgbImage {
    let (left, top, width, height) = rectangle;
    // Typed, as resizing for every type of pixel would be compiled otherwise: a minute of it.
    let from = TypedImageRef::<U8x3>::from_buffer(source.width(), source.height(), source.as_raw())
        .expect("an RgbImage has three bytes a pixel");
    let step = height / f64::from(size.1);
    let mut resized = RgbImage::new(size.0, size.1);
    draw_bands(&mut resized, ROWS_RESIZED, |rows, pixels| {
        let mut to = TypedImage::<U8x3>::from_buffer(size.0, rows.len() as u32, pixels)
            .expect("a band has three bytes a pixel");
        // What lies around the rectangle is filtered with it, so bands join without a seam.
        let upper = top + rows.start as f64 * step;
        let lower = (top + rows.end as f64 * step).min(source.height().into());
        let options = ResizeOptions::new()
            .crop(left, upper, width, lower - upper)
            .resize_alg(ResizeAlg::Convolution(filter))
            .use_alpha(false);
        Resizer::new()
            .resize_typed(&from, &mut to, &options)
            .expect("the rectangle lies within the source and both images are RGB");
    });
    resized
}

/// Draws an image `rows_in_band` rows at a time: `draw` gets the numbers of the rows and their bytes. On a thread of a
/// rayon pool, its threads share the work.
fn draw_bands(
    image: &mut RgbImage,
    rows_in_band: usize,
    draw: impl Fn(Range<usize>, &mut [u8]) + Sync,
) {
    let row_bytes = 3 * image.width().max(1) as usize;
    let draw = |(band, pixels): (usize, &mut [u8])| {
        let first = band * rows_in_band;
        draw(first..first + pixels.len() / row_bytes, pixels);
    };
    // Another pool than the caller's would take threads from whoever counts on them.
    if rayon::current_thread_index().is_some() {
        let bands = image.par_chunks_mut(row_bytes * rows_in_band);
        bands.enumerate().for_each(draw);
    } else {
        let bands = image.chunks_mut(row_bytes * rows_in_band);
        bands.enumerate().for_each(draw);
    }
}

/// Samples on one row of output pixels: position of the first, and the step to the next.
#[derive(Clone, Copy)]
struct Line {
    start: Point,
    step: Point,
}

impl Line {
    fn from(&self, i: usize) -> Self {
        Self {
            start: self.start + self.step * i as f64,
            step: self.step,
        }
    }

    /// The positions of all samples, moved by `shift` along both axes, in fixed point.
    fn fixed(&self, shift: f64) -> impl Iterator<Item = (i64, i64)> {
        let (mut x, mut y) = (fixed(self.start.x + shift), fixed(self.start.y + shift));
        let (dx, dy) = (fixed(self.step.x), fixed(self.step.y));
        std::iter::repeat_with(move || {
            let at = (x, y);
            // Only past the last sample can this leave the range.
            x = x.wrapping_add(dx);
            y = y.wrapping_add(dy);
            at
        })
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

/// Sums of samples' red, green and blue; the fourth is not used.
type Sum = [u32; 4];

/// Draws samples of an area of `width × height`, where it is shrunk at most `apart`: `add_inside` adds
/// those on a line that lie within it, times [`SAMPLE_WEIGHT`].
fn sample(
    area_from_output: &Affine,
    (width, height): (f64, f64),
    apart: f64,
    size: (u32, u32),
    fill: [u8; 3],
    add_inside: impl Fn(Line, &mut [Sum]) + Sync,
) -> RgbImage {
    let t = area_from_output;
    let samples = |length: f64| {
        let apart = if length > MUCH_SHRINKING {
            apart
        } else {
            NO_SHRINKING
        };
        (length / apart).ceil().clamp(1.0, MAX_SAMPLES)
    };
    let (across, down) = steps(t);
    let (across, down) = (samples(across), samples(down));
    let columns = size.0 as usize;
    let total = SAMPLE_WEIGHT * across as u32 * down as u32;
    let [red, green, blue] = fill.map(|v| u32::from(v) * SAMPLE_WEIGHT);
    let outside = [red, green, blue, 0];

    let mut output = RgbImage::new(size.0, size.1);
    draw_bands(&mut output, ROWS_SAMPLED, |rows, pixels| {
        let mut sums = vec![Sum::default(); columns];
        for (j, row) in rows.zip(pixels.chunks_exact_mut(3 * columns)) {
            sums.fill(Sum::default());
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
                    let (first, end) =
                        line.within(Point::default(), Point::new(width, height), columns);
                    let (before, rest) = sums.split_at_mut(first);
                    let (inside, after) = rest.split_at_mut(end - first);
                    for sum in before.iter_mut().chain(after) {
                        for (sum, value) in sum.iter_mut().zip(outside) {
                            *sum += value;
                        }
                    }
                    if !inside.is_empty() {
                        add_inside(line.from(first), inside);
                    }
                }
            }
            write_row(&sums, total, row);
        }
    });
    output
}

/// Divides sums of samples by their weight, rounding to nearest.
fn write_row(sums: &[Sum], total: u32, row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    for (pixel, &[red, green, blue, _]) in pixels.iter_mut().zip(sums) {
        *pixel = [red, green, blue].map(|sum| ((sum + total / 2) / total) as u8);
    }
}

fn fixed(v: f64) -> i64 {
    (v * ONE) as i64
}

/// The whole part of a fixed-point number that is not negative.
fn whole(v: i64) -> usize {
    (v >> 32) as usize
}

/// The first eight bits after the point.
fn first_bits(v: i64) -> u8 {
    (v >> 24) as u8
}
