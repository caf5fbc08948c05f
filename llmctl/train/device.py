"""Where to compute and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware.

    A CPU without the instructions emulates them and is slower than in float32. Measured with them (AMX, two cores,
    2048^3): 2.1 TFLOP/s against 0.2.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products under the setting `precision`: "auto", "bf16" or "fp32"."""
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context to run a forward pass in: bfloat16 products on float32 weights, or nothing."""
    if compute_dtype(precision, device) == torch.bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
