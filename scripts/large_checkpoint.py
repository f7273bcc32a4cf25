"""Makes files as the published weights are and uses them, or compares two such files: see large-checkpoint."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = ROOT / "target/release/notagen-train"
CHECKPOINT = ROOT / "target/release/examples/checkpoint"
# CLaMP-DPO saves weights alone (the original's RL/train.py), and NotaGen-X comes out of it.
WEIGHTS_ALONE = ("notagen-rl3", "notagen-x")
PIECE = """%%score { 1 | 2 }
L:1/8
Q:1/4=100
M:4/4
K:C
V:1 treble nm="Piano"
V:2 bass
""" + "".join(f"[V:1]{a}4 {b}2 c2|[V:2]C,4 {a},4|\n" for a, b in zip("CDEFGABCDEFG", "EFGABcEFGABc"))


def build(entry, fill):
    """The network of an entry of the catalogue, and what the original saves of it."""
    import torch

    sys.path[:0] = [str(ROOT / "model/tests/golden")]
    from checkpoints import UNUSED, checkpoint, network, optimizer

    length, layers, decoder, hidden = (entry[key] for key in ("patch_length", "patch_layers", "char_layers", "hidden_size"))
    with torch.device("meta"):
        model = network(length, layers, decoder, hidden) if entry["kind"] == "notagen" else encoder(entry["kind"])
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "tie_weights"):
            module.tie_weights()
    for seed, (_, parameter) in enumerate(model.named_parameters()):
        fill(parameter.data, seed)
    if entry["name"] in WEIGHTS_ALONE:
        return model, {"model": model.state_dict()}
    adamw, schedule = optimizer(model)
    for seed, (key, parameter) in enumerate(model.named_parameters()):
        if key != UNUSED:
            moments = (fill(torch.empty_like(parameter.data), 1000 * k + seed) for k in (1, 2))
            adamw.state[parameter] = {"step": torch.tensor(1.0)} | dict(zip(("exp_avg", "exp_avg_sq"), moments))
    return model, checkpoint(model, adamw, schedule, 3, 0.25)


def headers(folder):
    """Files of full size of which all but the numbers is written: the rest is a hole. Entries come a line."""
    import torch

    for line in sys.stdin:
        entry = json.loads(line)
        with torch.serialization.skip_data():
            torch.save(build(entry, lambda tensor, seed: tensor)[1], pathlib.Path(folder) / entry["file"])


def make(entry, path):
    """With drawn numbers; prints a NotaGen's log-probability of the piece."""
    import torch

    entry = json.loads(entry)
    fill = lambda tensor, seed: tensor.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    model, contents = build(entry, fill)
    torch.save(contents, path)
    if entry["kind"] == "notagen":
        import patches

        rows = sum(patches.encode_whole(PIECE), [])
        mask = torch.ones(1, len(rows), dtype=torch.long)
        with torch.no_grad():
            logp, tokens = model.eval().log_probability(torch.tensor([rows]), mask)
        print(json.dumps({"logp": logp.item(), "tokens": tokens.item(), "patches": len(rows)}))


def encoder(kind):
    import m3
    from torch import nn
    from transformers import XLMRobertaConfig, XLMRobertaModel

    architecture = m3.Architecture()
    if kind == "m3":
        return m3.M3(architecture)
    model = m3.Clamp2(architecture, 768)
    # The sizes of FacebookAI/xlm-roberta-base.
    model.text_model = XLMRobertaModel(XLMRobertaConfig(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1))
    model.text_proj = nn.Linear(768, 768)
    return model


def compare(first, second):
    import torch

    a, b = (torch.load(path, weights_only=True, mmap=True) for path in (first, second))
    print(f"the copy holds the same {same(a, b)} tensors")


def same(a, b):
    import torch

    assert type(a) is type(b), (type(a), type(b))
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
        return 1
    if isinstance(a, dict):
        assert list(a) == list(b)
        return sum(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return sum(map(same, a, b))
    assert a == b, (a, b)
    return 0


def run(*command):
    """Standard output of a command; says how long it took and how much memory."""
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (command, status)
    what = " ".join(str(word) for word in command[:4] if not str(word).startswith("/"))
    print(f"  {what or pathlib.Path(command[0]).name:<60.60} {time.monotonic() - started:7.2f} s {usage.ru_maxrss / 1e6:7.2f} GB", flush=True)
    return out


def use(entry, folder):
    file = folder / entry["file"]
    myself = (sys.executable, __file__)
    truth = run(*myself, "make", json.dumps(entry), file)
    print(f"{entry['name']}: {file.stat().st_size / 1e9:.2f} GB", flush=True)
    found = json.loads(run(TRAIN, "weights", "inspect", "--json", file))
    for key in ("kind", "patch_size", "patch_length", "patch_layers", "char_layers", "hidden_size"):
        assert found[key] == entry[key], (key, found, entry)
    alone = entry["name"] in WEIGHTS_ALONE
    saved = (None, None) if alone else (3, 0.25)
    assert (found["dtype"], found["epoch"], found["min_eval_loss"]) == ("float32", *saved), found
    print(f"  {json.dumps(found | {'path': '…'})}")
    if entry["kind"] == "notagen":
        print(run(CHECKPOINT, file), end="")
        run(*myself, "compare", file, file.with_suffix(".copy.pth"))
        file.with_suffix(".copy.pth").unlink()
        piece = folder / "piece.abc"
        piece.write_text(PIECE)
        truth, ours = json.loads(truth), json.loads(run(TRAIN, "logprob", "--weights", file, "--device", "cpu", "--json", piece))
        assert (ours["patches"], ours["tokens"]) == (truth["patches"], truth["tokens"]), (ours, truth)
        print(f"  log-probability {ours['logp']:.4f}, PyTorch's {truth['logp']:.4f}")
        assert abs(ours["logp"] / truth["logp"] - 1) < 1e-5, (ours, truth)
        out = folder / "music"
        run(TRAIN, "generate", "--weights", file, "--output", out, "--samples", 1, "--max-patches", 8, "--device", "cpu")
        print(f"  {json.loads((out / 'summary.json').read_text())}")
    else:
        import numpy

        (folder / "pieces").mkdir(exist_ok=True)
        (folder / "pieces/piece.abc").write_text(PIECE)
        out = folder / "features"
        run(TRAIN, "features", "--weights", file, "--input", folder / "pieces", "--output", out, "--device", "cpu")
        feature = numpy.load(out / "piece.npy")
        assert feature.shape == (1, 768) and feature.dtype == numpy.float32 and numpy.isfinite(feature).all()
    subprocess.run(["rm", "-rf", file, folder / "music", folder / "features"], check=True)


def main(folder, *names):
    listed = subprocess.run([TRAIN, "weights", "fetch", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    catalogue = {entry["name"]: entry for entry in map(json.loads, listed.stdout.splitlines())}
    for name in names or catalogue:
        use(catalogue[name], pathlib.Path(folder))
    print("all as they should be")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"all": main, "make": make, "compare": compare, "headers": headers}[command](*arguments)
