use std::thread;
use std::time::{Duration, Instant};

use link::message::TimeQuality;
use tokio_util::sync::CancellationToken;

use super::Finding;
use crate::clock::Clock;
use crate::position::{Gpsd, Positioning};
use crate::settings::Loaded;

pub(super) fn clock(tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "clock";
    let clock = Clock::of_system();
    let now = clock.now();
    let found = format!("{:.0} UTC", now.time);
    tell(match now.quality {
        TimeQuality::Unsynchronised => Finding::attention(
            PART,
            format!("{found}; nothing keeps it right at the moment"),
            "let chrony follow the receiver's time; sightings are flagged until then, and put right later",
        ),
        TimeQuality::Unset => Finding::attention(
            PART,
            format!("{found}; this cannot be: the clock was not set"),
            "wait for a fix, or set it: `date --set …`; sightings are flagged until then, and put right later",
        ),
        _ => Finding::ok(PART, format!("{found}; it is kept right")),
    });
}

pub(super) fn gpsd(loaded: &Loaded, patience: Duration, tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "position";
    let address = match loaded.survey() {
        // Said of the survey.
        Err(_) => return,
        Ok(survey) => survey.gpsd,
    };
    let Some(address) = address else {
        let to_do = "set position.gpsd to where gpsd listens, such as \"localhost\"";
        tell(Finding::attention(
            PART,
            "there is no receiver: sightings have no position",
            to_do,
        ));
        return;
    };
    let clock = Clock::of_system();
    let positioning = Positioning::default();
    let gpsd = Gpsd {
        address: address.clone(),
        clock: clock.clone(),
        positioning: positioning.clone(),
    };
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let pose = thread::scope(|scope| {
        let listening = stop.clone();
        scope.spawn(move || gpsd.run(&listening));
        let mut pose = None;
        while pose.is_none() && begun.elapsed() < patience {
            thread::sleep(Duration::from_millis(100));
            pose = positioning.at(clock.monotonic());
        }
        stop.cancel();
        pose
    });
    let now = clock.monotonic();
    tell(match pose {
        Some(pose) => {
            let place = pose.place();
            let satellites = positioning.health(now).satellites;
            let satellites = satellites.map_or_else(String::new, |n| format!(", {n} satellites"));
            let found = format!(
                "{:.4}°, {:.4}° from gpsd at {address}{satellites}",
                place.decimal_latitude, place.decimal_longitude
            );
            Finding::ok(PART, found)
        }
        None => {
            let seconds = patience.as_secs_f64();
            let found = positioning
                .problem(now)
                .unwrap_or_else(|| format!("gpsd at {address} had no fix for {seconds:.0} s"));
            let to_do = "let the antenna see the sky, and look with `cgps`; one can fly without, and sightings have no position \
                         until then";
            Finding::attention(PART, found, to_do)
        }
    });
}
