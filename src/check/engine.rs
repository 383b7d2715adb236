use std::path::Path;
use std::time::Instant;

use image::RgbImage;
use recognition::bundle::Bundle;
use recognition::identify::Identifier;
use recognition::inference::{Engine, EngineConfig, run_self_tests};
use recognition::pixels::Photograph;

use super::{Finding, in_words};
use crate::settings::Loaded;

/// A frame of a survey camera.
const FRAME: (u32, u32) = (4000, 3000);
/// So often it is looked at; the fastest counts, for the first may warm up what others use.
const TIMES: u32 = 3;

pub(super) fn bundle_and_networks(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) {
    let bundle = match Bundle::open(loaded.bundle()) {
        Ok(bundle) => bundle,
        Err(error) => {
            let to_do = "set `bundle` to the directory of a model bundle";
            tell(Finding::fault("bundle", in_words(&error), to_do));
            return;
        }
    };
    let manifest = bundle.manifest();
    let found = format!(
        "{} {} with {} individuals of {}; all files as their digests say; {}",
        manifest.name,
        manifest.version,
        manifest.individuals().count(),
        manifest.catalogue.scientific_name,
        how_it_came(loaded, bundle.directory())
    );
    tell(Finding::ok("bundle", found));
    match loaded.engine(None) {
        Ok(config) => networks(&bundle, &config, tell),
        Err(error) => tell(Finding::settings("engine", &error)),
    }
}

/// Whether somebody signed for it.
fn how_it_came(loaded: &Loaded, directory: &Path) -> String {
    let installed = loaded
        .bundles()
        .map(|bundles| bundles.list())
        .unwrap_or_default();
    match installed
        .iter()
        .find(|installed| installed.directory == directory)
    {
        Some(installed) if installed.on_trial => {
            "signed, and on trial until it has flown well".to_owned()
        }
        Some(_) => "signed".to_owned(),
        None => format!("in {}, not installed by a signature", directory.display()),
    }
}

fn networks(bundle: &Bundle, config: &EngineConfig, tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "networks";
    let engine = match Engine::start(config) {
        Ok(engine) => engine,
        Err(error) => {
            tell(Finding::fault(
                PART,
                in_words(&error),
                "install ONNX Runtime, or set engine.engine to \"builtin\"",
            ));
            return;
        }
    };
    let outcomes = match run_self_tests(&engine, bundle) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            tell(Finding::fault(
                PART,
                in_words(&error),
                "set engine.providers to those that this box has",
            ));
            return;
        }
    };
    for outcome in outcomes {
        let part = format!("network {}", outcome.role);
        let tested = format!(
            "known input gives the known answer within {:.1e} on {}",
            outcome.difference, outcome.engine
        );
        tell(if outcome.passed() {
            Finding::ok(&part, tested)
        } else {
            let found = format!(
                "its answer to a known input is {:.2e} off on {}, allowed is {:.1e}",
                outcome.difference, outcome.engine, outcome.tolerance
            );
            Finding::fault(
                &part,
                found,
                "leave that processor out of engine.providers: its names would be wrong",
            )
        });
    }
    match speed(bundle, config) {
        Ok(found) => tell(Finding::ok(PART, found)),
        Err(error) => tell(Finding::fault(
            PART,
            in_words(&*error),
            "see above which network does not run",
        )),
    }
}

/// How long an empty frame takes; most of a survey's are.
fn speed(bundle: &Bundle, config: &EngineConfig) -> Result<String, Box<dyn std::error::Error>> {
    let identifier = Identifier::new(bundle, config)?;
    let frame = Photograph::whole(RgbImage::from_pixel(
        FRAME.0,
        FRAME.1,
        image::Rgb([40, 70, 90]),
    ));
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        let begun = Instant::now();
        identifier.examine_photograph(&frame)?;
        best = best.min(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(format!(
        "an empty frame of 12 megapixels is looked at in {best:.0} ms, without decoding it, on {}",
        identifier.engine()
    ))
}
