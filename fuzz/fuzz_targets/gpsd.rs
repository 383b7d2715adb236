//! Whatever gpsd says: positions are on the Earth or there are none, what makes no sense is counted, and pixels lie somewhere
//! on the sea or nowhere.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use callosity::clock::{Clock, SystemClock};
use callosity::position::{Gpsd, Mounting, Positioning, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let clock = Clock::start(Arc::new(SystemClock), None);
    let gpsd = Gpsd {
        address: "127.0.0.1:2947".parse().expect("an address"),
        clock: clock.clone(),
        positioning: Positioning::default(),
    };
    let now = clock.monotonic();
    gpsd.hear_bytes(bytes, now);
    let health = gpsd.positioning.health(now);
    serde_json::to_vec(&health).expect("health can be told");
    let _ = gpsd.positioning.problem(now);
    let Some(pose) = gpsd.positioning.at(now + Duration::from_millis(100)) else {
        return;
    };
    assert!(pose.fix.latitude.abs() <= 90.0 && pose.fix.longitude.abs() <= 180.0, "{pose:?}");
    let view = View::new(pose, Mounting::straight_down(50.0, 36.0), (6000, 4000));
    let location = view.locate(1000.0, 3000.0);
    assert!(location.latitude.abs() <= 90.0 && location.longitude.abs() <= 180.0, "{location:?}");
    assert!(location.uncertainty.is_finite() && location.uncertainty > 0.0, "{location:?}");
    let _ = view.carried(&view, (1000.0, 3000.0), 1.0);
});
