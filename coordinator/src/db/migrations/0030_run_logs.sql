-- The logs of a few runs of each assignment, as they came with the reports.
CREATE TABLE run_logs (
    run    TEXT   NOT NULL PRIMARY KEY,
    tree   TEXT   NOT NULL,
    site   TEXT   NOT NULL,
    result TEXT   NOT NULL,
    ended  BIGINT NOT NULL,
    log    TEXT   NOT NULL
);

CREATE INDEX run_logs_by_assignment ON run_logs (tree, site, ended);
