"""store [--full] [--part NAME] [--millions N]: the store's figures, each beside its limit.

Parts: rest (a day at 1 Hz, beside the order-0 entropy of its deltas; real 10-minute records), rate
(append and durable commit, beside bare LMDB committing the same bytes), device (bytes written, by
the counters of a loop device with ext4; skipped where none may be had) and backlog (so many million
readings drained while 15,400/s arrive; 20, with --full 100). The bound of a figure is a least or a
most by its kind; the ratio is above 1 where it is not held. Folders: $BENCH_DIR (/var/tmp) for what
waits for a disk, /dev/shm for what is only counted.
"""
import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

PROGRAM = os.path.join(os.environ["WINDROW_BUILD_DIR"], "tests", "bench_store")
DATA = os.path.join(os.path.dirname(__file__), "../../../shared/data/la_haute_borne")
RECORDS = "R80711_2017-08-31_to_09-09_with_gaps.csv"
IMAGE_BYTES = 1 << 30
NO_LOOP = 77


def measure(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], check=False).returncode == 0


@contextlib.contextmanager
def folder(where):
    path = tempfile.mkdtemp(prefix="windrow-bench-", dir=where)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def rest(_wanted):
    good = True
    with folder("/dev/shm") as path:
        for channels, limit in (20, 0.69), (50, 0.60):
            for turbines in 1, 10:
                good = measure("rest", path, channels, turbines, limit) and good
        if os.path.exists(os.path.join(DATA, RECORDS)):
            good = measure("haute-borne", path, os.path.join(DATA, RECORDS)) and good
    return good


def rate(wanted):
    with folder(os.environ.get("BENCH_DIR", "/var/tmp")) as path:
        return measure("rate", path, 900 if wanted.full else 180)


def on_loop_device(path, commits):
    """In a mount namespace of its own; NO_LOOP where that or a loop device is not allowed."""
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        return NO_LOOP
    script = """
        truncate -s $3 "$1/image" && mkfs.ext4 -q -F -m0 "$1/image" && mkdir "$1/disk" &&
        mount -o loop "$1/image" "$1/disk" || exit $4
        device=$(findmnt -n -o SOURCE "$1/disk")
        "$0" device "$1/disk" "/sys/block/${device##*/}/stat" "$2"
        status=$?
        umount "$1/disk"
        exit $status
    """
    return subprocess.run(["unshare", "--mount", "sh", "-c", script, PROGRAM, path, str(commits),
                           str(IMAGE_BYTES), str(NO_LOOP)], check=False).returncode


def device(wanted):
    with folder("/dev/shm") as path:
        status = on_loop_device(path, 3000 if wanted.full else 1100)
    if status == NO_LOOP:
        print("# device: skipped, no loop device may be mounted here", file=sys.stderr)
        return True
    return status == 0


def backlog(wanted):
    millions = wanted.millions or (100 if wanted.full else 20)
    with folder(os.environ.get("BENCH_DIR", "/var/tmp")) as path:
        return measure("backlog", path, millions, 2.5)


def main():
    parts = {"rest": rest, "rate": rate, "device": device, "backlog": backlog}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--full", action="store_true", help="as long as the figures ask for")
    parser.add_argument("--part", choices=parts, help="only this one")
    parser.add_argument("--millions", type=float, help="readings of the backlog")
    wanted = parser.parse_args()
    print("# a limit may be a least or a most: above 1 the ratio says that it is not held",
          file=sys.stderr)
    return 0 if all([run(wanted) for name, run in parts.items()
                     if wanted.part in (None, name)]) else 1


if __name__ == "__main__":
    sys.exit(main())
