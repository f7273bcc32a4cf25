"""Makes NotaGen-large with its AdamW state as the original saves it, or compares two such files: see large-checkpoint."""

import sys

import torch

sys.path.insert(0, "model/tests/golden")
from checkpoints import UNUSED, checkpoint, network, optimizer


def fill(tensor, seed):
    return tensor.normal_(generator=torch.Generator().manual_seed(seed))


def make(path):
    with torch.device("meta"):
        model = network(1024, 20, 6, 1280)
    model.to_empty(device="cpu")
    model.char_level_decoder.base.tie_weights()
    adamw, schedule = optimizer(model)
    for seed, (name, parameter) in enumerate(model.named_parameters()):
        fill(parameter.data, seed)
        if name != UNUSED:
            moments = (fill(torch.empty_like(parameter.data), 1000 + seed + k * 1000) for k in (0, 1))
            adamw.state[parameter] = {"step": torch.tensor(1.0)} | dict(zip(("exp_avg", "exp_avg_sq"), moments))
    torch.save(checkpoint(model, adamw, schedule, 3, 0.25), path)


def compare(first, second):
    a, b = (torch.load(path, weights_only=True, mmap=True) for path in (first, second))
    count = same(a, b)
    print(f"the copy holds the same {count} tensors")


def same(a, b):
    assert type(a) is type(b), (type(a), type(b))
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
        return 1
    if isinstance(a, dict):
        assert list(a) == list(b)
        return sum(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return sum(map(same, a, b))
    assert a == b, (a, b)
    return 0


{"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
