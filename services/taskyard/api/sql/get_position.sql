SELECT sequence, hash FROM taskyard.log_position
