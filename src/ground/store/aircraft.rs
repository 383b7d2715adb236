use jiff::Timestamp;
use link::message::{Effort, Health, Status, Track};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, StoreError, milliseconds, timestamp};

/// An aircraft as it was heard last.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Aircraft {
    /// Its name in topics.
    pub platform: String,
    /// When it said anything.
    pub heard: Option<Timestamp>,
    /// Whether it is there.
    pub status: Option<Status>,
    /// How it fares.
    pub health: Option<Health>,
    /// Where it was.
    pub track: Option<Track>,
    /// How the survey is flown.
    pub effort: Option<Effort>,
}

/// Where an aircraft was.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The flight.
    pub flight: String,
    /// The aircraft.
    pub platform: String,
    /// When.
    pub time: Timestamp,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// A row of the table: platform, heard, status, health, track, effort.
type Row = (
    String,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl Store {
    /// All aircraft that were ever heard, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn aircraft(&self) -> Result<Vec<Aircraft>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT platform, heard, status, health, track, effort FROM aircraft ORDER BY platform",
        )
        .fetch_all(&self.readers)
        .await?;
        let aircraft = rows
            .into_iter()
            .map(|(platform, heard, status, health, track, effort)| {
                Ok(Aircraft {
                    platform,
                    heard: heard.map(timestamp).transpose()?,
                    status: message(status)?,
                    health: message(health)?,
                    track: message(track)?,
                    effort: message(effort)?,
                })
            });
        aircraft.collect()
    }

    /// Where aircraft were since a time, in order, at most so many places: of more, the latest.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tracks(&self, since: Timestamp, most: i64) -> Result<Vec<Position>, StoreError> {
        let rows: Vec<(String, String, i64, f64, f64)> = sqlx::query_as(
            "SELECT event_id, platform, time, latitude, longitude FROM tracks WHERE time >= $1 \
             ORDER BY time DESC LIMIT $2",
        )
        .bind(milliseconds(since))
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        let places = rows
            .into_iter()
            .rev()
            .map(|(flight, platform, time, latitude, longitude)| {
                Ok(Position {
                    flight,
                    platform,
                    time: timestamp(time)?,
                    latitude,
                    longitude,
                })
            });
        places.collect()
    }
}

fn message<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, StoreError> {
    let read = text.map(|text| serde_json::from_str(&text));
    read.transpose()
        .map_err(|e| StoreError::Content(e.to_string()))
}
