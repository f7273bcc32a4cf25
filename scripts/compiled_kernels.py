"""What the compiler made of torch-ext/kernels: for which cards, and registers, shared memory and spills of each kernel.

    python3 scripts/compiled_kernels.py FOLDER   the OUT_DIR of torch-ext's build, with libtorch_ext_cuda.so and *.ptxas

Ends non-zero where a card's code is missing or a kernel spills more than 64 bytes.
"""

import re
import struct
import subprocess
import sys
from pathlib import Path

PTX, CUBIN = 1, 2
SOURCES = ["append", "attention", "draw", "norm"]
WANTED = {(CUBIN, 80), (CUBIN, 90), (PTX, 90)}


def codes(library):
    """For each source's part of the library: (PTX or CUBIN, compute capability). The layout is that of nvcc's fatbin."""
    for part in re.finditer(re.escape(struct.pack("<I", 0xBA55ED50)), library):
        _, _, header, size = struct.unpack_from("<IHHQ", library, part.start())
        at = part.start() + header
        end, found = at + size, set()
        while at < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", library, at)
            found.add((kind, struct.unpack_from("<I", library, at + 28)[0]))
            at += header + size
        yield found


def name(mangled):
    try:
        plain = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
    except OSError:
        return mangled
    return plain.strip().replace("kernels::(anonymous namespace)::", "").replace("void ", "").split("(", 1)[0]


def main(folder):
    library = (folder / "libtorch_ext_cuda.so").read_bytes()
    failed = b"te_kernels" not in library
    parts = list(codes(library))
    failed |= len(parts) != len(SOURCES) or any(not WANTED <= part for part in parts)
    print(f"libtorch_ext_cuda.so: {len(library) / 1e6:.1f} MB, code of {len(parts)} sources for",
          ", ".join(f"{'PTX' if kind == PTX else 'sm'}_{card}" for kind, card in sorted(set().union(*parts))))
    entry = re.compile(r"entry function '(\w+)' for '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers(.*?)\n", re.S)
    for source in SOURCES:
        for mangled, card, spilled, registers, rest in entry.findall((folder / f"{source}.ptxas").read_text()):
            shared = re.search(r"(\d+) bytes smem", rest)
            print(f"  {card} {name(mangled)}: {registers} registers, {shared.group(1) if shared else 0} bytes shared,"
                  f" {spilled} spilled")
            failed |= int(spilled) > 64
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
