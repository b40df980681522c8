"""What is new arrives in time while a backlog is sent over a long and thin line."""
import json
import os
import subprocess

import pytest

from arrivals import Arrivals
from certificates import Authority
from process import SHARED_DATA, program
from relay import Relay

DEVICES, BACKLOG, SECONDS, INTERVAL_MS, ROUND_TRIP_MS = 50, 400, 8, 1000, 100
ATTEMPTS = 6


@pytest.mark.lasts(14)
@pytest.mark.skipif(not os.path.exists(os.path.join(SHARED_DATA, "reference_signal.h")),
                    reason="no reference data beside the checkout")
def test_new_readings_overtake_a_backlog(tmp_path):
    """Within batch_interval and two round trips, each lane of a device in order, nothing missing,
    nothing twice. Sent without giving way, a new reading takes up to a second longer. A machine
    that is busy elsewhere may be late by itself: then it is looked at again."""
    for attempt in range(1, ATTEMPTS + 1):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        late = lateness(folder)
        most, last = late[int(0.8 * len(late))], late[-1]
        print(f"attempt {attempt}: 80 % within {most:.0f} ms, all within {last:.0f} ms")
        if most <= INTERVAL_MS + 2 * ROUND_TRIP_MS and last <= INTERVAL_MS + 5 * ROUND_TRIP_MS:
            return
    raise AssertionError(f"new readings are late: {late[::DEVICES]}")


def lateness(tmp_path):
    """How late the new readings came, in ms, the earliest first; what must hold on any machine."""
    arrivals = Arrivals(Authority(tmp_path / "ca"), BACKLOG + 1)
    line = Relay(tmp_path, arrivals.endpoint.port, ROUND_TRIP_MS // 2, 1000).start()
    result = subprocess.run(
        [program("bench_lanes"), str(DEVICES), str(BACKLOG), str(SECONDS),
         arrivals.endpoint.url.replace(str(arrivals.endpoint.port), str(line.port)),
         str(tmp_path / "ca" / "ca.pem"),
         f"compress = gzip;batch_interval = {INTERVAL_MS} ms", "drain"],
        capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["first_live"] == BACKLOG + 1 and told["failures"] == 0
    late = sorted(arrivals.late_ms.values())
    assert len(late) == DEVICES * SECONDS
    assert arrivals.disorder == 0
    assert len(arrivals.times) == DEVICES * (BACKLOG + SECONDS)
    assert set(arrivals.times.values()) == {1}
    return late
