"""Small MusicXML scores, a feature each, and the ABC that the original's converter makes of them.

    PYTHONPATH=.tools/python python3 make_musicxml.py

writes musicxml/NAME.xml and musicxml/NAME.abc beside itself; abctoolkit 0.0.6 converts, called as NotaGen's
data/1_batch_xml2abc.py calls it (-d 8 -c 6 -x). Scores that it fails on get no .abc: the tests say what is
expected of them.
"""

import contextlib
import io
import os
import re
import sys

import abctoolkit

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "musicxml")
CONVERTER = os.path.join(os.path.dirname(abctoolkit.__file__), "xml2abc.py")


def n(pitch, length, *more, voice=1, type_=None, before=""):
    """A note: `C#4`, `Bb3`, or `r` for a rest; what else it has, in MusicXML."""
    if pitch == "r":
        sounds = "<rest/>"
    else:
        step, sign, octave = re.fullmatch(r"([A-G])(#+|b+|)(-?\d)", pitch).groups()
        alter = {"": "", "#": 1, "##": 2, "b": -1, "bb": -2, "###": 3}[sign]
        alter = f"<alter>{alter}</alter>" if alter else ""
        sounds = f"<pitch><step>{step}</step>{alter}<octave>{octave}</octave></pitch>"
    duration = f"<duration>{length}</duration>" if length else ""
    return f"<note>{before}{sounds}{duration}<voice>{voice}</voice>{''.join(more)}</note>\n"


def chord(pitch, length, *more, voice=1):
    return n(pitch, length, *more, voice=voice, before="<chord/>")


def grace(pitch, *more, slash="", before=""):
    return n(pitch, 0, *more, before=f"<grace{slash}/>{before}")


def staff(number):
    return f"<staff>{number}</staff>"


def notations(*content):
    return f"<notations>{''.join(content)}</notations>"


def beam(kind):
    return f'<beam number="1">{kind}</beam>'


def ratio(many, normal):
    return f"<time-modification><actual-notes>{many}</actual-notes><normal-notes>{normal}</normal-notes></time-modification>"


def lyric(text, syllabic="single", number=1, extend=""):
    number = f' number="{number}"' if number else ""
    return f"<lyric{number}><syllabic>{syllabic}</syllabic><text>{text}</text>{extend}</lyric>"


def backup(length):
    return f"<backup><duration>{length}</duration></backup>\n"


def forward(length):
    return f"<forward><duration>{length}</duration></forward>\n"


def direction(*types, attributes="", rest=""):
    types = "".join(f"<direction-type>{kind}</direction-type>" for kind in types)
    return f"<direction{attributes}>{types}{rest}</direction>\n"


def attributes(divisions=None, fifths=None, mode=None, time=None, clefs=(), rest=""):
    text = f"<divisions>{divisions}</divisions>" if divisions else ""
    if fifths is not None:
        mode = f"<mode>{mode}</mode>" if mode else ""
        text += f"<key><fifths>{fifths}</fifths>{mode}</key>"
    if time:
        beats, unit = time.split("/")
        text += f"<time><beats>{beats}</beats><beat-type>{unit}</beat-type></time>"
    for place, clef in enumerate(clefs, 1):
        sign, line, *octave = clef.split()
        octave = f"<clef-octave-change>{octave[0]}</clef-octave-change>" if octave else ""
        line = f"<line>{line}</line>" if line != "-" else ""
        text += f'<clef number="{place}"><sign>{sign}</sign>{line}{octave}</clef>'
    return f"<attributes>{text}{rest}</attributes>\n"


COMMON = attributes(4, 0, "major", "4/4", ["G 2"])


def part(*measures, id_="P1"):
    numbered = "".join(f'<measure number="{i}">\n{measure}</measure>\n' for i, measure in enumerate(measures, 1))
    return f'<part id="{id_}">\n{numbered}</part>\n'


def score(*parts, head="", parts_list=None):
    if parts_list is None:
        ids = [re.search('id="(.*?)"', text).group(1) for text in parts]
        parts_list = "".join(f'<score-part id="{i}"><part-name>{i}</part-name></score-part>' for i in ids)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<score-partwise version="4.0">\n'
        f"{head}<part-list>{parts_list}</part-list>\n{''.join(parts)}</score-partwise>\n"
    )


