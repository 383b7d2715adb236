//! How messages become bytes: JSON, or CBOR (RFC 8949) where the link is thin.
//!
//! The CBOR is the JSON with its texts shortened, as SenML does it (RFC 8428 §6): the names of fields are numbers of
//! [`FIELDS`], values of enumerations numbers of [`LABELS`], UUIDs 16 bytes, times milliseconds since 1970, and numbers
//! have 32 bits where [`PRECISE`] does not name their field. A field that is not in the tables keeps its name, so that
//! a reader needs only these tables and no version.

use ciborium::Value as Cbor;
use jiff::Timestamp;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use thiserror::Error;
use uuid::Uuid;

use crate::message::{CBOR, JSON};

/// How a platform encodes its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Readable by everything.
    #[default]
    Json,
    /// A third of the size.
    Cbor,
}

impl Encoding {
    /// The MQTT content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Cbor => CBOR,
        }
    }

    /// The bytes of a message.
    ///
    /// # Panics
    /// A type with keys that are no texts, which no message has.
    pub fn encode<T: Serialize>(self, message: &T) -> Vec<u8> {
        const PLAIN: &str = "messages have texts as keys and plain values";
        match self {
            Self::Json => serde_json::to_vec(message).expect(PLAIN),
            Self::Cbor => {
                let json = serde_json::to_value(message).expect(PLAIN);
                let mut bytes = Vec::new();
                ciborium::into_writer(&shorten("", json), &mut bytes)
                    .expect("writing into memory does not fail");
                bytes
            }
        }
    }
}

/// Bytes that are no message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Not the JSON of this message.
    #[error("not as the schema says: {0}")]
    Json(#[from] serde_json::Error),
    /// Not CBOR.
    #[error("no CBOR: {0}")]
    Cbor(#[from] ciborium::de::Error<std::io::Error>),
    /// A content type that we do not read.
    #[error("content type {0:?} is not read: {JSON} or {CBOR} is")]
    ContentType(String),
}

/// Reads a message as its MQTT content type says; without one it is JSON.
///
/// # Errors
/// The bytes are not of that type, or not this message.
pub fn decode<T: DeserializeOwned>(
    properties: Option<&PublishProperties>,
    bytes: &[u8],
) -> Result<T, CodecError> {
    match properties.and_then(|p| p.content_type.as_deref()) {
        None | Some(JSON) => Ok(serde_json::from_slice(bytes)?),
        Some(CBOR) => {
            let cbor: Cbor = ciborium::from_reader(bytes)?;
            Ok(serde_json::from_value(lengthen("", cbor))?)
        }
        Some(other) => Err(CodecError::ContentType(other.to_owned())),
    }
}

/// Names of fields by their numbers. Only ever appended to: a receiver of an older program knows the beginning. The
/// first 24 take one byte, so those of sightings come first.
pub const FIELDS: &[&str] = &[
    "occurrenceID",
    "state",
    "revision",
    "eventDate",
    "platform",
    "eventID",
    "camera",
    "basisOfRecord",
    "scientificName",
    "identifiedBy",
    "decision",
    "organismID",
    "unknownProbability",
    "candidates",
    "probability",
    "frame",
    "number",
    "file",
    "widthPixels",
    "heightPixels",
    "head",
    "bonnetPixels",
    "blowheadPixels",
    "headLengthPixels",
    "confidence",
    "incomplete",
    "shareRead",
    "damaged",
    "status",
    "time",
    "programVersion",
    "uptimeSeconds",
    "frames",
    "captured",
    "identified",
    "dropped",
    "failed",
    "heads",
    "lastFailure",
    "reason",
    "queues",
    "framesCapacity",
    "sightings",
    "crops",
    "cropsBytes",
    "setAside",
    "notDurable",
    "engine",
    "name",
    "bundle",
    "networks",
    "network",
    "provider",
    "stages",
    "meanMilliseconds",
    "maximumMilliseconds",
    "link",
    "sent",
    "acknowledged",
    "unacknowledged",
    "refused",
    "withoutSubscriber",
    "cropsDropped",
    "reconnects",
    "problems",
    "part",
    "since",
    "framesSeen",
    "provisionalID",
];

/// Values of enumerations by their numbers, for each field that has some. Only ever appended to.
pub const LABELS: &[(&str, &[&str])] = &[
    ("state", &["new", "update", "end"]),
    ("decision", &["identified", "uncertain", "unknown"]),
    ("basisOfRecord", &["MachineObservation"]),
    ("status", &["online", "offline", "stopped"]),
    ("scientificName", &["Eubalaena glacialis"]),
];

/// Fields whose numbers keep all 64 bits: in 32 a degree is known to a metre only.
pub const PRECISE: &[&str] = &["decimalLatitude", "decimalLongitude"];

const UUIDS: &[&str] = &["occurrenceID", "eventID"];
const TIMES: &[&str] = &["eventDate", "time", "since"];

fn labels(field: &str) -> Option<&'static [&'static str]> {
    let found = LABELS.iter().find(|(name, _)| *name == field)?;
    Some(found.1)
}

