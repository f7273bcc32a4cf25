"""Whether a folder holds every file of the wheels that a requirements file names, at the size that the wheel gives.

    installed.py FOLDER REQUIREMENTS      exits with 0 if so
"""

import csv
import os
import re
import sys


def folded(name):
    return re.sub(r"[-_.]+", "-", name).lower()


folder, requirements = sys.argv[1:]
wanted = {folded(line.strip()) for line in open(requirements) if line.strip() and not line.startswith("#")}
for info in os.listdir(folder):
    name, _, version = info.removesuffix(".dist-info").partition("-")
    entry = folded(f"{name}=={version}")
    if not info.endswith(".dist-info") or entry not in wanted:
        continue
    try:
        with open(os.path.join(folder, info, "RECORD"), newline="") as record:
            whole = all(
                os.path.getsize(os.path.join(folder, path)) == int(size)
                for path, _, size in csv.reader(record)
                if size and not path.startswith("..") and not path.endswith(".pyc")
            )
    except OSError:
        whole = False
    if whole:
        wanted.discard(entry)
sys.exit(1 if wanted else 0)
