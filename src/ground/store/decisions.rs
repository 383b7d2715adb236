use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use thiserror::Error;
use uuid::Uuid;

use super::names::{self, NameError, checked_name};
use super::{Store, StoreError, milliseconds, timestamp};

/// What a person decides on a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It is an animal of the catalogue, or one that was named before.
    Identified,
    /// It is an animal that the catalogue lacks; it gets a name for the time being.
    NotInCatalogue,
    /// It is no whale.
    NotAWhale,
    /// The pictures do not tell who it is.
    CannotTell,
    /// The decision before this one is taken back.
    Undone,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Identified,
        Self::NotInCatalogue,
        Self::NotAWhale,
        Self::CannotTell,
        Self::Undone,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Identified => "identified",
            Self::NotInCatalogue => "notInCatalogue",
            Self::NotAWhale => "notAWhale",
            Self::CannotTell => "cannotTell",
            Self::Undone => "undone",
        }
    }

    pub(super) fn of_word(word: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|verdict| verdict.word() == word);
        found.ok_or_else(|| StoreError::Content(format!("a decision {word:?}")))
    }

    fn names_an_animal(self) -> bool {
        matches!(self, Self::Identified | Self::NotInCatalogue)
    }
}

/// A decision that a person wants to make.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewDecision {
    /// The revision of the sighting that the person saw.
    pub revision: u32,
    /// How many decisions on it the person knew of. Where there is one more, somebody else was first.
    pub decisions: u32,
    /// What is decided.
    pub verdict: Verdict,
    /// The animal, where the verdict names one.
    #[serde(default)]
    pub animal: Option<String>,
    /// Whether it is possible only.
    #[serde(default)]
    pub possible: bool,
    /// Anything else.
    #[serde(default)]
    pub note: Option<String>,
}

/// A decision that was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// 1 for the first on this sighting.
    pub number: u32,
    /// The revision of the sighting that the person saw.
    pub revision: u32,
    /// What was decided.
    pub verdict: Verdict,
    /// The animal, where the verdict names one.
    pub animal: Option<String>,
    /// Whether it was called possible only.
    pub possible: bool,
    /// Anything else.
    pub note: Option<String>,
    /// Who decided.
    pub person: String,
    /// When.
    pub made: Timestamp,
}

/// A decision that is not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecisionError {
    /// There is no such sighting.
    #[error("there is no sighting {0}")]
    NoSighting(Uuid),
    /// Somebody else decided first.
    #[error("{} decided on this sighting meanwhile", .0.last().map_or("somebody", |d| d.person.as_str()))]
    Conflict(Vec<Decided>),
    /// The verdict needs a name.
    #[error("animal: this verdict needs the name of one")]
    NoAnimal,
    /// The name is none.
    #[error("animal: {0}")]
    Name(#[from] NameError),
    /// The provisional name is that of an animal of the catalogue.
    #[error(
        "animal: {0:?} is in the catalogue: choose it there, or choose another provisional name"
    )]
    Known(String),
    /// There is nothing to undo.
    #[error("there is no decision to undo")]
    NothingToUndo,
    /// A note of more than 4000 characters.
    #[error("note: it is longer than 4000 characters")]
    LongNote,
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DecisionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The decision that stands after some, each of which may take back the one before it that still stood.
fn standing(history: &[Decided]) -> Option<&Decided> {
    let mut stands = Vec::new();
    for decided in history {
        if decided.verdict == Verdict::Undone {
            stands.pop();
        } else {
            stands.push(decided);
        }
    }
    stands.pop()
}

