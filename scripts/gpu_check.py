"""The rows of scripts/gpu-check: ours against PyTorch on the same card, in one run."""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import torch

import notagen
import patches as patching

SIZES = ["small", "large"]
ARCHITECTURES = {
    "tiny": notagen.Architecture(64, 2, 2, 128, 0.0),
    "small": notagen.Architecture(2048, 12, 3, 768, 0.0),
    "large": notagen.Architecture(1024, 20, 6, 1280, 0.0),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BIN = pathlib.Path("gpu-check").resolve()
rows = []


def row(what, measured, wanted="", good=None):
    rows.append((what, measured, wanted, {True: "ok", False: "FAILED", None: ""}[good]))
    print(" | ".join(rows[-1]), file=sys.stderr, flush=True)


def at_least(what, figure, least, text=None):
    """A row on speed: more than was wanted is no fault. Without a card nothing is asked of it."""
    row(what, text or f"{figure:,.0f}", f"at least {least:,g}", figure >= least if DEVICE == "cuda" else None)


def succeeded(command, code, said):
    if code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {code}\n{said[-2000:]}")


def ours(program, *arguments):
    """Runs one of our programs; its lines of JSON."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    succeeded(command, done.returncode, done.stderr)
    if done.stderr.strip():
        print(done.stderr[-2000:], file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_here(recipe, folder):
    """Runs a recipe: each event with the second in which it came, and the seconds of all of it."""
    begun = time.perf_counter()
    with open(folder / "said.txt", "w+") as said:
        command = [str(BIN / "notagen-train"), str(recipe), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=folder) as program:
            events = [{**json.loads(line), "came": time.perf_counter() - begun} for line in program.stdout]
        seconds = time.perf_counter() - begun
        said.seek(0)
        succeeded(command, program.returncode, said.read())
    sessions, = folder.glob("runs/*/sessions.jsonl")
    on_the_device(json.loads(line) for line in sessions.read_text().splitlines())
    return events, seconds


def on_the_device(reports):
    """The device is what the program itself says that it used."""
    reports = list(reports)
    for report in reports:
        if not report["device"].lower().startswith(DEVICE):
            raise RuntimeError(f"ran on {report['device']}, not on {DEVICE}")
    return reports


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


def full(size, count):
    """Pieces of full patches and full length, of random characters."""
    a = ARCHITECTURES[size]
    return [torch.randint(40, 120, (a.patch_length, 16), device=DEVICE) for _ in range(count)]


def reference(size, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return notagen.NotaGen(dataclasses.replace(ARCHITECTURES[size], dropout=dropout))


def saved(model, path):
    torch.save({"model": model.state_dict(), "optimizer": {}, "lr_sched": {}, "epoch": 1, "best_epoch": 1, "min_eval_loss": 1.0}, path)
    return path


def found(work):
    """What the program says of the card."""
    state = ours("notagen-train", "doctor", "--json")[0]
    cuda = state.get("cuda") or state
    print(json.dumps(state, indent=1), file=sys.stderr)
    devices = cuda.get("devices") or []
    names = ", ".join(f"{device['name']}, capability {device.get('capability')}" for device in devices)
    row("doctor", names or str(cuda.get("problem")), "a card", bool(devices) and not cuda.get("problem") if DEVICE == "cuda" else None)


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


def indexed(work, bars, pieces, times=1):
    """An index of pieces in C, each so many times: at the end of an epoch weights are written."""
    folder = work / f"index{bars}x{pieces}"
    (folder / "C").mkdir(parents=True, exist_ok=True)
    for i in range(pieces):
        (folder / "C" / f"p{i}_C.abc").write_text(piece(bars, 100 + i))
    index = folder / f"train{times}.jsonl"
    index.write_text("".join(json.dumps({"path": str(folder / f"p{i}"), "key": "C"}) + "\n" for i in range(pieces)) * times)
    return index


def train_here(work, size, precision, index, steps, batch=1, rate=1e-4, log=1, checkpointing=False):
    """A recipe from the command to its end: its steps, how many it skipped, and the seconds of all of it."""
    weights = work / f"{size}.pth"
    if not weights.exists():
        saved(reference(size), weights)
    run = pathlib.Path(tempfile.mkdtemp(dir=work))
    recipe = run / "check.yaml"
    recipe.write_text(RECIPE.format(device=DEVICE, precision=precision, a=ARCHITECTURES[size], weights=weights, index=index, rate=rate,
                                    batch=batch, steps=steps, log=log, checkpointing=str(checkpointing).lower()))
    events, seconds = run_here(recipe, run)
    return [event for event in events if event["event"] == "step"], sum(event["event"] == "skipped" for event in events), seconds


def train_there(size, precision, pieces, steps, batch=1, rate=1e-4, warmup=0, dropout=0.0):
    """Losses, and patches a second after `warmup` steps, the original's way."""
    model = reference(size, dropout=dropout).to(DEVICE).train()
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
    rate = patches / (time.perf_counter() - begun)
    del model, optimizer
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return losses, rate


def losses(work):
    """Fifty steps on one piece, step by step."""
    size, steps = SIZES[0], 10 if options.quick else 50
    index = indexed(work, 8, 1, steps)
    rows_ = [encoded(piece(8, 100), ARCHITECTURES[size].patch_length)]
    exact = {}
    for precision, limit in (("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 2e-2)):
        mine, skipped, _ = train_here(work, size, precision, index, steps)
        # A step that fp16 skips is logged by its number alone.
        mine = {step["step"]: step["loss"] for step in mine}
        theirs = dict(enumerate(train_there(size, precision, rows_, steps)[0], 1))
        exact = exact or theirs
        off = lambda some, others: max((abs(some[step] - others[step]) / others[step], step) for step in mine)
        (worst, at), from_exact = off(mine, theirs), [off(some, exact)[0] for some in (mine, theirs)]
        fine = worst < limit and len(mine) + skipped >= steps and all(math.isfinite(loss) for loss in mine.values())
        row(f"losses of {steps} steps, {size}, {precision}", f"{worst:.1e} relative at step {at} (loss {exact[at]:.3f}), {skipped} skipped; "
            f"from PyTorch's fp32: ours {from_exact[0]:.1e}, PyTorch's {from_exact[1]:.1e}", f"{limit:.0e}", fine)


def speed(size, *runs):
    """The training loop on full pieces of random characters."""
    return {report["run"]: report for report in on_the_device(ours("speed", size, DEVICE, *runs))}


def training(work):
    """The speed of training against PyTorch, at full length."""
    size = "tiny" if options.quick else "large"
    mine = speed(size, "bf16:1", "bf16:4", "fp16:4", "bf16:4:varied", "bf16:8", "bf16:1:drop", "bf16:4:drop")
    rate = {name: report["patches_per_second"] for name, report in mine.items()}
    pieces = full(size, 4)
    for batch, wanted in ((1, 17_000), (4, 26_000)):
        for dropout in (0.0, 0.1):
            _, there = train_there(size, "bf16", pieces, 10, batch=batch, warmup=4, dropout=dropout)
            name = f"bf16:{batch}" + (":drop" if dropout else "")
            what = f"training {size}, bf16, batch {batch}, dropout {dropout:g}"
            share = f", {mine[name]['teraflops']:.0f} TFLOP/s, {1000 * batch * ARCHITECTURES[size].patch_length / rate[name]:.1f} ms a step"
            if dropout:
                row(f"{what}, patches/s", f"{rate[name]:,.0f}{share}")
            else:
                at_least(f"{what}, patches/s", rate[name], wanted, f"{rate[name]:,.0f}{share}")
            at_least("the same, times PyTorch", rate[name] / there, 2, f"{rate[name] / there:.2f} (PyTorch {there:,.0f})")
    at_least(f"training {size}, bf16, batch 8, patches/s", rate["bf16:8"], 29_000, f"{rate['bf16:8']:,.0f}, {mine['bf16:8']['teraflops']:.0f} TFLOP/s")
    at_least("fp16 against bf16, batch 4", rate["fp16:4"] / rate["bf16:4"], 0.95, f"{rate['fp16:4'] / rate['bf16:4']:.3f}")
    share = rate["bf16:4:varied"] / rate["bf16:4"]
    row("patches of 1 to 16 characters, patches/s against full ones", f"{share:.2f}, {rate['bf16:4:varied']:,.0f} patches/s")
    planned = mine["bf16:8"]["memory_peak"] / mine["bf16:8"]["memory_planned"] - 1
    row("peak memory, batch 8, against the plan", f"{mine['bf16:8']['memory_peak'] / 1e9:.1f} GB, {planned:+.0%}", "10 %",
        abs(planned) < 0.1 if DEVICE == "cuda" else None)
    row("waiting for batches", ", ".join(f"{name} {report['data_wait']:.1%}" for name, report in mine.items()))


def small(work):
    """NotaGen-small at batch 8."""
    size = "tiny" if options.quick else "small"
    mine = speed(size, "bf16:8")["bf16:8"]["patches_per_second"]
    batch = 4  # of pieces of 2,048 patches, the original's way does not fit more
    _, there = train_there(size, "bf16", full(size, 4), 8, batch=batch, warmup=3)
    at_least(f"training {size}, bf16, batch 8, times PyTorch's batch {batch}", mine / there, 2, f"{mine / there:.2f} ({mine:,.0f} and {there:,.0f})")


def checkpointing(work):
    """What a card of 24 GB needs."""
    size = "tiny" if options.quick else "large"
    report = speed(size, "fp16:1:again")["fp16:1:again"]
    off = report["memory_peak"] / report["memory_planned"] - 1
    row(f"training {size}, fp16, batch 1, activations computed again", f"{report['patches_per_second']:,.0f} patches/s, "
        f"{report['memory_peak'] / 1e9:.1f} GB, {off:+.0%} against the plan", "24 GB, 10 %",
        report["memory_peak"] < 24e9 and abs(off) < 0.1 if DEVICE == "cuda" else None)


def command(work):
    """From the command to the first step, and from the last to the end."""
    size = "tiny" if options.quick else "large"
    steps, _, seconds = train_here(work, size, "bf16", indexed(work, 110, 4), 12, log=1)
    # Weights and optimizer of NotaGen-large are 6 GB, written to memory here.
    for what, taken, wanted in (("the command to the first step", steps[0]["came"], 15), ("the last step to the end", seconds - steps[-1]["came"], 10)):
        row(f"{size}, from {what}", f"{taken:.1f} s", f"{wanted} s", taken < wanted if DEVICE == "cuda" else None)


def world(work):
    size = SIZES[0]
    index, backend = indexed(work, 40, 4, 16), "nccl" if DEVICE == "cuda" else "gloo"
    weights = work / f"{size}.pth"
    if not weights.exists():
        saved(reference(size), weights)
    reports = ours("world", "--device", DEVICE, "--weights", weights, "--index", index, "--steps", 8 if options.quick else 60)
    found = on_the_device(reports)[0]
    share = found["group_seconds"] / found["alone_seconds"] - 1
    row(f"a world of one over {backend}, {size}: loss", f"{found['group_loss']:.6f} and {found['alone_loss']:.6f} without", "1e-4",
        abs(found["group_loss"] / found["alone_loss"] - 1) < 1e-4)
    row("the same: time of a step", f"{share:+.1%}", "2 % more", share < 0.02 if DEVICE == "cuda" else None)


def dpo(work):
    """Steps of CLaMP-DPO against the original's way."""
    size = "tiny" if options.quick else "small"
    weights = work / f"dpo-{size}.pth"
    saved(reference(size), weights)
    paths = []
    for i in range(20):
        path = work / f"dpo{i}.abc"
        path.write_text(piece(4 if options.quick else 60, 300 + i))
        paths.append(str(path))
    preferences = work / "preferences.json"
    preferences.write_text(json.dumps({"chosen": paths[::2], "rejected": paths[1::2]}))
    precision = "bf16" if DEVICE == "cuda" else "fp32"
    same = ["--weights", weights, "--preferences", preferences, "--precision", precision, "--steps", 20 if options.quick else 60]
    mine = on_the_device(ours("dpo", "--device", DEVICE, *same))[0]
    arguments = [sys.executable, "scripts/bench/dpo.py", *map(str, same)]
    there = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    ratio = mine["steps_per_second"] / there["steps_per_second"]
    at_least(f"CLaMP-DPO, {size}, {precision}, times the original's steps", ratio, 5,
             f"{ratio:.2f} ({mine['steps_per_second']:.1f} and {there['steps_per_second']:.2f} a second)")


def generation(work):
    size, patches, pieces = ("small", 64, 4) if options.quick else ("large", 512, 128)
    precision = "fp32" if DEVICE == "cpu" else "fp16"
    arguments = ["--device", DEVICE, "--size", size, "--patches", patches, "--precision", precision]
    wanted = {1: 0, pieces: 11_000, "auto": 30_000}
    for count in wanted if DEVICE == "cuda" else (1, pieces):
        mine = on_the_device(ours("generation", *arguments, "--pieces", count, "--rounds", 4 if DEVICE == "cpu" else 24))[0]
        rate, floor = mine["patches_per_second"], mine["floor"]["patches_per_second"]
        at_least(f"generation, {size}, {precision}, {mine['pieces']} at once, patches/s", rate, wanted[count],
                 f"{rate:,.1f}, the floor allows {floor:,.0f}; {mine['memory_bytes'] / 1e9:.2f} GB")
        if DEVICE == "cuda":
            graphs = mine["cuda_graphs"]
            row("the same: recorded", f"{graphs['replayed_ms'] or 0:.2f} ms, launched one by one {graphs['launched_ms']:.2f} ms",
                "recorded", graphs["failure"] is None and graphs["replayed_ms"] is not None)
    there = [sys.executable, "scripts/bench/generation.py", "--device", DEVICE, "--size", size, "--patches", str(patches), "--precision", precision]
    there = json.loads(subprocess.run(there, check=True, capture_output=True, text=True).stdout)
    rate = mine["patches_per_second"]
    row("times the original's way", f"{rate / there['patches_per_second']:.0f} ({there['patches_per_second']:.2f} patches/s)")
    hours = lambda rate: 1000 * patches / rate / 3600
    row(f"hours for 1,000 pieces of {patches} patches", f"{hours(rate):.3f}, the original's way {hours(there['patches_per_second']):.1f}")


def features(work):
    """Features of CLaMP 2, all files together and one by one, and as PyTorch has them."""
    count = 8 if options.quick else 400
    listed, weights = work / "files.txt", work / "m3.pth"
    for i in range(count):
        (work / f"feature{i}.abc").write_text(piece(8 + i % 60, 900 + i))
    listed.write_text("".join(f"{work / f'feature{i}.abc'}\n" for i in range(count)))
    subprocess.run([sys.executable, "scripts/bench/features.py", "--make", weights], check=True)
    here, there = work / "features-here", work / "features-there"
    here.mkdir(), there.mkdir()
    mine = on_the_device(ours("features", "--device", DEVICE, "--weights", weights, "--files", listed, "--output", here,
                              "--precision", "fp16" if DEVICE == "cuda" else "fp32"))[0]
    few = work / "few.txt"
    few.write_text("".join(listed.read_text().splitlines(keepends=True)[:: max(1, count // 40)]))
    original = [sys.executable, "scripts/bench/features.py", "--weights", weights, "--files", few, "--output", there, "--device", DEVICE]
    found = json.loads(subprocess.run(original, check=True, capture_output=True, text=True).stdout)
    ratio = mine["files_per_second"] / found["files_per_second"]
    at_least("features of CLaMP 2, times one file at a time in PyTorch", ratio, 10,
             f"{ratio:.1f} ({mine['files_per_second']:.0f} and {found['files_per_second']:.1f} files/s; one by one here "
             f"{mine['files_per_second_one_by_one']:.1f})")
    import numpy

    pairs = [(numpy.load(path)[0], numpy.load(here / path.name)[0]) for path in there.glob("*.npy")]
    cosine = min(float(a @ b / numpy.linalg.norm(a) / numpy.linalg.norm(b)) for a, b in pairs)
    row("the same: smallest cosine", f"{cosine:.6f} of {len(pairs)}", "0.999", cosine > 0.999)


def kernels(work):
    """Each kernel of our own against libtorch's; the program refuses to run without a card."""
    for report in ours("kernels", "--device", DEVICE):
        what = next((report.pop(key) for key in ("case", "kind", "card") if key in report), "")
        row(f"kernel: {what}", ", ".join(f"{key} {value}" for key, value in report.items()))


def recipe_here(work, name, precision):
    """A recipe of this project whole, on its corpus: its events and seconds."""
    folder = work / f"{name}-{precision}"
    (folder / "data").mkdir(parents=True)
    shutil.copytree("data/quickstart", folder / "data/quickstart", ignore=lambda path, names: [n for n in names if n != "scores" and path == "data/quickstart"])
    text = pathlib.Path(f"recipes/{name}.yaml").read_text()
    for device in ("cpu", "auto"):
        text = text.replace(f"device: {device}", f"device: {DEVICE}")
    (folder / "recipe.yaml").write_text(text.replace("precision: auto", f"precision: {precision}"))
    return run_here("recipe.yaml", folder)


def tiny(work):
    """The whole of notagen-x-tiny in three precisions."""
    seconds = {precision: recipe_here(work, "notagen-x-tiny", precision)[1] for precision in ("fp32", "bf16", "fp16")}
    row("notagen-x-tiny, fp32, bf16, fp16", ", ".join(f"{taken:.0f} s" for taken in seconds.values()), "16 bits no slower",
        max(seconds["bf16"], seconds["fp16"]) < 1.1 * seconds["fp32"] if DEVICE == "cuda" else None)


def quickstart(work):
    """The quickstart from scores to music."""
    events, seconds = recipe_here(work, "quickstart", "auto")
    ended = [event for event in events if event["event"] == "stage_ended"]
    parts = {}
    for event in ended:
        kind = event["stage"].split(".")[-1]
        parts[kind] = parts.get(kind, 0) + event["seconds"]
    scores = [event["result"]["average_clamp2_score"] for event in ended if "average_clamp2_score" in event["result"]]
    loss = next(event["result"]["best_eval_loss"] for event in ended if event["stage"] == "finetune")
    row("quickstart whole", f"{seconds:.0f} s: " + ", ".join(f"{kind} {taken:.0f}" for kind, taken in parts.items()))
    row("the same: eval loss, scores", f"{loss:.4f}, " + ", ".join(f"{score:.4f}" for score in scores), "at most 0.48, rising",
        loss <= 0.48 and scores == sorted(scores))


# The most important first.
CHECKS = [found, kernels, training, generation, dpo, losses, log_probabilities, features, small, world, checkpointing, command, tiny, quickstart]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(check.__name__ for check in CHECKS) + "; all but tiny and quickstart if none is given")
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
parser.add_argument("--quick", action="store_true", help="small networks: a trial of the check itself")
options = parser.parse_args()
DEVICE = options.device
if options.quick:
    SIZES = ["tiny"]


def main():
    begun = time.monotonic()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    unknown = set(options.rows) - {check.__name__ for check in CHECKS}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    # Files of several GB: in memory where there is room.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        work = pathlib.Path(folder)
        os.environ["TMPDIR"] = folder
        for check in CHECKS:
            if check.__name__ not in options.rows and (options.rows or check in (tiny, quickstart)):
                continue
            started = time.monotonic()
            try:
                check(work)
            except Exception as error:
                row(check.__name__.replace("_", " "), str(error).strip().splitlines()[-1][:200], "", False)
                print(error, file=sys.stderr)
            print(f"({check.__name__}: {time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
    print(f"{time.strftime('%Y-%m-%d')}, {name}, {notagen.versions()}, {time.monotonic() - begun:.0f} s\n")
    print("| what | measured | wanted | |\n|---|---|---|---|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    sys.exit(any(cells[-1] == "FAILED" for cells in rows))


main()
