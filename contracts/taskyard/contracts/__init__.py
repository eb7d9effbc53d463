"""What Taskyard's services say to one another and to the outside: values, kinds, commands, events, agent protocol, and the
table of subjects and streams; and the folds of the log that they share: the life of a task, live tasks, workers, settings of
pools and queues. The ground floor: it imports nothing of ours and does no I/O.
"""
