use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use link::codec::decode_as;
use link::message::{Effort, Sighting, Status, Track};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;
use uuid::Uuid;

use super::{Store, StoreError, milliseconds, names, timestamp};
use crate::receiver::{Delivery, Received};

/// Malformed messages beyond these are forgotten, oldest first: whoever sends nonsense without end must not fill the disk.
const MOST_SET_ASIDE: i64 = 10_000;

/// Most bytes that are kept of a malformed message.
const MOST_BYTES_SET_ASIDE: usize = 64 << 10;

/// A catalogue has some hundreds; whoever sends new ones without end must not fill the memory.
const MOST_KNOWN_NAMES: usize = 10_000;

/// What was new among messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Revisions of sightings, and crops.
    pub sightings: u64,
    /// Messages on aircraft: status, health, position, effort.
    pub aircraft: u64,
    /// Messages that make no sense.
    pub set_aside: u64,
    /// Messages that had come before.
    pub repeated: u64,
}

/// A message that makes no sense.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// Where it came.
    pub topic: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its MQTT content type.
    pub content_type: Option<String>,
    /// How it begins, with what is no text replaced.
    pub begins: String,
    /// When it came.
    pub received: Timestamp,
}

/// What has to be done with a message, decided before the database is asked.
enum Item {
    Sighting(Box<Sighting>, String),
    Crop { sighting: Uuid, picture: String },
    Status(Status, String),
    Health(String),
    Track(Box<Track>, String),
    Effort(Box<Effort>, String),
    SetAside(String),
}

impl Store {
    /// Stores messages, all or none. What came before is left as it is.
    ///
    /// # Errors
    /// The disk or the database takes no more: nothing of these messages is stored, but for pictures that nothing names.
    pub async fn keep(&self, deliveries: &[Delivery]) -> Result<Kept, StoreError> {
        let now = link::message::now();
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            items.push(self.item(delivery)?);
        }
        let mut kept = Kept::default();
        let mut heard_from = BTreeSet::new();
        let mut new_names = BTreeSet::new();
        let mut writing = self.writer.begin().await?;
        for (delivery, item) in deliveries.iter().zip(items) {
            if let Item::Sighting(sighting, _) = &item {
                let names = sighting.candidates.iter().map(|c| &c.organism_id);
                let known = self.known_names();
                new_names.extend(names.filter(|name| !known.contains(*name)).cloned());
            }
            keep(&mut writing, delivery, item, now, &mut kept).await?;
            // The broker says in an aircraft's place that it is gone, and repeats what it has kept.
            if !delivery.is_retained && !is_last_will(&delivery.received) {
                heard_from.insert(delivery.platform.as_str());
            }
        }
        for platform in heard_from {
            heard(&mut writing, platform, now).await?;
        }
        for name in &new_names {
            names::add(&mut writing, name, false, now).await?;
        }
        if kept.set_aside > 0 {
            forget_set_aside(&mut writing).await?;
        }
        writing.commit().await?;
        let mut known = self.known_names();
        if known.len() > MOST_KNOWN_NAMES {
            known.clear();
        }
        known.extend(new_names);
        Ok(kept)
    }

    /// Names that are in the table of animals for certain.
    fn known_names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set is whole after each call.
        self.known_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn item(&self, delivery: &Delivery) -> Result<Item, StoreError> {
        if let Received::Crop { sighting, jpeg } = &delivery.received {
            if !jpeg.starts_with(b"\xff\xd8\xff") {
                return Ok(Item::SetAside("this is no JPEG".to_owned()));
            }
            return Ok(Item::Crop {
                sighting: *sighting,
                picture: self.pictures().put(jpeg)?,
            });
        }
        if let Received::Malformed { reason, .. } = &delivery.received {
            return Ok(Item::SetAside(reason.clone()));
        }
        // As it came, with what a later schema adds.
        let json: Result<serde_json::Value, _> =
            decode_as(delivery.content_type.as_deref(), &delivery.payload);
        let text = match json {
            Ok(json) => json.to_string(),
            Err(e) => return Ok(Item::SetAside(e.to_string())),
        };
        // PostgreSQL takes none in a text.
        if text.contains("\\u0000") {
            return Ok(Item::SetAside("a text in it contains NUL".to_owned()));
        }
        Ok(match &delivery.received {
            Received::Sighting(sighting) => Item::Sighting(sighting.clone(), text),
            Received::Status(status) => Item::Status(status.clone(), text),
            Received::Health(_) => Item::Health(text),
            Received::Track(track) => Item::Track(track.clone(), text),
            Received::Effort(effort) => Item::Effort(effort.clone(), text),
            Received::Crop { .. } | Received::Malformed { .. } => unreachable!("returned above"),
        })
    }

    /// The newest messages that make no sense, at most `most`, and how many are kept.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_aside(&self, most: i64) -> Result<(Vec<SetAside>, u64), StoreError> {
        type Row = (String, String, Option<String>, Vec<u8>, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT topic, reason, content_type, payload, received FROM set_aside \
             ORDER BY received DESC LIMIT $1",
        )
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        let messages = rows
            .into_iter()
            .map(|(topic, reason, content_type, payload, received)| {
                Ok(SetAside {
                    topic,
                    reason,
                    content_type,
                    begins: String::from_utf8_lossy(&payload[..payload.len().min(200)])
                        .into_owned(),
                    received: timestamp(received)?,
                })
            });
        let messages = messages.collect::<Result<_, StoreError>>()?;
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM set_aside")
            .fetch_one(&self.readers)
            .await?;
        Ok((messages, count.unsigned_abs()))
    }
}

