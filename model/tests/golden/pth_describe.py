"""What a loaded checkpoint holds, as JSON that the Rust tests render from their side too."""

import ctypes
import struct
from collections import OrderedDict

import torch


def describe(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [describe(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [describe(item) for item in value]}
    if isinstance(value, dict):
        entries = [[describe(key), describe(item)] for key, item in value.items()]
        return {"dict": entries, "ordered": isinstance(value, OrderedDict)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, torch.Tensor):
        return tensor(value)
    raise TypeError(type(value))


def tensor(value):
    copy = value.detach().clone(memory_format=torch.contiguous_format)
    size = copy.numel() * copy.element_size()
    return {
        "tensor": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
        "stride": list(value.stride()) if value.numel() else [],
        "bytes": ctypes.string_at(copy.data_ptr(), size).hex() if size else "",
    }
