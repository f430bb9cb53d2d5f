-- What the keys of a private tree are drawn from. Made when the first key is asked for, and never changed.
CREATE TABLE tree_secrets (
    tree   TEXT   NOT NULL PRIMARY KEY,
    made   BIGINT NOT NULL,
    secret TEXT   NOT NULL
);
