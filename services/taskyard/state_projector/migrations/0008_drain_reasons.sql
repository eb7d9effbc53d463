-- A worker that was suspect and recovers is still drained for what was said then. Of those that were drained before this
-- column came it is not known; a rebuild tells it.
ALTER TABLE workers ADD COLUMN drain_reason text NOT NULL DEFAULT '';
