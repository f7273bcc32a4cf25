"""The notes that the original's converter makes of ABC, one JSON line a piece.

    PYTHONPATH=.tools/python python3 export.py ABC2XML OUTPUT.jsonl FILE…

runs abc2xml.py of a clone of NotaGen (or of abctoolkit 0.0.6) and writes for each piece

    name, input     the file's name, and the first 16 digits of the SHA-256 of its text
    notes           how many there are
    digest          of the lines `part bar onset duration step-and-alter octave` (part and bar from 1,
                    onset in the bar and duration in 1/1024 of a quarter, rounded), sorted
"""

import hashlib
import importlib.util
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../scripts/scores"))
from musicxml_notes import notes  # noqa: E402


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main():
    converter, output, *files = sys.argv[1:]
    sys.setrecursionlimit(100_000)
    spec = importlib.util.spec_from_file_location("abc2xml", converter)
    abc2xml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(abc2xml)
    with open(output, "w", encoding="utf-8") as out:
        for path in sorted(files):
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read()
            with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as made:
                made.write(abc2xml.fixDoctype(abc2xml.getXmlDocs(text)[0]))
                made.flush()
                found, _ = notes(made.name)
            whole = lambda quarters: int(float(quarters) * 1024 + 0.5)
            lines = sorted(
                f"{n.part + 1} {n.bar + 1} {whole(n.onset)} {whole(n.duration)} {n.pitch[0]}{int(n.pitch[1])} {n.pitch[2]}"
                for n in found
            )
            name = os.path.basename(path)
            line = {"name": name, "input": digest(text), "notes": len(lines), "digest": digest("\n".join(lines))}
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
