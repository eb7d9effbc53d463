SELECT kind, status, tasks FROM taskyard.counts WHERE tasks > 0 ORDER BY kind, status
