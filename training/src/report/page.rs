use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callosity::pixels::{EncodedPhotograph, OUTSIDE_FRAME, encode_jpeg, reduce_to_fit, warp};
use minijinja::{Environment, context};

use super::Report;

/// Size of a photograph on the page in pixels.
const PHOTOGRAPH: (u32, u32) = (192, 128);

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

/// A photograph as a data URL (RFC 2397), reduced.
fn picture(path: &Path) -> anyhow::Result<String> {
    let (width, height) = PHOTOGRAPH;
    let encoded = EncodedPhotograph::open(path)?;
    let fit = reduce_to_fit(encoded.size(), width, height);
    let photograph = encoded.decode(fit.xx)?;
    let fit = photograph.frame_from_pixels().then(&fit);
    let image = warp(&photograph.pixels, &fit, width, height, OUTSIDE_FRAME);
    let jpeg = encode_jpeg(&image, QUALITY).with_context(|| path.display().to_string())?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
