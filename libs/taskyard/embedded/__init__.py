"""Servers and tools that Taskyard brings along: a real nats-server, a real PostgreSQL, and Terraform.

`taskyard dev`, the tests and the measuring commands run on them, so nothing has to be installed beside Python packages:

- `nats_server.NatsServer`: credentials and a JetStream store kept in one folder; `nats_configuration` has the accounts.
- `nats_cluster.NatsCluster`: three of them that keep every stream three times.
- `postgres.Postgres`: a database cluster kept in one folder, reachable through a Unix socket only.
- `terraform.find_terraform`: the argument vector that runs Terraform on this machine.
- `processes`: starting and stopping programs, and telling a process from a later one with the same pid.

Importing this package imports none of them.
"""
