use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::names::folded;
use super::{Store, StoreError, milliseconds};

/// What an account may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Sees everything but accounts.
    Observer,
    /// Decides on sightings, and tells aircraft how the survey is flown.
    Reviewer,
    /// Invites others, and removes accounts.
    Administrator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Observer, Self::Reviewer, Self::Administrator];

    fn word(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Reviewer => "reviewer",
            Self::Administrator => "administrator",
        }
    }

    fn of_word(word: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| StoreError::Content(format!("a role {word:?}")))
    }
}

/// Who uses the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// A session that was just begun.
#[derive(Debug)]
pub struct Session {
    /// Whoever shows this is in the session.
    pub token: String,
    /// Whose it is.
    pub account: Account,
}

/// A link that was just made, by which somebody gets an account, once.
#[derive(Debug)]
pub struct Invitation {
    /// Whoever shows this may make an account.
    pub token: String,
    /// What it may do.
    pub role: Role,
}

/// What can be wrong with an account.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccountError {
    /// Name or password is wrong; which of the two is not told.
    #[error("name or password is wrong")]
    Wrong,
    /// The invitation was used, is too old, or never was.
    #[error(
        "this link was used already or is older than a day: ask for another (callosity ground --invite administrator)"
    )]
    NoInvitation,
    /// A short password.
    #[error("password: it needs at least {SHORTEST_PASSWORD} characters")]
    ShortPassword,
    /// A long password.
    #[error("password: it has more than 1000 bytes")]
    LongPassword,
    /// A name that is none.
    #[error("name: it needs 1 to 100 characters")]
    Name,
    /// Somebody has this name.
    #[error("name: somebody has the name {0:?} already")]
    Taken(String),
    /// There is no such account.
    #[error("there is no account {0:?}")]
    NoAccount(String),
    /// Nobody could make accounts any more.
    #[error("this is the last administrator: nobody could invite others any more")]
    LastAdministrator,
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AccountError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

const SHORTEST_PASSWORD: usize = 10;

/// A session ends after this time without a request, as it is renewed with requests.
const SESSION: Duration = Duration::from_secs(14 * 24 * 3600);

/// An invitation that nobody used ends after this time.
const INVITATION: Duration = Duration::from_secs(24 * 3600);

/// 256 random bits.
fn token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

fn expires_after(time: Duration) -> i64 {
    milliseconds(jiff::Timestamp::now()) + i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Hashing takes 19 MiB and some hundredths of a second, so it is done beside.
async fn hashing<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(StoreError::Content(format!("a password: {e}"))),
        Err(e) => Err(StoreError::Content(format!("a password: {e}"))),
    }
}

async fn hashed(password: String) -> Result<String, StoreError> {
    hashing(move || {
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string()).map_err(|e| e.to_string())
    })
    .await
}

async fn is_right(password: String, stored: String) -> Result<bool, StoreError> {
    hashing(move || {
        let stored = PasswordHash::new(&stored).map_err(|e| e.to_string())?;
        let argon2 = Argon2::default();
        Ok(argon2.verify_password(password.as_bytes(), &stored).is_ok())
    })
    .await
}

