"""The store beside a disk, a kernel and a memory that fail: every call once, every allocation once.

WINDROW_FAULT_STRIDE tries every n-th call only (1).
"""
import os

from test_powercut import run

STRIDE = int(os.environ.get("WINDROW_FAULT_STRIDE", "1"))


def test_every_call_and_every_allocation_fails_once():
    summary = run("powercut_faults", "--stride", STRIDE)
    assert summary["bad"] == 0, summary
    if STRIDE == 1:
        assert summary["calls_failed"] >= 2000
        assert summary["allocations_failed"] >= 1000
