"""Golden results of the original's preprocessing, one JSON line a piece.

    PYTHONPATH=.tools/python python3 preprocess.py NOTAGEN_CLONE OUTPUT.jsonl SCORES [--damaged N]

runs data/2_data_preprocess.py and rest_unreduce of inference/inference.py from a clone of the
original (their folders are set in the text at run time) with abctoolkit 0.0.6, and writes the
SHA-256 of what comes in and goes out, the first 16 digits (6 for damaged pieces):

    name, input           the piece and its standard ABC
    key                   the index's key; absent where the original refuses the piece
    flags                 check_alignment_unrotated: bar lines, number of bars, durations ("101")
    interleaved           interleaved/<name>.abc
    original_key          augmented/<key's signature>/…
    keys                  the fifteen augmented files, one after another in the original's order
    rotated, uninterleaved   check_alignment_rotated and unrotate_abc of the interleaved piece
    unreduced             rest_unreduce of the reduced piece, and of it with stream tags
    damaged_reduced       the same with the tagged piece damaged by `damage`, six times
    damaged               the piece damaged, N times: interleaved, in C and in Eb; "-" if refused
"""

import ast
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile

from abctoolkit.check import check_alignment_rotated, check_alignment_unrotated
from abctoolkit.duration import calculate_bartext_duration
from abctoolkit.rotate import unrotate_abc
from abctoolkit.transpose import Key2index, Mode2Key
from abctoolkit.utils import Barline_regexPattern

ALPHABET = "[]V:|z8/(\"!{}<>-1K%\n AGb^_=,'3xü"


def digest(data):
    if isinstance(data, str):
        data = data.encode()
    return hashlib.sha256(data).hexdigest()[:16]


def damage(text, seed, most):
    """The text with up to `most` edits that depend on the seed (a string) alone."""
    state = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")

    def draw(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    for _ in range(1 + draw(most)):
        kind = draw(7)
        if kind < 3:
            place = draw(len(text) + 1)
            new = "" if kind == 0 else ALPHABET[draw(len(ALPHABET))]
            text = text[:place] + new + text[place + (kind != 1) :]
        elif kind < 6:
            lines = text.split("\n")
            a, b = draw(len(lines)), draw(len(lines))
            if kind == 3:
                del lines[a]
            elif kind == 4:
                lines.insert(b, lines[a])
            else:
                lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
        elif draw(4) == 0:
            text = text[: draw(len(text) + 1)]
    return text


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception:
        return None


def flags(values):
    return "-" if values is None else "".join("01"[v] for v in values)


def start(clone):
    global home, pipeline, rest_unreduce, space, seen
    home = tempfile.mkdtemp()
    with open(os.path.join(clone, "data/2_data_preprocess.py"), encoding="utf-8") as file:
        source = file.read()
    for name in ("INTERLEAVED", "AUGMENTED"):
        source = source.replace(f"{name}_FOLDER = ''", f"{name}_FOLDER = {os.path.join(home, name)!r}")
    space = {"__name__": "preprocess"}
    exec(compile(source, "2_data_preprocess.py", "exec"), space)
    pipeline = space["abc_preprocess_pipeline"]

    def recording(lines):
        global seen
        seen = check_alignment_unrotated(lines)
        return seen

    space["check_alignment_unrotated"] = recording

    with open(os.path.join(clone, "inference/inference.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "rest_unreduce"]
    inference = {
        "re": re,
        "Barline_regexPattern": Barline_regexPattern,
        "calculate_bartext_duration": calculate_bartext_duration,
    }
    exec(compile(tree, "inference.py", "exec"), inference)
    rest_unreduce = inference["rest_unreduce"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def unreduce(text):
    lines = [line + "\n" for line in text.split("\n") if line]
    lines = attempt(rest_unreduce, lines)
    return "-" if lines is None else digest("".join(lines))


def run(path, keys):
    """The key and the written files of one piece, or None; `keys` are the keys to write."""
    space["Key2index"] = {key: Key2index[key] for key in keys}
    name = os.path.basename(path).removesuffix(".abc")
    try:
        key = pipeline(path)[1]
        interleaved = read(os.path.join(home, "INTERLEAVED", name + ".abc"))
        files = [read(os.path.join(home, "AUGMENTED", k, f"{name}_{k}.abc")) for k in keys]
    except Exception:
        return None
    return key, interleaved, files


def piece(job):
    global seen
    path, damaged = job
    name = os.path.basename(path).removesuffix(".abc")
    source = read(path)
    line = {"name": name, "input": digest(source)}
    with contextlib.redirect_stdout(io.StringIO()):
        seen = None
        result = run(path, list(Key2index))
        line["flags"] = flags(seen)
        if result is not None:
            line["key"], interleaved, files = result
            line["interleaved"] = digest(interleaved)
            original = dict(zip(Key2index, files))[Mode2Key[line["key"]]]
            line["original_key"] = digest(original)
            line["keys"] = digest(b"".join(files))
            lines = io.StringIO(interleaved.decode()).readlines()
            line["rotated"] = flags(attempt(check_alignment_rotated, lines))
            single = attempt(unrotate_abc, lines)
            line["uninterleaved"] = "-" if single is None else digest("".join(single))
            reduced = original.decode()
            body = reduced.find("\n[V:") + 1
            bars = reduced[body:].splitlines()
            tagged = reduced[:body] + "".join(
                f"[r:{i}/{len(bars) - i - 1}]{bar}\n" for i, bar in enumerate(bars)
            )
            line["unreduced"] = [unreduce(reduced), unreduce(tagged)]
            line["damaged_reduced"] = [
                unreduce(damage(tagged, f"{name} reduced {i}", 8))[:6] for i in range(6)
            ]
        if damaged and len(source) < 8000:
            line["damaged"] = []
            for i in range(damaged):
                other = os.path.join(home, name + ".abc")
                with open(other, "wb") as file:
                    file.write(damage(source.decode(), f"{name} {i}", 2).encode())
                result = run(other, ["C", "Eb"])
                line["damaged"].append(
                    "-" if result is None else digest(" ".join(map(digest, [result[1], *result[2]])))[:6]
                )
    for folder in ("INTERLEAVED", "AUGMENTED"):
        shutil.rmtree(os.path.join(home, folder))
        for key in ("", *Key2index):
            os.makedirs(os.path.join(home, folder, key), exist_ok=True)
    return json.dumps(line)


def main():
    clone, output, scores, *rest = sys.argv[1:]
    damaged = int(rest[1]) if rest else 0
    paths = sorted(os.path.join(scores, file) for file in os.listdir(scores) if file.endswith(".abc"))
    with multiprocessing.Pool(2, start, (clone,)) as pool:
        lines = pool.map(piece, [(path, damaged) for path in paths], 4)
    with open(output + ".part", "w") as file:
        file.writelines(line + "\n" for line in lines)
    os.replace(output + ".part", output)


if __name__ == "__main__":
    main()