def mode_score():
    modes = ["major", "minor", "dorian", "phrygian", "lydian", "mixolydian", "aeolian", "ionian", "locrian", "none"]
    measures = [attributes(1, -7, "major", "2/4", ["G 2"]) + n("Cb4", 2)]
    measures += [attributes(fifths=i - 5, mode=mode) + n("F#4", 1) + n("Bb4", 1) for i, mode in enumerate(modes)]
    return score(part(*measures))


def ornaments():
    kinds = ["accent", "strong-accent", "staccato", "tenuto", "detached-legato", "staccatissimo", "spiccato", "scoop", "breath-mark"]
    first = "".join(n("C5", 2, notations(f"<articulations><{kind}/></articulations>")) for kind in kinds[:8])
    kinds = ["trill-mark", "mordent", "inverted-mordent", "turn", "inverted-turn"]
    second = "".join(n("D5", 2, notations(f"<ornaments><{kind}/></ornaments>")) for kind in kinds)
    second += n("D5", 6, notations("<fermata/><articulations><breath-mark/><accent/><staccato/></articulations>"))
    kinds = ["up-bow", "down-bow", "harmonic", "open-string", "stopped", "snap-pizzicato", "thumb-position"]
    third = "".join(n("E5", 2, notations(f"<technical><{kind}/></technical>")) for kind in kinds)
    third += n("E5", 2, notations("<technical><fingering>1</fingering><fingering>3</fingering></technical>"))
    fourth = (
        n("F5", 4, notations('<ornaments><trill-mark/><wavy-line type="start"/></ornaments>'))
        + n("F5", 4, notations('<ornaments><wavy-line type="stop"/></ornaments>'))
        + n("F5", 4, notations('<glissando type="start" line-type="wavy">gliss.</glissando>'))
        + n("C5", 4, notations('<glissando type="stop" line-type="wavy"/>'))
    )
    fifth = (
        n("F5", 4, notations('<slide type="start"/>'))
        + n("C5", 4, notations('<slide type="stop"/>'))
        + n("G5", 4, notations('<ornaments><tremolo type="single">3</tremolo></ornaments>'))
        + n("A5", 2, ratio(2, 1), notations('<ornaments><tremolo type="start">2</tremolo></ornaments>'))
        + n("B5", 2, ratio(2, 1), notations('<ornaments><tremolo type="stop">2</tremolo></ornaments>'))
    )
    arpeggio = notations("<arpeggiate/>")
    sixth = n("C4", 8, arpeggio) + chord("E4", 8, arpeggio) + chord("G4", 8, notations("<articulations><accent/></articulations>"))
    sixth += n("C5", 8, "<stem>none</stem>") + chord("E5", 8, "<stem>none</stem>")
    return score(part(COMMON + first, second, third, fourth, fifth, sixth))


