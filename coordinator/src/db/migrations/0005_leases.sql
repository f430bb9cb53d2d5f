-- Connections that agents may have to upstreams that allow only so many.
CREATE TABLE leases (
    id       TEXT   NOT NULL PRIMARY KEY,
    upstream TEXT   NOT NULL,
    agent    TEXT   NOT NULL,
    until    BIGINT NOT NULL
);

CREATE INDEX leases_by_upstream ON leases (upstream, until);
