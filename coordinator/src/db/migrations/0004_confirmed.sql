-- When a certificate was first seen to work: until then the one before it is as good.
ALTER TABLE certificates ADD COLUMN confirmed BIGINT;
UPDATE certificates SET confirmed = issued;
