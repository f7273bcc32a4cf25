"""What Unidecode makes of ranges of characters: first, last, SHA-256 of the lines of their results.

    PYTHONPATH=.tools/python python3 transliteration.py > transliteration.tsv
"""

import hashlib

from unidecode import unidecode

RANGES = [
    (0x0000, 0x052F),  # Latin, phonetic letters, accents, Greek, Cyrillic
    (0x0700, 0x09FF),
    (0x0B00, 0x13EF),  # Dravidian scripts, Thai, Lao, Tibetan, Georgian, Hangul letters, Ethiopic, Cherokee
    (0x1400, 0x1CFF),
    (0x1E00, 0x209C),  # Latin with accents, Greek with accents, punctuation
    (0x20A0, 0x24EA),  # Currencies, symbols
    (0x2500, 0x2653),
    (0x2660, 0x27FF),
    (0x3040, 0x30FE),  # Kana
    (0x3400, 0xA7F0),  # Han
    (0xA800, 0xD7FF),  # Hangul
    (0xE000, 0xFAFF),  # Private use, Han
    (0xFE50, 0xFFFF),  # Full-width letters
    (0x1D000, 0x1D6A3),  # Musical symbols, mathematical letters
    (0x1D7C0, 0x1EFFF),
    (0x1FC00, 0x10FFFF),
]

for first, last in RANGES:
    digest = hashlib.sha256()
    for code in range(first, last + 1):
        if not 0xD800 <= code < 0xE000:
            digest.update((unidecode(chr(code)) + "\n").encode())
    print(f"{first:04x}\t{last:04x}\t{digest.hexdigest()}")
