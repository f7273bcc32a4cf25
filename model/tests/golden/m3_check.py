"""Checks what was written here: m3_check.py WEIGHTS FEATURE FOLDER

WEIGHTS loads into M3 by name, nothing missing and nothing left over, and gives a loss. FEATURE is NumPy's to read;
NumPy's own go into FOLDER: one.npy and damaged ones. Prints the loss and the feature as JSON.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import m3  # noqa: E402

weights, feature, folder = map(pathlib.Path, sys.argv[1:])
checkpoint = torch.load(weights, weights_only=True)
model = m3.M3(m3.Architecture(64, 16, 2, 2, 128, 0.0)).eval()
assert list(model.state_dict()) == list(checkpoint["model"]), "names or their order differ"
model.load_state_dict(checkpoint["model"])
tied = [checkpoint["model"][f"decoder.base.{name}.weight"].data_ptr() for name in ("transformer.wte", "lm_head")]
assert tied[0] == tied[1], "the output layer is not the embedding any more"
golden = load_file(HERE / "m3.safetensors")
masked = {name: golden[f"masked/{name}"].long() for name in ("input", "mask", "selected", "target")}
loss = model(masked["input"], masked["mask"], masked["selected"].bool(), masked["target"])
read = np.load(feature, allow_pickle=False)
assert read.dtype == np.float32 and read.shape[0] == 1
np.save(folder / "one.npy", np.arange(5, dtype=np.float32)[None] / 4)
np.save(folder / "double.npy", np.zeros((1, 5)))
np.save(folder / "flat.npy", np.zeros(5, dtype=np.float32))
np.save(folder / "objects.npy", np.array([[None]]))
print(json.dumps({"loss": loss.item(), "feature": read[0].tolist(), "rest": sorted(set(checkpoint) - {"model"})}))
