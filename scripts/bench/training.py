"""Training steps in PyTorch, the original's way: padded batches, one-hot patches, autocast. Prints one JSON line.

    PYTHONPATH=.tools/python:scripts/reference python3 scripts/bench/training.py INDEX [--precision bf16] …
"""

import argparse
import fnmatch
import json
import pathlib
import time

import torch

import notagen
import patches as patching

parser = argparse.ArgumentParser()
parser.add_argument("index", type=pathlib.Path)
parser.add_argument("--pieces", default="bach_bwv*")
parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--warmup", type=int, default=5)
parser.add_argument("--batch", type=int, default=2)
parser.add_argument("--patch-length", type=int, default=256)
parser.add_argument("--patch-layers", type=int, default=8)
parser.add_argument("--char-layers", type=int, default=2)
parser.add_argument("--hidden-size", type=int, default=256)
options = parser.parse_args()
torch.set_num_threads(options.threads)
torch.manual_seed(0)

pieces = []
for line in options.index.read_text().splitlines():
    path = pathlib.Path(json.loads(line)["path"])
    if fnmatch.fnmatch(path.name, options.pieces):
        file = next(path.parent.glob(f"*/{path.name}_*.abc"))
        rows, tail = patching.encode_whole(file.read_text())
        pieces.append(torch.tensor((rows + tail)[: options.patch_length]))

architecture = notagen.Architecture(options.patch_length, options.patch_layers, options.char_layers, options.hidden_size, 0.0)
model = notagen.NotaGen(architecture).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
begun, patches, loss = None, 0, None
for step in range(options.warmup + options.steps):
    if step == options.warmup:
        begun = time.perf_counter()
    batch = [pieces[(step * options.batch + i) % len(pieces)] for i in range(options.batch)]
    padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    lengths = torch.tensor([len(piece) for piece in batch])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
        loss = model.loss(padded, mask)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss = loss.item()
    patches += int(lengths.sum()) if begun else 0
seconds = time.perf_counter() - begun
print(json.dumps({"what": "the original's way", "precision": options.precision, "patches_per_second": patches / seconds,
                  "loss": loss, "threads": options.threads}))
