"""Power cuts: what a disk may hold when the power goes, at every write of the real store.

WINDROW_POWERCUT_IMAGES sets how many distinct images at least (50000; the six lives of a store that
are cut give about 58,000); `powercut_cuts --hours H` runs on. WINDROW_EXT4_IMAGES does the same for
whole disks with ext4 (300), where FUSE and loop devices may be mounted. WINDROW_SALVAGE_ONE_IN: of
the images of a store that is being salvaged one in so many is judged (12).
"""
import json
import os
import subprocess

import pytest

import process

EXT4_IMAGES = int(os.environ.get("WINDROW_EXT4_IMAGES", "300"))
IMAGES = int(os.environ.get("WINDROW_POWERCUT_IMAGES", "50000"))
SALVAGE_ONE_IN = int(os.environ.get("WINDROW_SALVAGE_ONE_IN", "12"))
LIMIT_S = 2200
SKIPPED = 77
BUGS = ("nosync", "nometasync", "acknowledge_before_commit")


def run(program, *options, limit_s=LIMIT_S):
    """The JSON summary, which is the program's last line. It only reckons: what others, who have to
    be in time, leave of the processors is enough for it."""
    done = subprocess.run(["nice", "-n", "19", process.program(program), *map(str, options)],
                          capture_output=True, text=True, timeout=limit_s, check=False)
    print(done.stderr[-4000:], done.stdout[-4000:])
    if done.returncode == SKIPPED:
        pytest.skip(json.loads(done.stdout)["skipped"])
    assert done.returncode in (0, 1), f"{program} ended with {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.lasts(180)
def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    summary = run("powercut_cuts", "--images", IMAGES, "--keep", tmp_path)
    assert summary["store"]["bad"] == 0, summary["store"]
    assert summary["store"]["distinct_images"] >= IMAGES
    for way in ("dropped", "thinned", "expired", "requeued"):  # all that a store may do, too
        assert summary["store"][f"of_stores_that_{way}"] > 1000
    for bug in BUGS:
        assert summary[bug]["bad"] > 0, f"{bug} was not caught: the proof proves nothing"
    assert summary["good"]


@pytest.mark.lasts(15)
def test_no_power_cut_while_a_damaged_store_is_salvaged_loses_or_doubles():
    summary = run("powercut_salvage", "--one-in", SALVAGE_ONE_IN)
    assert summary["bad"] == 0 and summary["distinct_images"] > 1000 // SALVAGE_ONE_IN, summary
    assert summary["nosync"]["bad"] > 0, "nosync was not caught: the proof proves nothing"
    assert summary["good"]


@pytest.mark.lasts(20)
def test_no_power_cut_of_a_whole_ext4_disk_loses_what_was_acknowledged(tmp_path):
    summary = run("powercut_ext4", "--images", EXT4_IMAGES, "--keep", tmp_path)
    assert summary["store"]["bad"] == 0, summary["store"]
    assert summary["store"]["distinct_images"] >= EXT4_IMAGES
    for bug in BUGS:
        assert summary[bug]["bad"] > 0, f"{bug} was not caught: the proof proves nothing"
    assert summary["good"]
