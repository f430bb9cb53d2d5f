-- The configuration of another system, as it was when definitions were made of it.
CREATE TABLE imported (
    system   TEXT   NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    document TEXT   NOT NULL
);
