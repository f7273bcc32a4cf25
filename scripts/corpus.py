"""Every MusicXML score below a folder, to standard ABC, on all cores.

    corpus.py SCORES XML2ABC OUTPUT

runs the converter as the original's data/1_batch_xml2abc.py does (`-d 8 -c 6 -x`), but inside a few
processes instead of one process a file: its code is compiled once and executed as __main__ with
fresh globals for each score, so that the text is the command line's. Scores whose output exists are
skipped.
"""

import contextlib
import glob
import io
import multiprocessing
import os
import re
import sys
import time

# The one score of music21's bach folder that is not a chorale: the C major prelude. Its name keeps
# `bach_bwv*` for the chorales.
RENAMED = {"bach_bwv846": "bach_prelude_bwv846"}


def names(folder):
    """(name, path) of every score, in the order of the names; unique also where case is ignored."""
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


def start(converter):
    global code
    with open(converter, "rb") as file:
        code = compile(file.read(), converter, "exec")


def convert(job):
    """What went wrong with one score, or None."""
    path, output = job
    text, messages = io.StringIO(), io.StringIO()
    sys.argv = ["xml2abc.py", "-d", "8", "-c", "6", "-x", glob.escape(path)]
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(messages):
            exec(code, {"__name__": "__main__"})
    except (Exception, SystemExit) as error:
        messages.write(f"\n{type(error).__name__}: {error}")
    if not text.getvalue():
        lines = [line for line in messages.getvalue().splitlines() if line.strip()]
        return path, (lines[-1] if lines else "no output")
    part = f"{output}.{os.getpid()}.part"
    with open(part, "w", encoding="utf-8", newline="\n") as file:
        file.write(text.getvalue())
    os.replace(part, output)
    return path, None


def main():
    folder, converter, target = sys.argv[1:]
    started = time.time()
    scores = sorted(names(folder))
    jobs = [(path, os.path.join(target, name + ".abc")) for name, path in scores]
    todo = [job for job in jobs if not os.path.exists(job[1])]
    todo.sort(key=lambda job: -os.path.getsize(job[0]))  # the long ones first, for an even end
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"corpus: converting {len(todo)} of {len(jobs)} scores to ABC on {cores} cores", flush=True)
    failed = []
    with multiprocessing.Pool(cores, start, (converter,)) as pool:
        for done, (path, problem) in enumerate(pool.imap_unordered(convert, todo), 1):
            if problem is not None:
                failed.append(os.path.relpath(path, folder))
            if done % 100 == 0:
                print(f"corpus: {done} of {len(todo)}", flush=True)
    print(f"corpus: {len(jobs) - len(failed)} scores in {target} after {time.time() - started:.0f} s")
    if failed:
        print(f"corpus: the converter cannot read {len(failed)}: {' '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
