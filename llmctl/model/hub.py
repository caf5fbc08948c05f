"""Models on the Hugging Face hub by name: `hf:org/name`, or `hf:org/name@revision`.

What is downloaded lands in the hub's own cache, so nothing is fetched twice, and what is there is used offline. The
usual variables hold: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`. Pickled weights are never downloaded.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from llmctl.errors import UserError

PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?\Z")
_TOKENIZER = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
# By their whole names: some repositories hold the weights a second time, in another layout.
_WEIGHTS = ("generation_config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")


def local(path: str | Path, weights: bool = True) -> Path:
    """`path` as it is or, if it is a name on the hub, the folder it was downloaded to."""
    return fetch_model(str(path), weights) if str(path).startswith(PREFIX) else Path(path)


@cache
def fetch_model(name: str, weights: bool = True) -> Path:
    """The folder of the model `hf:org/name` in the hub's cache, downloaded where it lacks something.

    `weights` False leaves it at the config and the tokenizer. UserError where there is no such model, it cannot be had,
    or it has no safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    match = _NAME.match(name)
    if not match:
        raise UserError(f"{name!r} is no name of a model on the hub", fix="write hf:org/name or hf:org/name@revision")
    patterns = [*_TOKENIZER, *(_WEIGHTS if weights else ())]
    try:
        folder = Path(snapshot_download(match[1], revision=match[2], allow_patterns=patterns))
    except GatedRepoError as e:
        raise UserError("its owner gives it on request only", name, "ask on its page, then set HF_TOKEN") from e
    except RepositoryNotFoundError as e:
        raise UserError("there is no such model on the hub", name, "check it; a private one needs HF_TOKEN") from e
    except LocalEntryNotFoundError as e:
        raise UserError("it is not in the cache, and the hub cannot be reached", name, "go online once") from e
    except (HfHubHTTPError, OSError) as e:
        raise UserError(f"cannot download it: {str(e).splitlines()[0]}", name) from e
    if weights and not any(folder.glob("model*.safetensors")):
        raise UserError(
            "it has no safetensors weights", name, "pickled weights (.bin, .pth) are not read: choose another model"
        )
    return folder
