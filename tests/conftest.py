"""What every test has at hand: a folder of its own, and the certainty that nothing outlives it."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))

import process  # noqa: E402  (it lies in support/)

LOG_TAIL = 2500


def pytest_configure(config):
    config.addinivalue_line("markers", "lasts(seconds): about so long; the longest begin first")


def pytest_collection_modifyitems(items):
    def lasts(item):
        marker = item.get_closest_marker("lasts")
        return marker.args[0] if marker else 0

    items.sort(key=lasts, reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from one_by_one import OneByOne
    return OneByOne(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for path in sorted({one.log_path for one in item.funcargs.get("everything", [])}):
            with open(path, "rb") as log:
                tail = log.read()[-LOG_TAIL:].decode("utf-8", "replace")
            report.sections.append((f"end of {os.path.basename(path)}", tail))


@pytest.fixture(autouse=True)
def everything():
    """All processes that the test starts; what still runs at its end is killed. Those of fixtures
    of a whole file were there before it and go on."""
    before, started = list(process.running), []
    process.observers.append(started.append)
    yield started
    process.observers.clear()
    process.kill_all(before)


@pytest.fixture(autouse=True, scope="session")
def nothing_stays():
    yield
    process.kill_all()
