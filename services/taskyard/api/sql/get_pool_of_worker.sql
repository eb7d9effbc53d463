SELECT pool FROM taskyard.workers WHERE worker = $1
