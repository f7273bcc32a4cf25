"""The notes of a MusicXML file, read with nothing but the standard library: for comparing files."""

import collections
import io
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from fractions import Fraction

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

# bar: counted from 0; onset: in the bar, in quarters; pitch: step, alter, octave as written, or what is
# shown for a drum; duration: quarters, 0 for a grace note.
Note = collections.namedtuple("Note", "part bar onset duration pitch")


def document(path):
    """The root element; of a compressed file, that of its score."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
            name = next(e.get("full-path") for e in container.iter() if e.tag.endswith("rootfile"))
            data = archive.read(name)
    return ElementTree.fromstring(data)


def notes(path):
    """All notes, and the length of each bar in quarters (the longest part's)."""
    found, lengths = [], []
    root = document(path)
    for part_number, part in enumerate(root.findall("part")):
        divisions = Fraction(1)
        for bar, measure in enumerate(part.findall("measure")):
            now = onset = end = Fraction(0)
            for element in measure:
                if element.tag == "attributes" and element.find("divisions") is not None:
                    divisions = Fraction(element.findtext("divisions"))
                elif element.tag == "backup":
                    now -= Fraction(element.findtext("duration")) / divisions
                elif element.tag == "forward":
                    now += Fraction(element.findtext("duration")) / divisions
                elif element.tag == "note":
                    duration = Fraction(element.findtext("duration") or 0) / divisions
                    if element.find("chord") is None:
                        onset = now
                        now += duration
                    pitch = element.find("pitch")
                    drum = element.find("unpitched")
                    if pitch is not None:
                        alter = float(pitch.findtext("alter") or 0)
                        name = (pitch.findtext("step"), alter, int(pitch.findtext("octave")))
                    elif drum is not None:
                        name = (drum.findtext("display-step"), 0.0, int(drum.findtext("display-octave") or 4))
                    else:
                        name = None
                    if name is not None:
                        found.append(Note(part_number, bar, onset, duration, name))
                end = max(end, now)
            while len(lengths) <= bar:
                lengths.append(Fraction(0))
            lengths[bar] = max(lengths[bar], end)
    return found, lengths


def compare(ours, theirs, tolerance=Fraction(1, 100)):
    """How many notes of `theirs` are in `ours` with the same part, bar, onset, pitch and duration, and lists
    of what either lacks; durations and onsets may differ by rounding."""
    def key(note):
        return note.part, note.bar, note.pitch

    left = collections.defaultdict(list)
    for note in ours:
        left[key(note)].append(note)
    same, missing = 0, []
    for note in theirs:
        near = [
            other
            for other in left[key(note)]
            if abs(other.onset - note.onset) <= tolerance and abs(other.duration - note.duration) <= tolerance
        ]
        if near:
            best = min(near, key=lambda other: abs(other.onset - note.onset) + abs(other.duration - note.duration))
            left[key(note)].remove(best)
            same += 1
        else:
            missing.append(note)
    return same, missing, [note for rest in left.values() for note in rest]


if __name__ == "__main__":
    for file in sys.argv[1:]:
        found, lengths = notes(file)
        print(file, len(found), "notes", len(lengths), "bars")
