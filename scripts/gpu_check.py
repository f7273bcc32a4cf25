"""The rows of scripts/gpu-check: ours against PyTorch on the same card, in one run."""

import argparse
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import torch

import notagen
import patches as patching

parser = argparse.ArgumentParser()
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
parser.add_argument("--quick", action="store_true", help="small networks: a trial of the check itself")
options = parser.parse_args()
DEVICE, BIN = options.device, pathlib.Path("gpu-check").resolve()
SIZES = ["tiny"] if options.quick else ["small", "large"]
ARCHITECTURES = {
    "tiny": notagen.Architecture(128, 2, 1, 128, 0.0),
    "small": notagen.Architecture(2048, 12, 3, 768, 0.0),
    "large": notagen.Architecture(1024, 20, 6, 1280, 0.0),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
rows = []


def row(what, measured, wanted="", good=None):
    rows.append((what, measured, wanted, {True: "ok", False: "FAILED", None: ""}[good]))
    print(" | ".join(rows[-1]), file=sys.stderr, flush=True)


def ours(program, *arguments, folder=None, environment=None):
    """Runs one of our programs; its lines of JSON."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for_device():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def piece(bars, seed):
    """Interleaved ABC of two voices."""
    draw = random.Random(seed)
    bar = lambda: "".join(draw.choice("CDEFGABcdefgab") + draw.choice(["", "2", "/"]) for _ in range(6))
    head = "%%score 1 2\nL:1/8\nQ:1/4=100\nM:4/4\nK:C\nV:1 treble\nV:2 bass\n"
    return head + "".join(f"[V:1]{bar()}|[V:2]{bar()}|\n" for _ in range(bars))


def encoded(text, length):
    head, tail = patching.encode_whole(text)
    return torch.tensor((head + tail)[:length], device=DEVICE)


def reference(size, seed=0):
    torch.manual_seed(seed)
    return notagen.NotaGen(ARCHITECTURES[size])


def saved(model, path):
    torch.save({"model": model.state_dict(), "optimizer": {}, "lr_sched": {}, "epoch": 1, "best_epoch": 1, "min_eval_loss": 1.0}, path)
    return path


def log_probabilities(work):
    """The same log-probability of pieces in fp32."""
    size = SIZES[0]
    model = reference(size)
    weights = saved(model, work / "parity.pth")
    model.to(DEVICE).eval()
    worst = 0.0
    for seed in range(3):
        path = work / f"piece{seed}.abc"
        path.write_text(piece(8, seed))
        mine = ours("notagen-train", "logprob", "--weights", weights, "--device", DEVICE, "--json", path)[0]
        rows_ = encoded(path.read_text(), ARCHITECTURES[size].patch_length)[None]
        with torch.no_grad():
            logits, targets, _ = model(rows_, torch.ones(rows_.shape[:2], dtype=torch.long, device=DEVICE))
        chosen = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        theirs = float(chosen[targets != patching.PAD].double().sum())
        worst = max(worst, abs(mine["logp"] - theirs) / abs(theirs))
    row(f"log-probability, {size}, fp32", f"{worst:.1e} relative", "1e-5", worst < 1e-5)


RECIPE = """name: check
device: {device}
precision: {precision}
model: {{patch_length: {a.patch_length}, patch_layers: {a.patch_layers}, char_layers: {a.char_layers}, hidden_size: {a.hidden_size}, dropout: 0}}
stages:
  - finetune:
      init: {weights}
      train: {index}
      key_augmentation: none
      learning_rate: {rate}
      batch_size: {batch}
      steps: {steps}
      warmup_steps: 0
      log_every: {log}
      activation_checkpointing: {checkpointing}
"""


def indexed(work, bars, pieces):
    """An index of pieces in C."""
    folder = work / f"index{bars}x{pieces}"
    (folder / "C").mkdir(parents=True, exist_ok=True)
    for i in range(pieces):
        (folder / "C" / f"p{i}_C.abc").write_text(piece(bars, 100 + i))
    index = folder / "train.jsonl"
    index.write_text("".join(json.dumps({"path": str(folder / f"p{i}"), "key": "C"}) + "\n" for i in range(pieces)))
    return index


def train_here(work, size, precision, index, steps, batch=1, rate=1e-4, log=1, checkpointing=False):
    weights = work / f"{size}.pth"
    if not weights.exists():
        saved(reference(size), weights)
    run = pathlib.Path(tempfile.mkdtemp(dir=work))
    recipe = run / "check.yaml"
    recipe.write_text(RECIPE.format(device=DEVICE, precision=precision, a=ARCHITECTURES[size], weights=weights, index=index, rate=rate,
                                    batch=batch, steps=steps, log=log, checkpointing=str(checkpointing).lower()))
    events = ours("notagen-train", recipe, "--json", folder=run)
    return [event for event in events if event["event"] == "step"], sum(event["event"] == "skipped" for event in events)


def train_there(size, precision, pieces, steps, batch=1, rate=1e-4, warmup=0):
    """Losses, and patches a second after `warmup` steps, the original's way."""
    model = reference(size).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    scaler = torch.amp.GradScaler(DEVICE, enabled=precision == "fp16")
    losses, begun, patches = [], 0.0, 0
    for step in range(steps):
        if step == warmup:
            wait_for_device()
            begun = time.perf_counter()
        chosen = [pieces[(step * batch + i) % len(pieces)] for i in range(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        lengths = torch.tensor([len(p) for p in chosen], device=DEVICE)
        mask = (torch.arange(padded.shape[1], device=DEVICE) < lengths[:, None]).long()
        with torch.autocast(DEVICE, DTYPES[precision], enabled=precision != "fp32"):
            loss = model.loss(padded, mask)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        patches += sum(map(len, chosen)) if step >= warmup else 0
    wait_for_device()
    return losses, patches / (time.perf_counter() - begun)


def same_losses(work):
    """Thirty steps on one piece, step by step."""
    size, steps = SIZES[0], 30
    index = indexed(work, 8, 1)
    rows_ = [encoded(piece(8, 100), ARCHITECTURES[size].patch_length)]
    for precision, limit in (("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 2e-2)):
        mine, skipped = train_here(work, size, precision, index, steps)
        theirs, _ = train_there(size, precision, rows_, steps)
        # A step that fp16 skips is logged by its number alone.
        worst = max(abs(step["loss"] - theirs[step["step"] - 1]) / theirs[step["step"] - 1] for step in mine)
        fine = worst < limit and len(mine) + skipped >= steps and all(math.isfinite(step["loss"]) for step in mine)
        row(f"losses of {steps} steps, {size}, {precision}", f"{worst:.1e} relative, {skipped} skipped", f"{limit:.0e}", fine)


def world_of_one(work):
    size = SIZES[0]
    index, backend = indexed(work, 40, 4), "nccl" if DEVICE == "cuda" else "gloo"
    weights = work / f"{size}.pth"
    found = ours("world", "--weights", weights, "--index", index, "--steps", 8 if options.quick else 60)[0]
    share = found["group_seconds"] / found["alone_seconds"] - 1
    row(f"a world of one over {backend}, {size}: loss", f"{found['group_loss']:.6f} and {found['alone_loss']:.6f} without", "1e-4",
        abs(found["group_loss"] / found["alone_loss"] - 1) < 1e-4)
    row("the same: time of a step", f"{share:+.1%}", "2 %", abs(share) < 0.02 if DEVICE == "cuda" else None)


def training_speed(work):
    for size in SIZES:
        index, batch, steps = indexed(work, 110, 4), 4 if size == "small" else 1, 6 if options.quick else 24
        rows_ = [encoded(piece(110, 100 + i), ARCHITECTURES[size].patch_length) for i in range(4)]
        for precision in ("fp16", "bf16"):
            mine, _ = train_here(work, size, precision, index, steps, batch=batch, log=2)
            here = [step["patches_per_second"] for step in mine][1:]
            rate = len(here) / sum(1 / r for r in here)
            _, there = train_there(size, precision, rows_, steps, batch=batch, warmup=4)
            row(f"training, {size}, {precision}, batch {batch}", f"{rate:.0f} patches/s, PyTorch {there:.0f}", "", None)
            row("the same, times PyTorch", f"{rate / there:.2f}", "", None)
    if DEVICE == "cuda" and not options.quick:
        mine, _ = train_here(work, "large", "fp16", indexed(work, 110, 4), 6, checkpointing=True)
        row("fine-tuning large, fp16, 1 x 1,024, checkpointed: peak memory", f"{mine[-1]['memory_peak'] / 1e9:.1f} GB",
            "24 GB", mine[-1]["memory_peak"] < 24e9)


def generation(work):
    size, patches, pieces = ("small", 64, 4) if options.quick else ("large", 512, 128)
    precision = "fp32" if DEVICE == "cpu" else "fp16"
    arguments = ["--size", size, "--patches", patches, "--precision", precision]
    for count in (1, pieces):
        # Rounds enough to try CUDA graphs and to go on the quicker way.
        mine = ours("generation", *arguments, "--pieces", count, "--rounds", 4 if DEVICE == "cpu" else 20)[0]
        memory, limit = mine["memory_bytes"], 6e9 if count == 1 else 24e9
        row(f"generation, {size}, {precision}, {count} at once", f"{mine['patches_per_second']:.1f} patches/s, the floor allows "
            f"{mine['floor']['patches_per_second']:.0f}", "", None)
        if DEVICE == "cuda":
            graphs = mine["cuda_graphs"]
            row("the same: four characters by CUDA graphs", f"{graphs['replayed_ms'] or 0:.2f} ms, launched one by one "
                f"{graphs['launched_ms']:.2f} ms", "recorded", graphs["failure"] is None and graphs["replayed_ms"] is not None)
            row("the same: memory", f"{memory / 1e9:.2f} GB", f"{limit / 1e9:.0f} GB", memory < limit)
    command = [sys.executable, "scripts/bench/generation.py", "--device", DEVICE, *map(str, arguments)]
    there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row("generation the original's way", f"{there['patches_per_second']:.2f} patches/s", "", None)
    row("times the original's way", f"{mine['patches_per_second'] / there['patches_per_second']:.0f}", "", None)
    hours = lambda rate: 1000 * patches / rate / 3600
    row(f"hours for 1,000 pieces of {patches} patches", f"{hours(mine['patches_per_second']):.2f}, the original's way "
        f"{hours(there['patches_per_second']):.1f}", "", None)


def main():
    begun = time.monotonic()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for check in (log_probabilities, same_losses, world_of_one, generation, training_speed):
            try:
                check(work)
            except Exception as error:
                row(check.__name__.replace("_", " "), str(error).strip().splitlines()[-1][:200], "", False)
                print(error, file=sys.stderr)
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
    print(f"{time.strftime('%Y-%m-%d')}, {name}, {notagen.versions()}, {time.monotonic() - begun:.0f} s\n")
    print("| what | measured | wanted | |\n|---|---|---|---|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    sys.exit(any(cells[-1] == "FAILED" for cells in rows))


main()
