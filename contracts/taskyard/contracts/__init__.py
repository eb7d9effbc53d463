"""What Taskyard's services say to one another and to the outside: values, kinds, commands, events, agent protocol,
the life of a task, and the table of subjects and streams. The ground floor: it imports nothing of ours and does no I/O.
"""
