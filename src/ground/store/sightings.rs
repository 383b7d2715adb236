use jiff::Timestamp;
use link::message::Sighting;
use serde::{Deserialize, Serialize};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AssertSqlSafe, Row};
use uuid::Uuid;

use super::{Decided, Store, StoreError, Verdict, milliseconds, timestamp};

/// A sighting in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its id.
    pub id: Uuid,
    /// Its newest revision.
    pub revision: u32,
    /// The aircraft.
    pub platform: String,
    /// The flight.
    pub flight: Option<String>,
    /// The camera.
    pub camera: Option<String>,
    /// When the frame that shows it best was taken.
    pub time: Timestamp,
    /// `new`, `update`, `end`.
    pub state: String,
    /// Frames on which the proposal rests.
    pub frames_seen: Option<u32>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Radius that holds the true place with a probability of 95 %.
    pub uncertainty_meters: Option<f64>,
    /// What the machine makes of it: `identified`, `uncertain`, `unknown`.
    pub proposal: String,
    /// The machine's first candidate.
    pub leading: Option<String>,
    /// Its probability, given that the machine knows the animal; 0…1.
    pub leading_probability: Option<f64>,
    /// Probability that the machine does not know the animal; 0…1.
    pub unknown_probability: Option<f64>,
    /// What the aircraft calls an animal that nobody knows.
    pub provisional_id: Option<String>,
    /// How likely the likeliest thing to say of it is wrong; 0…1.
    pub doubt: f64,
    /// Name of its newest picture.
    pub crop: Option<String>,
    /// How many decisions were made on it, with those that were undone.
    pub decisions: u32,
    /// The decision that stands.
    pub standing: Option<Standing>,
}

/// The decision that stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// What was decided.
    pub verdict: Verdict,
    /// The animal, where it was named.
    pub animal: Option<String>,
    /// Whether the reviewer called it possible only.
    pub possible: bool,
    /// Who decided.
    pub person: String,
    /// When.
    pub made: Timestamp,
}

/// A sighting with all that belongs to it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// As in lists.
    pub summary: Summary,
    /// The newest message.
    pub message: Sighting,
    /// How many revisions came.
    pub revisions: u32,
    /// Its pictures, newest first.
    pub crops: Vec<String>,
    /// What was decided, in order.
    pub history: Vec<Decided>,
}

/// A piece of the sea.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Area {
    /// Degrees north of the southern edge.
    pub south: f64,
    /// Degrees east of the western edge.
    pub west: f64,
    /// Degrees north of the northern edge.
    pub north: f64,
    /// Degrees east of the eastern edge; less than `west` where the area crosses the 180th meridian.
    pub east: f64,
}

/// In which order sightings are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Latest first.
    #[default]
    Newest,
    /// Those that wait for a person, the most doubtful first.
    Review,
}

/// What is looked for; all of it at once.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Search {
    /// In which order.
    pub order: Order,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Where.
    pub area: Option<Area>,
    /// Whom a person named, or the machine has as its first candidate where no person decided.
    pub animal: Option<String>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Who decided.
    pub person: Option<String>,
    /// The flight.
    pub flight: Option<String>,
    /// At most so many; 100 where nothing is said, 1000 at the most.
    pub limit: Option<u32>,
    /// So many are passed over.
    pub offset: Option<u32>,
}

const COLUMNS: &str = "occurrence_id, revision, platform, event_id, camera, event_date, state, frames_seen, latitude, \
    longitude, uncertainty_meters, proposal, first_candidate, first_probability, unknown_probability, provisional_id, doubt, \
    crop, decisions, verdict, animal, possible, decided_by, decided";

impl Store {
    /// Sightings that fit.
    ///
    /// # Errors
    /// The database fails.
    pub async fn search(&self, search: &Search) -> Result<Vec<Summary>, StoreError> {
        let mut query = Query::default();
        query.push(&format!("SELECT {COLUMNS} FROM ("));
        // An animal is sought in two places, each with an index of its own.
        match &search.animal {
            None => {
                query.push(&format!("SELECT {COLUMNS} FROM sightings WHERE 1 = 1"));
                narrow(&mut query, search);
            }
            Some(animal) => {
                query.push(&format!("SELECT {COLUMNS} FROM sightings"));
                query.bind(" WHERE animal = ", Value::Text(animal.clone()));
                narrow(&mut query, search);
                query.push(&format!(" UNION ALL SELECT {COLUMNS} FROM sightings"));
                query.bind(
                    " WHERE verdict IS NULL AND first_candidate = ",
                    Value::Text(animal.clone()),
                );
                narrow(&mut query, search);
            }
        }
        query.push(") AS found ORDER BY ");
        query.push(match search.order {
            Order::Newest => "event_date DESC, occurrence_id DESC",
            Order::Review => "doubt DESC, event_date DESC, occurrence_id DESC",
        });
        let limit = search.limit.unwrap_or(100).min(1000);
        query.bind(" LIMIT ", Value::Integer(limit.into()));
        query.bind(
            " OFFSET ",
            Value::Integer(search.offset.unwrap_or(0).into()),
        );
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(summary).collect()
    }

