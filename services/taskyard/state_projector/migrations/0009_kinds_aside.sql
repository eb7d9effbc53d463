-- Kinds, and tasks whose applies, for which finding slots raised: JSON, each with the reason.
ALTER TABLE pools ADD COLUMN aside text NOT NULL DEFAULT '{}';
