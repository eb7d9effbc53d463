"""A real nats-server, and an agent as a process of its own."""

from agent_harness import harness, server

__all__ = ["harness", "server"]