fn is_last_will(received: &Received) -> bool {
    use link::message::Presence::Offline;
    matches!(received, Received::Status(status) if status.status == Offline)
}

async fn keep(
    db: &mut AnyConnection,
    delivery: &Delivery,
    item: Item,
    now: Timestamp,
    kept: &mut Kept,
) -> Result<(), StoreError> {
    let platform = delivery.platform.as_str();
    let new = match item {
        Item::Sighting(sighting, text) => {
            let new = keep_sighting(db, &sighting, &text, now).await?;
            match new {
                Some(new) => kept.sightings += u64::from(new),
                None => {
                    let reason = format!(
                        "another platform's sighting has the id {}",
                        sighting.occurrence_id
                    );
                    return set_aside(db, delivery, &reason, now, kept).await;
                }
            }
            new == Some(true)
        }
        Item::Crop { sighting, picture } => {
            let new = keep_crop(db, sighting, &picture, now).await?;
            kept.sightings += u64::from(new);
            new
        }
        Item::SetAside(reason) => return set_aside(db, delivery, &reason, now, kept).await,
        Item::Status(status, text) => {
            // Of one connection the broker's last word comes after all others; what is retained may be older.
            sqlx::query(
                "INSERT INTO aircraft (platform, status) VALUES ($1, $2) \
                 ON CONFLICT (platform) DO UPDATE SET status = excluded.status",
            )
            .bind(&status.platform)
            .bind(&text)
            .execute(db)
            .await?;
            kept.aircraft += 1;
            true
        }
        Item::Health(text) => {
            sqlx::query(
                "INSERT INTO aircraft (platform, health) VALUES ($1, $2) \
                 ON CONFLICT (platform) DO UPDATE SET health = excluded.health",
            )
            .bind(platform)
            .bind(&text)
            .execute(db)
            .await?;
            kept.aircraft += 1;
            true
        }
        Item::Track(track, text) => {
            let new = keep_track(db, &track, &text).await?;
            kept.aircraft += u64::from(new);
            new
        }
        Item::Effort(effort, text) => {
            let new = keep_effort(db, &effort, &text, now).await?;
            kept.aircraft += u64::from(new);
            new
        }
    };
    kept.repeated += u64::from(!new);
    Ok(())
}

async fn heard(db: &mut AnyConnection, platform: &str, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO aircraft (platform, heard) VALUES ($1, $2) \
         ON CONFLICT (platform) DO UPDATE SET heard = excluded.heard",
    )
    .bind(platform)
    .bind(milliseconds(now))
    .execute(db)
    .await?;
    Ok(())
}

/// How likely it is that the likeliest thing to say of a sighting (that it is its first candidate, or that no catalogue
/// has it) is wrong; 0…1.
fn doubt(sighting: &Sighting) -> f64 {
    let unknown = f64::from(sighting.unknown_probability.unwrap_or(0.0));
    let leading = sighting.candidates.first();
    let leading = leading.map_or(0.0, |c| f64::from(c.probability)) * (1.0 - unknown);
    (1.0 - leading.max(unknown)).clamp(0.0, 1.0)
}

/// A value of an enumeration as messages write it.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "other".to_owned(),
    }
}