def groups():
    def start(number, symbol, bar="yes", name="", short=""):
        names = f"<group-name>{name}</group-name><group-abbreviation>{short}</group-abbreviation>" if name else ""
        return (
            f'<part-group number="{number}" type="start">{names}<group-symbol>{symbol}</group-symbol>'
            f"<group-barline>{bar}</group-barline></part-group>"
        )

    def stop(number):
        return f'<part-group number="{number}" type="stop"/>'

    def entry(number, name, short=""):
        return f'<score-part id="P{number}"><part-name>{name}</part-name><part-abbreviation>{short}</part-abbreviation></score-part>'

    listed = (
        start(1, "bracket", name="Winds", short="W.")
        + entry(1, "Flute", "Fl.")
        + start(2, "brace", "no")
        + entry(2, "Clarinet in Bb", "Cl.")
        + entry(3, "Horn\nin F", "Hn.")
        + stop(1)
        + stop(2)
        + start(3, "square", name="Tutti")
        + entry(4, "Violin", "Vln.:")
        + stop(3)
        + entry(5, "Piano", "Pno.")
        + start(4, "bracket", "no")
        + entry(6, "Silent")
        + entry(7, "Bass")
    )
    transposed = {2: (-2, -1), 3: (-7, -4)}
    parts = []
    for i in range(1, 8):
        rest = ""
        if i in transposed:
            chromatic, diatonic = transposed[i]
            rest = f"<transpose><diatonic>{diatonic}</diatonic><chromatic>{chromatic}</chromatic></transpose>"
        if i == 7:
            rest = "<transpose><chromatic>0</chromatic><octave-change>-1</octave-change></transpose>"
        clefs = ["G 2", "F 4"] if i == 5 else ["F 4"] if i == 7 else ["G 2"]
        music = attributes(1, {2: 2, 3: 1}.get(i, 0), "major", "2/4", clefs, rest)
        if i == 6:
            music += n("r", 2)
        elif i == 5:
            music += n("C5", 2, staff(1)) + backup(2) + n("E4", 1, staff(1), voice=2) + n("r", 1, staff(1), voice=2)
            music += backup(2) + n("C3", 2, staff(2), voice=5)
        else:
            music += n("C4", 2)
        parts.append(part(music, id_=f"P{i}"))
    return score(*parts, parts_list=listed)


def percussion():
    listed = (
        '<score-part id="P1"><part-name>Drums</part-name>'
        '<score-instrument id="I1"><instrument-name>Snare</instrument-name></score-instrument>'
        '<midi-instrument id="I1"><midi-channel>10</midi-channel><midi-unpitched>39</midi-unpitched></midi-instrument>'
        '<midi-instrument id="I2"><midi-channel>10</midi-channel><midi-unpitched>43</midi-unpitched></midi-instrument>'
        "</score-part>"
    )

    def drum(step, octave, *more, instrument="I1"):
        place = f"<unpitched><display-step>{step}</display-step><display-octave>{octave}</display-octave></unpitched>"
        return f'<note>{place}<duration>1</duration><instrument id="{instrument}"/><voice>1</voice>{"".join(more)}</note>\n'

    first = attributes(1, 0, None, "4/4", ["percussion -"])
    first += drum("C", 5) + drum("G", 5, "<notehead>x</notehead>", instrument="I2")
    first += drum("A", 4, '<notehead filled="yes">diamond</notehead>') + drum("F", 4, '<notehead filled="no">circle x</notehead>', instrument="I3")
    one_line = attributes(clefs=["percussion -"], rest="<staff-details><staff-lines>1</staff-lines></staff-details>")
    second = one_line + drum("E", 4) + drum("E", 4) + n("r", 2)
    return score(part(first, second), parts_list=listed)


def tablature():
    tuning = "".join(
        f'<staff-tuning line="{i}"><tuning-step>{name[0]}</tuning-step><tuning-octave>{name[1]}</tuning-octave></staff-tuning>'
        for i, name in enumerate(["E2", "A2", "D3", "G3", "B3", "E4"], 1)
    )
    rest = f"<staff-details><staff-lines>6</staff-lines>{tuning}<capo>2</capo></staff-details>"

    def string(number, fret, finger=""):
        return notations(f"<technical><string>{number}</string><fret>{fret}</fret>{finger}</technical>")

    music = attributes(1, 0, None, "4/4", ["TAB 5 -1"], rest)
    music += n("E4", 1, "<stem>none</stem>", string(1, 0)) + n("C4", 1, "<stem>none</stem>", string(2, 1, "<fingering>1</fingering>"))
    music += chord("G3", 1, string(3, 0)) + n("r", 2)
    return score(part(music))