    /// How many sightings wait for a person, and how many there are.
    ///
    /// # Errors
    /// The database fails.
    pub async fn counts(&self) -> Result<(u64, u64), StoreError> {
        let (waiting, all): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM sightings WHERE verdict IS NULL), (SELECT COUNT(*) FROM sightings)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok((waiting.unsigned_abs(), all.unsigned_abs()))
    }

    /// A sighting, or `None` where there is none of this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sighting(&self, id: Uuid) -> Result<Option<Details>, StoreError> {
        let key = id.to_string();
        let found = sqlx::query(AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM sightings WHERE occurrence_id = $1"
        )))
        .bind(&key)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = found else {
            return Ok(None);
        };
        let summary = summary(&row)?;
        let (message,): (String,) = sqlx::query_as(
            "SELECT message FROM sighting_revisions WHERE occurrence_id = $1 AND revision = $2",
        )
        .bind(&key)
        .bind(i64::from(summary.revision))
        .fetch_one(&self.readers)
        .await?;
        let (revisions,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM sighting_revisions WHERE occurrence_id = $1")
                .bind(&key)
                .fetch_one(&self.readers)
                .await?;
        let crops: Vec<(String,)> = sqlx::query_as(
            "SELECT picture FROM crops WHERE occurrence_id = $1 ORDER BY received DESC, picture",
        )
        .bind(&key)
        .fetch_all(&self.readers)
        .await?;
        Ok(Some(Details {
            summary,
            message: serde_json::from_str(&message)
                .map_err(|e| StoreError::Content(format!("sighting {id}: {e}")))?,
            revisions: number(revisions)?,
            crops: crops.into_iter().map(|(picture,)| picture).collect(),
            history: self.decisions(id).await?,
        }))
    }
}

/// A query that is put together, with its values.
#[derive(Default)]
struct Query {
    sql: String,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Integer(i64),
    Real(f64),
}

impl Query {
    /// Nothing that anybody sent may be in `sql`.
    fn push(&mut self, sql: &str) {
        self.sql += sql;
    }

    fn bind(&mut self, sql: &str, value: Value) {
        self.values.push(value);
        self.sql += sql;
        self.sql += &format!("${}", self.values.len());
    }

    fn build(self) -> sqlx::query::Query<'static, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(self.sql));
        self.values
            .into_iter()
            .fold(query, |query, value| match value {
                Value::Text(text) => query.bind(text),
                Value::Integer(integer) => query.bind(integer),
                Value::Real(real) => query.bind(real),
            })
    }
}

/// Adds all conditions but the animal's.
fn narrow(query: &mut Query, search: &Search) {
    let time = |time| Value::Integer(milliseconds(time));
    if search.order == Order::Review {
        query.push(" AND verdict IS NULL");
    }
    if let Some(from) = search.from {
        query.bind(" AND event_date >= ", time(from));
    }
    if let Some(to) = search.to {
        query.bind(" AND event_date < ", time(to));
    }
    if let Some(verdict) = search.verdict {
        query.bind(" AND verdict = ", Value::Text(verdict.word().to_owned()));
    }
    if let Some(person) = &search.person {
        query.bind(" AND decided_by = ", Value::Text(person.clone()));
    }
    if let Some(flight) = &search.flight {
        query.bind(" AND event_id = ", Value::Text(flight.clone()));
    }
    if let Some(area) = search.area {
        query.bind(" AND latitude >= ", Value::Real(area.south));
        query.bind(" AND latitude <= ", Value::Real(area.north));
        query.bind(" AND (longitude >= ", Value::Real(area.west));
        query.push(if area.west <= area.east {
            " AND"
        } else {
            " OR"
        });
        query.bind(" longitude <= ", Value::Real(area.east));
        query.push(")");
    }
}

fn number(stored: i64) -> Result<u32, StoreError> {
    u32::try_from(stored).map_err(|e| StoreError::Content(format!("{stored}: {e}")))
}

fn summary(row: &AnyRow) -> Result<Summary, StoreError> {
    let id: String = row.try_get("occurrence_id")?;
    let frames_seen: Option<i64> = row.try_get("frames_seen")?;
    let verdict: Option<String> = row.try_get("verdict")?;
    let standing = match verdict {
        None => None,
        Some(verdict) => Some(Standing {
            verdict: Verdict::of_word(&verdict)?,
            animal: row.try_get("animal")?,
            possible: row.try_get::<Option<i64>, _>("possible")? == Some(1),
            person: row.try_get("decided_by")?,
            made: timestamp(row.try_get("decided")?)?,
        }),
    };
    Ok(Summary {
        id: Uuid::try_parse(&id).map_err(|e| StoreError::Content(format!("{id}: {e}")))?,
        revision: number(row.try_get("revision")?)?,
        platform: row.try_get("platform")?,
        flight: row.try_get("event_id")?,
        camera: row.try_get("camera")?,
        time: timestamp(row.try_get("event_date")?)?,
        state: row.try_get("state")?,
        frames_seen: frames_seen.map(number).transpose()?,
        latitude: row.try_get("latitude")?,
        longitude: row.try_get("longitude")?,
        uncertainty_meters: row.try_get("uncertainty_meters")?,
        proposal: row.try_get("proposal")?,
        leading: row.try_get("first_candidate")?,
        leading_probability: row.try_get("first_probability")?,
        unknown_probability: row.try_get("unknown_probability")?,
        provisional_id: row.try_get("provisional_id")?,
        doubt: row.try_get("doubt")?,
        crop: row.try_get("crop")?,
        decisions: number(row.try_get("decisions")?)?,
        standing,
    })
}
