//! JSON schemas of the messages and of the archive's records, and the AsyncAPI page that documents the topics.
//!
//! Both are generated from the Rust types and committed under `src/link/schema/`, so that receivers
//! in other languages have them without building this program.

use std::time::Duration;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::archive::ArchiveRecord;
use super::message::{
    CBOR, CROP_EXPIRY, Command, EFFORT_EXPIRY, Effort, HEALTH_EXPIRY, HISTORICAL_PROPERTY, Health,
    JPEG, JSON, SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, SIGHTING_EXPIRY, Sighting, Status,
    TRACK_EXPIRY, Track,
};
use super::topic::ROOT;

/// All generated documents: name of the file, content.
pub fn documents() -> Vec<(&'static str, Value)> {
    vec![
        ("status.json", schema::<Status>()),
        ("sighting.json", schema::<Sighting>()),
        ("health.json", schema::<Health>()),
        ("track.json", schema::<Track>()),
        ("effort.json", schema::<Effort>()),
        ("command.json", schema::<Command>()),
        ("archive.json", schema::<ArchiveRecord>()),
        ("asyncapi.json", asyncapi()),
    ]
}

fn schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .into()
}

fn asyncapi() -> Value {
    let headers = json!({
        "type": "object",
        "description": "MQTT user properties",
        "properties": {
            SCHEMA_VERSION_PROPERTY: { "type": "string", "const": SCHEMA_VERSION },
            HISTORICAL_PROPERTY: {
                "type": "string",
                "const": "true",
                "description": "Only with what was seen more than a minute before it was sent.",
            },
        },
        "required": [SCHEMA_VERSION_PROPERTY],
    });
    let message = |name: &str, summary: &str| {
        json!({
            "name": name,
            "summary": summary,
            "contentType": JSON,
            "description": format!("Over thin links as {CBOR}: the same with numbers in the place of names, by the \
                tables of src/link/codec.rs."),
            "headers": headers,
            "payload": { "$ref": format!("./{name}.json") },
        })
    };
    let platform =
        json!({ "platform": { "description": "Name of the aircraft: one topic level." } });
    let channel = |name: &str, description: &str| {
        json!({
            "address": format!("{ROOT}/{{platform}}/{name}"),
            "description": description,
            "parameters": platform,
            "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
        })
    };
    let operation = |name: &str, qos: u8, retain: bool, expiry: Option<Duration>| {
        let mut binding = json!({ "qos": qos, "retain": retain, "bindingVersion": "0.2.0" });
        if let Some(expiry) = expiry {
            binding["messageExpiryInterval"] = json!(expiry.as_secs());
        }
        json!({
            "action": "send",
            "channel": { "$ref": format!("#/channels/{name}") },
            "bindings": { "mqtt": binding },
        })
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Callosity: right whales recognised in the air",
            "version": SCHEMA_VERSION,
            "description": "What an aircraft says over MQTT 5. Times are UTC, RFC 3339. Positions in a \
                frame are continuous pixels of the upright frame: origin at the outer corner of the \
                top-left pixel, x to the right, y down.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": JSON,
        "channels": {
            "status": channel("status", "Whether the platform is there. Retained; the last will says \
                offline, online comes with each connection, stopped at an end in order."),
            "sighting": channel("sighting", "Heads that were seen, with the individuals they may be. \
                Delivered at least once: drop what has the same occurrenceID and revision."),
            "crop": {
                "address": format!("{ROOT}/{{platform}}/crop/{{sighting}}"),
                "description": "The head of one sighting, turned so that the bonnet lies to the right: \
                    two head lengths wide, one high, bonnet at 80 % and blowhead at 30 % of the width, \
                    both at half height. Comes after its sighting, or not at all when the link is thin.",
                "parameters": {
                    "platform": platform["platform"],
                    "sighting": { "description": "occurrenceID of the sighting." },
                },
                "messages": { "crop": { "$ref": "#/components/messages/crop" } },
            },
            "health": channel("health", "How the service fares: periodic."),
            "track": channel("track", "Where the aircraft was: every few seconds while its position is known."),
            "effort": channel("effort", "How the survey is flown: watch, weather, observers' marks; said at each \
                change. Delivered at least once: drop what has the same eventID and revision."),
            "command": channel("command", "What the ground asks the aircraft to set, where the aircraft is told to \
                listen. Not to be retained: retained commands are refused."),
        },
        "operations": {
            "sendStatus": operation("status", 1, true, None),
            "sendSighting": operation("sighting", 1, false, Some(SIGHTING_EXPIRY)),
            "sendCrop": operation("crop", 1, false, Some(CROP_EXPIRY)),
            "sendHealth": operation("health", 0, false, Some(HEALTH_EXPIRY)),
            "sendTrack": operation("track", 1, false, Some(TRACK_EXPIRY)),
            "sendEffort": operation("effort", 1, false, Some(EFFORT_EXPIRY)),
            "receiveCommand": {
                "action": "receive",
                "channel": { "$ref": "#/channels/command" },
                "bindings": { "mqtt": { "qos": 1, "retain": false, "bindingVersion": "0.2.0" } },
            },
        },
        "components": {
            "messages": {
                "status": message("status", "Whether the platform is there."),
                "sighting": message("sighting", "A head that was seen."),
                "health": message("health", "How the service fares."),
                "track": message("track", "Where the aircraft was."),
                "effort": message("effort", "How the survey is flown."),
                "command": message("command", "What the ground asks the aircraft to set."),
                "crop": {
                    "name": "crop",
                    "summary": "JPEG picture of a head.",
                    "contentType": JPEG,
                    "headers": headers,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Set `CALLOSITY_UPDATE_SCHEMA=1` to write the documents anew.
    #[test]
    fn committed_documents_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
        for (name, document) in documents() {
            let path = folder.join(name);
            let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
            if std::env::var_os("CALLOSITY_UPDATE_SCHEMA").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{} differs from the types; run this test with CALLOSITY_UPDATE_SCHEMA=1 and commit",
                path.display()
            );
        }
    }
}
