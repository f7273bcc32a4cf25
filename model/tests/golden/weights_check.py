"""Checks files that were written here, one line of output a check: weights_check.py CHECK A B TYPE [CHECK A B TYPE]…

resume: the original's scripts load both, go on five steps, and end in the same weights and state (TYPE is idle).
same: B has A's weights as TYPE, in A's order and with one storage for tied weights if it is a .pth file.
"""

import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def resumed(path):
    from checkpoints import network, optimizer, steps

    checkpoint = torch.load(path, weights_only=True)
    model = network(32, 2, 1, 64)
    adamw, schedule = optimizer(model, 5e-4)
    model.load_state_dict(checkpoint["model"])
    adamw.load_state_dict(checkpoint["optimizer"])
    schedule.load_state_dict(checkpoint["lr_sched"])
    steps(model, adamw, schedule, 5, seed=2)
    numbers = [checkpoint[key] for key in ("epoch", "best_epoch", "min_eval_loss")]
    return {"model": model.state_dict(), "adamw": adamw.state_dict(), "schedule": schedule.state_dict(), "n": numbers}


def resume(first, second, _):
    a, b = resumed(first), resumed(second)
    for part in a:
        assert equal(a[part], b[part]), f"{second}: {part} differs:\n{a[part]}\n{b[part]}"
    raw = torch.load(first, weights_only=True), torch.load(second, weights_only=True)
    for part in raw[0]:
        assert equal(raw[0][part], raw[1][part]), f"{second}: {part} differs"
    return sorted(raw[1])


def weights(path):
    return load_file(path) if path.endswith(".safetensors") else torch.load(path, weights_only=True)["model"]


def same(first, second, name):
    dtype = getattr(torch, name)
    a, b = weights(first), weights(second)
    assert sorted(a) == sorted(b), set(a) ^ set(b)
    assert all(torch.equal(a[key].to(dtype), b[key]) and b[key].dtype == dtype for key in a), second
    if second.endswith(".safetensors"):
        with safe_open(second, "pt") as file:
            return sorted(file.metadata().items())
    assert list(a) == list(b), second
    tied = [b[k].data_ptr() for k in b if k.endswith(("lm_head.weight", "transformer.wte.weight"))]
    assert tied[0] == tied[1], f"{second}: the output layer is not the embedding any more"
    return sorted((k, v) for k, v in torch.load(second).items() if k not in ("model", "optimizer"))


arguments = iter(sys.argv[1:])
for check in arguments:
    print({"resume": resume, "same": same}[check](next(arguments), next(arguments), next(arguments)))
