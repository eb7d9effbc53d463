"""Stands for what makes the streams, of which fake services need none."""
