use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use minijinja::{Value, context};
use recognition::geometry::HeadCrop;
use recognition::pixels::encode_jpeg;

use super::table::environment;
use super::{Best, CLASSES, Report, Table};
use crate::conditions::ConditionsReport;
use crate::features::HeadPhotograph;

/// Size of a head on the page in pixels.
const HEAD: (u32, u32) = (240, 120);

const QUALITY: u8 = 75;

/// The page: all rows of the table, what was measured of bundles under other light, and for the report's own runs
/// everything else, with all pictures in it.
///
/// # Errors
/// A photograph cannot be read.
pub fn render(
    report: &Report,
    table: &Table,
    conditions: &[ConditionsReport],
) -> anyhow::Result<String> {
    let mut environment = environment()?;
    environment.add_template("report.html", include_str!("report.html"))?;
    let saliency: Vec<Value> = report
        .saliency
        .iter()
        .map(|figure| {
            let maps: Vec<Value> = figure
                .maps
                .iter()
                .map(|(run, map, _)| {
                    context! { run, probability => map.probability, largest => map.largest() }
                })
                .collect();
            let whale = &figure.whale;
            let strip = data_url(&figure.strip()).with_context(|| format!("a map of {whale}"))?;
            Ok(context! { whale, maps, strip })
        })
        .collect::<anyhow::Result<_>>()?;
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|c| context! { subject => c.subject(), header => c.header(), rows => c.rows() })
        .collect();
    let page = environment.get_template("report.html")?.render(context! {
        version => env!("CARGO_PKG_VERSION"),
        classifiers => table.classifiers,
        stacks => table.stacks,
        aligners => table.aligners,
        localisers => table.localisers,
        classes => CLASSES.map(|class| class.0),
        photographs_a_whale => report.photographs_a_whale,
        curves => report.curves,
        reliability => report.reliability,
        best => report.best.as_ref().map(best).transpose()?,
        saliency,
        landmarks => report.landmarks,
        overlaps => report.overlaps,
        conditions,
    })?;
    Ok(page)
}

fn best(best: &Best) -> anyhow::Result<Value> {
    let confusions: Vec<Value> = best
        .confusions
        .iter()
        .map(|c| {
            Ok(context! {
                whale => c.whale, named => c.named, times => c.times,
                seen => picture(&c.seen)?, like => picture(&c.like)?,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let mistakes: Vec<Value> = best
        .mistakes
        .iter()
        .map(|m| {
            Ok(context! {
                whale => m.whale, probability => m.probability,
                named => m.named, named_probability => m.named_probability,
                seen => picture(&m.photograph)?, like => picture(&m.like)?,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let strangers: Vec<Value> = best
        .strangers
        .iter()
        .map(|s| {
            let nearest: Vec<Value> = s
                .nearest
                .iter()
                .map(|(head, whale, similarity)| {
                    Ok(context! { whale, similarity, like => picture(head)? })
                })
                .collect::<anyhow::Result<_>>()?;
            Ok(context! { whale => s.whale, seen => picture(&s.photograph)?, nearest })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(context! {
        name => best.name, named_by => best.named_by, confusions, mistakes, strangers,
    })
}

/// The head as a data URL, un-squeezed.
fn picture(head: &HeadPhotograph) -> anyhow::Result<String> {
    let (width, height) = HEAD;
    let image = head.image(&HeadCrop::RIGHT_WHALE, width, height)?;
    data_url(&image).with_context(|| head.path.display().to_string())
}

/// A JPEG as a data URL (RFC 2397).
fn data_url(image: &RgbImage) -> anyhow::Result<String> {
    let jpeg = encode_jpeg(image, QUALITY)?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
