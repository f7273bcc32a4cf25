"""Loads a checkpoint of an M3 training as the original's train_m3.py does, and takes a step: m3_load.py FILE

Prints the epoch and the best loss in the file.
"""

import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts/reference"))
import m3  # noqa: E402
from transformers import get_constant_schedule_with_warmup  # noqa: E402

torch.set_num_threads(1)
checkpoint = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
model = m3.M3(m3.Architecture(64, 32, 1, 1, 64))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = get_constant_schedule_with_warmup(optimizer=optimizer, num_warmup_steps=2)
model.load_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
schedule.load_state_dict(checkpoint["lr_sched"])
patches = torch.randint(1, 128, (1, 8, 64))
model(patches, torch.ones(1, 8), torch.ones(1, 8, dtype=torch.bool), patches).backward()
unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
assert len(unused) == 3 and len(optimizer.state) == len(list(model.parameters())) - 3, unused
optimizer.step()
schedule.step()
print(checkpoint["epoch"], checkpoint["best_epoch"], checkpoint["min_eval_loss"])
