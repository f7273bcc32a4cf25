"""Loads files that were written here as strictly as PyTorch can, and prints what they hold: pth_check.py FILE…"""

import json
import sys

import torch
from pth_describe import describe

torch.set_num_threads(1)
for path in sys.argv[1:]:
    strict = describe(torch.load(path, weights_only=True))
    mapped = describe(torch.load(path, weights_only=True, mmap=True))
    meta = torch.load(path, map_location="meta", weights_only=True)
    assert strict == mapped, path
    assert list(meta) == list(torch.load(path)), path
    reader = torch._C.PyTorchFileReader(path)
    storages = [name for name in reader.get_all_records() if name.startswith("data/")]
    assert all(reader.get_record_offset(name) % 64 == 0 for name in storages), path
    pointers = {}
    for key, value in torch.load(path).items():
        if isinstance(value, torch.Tensor) and value.numel():
            pointers.setdefault(value.untyped_storage().data_ptr(), []).append(key)
    print(json.dumps({"holds": strict, "records": len(storages), "shared": [k for k in pointers.values() if len(k) > 1]}))
