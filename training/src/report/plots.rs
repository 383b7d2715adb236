use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::metrics::ReliabilityBin;

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (480, 320);

/// How often each number occurs, as SVG.
pub(super) fn histogram(
    across: &str,
    up: &str,
    values: impl Iterator<Item = usize>,
) -> anyhow::Result<String> {
    let mut counts: Vec<u32> = Vec::new();
    for value in values {
        if value >= counts.len() {
            counts.resize(value + 1, 0);
        }
        counts[value] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    draw(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(46)
            .build_cartesian_2d(
                (0..counts.len().max(1) as u32).into_segmented(),
                0..most + 1,
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(across)
            .y_desc(up)
            .draw()?;
        let bars = counts
            .iter()
            .zip(0u32..)
            .flat_map(|(&n, value)| std::iter::repeat_n(value, n as usize));
        chart.draw_series(
            Histogram::vertical(&chart)
                .style(Palette99::pick(0).filled())
                .margin(1)
                .data(bars.map(|value| (value, 1))),
        )?;
        Ok(())
    })
}

/// Accuracy over confidence (DeGroot & Fienberg 1983) beside the diagonal of perfect calibration, as SVG, for
/// each way of naming; points by how many predictions they stand for.
pub(super) fn reliability(ways: &[(String, Vec<ReliabilityBin>)]) -> anyhow::Result<String> {
    draw(|root| {
        let mut chart = axes(root, ("confidence", 0.0..1.0), ("right", 0.0..1.0))?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4)))?;
        for (i, (name, bins)) in ways.iter().enumerate() {
            let all: usize = bins.iter().map(|bin| bin.count).sum();
            let style = Palette99::pick(i);
            let filled = bins.iter().filter(|bin| bin.count > 0);
            let points = filled.clone().map(|bin| (bin.confidence, bin.accuracy));
            draw_line(&mut chart, i, name, points)?;
            chart.draw_series(filled.map(|bin| {
                let radius = 2.0 + 12.0 * (bin.count as f64 / all as f64).sqrt();
                Circle::new(
                    (bin.confidence, bin.accuracy),
                    radius as i32,
                    style.mix(0.5).filled(),
                )
            }))?;
        }
        draw_key(&mut chart)
    })
}

/// Named lines from (0, 0) on, as SVG.
pub(super) fn lines(
    across: &str,
    up: &str,
    lines: &[(String, Vec<(f64, f64)>)],
) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|line| &line.1);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max).max(1e-6) * 1.04;
    let (right, top) = (
        most(&mut points().map(|p| p.0)),
        most(&mut points().map(|p| p.1)),
    );
    draw(|root| {
        let mut chart = axes(root, (across, 0.0..right), (up, 0.0..top))?;
        for (i, (name, points)) in lines.iter().enumerate() {
            draw_line(&mut chart, i, name, points.iter().copied())?;
        }
        draw_key(&mut chart)
    })
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'c, 'a> = ChartContext<'c, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(super) type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

/// Axes of numbers, each with what it says and its range.
fn axes<'c, 'a>(
    root: &'c Area<'a>,
    across: (&str, Range<f64>),
    up: (&str, Range<f64>),
) -> Drawn<Chart<'c, 'a>> {
    let mut chart = ChartBuilder::on(root)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(across.1, up.1)?;
    chart
        .configure_mesh()
        .x_desc(across.0)
        .y_desc(up.0)
        .light_line_style(WHITE)
        .draw()?;
    Ok(chart)
}

/// A line in the `i`-th colour, named in the key.
fn draw_line(
    chart: &mut Chart<'_, '_>,
    i: usize,
    name: &str,
    points: impl Iterator<Item = (f64, f64)>,
) -> Drawn<()> {
    let style = Palette99::pick(i).stroke_width(2);
    chart
        .draw_series(LineSeries::new(points, style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    Ok(())
}

fn draw_key<'c, 'a: 'c>(chart: &mut Chart<'c, 'a>) -> Drawn<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

pub(super) fn draw(onto: impl FnOnce(&Area<'_>) -> Drawn<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        onto(&root).map_err(|e| anyhow!("drawing a plot: {e}"))?;
        root.present()?;
    }
    Ok(svg)
}
