"""Golden values of CLaMP-DPO in PyTorch, the original's way: float32, dropout off, on the CPU.

    PYTHONPATH=.tools/python python3 trainer/tests/golden/make_dpo.py

Starts from model/tests/golden/model.pth and the pieces of training.safetensors. Writes dpo.safetensors and dpo.json
beside this script:

    loss/…      log-probabilities of made-up pairs, the loss of each and its gradient
    acts/…      five steps of two pairs each, the chosen pieces less likely than for the reference: lambda acts
    rests/…     the same, the chosen pieces more likely: it does not
    whole/…     five steps on one pair of texts (dpo.json), the reference being the network as it starts

A run has its pairs (numbers of pieces), the reference's log-probabilities, loss and gradient norm before clipping of
every step, and of every parameter at the end at most 256 numbers, evenly spaced, as `model/NAME`.
"""

import json
import pathlib
import random
import sys

import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "scripts/reference"))
import notagen  # noqa: E402
import patches as patching  # noqa: E402

BETA, LAMBDA, LEARNING_RATE, MAX_NORM, STEPS, PAIRS = 0.1, 10.0, 1e-5, 1.0, 5, 2


def loss_of(policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    """DPO-positive, of one pair or of many."""
    margin = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    # Not clamp, whose gradient at 0 is 1: the original's `max(0, …)` has none there.
    fall = torch.relu(reference_chosen - policy_chosen)
    return -torch.nn.functional.logsigmoid(BETA * (margin - LAMBDA * fall))


def log_probability(model, piece):
    """Of one piece in a forward pass of its own."""
    logits, targets, _ = model(piece[None], torch.ones(1, len(piece), dtype=torch.long))
    chosen = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return chosen[targets != patching.PAD].sum()


def few(tensor):
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // 256)][:256].clone()


def run(pieces, pairs, offset):
    """`offset` is added to what the network gives a chosen piece at first, and makes the reference."""
    model = notagen.load(ROOT / "model/tests/golden/model.pth").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    with torch.no_grad():
        at_first = torch.stack([log_probability(model, piece) for piece in pieces])
    log = {"loss": [], "grad_norm": [], "reference": []}
    acting = 0
    for step in pairs:
        total = 0.0
        references = [[at_first[chosen] + offset, at_first[rejected]] for chosen, rejected in step]
        for (chosen, rejected), reference in zip(step, references):
            policy = log_probability(model, pieces[chosen]), log_probability(model, pieces[rejected])
            acting += int(policy[0] < reference[0])
            loss = loss_of(*policy, *reference) / len(step)
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log["loss"].append(total)
        log["grad_norm"].append(norm.item())
        log["reference"].append([[r.item() for r in pair] for pair in references])
    print(f"losses {log['loss']}, norms {log['grad_norm']}, lambda acts in {acting} of {sum(map(len, pairs))}")
    result = {name: torch.tensor(values, dtype=torch.float64) for name, values in log.items()}
    result["pairs"] = torch.tensor(pairs)
    return result | {f"model/{name}": few(tensor) for name, tensor in model.named_parameters()}


def losses():
    generator = torch.Generator().manual_seed(5)
    policy, reference = -3000 + 30 * torch.randn(2, 2, 16, generator=generator)
    policy.requires_grad_()
    loss = loss_of(*policy, *reference)
    loss.sum().backward()
    acting = int((policy[0] < reference[0]).sum())
    assert 0 < acting < 16
    return {"policy": policy.detach(), "reference": reference, "loss": loss.detach(), "gradient": policy.grad}


def made_up_text(generator):
    """A short piece, plain and with the tags of its lines."""
    head = f"%%score 1 2\nL:1/8\nK:{generator.choice('CDFG')}\nV:1 treble\nV:2 bass\n"
    bar = lambda: "".join(generator.choice(["C2", "D2", "E2", "G2", "A", "c"]) for _ in range(4))
    body = [f"[V:1]{bar()}|[V:2]{bar()}|\n" for _ in range(4)]
    tagged = [f"[r:{i}/{len(body) - i - 1}]{line}" for i, line in enumerate(body)]
    return head + "".join(body), head + "".join(tagged)


def main():
    torch.set_num_threads(1)
    stored = load_file(HERE / "training.safetensors")
    pieces = [patches[:length].long() for patches, length in zip(stored["patches"], stored["lengths"])]
    pairs = [[[(PAIRS * step + i) % 6, 6 + (3 * step + i) % 6] for i in range(PAIRS)] for step in range(STEPS)]
    generator = random.Random(3)
    (chosen, tagged_chosen), (rejected, tagged_rejected) = made_up_text(generator), made_up_text(generator)
    whole = [torch.tensor(sum(patching.encode_whole(text), [])) for text in (chosen, rejected)]
    groups = {
        "loss": losses(),
        "acts": run(pieces, pairs, 40.0),
        "rests": run(pieces, pairs, -8.0),
        "whole": run(whole, [[[0, 1]]] * STEPS, 0.0),
    }
    golden = {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
    notagen.write_tensors(HERE / "dpo.safetensors", golden)
    texts = {"chosen": tagged_chosen, "rejected": tagged_rejected}
    notagen.write_atomically(HERE / "dpo.json", lambda path: path.write_text(json.dumps(texts, indent=1) + "\n"))
    print(notagen.versions())


if __name__ == "__main__":
    main()