def directions():
    def words(text, more=""):
        return f"<words{more}>{text}</words>"

    def wedge(kind, number=""):
        return f'<wedge type="{kind}"{number}/>'

    first = (
        COMMON
        + direction(words("Allegro"), "<metronome><beat-unit>quarter</beat-unit><beat-unit-dot/><per-minute>c. 84.5</per-minute></metronome>".replace("c. ", "ca"), attributes=' placement="above"', rest='<sound tempo="120"/>')
        + direction("<dynamics><f/></dynamics>", attributes=' placement="below"')
        + n("C4", 4)
        + direction(wedge("crescendo"))
        + n("D4", 4)
        + direction(wedge("stop"))
        + direction("<dynamics><sfz/><pp/></dynamics>", wedge("diminuendo", ' number="2"'))
        + n("E4", 4)
        + direction(words('say "hi"\n there '), words(" dolce", ' default-y="-40"'))
        + n("F4", 4)
        + direction(wedge("stop", ' number="2"'))
    )
    second = (
        direction('<octave-shift type="down" size="8"/>')
        + n("C6", 4)
        + direction('<pedal type="start" line="no"/>')
        + n("D6", 4)
        + direction('<octave-shift type="stop" size="8"/>')
        + direction('<pedal type="change" line="no"/>'.replace("change", "stop"))
        + direction('<pedal type="start" line="no"/>')
        + n("E5", 4)
        + '<sound tempo="72.5"/>\n'
        + n("F5", 4)
        + direction('<pedal type="stop" line="no"/>')
    )
    third = (
        direction("<rehearsal>A</rehearsal>")
        + direction("<segno/>")
        + n("C4", 8)
        + direction("<coda/>")
        + direction(words("rit.", ' default-y="10"'), attributes=' placement="below"')
        + n("D4", 8)
        + direction(words("D.S. al Coda"), rest='<sound dalsegno="1"/>')
    )
    fourth = (
        direction("<metronome><beat-unit>half</beat-unit><per-minute>60</per-minute></metronome>")
        + n("C4", 16)
        + direction(words("Fine"), rest='<sound fine="yes"/>')
        + direction('<octave-shift type="stop"/>')
        + direction('<octave-shift type="up"/>')
    )
    return score(part(first, second, third, fourth))


def two_staves():
    first = attributes(4, -1, "minor", "3/4", ["G 2", "F 4"], "<staves>2</staves>")
    first += n("D5", 8, staff(1)) + forward(2) + n("C#5", 2, staff(1))
    first += backup(12) + forward(4) + n("F4", 4, staff(1), voice=2) + n("G4", 4, staff(2), voice=2)
    first += backup(12) + n("D3", 12, staff(2), voice=5)
    second = n("E5", 12, staff(1)) + backup(12) + n("A3", 4, staff(2), voice=5)
    second += attributes(rest='<clef number="2"><sign>G</sign><line>2</line></clef>') + n("A4", 8, staff(2), voice=5)
    third = n("F5", 4, staff(2)) + n("G5", 8, staff(1)) + backup(12) + n("r", 12, staff(2), voice=5)
    return score(part(first, second, third))


def overlaps():
    first = COMMON + n("r", 8) + backup(4) + n("C4", 8) + backup(4) + n("E4", 4) + forward(4)
    second = n("C4", 8) + backup(6) + n("E4", 8) + backup(12) + n("G4", 2) + forward(40)
    third = n("C4", 4) + forward(1).replace("<duration>1<", "<duration>0<") + n("D4", 4) + backup(20) + n("A4", 2, voice=2)
    fourth = attributes(64) + n("C4", 1) + forward(3) + n("D4", 252)
    return score(part(first, second, third, fourth))


def accidentals():
    sharp, natural = "<accidental>sharp</accidental>", "<accidental>natural</accidental>"
    first = attributes(4, 1, "major", "4/4", ["G 2"]) + n("F#4", 2) + n("F4", 2, natural) + n("F4", 2) + n("F#4", 2) + n("C#5", 2) + n("C#4", 2) + n("C5", 2) + n("G##4", 2)
    tie = notations('<tied type="stop"/>')
    second = n("C#5", 4, '<tie type="stop"/>', tie) + n("C#5", 4) + n("Bb4", 4, '<accidental parentheses="yes">flat</accidental>') + n("Abb4", 4, "<accidental>flat-flat</accidental>")
    third = attributes(fifths=-3) + n("E4", 4) + n("Eb4", 4) + n("Bb4", 4) + n("A4", 4, "<accidental>natural</accidental>") + n("G#4", 0, sharp)
    return score(part(first, second, third))


