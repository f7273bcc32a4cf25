"""Golden losses of 50 training steps in PyTorch: fp32, bf16, fp16 with a gradient scaler; on the CPU, dropout off.

    PYTHONPATH=.tools/python python3 trainer/tests/golden/make_training.py

Starts from model/tests/golden/model.pth. Writes training.safetensors beside this script: the pieces, and for each
run the loss, learning rate, gradient norm before clipping, scale and skipped flag of every step.
Step s takes pieces s*BATCH … s*BATCH + BATCH - 1, counted round the PIECES pieces.
"""

import pathlib
import random
import sys

import torch
from transformers import get_constant_schedule_with_warmup

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "scripts/reference"))
import notagen  # noqa: E402
import patches as patching  # noqa: E402

# At 1e-3 the last steps amplify any rounding: PyTorch itself moves 6% at step 47 when its GELU is fused.
PIECES, BATCH, STEPS, WARMUP, LEARNING_RATE = 12, 4, 50, 10, 3e-4
RUNS = {
    "fp32": dict(),
    "fp32_accumulation_clipping": dict(accumulation=2, max_grad_norm=0.7),
    "bf16": dict(dtype=torch.bfloat16),
    "fp16": dict(dtype=torch.float16, scaler=dict(init_scale=1024.0)),
    # Begins far too high, so that the first ten steps overflow (nine or eleven would take a scale 20% off);
    # grows again every 12 good steps.
    "fp16_overflow": dict(dtype=torch.float16, scaler=dict(init_scale=1.25 * 2.0**27, growth_interval=12)),
}


def made_up_piece(generator):
    """A few lines that look like the training form of ABC, so that there is something to learn."""
    head = f"%%score 1 2\nL:1/8\nM:{generator.choice(['4/4', '3/4', '6/8'])}\nK:{generator.choice('CDFG')}\nV:1 treble\nV:2 bass\n"
    bar = lambda: "".join(generator.choice(["C2", "D2", "E2", "F2", "G2", "A", "B", "c"]) for _ in range(generator.randint(3, 5)))
    body = "".join(f"[V:1]{bar()}|[V:2]{bar()}|\n" for _ in range(generator.randint(2, 8)))
    rows, tail = patching.encode_whole(head + body)
    return torch.tensor(rows + tail)


def pad(pieces):
    patches = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
    lengths = torch.tensor([len(piece) for piece in pieces])
    return patches, (torch.arange(patches.shape[1]) < lengths[:, None]).long()


def characters(pieces):
    return sum(int((piece[1:] != 0).sum()) for piece in pieces)


def train(pieces, dtype=None, accumulation=1, max_grad_norm=None, scaler=None, attention="sdpa"):
    model = notagen.load(ROOT / "model/tests/golden/model.pth", attention=attention).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = get_constant_schedule_with_warmup(optimizer, num_warmup_steps=WARMUP)
    scaler = torch.amp.GradScaler("cpu", enabled=scaler is not None, **(scaler or {}))
    log = {name: [] for name in ("loss", "learning_rate", "grad_norm", "scale", "skipped")}
    for step in range(STEPS):
        batch = [pieces[(step * BATCH + i) % len(pieces)] for i in range(BATCH)]
        log["learning_rate"].append(schedule.get_last_lr()[0])
        log["scale"].append(scaler.get_scale())
        total = 0.0
        for part in range(0, BATCH, BATCH // accumulation):
            chunk = batch[part:part + BATCH // accumulation]
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                # Unlike the original, which gives each part the same weight whatever its length (docs/fidelity.md).
                loss = model.loss(*pad(chunk)) * (characters(chunk) / characters(batch))
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or float("inf"))
        scaler.step(optimizer)
        scaler.update()
        skipped = scaler.is_enabled() and scaler.get_scale() < log["scale"][-1]
        if not skipped:  # unlike the original, whose schedule goes on
            schedule.step()
        optimizer.zero_grad(set_to_none=True)
        log["loss"].append(total)
        log["grad_norm"].append(norm.item())
        log["skipped"].append(float(skipped))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in log.items()}


def main():
    torch.set_num_threads(1)
    generator = random.Random(11)
    pieces = [made_up_piece(generator) for _ in range(PIECES)]
    patches, mask = pad(pieces)
    golden = {"patches": patches.to(torch.uint8), "lengths": mask.sum(1)}
    for name, settings in RUNS.items():
        run = train(pieces, **settings)
        golden |= {f"{name}/{key}": values for key, values in run.items()}
        print(f"{name}: loss {run['loss'][0]:.4f} to {run['loss'][-1]:.4f}, {int(run['skipped'].sum())} skipped, norm {run['grad_norm'].min():.2f} to {run['grad_norm'].max():.2f}")
    notagen.write_tensors(HERE / "training.safetensors", golden)
    print(notagen.versions())


if __name__ == "__main__":
    main()
