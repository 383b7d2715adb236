//! How messages become bytes: JSON, or CBOR (RFC 8949) where the link is thin.
//!
//! The CBOR is the JSON with its texts shortened, as SenML does it (RFC 8428 §6): the names of fields are numbers of
//! [`FIELDS`] and [`NEGATIVE_FIELDS`], values of enumerations numbers of [`LABELS`], UUIDs 16 bytes, times milliseconds
//! since 1970, and numbers have 32 bits, but for those of [`SCALED`] and [`HALF`]. A field that is not in the tables keeps its name, so that
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

    /// That of an MQTT content type.
    pub fn of(content_type: &str) -> Option<Self> {
        [Self::Json, Self::Cbor]
            .into_iter()
            .find(|encoding| encoding.content_type() == content_type)
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

    /// The message of these bytes.
    ///
    /// # Errors
    /// They are not encoded so, or not this message.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Json => Ok(serde_json::from_slice(bytes)?),
            Self::Cbor => {
                let cbor: Cbor = ciborium::from_reader(bytes)?;
                Ok(serde_json::from_value(lengthen("", cbor))?)
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
    decode_as(properties.and_then(|p| p.content_type.as_deref()), bytes)
}

/// As [`decode`], where the content type is known.
///
/// # Errors
/// The bytes are not of that type, or not this message.
pub fn decode_as<T: DeserializeOwned>(
    content_type: Option<&str>,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let encoding = match content_type {
        None => Encoding::Json,
        Some(said) => Encoding::of(said).ok_or_else(|| CodecError::ContentType(said.to_owned()))?,
    };
    encoding.decode(bytes)
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
    "speedMetersPerSecond",
    "trackDegrees",
    "headingDegrees",
    "rollDegrees",
    "pitchDegrees",
    "watch",
    "observers",
    "project",
    "aircraft",
    "weather",
    "beaufort",
    "visibilityKilometers",
    "cloudPercent",
    "glareLeft",
    "glareRight",
    "mark",
    "markID",
    "individualCount",
    "occurrenceRemarks",
    "timeCorrectionSeconds",
    "commandID",
    "effort",
    "clock",
    "correctionSeconds",
    "position",
    "connected",
    "fixes",
    "attitudes",
    "malformed",
    "satellites",
    "cameras",
    "failures",
    "format",
    "lastFrame",
    "lost",
    "masked",
    "timeDoubtful",
    "hardware",
    "temperaturesCelsius",
    "powerMode",
    "overCurrentEvents",
    "processorClockShare",
    "disks",
    "holds",
    "freeBytes",
    "totalBytes",
    "archive",
    "whales",
    "emptyLost",
    "whalesLost",
    "emptyDeleted",
    "whalesDeleted",
];

/// More names, by negative numbers from −1 on: the first 24 take one byte too. Only ever appended to.
pub const NEGATIVE_FIELDS: &[&str] = &[
    "decimalLatitude",
    "decimalLongitude",
    "coordinateUncertaintyInMeters",
    "fixAgeSeconds",
    "altitudeMeters",
    "altitudeDatum",
    "focalLengthMillimeters",
    "sensorWidthMillimeters",
    "headLengthMeters",
    "headLengthUncertaintyMeters",
    "timeQuality",
    "footprint",
    "framesSeen",
    "provisionalID",
];

/// Fields whose numbers are integers of a fraction of their unit: so many to one.
pub const SCALED: &[(&str, f64)] = &[
    ("decimalLatitude", 1e7),
    ("decimalLongitude", 1e7),
    ("footprint", 1e6),
    ("coordinateUncertaintyInMeters", 1.0),
    ("fixAgeSeconds", 100.0),
    ("altitudeMeters", 10.0),
    ("focalLengthMillimeters", 10.0),
    ("sensorWidthMillimeters", 100.0),
    ("headLengthMeters", 100.0),
    ("headLengthUncertaintyMeters", 100.0),
];

/// Fields whose numbers are rounded to 11 binary digits, which take 16 bits.
pub const HALF: &[&str] = &[
    "unknownProbability",
    "probability",
    "headLengthPixels",
    "confidence",
];

/// Values of enumerations by their numbers, for each field that has some. Only ever appended to.
pub const LABELS: &[(&str, &[&str])] = &[
    ("state", &["new", "update", "end"]),
    ("decision", &["identified", "uncertain", "unknown"]),
    ("basisOfRecord", &["MachineObservation"]),
    ("status", &["online", "offline", "stopped"]),
    ("scientificName", &["Eubalaena glacialis"]),
    (
        "timeQuality",
        &[
            "satellite",
            "network",
            "unsynchronised",
            "unset",
            "corrected",
        ],
    ),
    ("altitudeDatum", &["sea", "ellipsoid", "unsaid"]),
    ("watch", &["off", "transit", "online", "circling"]),
    ("glareLeft", &["none", "slight", "moderate", "severe"]),
    ("glareRight", &["none", "slight", "moderate", "severe"]),
];

const UUIDS: &[&str] = &["occurrenceID", "eventID", "markID", "commandID"];
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
        Json::Number(n) => shorten_number(field, &n),
        Json::String(text) => shorten_text(field, text),
        Json::Array(list) => {
            Cbor::Array(list.into_iter().map(|item| shorten(field, item)).collect())
        }
        Json::Object(fields) => {
            let short = fields.into_iter().map(|(name, value)| {
                let value = shorten(&name, value);
                (number_of(&name).map_or(name.into(), Cbor::from), value)
            });
            Cbor::Map(short.collect())
        }
    }
}

