-- An incarnation is a text without order; those of the first logs are numbers.
ALTER TABLE workers
    ALTER COLUMN incarnation TYPE text USING incarnation::text,
    ADD COLUMN joined_at bigint NOT NULL DEFAULT 0,
    ADD COLUMN place text NOT NULL DEFAULT '',
    ADD COLUMN replaced text NOT NULL DEFAULT '[]',
    ADD COLUMN closing text NOT NULL DEFAULT '{}';