def spans():
    def slur(kind, number=1):
        return f'<slur type="{kind}" number="{number}"/>'

    def tied(kind):
        return f'<tie type="{kind}"/>', notations(f'<tied type="{kind}"/>')

    first = COMMON
    first += grace("B4", notations(slur("start")), slash=' slash="yes"') + n("C5", 4, notations(slur("stop"), slur("start", 2)))
    first += grace("D5", beam("begin")) + grace("E5", beam("end")) + grace("G5", before="<chord/>") + n("F5", 4, notations(slur("stop", 2)))
    first += n("C4", 4, *tied("start")) + chord("E4", 4, *tied("start")) + chord("G4", 4) + n("C4", 4, *tied("start")) + chord("E4", 4, *tied("start"))
    second = n("C4", 4, *tied("stop")) + chord("E4", 4, *tied("stop")) + n("D4", 4, notations(slur("start"), slur("start", 2)))
    second += n("E4", 4, notations(slur("start"))) + n("F4", 2, notations(slur("stop"), slur("stop", 2))) + n("A4", 2, *tied("start"))
    third = n("A4", 12, '<tie type="stop"/><tie type="start"/>') + n("A4", 4, '<tie type="stop"/>') + grace("B4") + grace("C5")
    return score(part(first, second, third))


def tuplets():
    def mark(kind, number=1):
        return f'<tuplet type="{kind}" number="{number}"/>'

    third = ratio(3, 2)
    first = attributes(12, 0, None, "4/4", ["G 2"])
    first += n("C4", 4, third, beam("begin"), notations(mark("start"))) + n("D4", 4, third, beam("continue")) + n("E4", 4, third, beam("end"), notations(mark("stop")))
    first += n("F4", 8, third, notations(mark("start"))) + n("G4", 4, third, notations(mark("stop")))
    first += "".join(n(p, 4, third) for p in ["A4", "r", "C5"]) + n("D5", 12)
    nested = ratio(9, 4)
    second = n("C4", 8, third, notations(mark("start"))) + n("D4", 2, nested, notations(mark("start", 2))) + n("E4", 2, nested) + n("F4", 2, nested, notations(mark("stop", 2))) + n("G4", 8, third, notations(mark("stop")))
    fifth = ratio(5, 4)
    second += "".join(n(p, 2, fifth, notations(mark("start")) if i == 0 else "") for i, p in enumerate(["A4", "B4", "C5", "D5", "E5"])) + n("C4", 14)
    third_measure = n("C5", 8, ratio(7, 4), notations(mark("start"), mark("start", 2))) + n("D5", 5) + n("E5", 7, ratio(7, 6)) + grace("F5") + n("G5", 7, ratio(7, 6), notations(mark("stop")))
    return score(part(first, second, third_measure))


def lyrics():
    extend = "<extend/>"
    first = COMMON + n("C4", 4, lyric("Glo", "begin"), lyric("A-men_x y", number=3)) + n("D4", 4, lyric("ri", "middle")) + n("E4", 4, lyric("a", "end", extend=extend)) + n("F4", 4)
    second = n("G4", 8) + n("r", 4) + n("A4", 4)
    third = n("C4", 4, lyric("Lord", number="part1verse2")) + n("D4", 4) + chord("F4", 4, lyric("lost")) + n("E4", 4, lyric("zero", number=0)) + n("F4", 4, '<lyric number="1"><text>ma</text><elision> </elision><text>gna</text></lyric>', lyric("", number=2))
    return score(part(first, second, third))


