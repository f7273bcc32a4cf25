"""The notes of music21's scores after MusicXML -> ABC -> MusicXML.

    roundtrip.py CORPUS BACK [--list N]

CORPUS has MusicXML, BACK the MusicXML made of its ABC, under the same names (<name>.xml). Counted are the
notes of CORPUS that are in BACK with the same part, bar, onset in the bar, written pitch and duration.
"""

import os
import sys
from fractions import Fraction

from musicxml_notes import compare, notes


def main():
    corpus, back = sys.argv[1:3]
    show = int(sys.argv[4]) if len(sys.argv) > 4 else 10
    files = total = same = 0
    worst = []
    for file in sorted(os.listdir(corpus)):
        name, path = os.path.splitext(file)[0], os.path.join(corpus, file)
        ours = os.path.join(back, name + ".xml")
        if not os.path.exists(ours):
            continue
        files += 1
        before, _ = notes(path)
        after, _ = notes(ours)
        kept, lost, more = compare(after, before, Fraction(1, 50))
        total += len(before)
        same += kept
        if lost:
            worst.append((len(lost), len(before), len(more), name, lost[:2], more[:2]))
    print(f"{files} scores: {same} of {total} notes have the same part, bar, onset, pitch and duration ({same / total:.3%})")
    print(f"{files - len(worst)} scores have all of them")
    for lost, of, more, name, examples, others in sorted(worst, reverse=True, key=lambda row: row[:4])[:show]:
        print(f"  {name}: {lost} of {of} not, {more} others")
        if show < 10:
            print("    ", [tuple(map(str, n)) for n in examples], [tuple(map(str, n)) for n in others])


if __name__ == "__main__":
    main()
