-- What admins want back from the trash of an assignment, until its agent has reported.
CREATE TABLE undeletes (
    id         TEXT   NOT NULL PRIMARY KEY,
    assignment TEXT   NOT NULL,
    request    TEXT   NOT NULL,
    asked      BIGINT NOT NULL
);

CREATE INDEX undeletes_by_assignment ON undeletes (assignment, asked);