impl Store {
    /// All accounts, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT name, role FROM accounts ORDER BY folded")
                .fetch_all(&self.readers)
                .await?;
        let accounts = rows.into_iter().map(|(name, role)| {
            Ok(Account {
                name,
                role: Role::of_word(&role)?,
            })
        });
        accounts.collect()
    }

    /// Makes a link by which somebody gets an account.
    ///
    /// # Errors
    /// The database fails.
    pub async fn invite(&self, role: Role) -> Result<Invitation, StoreError> {
        let token = token();
        sqlx::query("DELETE FROM invitations WHERE expires < $1")
            .bind(expires_after(Duration::ZERO))
            .execute(&self.writer)
            .await?;
        sqlx::query("INSERT INTO invitations (token, role, expires) VALUES ($1, $2, $3)")
            .bind(hash(&token))
            .bind(role.word())
            .bind(expires_after(INVITATION))
            .execute(&self.writer)
            .await?;
        Ok(Invitation { token, role })
    }

    /// Makes the account that an invitation is for, and begins its first session.
    ///
    /// # Errors
    /// The invitation is no longer good, name or password will not do, or the database fails. Only success uses the
    /// invitation.
    pub async fn accept(
        &self,
        invitation: &str,
        name: &str,
        password: String,
    ) -> Result<Session, AccountError> {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if name.is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
            return Err(AccountError::Name);
        }
        if password.chars().count() < SHORTEST_PASSWORD {
            return Err(AccountError::ShortPassword);
        }
        if password.len() > 1000 {
            return Err(AccountError::LongPassword);
        }
        // Whoever has no invitation must not have us hash.
        if self.invited_as(invitation).await?.is_none() {
            return Err(AccountError::NoInvitation);
        }
        let password = hashed(password).await?;
        let mut writing = self.writer.begin().await?;
        let used: Option<(String,)> = sqlx::query_as(
            "DELETE FROM invitations WHERE token = $1 AND expires >= $2 RETURNING role",
        )
        .bind(hash(invitation))
        .bind(expires_after(Duration::ZERO))
        .fetch_optional(&mut *writing)
        .await?;
        let (role,) = used.ok_or(AccountError::NoInvitation)?;
        let role = Role::of_word(&role)?;
        let inserted = sqlx::query(
            "INSERT INTO accounts (folded, name, role, password, created) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
        )
        .bind(folded(&name))
        .bind(&name)
        .bind(role.word())
        .bind(password)
        .bind(expires_after(Duration::ZERO))
        .execute(&mut *writing)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(AccountError::Taken(name));
        }
        writing.commit().await?;
        self.begin(Account { name, role }).await
    }

    /// Which role an invitation gives, where it is good.
    ///
    /// # Errors
    /// The database fails.
    pub async fn invited_as(&self, invitation: &str) -> Result<Option<Role>, StoreError> {
        let found: Option<(String,)> =
            sqlx::query_as("SELECT role FROM invitations WHERE token = $1 AND expires >= $2")
                .bind(hash(invitation))
                .bind(expires_after(Duration::ZERO))
                .fetch_optional(&self.readers)
                .await?;
        found.map(|(role,)| Role::of_word(&role)).transpose()
    }

    /// Begins a session of whoever knows the password.
    ///
    /// # Errors
    /// Name or password is wrong, or the database fails.
    pub async fn log_in(&self, name: &str, password: String) -> Result<Session, AccountError> {
        let found: Option<(String, String, String)> =
            sqlx::query_as("SELECT name, role, password FROM accounts WHERE folded = $1")
                .bind(folded(name))
                .fetch_optional(&self.readers)
                .await?;
        if password.len() > 1000 {
            return Err(AccountError::Wrong);
        }
        let Some((name, role, stored)) = found else {
            // As long as for a name that there is, so that names cannot be guessed by the time.
            hashed(password).await?;
            return Err(AccountError::Wrong);
        };
        if !is_right(password, stored).await? {
            return Err(AccountError::Wrong);
        }
        let role = Role::of_word(&role)?;
        self.begin(Account { name, role }).await
    }

    async fn begin(&self, account: Account) -> Result<Session, AccountError> {
        let token = token();
        sqlx::query("DELETE FROM sessions WHERE expires < $1")
            .bind(expires_after(Duration::ZERO))
            .execute(&self.writer)
            .await?;
        sqlx::query("INSERT INTO sessions (token, account, expires) VALUES ($1, $2, $3)")
            .bind(hash(&token))
            .bind(folded(&account.name))
            .bind(expires_after(SESSION))
            .execute(&self.writer)
            .await?;
        Ok(Session { token, account })
    }

    /// Whose session this is, if it is one. It is renewed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn session(&self, token: &str) -> Result<Option<Account>, StoreError> {
        let found: Option<(String, String, i64)> = sqlx::query_as(
            "SELECT accounts.name, accounts.role, sessions.expires FROM sessions \
             JOIN accounts ON accounts.folded = sessions.account \
             WHERE sessions.token = $1 AND sessions.expires >= $2",
        )
        .bind(hash(token))
        .bind(expires_after(Duration::ZERO))
        .fetch_optional(&self.readers)
        .await?;
        let Some((name, role, expires)) = found else {
            return Ok(None);
        };
        let renewed = expires_after(SESSION);
        if renewed - expires > 3_600_000 {
            sqlx::query("UPDATE sessions SET expires = $1 WHERE token = $2")
                .bind(renewed)
                .bind(hash(token))
                .execute(&self.writer)
                .await?;
        }
        let role = Role::of_word(&role)?;
        Ok(Some(Account { name, role }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database fails.
    pub async fn log_out(&self, token: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE token = $1")
            .bind(hash(token))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Removes an account with its sessions. What the person decided stays.
    ///
    /// # Errors
    /// There is no such account, it is the last administrator's, or the database fails.
    pub async fn remove_account(&self, name: &str) -> Result<(), AccountError> {
        let mut writing = self.writer.begin().await?;
        let removed = sqlx::query("DELETE FROM accounts WHERE folded = $1")
            .bind(folded(name))
            .execute(&mut *writing)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(AccountError::NoAccount(name.to_owned()));
        }
        sqlx::query("DELETE FROM sessions WHERE account = $1")
            .bind(folded(name))
            .execute(&mut *writing)
            .await?;
        let (administrators,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM accounts WHERE role = 'administrator'")
                .fetch_one(&mut *writing)
                .await?;
        if administrators == 0 {
            return Err(AccountError::LastAdministrator);
        }
        writing.commit().await?;
        Ok(())
    }
}
