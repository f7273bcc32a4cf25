"""Features the original's way, in PyTorch: a file at a time, padded to 512 patches. Prints one line of JSON.

    PYTHONPATH=.tools/python:scripts/reference python3 scripts/bench/features.py --weights FILE --files LIST --output DIR
        [--threads 2] [--clock cpu] [--precision fp32]
    PYTHONPATH=… python3 scripts/bench/features.py --make FILE

The second makes random weights of the released size, the first reads them. Both sides write their features, which
have to be the same. With `--clock cpu` and one thread it counts the time that the thread ran, for a machine that
others use too.
"""

import argparse
import json
import pathlib
import re
import time

import numpy as np
import torch
from unidecode import unidecode

import m3
import notagen

CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BARLINES = ["|:", "::", ":|", "[|", "||", "|]", "|"]
SPLIT = re.compile("(" + "|".join(map(re.escape, BARLINES)) + ")")
A = m3.Architecture()


def encode(text):
    """Patches of ABC as the original's M3Patchilizer makes them."""
    patches = [chr(1) * 64]
    for line in unidecode(text).splitlines(keepends=True):
        if re.match("[A-Za-z]:|%%", line):
            patches.append(line)
            continue
        parts = [part for part in SPLIT.split(line) if part]
        if parts[0] in BARLINES:
            parts[:2] = [parts[0] + parts[1]]
        bars = [a + b for a, b in zip(parts[::2], parts[1::2])]
        patches += bars[:-1] + [bars[-1] + "\n"] if bars else []
    patches.append(chr(2) * 64)
    rows = [([1] + [ord(c) for c in patch] + [2])[:64] for patch in patches]
    return torch.tensor([row + [0] * (64 - len(row)) for row in rows])


def text_of(path):
    lines = path.open(encoding="utf-8").readlines()
    return "".join(line for line in lines if line.startswith("%%") or not line.startswith("%"))


@torch.no_grad()
def extract(encoder, path, output):
    patches = encode(text_of(path))
    device = next(encoder.parameters()).device
    feature = m3.feature(encoder, torch.nn.Identity(), patches.to(device), A.patch_length)
    np.save(output / (path.stem + ".npy"), feature[None].float().cpu().numpy())
    return len(patches)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--files", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.make:
        torch.save({"model": m3.M3(A).state_dict()}, options.make)
        return
    state = torch.load(options.weights, weights_only=True)["model"]
    encoder = m3.Encoder(A).eval()
    encoder.load_state_dict({name[8:]: tensor for name, tensor in state.items() if name.startswith("encoder.")})
    encoder.to(options.device, PRECISIONS[options.precision])
    files = [pathlib.Path(line) for line in options.files.read_text().splitlines()]
    extract(encoder, files[0], options.output)
    start = CLOCKS[options.clock]()
    patches = sum(extract(encoder, path, options.output) for path in files)
    seconds = CLOCKS[options.clock]() - start
    print(json.dumps({
        "what": "features the original's way", "precision": options.precision, "threads": options.threads,
        "clock": options.clock, "files": len(files), "patches": patches, "files_per_second": len(files) / seconds,
        "versions": notagen.versions(),
    }))


if __name__ == "__main__":
    main()
