"""The names of what can be written; apart, so that they are known without torch."""

from __future__ import annotations

from typing import Literal

Format = Literal["hf", "gguf", "c"]
GgufType = Literal["f16", "q8_0", "f32"]
