-- To have a queue to itself and to ask for approval are two things, of which rows need the first.
ALTER TABLE tasks RENAME COLUMN exclusive TO locks_queue;
