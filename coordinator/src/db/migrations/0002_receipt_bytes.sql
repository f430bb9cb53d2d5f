-- How many content bytes each assignment keeps: packs are made first from what most bytes are held of.
ALTER TABLE receipts ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
