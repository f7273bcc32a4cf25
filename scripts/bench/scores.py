"""The figures of scripts/bench/scores: see there."""

import contextlib
import glob
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import abctoolkit


def cpu(command, **options):
    """A process's CPU time, its children's included, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran.stdout


def converter_in_process(paths, converter):
    with open(converter, "rb") as file:
        code = compile(file.read(), converter, "exec")
    started = time.process_time()
    for path in paths:
        sys.argv = ["xml2abc.py", "-d", "8", "-c", "6", "-x", glob.escape(path)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with contextlib.suppress(Exception, SystemExit):
                exec(code, {"__name__": "__main__"})
    return time.process_time() - started


def a_process_a_score(paths, command):
    return sum(cpu([*command, path])[0] for path in paths)


def original_preprocessing(clone, scores, folder):
    """The original's script, its folders set."""
    with open(os.path.join(clone, "data/2_data_preprocess.py"), encoding="utf-8") as file:
        text = file.read()
    for name, value in [("ORI", scores), ("INTERLEAVED", folder + "/interleaved"), ("AUGMENTED", folder + "/augmented")]:
        text, changed = re.subn(rf"^{name}_FOLDER = ''", f"{name}_FOLDER = {value!r}", text, flags=re.MULTILINE)
        assert changed == 1, name
    with open(folder + "/preprocess.py", "w", encoding="utf-8") as file:
        file.write(text)
    return cpu([sys.executable, "-W", "ignore", folder + "/preprocess.py"])[0]


def texts(folder):
    """All texts below a folder, by name."""
    found = {}
    for root, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(root, file), "rb") as text:
                found[os.path.relpath(os.path.join(root, file), folder)] = text.read()
    return found


def line(what, original, ours):
    print(f"{what}: {original:.2f} s the original, {ours:.3f} s here: {original / ours:.0f} times", flush=True)


def main():
    clone, scores, target, step = sys.argv[1:]
    paths = sorted(glob.glob(os.path.join(scores, "*")))
    some = paths[:: int(step)]
    to_abc, train = os.path.join(target, "examples/musicxml_to_abc"), os.path.join(target, "notagen-train")
    converter = os.path.join(os.path.dirname(abctoolkit.__file__), "xml2abc.py")
    with tempfile.TemporaryDirectory() as folder:
        abc = os.path.join(folder, "abc")
        os.mkdir(abc)
        ours = min(cpu([to_abc, abc, *paths])[0] for _ in range(3))
        line(f"{len(paths)} scores to ABC, one process", converter_in_process(paths, converter), ours)
        flags = ["-d", "8", "-c", "6", "-x"]
        original = a_process_a_score(some, [sys.executable, "-W", "ignore", converter, *flags])
        ours = min(a_process_a_score(some, [to_abc, abc]) for _ in range(3))
        line(f"{len(some)} scores to ABC, a process each", original, ours)

        # The ABC that both preprocess; what the original refuses is as good as any.
        chosen = os.path.join(folder, "chosen")
        os.mkdir(chosen)
        for path in some:
            source = os.path.join(abc, os.path.basename(path) + ".abc")
            if os.path.exists(source):
                shutil.copy(source, os.path.join(chosen, os.path.splitext(os.path.basename(path))[0] + ".abc"))
        theirs = os.path.join(folder, "theirs")
        os.mkdir(theirs)
        original = original_preprocessing(clone, chosen, theirs)
        times = []
        for turn in range(3):
            here = os.path.join(folder, f"here{turn}")
            arguments = ["--interleaved", here + "/interleaved", "--augmented", here + "/augmented", "--keys", "all"]
            times.append(cpu([train, "preprocess", "--scores", chosen, *arguments])[0])
        line(f"{len(os.listdir(chosen))} pieces of ABC in fifteen keys", original, min(times))
        same = texts(theirs + "/augmented") == texts(here + "/augmented")
        print("the augmented texts are " + ("the same" if same else "NOT the same"))

        # Reading: augmented files, interleaved files that are moved, the same packed.
        forms = {"augmented": ["--keys", "all"], "interleaved": ["--keys", "none"], "packed": []}
        indexes = []
        for form, more in forms.items():
            base = os.path.join(folder, form)
            to = ["--pack", base + ".pack"] if form == "packed" else ["--interleaved", base + "_pieces"]
            cpu([train, "preprocess", "--scores", scores, "--augmented", base, *to, *more])
            indexes.append(base + ".jsonl")
        names = {json.loads(entry)["path"].rsplit("/", 1)[-1] for entry in open(indexes[2])}
        for index in indexes:  # Only the pack leaves duplicates out.
            kept = [entry for entry in open(index) if json.loads(entry)["path"].rsplit("/", 1)[-1] in names]
            with open(index, "w") as file:
                file.writelines(kept)
        for run in cpu([os.path.join(target, "examples/reading"), *indexes])[1].decode().splitlines():
            run = json.loads(run)
            print(f"{os.path.basename(run['index'])}: {run['texts']} texts, {run['milliseconds_each']} ms each, {run['digest']}")
        sizes = [sum(map(len, texts(path).values())) for path in (base.replace("packed", "augmented"), base.replace("packed", "interleaved_pieces"))]
        print(f"bytes: augmented {sizes[0]}, interleaved {sizes[1]}, packed {os.path.getsize(base + '.pack')}")


if __name__ == "__main__":
    main()
