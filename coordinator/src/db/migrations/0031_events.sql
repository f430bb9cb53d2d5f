-- What happened, and what is still to be told of it.
CREATE TABLE events (
    number  BIGINT NOT NULL PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    body    TEXT   NOT NULL
);

-- What goes wrong at present: each was told once, and its end will be.
CREATE TABLE troubles (
    kind    TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    since   BIGINT NOT NULL,
    PRIMARY KEY (kind, subject)
);

CREATE TABLE deliveries (
    webhook TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    subject TEXT   NOT NULL,
    tries   BIGINT NOT NULL,
    due     BIGINT NOT NULL,
    error   TEXT   NOT NULL,
    PRIMARY KEY (webhook, number)
);

CREATE INDEX deliveries_by_subject ON deliveries (webhook, subject, number);
