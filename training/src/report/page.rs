use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callosity::geometry::HeadCrop;
use callosity::pixels::{EncodedPhotograph, OUTSIDE_HEAD_PHOTOGRAPH, encode_jpeg, warp};
use minijinja::{Environment, context};

use super::Report;
use crate::features::HeadPhotograph;

/// Size of a head on the page in pixels.
const HEAD: (u32, u32) = (240, 120);

const QUALITY: u8 = 75;

/// The page, with all pictures in it.
///
/// # Errors
/// A photograph cannot be read.
pub fn render(report: &Report) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("report.html"))?;
    let confusions: Vec<_> = report
        .confusions
        .iter()
        .map(|c| {
            Ok(context! {
                whale => c.whale, named => c.named, times => c.times,
                seen => picture(&c.seen)?, like => picture(&c.like)?,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let mistakes: Vec<_> = report
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
    let page = environment.get_template("report.html")?.render(context! {
        version => env!("CARGO_PKG_VERSION"),
        rows => report.rows,
        boxes => report.boxes.render()?,
        classes => report.classes,
        validation => report.validation,
        unknown => report.unknown,
        photographs_a_whale => report.photographs_a_whale,
        curves => report.curves,
        reliability => report.reliability,
        best => report.best,
        confusions => confusions,
        mistakes => mistakes,
    })?;
    Ok(page)
}

/// The head as a data URL (RFC 2397), un-squeezed.
fn picture(head: &HeadPhotograph) -> anyhow::Result<String> {
    let (width, height) = HEAD;
    let encoded = EncodedPhotograph::open(&head.path)?;
    let crop = head.crop(encoded.size(), &HeadCrop::RIGHT_WHALE, width, height)?;
    let photograph = encoded.decode(1.0)?;
    let image = warp(
        &photograph.pixels,
        &crop,
        width,
        height,
        OUTSIDE_HEAD_PHOTOGRAPH,
    );
    let jpeg = encode_jpeg(&image, QUALITY).with_context(|| head.path.display().to_string())?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
