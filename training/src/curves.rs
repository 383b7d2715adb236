//! Learning curves: the `metrics.csv` of a run as a picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

/// Why learning curves could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum CurvesError {
    /// The table cannot be read.
    #[error("{path}: {source}")]
    Table {
        /// The table.
        path: PathBuf,
        /// What is wrong.
        source: csv::Error,
    },
    /// The table has no column `epoch`.
    #[error("{0}: column epoch is missing")]
    NoEpochs(PathBuf),
    /// The picture cannot be written.
    #[error("{path}: {reason}")]
    Picture {
        /// The picture.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Points of a column over epochs.
type Series = Vec<(f64, f64)>;

/// Curves that share an axis.
struct Panel {
    title: &'static str,
    curves: Vec<(String, Series)>,
}

/// Width of the picture in pixels.
const WIDTH: u32 = 800;
/// Height of each panel in pixels.
const PANEL_HEIGHT: u32 = 300;

/// Draws the columns of the table `metrics` over its column `epoch` into the SVG file `picture`:
/// losses in one panel, metrics between 0 and 1 in the next, other numbers, and the learning rate.
/// Values that are missing or no finite numbers leave a gap in nothing but their own curve.
///
/// # Errors
/// Where the table cannot be read, has no column `epoch`, or the picture cannot be written.
pub fn draw(metrics: &Path, picture: &Path) -> Result<(), CurvesError> {
    let panels = panels(read(metrics)?);
    let failed = |reason: String| CurvesError::Picture {
        path: picture.into(),
        reason,
    };
    let mut svg = String::new();
    {
        let size = (WIDTH, PANEL_HEIGHT * panels.len().max(1) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = (|| {
            root.fill(&WHITE).map_err(|e| e.to_string())?;
            for (area, panel) in root
                .split_evenly((panels.len().max(1), 1))
                .iter()
                .zip(&panels)
            {
                draw_panel(area, panel)?;
            }
            root.present().map_err(|e| e.to_string())
        })();
        drawn.map_err(failed)?;
    }
    crate::files::write_whole(picture, svg.as_bytes()).map_err(|e| failed(e.to_string()))
}

fn read(path: &Path) -> Result<BTreeMap<String, Series>, CurvesError> {
    let error = |source| CurvesError::Table {
        path: path.into(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(error)?;
    let header = reader.headers().map_err(error)?.clone();
    let epoch_column = header
        .iter()
        .position(|column| column == "epoch")
        .ok_or_else(|| CurvesError::NoEpochs(path.into()))?;
    let finite = |text: &str| text.trim().parse().ok().filter(|v: &f64| v.is_finite());
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(error)?;
        let Some(epoch) = record.get(epoch_column).and_then(finite) else {
            continue;
        };
        for (i, (name, text)) in header.iter().zip(&record).enumerate() {
            if i != epoch_column
                && let Some(value) = finite(text)
            {
                series
                    .entry(name.to_owned())
                    .or_default()
                    .push((epoch, value));
            }
        }
    }
    Ok(series)
}

fn panels(series: BTreeMap<String, Series>) -> Vec<Panel> {
    let titles = ["loss", "fraction", "other", "learning rate"];
    let mut panels = titles.map(|title| Panel {
        title,
        curves: Vec::new(),
    });
    for (name, points) in series {
        let place = if name.contains("loss") {
            0
        } else if name == "learning_rate" {
            3
        } else if points.iter().all(|(_, value)| (0.0..=1.0).contains(value)) {
            1
        } else {
            2
        };
        panels[place].curves.push((name, points));
    }
    panels
        .into_iter()
        .filter(|p| !p.curves.is_empty())
        .collect()
}

/// Smallest and largest value with a little room; never an empty range.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    (low - room, high + room)
}

fn draw_panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    panel: &Panel,
) -> Result<(), String> {
    let points = || panel.curves.iter().flat_map(|(_, points)| points);
    let (left, right) = range(points().map(|p| p.0));
    let (mut low, mut high) = range(points().map(|p| p.1));
    if panel.title == "fraction" {
        (low, high) = (0.0, 1.0);
    }
    if panel.title == "learning rate" {
        low = low.min(0.0);
    }
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d(left..right, low..high)
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(panel.title)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| match y.abs() {
            a if a > 0.0 && a < 0.01 => format!("{y:.1e}"),
            a if a < 10.0 => format!("{y:.2}"),
            _ => format!("{y:.0}"),
        })
        .light_line_style(BLACK.mix(0.05))
        .draw()
        .map_err(|e| e.to_string())?;
    for (i, (name, points)) in panel.curves.iter().enumerate() {
        let style = Palette99::pick(i).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))
            .map_err(|e| e.to_string())?
            .label(name.replace('_', " "))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_every_curve_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (table, picture) = (folder.path().join("m.csv"), folder.path().join("c.svg"));
        let text = "epoch,learning_rate,training_loss,validation_loss,top_1\n\
                    1,0.001,6.1,6.0,0.01\n2,0.002,5.5,NaN,0.1\n3,0.001,4.5,4.9,0.35\n";
        std::fs::write(&table, text).expect("written");
        draw(&table, &picture).expect("drawn");
        let svg = std::fs::read_to_string(&picture).expect("a picture");
        for name in [
            "learning rate",
            "training loss",
            "validation loss",
            "top 1",
            "epoch",
        ] {
            assert!(svg.contains(name), "{name} is not in the picture");
        }
    }

    #[test]
    fn draws_nothing_for_no_epochs_and_names_a_bad_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let (table, picture) = (folder.path().join("m.csv"), folder.path().join("c.svg"));
        std::fs::write(&table, "epoch,training_loss\n").expect("written");
        draw(&table, &picture).expect("an empty picture");
        std::fs::write(&table, "training_loss\n1\n").expect("written");
        let error = draw(&table, &picture).expect_err("there is no epoch");
        assert!(error.to_string().contains("m.csv"));
    }
}
