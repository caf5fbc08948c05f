"""Fixtures of the training tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from train_tiny import MadeUp

from llmctl.workspace import Build, Workspace


@pytest.fixture
def build(workspace: Workspace) -> Callable[[], AbstractContextManager[Build]]:
    """Begins, or takes up again, one artifact."""
    return lambda: workspace.build(MadeUp())
