"""A real nats-server, and a dispatcher that speaks the protocol of agents to the agent under test."""

from agent_harness import harness, server

__all__ = ["harness", "server"]
