"""Checkpoints as the original's training scripts make them, of the reference network in scripts/reference."""

import pathlib
import sys
import warnings

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts/reference"))
import notagen
from transformers import get_constant_schedule_with_warmup

warnings.filterwarnings("ignore", message="Detected call of")
torch.set_num_threads(1)

UNUSED = "patch_level_decoder.base.wte.weight"


def network(length, patch_layers, char_layers, hidden):
    return notagen.NotaGen(notagen.Architecture(length, patch_layers, char_layers, hidden))


def optimizer(model, rate=1e-4):
    """As the original sets them up: the schedule belongs to an optimizer that is then replaced."""
    first = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = get_constant_schedule_with_warmup(optimizer=first, num_warmup_steps=1000)
    return torch.optim.AdamW(model.parameters(), lr=rate), schedule


def steps(model, adamw, schedule, count, seed):
    """Updates with drawn gradients: what matters here is that nothing is lost on the way."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for name, parameter in model.named_parameters():
            if name != UNUSED:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        adamw.step()
        schedule.step()


def checkpoint(model, adamw, schedule, epoch, loss):
    return {
        "model": model.state_dict(),
        "optimizer": adamw.state_dict(),
        "lr_sched": schedule.state_dict(),
        "epoch": epoch,
        "best_epoch": epoch,
        "min_eval_loss": loss,
    }
