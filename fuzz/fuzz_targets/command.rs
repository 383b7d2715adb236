//! Whatever is published on the command topic is obeyed or told as a problem; the watch that is on stays one that can be told.
#![no_main]

use std::sync::{Arc, LazyLock};

use callosity::clock::{Clock, SystemClock};
use callosity::effort::{EffortLog, EffortSettings, FlightOf};
use callosity::outbox::{Limits, Outbox};
use libfuzzer_sys::fuzz_target;
use link::codec::{self, Encoding};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use tempfile::TempDir;
use uuid::Uuid;

static EFFORT: LazyLock<(TempDir, EffortLog)> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let flight = FlightOf {
        platform: "fuzzed".parse().expect("a name"),
        event_id: Uuid::nil(),
        encoding: codec::Encoding::Json,
    };
    let outbox = Outbox::open(folder.path(), Limits::default()).expect("an outbox");
    let clock = Clock::start(Arc::new(SystemClock), None);
    let log = EffortLog::begin(flight, EffortSettings::default(), outbox, clock, None);
    (folder, log)
});

fuzz_target!(|input: (bool, Option<bool>, &[u8])| {
    let (retain, cbor, payload) = input;
    let mut publish = Publish::new("callosity/fuzzed/command", QoS::AtLeastOnce, payload.to_vec(), None);
    publish.retain = retain;
    publish.properties = cbor.map(|cbor| PublishProperties {
        content_type: Some(if cbor { Encoding::Cbor } else { Encoding::Json }.content_type().to_owned()),
        ..PublishProperties::default()
    });
    let log = &EFFORT.1;
    log.command(&publish);
    assert!(!retain || log.problem().is_some(), "a retained command was obeyed");
    serde_json::to_vec(&log.now()).expect("the state of the watch can be told");
    serde_json::to_vec(&log.report()).expect("likewise");
});
