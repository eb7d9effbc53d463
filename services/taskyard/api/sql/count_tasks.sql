SELECT kind, status, tasks FROM taskyard.counts ORDER BY kind, status
