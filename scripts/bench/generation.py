"""Patches per second of generation the original's way, in PyTorch: everything is run again for every patch.

    PYTHONPATH=.tools/python:scripts/reference python3 scripts/bench/generation.py [--patches 512] [--threads 2]
        [--device cuda] [--precision fp16] [--size large] [--clock cpu]

A patch after a context of n patches costs one pass of the patch decoder over n patches and sixteen of the
character decoder, so the cost of a whole piece is measured at a few context lengths and summed up between
them (trapezoids). Random weights: the work does not depend on them. Prints one line of JSON. With `--clock cpu` and
one thread it counts the time that the thread ran, for a machine that others use too.
"""

import argparse
import json
import time

import torch

import notagen

SIZES = {"small": notagen.SMALL, "medium": notagen.MEDIUM, "large": notagen.LARGE}
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def seconds_of_patch(model, context, repeats, device, clock):
    flat = torch.randint(32, 127, (context * 16,)).tolist()
    model.next_patch(flat, top_k=9, top_p=0.9, temperature=1.2)
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = clock()
        model.next_patch(flat, top_k=9, top_p=0.9, temperature=1.2)
        best = min(best, clock() - start)
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--patches", type=int, default=512, help="length of the piece")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = notagen.NotaGen(SIZES[options.size]).eval().to(options.device, PRECISIONS[options.precision])

    contexts = sorted({round(options.patches * part) or 1 for part in (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)})
    costs = [seconds_of_patch(model, context, options.repeats, options.device, CLOCKS[options.clock]) for context in contexts]
    steps = zip(contexts, contexts[1:], costs, costs[1:])
    total = sum((right - left) * (a + b) / 2 for left, right, a, b in steps)
    print(json.dumps({
        "what": "generation the original's way", "size": options.size, "precision": options.precision, "device": options.device,
        "threads": options.threads, "clock": options.clock, "patches": options.patches, "seconds_a_piece": round(total, 3),
        "patches_per_second": round(options.patches / total, 4),
        "seconds_a_patch": {str(context): round(cost, 5) for context, cost in zip(contexts, costs)},
        "versions": notagen.versions(),
    }))


if __name__ == "__main__":
    main()
