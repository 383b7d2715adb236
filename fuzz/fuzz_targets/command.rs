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

// The first byte says how it is published, the rest is the payload.
fuzz_target!(|bytes: &[u8]| {
    let Some((how, payload)) = bytes.split_first() else {
        return;
    };
    let mut publish = Publish::new("callosity/fuzzed/command", QoS::AtLeastOnce, payload.to_vec(), None);
    publish.retain = *how == b'r';
    publish.properties = (*how == b'c').then(|| PublishProperties {
        content_type: Some(Encoding::Cbor.content_type().to_owned()),
        ..PublishProperties::default()
    });
    let log = &EFFORT.1;
    log.command(&publish);
    assert!(!publish.retain || log.problem().is_some(), "a retained command was obeyed");
    serde_json::to_vec(&log.now()).expect("the state of the watch can be told");
    serde_json::to_vec(&log.report()).expect("likewise");
});
