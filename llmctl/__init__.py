"""llmctl: from raw web pages to a chat model you trained yourself, one command a lifecycle stage."""

__version__ = "0.1.0"