def repeats():
    def bar(location="right", style="", repeat="", ending=""):
        style = f"<bar-style>{style}</bar-style>" if style else ""
        repeat = f'<repeat direction="{repeat}"/>' if repeat else ""
        return f'<barline location="{location}">{style}{ending}{repeat}</barline>\n'

    def ending(number, kind):
        return f'<ending number="{number}" type="{kind}"/>'

    def again(kind, text=""):
        return attributes(rest=f'<measure-style><measure-repeat type="{kind}">{text}</measure-repeat></measure-style>')

    measures = [
        COMMON + bar("left", repeat="forward") + n("C4", 16),
        n("D4", 16) + bar(repeat="backward"),
        bar("left", repeat="forward") + n("E4", 16) + bar(repeat="backward"),
        n("F4", 16) + bar(style="light-light"),
        bar("left", ending=ending("1, 2.", "start")) + n("G4", 16) + bar(style="light-heavy", ending=ending("1, 2", "stop"), repeat="backward"),
        bar("left", ending=ending("last", "start")) + n("A4", 16) + bar(ending=ending("last", "discontinue")),
        n("B4", 16),
        again("start", "1") + n("r", 16),
        n("r", 16),
        again("stop") + n("C5", 16),
        again("start") + n("C5", 16) + bar(style="light-heavy"),
    ]
    return score(part(*measures))


def broken_rhythms():
    def pair(first, second, a="C5", b="D5"):
        return n(a, first, beam("begin")) + n(b, second, beam("end"))

    first = COMMON + pair(3, 1) + pair(1, 3) + pair(3, 1) + n("C5", 3) + n("D5", 1)
    second = n("r", 3) + n("D5", 1, beam("end")) + forward(1) + n("D5", 3, beam("continue")) + pair(2, 2) + "".join(pair(*x) for x in [(3, 1)])
    return score(part(first, second))


def titles():
    head = (
        "<work><work-title> A Work\n in two lines </work-title></work><movement-title>Moved &amp; &#101;ncoded</movement-title>"
        '<identification><creator type="composer">First\n Second</creator><creator type="lyricist">Poet</creator>'
        '<creator type="arranger">Nobody</creator><rights>Free</rights><creator type="transcriber">Scribe</creator></identification>'
        "<credit><credit-words>A Work</credit-words><credit-words> and \r\n  more</credit-words></credit><credit><credit-image/></credit>"
        "<!-- a comment --><credit><credit-words>12 <![CDATA[<34>]]></credit-words></credit>"
    )
    return score(part(COMMON + n("C4", 16)), head=head)


def sibelius():
    head = "<identification><encoding><software>Sibelius 7</software></encoding></identification>"
    first = attributes(1, 0, None, "2/4", ["G 2", "F 4"]) + n("C3", 2, staff(2)) + backup(2) + n("C5", 2, staff(1)) + backup(2) + n("E4", 2, staff(1), voice=2)
    return score(part(first), head=head)


def harmonies():
    def harmony(root, kind, bass="", degree="", alter=""):
        alter = f"<root-alter>{alter}</root-alter>" if alter != "" else ""
        bass = f"<bass><bass-step>{bass[0]}</bass-step><bass-alter>{bass[1:]}</bass-alter></bass>" if bass else ""
        return f"<harmony><root><root-step>{root}</root-step>{alter}</root><kind text='N.C.'>{kind}</kind>{bass}{degree}</harmony>\n"

    degree = "<degree><degree-value>9</degree-value><degree-alter>-1</degree-alter><degree-type>add</degree-type></degree>"
    kinds = ["major", "minor", "dominant", "half-diminished", "major-seventh", "minor-11th", "suspended-fourth", "dominant-ninth", "diminished-seventh", "none", "power", "major-sixth", "augmented-seventh"]
    measures = [harmony("C", kind) + n("C4", 16) for kind in kinds]
    measures += [harmony("B", "dominant", "F1", degree, -1) + n("C4", 16), harmony("F", "major", "A0", alter=1) + n("C4", 16)]
    return score(part(COMMON + measures[0], *measures[1:]))


def clefs():
    kinds = ["C 1", "C 2", "C 3", "C 4", "F 4", "F 3", "G 2 -1", "G 2 1", "F 4 -2", "G 2 2", "none -", "C 5"]
    measures = [attributes(1, 3, "minor", "1/4", kinds[:1]) + n("G#4", 1)]
    measures += [attributes(clefs=[kind]) + n("A4", 1) for kind in kinds[1:]]
    return score(part(*measures), part(attributes(1, 3, "minor", "1/4", ["G 2 -1"]) + n("C4", 1), id_="P2"))


