-- Of the tasks that ended last and had started. Times are in microseconds.
SELECT count(*) AS tasks,
    avg(waited)::float8 AS waited_mean,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) AS waited,
    avg(ran)::float8 AS ran_mean,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ran) AS ran
FROM (
    SELECT started_at - submitted_at AS waited, finished_at - started_at AS ran
    FROM taskyard.tasks
    WHERE coalesce(finished_at, 9223372036854775807) < 9223372036854775807 AND started_at IS NOT NULL
    ORDER BY coalesce(finished_at, 9223372036854775807) DESC, submitted DESC
    LIMIT $1
) AS latest
