"""The store beside a disk, a kernel and a memory that fail: every call once, every allocation once;
kill -9 at any moment; files that were damaged while nobody looked.

WINDROW_FAULT_STRIDE tries every n-th call only (1); WINDROW_STORE_KILLS (1000) and
WINDROW_DAMAGED_FILES (1500) set how often. Each program takes --hours H, too.
"""
import os

import pytest

from test_powercut import run

STRIDE = int(os.environ.get("WINDROW_FAULT_STRIDE", "1"))
KILLS = int(os.environ.get("WINDROW_STORE_KILLS", "1000"))
FILES = int(os.environ.get("WINDROW_DAMAGED_FILES", "1500"))


@pytest.mark.lasts(50)
def test_every_call_and_every_allocation_fails_once():
    summary = run("powercut_faults", "--stride", STRIDE)
    assert summary["bad"] == 0, summary
    if STRIDE == 1:
        assert summary["calls_failed"] >= 2000
        assert summary["allocations_failed"] >= 1000


@pytest.mark.parametrize("seed", range(2, 7))
def test_calls_and_allocations_fail_in_every_life(seed):
    summary = run("powercut_faults", "--seed", seed, "--stride", 60 * STRIDE)
    assert summary["bad"] == 0, summary


@pytest.mark.lasts(20)
def test_kill_at_random_moments_while_readers_settle():
    summary = run("powercut_kill", "--kills", KILLS)
    assert summary["bad"] == 0, summary
    assert summary["kills"] >= KILLS
    assert summary["before_the_first_commit"] > 0  # creation was hit, too


@pytest.mark.lasts(50)
def test_a_damaged_file_is_set_aside_and_crashes_nothing():
    summary = run("powercut_damage", "--files", FILES)
    assert summary["crashed"] == summary["hung"] == summary["wrong"] == 0, summary
    assert 0 < summary["set_aside"] < FILES
    assert summary["salvaged"] > summary["set_aside"] // 2  # most files still have something


def test_full_and_read_only_disks():
    summary = run("powercut_disks")
    assert summary["bad"] == 0, summary
    if summary["cases"] == 0:
        pytest.skip("nothing may be mounted here")