/// `field` is the name of the field that holds the value; elements of a list are held by the list's.
fn shorten(field: &str, value: Json) -> Cbor {
    match value {
        Json::Null => Cbor::Null,
        Json::Bool(b) => b.into(),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => {
                let n = n.as_f64().unwrap_or(f64::NAN);
                let rounded = f64::from(n as f32);
                let exact = PRECISE.contains(&field) || !rounded.is_finite();
                (if exact { n } else { rounded }).into()
            }
        },
        Json::String(text) => shorten_text(field, text),
        Json::Array(list) => {
            Cbor::Array(list.into_iter().map(|item| shorten(field, item)).collect())
        }
        Json::Object(fields) => {
            let short = fields.into_iter().map(|(name, value)| {
                let value = shorten(&name, value);
                match FIELDS.iter().position(|known| *known == name) {
                    Some(number) => ((number as u64).into(), value),
                    None => (name.into(), value),
                }
            });
            Cbor::Map(short.collect())
        }
    }
}

fn shorten_text(field: &str, text: String) -> Cbor {
    if UUIDS.contains(&field)
        && let Ok(id) = Uuid::try_parse(&text)
    {
        return Cbor::Bytes(id.as_bytes().to_vec());
    }
    if TIMES.contains(&field)
        && let Ok(time) = text.parse::<Timestamp>()
    {
        return time.as_millisecond().into();
    }
    match labels(field).and_then(|labels| labels.iter().position(|label| *label == text)) {
        Some(number) => (number as u64).into(),
        None => text.into(),
    }
}

/// The inverse of [`shorten`]. What cannot be told is left for the type to refuse.
fn lengthen(field: &str, value: Cbor) -> Json {
    match value {
        Cbor::Bool(b) => b.into(),
        Cbor::Float(f) => f.into(),
        Cbor::Text(text) => text.into(),
        Cbor::Bytes(bytes) => match Uuid::from_slice(&bytes) {
            Ok(id) => id.to_string().into(),
            Err(_) => Json::Null,
        },
        Cbor::Integer(n) => lengthen_integer(field, n.into()),
        Cbor::Array(list) => list.into_iter().map(|item| lengthen(field, item)).collect(),
        Cbor::Map(fields) => {
            let mut long = Map::new();
            for (name, value) in fields {
                let name = match name {
                    Cbor::Text(name) => name,
                    Cbor::Integer(number) => usize::try_from(number)
                        .ok()
                        .and_then(|number| FIELDS.get(number))
                        // A later program's field, which is ignored as any unknown one.
                        .map_or_else(|| format!("field {number:?}"), |name| (*name).to_owned()),
                    _ => continue,
                };
                let value = lengthen(&name, value);
                long.insert(name, value);
            }
            long.into()
        }
        _ => Json::Null,
    }
}

