"""The number format to generate in."""

from __future__ import annotations

import torch

from llmctl.errors import UserError


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for "auto", "bf16" or "fp32" on `device`."""
    if precision == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    known = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if precision not in known:
        raise UserError(f"precision {precision!r} is not known", fix="choose auto, bf16 or fp32")
    return known[precision]


def fast_bf16(device: torch.device) -> bool:
    """True where bf16 matrix products run in hardware; elsewhere a CPU emulates them, slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
