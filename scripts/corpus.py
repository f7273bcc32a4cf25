"""Every MusicXML score below a folder, copied into one folder under a name of its own.

    corpus.py SCORES OUTPUT
"""

import os
import re
import shutil
import sys

# The one score of music21's bach folder that is not a chorale: the C major prelude. Its name keeps
# `bach_bwv*` for the chorales.
RENAMED = {"bach_bwv846": "bach_prelude_bwv846"}


def names(folder):
    """(name, path) of every score; the names are unique also where case is ignored."""
    found = {}
    for base, _, files in os.walk(folder):
        for file in files:
            stem, extension = os.path.splitext(file)
            if extension not in (".xml", ".mxl", ".musicxml"):
                continue
            path = os.path.join(base, file)
            name = os.path.join(os.path.relpath(base, folder), stem).replace(os.sep, "_")
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
            name = RENAMED.get(name, name)
            found.setdefault(name.lower(), []).append((name, extension[1:], path))
    for same in found.values():
        for name, extension, path in same:
            yield (name if len(same) == 1 else f"{name}-{extension}"), path


def main():
    folder, target = sys.argv[1:]
    for name, path in names(folder):
        shutil.copyfile(path, os.path.join(target, name + os.path.splitext(path)[1]))


if __name__ == "__main__":
    main()
