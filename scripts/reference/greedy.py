"""Golden greedy text: what a small model writes the original's way, across several slides of its window.

    PYTHONPATH=.tools/python python3 scripts/reference/greedy.py data/quickstart/augmented/*/bach_bwv*.abc

Trains a tiny model on the given pieces for a minute or two (random weights would write neither bars nor
lines), rounds its weights to float16, and writes greedy.pth and greedy.json to model/tests/golden.
The weights are used in float32. Without pieces it takes the greedy.pth that is there.
"""

import json
import pathlib
import random
import sys

import torch

import notagen
import patches as patching

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "model/tests/golden"
ARCHITECTURE = notagen.Architecture(patch_length=64, patch_layers=2, char_layers=1, hidden_size=64, dropout=0.0)
STEPS, BATCH, LEARNING_RATE = 1500, 8, 3e-3
PROMPTS = [  # metre and key of a prompt, or none; the most characters
    (None, 4_000),
    (("4/4", "C"), 4_000),
    (("3/4", "Dm"), 4_000),
    (("3/2", "D"), 4_000),
    (("3/4", "F"), 4_000),
    (("2/2", "Em"), 4_000),
    (("4/4", "Gm"), 700),
]
NEAR_TIE = 2e-4  # logits closer than this could swap in another implementation


def window(piece, generator):
    """Metadata and body from a random line on, as many patches as the model takes."""
    metadata, body = piece
    starts = [0] + [i + 1 for i, row in enumerate(body[:-1]) if ord("\n") in row]
    rows = metadata + body[generator.choice(starts):]
    return torch.tensor(rows[:ARCHITECTURE.patch_length])


def train(texts):
    generator = random.Random(0)
    torch.manual_seed(0)
    pieces = [patching.encode_whole(text) for text in texts]
    model = notagen.NotaGen(ARCHITECTURE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for step in range(STEPS):
        batch = [window(generator.choice(pieces), generator) for _ in range(BATCH)]
        patches = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        lengths = torch.tensor([len(rows) for rows in batch])
        loss = model.loss(patches, (torch.arange(patches.shape[1]) < lengths[:, None]).long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return model


def greedy(model, choice, max_characters):
    prompt = [f"{line}\n" for line in ("%%score [ 1 | 2 | 3 | 4 ]", "L:1/8", f"M:{choice[0]}", f"K:{choice[1]}")] if choice else []
    margins = []

    def watch(logits):
        best = logits.topk(2).values
        margins.append((best[0] - best[1]).item())

    text, ended, slides = notagen.generate_piece(model, prompt, max_characters, top_k=1, top_p=0.9, temperature=1.2, watch=watch)
    print(f"{choice}: {len(text)} characters, {slides} slides, ended {ended}, smallest margin {min(margins):.1e}")
    if min(margins) < NEAR_TIE:
        sys.exit("two logits are too close for a golden file: change STEPS or the prompt")
    return {"prompt": "".join(prompt), "max_characters": max_characters, "ended": ended, "slides": slides, "text": text}


def train_and_write(paths):
    texts = [pathlib.Path(path).read_text() for path in sorted(paths, key=lambda path: pathlib.Path(path).name)]
    texts = [text for text in texts if text.startswith("%%score [ 1 | 2 | 3 | 4 ]") or text.startswith("%%score { 1 | 2 }")][:120]
    print(f"{len(texts)} pieces")
    state = {name: tensor.half() for name, tensor in train(texts).state_dict().items()}
    notagen.write_atomically(GOLDEN / "greedy.pth", lambda path: torch.save({"model": state}, path))


def main():
    torch.set_num_threads(1)
    if sys.argv[1:]:
        train_and_write(sys.argv[1:])
    model = notagen.load(GOLDEN / "greedy.pth").eval()
    golden = {"weights": "greedy.pth", "made with": notagen.versions(), "pieces": [greedy(model, *prompt) for prompt in PROMPTS]}
    notagen.write_atomically(GOLDEN / "greedy.json", lambda path: path.write_text(json.dumps(golden, indent=1) + "\n"))


if __name__ == "__main__":
    main()
