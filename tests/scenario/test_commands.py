"""What the commands print, as JSON and in words, and their exit status."""
import json
import subprocess

import pytest

from process import PATIENCE_S, free_ports, program, wait_for
from site_parts import DEMO_TURBINE, Gateway, Simulator, Sink

POINTS = [key.split(".")[1] for key in DEMO_TURBINE if key.startswith("point.")]


@pytest.fixture(name="gateway", scope="module")
def make_gateway(tmp_path_factory):
    """One site for the whole file: its tests only ask."""
    folder = tmp_path_factory.mktemp("commands")
    simulator, sink = Simulator(folder, 3).start(), Sink(folder).start()
    dead = free_ports()
    gateway = Gateway(folder).turbines(simulator, poll="100 ms").uplink(sink)
    gateway.sections["store"]["keep"] = "1 d"
    gateway.set("device away", driver="modbus-tcp", address=f"127.0.0.1:{dead}", unit=1,
                poll="100 ms", timeout="80 ms", point__a="holding 0 uint16")
    gateway.start()
    gateway.wait_delivered(300)
    wait_for(lambda: gateway.device("away")["failures"] > 0, 10, "the dead device is noticed")
    return gateway


def test_status(gateway):
    status = gateway.json("status")
    assert set(status) >= {"gateway", "version", "uptime_s", "clock", "devices", "store", "uplinks",
                           "ledger"}
    assert status["gateway"] == "gateway" and isinstance(status["clock"]["synchronised"], bool)
    device = status["devices"][0]
    assert set(device) >= {"name", "state", "last_good", "rtt_ms", "polls", "failures"}
    assert set(status["store"]) >= {"waiting", "oldest", "bytes", "max_bytes", "seconds_left"}
    assert set(status["uplinks"][0]) >= {"name", "type", "state", "waiting", "lag_s", "delivered",
                                         "rejected", "last_error"}
    assert set(status["ledger"]) >= {"read", "stored", "delivered", "waiting", "dead", "dropped"}
    assert {one["name"]: one["state"] for one in status["devices"]}["t01"] == "good"


def test_status_exit_says_that_a_device_is_away(gateway):
    assert gateway.cli("status")[0] == 1
    output = gateway.cli("status")[1]
    assert "away" in output


def test_devices(gateway):
    devices = gateway.json("devices")
    devices = devices["devices"] if isinstance(devices, dict) else devices
    assert {device["name"] for device in devices} == {"t01", "t02", "t03", "away"}
    status, output, _ = gateway.cli("devices")
    assert status in (0, 1) and "t01" in output and "away" in output


def test_points(gateway):
    points = gateway.json("points")
    points = points["points"] if isinstance(points, dict) else points
    assert {point["point"] for point in points if point["device"] == "t01"} == set(POINTS)
    wind = next(point for point in points
                if (point["device"], point["point"]) == ("t01", "wind_speed"))
    assert isinstance(wind["value"], (int, float)) and wind["unit"] == "m/s"


def test_read(gateway):
    status, output, errors = gateway.cli("read", "t01", "power")
    assert status == 0 and "power" in output, errors
    json.loads(gateway.cli("read", "--json", "t01", "power")[1])


def test_read_of_a_dead_device(gateway):
    status, output, errors = gateway.cli("read", "away")
    assert status == 1 and output + errors
    assert gateway.cli("read", "nobody")[0] != 0


def test_history(gateway):
    status, output, errors = gateway.cli("history", "t01.wind_speed", "--last", "1h", "--csv")
    assert status == 0, errors
    assert len(output.splitlines()) > 5


def test_ledger(gateway):
    ledger = gateway.json("ledger")
    by_name = {row["name"]: row for row in ledger["devices"]}
    assert by_name["t01"]["read"] > 0
    assert by_name["t01"]["read"] == by_name["t01"]["stored"]


def test_check(gateway, tmp_path):
    status, output, errors = gateway.cli("check")
    assert status == 0, output + errors
    path = tmp_path / "broken.ini"
    path.write_text("[gateway]\nname = x\nlog_levle = info\n[device a]\ndriver = modbus-tcp\n")
    result = subprocess.run([program("windrow"), "check", path], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.returncode == 2
    assert f"{path}:3: [gateway] log_levle" in result.stdout + result.stderr
    assert "log_level" in result.stdout + result.stderr
    assert "[device a]" in result.stdout + result.stderr


def test_poll(gateway):
    address = next(keys["address"] for name, keys in gateway.sections.items()
                   if name.startswith("device t"))
    port = address.split("{")[1].split("..")[0]
    result = subprocess.run([program("windrow"), "poll", f"127.0.0.1:{port}", "--unit", "1",
                             "holding", "0", "7"], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) >= 7


def test_keys():
    result = subprocess.run([program("windrow"), "keys"], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.returncode == 0
    for word in ("commit_interval", "ca_file", "timeout", "modbus-tcp"):
        assert word in result.stdout


@pytest.mark.parametrize("command", ["check", "status", "devices", "points", "read", "poll",
                                     "history", "ledger", "simulate", "sink", "keys", "reload"])
def test_help(command):
    result = subprocess.run([program("windrow"), command, "--help"], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.returncode == 0 and command in result.stdout


@pytest.mark.parametrize("words", [["nonsense"], ["status", "--nonsense"], ["read"], []])
def test_wrong_usage(words):
    result = subprocess.run([program("windrow"), *words], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    assert result.returncode == 2 and result.stderr


def test_without_a_daemon(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.write()
    status, output, errors = gateway.cli("status")
    assert status != 0 and output + errors
