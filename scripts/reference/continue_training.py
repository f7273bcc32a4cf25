"""Goes on in PyTorch from a checkpoint that notagen-train wrote: model, optimizer and schedule, then a few steps.

    PYTHONPATH=.tools/python python3 scripts/reference/continue_training.py CHECKPOINT PIECES OUTPUT --warmup 10 \
        --first-step 20 [--steps 5] [--batch 4] [--accumulation 1] [--max-grad-norm X] [--precision fp32|bf16|fp16 [--scale S]]
        [--save CHECKPOINT]

PIECES is a safetensors file with `patches` [pieces, patches, 16] and `lengths` [pieces], as
trainer/tests/golden/training.safetensors; step s takes pieces s*batch … s*batch + batch - 1, counted round.
OUTPUT gets `loss`, `learning_rate` (one a step) and the weights after the last step as `model/NAME`.
"""

import argparse
import pathlib

import torch
from safetensors.torch import load_file
from transformers import get_constant_schedule_with_warmup

import notagen

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("pieces", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--first-step", type=int, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--max-grad-norm", type=float, default=float("inf"))
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--scale", type=float, default=1024.0)
    parser.add_argument("--save", type=pathlib.Path, help="a checkpoint of the last step, in the original's layout")
    return parser.parse_args()


def batch_of(pieces, indices):
    lengths = pieces["lengths"][indices]
    patches = pieces["patches"][indices, :lengths.max()].long()
    return patches, (torch.arange(patches.shape[1]) < lengths[:, None]).long()


def characters(patches, _mask):
    """How many characters the loss is a mean of: each part of an accumulated batch counts by its share."""
    return int((patches[:, 1:] != 0).sum())


def main():
    torch.set_num_threads(1)
    options = arguments()
    checkpoint = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    model = notagen.load(options.checkpoint).train()
    # The rate and decay given here are replaced by those of the checkpoint.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    schedule = get_constant_schedule_with_warmup(optimizer, num_warmup_steps=options.warmup)
    optimizer.load_state_dict(checkpoint["optimizer"])
    schedule.load_state_dict(checkpoint["lr_sched"])
    dtype = PRECISIONS[options.precision]
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16, init_scale=options.scale)
    pieces = load_file(options.pieces)
    count = len(pieces["lengths"])
    losses, rates = [], []
    for step in range(options.first_step, options.first_step + options.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        indices = torch.tensor([(step * options.batch + i) % count for i in range(options.batch)])
        whole = characters(*batch_of(pieces, indices))
        total = 0.0
        for part in indices.chunk(options.accumulation):
            patches, mask = batch_of(pieces, part)
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss = model.loss(patches, mask) * (characters(patches, mask) / whole)
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    result = {f"model/{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    result["loss"] = torch.tensor(losses, dtype=torch.float64)
    result["learning_rate"] = torch.tensor(rates, dtype=torch.float64)
    notagen.write_tensors(options.output, result)
    if options.save:
        number = options.first_step + options.steps
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "lr_sched": schedule.state_dict(),
                 "epoch": number, "best_epoch": number, "min_eval_loss": 1.5}
        notagen.write_atomically(options.save, lambda path: torch.save(state, path))
    print(f"losses {losses}; {notagen.versions()}")


if __name__ == "__main__":
    main()
