"""Power cuts: what a disk may hold when the power goes, at every write of the real store.

WINDROW_POWERCUT_IMAGES sets how many distinct images (50000); `powercut_cuts --hours H` runs on.
"""
import json
import os
import subprocess

import process

IMAGES = int(os.environ.get("WINDROW_POWERCUT_IMAGES", "50000"))
LIMIT_S = 1500


def run(program, *options, limit_s=LIMIT_S):
    """The JSON summary, which is the program's last line."""
    done = subprocess.run([process.program(program), *map(str, options)], capture_output=True,
                          text=True, timeout=limit_s, check=False)
    print(done.stderr[-4000:], done.stdout[-4000:])
    assert done.returncode in (0, 1), f"{program} ended with {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    summary = run("powercut_cuts", "--images", IMAGES, "--keep", tmp_path)
    assert summary["store"]["bad"] == 0, summary["store"]
    assert summary["store"]["distinct_images"] >= IMAGES
    if IMAGES >= 50000:
        assert summary["store"]["of_stores_that_dropped"] > 0  # it was full, too
    for bug in ("nosync", "nometasync", "acknowledge_before_commit"):
        assert summary[bug]["bad"] > 0, f"{bug} was not caught: the proof proves nothing"
    assert summary["good"]