def hidden():
    def unseen(note):
        return note.replace("<note>", '<note print-object="no">')

    first = COMMON + unseen(n("C4", 4)) + unseen(n("r", 4)) + n("D4", 4) + unseen(chord("F4", 4)) + n("E4", 4, "<cue/>")
    second = n("r", 16, voice=2) + backup(16) + unseen(n("C4", 16))
    return score(part(first, second))


def lines():
    return score(part(COMMON + n("C4", 16), *["".join(n(p, 2) for p in ["C4", "D4", "E4", "F4", "G4", "A4", "B4", "C5"])] * 7))


FAILS = {
    "fails_decimals": score(part(attributes("2.5", 0, None, "4/4", ["G 2"]) + n("C4", "5.0") + n("D4", "2.5") + n("E4", "1.25"))),
    "fails_meter": score(part(attributes(1, 0, None, "3+2/8", ["G 2"]) + n("C4", 2))),
    "fails_mode": score(part(attributes(1, 2, "hypolydian", "2/4", ["G 2"]) + n("C4", 2))),
    "fails_accidental": score(part(COMMON + n("C4", 4, "<accidental>quarter-sharp</accidental>") + n("D#4", 4, "<accidental>slash-sharp</accidental>") + n("E###4", 4) + n("F4", 4, "<accidental/>"))),
    "fails_staff": score(part(COMMON + direction("<dynamics><p/></dynamics>", rest="<staff>2</staff>") + n("C4", 16))),
    "fails_pedal": score(
        part(COMMON + direction('<pedal type="start"/>') + n("C4", 16, voice=3), id_="P1"),
        part(COMMON + n("C4", 8) + direction('<pedal type="stop"/>') + n("D4", 8), id_="P2"),
    ),
    "fails_chord": score(part(COMMON + chord("C4", 16))),
    "fails_spans": score(part(COMMON + direction('<pedal type="sostenuto"/>') + direction("<metronome><beat-unit>quarter</beat-unit><per-minute>c. 90</per-minute></metronome>") + n("C4", 16, lyric("la", number="chorus")))),
    "fails_timewise": '<score-timewise><part-list><score-part id="A"><part-name>A</part-name></score-part><score-part id="B"><part-name>B</part-name></score-part></part-list>'
    + "".join(
        f'<measure number="{i}"><part id="A">{COMMON if i == 1 else ""}{n("C4", 16)}</part><part id="B">{COMMON if i == 1 else ""}{n("E4", 16)}</part></measure>'
        for i in (1, 2)
    )
    + "</score-timewise>",
    "fails_part_list": score(part(COMMON + n("C4", 16), id_="P1"), part(COMMON + n("C4", 16), id_="P2"), parts_list='<score-part id="P1"><part-name>One</part-name></score-part>'),
}

SCORES = {
    "accidentals": accidentals(),
    "broken_rhythms": broken_rhythms(),
    "clefs": clefs(),
    "directions": directions(),
    "groups": groups(),
    "harmonies": harmonies(),
    "hidden": hidden(),
    "lines": lines(),
    "lyrics": lyrics(),
    "modes": mode_score(),
    "ornaments": ornaments(),
    "overlaps": overlaps(),
    "percussion": percussion(),
    "repeats": repeats(),
    "sibelius": sibelius(),
    "spans": spans(),
    "tablature": tablature(),
    "titles": titles(),
    "tuplets": tuplets(),
    "two_staves": two_staves(),
    **FAILS,
}


def main():
    os.makedirs(HERE, exist_ok=True)
    with open(CONVERTER, "rb") as file:
        code = compile(file.read(), CONVERTER, "exec")
    for name, text in SCORES.items():
        path = os.path.join(HERE, name + ".xml")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        out, messages = io.StringIO(), io.StringIO()
        sys.argv = ["xml2abc.py", "-d", "8", "-c", "6", "-x", path]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(messages):
            exec(code, {"__name__": "__main__"})
        if bool(out.getvalue()) == (name in FAILS):
            print(name, messages.getvalue().strip().splitlines()[-1])
        if out.getvalue():
            with open(path[:-4] + ".abc", "w", encoding="utf-8", newline="") as file:
                file.write(out.getvalue())


if __name__ == "__main__":
    main()
