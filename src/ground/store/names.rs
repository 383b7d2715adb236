use serde::Serialize;
use thiserror::Error;

use super::{Store, StoreError};

/// An animal that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Animal {
    /// As it is written.
    pub name: String,
    /// Whether a reviewer named it for the time being, since no catalogue had it.
    pub provisional: bool,
}

/// A name that is none.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no name of an animal: it needs 1 to 100 characters, and words that say that nobody knows (NA, none, unknown) \
     are none"
)]
pub struct NameError(String);

/// Names that differ in nothing but case and spaces are the same.
pub fn folded(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// The name with single spaces.
///
/// # Errors
/// It is empty, too long, or says that there is none.
pub fn checked_name(name: &str) -> Result<String, NameError> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let clean = words.join(" ");
    let says_nothing = matches!(
        folded(name).as_str(),
        "" | "-" | "?" | "na" | "n/a" | "nan" | "nil" | "none" | "null" | "unk" | "unknown"
    );
    if says_nothing || clean.chars().count() > 100 || clean.contains(char::is_control) {
        return Err(NameError(name.to_owned()));
    }
    Ok(clean)
}

impl Store {
    /// The animals that have names, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn animals(&self) -> Result<Vec<Animal>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, provisional FROM animals ORDER BY folded")
                .fetch_all(&self.readers)
                .await?;
        let animals = rows.into_iter().map(|(name, provisional)| Animal {
            name,
            provisional: provisional != 0,
        });
        Ok(animals.collect())
    }

    /// Tells of animals that a catalogue has; names that are none are passed over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_animals(&self, names: &[String]) -> Result<(), StoreError> {
        let mut writing = self.writer.begin().await?;
        let now = jiff::Timestamp::now();
        for name in names {
            add(&mut writing, name, false, now).await?;
        }
        writing.commit().await?;
        Ok(())
    }
}

/// Adds an animal where there is none of this name. Where a provisional one has it, and a catalogue now too, it is no
/// longer provisional.
pub(super) async fn add(
    connection: &mut sqlx::AnyConnection,
    name: &str,
    provisional: bool,
    now: jiff::Timestamp,
) -> Result<(), StoreError> {
    let Ok(name) = checked_name(name) else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO animals (folded, name, provisional, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (folded) DO UPDATE SET provisional = 0 WHERE excluded.provisional = 0 AND animals.provisional = 1",
    )
    .bind(folded(&name))
    .bind(name)
    .bind(i64::from(provisional))
    .bind(super::milliseconds(now))
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_more_than_case_and_spaces() {
        assert_eq!(folded("  Snow  Ball "), folded("snow ball"));
        assert_ne!(folded("Snowball"), folded("snow ball"));
        assert_eq!(checked_name(" Snow   Ball ").unwrap(), "Snow Ball");
        for none in [
            "",
            " ",
            "NA",
            "n/a",
            " Unknown ",
            "UNKNOWN",
            "null",
            "a\u{0}b",
        ] {
            assert!(checked_name(none).is_err(), "{none:?}");
        }
        assert!(checked_name(&"x".repeat(101)).is_err());
        // What an aircraft calls an animal that nobody knows is a name, for the time being.
        assert!(checked_name("unknown 3").is_ok());
    }
}
