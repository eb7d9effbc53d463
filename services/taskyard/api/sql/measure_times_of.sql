-- As `measure_times`, of one submitter. $1 so many tasks, which ended, of the $3 that $2 submitted last: however many
-- still wait, only so many are looked at. Times are in microseconds.
SELECT count(*) AS tasks,
    avg(waited)::float8 AS waited_mean,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) AS waited,
    avg(ran)::float8 AS ran_mean,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ran) AS ran
FROM (
    SELECT started_at - submitted_at AS waited, finished_at - started_at AS ran
    FROM (
        SELECT submitted, submitted_at, started_at, finished_at
        FROM taskyard.tasks
        WHERE submitted_by = $2
        ORDER BY submitted DESC
        LIMIT $3
    ) AS own
    WHERE finished_at IS NOT NULL AND started_at IS NOT NULL
    ORDER BY finished_at DESC, submitted DESC
    LIMIT $1
) AS latest
