"""Golden values of M3 and CLaMP 2: features, loss and gradients from transformers in float32.

    PYTHONPATH=.tools/python python3 model/tests/golden/make_m3.py CLAMP2

CLAMP2 is a clone of the original (github sanderwood/clamp2), whose model has to agree with scripts/reference/m3.py.
Writes clamp2.pth and m3.pth (weights in the original's file formats, buffers of old transformers included) and
m3.safetensors beside this script.
"""

import pathlib
import sys
import types

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import m3  # noqa: E402
import notagen  # noqa: E402

A = m3.Architecture(patch_size=64, patch_length=16, patch_layers=2, token_layers=2, hidden_size=128, dropout=0.0)
WIDTH = 96
LENGTHS = [5, 16, 15, 17, 40, 16, 48, 5]
STRIDE = 61  # every 61st element of a gradient is kept


def pooled(module, generator, pool):
    """Random weights as overlapping windows into one pool of numbers, which keeps the file small."""
    weights = {}
    for number, (name, tensor) in enumerate(module.state_dict().items()):
        if name == "decoder.base.lm_head.weight":
            weights[name] = weights["decoder.base.transformer.wte.weight"]
        elif ("LayerNorm" in name or ".ln_" in name) and name.endswith("weight"):
            weights[name] = 1 + 0.3 * torch.randn(tensor.shape, generator=generator)
        elif tensor.dim() == 1:
            weights[name] = pool[number * 101:][:tensor.numel()]
        else:
            rows, columns = tensor.shape
            weights[name] = pool.as_strided((rows, columns), (min(columns, (len(pool) - columns - 8_000) // rows), 1), number * 101)
    return weights


def piece(length, generator):
    patches = torch.zeros(length, A.patch_size, dtype=torch.long)
    for place in range(length):
        filled = int(torch.randint(2, A.patch_size + 9, (1,), generator=generator))
        patches[place, :filled] = torch.randint(32, 127, (min(filled, A.patch_size),), generator=generator)
        patches[place, 0] = 1
        if filled <= A.patch_size:
            patches[place, filled - 1] = 2
    patches[0] = 1
    patches[-1] = torch.tensor([1] + [2] * (A.patch_size - 1))
    return patches


def check_original(clone, model, clamp2, pieces, masked):
    sys.path.insert(0, str(clone / "code"))
    import utils as original

    original.PATCH_LENGTH, original.M3_HIDDEN_SIZE = A.patch_length, A.hidden_size
    theirs = original.M3Model(A.bert(), A.gpt2()).eval()
    theirs.load_state_dict(model.state_dict())
    expected = theirs(masked["input"], masked["mask"], masked["selected"].float(), masked["target"]).loss
    assert torch.equal(expected, model(*(masked[key] for key in ("input", "mask", "selected", "target")))), "the loss differs"
    stub = types.SimpleNamespace(device="cpu", music_model=original.M3PatchEncoder(A.bert()).eval(), music_proj=clamp2.music_proj)
    stub.music_model.load_state_dict(clamp2.music_model.state_dict())
    stub.avg_pooling = lambda *arguments: original.CLaMP2Model.avg_pooling(stub, *arguments)
    one = pieces[0]
    padded = torch.zeros(1, A.patch_length, A.patch_size, dtype=torch.long)
    padded[0, :len(one)] = one
    mask = (torch.arange(A.patch_length) < len(one)).float()[None]
    expected = original.CLaMP2Model.get_music_features(stub, padded, mask, get_normalized=True)[0]
    ours = m3.feature(clamp2.music_model, clamp2.music_proj, one, A.patch_length)
    assert torch.allclose(expected, ours, atol=1e-6), "the feature differs"


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20261121)
    pool = torch.randn(60_000, generator=generator) * 0.06
    model, clamp2 = m3.M3(A).eval(), m3.Clamp2(A, WIDTH).eval()
    weights = {"m3": pooled(model, generator, pool), "clamp2": pooled(clamp2, generator, pool)}
    model.load_state_dict(weights["m3"])
    clamp2.load_state_dict(weights["clamp2"])

    pieces = [piece(length, generator) for length in LENGTHS]
    golden = {f"piece/{i}": patches.to(torch.uint8) for i, patches in enumerate(pieces)}
    with torch.no_grad():
        golden["features/clamp2"] = torch.stack([m3.feature(clamp2.music_model, clamp2.music_proj, p, A.patch_length) for p in pieces])
        golden["features/m3"] = torch.stack([m3.feature(model.encoder, torch.nn.Identity(), p, A.patch_length) for p in pieces])

    # One masked piece, one shuffled, one as it is; of the last one patch is empty but for its marks.
    targets = [patches[:A.patch_length].clone() for patches in (pieces[3], pieces[2], pieces[0])]
    inputs, selected = [target.clone() for target in targets], []
    for kind, target, shown in zip(("mask", "shuffle", "original"), targets, inputs):
        chosen = torch.randperm(len(target), generator=generator) < -(-9 * len(target) // 20)
        for place in chosen.nonzero().flatten() if kind != "original" else []:
            shown[place] = 3 if kind == "mask" else torch.cat([target[place, :1], target[place, 1:].flip(0)])
        selected.append(chosen)
    pad = lambda tensors: torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    masked = {"input": pad(inputs), "target": pad(targets), "selected": pad(selected), "mask": pad([torch.ones(len(t)) for t in targets])}
    loss = model(masked["input"], masked["mask"], masked["selected"], masked["target"])
    loss.backward()
    golden |= {"loss": loss.detach(), "tokens": (masked["target"][masked["selected"]][:, 1:] != 0).sum()}
    golden |= {f"masked/{name}": tensor.to(torch.uint8) for name, tensor in masked.items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            golden[f"gradient/{name}"] = parameter.grad.flatten()[::STRIDE].clone()
            golden[f"gradient_norm/{name}"] = parameter.grad.double().norm()
    check_original(pathlib.Path(sys.argv[1]), model, clamp2, pieces, masked)

    weights["m3"]["encoder.base.embeddings.position_ids"] = torch.arange(A.patch_length)[None]
    weights["m3"]["decoder.base.transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
    weights["m3"]["decoder.base.transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    for name, state in weights.items():
        checkpoint = {"model": state, "epoch": 7, "best_epoch": 5, "min_eval_loss": 0.625}
        notagen.write_atomically(HERE / f"{name}.pth", lambda path: torch.save(checkpoint, path))
    notagen.write_tensors(HERE / "m3.safetensors", golden)
    print(f"loss {loss.item():.6f}")


if __name__ == "__main__":
    main()
