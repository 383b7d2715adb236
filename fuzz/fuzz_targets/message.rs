//! Any payload on any topic is a message or a clear error, and what is a message survives being sent on in either encoding.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use link::codec::Encoding;
use link::message::{Command, Effort, Health, Sighting, Status, Track};
use link::topic::{Kind, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Arbitrary, Debug)]
struct Published<'a> {
    topic: &'a str,
    cbor: bool,
    payload: &'a [u8],
}

fuzz_target!(|published: Published| {
    let Some((_, kind)) = parse(published.topic) else {
        return;
    };
    match kind {
        Kind::Status => read::<Status>(&published),
        Kind::Sighting => read::<Sighting>(&published),
        Kind::Health => read::<Health>(&published),
        Kind::Track => read::<Track>(&published),
        Kind::Effort => read::<Effort>(&published),
        Kind::Command => read::<Command>(&published),
        Kind::Crop(_) => {}
    }
});

fn read<T: DeserializeOwned + Serialize>(published: &Published) {
    let encoding = if published.cbor { Encoding::Cbor } else { Encoding::Json };
    match encoding.decode::<T>(published.payload) {
        Ok(message) => {
            let again = Encoding::Json.encode(&message);
            Encoding::Json.decode::<T>(&again).expect("what was read can be sent on");
            let again = Encoding::Cbor.encode(&message);
            Encoding::Cbor.decode::<T>(&again).expect("likewise, in CBOR");
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}
