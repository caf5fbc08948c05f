"""Artifacts on disk: found by name, made whole or not at all, with a manifest that says how."""

from llmctl.workspace.artifact import KINDS, Artifact, Foreign
from llmctl.workspace.build import Build
from llmctl.workspace.store import Workspace

__all__ = ["KINDS", "Artifact", "Build", "Foreign", "Workspace"]
