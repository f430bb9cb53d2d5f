-- What a held scan would change besides what it removes, as JSON; and the site whose agent holds it,
-- empty where it is the tree's publisher.
CREATE TABLE holds_2 (
    tree          TEXT   NOT NULL,
    manifest      TEXT   NOT NULL,
    site          TEXT   NOT NULL,
    publisher     TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    removed_files BIGINT NOT NULL,
    removed_bytes BIGINT NOT NULL,
    since         BIGINT NOT NULL,
    details       TEXT,
    decision      TEXT,
    decided_by    TEXT,
    decided       BIGINT,
    PRIMARY KEY (tree, manifest, site)
);

INSERT INTO holds_2 (tree, manifest, site, publisher, reason, removed_files, removed_bytes, since,
    decision, decided_by, decided)
SELECT tree, manifest, '', publisher, reason, removed_files, removed_bytes, since,
    decision, decided_by, decided FROM holds;

DROP TABLE holds;

ALTER TABLE holds_2 RENAME TO holds;
