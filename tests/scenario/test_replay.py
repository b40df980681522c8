"""A week of a real turbine (ENGIE, La Haute Borne), replayed by the polls, value for value."""
import csv
import os
import subprocess
from decimal import ROUND_HALF_UP, Decimal

import pytest

from process import SHARED_DATA, program, wait_for
from site_parts import Gateway, Simulator, Sink

WEEK = os.path.join(SHARED_DATA, "la_haute_borne", "R80711_2017-10-29_dst_week.csv")
TEXT_COLUMNS = ("Wind_turbine_name", "Date_time")


def rounded(cell):
    return int((Decimal(cell) * 100).quantize(Decimal(1), ROUND_HALF_UP))


def profile():
    """The profile that the simulator prints for the file, as keys of a section."""
    output = subprocess.run([program("windrow"), "simulate", "--replay", WEEK, "--print-profile"],
                            capture_output=True, text=True, timeout=90, check=True).stdout
    return dict(line.split(" = ", 1) for line in output.splitlines() if " = " in line)


@pytest.mark.lasts(22)
@pytest.mark.skipif(not os.path.exists(WEEK), reason="no reference data beside the checkout")
def test_week_arrives_value_for_value(tmp_path):
    with open(WEEK, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sink = Sink(tmp_path).start()
    simulator = Simulator(tmp_path, 1, "--replay", WEEK, "--step", "poll").start()
    gateway = Gateway(tmp_path)
    gateway.sections["profile replay"] = profile()
    gateway.set("store", max_size="1 GiB").turbines(simulator, poll="20 ms", profile="replay")
    gateway.uplink(sink, batch_records=200).start()
    columns = [name for name in rows[0] if name not in TEXT_COLUMNS]
    assert len(gateway.sections["profile replay"]) == len(columns) + 3
    wait_for(lambda: gateway.device("t01")["polls"] >= len(rows), 120,
             lambda: f"{len(rows)} polls: {gateway.device('t01')}")
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sink.count("conflicts") == 0
    held = {}
    for seq, point, value in sink.query("SELECT seq, point, value FROM readings"):
        held.setdefault(seq, {})[point] = None if value is None else rounded(repr(value))
    assert sum(len(scan) for scan in held.values()) == ledger["read"]
    cells = 0
    for number, row in enumerate(rows, 1):
        expected = {name: rounded(row[name]) if row[name] else None for name in columns}
        assert held[number] == expected, f"row {number}"
        cells += sum(value is not None for value in expected.values())
    assert cells > 116000  # the week has that many cells that are not empty
