use std::ops::Range;

use super::aligner;
use crate::bundle::{Finder, NetworkInput};
use crate::geometry::{Affine, Landmarks, Point};
use crate::pixels::reduce_to_fit;

/// A head as the finder sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundHead {
    /// Estimated landmarks.
    pub landmarks: Landmarks,
    /// Probability that this is a head, 0…1.
    pub confidence: f32,
}

impl FoundHead {
    /// The same head in the coordinates that `transform` maps to.
    pub fn map(&self, transform: &Affine) -> Self {
        Self {
            landmarks: self.landmarks.map(transform),
            ..*self
        }
    }
}

/// Landmarks nearer to each other than this, in pixels of the finder's input, are no head's.
const SHORTEST_HEAD: f64 = 1.0;

/// How far from a candidate's centre, in head lengths, the closer look's word for it may lie.
const REACH_OF_CLOSER_LOOK: f64 = 0.5;

/// Largest error, in head lengths, between two looks at the same head.
const SAME_HEAD: f64 = 0.5;

/// One image's output of a finder.
struct HeatMap<'a> {
    output: &'a [f32],
    stride: f64,
    columns: usize,
    rows: usize,
}

impl<'a> HeatMap<'a> {
    /// `None` where the output has another length than `finder` says.
    fn new(finder: &Finder, output: &'a [f32]) -> Option<Self> {
        let input = &finder.network.input;
        let stride = finder.stride.max(1);
        let (columns, rows) = (
            (input.width / stride) as usize,
            (input.height / stride) as usize,
        );
        let cells = columns * rows;
        (cells > 0 && output.len() == 5 * cells).then_some(Self {
            output,
            stride: f64::from(stride),
            columns,
            rows,
        })
    }

    fn cells(&self) -> usize {
        self.columns * self.rows
    }

    fn logit(&self, cell: usize) -> f32 {
        self.output[cell]
    }

    fn middle(&self, cell: usize) -> Point {
        Point::new(
            ((cell % self.columns) as f64 + 0.5) * self.stride,
            ((cell / self.columns) as f64 + 0.5) * self.stride,
        )
    }

    /// What one cell says.
    fn landmarks(&self, cell: usize) -> Landmarks {
        let centre = self.middle(cell);
        let offset = |channel: usize| f64::from(self.output[channel * self.cells() + cell]);
        Landmarks {
            bonnet: centre + Point::new(offset(1), offset(2)),
            blowhead: centre + Point::new(offset(3), offset(4)),
        }
    }

    /// The cells of a block, row by row.
    fn block(&self, columns: Range<usize>, rows: Range<usize>) -> impl Iterator<Item = usize> {
        let each = self.columns;
        rows.flat_map(move |row| columns.clone().map(move |column| row * each + column))
    }

    /// The cell and its neighbours.
    fn around(&self, cell: usize) -> impl Iterator<Item = usize> {
        let span = |at: usize, count: usize| at.saturating_sub(1)..(at + 2).min(count);
        self.block(
            span(cell % self.columns, self.columns),
            span(cell / self.columns, self.rows),
        )
    }

    /// The cells whose middles are no further than `reach` from a position.
    fn near(&self, position: Point, reach: f64) -> impl Iterator<Item = usize> {
        // Most cells of a map are in none of the rows and columns that are within reach.
        let span = |position: f64, count: usize| {
            let cell = |position: f64| (position / self.stride).clamp(0.0, count as f64) as usize;
            cell(position - reach)..(cell(position + reach) + 1).min(count)
        };
        self.block(span(position.x, self.columns), span(position.y, self.rows))
            .filter(move |&cell| self.middle(cell).distance(position) <= reach)
    }

    /// On a plateau the first cell is the peak.
    fn is_peak(&self, cell: usize) -> bool {
        self.around(cell).all(|other| {
            let (here, there) = (self.logit(cell), self.logit(other));
            there < here || (there == here && other >= cell)
        })
    }

