SELECT sequence FROM taskyard.log_position
