"""The fixtures of the dialogues."""

from tests.listener.dialogue import perform, serve, way

__all__ = ["perform", "serve", "way"]
