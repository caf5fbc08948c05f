"""The misbehaving server as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_endpoint import FakeEndpoint


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setattr("llmctl.endpoint.client._BACKOFF", 0.01)
    made = FakeEndpoint()
    yield made
    made.close()
