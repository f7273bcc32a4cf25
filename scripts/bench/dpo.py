"""Steps of CLaMP-DPO in PyTorch, the original's way: a pair a step, each piece in a forward pass of its own with its
patches filled up to 16 characters, one-hot patches, the reference in memory and run in every step.

    PYTHONPATH=.tools/python:scripts/reference python3 scripts/bench/dpo.py --weights FILE --preferences FILE
        [--precision bf16] [--steps 40] [--threads 2] [--clock cpu]
    PYTHONPATH=… python3 scripts/bench/dpo.py --make FOLDER --pieces 20 [--size quickstart|small|…]

The second makes random weights and, of the corpus' pieces that fit, those of a length near the middle. Prints one line
of JSON. With `--clock cpu` and one thread it counts the time that the thread ran, for a machine that others use too.
"""

import argparse
import copy
import json
import pathlib
import random
import time

import torch

import notagen
import patches as patching

SIZES = {
    "quickstart": notagen.Architecture(256, 8, 2, 256),
    "small": notagen.SMALL, "medium": notagen.MEDIUM, "large": notagen.LARGE,
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BETA, LAMBDA = 0.1, 10


def encode(path):
    metadata, body = patching.encode_whole(path.read_text())
    return torch.tensor(metadata + body)


def make(folder, size, count):
    torch.manual_seed(0)
    model = notagen.NotaGen(SIZES[size])
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    longest = SIZES[size].patch_length
    files = sorted(pathlib.Path("data/quickstart/interleaved").glob("*.abc"))
    lengths = {path: len(encode(path)) for path in files}
    fitting = sorted((length, path) for path, length in lengths.items() if length <= longest)
    middle = (len(fitting) - count) // 2
    taken = [str(path) for _, path in fitting[middle:middle + count]]
    lists = {"chosen": taken[::2], "rejected": taken[1::2]}
    (folder / "preferences.json").write_text(json.dumps(lists))


def log_probability(model, piece):
    logits, targets, _ = model(piece[None], torch.ones(1, len(piece), dtype=torch.long, device=piece.device))
    token = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return token[targets != patching.PAD].sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=pathlib.Path)
    parser.add_argument("--size", choices=SIZES, default="quickstart")
    parser.add_argument("--pieces", type=int, default=20)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--preferences", type=pathlib.Path)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    if options.make:
        return make(options.make, options.size, options.pieces)
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = notagen.load(options.weights).to(device).train()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    scaler = torch.amp.GradScaler(device, enabled=options.precision == "fp16")
    lists = json.loads(options.preferences.read_text())
    chosen, rejected = ([encode(pathlib.Path(path)).to(device) for path in lists[side]] for side in ("chosen", "rejected"))
    draw, clock, losses, begun = random.Random(0), CLOCKS[options.clock], [], None
    for step in range(options.warmup + options.steps):
        if step == options.warmup:
            begun = clock()
        pair = draw.choice(chosen), draw.choice(rejected)
        with torch.autocast(device, PRECISIONS[options.precision], enabled=options.precision != "fp32"):
            policy = [log_probability(model, piece) for piece in pair]
            with torch.no_grad():
                ref = [log_probability(reference, piece) for piece in pair]
        logits = (policy[0] - policy[1]) - (ref[0] - ref[1])
        loss = -torch.nn.functional.logsigmoid(BETA * (logits - LAMBDA * torch.relu(ref[0] - policy[0])))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    seconds = clock() - begun
    pieces = chosen + rejected
    print(json.dumps({
        "what": "the original's way", "precision": options.precision, "device": device, "threads": options.threads,
        "clock": options.clock, "steps_per_second": options.steps / seconds, "train_loss": sum(losses) / len(losses),
        "patches_a_piece": sum(map(len, pieces)) / len(pieces),
        "characters_a_patch": sum(int((piece[1:] != 0).sum()) for piece in pieces) / sum(len(piece) - 1 for piece in pieces),
        "versions": notagen.versions(),
    }))


if __name__ == "__main__":
    main()
