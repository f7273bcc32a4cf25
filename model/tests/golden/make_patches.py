"""Golden patches: what the original's Patchilizer makes of every piece of the quickstart corpus.

    PYTHONPATH=.tools/python python3 model/tests/golden/make_patches.py NOTAGEN data/quickstart/augmented

NOTAGEN is a clone of the original (github ElectricAlexis/NotaGen). The second argument is the folder that
`preprocess` wrote, KEY/NAME_KEY.abc. Writes patches.jsonl beside this script, a line for each piece:

    piece       KEY/NAME_KEY.abc
    text        hash of the text
    patches     how many patches the whole piece has
    whole       hash of encode_train, uncut
    64, 128     hashes of encode_train cut to that many patches: `head`; `tail` and `middle` where the original
                has that choice; `middle` lists the first, the central and the last of its `cuts` cut lines
    generate    hashes of encode_generate of three texts, cut to 1024 patches: the first third and the first
                two thirds of the characters of decode(whole without its first and last patch), and its metadata
                with the later half of its body lines (rounded down, one at least); null where the original fails

Hashes are the first 16 hexadecimal digits of the SHA-256 of the character codes, one byte each, all patches
in a row. patches_examples.json has the character codes of a few pieces in full.
"""

import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import notagen  # noqa: E402
import patches as patching  # noqa: E402

LENGTHS = (64, 128)
EXAMPLES = ("G/bach_bwv117.4_G.abc",)


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def hashed(rows):
    return digest(bytes(code for row in rows for code in row))


class Forced:
    """Stands in for the module `random` in the original: gives the choices it is told to, and notes what there was."""

    def __init__(self, kind, position=0.0):
        self.kind, self.position, self.kinds, self.cuts = kind, position, [], 0

    def choice(self, options):
        if "head" in options:
            self.kinds = list(options)
            return self.kind if self.kind in options else "head"
        self.cuts = len(options)
        return options[int(self.position * (len(options) - 1))]


def cut(original, text, length, kind, position=0.0):
    forced = original.random = Forced(kind, position)
    return original.Patchilizer().encode_train(text, patch_length=length), forced


def cuts(original, text, length):
    rows, forced = cut(original, text, length, "head")
    result = {"head": hashed(rows)}
    if "tail" in forced.kinds:
        result["tail"] = hashed(cut(original, text, length, "tail")[0])
    if "middle" in forced.kinds:
        variants = [cut(original, text, length, "middle", position) for position in (0.0, 0.5, 1.0)]
        result["cuts"] = variants[0][1].cuts
        result["middle"] = [hashed(rows) for rows, _ in variants]
    return result


def prompts(tagged):
    lines = tagged.splitlines(keepends=True)
    body = next(i for i, line in enumerate(lines) if line.startswith("[r:"))
    keep = max(1, (len(lines) - body) // 2)
    return [tagged[:len(tagged) // 3], tagged[:len(tagged) * 2 // 3], "".join(lines[:body] + lines[body:][-keep:])]


def generated(original, text):
    if not any(line.startswith(("[r:", "[V:")) for line in text.split("\n")):
        return None  # the original never encodes metadata alone, and repeats it when asked to
    try:
        rows = original.Patchilizer().encode_generate(text, patch_length=1024)
    except IndexError:
        return None
    assert rows == patching.encode_generate(text, 1024), "scripts/reference/patches.py differs from the original"
    return hashed(rows)


def main():
    clone, folder = map(pathlib.Path, sys.argv[1:])
    sys.path.insert(0, str(clone / "pretrain"))
    import utils as original

    lines, examples = [], {}
    for path in sorted(folder.glob("*/*.abc")):
        name, text = f"{path.parent.name}/{path.name}", path.read_text(encoding="utf-8")
        whole = original.Patchilizer().encode_train(text, patch_length=10**9)
        head, body = patching.encode_whole(text)
        assert whole == head + body, "scripts/reference/patches.py differs from the original"
        tagged = original.Patchilizer().decode(whole[1:-1])
        assert tagged == patching.decode(whole[1:-1])
        entry = {"piece": name, "text": digest(text.encode()), "patches": len(whole), "whole": hashed(whole)}
        entry |= {str(length): cuts(original, text, length) for length in LENGTHS}
        entry["generate"] = [generated(original, prompt) for prompt in prompts(tagged)]
        lines.append(json.dumps(entry, separators=(",", ":")))
        if name in EXAMPLES:
            tail, _ = cut(original, text, 64, "tail")
            examples[name] = {"text": text, "whole": whole, "tail_64": tail}
    if not lines:
        sys.exit(f"no pieces in {folder}")
    notagen.write_atomically(HERE / "patches.jsonl", lambda path: path.write_text("\n".join(lines) + "\n"))
    notagen.write_atomically(HERE / "patches_examples.json", lambda path: path.write_text(json.dumps(examples, separators=(",", ":")) + "\n"))
    print(f"{len(lines)} pieces; {notagen.versions()}")


if __name__ == "__main__":
    main()
