"""The fixtures of the dialogues."""

from tests.listener.dialogue import serve, way

__all__ = ["serve", "way"]
