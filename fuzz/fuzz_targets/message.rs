//! Any payload on any topic is a message or a clear error, and what is a message survives being sent on in either encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use link::codec::Encoding;
use link::message::{Command, Effort, Health, Sighting, Status, Track};
use link::topic::{Kind, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;

// A topic, a content type, and the payload: "callosity/a/status json\n{…}".
fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let header = String::from_utf8_lossy(header);
    let (topic, encoding) = header.rsplit_once(' ').unwrap_or((&header, "json"));
    let encoding = if encoding == "cbor" { Encoding::Cbor } else { Encoding::Json };
    let Some((_, kind)) = parse(topic) else {
        return;
    };
    match kind {
        Kind::Status => read::<Status>(encoding, payload),
        Kind::Sighting => read::<Sighting>(encoding, payload),
        Kind::Health => read::<Health>(encoding, payload),
        Kind::Track => read::<Track>(encoding, payload),
        Kind::Effort => read::<Effort>(encoding, payload),
        Kind::Command => read::<Command>(encoding, payload),
        Kind::Crop(_) => {}
    }
});

fn read<T: DeserializeOwned + Serialize>(encoding: Encoding, payload: &[u8]) {
    match encoding.decode::<T>(payload) {
        Ok(message) => {
            for encoding in [Encoding::Json, Encoding::Cbor] {
                let again = encoding.encode(&message);
                if let Err(e) = encoding.decode::<T>(&again) {
                    panic!("what was read cannot be sent on as {encoding:?}: {e}");
                }
            }
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}
