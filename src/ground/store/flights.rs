//! After a flight: what an aircraft's archive adds to sightings, and what of them teaches.

use jiff::Timestamp;
use link::message::Sighting;
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::{Store, StoreError, Verdict, milliseconds, timestamp};

/// A sighting of a flight, as an archive may complete it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its newest revision, as it came.
    pub message: Sighting,
    /// When it was, as it is known now.
    pub time: Timestamp,
    /// Whether the frame that this revision is of is here.
    pub has_frame: bool,
}

/// A sighting on which a person has decided, definitely.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// Its newest revision, as it came.
    pub message: Sighting,
    /// When it was, as it is known now.
    pub time: Timestamp,
    /// What was decided: of whom it is, or that it is no whale.
    pub verdict: Verdict,
    /// The animal, where it was named.
    pub animal: Option<String>,
    /// Who decided.
    pub person: String,
    /// When.
    pub decided: Timestamp,
    /// Name of the picture of the whole frame that the newest revision is of.
    pub frame: Option<String>,
    /// How many heads are in that frame.
    pub heads_in_frame: u32,
    /// Name of the picture of its head.
    pub crop: Option<String>,
}

impl Store {
    /// The sightings of a flight, by id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn of_flight(&self, flight: Uuid) -> Result<Vec<Pending>, StoreError> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT r.message, s.event_date, \
                 CAST(CASE WHEN f.revision = s.revision THEN 1 ELSE 0 END AS BIGINT) \
             FROM sightings s \
             JOIN sighting_revisions r ON r.occurrence_id = s.occurrence_id AND r.revision = s.revision \
             LEFT JOIN frames f ON f.occurrence_id = s.occurrence_id \
             WHERE s.event_id = $1 ORDER BY s.occurrence_id",
        )
        .bind(flight.to_string())
        .fetch_all(&self.readers)
        .await?;
        let sightings = rows.into_iter().map(|(message, time, has_frame)| {
            Ok(Pending {
                message: read(&message)?,
                time: timestamp(time)?,
                has_frame: has_frame == 1,
            })
        });
        sightings.collect()
    }

    /// Says when a sighting was, where a clock was wrong when it was sent; returns whether that is new. The message stays as
    /// it came.
    ///
    /// # Errors
    /// The database fails.
    pub async fn correct_time(&self, sighting: Uuid, time: Timestamp) -> Result<bool, StoreError> {
        let corrected = sqlx::query(
            "UPDATE sightings SET event_date = $1 WHERE occurrence_id = $2 AND event_date <> $1",
        )
        .bind(milliseconds(time))
        .bind(sighting.to_string())
        .execute(&self.writer)
        .await?;
        Ok(corrected.rows_affected() > 0)
    }

    /// Shows this picture of a sighting's head before its others; returns whether that is new. Pictures come in any order
    /// from a link and an archive, and which one was made last only the archive knows.
    ///
    /// # Errors
    /// The database fails.
    pub async fn show_crop(&self, sighting: Uuid, picture: &str) -> Result<bool, StoreError> {
        let shown = sqlx::query(
            "UPDATE sightings SET crop = $1 WHERE occurrence_id = $2 AND (crop IS NULL OR crop <> $1) \
             AND EXISTS (SELECT 1 FROM crops WHERE occurrence_id = $2 AND picture = $1)",
        )
        .bind(picture)
        .bind(sighting.to_string())
        .execute(&self.writer)
        .await?;
        Ok(shown.rows_affected() > 0)
    }

    /// Keeps the frame that a revision of a sighting is of, a JPEG in which so many heads were found.
    ///
    /// # Errors
    /// The disk or the database takes no more.
    pub async fn keep_frame(
        &self,
        sighting: &Sighting,
        heads: u32,
        jpeg: &[u8],
    ) -> Result<(), StoreError> {
        let picture = self.pictures().put(jpeg)?;
        sqlx::query(
            "INSERT INTO frames (occurrence_id, revision, picture, heads) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (occurrence_id) DO UPDATE SET revision = excluded.revision, picture = excluded.picture, \
                 heads = excluded.heads \
             WHERE excluded.revision >= frames.revision",
        )
        .bind(sighting.occurrence_id.to_string())
        .bind(i64::from(sighting.revision))
        .bind(picture)
        .bind(i64::from(heads))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Sightings on which a definite decision stands that says who it is, or that it is no whale; by id, so many behind one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn confirmed(
        &self,
        after: Option<Uuid>,
        most: i64,
    ) -> Result<Vec<Confirmed>, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(
            "SELECT r.message, s.event_date, s.verdict, s.animal, s.decided_by, s.decided, s.crop, f.picture, f.heads \
             FROM sightings s \
             JOIN sighting_revisions r ON r.occurrence_id = s.occurrence_id AND r.revision = s.revision \
             LEFT JOIN frames f ON f.occurrence_id = s.occurrence_id AND f.revision = s.revision \
             WHERE s.verdict IN ('identified', 'notInCatalogue', 'notAWhale') AND s.possible = 0 \
                 AND s.occurrence_id > $1 \
             ORDER BY s.occurrence_id LIMIT $2",
        ))
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        let confirmed = rows.iter().map(|row| {
            let verdict: String = row.try_get(2)?;
            Ok(Confirmed {
                message: read(&row.try_get::<String, _>(0)?)?,
                time: timestamp(row.try_get(1)?)?,
                verdict: Verdict::of_word(&verdict)?,
                animal: row.try_get(3)?,
                person: row.try_get(4)?,
                decided: timestamp(row.try_get(5)?)?,
                crop: row.try_get(6)?,
                frame: row.try_get(7)?,
                heads_in_frame: row
                    .try_get::<Option<i64>, _>(8)?
                    .and_then(|heads| u32::try_from(heads).ok())
                    .unwrap_or(0),
            })
        });
        confirmed.collect()
    }
}

fn read<T: DeserializeOwned>(message: &str) -> Result<T, StoreError> {
    serde_json::from_str(message).map_err(|e| StoreError::Content(e.to_string()))
}
