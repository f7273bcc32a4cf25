"""Writes small files of every kind that torch.save makes or a user may take for one: pth_files.py FOLDER.

manifest.json lists the good ones with what they hold, and the bad ones with words of the error."""

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict

import torch
from pth_describe import describe

warnings.filterwarnings("ignore")
torch.manual_seed(0)
folder = sys.argv[1]
good, bad = [], []


def path(name):
    return os.path.join(folder, name)


def keep(name, value, **options):
    torch.save(value, path(name), **options)
    good.append({"file": name, "holds": describe(torch.load(path(name), weights_only=False))})


def refuse(name, error, content=None):
    if content is not None:
        with open(path(name), "wb") as file:
            file.write(content)
    bad.append({"file": name, "error": error})


def records(name):
    with zipfile.ZipFile(path(name)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def rezip(name, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path(name), "w", compression) as archive:
        for record, content in entries:
            archive.writestr(record, content)


class Call:
    """Pickles as a call of `function`, whatever that is."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


values = {
    "none": None,
    "truth": [True, False],
    "ints": [0, 1, -1, 255, 256, 65535, 65536, -129, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**63, -(2**80)],
    "floats": [0.0, -0.0, 1e-5, float("inf"), float("-inf"), 0.1],
    "text": ["", "é€𝄞", "long " * 100],
    "bytes": [b"", b"\x00\xff\x80", bytearray(b"ab\xe9")],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "nested": {"a": {"b": [{"c": ({},)}]}},
    3: {-7: "negative key", (1, "x"): "tuple key"},
    "size": torch.Size([2, 3]),
    "dtype": [torch.float32, torch.bfloat16, torch.int64],
    "device": [torch.device("cpu"), torch.device("cuda", 1), torch.device("cuda")],
    "ordered": OrderedDict([("z", 1), ("a", 2)]),
    "counter": Counter({"x": 2, "y": 1}),
    "same": [shared := [1, 2], shared],
}
keep("values.pth", values)
for protocol in (3, 4, 5):
    keep(f"protocol{protocol}.pth", {"a": torch.arange(3.0), "b": "t", "c": b"raw", "d": [1, 2**70]}, pickle_protocol=protocol)

dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8]
dtypes += [torch.uint8, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2]
numbers = {str(dtype): torch.tensor([[0, 1], [2, 100]]).to(dtype) for dtype in dtypes}
numbers["bool"] = torch.tensor([True, False, True])
numbers["extreme"] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
keep("dtypes.pth", numbers)

base = torch.arange(24.0).reshape(4, 6)
views = {
    "base": base,
    "same": base,
    "transposed": base.t(),
    "rows": base[1:3],
    "columns": base[:, 1::2],
    "expanded": base[0:1].expand(5, 6),
    "wide": torch.zeros(1).expand(1 << 20, 1 << 20)[:1, :1],
    "scalar": base[2, 3],
    "empty": base[:0],
    "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "one": torch.tensor(7),
}
keep("views.pth", views)

attributed = torch.arange(3.0)
attributed.note = "seen"
parameters = {
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
    "attributed": attributed,
    "state": torch.nn.Linear(2, 3).state_dict(),
    "untyped": torch.ones(3, dtype=torch.uint8),
}
parameters["parameter"].note = "seen too"
keep("parameters.pth", parameters)

keep("name with. dots & spaces.tar.pth", {"a": base})
with open(path("buffer.pth"), "wb") as file:
    torch.save({"a": base, "b": [base.t()]}, file)
good.append({"file": "buffer.pth", "holds": describe(torch.load(path("buffer.pth")))})
rezip("flat.pth", [(name.split("/", 1)[1], content) for name, content in records("buffer.pth")])
good.append({"file": "flat.pth", "holds": good[-1]["holds"]})

endian = {"f": torch.arange(5.0), "h": torch.arange(5).half(), "l": torch.arange(5), "b": torch.arange(5).byte()}
endian["c"] = torch.complex(torch.arange(3.0), -torch.arange(3.0))
torch.save(endian, path("little.pth"))
widths = [4, 2, 8, 1, 4]
swapped = []
for name, content in records("little.pth"):
    if "/data/" in name:
        width = widths[int(name.rsplit("/", 1)[1])]
        content = b"".join(content[i : i + width][::-1] for i in range(0, len(content), width))
    swapped.append((name, b"big" if name.endswith("/byteorder") else content))
rezip("big.pth", swapped)
good.append({"file": "big.pth", "holds": describe(endian)})
rezip("sideways.pth", [(n, b"middle" if n.endswith("/byteorder") else c) for n, c in swapped])
refuse("sideways.pth", "its byte order is `middle`")

# Files that are no checkpoints.
refuse("empty.pth", "the file is empty", b"")
refuse("page.pth", "an HTML page", b"\n<!DOCTYPE html><html><body>Not found</body></html>")
refuse("message.pth", "a JSON text", b'{"error": "Entry not found"}')
refuse("answer.pth", "an XML page", b'<?xml version="1.0"?><Error/>')
refuse("words.pth", "a text", b"Repository not found")
refuse("zip.gz", "a gzip archive", b"\x1f\x8b\x08\x00\x00")
refuse("noise.pth", "no format known here", bytes([200, 201, 255, 254] * 9))
pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2066\n"
refuse("pointer.pth", "Git LFS pointer", pointer)
header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
refuse("renamed_safetensors.pth", "a safetensors file", struct.pack("<Q", len(header)) + header + bytes(4))
refuse("plain.pth", "plain Python pickle", pickle.dumps({"a": 1}))
torch.save({"a": base}, path("legacy.pth"), _use_new_zipfile_serialization=False)
refuse("legacy.pth", "old format (a bare pickle")
with tarfile.open(path("legacy_tar.pth"), "w") as archive:
    for name in ("sys_info", "pickle", "storages", "tensors"):
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"none"))
refuse("legacy_tar.pth", "first format (a tar archive)")
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path("script.pth"))
refuse("script.pth", "a TorchScript program")
rezip("document.pth", [("word/document.xml", b"<w/>")])
refuse("document.pth", "this zip archive has no data.pkl")
os.mkdir(path("folder.pth"))
refuse("folder.pth", "this is a folder")
refuse("absent.pth", "cannot open")

# Damaged archives.
torch.save({"a": base, "b": torch.ones(1000)}, path("whole.pth"))
with open(path("whole.pth"), "rb") as file:
    whole = file.read()
for share in (0.1, 0.5, 0.9, 0.99):
    refuse(f"truncated{share}.pth", "the file is truncated", whole[: int(len(whole) * share)])
for bytes_cut in (1, 10):
    refuse(f"last{bytes_cut}_cut.pth", "the file is truncated", whole[:-bytes_cut])
rezip("compressed.pth", records("whole.pth"), zipfile.ZIP_DEFLATED)
refuse("compressed.pth", "is compressed")
encrypted = bytearray(whole)
for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    at = encrypted.find(signature)
    while at >= 0:
        encrypted[at + flags] |= 1
        at = encrypted.find(signature, at + 1)
refuse("encrypted.pth", "the archive is encrypted", bytes(encrypted))
rezip("lost.pth", [r for r in records("whole.pth") if not r[0].endswith("data/1")])
refuse("lost.pth", "record `data/1` is missing")
rezip("short.pth", [(n, c[:-4] if n.endswith("data/1") else c) for n, c in records("whole.pth")])
refuse("short.pth", "record `data/1` has 3996 bytes and needs 4000")

# Pickles that would run something, or contradict themselves.
tensor, storage = torch._utils._rebuild_tensor_v2, base._typed_storage()
hooks = OrderedDict()
for name, value, error in [
    ("system", Call(os.system, "true"), "`posix.system` is refused"),
    ("eval", Call(eval, "1"), "`__builtin__.eval` is refused"),
    ("get", Call(getattr, 1, "real"), "`__builtin__.getattr` is refused"),
    ("numpy", __import__("numpy").float64(1), "_core.multiarray.scalar` is refused"),
    ("module", torch.nn.Linear(1, 1), "`torch.nn.modules.linear.Linear` is refused"),
    ("sparse", torch.eye(2).to_sparse(), "`torch._utils._rebuild_sparse_tensor` is refused"),
    ("uint16", torch.ones(2).to(torch.uint16), "type torch.uint16 are not supported"),
    ("beyond", Call(tensor, storage, 20, (5,), (1,), False, hooks), "lies outside its storage of 24 elements"),
    ("stride", Call(tensor, storage, 0, (2, 2), (23, 2), False, hooks), "lies outside its storage"),
    ("backwards", Call(tensor, storage, 23, (2,), (-1,), False, hooks), "lies outside its storage"),
    ("before", Call(tensor, storage, -1, (2,), (1,), False, hooks), "lies outside its storage"),
    ("huge", Call(tensor, storage, 0, (2**40, 2**40), (0, 0), False, hooks), "lies outside its storage"),
    ("ranks", Call(tensor, storage, 0, (2, 2), (1,), False, hooks), "lies outside its storage"),
    ("negated", torch._neg_view(base), "negated or conjugated"),
    ("set", {1, 2}, "`__builtin__.set` is refused"),
]:
    torch.save({"x": value}, path(f"bad_{name}.pth"))
    refuse(f"bad_{name}.pth", error)
pickles = [
    ("persid", b"\x80\x02P1\n.", "opcode PERSID is refused"),
    ("inst", b"\x80\x02(ios\nsystem\n.", "opcode INST is refused"),
    ("extension", b"\x80\x02\x82\x01.", "opcode EXT1 is refused"),
    ("underflow", b"\x80\x020.", "the stack is empty"),
    ("memo", b"\x80\x02h\x05.", "nothing was kept as number 5"),
    ("cut", b"\x80\x02X\xff\xff\xff\x7fabc", "the pickle ends too early"),
    ("endless", b"\x80\x02]q\x00h\x00a.", "nested too deep"),
    ("deep", b"\x80\x02" + b")" + b"\x85" * 100_000 + b".", "nested too deep"),
    ("laughs", b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(20)) + b".", "too many values"),
    ("called", b"\x80\x02K\x01)R.", "a call of a whole number"),
    ("twice", b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.", "two entries for `a`"),
]
for name, pickled, error in pickles:
    rezip(f"pickle_{name}.pth", [("archive/data.pkl", pickled), ("archive/version", b"3\n")])
    refuse(f"pickle_{name}.pth", error)

with open(path("manifest.json"), "w") as file:
    json.dump({"good": good, "bad": bad}, file)
