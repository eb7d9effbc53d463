"""The command line `taskyard`: submits, shows and follows tasks, commands queues, pools and workers, checks the log.

Everything about tasks goes over HTTP and needs nothing but an address and a token; `log` and `rebuild` read the log
and the read model themselves and need the settings of the services; `dev` and `bench` start other programs.

Tables are for people; with `--json` standard output holds JSON and nothing else. What goes wrong is one line on
standard error, and the exit status tells which sort it was (`errors.py`). A command that changes something bears an id,
so one that got no answer is sent again without being done twice.
"""
