"""Asking a model for text, wherever it runs: a workspace model in this process, or an OpenAI-compatible endpoint."""

from llmctl.endpoint.client import Endpoint
from llmctl.endpoint.config import EndpointSettings
from llmctl.endpoint.opened import open_writer
from llmctl.endpoint.writer import ChatSampling, Conversation, Reply, Writer

__all__ = ["ChatSampling", "Conversation", "Endpoint", "EndpointSettings", "Reply", "Writer", "open_writer"]
