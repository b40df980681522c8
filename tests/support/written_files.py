"""What type `file` has written: rotated, compressed and live files of one path."""
import collections
import csv
import glob
import gzip
import json


def lines_of(path):
    for name in sorted(glob.glob(path + "*")):
        assert not name.endswith(".part"), name
        opener = gzip.open if name.endswith(".gz") else open
        with opener(name, "rt", encoding="utf-8", newline="") as file:
            text = file.read()
        assert text == "" or text.endswith("\n"), f"{name} ends within a line"
        yield from text.splitlines()


def identities(path, kind):
    """(store, stream, device, seq) -> its values; what comes twice must be the same."""
    seen = collections.defaultdict(dict)
    if kind == "ndjson":
        for line in lines_of(path):
            record = json.loads(line)
            key = tuple(record[name] for name in ("store", "stream", "device", "seq"))
            assert seen[key] in ({}, record["values"]), f"{key} came again with other values"
            seen[key] = record["values"]
    else:
        rows = [row for row in csv.reader(lines_of(path)) if row[3] != "device"]
        for _, store, stream, device, seq, _, _, point, value, _ in rows:
            values = seen[(store, stream, device, int(seq))]
            assert values.setdefault(point, value) == value
    return seen


def tear(path, chance):
    """What a power cut may leave behind the last whole line."""
    with open(path, "ab") as file:
        file.write(b'{"gateway":"torn"' + bytes(chance.randrange(40)))
