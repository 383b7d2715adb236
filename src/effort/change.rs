//! Changes as JSON, checked field by field.

use link::message::Mark;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use super::EffortState;

/// A field that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} cannot be {value}: it is {allowed}")]
pub struct Refusal {
    /// The field.
    pub field: String,
    /// What was given, as JSON.
    pub value: String,
    /// What may be given.
    pub allowed: String,
}

/// Longest name.
const NAME: usize = 100;
/// Longest remark.
const REMARK: usize = 2000;
/// Most observers.
const OBSERVERS: usize = 20;

pub(super) fn apply(state: &EffortState, change: &Value) -> Result<EffortState, Refusal> {
    let mut state = state.clone();
    let glare = "none, slight, moderate, severe or null";
    for (field, value) in fields(change)? {
        let weather = &mut state.weather;
        match field.as_str() {
            "watch" => state.watch = one_of(field, value, "off, transit, online or circling")?,
            "observers" => state.observers = names(field, value)?,
            "project" => state.project = text(field, value, NAME)?,
            "aircraft" => state.aircraft = text(field, value, NAME)?,
            "beaufort" => weather.beaufort = whole(field, value, 0, 12)?,
            "visibilityKilometers" => {
                let allowed = "a number from 0 to 200 or null";
                let number = value.as_f64().filter(|n| (0.0..=200.0).contains(n));
                if number.is_none() && !value.is_null() {
                    return Err(refusal(field, value, allowed));
                }
                weather.visibility_kilometers = number;
            }
            "cloudPercent" => weather.cloud_percent = whole(field, value, 0, 100)?,
            "glareLeft" => weather.glare_left = one_of(field, value, glare)?,
            "glareRight" => weather.glare_right = one_of(field, value, glare)?,
            _ => {
                let known = "not one of watch, observers, project, aircraft, beaufort, visibilityKilometers, \
                    cloudPercent, glareLeft, glareRight";
                return Err(refusal(field, value, known));
            }
        }
    }
    Ok(state)
}

pub(super) fn fill_in(mark: &Mark, more: &Value) -> Result<Mark, Refusal> {
    let mut mark = mark.clone();
    if more.is_null() {
        return Ok(mark);
    }
    for (field, value) in fields(more)? {
        match field.as_str() {
            "scientificName" => mark.scientific_name = text(field, value, NAME)?,
            "individualCount" => mark.individual_count = whole(field, value, 1, 10_000)?,
            "occurrenceRemarks" => mark.occurrence_remarks = text(field, value, REMARK)?,
            _ => {
                let known = "not one of scientificName, individualCount, occurrenceRemarks";
                return Err(refusal(field, value, known));
            }
        }
    }
    Ok(mark)
}

fn fields(value: &Value) -> Result<&Map<String, Value>, Refusal> {
    let object = value.as_object();
    object.ok_or_else(|| refusal("the change", value, "an object with the fields to change"))
}

fn refusal(field: &str, value: &Value, allowed: &str) -> Refusal {
    let mut said: String = value.to_string().chars().take(NAME).collect();
    if value.to_string().chars().count() > NAME {
        said.push('…');
    }
    Refusal {
        field: field.to_owned(),
        value: said,
        allowed: allowed.to_owned(),
    }
}

/// A value of an enumeration; that of a later schema is refused as any other.
fn one_of<T: DeserializeOwned>(field: &str, value: &Value, allowed: &str) -> Result<T, Refusal> {
    let known = match value {
        Value::String(text) => allowed
            .split([' ', ','])
            .any(|word| word == text && !matches!(word, "or" | "null" | "")),
        Value::Null => allowed.ends_with("null"),
        _ => false,
    };
    let read = known.then(|| serde_json::from_value(value.clone()).ok());
    read.flatten().ok_or_else(|| refusal(field, value, allowed))
}

fn whole<T: TryFrom<u64>>(
    field: &str,
    value: &Value,
    least: u64,
    most: u64,
) -> Result<Option<T>, Refusal> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().filter(|n| (least..=most).contains(n));
    let number = number.and_then(|n| T::try_from(n).ok());
    let allowed = || format!("a whole number from {least} to {most} or null");
    number
        .map(Some)
        .ok_or_else(|| refusal(field, value, &allowed()))
}

fn text(field: &str, value: &Value, longest: usize) -> Result<Option<String>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if is_plain(text, longest) => Ok(Some(text.trim().to_owned())),
        _ => {
            let allowed = format!("a text of 1 to {longest} characters or null");
            Err(refusal(field, value, &allowed))
        }
    }
}

fn names(field: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    let allowed = format!("a list of up to {OBSERVERS} names of 1 to {NAME} characters");
    let read = || {
        let list = value.as_array().filter(|list| list.len() <= OBSERVERS)?;
        let name = |value: &Value| {
            let name = value.as_str().filter(|name| is_plain(name, NAME))?;
            Some(name.trim().to_owned())
        };
        list.iter().map(name).collect::<Option<Vec<_>>>()
    };
    read().ok_or_else(|| refusal(field, value, &allowed))
}

fn is_plain(text: &str, longest: usize) -> bool {
    let unfit = |c: char| c.is_control() && c != '\n';
    !text.trim().is_empty() && text.chars().count() <= longest && !text.contains(unfit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_field_value_and_range() {
        let long = "x".repeat(101);
        for (change, field, value, allowed) in [
            (json!({"beaufort": 13}), "beaufort", "13", "from 0 to 12"),
            (json!({"beaufort": 2.5}), "beaufort", "2.5", "whole number"),
            (
                json!({"visibilityKilometers": -1}),
                "visibilityKilometers",
                "-1",
                "0 to 200",
            ),
            (
                json!({"cloudPercent": "8/8"}),
                "cloudPercent",
                "8/8",
                "0 to 100",
            ),
            (json!({"glareLeft": "bad"}), "glareLeft", "bad", "severe"),
            (json!({"glareLeft": "or"}), "glareLeft", "or", "severe"),
            (json!({"watch": null}), "watch", "null", "circling"),
            (json!({"watch": "other"}), "watch", "other", "circling"),
            (json!({"observers": [""]}), "observers", "\"\"", "names"),
            (json!({"project": long}), "project", "xxx", "1 to 100"),
            (json!({"wind": 3}), "wind", "3", "beaufort"),
            (json!([]), "the change", "[]", "object"),
        ] {
            let refusal = apply(&EffortState::default(), &change).unwrap_err();
            let said = refusal.to_string();
            for part in [field, value, allowed] {
                assert!(said.contains(part), "{change}: {said}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_in_range_is_taken(beaufort in 0_u8..=12, cloud in 0_u8..=100, visibility in 0.0..=200.0_f64) {
            let change = json!({"beaufort": beaufort, "cloudPercent": cloud, "visibilityKilometers": visibility});
            let state = apply(&EffortState::default(), &change).unwrap();
            prop_assert_eq!(state.weather.beaufort, Some(beaufort));
            prop_assert_eq!(state.weather.cloud_percent, Some(cloud));
            prop_assert_eq!(state.weather.visibility_kilometers, Some(visibility));
            // And as it is told, it is taken again.
            let told = serde_json::to_value(&state).unwrap();
            prop_assert_eq!(apply(&EffortState::default(), &told).unwrap(), state);
        }

        #[test]
        fn any_number_is_taken_or_refused(field in "beaufort|cloudPercent|visibilityKilometers", n in any::<f64>()) {
            let _ = apply(&EffortState::default(), &json!({field: n}));
        }
    }
}
