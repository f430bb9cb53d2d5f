-- Who may sign what: the signed root documents, none of which is ever changed.
CREATE TABLE roots (
    number   BIGINT NOT NULL PRIMARY KEY,
    accepted BIGINT NOT NULL,
    root     TEXT   NOT NULL
);

-- Trees that a publisher may sign for, as JSON; all of them where there is none.
ALTER TABLE invites ADD COLUMN trees TEXT;
ALTER TABLE identities ADD COLUMN trees TEXT;