    /// The head at a peak; `None` where its landmarks are no head's.
    ///
    /// The cells around a peak see the same head, each with offsets of its own. Where they are at least
    /// half as sure and mean the same place, their landmarks are averaged by confidence: that is steadier
    /// than one cell's word.
    fn head(&self, peak: usize) -> Option<FoundHead> {
        let alone = self.landmarks(peak);
        let length = alone.head_length();
        if !length.is_finite() || length < SHORTEST_HEAD {
            return None;
        }
        let confidence = sigmoid(self.logit(peak));
        let (mut bonnet, mut blowhead, mut sum) = (Point::default(), Point::default(), 0.0);
        for other in self.around(peak) {
            let weight = sigmoid(self.logit(other));
            let seen = self.landmarks(other);
            if weight >= confidence * 0.5 && alone.error(&seen) <= 0.25 {
                let weight = f64::from(weight);
                bonnet = bonnet + seen.bonnet * weight;
                blowhead = blowhead + seen.blowhead * weight;
                sum += weight;
            }
        }
        let landmarks = if sum > 0.0 {
            Landmarks {
                bonnet: bonnet * (1.0 / sum),
                blowhead: blowhead * (1.0 / sum),
            }
        } else {
            alone
        };
        Some(FoundHead {
            landmarks,
            confidence,
        })
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The inverse of [`sigmoid`], finite for every probability.
fn logit(probability: f32) -> f32 {
    let p = probability.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

/// Reads out of a finder's output for one image what is a head or, where there is a closer look, may be.
///
/// `output` holds the 5 channels of [`Finder`], each `(height / stride) × (width / stride)`. The heads'
/// landmarks are in pixels of the finder's input, the surest first, none nearer to a surer one than the
/// suppression radius, and at most [`Finder::maximum_heads`] of them.
///
/// An output of another length gives no heads.
pub(super) fn candidates(finder: &Finder, output: &[f32]) -> Vec<FoundHead> {
    let Some(map) = HeatMap::new(finder, output) else {
        return Vec::new();
    };
    let threshold = finder
        .closer_look
        .as_ref()
        .map_or(finder.threshold, |look| look.candidate_threshold);
    let heads = (0..map.cells())
        .filter(|&cell| sigmoid(map.logit(cell)) >= threshold && map.is_peak(cell))
        .filter_map(|cell| map.head(cell));
    suppress(finder, heads.collect())
}

/// The transform to the input of a closer look at a head, in which that is `head_length_pixels` long: of
/// landmarks and sizes in pixels of the frame. `None` where the landmarks are no head's.
pub(super) fn closer_input_from_frame(
    input: &NetworkInput,
    frame: (u32, u32),
    head: &Landmarks,
    head_length_pixels: f64,
) -> Option<Affine> {
    let (length, centre) = (head.head_length(), head.centre());
    if !(length.is_finite() && length > 0.0 && centre.is_finite()) {
        return None;
    }
    let whole = reduce_to_fit(frame, input.width, input.height).xx;
    let scale = (head_length_pixels / length).max(whole);
    // Along each axis the part lies around the head and within the frame, or holds the frame whole.
    let shift = |centre: f64, frame: u32, input: u32| {
        let (frame, input) = (f64::from(frame) * scale, f64::from(input));
        if frame <= input {
            (input - frame) / 2.0
        } else {
            (input / 2.0 - centre * scale).clamp(input - frame, 0.0)
        }
    };
    let shift = Point::new(
        shift(centre.x, frame.0, input.width),
        shift(centre.y, frame.1, input.height),
    );
    Some(Affine::scaling(scale, scale).then(&Affine::translation(shift)))
}

/// The transform, within the finder's input of `width × height` pixels, that makes its `index`th view: as it
/// is, mirrored left to right, mirrored top to bottom, turned by half.
pub(super) fn view(index: u32, width: u32, height: u32) -> Affine {
    let side = |mirrored: bool| if mirrored { -1.0 } else { 1.0 };
    Affine::scaling(side(index % 2 == 1), side(index / 2 % 2 == 1))
        .about(Point::new(f64::from(width) / 2.0, f64::from(height) / 2.0))
}

/// What one view of a closer look shows where a candidate lies.
struct Glimpse {
    /// The highest near the candidate.
    logit: f32,
    /// In pixels of the frame.
    landmarks: Option<Landmarks>,
}

impl Glimpse {
    /// `landmarks` are the candidate's, in pixels of the frame; `output` is the finder's for the input to which
    /// `input_from_frame` maps. `None` where that does not show the candidate.
    fn new(
        finder: &Finder,
        landmarks: &Landmarks,
        input_from_frame: &Affine,
        output: &[f32],
    ) -> Option<Self> {
        let map = HeatMap::new(finder, output)?;
        let seen = landmarks.map(input_from_frame);
        let centre = seen.centre();
        // No smaller than a cell, or there may be none within reach.
        let reach = (REACH_OF_CLOSER_LOOK * seen.head_length()).max(map.stride);
        let best = map
            .near(centre, reach)
            .max_by(|&a, &b| map.logit(a).total_cmp(&map.logit(b)))?;
        let frame_from_input = input_from_frame.inverse()?;
        Some(Self {
            logit: map.logit(best),
            landmarks: map
                .head(best)
                .map(|head| head.landmarks.map(&frame_from_input)),
        })
    }
}

/// A peak of the first look and what further views show where it lies; all in pixels of the frame.
pub(super) struct LikelyHead {
    peak: FoundHead,
    /// Logit of each view of the first look.
    first_look: Vec<f32>,
    closer_look: Vec<Glimpse>,
}

impl LikelyHead {
    /// `peak` is in pixels of the frame.
    pub fn new(peak: FoundHead) -> Self {
        Self {
            first_look: vec![logit(peak.confidence)],
            closer_look: Vec::new(),
            peak,
        }
    }

    /// Where the first look saw the head.
    pub fn landmarks(&self) -> &Landmarks {
        &self.peak.landmarks
    }

    /// Takes in another view of the whole frame. A view that does not show the candidate speaks for nothing.
    pub fn see_whole(&mut self, finder: &Finder, input_from_frame: &Affine, output: &[f32]) {
        let seen = Glimpse::new(finder, self.landmarks(), input_from_frame, output);
        self.first_look.extend(seen.map(|glimpse| glimpse.logit));
    }

    /// Takes in a view of the closer look.
    pub fn see_closer(&mut self, finder: &Finder, input_from_frame: &Affine, output: &[f32]) {
        let seen = Glimpse::new(finder, self.landmarks(), input_from_frame, output);
        self.closer_look.extend(seen);
    }

    /// The probability, 0…1, that it is a head by all that was seen of it: by both looks alike, by the first alone
    /// where there was no other. Not a number where a network gave none.
    pub fn confidence(&self) -> f32 {
        let closer: Vec<f32> = self.closer_look.iter().map(|seen| seen.logit).collect();
        let looks: Vec<f32> = [mean(&self.first_look), mean(&closer)]
            .into_iter()
            .flatten()
            .collect();
        mean(&looks).map_or(f32::NAN, sigmoid)
    }

    /// What both looks together say: `None` where it is no head, by `threshold`, or was not looked at again.
    pub fn head(&self, threshold: f32) -> Option<FoundHead> {
        let confidence = self.confidence();
        if self.closer_look.is_empty() || confidence.is_nan() || confidence < threshold {
            return None;
        }
        // More pixels place landmarks better, unless the closer look saw something else.
        let seen: Vec<Landmarks> = self
            .closer_look
            .iter()
            .filter_map(|glimpse| glimpse.landmarks)
            .filter(|seen| seen.error(self.landmarks()) <= SAME_HEAD)
            .collect();
        Some(FoundHead {
            landmarks: aligner::mean(&seen).unwrap_or(self.peak.landmarks),
            confidence,
        })
    }
}

/// `None` where there is no value.
fn mean(values: &[f32]) -> Option<f32> {
    (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32)
}

/// Of `heads`, the surest first, those that are not nearer to a surer one than the suppression radius,
/// and at most [`Finder::maximum_heads`]. Used again after alignment, which can move two peaks onto the
/// one head that both saw.
pub(super) fn suppress(finder: &Finder, mut heads: Vec<FoundHead>) -> Vec<FoundHead> {
    heads.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let radius = f64::from(finder.suppression_radius_head_lengths);
    let mut kept: Vec<FoundHead> = Vec::new();
    for head in heads {
        if kept.len() == finder.maximum_heads {
            break;
        }
        let same = kept.iter().any(|surer| {
            let apart = surer.landmarks.centre().distance(head.landmarks.centre());
            apart < radius * surer.landmarks.head_length()
        });
        if !same {
            kept.push(head);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{CloserLook, Network};

    const COLUMNS: usize = 12;
    const ROWS: usize = 8;
    const STRIDE: u32 = 4;

    fn finder() -> Finder {
        Finder {
            network: Network {
                file: "finder.onnx".into(),
                sha256: String::new(),
                input: NetworkInput {
                    name: "image".into(),
                    width: COLUMNS as u32 * STRIDE,
                    height: ROWS as u32 * STRIDE,
                    mean: [0.5; 3],
                    std: [0.25; 3],
                },
                output: "heads".into(),
            },
            stride: STRIDE,
            threshold: 0.5,
            closer_look: None,
            suppression_radius_head_lengths: 0.5,
            maximum_heads: 8,
        }
    }

    fn empty() -> Vec<f32> {
        let mut output = vec![0.0; 5 * COLUMNS * ROWS];
        output[..COLUMNS * ROWS].fill(-10.0);
        output
    }

    /// Writes a head into a cell so that its offsets are exact.
    fn put(output: &mut [f32], cell: usize, logit: f32, head: &Landmarks) {
        let cells = COLUMNS * ROWS;
        let x = ((cell % COLUMNS) as f64 + 0.5) * f64::from(STRIDE);
        let y = ((cell / COLUMNS) as f64 + 0.5) * f64::from(STRIDE);
        output[cell] = logit;
        for (channel, value) in [
            head.bonnet.x - x,
            head.bonnet.y - y,
            head.blowhead.x - x,
            head.blowhead.y - y,
        ]
        .into_iter()
        .enumerate()
        {
            output[(channel + 1) * cells + cell] = value as f32;
        }
    }

    fn head(x: f64, y: f64, dx: f64, dy: f64) -> Landmarks {
        Landmarks {
            bonnet: Point::new(x + dx, y + dy),
            blowhead: Point::new(x - dx, y - dy),
        }
    }

    #[test]
    fn nothing_above_the_threshold_is_no_head() {
        assert!(candidates(&finder(), &empty()).is_empty());
    }

    #[test]
    fn an_output_of_another_length_gives_no_head() {
        assert!(candidates(&finder(), &[9.0; 7]).is_empty());
    }

    #[test]
    fn two_cells_of_one_head_are_one_head_and_two_heads_are_two() {
        let mut output = empty();
        let first = head(10.0, 10.0, 5.0, 2.0);
        // Not neighbours, so both are peaks, yet they mean the same place.
        put(&mut output, 2 * COLUMNS + 1, 3.0, &first);
        put(
            &mut output,
            2 * COLUMNS + 3,
            2.0,
            &head(11.0, 10.0, 5.0, 2.0),
        );
        put(
            &mut output,
            6 * COLUMNS + 9,
            1.0,
            &head(38.0, 26.0, 0.0, 4.0),
        );
        let heads = candidates(&finder(), &output);
        assert_eq!(heads.len(), 2);
        assert!(heads[0].landmarks.error(&first) < 1e-6);
        assert!(heads[0].confidence > heads[1].confidence);
    }

    #[test]
    fn a_head_without_length_is_none() {
        let mut output = empty();
        put(&mut output, 30, 4.0, &head(26.0, 10.0, 0.0, 0.0));
        assert!(candidates(&finder(), &output).is_empty());
    }

    #[test]
    fn no_more_heads_than_asked_for() {
        let mut output = empty();
        for cell in (0..COLUMNS).step_by(3) {
            let x = (cell as f64 + 0.5) * f64::from(STRIDE);
            put(
                &mut output,
                cell,
                cell as f32 + 1.0,
                &head(x, 2.0, 2.0, 0.0),
            );
        }
        let mut finder = finder();
        finder.maximum_heads = 2;
        let heads = candidates(&finder, &output);
        assert_eq!(heads.len(), 2);
        // The surest ones, which were written last.
        assert!(heads[0].landmarks.centre().x > heads[1].landmarks.centre().x);
        assert!(heads[1].landmarks.centre().x > 20.0);
    }

    fn looking_closer() -> Finder {
        Finder {
            closer_look: Some(CloserLook {
                candidate_threshold: 0.2,
                head_length_pixels: 16.0,
                further_head_lengths_pixels: Vec::new(),
                views: 1,
            }),
            ..finder()
        }
    }

    /// What the finder makes of a candidate that it sees once more, as large as before.
    fn confirm(finder: &Finder, peak: FoundHead, output: &[f32]) -> Option<FoundHead> {
        let mut candidate = LikelyHead::new(peak);
        candidate.see_closer(finder, &Affine::IDENTITY, output);
        candidate.head(finder.threshold)
    }

    #[test]
    fn a_head_needs_both_looks() {
        let finder = looking_closer();
        let truth = head(26.0, 18.0, 8.0, 0.0);
        let candidate = FoundHead {
            landmarks: truth,
            confidence: sigmoid(-1.0),
        };
        assert_eq!(LikelyHead::new(candidate).head(0.0), None);
        let mut output = empty();
        assert_eq!(confirm(&finder, candidate, &output), None);
        put(
            &mut output,
            4 * COLUMNS + 6,
            3.0,
            &head(27.0, 18.0, 8.0, 0.0),
        );
        let both = confirm(&finder, candidate, &output).expect("a head");
        assert!((both.confidence - sigmoid(1.0)).abs() < 1e-6);
        assert!(both.landmarks.error(&head(27.0, 18.0, 8.0, 0.0)) < 1e-6);
        // What the second look sees elsewhere says nothing of the candidate.
        let far = FoundHead {
            landmarks: head(6.0, 18.0, 4.0, 0.0),
            ..candidate
        };
        assert_eq!(confirm(&finder, far, &output), None);
        // It confirms the head but sees it turned round: the first look's landmarks stay.
        put(
            &mut output,
            4 * COLUMNS + 6,
            3.0,
            &head(26.0, 18.0, -8.0, 0.0),
        );
        assert_eq!(
            confirm(&finder, candidate, &output)
                .expect("a head")
                .landmarks,
            truth
        );
        output[4 * COLUMNS + 6] = f32::NAN;
        assert_eq!(confirm(&finder, candidate, &output), None);
    }

    #[test]
    fn a_head_that_only_one_view_sees_is_none() {
        let finder = looking_closer();
        let truth = head(26.0, 18.0, 8.0, 0.0);
        let peak = FoundHead {
            landmarks: truth,
            confidence: sigmoid(1.0),
        };
        let mut output = empty();
        put(&mut output, 4 * COLUMNS + 6, 1.0, &truth);
        let mut candidate = LikelyHead::new(peak);
        candidate.see_closer(&finder, &Affine::IDENTITY, &output);
        assert!(candidate.head(finder.threshold).is_some());
        for index in 1..4 {
            let view = view(index, COLUMNS as u32 * STRIDE, ROWS as u32 * STRIDE);
            candidate.see_closer(&finder, &view, &empty());
        }
        assert!(candidate.head(finder.threshold).is_none());
    }

    proptest! {
        /// A closer look shows the head at least as long as asked for, within the frame where the frame
        /// is large enough, and is never a look from further away.
        #[test]
        fn closer_looks_stay_in_the_frame(
            width in 40..6000u32, height in 40..4000u32, x in 0.0..1.0_f64, y in 0.0..1.0_f64,
            length in 2.0..900.0_f64, asked in 4.0..32.0_f64,
        ) {
            let input = finder().network.input;
            let centre = Point::new(x * f64::from(width), y * f64::from(height));
            let truth = head(centre.x, centre.y, length / 2.0, 0.0);
            let cut = closer_input_from_frame(&input, (width, height), &truth, asked).expect("a head");
            let (w, h) = (f64::from(COLUMNS as u32 * STRIDE), f64::from(ROWS as u32 * STRIDE));
            let seen = truth.map(&cut);
            prop_assert!(seen.head_length() >= asked - 1e-9);
            let whole = reduce_to_fit((width, height), w as u32, h as u32);
            prop_assert!(cut.xx >= whole.xx - 1e-12);
            let at = seen.centre();
            prop_assert!((-1e-6..=w + 1e-6).contains(&at.x) && (-1e-6..=h + 1e-6).contains(&at.y), "{at:?}");
            let corner = cut.apply(Point::default());
            let far = cut.apply(Point::new(width.into(), height.into()));
            for (low, high, side) in [(corner.x, far.x, w), (corner.y, far.y, h)] {
                let covered = low <= 1e-6 && high >= side - 1e-6;
                let whole = low >= -1e-6 && high <= side + 1e-6;
                prop_assert!(covered || whole, "{low} to {high} of {side}");
            }
        }

        /// Wherever a head lies and whichever cells around it see it, its landmarks come back.
        #[test]
        fn landmarks_come_back_exactly(
            x in 2.0..46.0_f64,
            y in 2.0..30.0_f64,
            angle in 0.0..std::f64::consts::TAU,
            half_length in 2.0..10.0_f64,
            neighbours in prop::collection::vec(0.1..0.9_f32, 9),
        ) {
            let truth = head(x, y, half_length * angle.cos(), half_length * angle.sin());
            let (column, row) = ((x / 4.0) as usize, (y / 4.0) as usize);
            let mut output = empty();
            let mut around = neighbours.into_iter();
            for r in row.saturating_sub(1)..(row + 2).min(ROWS) {
                for c in column.saturating_sub(1)..(column + 2).min(COLUMNS) {
                    let logit = if (c, r) == (column, row) { 4.0 } else { around.next().unwrap_or(0.5) };
                    put(&mut output, r * COLUMNS + c, logit, &truth);
                }
            }
            let heads = candidates(&finder(), &output);
            prop_assert_eq!(heads.len(), 1);
            prop_assert!(heads[0].landmarks.error(&truth) < 1e-4);
        }

        /// Views that see the head where it is in them, and are as sure, change nothing.
        #[test]
        fn views_that_agree_change_nothing(
            x in 10.0..38.0_f64,
            y in 10.0..22.0_f64,
            angle in 0.0..std::f64::consts::TAU,
            half_length in 4.0..10.0_f64,
            logit in -1.0..4.0_f32,
        ) {
            let finder = looking_closer();
            let truth = head(x, y, half_length * angle.cos(), half_length * angle.sin());
            let peak = FoundHead { landmarks: truth, confidence: sigmoid(logit) };
            let mut candidate = LikelyHead::new(peak);
            for index in 0..4 {
                let view = view(index, COLUMNS as u32 * STRIDE, ROWS as u32 * STRIDE);
                let seen = truth.map(&view);
                let centre = seen.centre();
                let cell = (centre.y / 4.0) as usize * COLUMNS + (centre.x / 4.0) as usize;
                let mut output = empty();
                put(&mut output, cell, logit, &seen);
                candidate.see_whole(&finder, &view, &output);
                candidate.see_closer(&finder, &view, &output);
            }
            let found = candidate.head(0.0).expect("a head");
            prop_assert!((found.confidence - peak.confidence).abs() < 1e-5);
            prop_assert!(found.landmarks.error(&truth) < 1e-5);
        }

        /// Whatever a network gives, the heads are few, sorted, apart and finite.
        #[test]
        fn any_output_gives_heads_that_keep_the_rules(
            output in prop::collection::vec(-40.0..40.0_f32, 5 * COLUMNS * ROWS),
        ) {
            let finder = finder();
            let heads = candidates(&finder, &output);
            prop_assert!(heads.len() <= finder.maximum_heads);
            for (i, head) in heads.iter().enumerate() {
                prop_assert!(head.confidence >= finder.threshold && head.confidence <= 1.0);
                prop_assert!(head.landmarks.bonnet.is_finite() && head.landmarks.blowhead.is_finite());
                for surer in &heads[..i] {
                    prop_assert!(surer.confidence >= head.confidence);
                    let apart = surer.landmarks.centre().distance(head.landmarks.centre());
                    prop_assert!(apart >= 0.5 * surer.landmarks.head_length());
                }
            }
        }
    }
}
