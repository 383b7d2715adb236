-- For SQLite and PostgreSQL alike: times are milliseconds since 1970 (UTC), ids and messages are texts, and BLOB is the
-- only word that PostgreSQL spells otherwise.

-- Every message on a sighting, as it came.
CREATE TABLE sighting_revisions (
    occurrence_id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    received BIGINT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (occurrence_id, revision)
);

-- Each sighting as its newest revision has it, with the decision that stands; both follow from other tables.
CREATE TABLE sightings (
    occurrence_id TEXT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    platform TEXT NOT NULL,
    event_id TEXT,
    camera TEXT,
    event_date BIGINT NOT NULL,
    state TEXT NOT NULL,
    frames_seen BIGINT,
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    uncertainty_meters DOUBLE PRECISION,
    proposal TEXT NOT NULL,
    first_candidate TEXT,
    first_probability DOUBLE PRECISION,
    unknown_probability DOUBLE PRECISION,
    provisional_id TEXT,
    doubt DOUBLE PRECISION NOT NULL,
    crop TEXT,
    decisions BIGINT NOT NULL DEFAULT 0,
    verdict TEXT,
    animal TEXT,
    possible BIGINT,
    decided_by TEXT,
    decided BIGINT
);
CREATE INDEX sightings_by_time ON sightings (event_date);
CREATE INDEX sightings_by_doubt ON sightings (verdict, doubt, event_date);
CREATE INDEX sightings_by_animal ON sightings (animal, event_date);
CREATE INDEX sightings_by_candidate ON sightings (first_candidate, event_date);
CREATE INDEX sightings_by_person ON sightings (decided_by, decided);
CREATE INDEX sightings_by_flight ON sightings (event_id, event_date);
CREATE INDEX sightings_by_place ON sightings (latitude, longitude, event_date);

-- Pictures of heads; the files are named by their SHA-256.
CREATE TABLE crops (
    occurrence_id TEXT NOT NULL,
    picture TEXT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (occurrence_id, picture)
);

-- What persons decided on sightings, one after the other; nothing is ever changed here.
CREATE TABLE decisions (
    occurrence_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    animal TEXT,
    possible BIGINT NOT NULL,
    note TEXT,
    person TEXT NOT NULL,
    made BIGINT NOT NULL,
    PRIMARY KEY (occurrence_id, number)
);

-- Names of animals, by the name with case and spaces folded.
CREATE TABLE animals (
    folded TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    provisional BIGINT NOT NULL,
    since BIGINT NOT NULL
);

-- Each aircraft as it was heard last.
CREATE TABLE aircraft (
    platform TEXT NOT NULL PRIMARY KEY,
    heard BIGINT,
    status TEXT,
    health TEXT,
    track TEXT,
    track_time BIGINT,
    effort TEXT,
    effort_time BIGINT
);

CREATE TABLE tracks (
    event_id TEXT NOT NULL,
    time BIGINT NOT NULL,
    platform TEXT NOT NULL,
    latitude DOUBLE PRECISION NOT NULL,
    longitude DOUBLE PRECISION NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (event_id, time)
);
CREATE INDEX tracks_by_time ON tracks (time);

CREATE TABLE efforts (
    event_id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    platform TEXT NOT NULL,
    time BIGINT NOT NULL,
    received BIGINT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (event_id, revision)
);

-- Messages that make no sense, by the SHA-256 of topic and payload.
CREATE TABLE set_aside (
    digest TEXT NOT NULL PRIMARY KEY,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    content_type TEXT,
    payload BLOB NOT NULL,
    received BIGINT NOT NULL
);
CREATE INDEX set_aside_by_time ON set_aside (received);

-- Who may use the page. Secrets are stored hashed: passwords with Argon2, tokens with SHA-256.
CREATE TABLE accounts (
    folded TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    password TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE sessions (
    token TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE TABLE invitations (
    token TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    expires BIGINT NOT NULL
);
