"""MusicXML to ABC: ours against the original's converter, on a folder of scores.

    PYTHONPATH=.tools/python python3 parity_musicxml.py SCORES MUSICXML_TO_ABC [CONVERTER]

CONVERTER is an xml2abc.py, abctoolkit's if not given; it runs inside this process (-d 8 -c 6 -x), once for a
score as it is, and where it knows no .musicxml in an archive once more for what is in it. Its time is CPU time,
without starting Python and compiling it; ours is that of a whole process, started once.
"""

import collections
import contextlib
import glob
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import zipfile

import abctoolkit


class Original:
    def __init__(self, converter):
        with open(converter, "rb") as file:
            self.code = compile(file.read(), converter, "exec")
        self.seconds = 0.0

    def __call__(self, path):
        """The ABC and None, or None and why there is none."""
        text, messages = io.StringIO(), io.StringIO()
        sys.argv = ["xml2abc.py", "-d", "8", "-c", "6", "-x", glob.escape(path)]
        started = time.process_time()
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(messages):
                exec(self.code, {"__name__": "__main__"})
        except (Exception, SystemExit) as error:
            messages.write(f"{type(error).__name__}: {error}")
        self.seconds += time.process_time() - started
        lines = [line for line in messages.getvalue().splitlines() if line.strip()] or ["no output"]
        return (text.getvalue(), None) if text.getvalue() else (None, lines[-1])


def unpacked(path, folder):
    """The .musicxml of an archive as a file that the original's converter takes."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".musicxml"))
        file = os.path.join(folder, "unpacked.xml")
        with open(file, "wb") as out:
            out.write(archive.read(name))
    return file


def notes(abc):
    music = re.sub(r'"[^"]*"|![^!]*!|\[[A-Z]:[^]]*\]', "", abc[abc.find("\nV:1\n") :])
    lines = (line.rsplit("%", 1)[0] for line in music.splitlines() if not re.match("[A-Za-z]:", line))
    return len(re.findall("[A-Ga-g]", "".join(lines)))


def kind(original, ours):
    """The kind of the first difference."""
    if notes(original) != notes(ours):
        return f"different notes ({notes(original)}, ours {notes(ours)})"
    for line, other in zip(original.splitlines(), ours.splitlines()):
        if line != other:
            field = re.match(r"%%\w+|[A-Za-z]:", line)
            return f"header or lyrics: {field.group()}" if field else "signs or lengths"
    return "number of lines"


def main():
    scores, binary, *converter = sys.argv[1:]
    original = Original(converter[0] if converter else os.path.join(os.path.dirname(abctoolkit.__file__), "xml2abc.py"))
    paths = sorted(path for path in glob.glob(os.path.join(glob.escape(scores), "*")) if os.path.isfile(path))
    table, examples = collections.Counter(), collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run([binary, folder, *paths], stdout=subprocess.PIPE, text=True, check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        refused = dict(line.split("\t", 1) for line in ran.stdout.splitlines())
        for path in paths:
            text, problem = original(path)
            seconds = original.seconds
            if problem and "fobj" in problem:
                text, problem = original(unpacked(path, folder))
                original.seconds = seconds
                archived = "only unpacked does the original read it; "
            else:
                archived = ""
            ours = os.path.join(folder, os.path.basename(path) + ".abc")
            if path in refused:
                what = f"refused: {refused[path]}" + (" (so does the original)" if problem else "")
            elif problem:
                what = f"the original fails: {re.sub(' in [^ ]*$', '', problem)}"
            else:
                with open(ours, encoding="utf-8", newline="") as file:
                    found = file.read()
                what = archived + ("the same" if text == found else kind(text, found))
            table[what] += 1
            examples[what].append(os.path.basename(path))
    for what, count in table.most_common():
        print(f"{count:5}  {what}" + (f"   [{', '.join(examples[what][:3])}]" if what != "the same" else ""))
    spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"{len(paths)} scores: {original.seconds:.1f} s CPU the original, {spent:.2f} s ours: {original.seconds / spent:.0f} times")


if __name__ == "__main__":
    main()
