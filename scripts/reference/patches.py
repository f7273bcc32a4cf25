"""NotaGen's patches in plain Python: text to rows of 16 character codes and back.

Follows `Patchilizer` of the original (pretrain/utils.py), its quirks included.
"""

import re

PATCH_SIZE = 16
PAD, BOS, EOS = 0, 1, 2
BARLINE = re.compile(r"(\|:|::|:\||\[\||\|\||\|\]|\|)")
BOS_PATCH = [BOS] * (PATCH_SIZE - 1) + [EOS]
EOS_PATCH = [BOS] + [EOS] * (PATCH_SIZE - 1)


class Unpaired(Exception):
    """A line whose bar lines do not pair up with text; the original drops the body from here on."""


def bars_of_line(line):
    parts = [part for part in BARLINE.split(line) if part]
    if len(parts) == 1:
        return parts
    if not parts:
        raise Unpaired
    opening = [] if BARLINE.fullmatch(parts[0]) else parts[:1]
    rest = parts[len(opening):]
    if len(rest) % 2:
        raise Unpaired
    bars = opening + [barline + text for barline, text in zip(rest[::2], rest[1::2])]
    if "V" not in bars[-1]:
        if len(bars) == 1:
            raise Unpaired
        bars[-2:] = [bars[-2] + bars[-1]]
    return bars


def bars_of(lines):
    bars = []
    for line in lines:
        try:
            bars += bars_of_line(line)
        except Unpaired:
            break
    return bars


def chunks(text, close=True):
    """Text in pieces of 16 characters; a short last one is closed with the end character."""
    if close and len(text) % PATCH_SIZE:
        text += chr(EOS)
    return [text[i:i + PATCH_SIZE] for i in range(0, len(text), PATCH_SIZE)]


def ids(patch, pad=True):
    row = [ord(character) for character in patch]
    return row + [PAD] * (PATCH_SIZE - len(row)) if pad else row


def split_piece(text, starts):
    """Metadata lines and body lines, without line ends; the body begins at the first line with one of `starts`."""
    lines = [line for line in text.split("\n") if line]
    body = next(i for i, line in enumerate(lines) if line.startswith(starts))
    return lines[:body], lines[body:]


def encode_whole(text):
    """The training form of a whole piece, uncut: (metadata patches, body patches) as rows."""
    metadata, body = split_piece(text, ("[V:",))
    tagged = [f"[r:{i}/{len(body) - i - 1}]{line}\n" for i, line in enumerate(body)]
    head = [ids(patch) for line in metadata for patch in chunks(line + "\n")]
    tail = [ids(patch) for bar in bars_of(tagged) for patch in chunks(bar)]
    return [BOS_PATCH] + head, tail + [EOS_PATCH]


def encode_prompt(lines):
    """Metadata lines (each with its line end) as the rows that a piece begins with."""
    return [BOS_PATCH] + [ids(patch) for line in lines for patch in chunks(line)]


def encode_generate(text, patch_length):
    """The generation form: as `encode_whole`, of tagged text, with the last bar left open."""
    metadata, body = split_piece(text, ("[V:", "[r:"))
    ends = ["\n"] * len(body)
    if not text.endswith("\n"):
        ends[-1] = ""
    bars = bars_of([line + end for line, end in zip(body, ends)])
    patches = [patch for line in metadata for patch in chunks(line + "\n")]
    patches += [patch for bar in bars[:-1] for patch in chunks(bar)]
    patches += chunks(bars[-1], close=False)
    rows = [BOS_PATCH] + [ids(patch, pad=patch[-1] == chr(EOS) or len(patch) == PATCH_SIZE) for patch in patches]
    return rows[:patch_length]


def decode(rows):
    text = ""
    for row in rows:
        end = row.index(EOS) if EOS in row else len(row)
        text += "".join(map(chr, row[:end]))
    return text
