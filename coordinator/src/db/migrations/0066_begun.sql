-- The run of each assignment that fetches or changes, until its report is here.
CREATE TABLE begun (
    tree    TEXT   NOT NULL,
    site    TEXT   NOT NULL,
    started BIGINT NOT NULL,
    PRIMARY KEY (tree, site)
);
