use std::time::{Duration, Instant};

use super::Finding;
use crate::camera::{Camera, Captured};
use crate::settings::Loaded;

/// So many frames tell the rate.
const FRAMES: u32 = 12;

pub(super) fn all(loaded: &Loaded, patience: Duration, tell: &mut dyn FnMut(Finding)) {
    if loaded.settings.camera.is_empty() {
        let to_do = "name one in the settings; `callosity cameras` lists what is plugged in";
        tell(Finding::fault("cameras", "there is none", to_do));
        return;
    }
    if let Err(error) = loaded.cameras() {
        tell(Finding::settings("cameras", &error));
        return;
    }
    for (name, settings) in &loaded.settings.camera {
        let part = format!("camera {name}");
        match loaded.camera(name) {
            Ok(mounted) => tell(watch(&part, &settings.source, mounted.camera, patience)),
            Err(error) => tell(Finding::settings(&part, &error)),
        }
        if settings.mounting.is_none() {
            let to_do = format!(
                "set camera.{name}.mounting, or sightings have the aircraft's position and no length"
            );
            tell(Finding::attention(
                &part,
                "how it sits in the aircraft is not known",
                &to_do,
            ));
        }
    }
}

/// Takes frames for a while.
fn watch(part: &str, source: &str, mut camera: Box<dyn Camera>, patience: Duration) -> Finding {
    let begun = Instant::now();
    let (mut frames, mut damaged) = (0u32, 0u32);
    let mut first = None;
    let mut last = begun;
    let mut size = None;
    let mut trouble = None;
    while frames + damaged < FRAMES && begun.elapsed() < patience {
        match camera.next(Duration::from_millis(200)) {
            Captured::Frame(frame) => {
                size = Some(frame.image.size());
                frames += 1;
                last = Instant::now();
                first.get_or_insert(last);
            }
            Captured::Unusable(frame) => {
                damaged += 1;
                trouble = Some(frame.reason);
            }
            Captured::Trouble(reason) => trouble = Some(reason),
            Captured::Nothing => {}
            Captured::End => break,
        }
    }
    let format = camera.format();
    let complaint = camera.complaint();
    camera.close();
    let (Some(first), Some((width, height))) = (first, size) else {
        return without_frames(part, source, trouble, begun.elapsed());
    };
    let seconds = last.duration_since(first).as_secs_f64();
    let rate = (frames > 1 && seconds > 0.0).then(|| f64::from(frames - 1) / seconds);
    let measured = rate.map_or_else(String::new, |rate| {
        format!(", {rate:.1} frames a second measured")
    });
    let format = format.unwrap_or_else(|| format!("{width} × {height}"));
    let found = format!("{source}: {format}{measured}");
    match (complaint, damaged) {
        (Some(complaint), _) => Finding::attention(
            part,
            format!("{found}; {complaint}"),
            "see with `callosity cameras` what it can do, and mend its settings",
        ),
        (None, 0) => Finding::ok(part, found),
        (None, _) => Finding::attention(
            part,
            format!(
                "{found}; {damaged} of {} frames cannot be used: {}",
                frames + damaged,
                trouble.unwrap_or_default()
            ),
            "change cable or port: the link to it loses data",
        ),
    }
}

fn without_frames(part: &str, source: &str, trouble: Option<String>, waited: Duration) -> Finding {
    // Other software puts photographs there when it flies.
    if source.starts_with("folder:") && trouble.is_none() {
        let found = format!(
            "{source}: it can be watched; no new photograph came in {:.0} s",
            waited.as_secs_f64()
        );
        return Finding::ok(part, found);
    }
    let trouble =
        trouble.unwrap_or_else(|| format!("no frame came in {:.0} s", waited.as_secs_f64()));
    Finding::fault(
        part,
        format!("{source}: {trouble}"),
        "plug it in and give it power, or mend `source` in its settings; the others fly without it",
    )
}
