-- When this database was restored from a backup; 1970 where it never was.
INSERT INTO counters (name, value) VALUES ('restored', 0);