fn number_of(name: &str) -> Option<i64> {
    let place = |names: &[&str]| {
        let found = names.iter().position(|known| *known == name)?;
        i64::try_from(found).ok()
    };
    place(FIELDS).or_else(|| Some(-1 - place(NEGATIVE_FIELDS)?))
}

fn name_of(number: i128) -> Option<&'static str> {
    let (names, place) = if number < 0 {
        (NEGATIVE_FIELDS, -1 - number)
    } else {
        (FIELDS, number)
    };
    names.get(usize::try_from(place).ok()?).copied()
}

fn scale(field: &str) -> Option<f64> {
    let found = SCALED.iter().find(|(name, _)| *name == field)?;
    Some(found.1)
}

fn shorten_number(field: &str, n: &serde_json::Number) -> Cbor {
    if let (Some(scale), Some(value)) = (scale(field), n.as_f64()) {
        let scaled = (value * scale).round();
        if scaled.abs() < 9e15 {
            return (scaled as i64).into();
        }
    }
    match (n.as_u64(), n.as_i64()) {
        (Some(n), _) => n.into(),
        (None, Some(n)) => n.into(),
        (None, None) => {
            let n = n.as_f64().unwrap_or(f64::NAN);
            let short = n as f32;
            let short = if HALF.contains(&field) {
                round_to_half(short)
            } else {
                short
            };
            let short = f64::from(short);
            (if short.is_finite() { short } else { n }).into()
        }
    }
}

