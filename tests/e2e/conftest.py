"""Worlds for the end-to-end tests. What cannot run here is skipped, with the reason."""

from collections.abc import Iterator

import pytest

from tests.lab import postfix
from tests.lab.world import World, loopback_world, namespace_refusal, namespace_world


@pytest.fixture
def loopback() -> Iterator[World]:
    """Give a world that needs no rights."""
    with loopback_world() as world:
        yield world


@pytest.fixture
def namespace() -> Iterator[World]:
    """Give a world in a network namespace."""
    if reason := namespace_refusal():
        pytest.skip(reason)
    with namespace_world() as world:
        yield world


@pytest.fixture(scope="session")
def _postfix_is_here() -> None:
    if reason := postfix.why_not():
        pytest.skip(reason)


@pytest.fixture
def postfix_world(_postfix_is_here: None, namespace: World) -> World:
    """Give a world in which Postfix can run."""
    return namespace
