"""Golden distributions of the sampler: PyPI's `samplings`, called as the original calls it.

    PYTHONPATH=.tools/python python3 model/tests/golden/make_sampling.py

Writes sampling.safetensors beside this script: for each case the logits, the settings, and the
probabilities that a character is drawn with after top-k, top-p and temperature. Where `ties` is 1 two
equal probabilities straddle a cut: which of them stays is up to the sort, so only the sorted
distribution is meaningful.
"""

import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import notagen  # noqa: E402

SETTINGS = [(9, 0.9, 1.2), (0, 1.0, 1.0), (1, 0.9, 1.2), (1, 1.0, 1.0), (5, 1.0, 0.7), (0, 0.9, 1.0), (0, 0.52, 1.2),
            (128, 0.9, 1.2), (128, 1.0, 2.0), (9, 1.0, 1.2), (9, 0.05, 1.2), (40, 0.99, 0.5)]


def logits_of_cases(generator):
    """(logits, ties) of the kinds of distribution that a model gives."""
    normal = lambda scale: torch.randn(notagen.VOCABULARY, generator=generator) * scale
    peaked = normal(1.0)
    peaked[77] += 12
    certain = normal(1.0)
    certain[3] += 60
    tiny = normal(1.0) - 40
    tiny[50:53] = torch.tensor([2.0, 1.5, 1.0])
    few = torch.full((notagen.VOCABULARY,), float("-inf"))
    few[[10, 20, 30]] = torch.tensor([0.5, 0.0, -1.0])
    pairs = normal(1.5).sort(descending=True).values
    pairs[8:10] = pairs[8]
    flat = torch.zeros(notagen.VOCABULARY)
    return [(normal(0.5), 0), (normal(2.0), 0), (normal(5.0), 0), (peaked, 0), (certain, 0), (tiny, 0), (few, 0), (pairs, 1), (flat, 1)]


def main():
    torch.set_num_threads(1)
    cases = [(logits, ties, *setting) for logits, ties in logits_of_cases(torch.Generator().manual_seed(3)) for setting in SETTINGS]
    expected = [notagen.sampling_distribution(logits.softmax(-1).numpy(), k, p, t) for logits, _, k, p, t in cases]
    notagen.write_tensors(HERE / "sampling.safetensors", {
        "logits": torch.stack([case[0] for case in cases]),
        "ties": torch.tensor([case[1] for case in cases]),
        "top_k": torch.tensor([case[2] for case in cases]),
        "top_p": torch.tensor([case[3] for case in cases], dtype=torch.float64),
        "temperature": torch.tensor([case[4] for case in cases], dtype=torch.float64),
        "probabilities": torch.stack([torch.as_tensor(p) for p in expected]),
    })
    print(f"{len(cases)} cases; {notagen.versions()}, samplings 0.1.7")


if __name__ == "__main__":
    main()
