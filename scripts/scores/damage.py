"""Pieces of interleaved ABC with the faults that a model makes.

    damage.py OUTPUT PIECES SEED FILE…

writes PIECES pieces, each a piece of FILE… with one to four faults. The same seed gives the same pieces.
"""

import os
import random
import re
import sys


def body(lines):
    return next((i for i, line in enumerate(lines) if line.startswith("[V:")), len(lines))


def dropped_bar(lines, draw):
    """A voice's bar is left out."""
    i = draw.randrange(body(lines), len(lines))
    marks = re.findall(r"\[V:\d+\][^\[]*(?:\[(?!V:)[^\[]*)*", lines[i])
    if len(marks) > 1:
        marks.pop(draw.randrange(len(marks)))
        lines[i] = "".join(marks)


def dropped_line(lines, draw):
    lines.pop(draw.randrange(body(lines), len(lines)))


def truncated(lines, draw):
    """The piece ends in the middle of a line."""
    i = draw.randrange(body(lines), len(lines))
    lines[i] = lines[i][: draw.randrange(4, max(5, len(lines[i])))]
    del lines[i + 1 :]


def unknown_token(lines, draw):
    insert(lines, draw, draw.choice(["@", "#", ";", "?", "é", "[K:Q", "!xyz!", "!p", "*", "]", "~", "0", "\\"]))


def bracket(lines, draw):
    insert(lines, draw, draw.choice("[](){}\"!"))


def insert(lines, draw, token):
    i = draw.randrange(body(lines), len(lines))
    start = lines[i].find("]") + 1
    at = draw.randrange(start, len(lines[i]) + 1)
    lines[i] = lines[i][:at] + token + lines[i][at:]


def wrong_duration(lines, draw):
    i = draw.randrange(body(lines), len(lines))
    places = [m for m in re.finditer(r"(?<=[A-Ga-gz])(\d+|/|//)(?![\d:\]])", lines[i])]
    if places:
        m = draw.choice(places)
        lines[i] = lines[i][: m.start()] + draw.choice(["", "2", "3", "5", "7", "/", "3/2", "//", "16"]) + lines[i][m.end() :]


def lost_close(lines, draw):
    """One of the signs that come in pairs is lost."""
    i = draw.randrange(body(lines), len(lines))
    places = [m.start() for m in re.finditer(r"[()\]{}\"!]", lines[i]) if m.start() > 4]
    if places:
        at = draw.choice(places)
        lines[i] = lines[i][:at] + lines[i][at + 1 :]


def tuplet(lines, draw):
    insert(lines, draw, draw.choice(["(3", "(5:4:5", "(3:2", "(7", "(2"]))


def missing_voice(lines, draw):
    """A voice of the header does not play, or one plays that the header does not have."""
    start = body(lines)
    voices = [i for i, line in enumerate(lines[:start]) if line.startswith("V:")]
    if not voices:
        return
    if draw.random() < 0.5:
        lines.pop(draw.choice(voices))
    else:
        number = lines[draw.choice(voices)][2:].split()[0]
        for i in range(start, len(lines)):
            lines[i] = re.sub(r"\[V:%s\][^\[]*(?:\[(?!V:)[^\[]*)*" % number, "", lines[i])


def no_bar_line(lines, draw):
    i = draw.randrange(body(lines), len(lines))
    places = [m for m in re.finditer(r":?\|+[:\]]?", lines[i])]
    if places:
        m = draw.choice(places)
        lines[i] = lines[i][: m.start()] + draw.choice(["", "||", ":|", "|:", "::", "|1", ":|2"]) + lines[i][m.end() :]


def score_line(lines, draw):
    for i, line in enumerate(lines):
        if line.startswith("%%score"):
            at = draw.randrange(7, len(line))
            lines[i] = line[:at] + draw.choice(["", "[", "}", "(", " 9 "]) + line[at + 1 :]


FAULTS = [dropped_bar, dropped_line, truncated, unknown_token, bracket, wrong_duration, lost_close, tuplet, missing_voice, no_bar_line, score_line]


def main():
    output, pieces, seed, *files = sys.argv[1:]
    os.makedirs(output, exist_ok=True)
    draw = random.Random(seed)
    files.sort()
    for number in range(int(pieces)):
        path = draw.choice(files)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        faults = []
        for _ in range(draw.randrange(1, 5)):
            if body(lines) < len(lines):
                fault = draw.choice(FAULTS)
                fault(lines, draw)
                faults.append(fault.__name__)
        name = f"{number:04}_{os.path.basename(path)}"
        with open(os.path.join(output, name), "w", encoding="utf-8") as file:
            file.write(f"% {', '.join(faults)}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
