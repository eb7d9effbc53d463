-- The read model, folded from the log. Everything here can be dropped and made again from it.
-- Instants are microseconds since the Unix epoch, UTC. Positions name one event: sequence of its commit << 10 | index.
-- Texts that are called JSON in a comment hold what agents and people wrote: `jsonb` would refuse some of it.

CREATE TABLE log_position (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence bigint NOT NULL,  -- of the last commit folded
    hash text NOT NULL,        -- of that commit
    log_time bigint NOT NULL,
    generation text NOT NULL DEFAULT gen_random_uuid()::text  -- of these rows: another after each rebuild
);
INSERT INTO log_position (sequence, hash, log_time) VALUES (0, '', 0);

CREATE TABLE tasks (
    id text COLLATE "C" PRIMARY KEY,
    submitted bigint NOT NULL UNIQUE,  -- position of TaskSubmitted: the order of submission
    kind text NOT NULL,
    pool text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    exclusive boolean NOT NULL,
    submitted_by text NOT NULL,
    submitted_at bigint NOT NULL,
    retry_of text,
    labels jsonb NOT NULL,
    priority smallint NOT NULL,
    phase text NOT NULL,
    status text NOT NULL,
    due bigint NOT NULL,
    attempt integer NOT NULL,
    worker text COLLATE "C",
    slot integer,
    confirmed boolean NOT NULL,
    holds_slot boolean NOT NULL,       -- slot `slot` of `worker` is this task's now, running or reserved
    progress smallint NOT NULL,
    scheduled_at bigint,
    started_at bigint,
    finished_at bigint,
    error text,                        -- JSON
    result text,                       -- JSON
    changes text,                      -- JSON, of the plan that is shown
    position bigint NOT NULL,          -- of the last event that concerned the task while it lived
    record text                        -- JSON of the folded record, without its input; null once the task has ended
);
CREATE INDEX tasks_status ON tasks (status, submitted);
CREATE INDEX tasks_queue ON tasks (queue, submitted);
CREATE INDEX tasks_worker ON tasks (worker, submitted) WHERE worker IS NOT NULL;
CREATE INDEX tasks_submitted_by ON tasks (submitted_by, submitted);
CREATE INDEX tasks_priority ON tasks (priority, submitted);
CREATE INDEX tasks_finished ON tasks (coalesce(finished_at, 9223372036854775807), submitted);
CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops) WHERE labels <> '{}';
CREATE INDEX tasks_live ON tasks (submitted) WHERE finished_at IS NULL;
CREATE INDEX tasks_on_worker ON tasks (worker, slot) WHERE holds_slot;
CREATE INDEX tasks_waiting ON tasks (pool, queue, priority, submitted) INCLUDE (due)
    WHERE phase IN ('pending', 'scheduled') AND NOT confirmed;
CREATE INDEX tasks_workspace ON tasks (pool, queue)
    WHERE exclusive AND scheduled_at IS NOT NULL AND finished_at IS NULL;

CREATE TABLE attempts (
    task text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    worker text NOT NULL,
    slot integer NOT NULL,
    assigned_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    outcome text,
    PRIMARY KEY (task, attempt)
);

CREATE TABLE history (
    task text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    at bigint NOT NULL,
    writer text NOT NULL,
    type text NOT NULL,
    by text,
    void boolean NOT NULL,
    event text NOT NULL,       -- JSON, as it stands in the log
    PRIMARY KEY (task, position)
);

CREATE TABLE queues (
    pool text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    max_running bigint,
    paused_by text,
    paused_reason text,
    paused_at bigint,
    locked_by text,
    locked_reason text,
    locked_at bigint,
    pending bigint NOT NULL,   -- live tasks by where they stand; together they are all live tasks of the queue
    scheduled bigint NOT NULL,
    active bigint NOT NULL,
    PRIMARY KEY (pool, queue)
);

CREATE TABLE pools (
    pool text COLLATE "C" PRIMARY KEY,
    max_waiting bigint,
    approval_timeout_seconds double precision,
    placement text,
    paused_by text,
    paused_reason text,
    paused_at bigint
);

CREATE TABLE workers (
    worker text COLLATE "C" PRIMARY KEY,
    pool text NOT NULL,
    incarnation bigint NOT NULL,
    suspect boolean NOT NULL,
    draining boolean NOT NULL,
    lost boolean NOT NULL,
    reason text NOT NULL,      -- of the last change
    changed_at bigint NOT NULL,
    labels text NOT NULL,      -- JSON
    slots text NOT NULL,       -- JSON: per slot the list of what it accepts
    kinds text NOT NULL        -- JSON
);

CREATE TABLE rejections (
    position bigint PRIMARY KEY,
    at bigint NOT NULL,
    by text NOT NULL,
    pool text NOT NULL,
    verb text NOT NULL,
    command text NOT NULL,
    task text,
    status integer NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    errors text NOT NULL       -- JSON
);
CREATE INDEX rejections_by ON rejections (by, position);

CREATE TABLE counts (
    kind text NOT NULL,
    status text NOT NULL,
    tasks bigint NOT NULL,
    PRIMARY KEY (kind, status)
);
