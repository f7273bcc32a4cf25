"""Pieces and features, and what a plain reading of NotaGen's RL/data.py and clamp2/statistics.py makes of them with
numpy and abctoolkit. Usage: make_preferences.py FOLDER. Among the pieces are equal features (ties, also across the
limit of the chosen), misaligned ones, ungrouped ones, and ones too like a reference."""
import json
import os
import re
import sys

import numpy as np
from abctoolkit.check import check_alignment_unrotated
from abctoolkit.rotate import unrotate_abc

PIECES, REFERENCES, WIDTH, PORTION, LIMIT = 60, 12, 32, 0.15, 0.95
folder = sys.argv[1]
draw = np.random.default_rng(5)


def piece(kind):
    names = {"ungrouped": ("Violin", "Cello", "Violin")}.get(kind, ("Violin", "Violin", "Cello"))
    voices = "".join(f'V:{i + 1} treble nm="{name}"\n' for i, name in enumerate(names))
    bars = ["[V:1]C2 D2 E2 F2|[V:2]C8|[V:3]E4 z4|\n", "[V:1]C4 D4|][V:2]c8|][V:3]G4 z4|]\n"]
    if kind == "short bar":
        bars[0] = "[V:1]C2 D2 E2|[V:2]C8|[V:3]E4 z4|\n"
    if kind == "lost voice":
        bars[1] = "[V:1]C4 D4|][V:2]c8|]\n"
    return "%%score { 1 2 | 3 }\nL:1/8\nM:4/4\nK:C\n" + voices + "".join(bars)


def write(kind, name, feature):
    os.makedirs(f"{folder}/{kind}", exist_ok=True)
    np.save(f"{folder}/{kind}/{name}.npy", feature[None].astype(np.float32))


centre = draw.normal(size=WIDTH)
references = [centre + draw.normal(size=WIDTH) * 0.8 for _ in range(REFERENCES)]
for i, feature in enumerate(references):
    write("reference", f"reference_{i:02}", feature)
features = [centre + draw.normal(size=WIDTH) * draw.uniform(0.3, 2.5) for _ in range(PIECES)]
kinds = [("good", "good", "good", "short bar", "ungrouped", "lost voice")[draw.integers(6)] for _ in range(PIECES)]
for copy, of in ((7, 3), (11, 3), (20, 41), (33, 34)):
    features[copy] = features[of]
for i, of in ((5, 2), (30, 4)):
    features[i], kinds[i] = references[of] * 1.5 + draw.normal(size=WIDTH) * 0.02, "good"
for i in range(PIECES):
    write("features", f"{i:05}", features[i])
    for form in ("interleaved", "original"):
        os.makedirs(f"{folder}/{form}", exist_ok=True)
        with open(f"{folder}/{form}/{i:05}.abc", "w") as file:
            file.write(piece(kinds[i]))


def load(kind):
    names = sorted(os.listdir(f"{folder}/{kind}"))
    return {name[:-4]: np.load(f"{folder}/{kind}/{name}")[0] for name in names}


def cosine(one, other):
    return np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))


truth = load("reference")
mean = np.mean(list(truth.values()), axis=0)
scores = {name: cosine(mean, feature) for name, feature in load("features").items()}
ranked = sorted(scores, key=lambda name: scores[name], reverse=True)
wanted = int(len(scores) * PORTION)


def passes(name):
    with open(f"{folder}/interleaved/{name}.abc") as file:
        lines = file.readlines()
    try:
        aligned = all(check_alignment_unrotated(unrotate_abc(lines)))
    except Exception:
        aligned = False
    appeared, last, grouped = set(), "", True
    for line in lines:
        found = re.search(r'nm="([^"]+)"', line) if line.startswith("V:") and "nm=" in line else None
        if found and found.group(1) != last and found.group(1) in appeared:
            grouped = False
        if found:
            last = found.group(1)
            appeared.add(last)
    feature = np.load(f"{folder}/features/{name}.npy")[0]
    return aligned and grouped and not any(cosine(feature, other) > LIMIT for other in truth.values())


chosen, skipped = [], []
for name in ranked:
    if len(chosen) == wanted:
        break
    (chosen if passes(name) else skipped).append(name)
path = lambda name: os.path.join("original", name + ".abc")
print(json.dumps({
    "preferences": {"chosen": [path(name) for name in chosen], "rejected": [path(name) for name in ranked[-wanted:]]},
    "skipped": skipped,
    "average": float(sum(scores.values()) / len(scores)),
}))
