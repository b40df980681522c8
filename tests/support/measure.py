"""What benchmarks measure of a process, and how they print it."""
import json
import os

MIB = 1024 * 1024


def emit(bench, name, value, unit, limit=None, ratio=None):
    """One JSON line, the ratio to the limit unless another is given; returns whether it holds."""
    if ratio is None and limit:
        ratio = value / limit
    print(json.dumps({"bench": bench, "name": name, "value": round(value, 4), "unit": unit,
                      "limit": limit, "ratio": None if ratio is None else round(ratio, 3)}),
          flush=True)
    return limit is None or value <= limit


def cpu_s(pid):
    """CPU seconds that the process has used, all threads, user and system."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_anon(pid):
    """Anonymous memory in bytes: what LMDB maps from its file is the kernel's to reclaim."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/PID/status")
