"""Golden values of the network: forward, loss, log-probabilities and gradients from transformers' GPT-2 in float32.

    PYTHONPATH=.tools/python python3 model/tests/golden/make_model.py

Writes model.pth (weights, in the original's file format) and model.safetensors beside this script.
"""

import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import notagen  # noqa: E402
from patches import EOS  # noqa: E402

LENGTHS = [15, 10]
GRADIENT_STRIDE = 7  # every seventh element is kept: the sizes are no multiples of 7, so these visit every row and column


def pooled_weights(model, generator):
    """Random weights as overlapping windows into one pool of numbers, which keeps the file small.

    PyTorch saves such views as one shared storage with an offset and strides for each tensor.
    """
    pool = torch.randn(90_000, generator=generator) * 0.06
    weights = {}
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        if name == "char_level_decoder.base.lm_head.weight":
            weights[name] = weights["char_level_decoder.base.transformer.wte.weight"]
        elif ".ln_" in name and name.endswith("weight"):
            weights[name] = 1 + 0.3 * torch.randn(tensor.shape, generator=generator)
        elif tensor.dim() == 1:
            weights[name] = pool[number * 101:][:tensor.numel()]
        else:
            rows, columns = tensor.shape
            row_stride = min(columns, (len(pool) - columns - 8_000) // rows)
            weights[name] = pool.as_strided((rows, columns), (row_stride, 1), number * 101)
    return weights


def ragged_batch(generator):
    patches = torch.zeros(len(LENGTHS), max(LENGTHS), 16, dtype=torch.long)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for piece, length in enumerate(LENGTHS):
        mask[piece, :length] = 1
        for patch in range(length):
            filled = int(torch.randint(2, 17, (1,), generator=generator))
            patches[piece, patch, :filled] = torch.randint(32, 127, (filled,), generator=generator)
            if filled < 16:
                patches[piece, patch, filled - 1] = EOS
    return patches, mask


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20260101)
    architecture = notagen.Architecture(patch_length=64, patch_layers=2, char_layers=2, hidden_size=128, dropout=0.0)
    model = notagen.NotaGen(architecture, attention="eager")
    weights = pooled_weights(model, generator)
    model.load_state_dict(weights)
    patches, mask = ragged_batch(generator)

    encoded = model.patch_level_decoder(patches, mask)
    logits, targets, piece = model(patches, mask)
    log_probability, tokens = model.log_probability(patches, mask)
    loss = model.loss(patches, mask)
    loss.backward()
    half = {}
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype), torch.no_grad():
            half[dtype] = model.loss(patches, mask)
    golden = {
        "patches": patches, "mask": mask, "encoded": encoded.detach() * mask[..., None], "targets": targets, "piece": piece,
        "logits": logits.detach() * (targets != 0)[..., None],
        "log_probability": log_probability.detach(), "tokens": tokens, "loss": loss.detach(),
        "loss_bf16": half[torch.bfloat16], "loss_fp16": half[torch.float16],
    }
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            golden[f"gradient/{name}"] = parameter.grad.flatten()[::GRADIENT_STRIDE].clone()
            golden[f"gradient_norm/{name}"] = parameter.grad.double().norm()
    checkpoint = {"model": weights, "epoch": 7, "best_epoch": 5, "min_eval_loss": 0.625}
    notagen.write_atomically(HERE / "model.pth", lambda path: torch.save(checkpoint, path))
    notagen.write_tensors(HERE / "model.safetensors", golden)
    print(f"loss {loss.item():.6f}, bf16 {half[torch.bfloat16].item():.6f}, fp16 {half[torch.float16].item():.6f}")


if __name__ == "__main__":
    main()
