"""What the machine could do at most: the denominator of MFU (model FLOPs utilisation, arXiv:2204.02311)."""

from __future__ import annotations

import time

import torch

from llmctl.train.device import best_device, compute_dtype

# Dense bfloat16 FLOP/s by the makers' data sheets. A GPU that is not here is measured, as a CPU is.
_GPUS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
    "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12, "T4": 65e12,
}  # fmt: skip
_SIZE = {"cuda": 8192, "cpu": 2048}  # of the measured matrices: large enough for the full rate


def peak_rate(precision: str) -> float:
    """FLOP/s of this device: from the data sheet for a known GPU in bfloat16, else of a square matrix product."""
    device = best_device()
    if device.type == "cuda" and compute_dtype(precision, device) == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        known = next((rate for gpu, rate in _GPUS.items() if gpu in name), None)
        if known:
            return known
    return matmul_rate(precision, _SIZE.get(device.type, 1024))


def matmul_rate(precision: str, size: int = 1024) -> float:
    """FLOP/s of a square matrix product on this machine, the best of four."""
    device = best_device()
    a = torch.randn(size, size, device=device, dtype=compute_dtype(precision, device))
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
