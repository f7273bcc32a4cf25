"""Do MusicXML files parse in music21, and with the notes of other files of the same names?

    PYTHONPATH=MUSIC21 python3 parse_with_music21.py FOLDER [OTHER] [--every N]

MUSIC21 has PyPI's music21 with chardet, joblib, jsonpickle, more-itertools, requests, webcolors.
"""

import argparse
import collections
import os
import warnings

warnings.filterwarnings("ignore")
import music21  # noqa: E402


def notes(path):
    """Part, bar, onset in the bar, quarters and MIDI pitch of every note."""
    found = collections.Counter()
    score = music21.converter.parse(path, format="musicxml", forceSource=True)
    for number, part in enumerate(merged(score)):
        for bar, measure in enumerate(part):
            for note in measure.recurse().notes:
                if isinstance(note, music21.harmony.Harmony):
                    continue
                pitches = [pitch.midi for pitch in getattr(note, "pitches", ())]
                onset = round(float(note.getOffsetInHierarchy(measure)), 2)
                for pitch in pitches:
                    found[number, bar, onset, round(float(note.quarterLength), 2), pitch] += 1
    return found


def merged(score):
    return [list(part.getElementsByClass("Measure")) for part in score.parts]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("other", nargs="?")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    files = parsed = total = same = 0
    for name in sorted(os.listdir(arguments.folder))[:: arguments.every]:
        if not name.endswith("xml"):
            continue
        files += 1
        try:
            ours = notes(os.path.join(arguments.folder, name))
        except Exception as error:  # whatever music21 says
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        parsed += 1
        if arguments.other and os.path.exists(os.path.join(arguments.other, name)):
            theirs = notes(os.path.join(arguments.other, name))
            total += sum(theirs.values())
            both = sum((ours & theirs).values())
            same += both
            if both != sum(theirs.values()):
                print(f"{name}: {both} of {sum(theirs.values())} notes are the same", flush=True)
    print(f"{parsed} of {files} files parse", flush=True)
    if arguments.other:
        print(f"{same} of {total} notes are the same ({same / max(total, 1):.4%})", flush=True)


if __name__ == "__main__":
    main()
