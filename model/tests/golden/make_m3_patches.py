"""Golden patches of M3: what the original's M3Patchilizer makes of the quickstart corpus and of odd texts.

    PYTHONPATH=.tools/python python3 model/tests/golden/make_m3_patches.py CLAMP2 data/quickstart

CLAMP2 is a clone of the original (github sanderwood/clamp2). The folder has scores/ (standard ABC, with characters
beyond ASCII) and interleaved/ (as `preprocess` writes it). Writes two files beside this script:

m3_patches.tsv, a line for each piece: its name; patches and hash of the score; patches and hash of the interleaved
piece; and hashes of that one cut to 64 patches, if it is longer: its beginning, its end, and its middle from the
second patch on and from the last place possible.

m3_patches_odd.jsonl, a text a line with the number and the hash of its patches, or null where the original fails.

Comments are left out of pieces as the original's extract_clamp2.py (in NotaGen) does. Hashes are the first 16
hexadecimal digits of the SHA-256 of the character codes, one byte each, all patches in a row.
"""

import hashlib
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts/reference"))
import notagen  # noqa: E402

CUT = 64
ODD = [
    "", "\n", "|", "||", "|\n", "A|\n|:", "|:A|\n", "|:A\n", "A\n", "A|B\n", "A||B|]\n", "[|A|]", "::A::B\n", "|||\n", "A|||B\n",
    "K:C\nA|B|\n", "K:", ":|", "%%score 1\n%x|y|\n", "% a|b|\n", "w:la-la|\n", "1:x|y|\n", "\n\nA|\n", "A|\u2028B|\n", "V:1 \u00e9\u266f\u201e|\n",
    "[V:1]" + "A" * 80 + "|[V:2]" + "B" * 57 + "|\n", "A" * 62 + "\n", "B" * 61 + "|" + "C" * 62 + "|\n", "\x00A|\x01\x02|\n", "A|\ufeff|\n",
    "ticks_per_beat 480\nnote 1 2\nnote 3 4\nnote 5\n", "ticks_per_beat", "ticks_per_beat\nA|\n", "ticks_per_beat 480", "ticks_per_beat \n \n\n x\n",
    "ticks_per_beat 480\nnote_on 0 64 0 1\nnote 0 64\nnote_on\nnote\n" + "control_change 0 0 0 7 100\n" * 9 + "end_of_track 1 0\n",
]


def digest(rows):
    return hashlib.sha256(bytes(code for row in rows for code in row)).hexdigest()[:16]


def text_of(path):
    lines = path.open(encoding="utf-8").readlines()
    return "".join(line for line in lines if line.startswith("%%") or not line.startswith("%"))


class Forced:
    """Stands in for the module `random` in the original."""

    def __init__(self, kind, last=False):
        self.kind, self.last = kind, last

    def choice(self, options):
        return self.kind

    def randint(self, first, last):
        return last if self.last else first


def odd_texts():
    generator = random.Random(20261121)
    pieces = ["|", ":", "[", "]", "A", "z2", "[V:1]", "\n", " ", "%", "K:", "\u00fc", "\u266d", "\t", "w:"]
    messages = ["note_on", "note", "n", "control_change 1", " ", "0", "64 100", "\n", "\n", "\u00e9"]
    for _ in range(200):
        yield "".join(generator.choices(pieces, k=generator.randint(1, 25)))
    for _ in range(60):
        yield "ticks_per_beat 480\n" + " ".join(generator.choices(messages, k=generator.randint(1, 60)))


def main():
    clone, folder = map(pathlib.Path, sys.argv[1:])
    sys.path.insert(0, str(clone / "code"))
    import utils as original

    patchilizer = original.M3Patchilizer()
    encode = lambda text, **options: patchilizer.encode(text, add_special_patches=True, **options)
    lines = []
    for path in sorted((folder / "interleaved").glob("*.abc")):
        score, text = encode(text_of(folder / "scores" / path.name)), text_of(path)
        whole = encode(text)
        fields = [path.name, len(score), digest(score), len(whole), digest(whole)]
        if len(whole) > CUT:
            original.PATCH_LENGTH = CUT
            for forced in (Forced("head"), Forced("tail"), Forced("middle"), Forced("middle", last=True)):
                original.random = forced
                fields.append(digest(encode(text, truncate=True, random_truncate=True)))
        lines.append("\t".join(map(str, fields)))
    odd = []
    for text in ODD + list(odd_texts()):
        try:
            rows = encode(text)
            odd.append([text, len(rows), digest(rows)])
        except IndexError:
            odd.append([text, None, None])
    notagen.write_atomically(HERE / "m3_patches.tsv", lambda path: path.write_text("\n".join(lines) + "\n"))
    dumped = "\n".join(json.dumps(entry) for entry in odd) + "\n"
    notagen.write_atomically(HERE / "m3_patches_odd.jsonl", lambda path: path.write_text(dumped))
    print(f"{len(lines)} pieces, {len(odd)} odd texts, {sum(entry[1] is None for entry in odd)} of which fail; {notagen.versions()}")


if __name__ == "__main__":
    main()
