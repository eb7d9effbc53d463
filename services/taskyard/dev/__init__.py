"""The whole system on one machine, in the foreground: `taskyard dev`.

Owns: one folder with everything that the system keeps (`layout`), the programs that run on it (`supervisor`), and the
order in which they start and stop (`app`): nats-server and PostgreSQL, then the services, then the workers; and back.

A program that ends is started again. Programs are not tied to the life of this one: when it is killed they go on, as
services and workers of separate machines would, and the next start on the folder stops what was left before it begins.
So there is never more than one of each on a folder: a lock on it and recorded identities of processes hold that.
"""
