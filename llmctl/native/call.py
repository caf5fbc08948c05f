"""Calling kernels: tensors become addresses, numbers keep their C types."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

Number = int | float


def call(function: Any, *arguments: Tensor | Number | None) -> None:
    """Call a kernel, the number of threads as its last argument. Tensors go by address (None is null), whole numbers as
    int64, others as float.
    """
    function(*map(_c, arguments), ctypes.c_int64(torch.get_num_threads()))


def _c(value: Tensor | Number | None) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)
