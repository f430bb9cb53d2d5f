-- Portable: TEXT, BIGINT and BOOLEAN only; times are microseconds since 1970; documents are JSON in TEXT.

CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES
    ('revision', 1), ('head', 1), ('restore-epoch', 1), ('audit', 0), ('looked-at', 0), ('head-renewed', 0);

-- The revision that last concerned a topic: agent/NAME, publisher/NAME, tree/NAME, part/NAME.
CREATE TABLE topics (
    name     TEXT   NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL
);

CREATE TABLE identities (
    role        TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    site        TEXT,
    signing_key TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    revoked     BIGINT,
    reason      TEXT   NOT NULL,
    advertise   TEXT,
    version     TEXT,
    rsync       TEXT,
    last_seen   BIGINT,
    PRIMARY KEY (role, name)
);

CREATE TABLE certificates (
    serial     TEXT   NOT NULL PRIMARY KEY,
    role       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    issued     BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    superseded BIGINT,
    revoked    BIGINT,
    request    TEXT   NOT NULL,
    answer     TEXT   NOT NULL
);
CREATE INDEX certificates_of_identity ON certificates (role, name);

CREATE TABLE invites (
    id       TEXT    NOT NULL PRIMARY KEY,
    verifier TEXT    NOT NULL,
    role     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    site     TEXT,
    replaces BOOLEAN NOT NULL,
    made_by  TEXT    NOT NULL,
    expires  BIGINT  NOT NULL,
    consumed BIGINT,
    request  TEXT,
    answer   TEXT
);

CREATE TABLE definitions (
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    spec     TEXT   NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- How often an admin asked for a run (kind sync, TREE@SITE) or a scan (kind publish, TREE).
CREATE TABLE requests (
    kind  TEXT   NOT NULL,
    name  TEXT   NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE generations (
    tree              TEXT   NOT NULL,
    epoch             BIGINT NOT NULL,
    generation        BIGINT NOT NULL,
    manifest          TEXT   NOT NULL,
    parent_generation BIGINT,
    parent_manifest   TEXT,
    entries           BIGINT NOT NULL,
    bytes             BIGINT NOT NULL,
    publisher         TEXT   NOT NULL,
    created           BIGINT NOT NULL,
    accepted          BIGINT NOT NULL,
    statement         TEXT   NOT NULL,
    PRIMARY KEY (tree, epoch, generation)
);

CREATE TABLE offers (
    digest        TEXT   NOT NULL PRIMARY KEY,
    tree          TEXT   NOT NULL,
    from_manifest TEXT,
    to_manifest   TEXT   NOT NULL,
    length        BIGINT NOT NULL,
    accepted      BIGINT NOT NULL,
    offer         TEXT   NOT NULL
);
CREATE INDEX offers_by_target ON offers (tree, to_manifest);

CREATE TABLE holds (
    tree          TEXT   NOT NULL,
    manifest      TEXT   NOT NULL,
    publisher     TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    removed_files BIGINT NOT NULL,
    removed_bytes BIGINT NOT NULL,
    since         BIGINT NOT NULL,
    decision      TEXT,
    decided_by    TEXT,
    decided       BIGINT,
    PRIMARY KEY (tree, manifest)
);

-- `kind` is open: further kinds of run need no change here.
CREATE TABLE runs (
    id         TEXT   NOT NULL PRIMARY KEY,
    agent      TEXT   NOT NULL,
    tree       TEXT   NOT NULL,
    site       TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    result     TEXT   NOT NULL,
    started    BIGINT NOT NULL,
    ended      BIGINT NOT NULL,
    received   BIGINT NOT NULL,
    report     TEXT   NOT NULL
);
CREATE INDEX runs_by_time ON runs (received, id);
CREATE INDEX runs_of_assignment ON runs (tree, site, received);

-- The newest of each assignment, so that a status needs no search through all runs.
CREATE TABLE outcomes (
    tree         TEXT   NOT NULL,
    site         TEXT   NOT NULL,
    last_result  TEXT   NOT NULL,
    last_run     BIGINT NOT NULL,
    last_success BIGINT,
    error        TEXT   NOT NULL,
    PRIMARY KEY (tree, site)
);

CREATE TABLE receipts (
    tree       TEXT    NOT NULL,
    site       TEXT    NOT NULL,
    agent      TEXT    NOT NULL,
    epoch      BIGINT  NOT NULL,
    generation BIGINT  NOT NULL,
    manifest   TEXT    NOT NULL,
    observed   BOOLEAN NOT NULL,
    applied    BIGINT  NOT NULL,
    receipt    TEXT    NOT NULL,
    PRIMARY KEY (tree, site)
);

-- Who did what. Each entry holds the digest of the one before, so that none can be taken out unseen.
CREATE TABLE audit (
    number   BIGINT NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    who      TEXT   NOT NULL,
    what     TEXT   NOT NULL,
    target   TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    previous TEXT   NOT NULL,
    digest   TEXT   NOT NULL
);
