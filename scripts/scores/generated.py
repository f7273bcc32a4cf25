"""Generated pieces as MusicXML: ours against the original's converter.

    PYTHONPATH=.tools/python python3 generated.py ABC2XML PIECES OURS THEIRS

PIECES is a folder of interleaved ABC, OURS what `convert --to musicxml` made of it. The original's converter, the
abc2xml.py of a clone of NotaGen or of abctoolkit, writes to THEIRS. Says which notes of the original's are in ours, with
the same part, bar, onset, pitch and duration, and what the pieces are like in which some are not.
"""

import collections
import contextlib
import importlib.util
import io
import os
import sys

from musicxml_notes import compare, notes


def main():
    converter, pieces, ours, theirs = sys.argv[1:]
    sys.setrecursionlimit(100_000)
    spec = importlib.util.spec_from_file_location("abc2xml", converter)
    abc2xml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(abc2xml)
    os.makedirs(theirs, exist_ok=True)
    counts = collections.Counter()
    total = same = 0
    for name in sorted(os.listdir(pieces)):
        stem = name.removesuffix(".abc")
        with open(os.path.join(pieces, name), encoding="utf-8", newline="") as file:
            text = file.read()
        counts["pieces"] += 1
        here = os.path.join(ours, stem + ".musicxml")
        counts["converted here"] += os.path.exists(here)
        there = os.path.join(theirs, stem + ".musicxml")
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                document = abc2xml.fixDoctype(abc2xml.getXmlDocs(text)[0])
        except BaseException:  # it exits, too
            continue
        with open(there, "w", encoding="utf-8") as file:
            file.write(document)
        counts["converted by the original"] += 1
        if not os.path.exists(here):
            continue
        found, expected = notes(here)[0], notes(there)[0]
        both, missing, more = compare(found, expected)
        total += len(expected)
        same += both
        if missing or more:
            counts["with other notes"] += 1
            print(f"{name}: {both} of {len(expected)} notes the same, {len(more)} only here")
    print(dict(counts), f"{same} of {total} notes are the same ({same / max(total, 1):.3%})")


if __name__ == "__main__":
    main()
