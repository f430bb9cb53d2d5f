-- An invite that wants an admin to approve the keys of whoever uses it: when it was asked with which
-- keys, and who approved them.
ALTER TABLE invites ADD COLUMN approve BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE invites ADD COLUMN asked BIGINT;
ALTER TABLE invites ADD COLUMN asking TEXT;
ALTER TABLE invites ADD COLUMN approved_by TEXT;

-- The status looks for alarms among the newest entries.
CREATE INDEX audit_by_time ON audit (at);