/// Whether the revision is new; `None` where the sighting is another platform's.
async fn keep_sighting(
    db: &mut AnyConnection,
    sighting: &Sighting,
    text: &str,
    now: Timestamp,
) -> Result<Option<bool>, StoreError> {
    let id = sighting.occurrence_id.to_string();
    let owner: Option<(String,)> =
        sqlx::query_as("SELECT platform FROM sightings WHERE occurrence_id = $1")
            .bind(&id)
            .fetch_optional(&mut *db)
            .await?;
    if owner.is_some_and(|(owner,)| owner != sighting.platform) {
        return Ok(None);
    }
    let inserted = sqlx::query(
        "INSERT INTO sighting_revisions (occurrence_id, revision, received, message) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&id)
    .bind(i64::from(sighting.revision))
    .bind(milliseconds(now))
    .bind(text)
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Some(false));
    }
    let place = sighting.georeference.place;
    let leading = sighting.candidates.first();
    sqlx::query(
        "INSERT INTO sightings (occurrence_id, revision, platform, event_id, camera, event_date, state, frames_seen, \
             latitude, longitude, uncertainty_meters, proposal, first_candidate, first_probability, unknown_probability, \
             provisional_id, doubt, crop) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
             (SELECT picture FROM crops WHERE occurrence_id = $18 ORDER BY received DESC LIMIT 1)) \
         ON CONFLICT (occurrence_id) DO UPDATE SET revision = excluded.revision, event_id = excluded.event_id, \
             camera = excluded.camera, event_date = excluded.event_date, state = excluded.state, \
             frames_seen = excluded.frames_seen, latitude = excluded.latitude, longitude = excluded.longitude, \
             uncertainty_meters = excluded.uncertainty_meters, proposal = excluded.proposal, \
             first_candidate = excluded.first_candidate, first_probability = excluded.first_probability, \
             unknown_probability = excluded.unknown_probability, provisional_id = excluded.provisional_id, \
             doubt = excluded.doubt \
         WHERE excluded.revision > sightings.revision",
    )
    .bind(&id)
    .bind(i64::from(sighting.revision))
    .bind(&sighting.platform)
    .bind(sighting.event_id.map(|id| id.to_string()))
    .bind(&sighting.camera)
    .bind(milliseconds(sighting.event_date))
    .bind(word(sighting.state))
    .bind(sighting.frames_seen.map(i64::from))
    .bind(place.map(|p| p.decimal_latitude))
    .bind(place.map(|p| p.decimal_longitude))
    .bind(place.map(|p| p.coordinate_uncertainty_in_meters))
    .bind(word(sighting.decision))
    .bind(leading.map(|c| c.organism_id.clone()))
    .bind(leading.map(|c| f64::from(c.probability)))
    .bind(sighting.unknown_probability.map(f64::from))
    .bind(&sighting.provisional_id)
    .bind(doubt(sighting))
    .bind(&id)
    .execute(&mut *db)
    .await?;
    Ok(Some(true))
}

async fn keep_crop(
    db: &mut AnyConnection,
    sighting: Uuid,
    picture: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let id = sighting.to_string();
    let inserted = sqlx::query(
        "INSERT INTO crops (occurrence_id, picture, received) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(&id)
    .bind(picture)
    .bind(milliseconds(now))
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE sightings SET crop = $1 WHERE occurrence_id = $2")
        .bind(picture)
        .bind(&id)
        .execute(db)
        .await?;
    Ok(true)
}

async fn keep_track(db: &mut AnyConnection, track: &Track, text: &str) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO tracks (event_id, time, platform, latitude, longitude, message) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(track.event_id.to_string())
    .bind(milliseconds(track.time))
    .bind(&track.platform)
    .bind(track.place.decimal_latitude)
    .bind(track.place.decimal_longitude)
    .bind(text)
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    keep_latest(db, "track", &track.platform, text, track.time).await?;
    Ok(true)
}

async fn keep_effort(
    db: &mut AnyConnection,
    effort: &Effort,
    text: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO efforts (event_id, revision, platform, time, received, message) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(effort.event_id.to_string())
    .bind(i64::from(effort.revision))
    .bind(&effort.platform)
    .bind(milliseconds(effort.time))
    .bind(milliseconds(now))
    .bind(text)
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    keep_latest(db, "effort", &effort.platform, text, effort.time).await?;
    Ok(true)
}

/// What an aircraft said last, in a column that has its time beside it: an older message that comes later does not replace it.
async fn keep_latest(
    db: &mut AnyConnection,
    column: &'static str,
    platform: &str,
    text: &str,
    time: Timestamp,
) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO aircraft (platform, {column}, {column}_time) VALUES ($1, $2, $3) \
         ON CONFLICT (platform) DO UPDATE SET {column} = excluded.{column}, {column}_time = excluded.{column}_time \
         WHERE aircraft.{column}_time IS NULL OR excluded.{column}_time >= aircraft.{column}_time"
    );
    // The column is named by this program.
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(platform)
        .bind(text)
        .bind(milliseconds(time))
        .execute(db)
        .await?;
    Ok(())
}

async fn set_aside(
    db: &mut AnyConnection,
    delivery: &Delivery,
    reason: &str,
    now: Timestamp,
    kept: &mut Kept,
) -> Result<(), StoreError> {
    let mut digest = Sha256::new();
    digest.update(&delivery.topic);
    digest.update([0]);
    digest.update(&delivery.payload);
    let payload = &delivery.payload[..delivery.payload.len().min(MOST_BYTES_SET_ASIDE)];
    let without_nul = |text: &str| text.replace('\0', "\u{fffd}");
    let inserted = sqlx::query(
        "INSERT INTO set_aside (digest, topic, reason, content_type, payload, received) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(hex::encode(digest.finalize()))
    .bind(without_nul(&delivery.topic))
    .bind(without_nul(reason))
    .bind(delivery.content_type.as_deref().map(without_nul))
    .bind(payload.to_vec())
    .bind(milliseconds(now))
    .execute(db)
    .await?;
    let new = inserted.rows_affected();
    kept.set_aside += new;
    kept.repeated += 1 - new.min(1);
    Ok(())
}

async fn forget_set_aside(db: &mut AnyConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM set_aside WHERE digest IN \
         (SELECT digest FROM set_aside ORDER BY received DESC, digest LIMIT 1000000 OFFSET $1)",
    )
    .bind(MOST_SET_ASIDE)
    .execute(db)
    .await?;
    Ok(())
}
