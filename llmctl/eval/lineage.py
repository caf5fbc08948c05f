"""What a model was made of, by the manifests: the data it may be measured on, and the runs whose curves are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llmctl.errors import UserError
from llmctl.workspace import Artifact, Workspace


@dataclass
class Lineage:
    """Artifacts, nearest first, each once; and what is no longer there as it was."""

    artifacts: list[Artifact] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Artifact]:
        """Those of one kind."""
        return [a for a in self.artifacts if a.kind == kind]


def lineage(workspace: Workspace, starts: Iterable[Artifact]) -> Lineage:
    """`starts` and everything they were made of, as far as it is still in the workspace.

    An input that was made again since, with other contents, is not an ancestor: what is held out in it now may have
    been trained on then.
    """
    found = Lineage()
    queue = list(starts)
    seen: set[tuple[str, str]] = set()
    while queue:
        artifact = queue.pop(0)
        if (artifact.kind, artifact.name) in seen:
            continue
        seen.add((artifact.kind, artifact.name))
        found.artifacts.append(artifact)
        for made_of in artifact.manifest.get("inputs") or []:
            parent = _find(workspace, made_of)
            if isinstance(parent, Artifact):
                queue.append(parent)
            elif parent and parent not in found.lost:
                found.lost.append(parent)
    return found


def _find(workspace: Workspace, reference: dict[str, str]) -> Artifact | str:
    """The artifact that a manifest names; or why there is none ("" for files, which have no lineage)."""
    kind, name = reference.get("kind", ""), reference.get("name", "")
    if kind in ("file", "hub"):
        return ""
    try:
        found = workspace.find(name, [kind])
    except UserError:
        return f"{kind} {name!r} is gone"
    return found if found.digest == reference.get("digest") else f"{kind} {name!r} was made again since"
