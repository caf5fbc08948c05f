"""A `Writer` from settings: the one place that decides between a workspace model and an endpoint."""

from __future__ import annotations

import os

from llmctl.endpoint.client import Endpoint
from llmctl.endpoint.config import EndpointSettings
from llmctl.endpoint.writer import Writer
from llmctl.errors import UserError
from llmctl.workspace import Workspace


def open_writer(workspace: Workspace, model: str, endpoint: EndpointSettings, what: str = "a model") -> Writer:
    """The workspace model (or folder) called `model`, or else the endpoint. UserError where neither is given.

    `what` names the part that is to be filled, for the error. Torch is imported only for a model of the workspace.
    """
    if model:
        from llmctl.endpoint.local import LocalWriter

        return LocalWriter.load(workspace, model)
    if not endpoint.url:
        raise UserError(f"{what} is needed", fix="name a model, or set endpoint.url and endpoint.model")
    return Endpoint(
        endpoint.url,
        endpoint.model,
        os.environ.get(endpoint.key_env, "").strip() if endpoint.key_env else "",
        concurrency=endpoint.concurrency,
        timeout=endpoint.timeout,
        attempts=endpoint.attempts,
        extra=endpoint.extra,
    )
