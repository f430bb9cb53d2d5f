-- The newest mandate of each assignment, as a definitions key signed it.
CREATE TABLE mandates (
    assignment TEXT   NOT NULL PRIMARY KEY,
    number     BIGINT NOT NULL,
    mandate    TEXT   NOT NULL
);
