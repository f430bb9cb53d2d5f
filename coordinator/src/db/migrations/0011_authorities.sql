-- Which root issued a certificate, and which roots its holder was given with it; NULL for those that
-- were issued before this was noted.
ALTER TABLE certificates ADD COLUMN issuer TEXT;
ALTER TABLE certificates ADD COLUMN bundle TEXT;