fn lengthen_integer(field: &str, n: i128) -> Json {
    if TIMES.contains(&field) {
        let time = i64::try_from(n).ok().map(Timestamp::from_millisecond);
        return match time {
            Some(Ok(time)) => time.to_string().into(),
            _ => Json::Null,
        };
    }
    if let Some(labels) = labels(field) {
        let label = usize::try_from(n).ok().and_then(|n| labels.get(n));
        return label.copied().unwrap_or("other").into();
    }
    match (u64::try_from(n), i64::try_from(n)) {
        (Ok(n), _) => n.into(),
        (_, Ok(n)) => n.into(),
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{
        BasisOfRecord, Candidate, Decision, FrameReference, Head, PixelPosition, Sighting,
        SightingState,
    };
    use crate::schema;

    fn sighting() -> Sighting {
        Sighting {
            occurrence_id: Uuid::now_v7(),
            state: SightingState::New,
            revision: 0,
            event_date: "2026-11-30T18:19:20.123Z".parse().unwrap(),
            platform: "N57RW".into(),
            event_id: Some(Uuid::now_v7()),
            camera: Some("left".into()),
            basis_of_record: BasisOfRecord::MachineObservation,
            scientific_name: "Eubalaena glacialis".into(),
            identified_by: "callosity 0.3.0, right-whales 1.6.0".into(),
            decision: Decision::Identified,
            organism_id: Some("whale_07331".into()),
            unknown_probability: Some(0.034_567_8),
            candidates: (0..5)
                .map(|i| Candidate {
                    organism_id: format!("whale_0733{i}"),
                    probability: 0.9 / (i + 1) as f32,
                })
                .collect(),
            provisional_id: None,
            frames_seen: Some(123),
            frame: FrameReference {
                number: 123_456,
                file: Some("DSC_0123_4567.JPG".into()),
                width_pixels: 5184,
                height_pixels: 3456,
                incomplete: None,
                damaged: None,
            },
            head: Head {
                bonnet_pixels: PixelPosition {
                    x: 2534.1234,
                    y: 1023.777,
                },
                blowhead_pixels: PixelPosition {
                    x: 2300.5,
                    y: 999.123,
                },
                head_length_pixels: 234.911_23,
                confidence: 0.987_654_3,
            },
        }
    }

    fn read<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, CodecError> {
        let properties = PublishProperties {
            content_type: Some(encoding.content_type().to_owned()),
            ..PublishProperties::default()
        };
        decode(Some(&properties), bytes)
    }

    #[test]
    fn a_sighting_fits_into_340_bytes() {
        let unknown = Sighting {
            state: SightingState::End,
            revision: 70_000,
            decision: Decision::Unknown,
            organism_id: None,
            provisional_id: Some("unknown 123".into()),
            frames_seen: Some(70_000),
            ..sighting()
        };
        for said in [sighting(), unknown] {
            let bytes = Encoding::Cbor.encode(&said);
            assert!(bytes.len() <= 340, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn a_sighting_reads_back() {
        let sent = Sighting {
            provisional_id: Some("unknown 3".into()),
            ..sighting()
        };
        let json: Sighting =
            read(Encoding::Json, &Encoding::Json.encode(&sent)).expect("JSON of our own");
        assert_eq!(json, sent);
        let read: Sighting =
            read(Encoding::Cbor, &Encoding::Cbor.encode(&sent)).expect("CBOR of our own");
        let close = |a: PixelPosition, b: PixelPosition| {
            assert!((a.x - b.x).abs() < 1e-3 && (a.y - b.y).abs() < 1e-3);
        };
        close(read.head.bonnet_pixels, sent.head.bonnet_pixels);
        close(read.head.blowhead_pixels, sent.head.blowhead_pixels);
        let exact = Sighting {
            head: sent.head.clone(),
            ..read
        };
        assert_eq!(exact, sent);
    }

    /// Names of all properties in a schema, at any depth.
    fn properties(schema: &Json, names: &mut BTreeSet<String>) {
        match schema {
            Json::Object(fields) => {
                if let Some(Json::Object(properties)) = fields.get("properties") {
                    names.extend(properties.keys().cloned());
                }
                fields.values().for_each(|value| properties(value, names));
            }
            Json::Array(list) => list.iter().for_each(|value| properties(value, names)),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_a_message_has_a_number_of_its_own() {
        let mut names = BTreeSet::new();
        for (file, schema) in schema::documents() {
            if file != "asyncapi.json" {
                properties(&schema, &mut names);
            }
        }
        let numbered: BTreeSet<_> = FIELDS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(numbered.len(), FIELDS.len(), "a field stands twice");
        let missing: Vec<_> = names.difference(&numbered).collect();
        assert!(missing.is_empty(), "append to FIELDS: {missing:?}");
    }

    #[test]
    fn values_of_a_later_schema_are_read_as_other() {
        let mut json = serde_json::to_value(sighting()).unwrap();
        json["decision"] = "guessed".into();
        json["basisOfRecord"] = "HumanObservation".into();
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let read: Sighting = read(encoding, &encoding.encode(&json)).unwrap();
            assert_eq!(read.decision, Decision::Other);
            assert_eq!(read.basis_of_record, BasisOfRecord::Other);
        }
        let numbered = Cbor::Map(vec![(10.into(), 77.into())]);
        assert_eq!(lengthen("", numbered)["decision"], "other");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Sighting>(Encoding::Cbor, &bytes);
            let _ = read::<Sighting>(Encoding::Json, &bytes);
        }

        #[test]
        fn a_changed_message_is_a_message_or_an_error(at in 0..300_usize, bit in 0..8_u8) {
            let mut bytes = Encoding::Cbor.encode(&sighting());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = read::<Sighting>(Encoding::Cbor, &bytes);
        }
    }
}