impl Store {
    /// Makes a decision; on return it is on the disk. It is made on one sighting and touches no other.
    ///
    /// # Errors
    /// Somebody else decided meanwhile, what is decided makes no sense, or the database fails; nothing is changed then.
    pub async fn decide(
        &self,
        sighting: Uuid,
        decision: &NewDecision,
        person: &str,
    ) -> Result<Decided, DecisionError> {
        let note = decision.note.as_deref().map(str::trim);
        let note = note.filter(|note| !note.is_empty());
        if note.is_some_and(|note| note.chars().count() > 4000) {
            return Err(DecisionError::LongNote);
        }
        let mut animal = None;
        if decision.verdict.names_an_animal() {
            let name = decision.animal.as_deref().ok_or(DecisionError::NoAnimal)?;
            animal = Some(checked_name(name)?);
        }
        let now = link::message::now();
        let id = sighting.to_string();
        let mut writing = self.writer.begin().await?;
        // PostgreSQL may be written to by others: whoever comes second waits here and then sees the first.
        let locked =
            sqlx::query("UPDATE sightings SET decisions = decisions WHERE occurrence_id = $1")
                .bind(&id)
                .execute(&mut *writing)
                .await?;
        if locked.rows_affected() == 0 {
            return Err(DecisionError::NoSighting(sighting));
        }
        let mut history = read(&mut writing, sighting).await?;
        if history.len() != decision.decisions as usize {
            return Err(DecisionError::Conflict(history));
        }
        if decision.verdict == Verdict::Undone && standing(&history).is_none() {
            return Err(DecisionError::NothingToUndo);
        }
        if let Some(name) = &mut animal {
            *name = known_as(&mut writing, name, decision.verdict, now).await?;
        }
        let decided = Decided {
            number: decision.decisions + 1,
            revision: decision.revision,
            verdict: decision.verdict,
            animal,
            possible: decision.possible,
            note: note.map(str::to_owned),
            person: person.to_owned(),
            made: now,
        };
        write(&mut writing, &id, &decided).await?;
        history.push(decided.clone());
        stand(&mut writing, &id, &history).await?;
        writing.commit().await?;
        Ok(decided)
    }

    /// What was decided on a sighting, in order.
    pub(super) async fn decisions(&self, sighting: Uuid) -> Result<Vec<Decided>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        read(&mut connection, sighting).await
    }
}

/// The name as it was first written; where it is new, it is added.
async fn known_as(
    db: &mut AnyConnection,
    name: &str,
    verdict: Verdict,
    now: Timestamp,
) -> Result<String, DecisionError> {
    let known: Option<(String, i64)> =
        sqlx::query_as("SELECT name, provisional FROM animals WHERE folded = $1")
            .bind(names::folded(name))
            .fetch_optional(&mut *db)
            .await?;
    match known {
        Some((known, 0)) if verdict == Verdict::NotInCatalogue => Err(DecisionError::Known(known)),
        Some((known, _)) => Ok(known),
        None => {
            names::add(db, name, true, now).await?;
            Ok(name.to_owned())
        }
    }
}

async fn read(db: &mut AnyConnection, sighting: Uuid) -> Result<Vec<Decided>, StoreError> {
    type Row = (
        i64,
        i64,
        String,
        Option<String>,
        i64,
        Option<String>,
        String,
        i64,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, revision, verdict, animal, possible, note, person, made FROM decisions \
         WHERE occurrence_id = $1 ORDER BY number",
    )
    .bind(sighting.to_string())
    .fetch_all(db)
    .await?;
    let decided = rows.into_iter().map(
        |(number, revision, verdict, animal, possible, note, person, made)| {
            Ok(Decided {
                number: u32::try_from(number).unwrap_or(u32::MAX),
                revision: u32::try_from(revision).unwrap_or(u32::MAX),
                verdict: Verdict::of_word(&verdict)?,
                animal,
                possible: possible == 1,
                note,
                person,
                made: timestamp(made)?,
            })
        },
    );
    decided.collect()
}

async fn write(db: &mut AnyConnection, id: &str, decided: &Decided) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO decisions (occurrence_id, number, revision, verdict, animal, possible, note, person, made) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(i64::from(decided.number))
    .bind(i64::from(decided.revision))
    .bind(decided.verdict.word())
    .bind(&decided.animal)
    .bind(i64::from(decided.possible))
    .bind(&decided.note)
    .bind(&decided.person)
    .bind(milliseconds(decided.made))
    .execute(db)
    .await?;
    Ok(())
}

/// Says in the table of sightings which decision stands.
async fn stand(db: &mut AnyConnection, id: &str, history: &[Decided]) -> Result<(), StoreError> {
    let stands = standing(history);
    sqlx::query(
        "UPDATE sightings SET decisions = $1, verdict = $2, animal = $3, possible = $4, decided_by = $5, decided = $6 \
         WHERE occurrence_id = $7",
    )
    .bind(i64::try_from(history.len()).unwrap_or(i64::MAX))
    .bind(stands.map(|s| s.verdict.word()))
    .bind(stands.and_then(|s| s.animal.clone()))
    .bind(stands.map(|s| i64::from(s.possible)))
    .bind(stands.map(|s| s.person.clone()))
    .bind(stands.map(|s| milliseconds(s.made)))
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}
