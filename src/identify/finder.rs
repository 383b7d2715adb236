use crate::bundle::Finder;
use crate::geometry::{Landmarks, Point};

/// A head as the finder sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundHead {
    /// Estimated landmarks.
    pub landmarks: Landmarks,
    /// Probability that this is a head, 0…1.
    pub confidence: f32,
}

/// Landmarks nearer to each other than this, in pixels of the finder's input, are no head's.
const SHORTEST_HEAD: f64 = 1.0;

/// Reads the heads out of a finder's output for one image.
///
/// `output` holds the 5 channels of [`Finder`], each `(height / stride) × (width / stride)`. The heads'
/// landmarks are in pixels of the finder's input, the surest first, none nearer to a surer one than the
/// suppression radius, and at most [`Finder::maximum_heads`] of them.
///
/// The cells around a peak see the same head, each with offsets of its own. Where they are at least half
/// as sure and mean the same place, their landmarks are averaged by confidence: that is steadier than
/// one cell's word.
///
/// An output of another length gives no heads.
pub fn decode_heat_map(finder: &Finder, output: &[f32]) -> Vec<FoundHead> {
    let input = &finder.network.input;
    let stride = finder.stride.max(1);
    let (columns, rows) = (
        (input.width / stride) as usize,
        (input.height / stride) as usize,
    );
    let cells = columns * rows;
    if cells == 0 || output.len() != 5 * cells {
        return Vec::new();
    }
    let logit = |cell: usize| output[cell];
    let confidence = |cell: usize| 1.0 / (1.0 + (-logit(cell)).exp());
    let landmarks = |cell: usize| {
        let centre = Point::new(
            ((cell % columns) as f64 + 0.5) * f64::from(stride),
            ((cell / columns) as f64 + 0.5) * f64::from(stride),
        );
        let offset = |channel: usize| f64::from(output[channel * cells + cell]);
        Landmarks {
            bonnet: centre + Point::new(offset(1), offset(2)),
            blowhead: centre + Point::new(offset(3), offset(4)),
        }
    };
    let around = |cell: usize| {
        let (column, row) = (cell % columns, cell / columns);
        let rows = row.saturating_sub(1)..(row + 2).min(rows);
        rows.flat_map(move |r| {
            let columns_around = column.saturating_sub(1)..(column + 2).min(columns);
            columns_around.map(move |c| r * columns + c)
        })
    };

    let mut peaks: Vec<FoundHead> = (0..cells)
        .filter(|&cell| confidence(cell) >= finder.threshold)
        .filter(|&cell| {
            // On a plateau the first cell is the peak.
            around(cell).all(|other| {
                logit(other) < logit(cell) || (logit(other) == logit(cell) && other >= cell)
            })
        })
        .filter_map(|cell| {
            let peak = landmarks(cell);
            let length = peak.head_length();
            if !length.is_finite() || length < SHORTEST_HEAD {
                return None;
            }
            let confidence_here = confidence(cell);
            let agreeing = around(cell).filter(|&other| {
                confidence(other) >= confidence_here * 0.5 && peak.error(&landmarks(other)) <= 0.25
            });
            let (mut bonnet, mut blowhead, mut sum) = (Point::default(), Point::default(), 0.0);
            for other in agreeing {
                let weight = f64::from(confidence(other));
                let seen = landmarks(other);
                bonnet = bonnet + seen.bonnet * weight;
                blowhead = blowhead + seen.blowhead * weight;
                sum += weight;
            }
            Some(FoundHead {
                landmarks: if sum > 0.0 {
                    Landmarks {
                        bonnet: bonnet * (1.0 / sum),
                        blowhead: blowhead * (1.0 / sum),
                    }
                } else {
                    peak
                },
                confidence: confidence_here,
            })
        })
        .collect();
    peaks.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));

    suppress(finder, peaks)
}

/// Of `heads`, the surest first, those that are not nearer to a surer one than the suppression radius,
/// and at most [`Finder::maximum_heads`]. Used again after alignment, which can move two peaks onto the
/// one head that both saw.
pub(super) fn suppress(finder: &Finder, heads: Vec<FoundHead>) -> Vec<FoundHead> {
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
    use crate::bundle::{Network, NetworkInput};

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
        assert!(decode_heat_map(&finder(), &empty()).is_empty());
    }

    #[test]
    fn an_output_of_another_length_gives_no_head() {
        assert!(decode_heat_map(&finder(), &[9.0; 7]).is_empty());
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
        let heads = decode_heat_map(&finder(), &output);
        assert_eq!(heads.len(), 2);
        assert!(heads[0].landmarks.error(&first) < 1e-6);
        assert!(heads[0].confidence > heads[1].confidence);
    }

    #[test]
    fn a_head_without_length_is_none() {
        let mut output = empty();
        put(&mut output, 30, 4.0, &head(26.0, 10.0, 0.0, 0.0));
        assert!(decode_heat_map(&finder(), &output).is_empty());
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
        let heads = decode_heat_map(&finder, &output);
        assert_eq!(heads.len(), 2);
        // The surest ones, which were written last.
        assert!(heads[0].landmarks.centre().x > heads[1].landmarks.centre().x);
        assert!(heads[1].landmarks.centre().x > 20.0);
    }

    proptest! {
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
            let heads = decode_heat_map(&finder(), &output);
            prop_assert_eq!(heads.len(), 1);
            prop_assert!(heads[0].landmarks.error(&truth) < 1e-4);
        }

        /// Whatever a network gives, the heads are few, sorted, apart and finite.
        #[test]
        fn any_output_gives_heads_that_keep_the_rules(
            output in prop::collection::vec(-40.0..40.0_f32, 5 * COLUMNS * ROWS),
        ) {
            let finder = finder();
            let heads = decode_heat_map(&finder, &output);
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