/// To 11 binary digits, half to even.
fn round_to_half(n: f32) -> f32 {
    let bits = n.to_bits();
    f32::from_bits(bits.saturating_add(0x0fff + ((bits >> 13) & 1)) & !0x1fff)
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
                    // One of a later program is ignored as any unknown one.
                    Cbor::Integer(number) => name_of(number.into())
                        .map_or_else(|| format!("field {number:?}"), str::to_owned),
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
    if let Some(scale) = scale(field) {
        return (n as f64 / scale).into();
    }
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
        AltitudeDatum, BasisOfRecord, Candidate, Corner, Decision, Effort, EffortReason,
        FrameReference, Georeference, Glare, Head, Mark, PixelPosition, Place, Sighting,
        SightingState, TimeQuality, Track, Watch, Weather,
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
            time_quality: Some(TimeQuality::Satellite),
            georeference: Georeference {
                place: Some(place()),
                altitude_meters: Some(304.8),
                altitude_datum: Some(AltitudeDatum::Sea),
                focal_length_millimeters: Some(50.0),
                sensor_width_millimeters: Some(35.87),
                head_length_meters: Some(2.5),
                head_length_uncertainty_meters: Some(0.25),
                footprint: None,
            },
        }
    }

    fn place() -> Place {
        Place {
            decimal_latitude: 41.123_456_7,
            decimal_longitude: -69.765_432_1,
            coordinate_uncertainty_in_meters: 31.0,
            fix_age_seconds: 0.25,
        }
    }

    fn track() -> Track {
        Track {
            platform: "N57RW".into(),
            event_id: Uuid::now_v7(),
            time: "2026-11-30T18:19:20.123Z".parse().unwrap(),
            time_quality: TimeQuality::Network,
            place: place(),
            altitude_meters: Some(304.8),
            altitude_datum: Some(AltitudeDatum::Ellipsoid),
            speed_meters_per_second: Some(51.5),
            track_degrees: Some(359.5),
            heading_degrees: None,
            roll_degrees: Some(-2.5),
            pitch_degrees: Some(1.5),
            watch: Some(Watch::OnLine),
        }
    }

    fn effort() -> Effort {
        let time = "2026-11-30T18:19:20.123Z".parse().unwrap();
        Effort {
            platform: "N57RW".into(),
            event_id: Uuid::now_v7(),
            revision: 7,
            time,
            time_quality: TimeQuality::Corrected,
            reason: EffortReason::Mark,
            watch: Watch::Circling,
            observers: vec!["A. Okafor".into(), "B. Lindqvist".into()],
            project: Some("Gulf of Maine 2026".into()),
            aircraft: None,
            weather: Weather {
                beaufort: Some(3),
                visibility_kilometers: Some(18.5),
                cloud_percent: Some(75),
                glare_left: Some(Glare::Slight),
                glare_right: Some(Glare::None),
            },
            place: Some(place()),
            mark: Some(Mark {
                mark_id: Uuid::now_v7(),
                revision: 1,
                time,
                time_quality: TimeQuality::Corrected,
                place: None,
                scientific_name: Some("Eubalaena glacialis".into()),
                individual_count: Some(2),
                occurrence_remarks: None,
            }),
            time_correction_seconds: None,
        }
    }

    /// As it is read back from both encodings.
    fn there_and_back<T>(sent: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let back: T = read(encoding, &encoding.encode(sent)).unwrap();
            assert_eq!(back, *sent, "{encoding:?}");
        }
    }

    #[test]
    fn tracks_and_effort_read_back() {
        there_and_back(&track());
        there_and_back(&effort());
        let nowhere = Effort {
            place: None,
            mark: None,
            weather: Weather::default(),
            ..effort()
        };
        there_and_back(&nowhere);
        let json = serde_json::to_value(&nowhere).unwrap();
        assert!(json.get("decimalLatitude").is_none(), "{json}");
    }

    #[test]
    fn a_sighting_of_before_positions_is_read() {
        let sent = Sighting {
            time_quality: None,
            georeference: Georeference::default(),
            ..sighting()
        };
        let json = serde_json::to_value(&sent).unwrap();
        for name in ["decimalLatitude", "altitudeMeters", "timeQuality"] {
            assert!(json.get(name).is_none(), "{name}");
        }
        let back: Sighting = serde_json::from_value(json).unwrap();
        assert_eq!(back, sent);
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
        // To 11 binary digits.
        let near = |a: f32, b: f32| assert!((a - b).abs() <= b / 2000.0, "{a} {b}");
        near(
            read.head.head_length_pixels as f32,
            sent.head.head_length_pixels as f32,
        );
        near(read.head.confidence, sent.head.confidence);
        near(
            read.unknown_probability.unwrap(),
            sent.unknown_probability.unwrap(),
        );
        for (read, sent) in read.candidates.iter().zip(&sent.candidates) {
            near(read.probability, sent.probability);
            assert_eq!(read.organism_id, sent.organism_id);
        }
        let exact = Sighting {
            head: sent.head.clone(),
            unknown_probability: sent.unknown_probability,
            candidates: sent.candidates.clone(),
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
            // Records of the archive are files of JSON.
            if !matches!(file, "asyncapi.json" | "archive.json") {
                properties(&schema, &mut names);
            }
        }
        let all = FIELDS.iter().chain(NEGATIVE_FIELDS);
        let numbered: BTreeSet<_> = all.clone().map(|name| (*name).to_owned()).collect();
        assert_eq!(numbered.len(), all.count(), "a field stands twice");
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
        /// A footprint over a thin link is right to a decimetre, a place to a centimetre.
        #[test]
        fn places_keep_their_digits(latitude in -90.0..90.0_f64, longitude in -180.0..180.0_f64) {
            let mut sent = sighting();
            let corner = Corner { latitude, longitude };
            sent.georeference.footprint = Some([corner; 4]);
            let place = sent.georeference.place.as_mut().unwrap();
            place.decimal_latitude = latitude;
            place.decimal_longitude = longitude;
            let read: Sighting = read(Encoding::Cbor, &Encoding::Cbor.encode(&sent)).unwrap();
            let place = read.georeference.place.unwrap();
            prop_assert!((place.decimal_latitude - latitude).abs() < 6e-8);
            prop_assert!((place.decimal_longitude - longitude).abs() < 6e-8);
            for corner in read.georeference.footprint.unwrap() {
                prop_assert!((corner.latitude - latitude).abs() < 6e-7);
                prop_assert!((corner.longitude - longitude).abs() < 6e-7);
            }
        }

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
