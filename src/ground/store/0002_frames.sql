-- The frame that shows a sighting best, from the aircraft's archive; of which revision it is,
-- and how many heads are in it.
CREATE TABLE frames (
    occurrence_id TEXT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    picture TEXT NOT NULL,
    heads BIGINT NOT NULL
);
