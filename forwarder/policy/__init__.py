"""Decisions without I/O: limits, content that cannot be relayed, what the sender is told."""
