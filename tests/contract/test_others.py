"""The types for clouds against servers that we did not write (tests/support/other_servers.py says
which, and how those are installed that Debian does not have; what is not there is left out)."""
import collections
import http.server
import json
import threading

import pytest

import served
from other_servers import ALL
from process import wait_for
from site_parts import Gateway, Simulator
from test_uplinks import make_line, test_all_arrives_through_a_bad_line

__all__ = ["make_line", "test_all_arrives_through_a_bad_line"]
THERE = [side for side in ALL if side.missing() is None]

# What is at the edge of some service's numbers or characters, as JSON.
ODD = ["-0.0", "1e300", "5e-324", "1.7976931348623157e308", "12345678901234567890", "0.1", "1e22",
       "9007199254740993", "1e126", "9.9e125", "1e-130", "1.5e-128", "-9223372036854775808", "true",
       "false", "null", '""', '"text \\u00e9 \\" \\\\ \\u20ac <&>]]>"', '"\\u0001\\u001f\\t\\n"',
       '"\\ud83d\\ude00 \\uffff \\ufffe"']


@pytest.fixture(name="receiver", params=THERE, ids=lambda side: side.__name__.removesuffix("Side"))
def make_receiver(request, tmp_path):
    receiver = request.param(tmp_path)
    yield receiver
    receiver.close()


@pytest.fixture(name="odd_url")
def make_odd_url():
    """A device whose values are odd."""
    body = ("{" + ",".join(f'"p{i}":{text}' for i, text in enumerate(ODD)) + "}").encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def same(found, expected):
    """Numbers that DynamoDB has no room for are texts there."""
    if isinstance(expected, (int, float)) and not isinstance(expected, bool):
        return float(found) == float(expected)
    return found is expected if isinstance(expected, bool) or expected is None else \
        found == expected


def test_what_was_served_is_what_is_stored(tmp_path, receiver, odd_url):
    """Wrong settings are told and cost nothing; with the right ones all values come through."""
    receiver.start()
    simulator = Simulator(tmp_path, 3).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("device odd", driver="http", url=odd_url, poll="200 ms",
                **{f"point__p{i}": f"json /p{i}" for i in range(len(ODD))})
    right = dict(receiver.keys(receiver.port), type=receiver.type, send="raw", batch_records=40,
                 batch_interval="100 ms")
    for i, (wrong, words) in enumerate(receiver.wrong()):
        gateway.sections["uplink cloud"] = dict(right, **wrong)
        (gateway.reload if i else gateway.start)()
        wait_for(lambda: words in (gateway.uplink_state()["last_error"] or ""), 20,
                 lambda: f"'{words}': {gateway.uplink_state()}")
        assert gateway.cli("uplink", "test", "cloud", "--write")[0] == 1
    assert gateway.ledger()["dead"] == gateway.ledger()["delivered"] == 0
    gateway.sections["uplink cloud"] = right
    gateway.reload()
    status, output, _ = gateway.cli("uplink", "test", "cloud", "--write")
    assert status == 0, output
    gateway.wait_delivered(1000)
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["dead"] == 0 and ledger["read"] == ledger["delivered"]
    assert_stored(receiver, simulator)


def assert_stored(receiver, simulator):
    devices = collections.defaultdict(dict)
    for (device, seq), values in receiver.scans().items():
        devices[device][seq] = values
    assert len(devices.pop("windrow-test")) == 1
    for values in devices.pop("odd").values():
        wrong = {text: values[f"p{i}"] for i, text in enumerate(ODD)
                 if not same(values[f"p{i}"], json.loads(text))}
        assert not wrong
    simulator.stop()
    held = {device: [{point: round(value / served.MAP[point][3]) for point, value in values.items()
                      if value is not None} for _, values in sorted(scans.items())]
            for device, scans in devices.items()}
    served.assert_same(served.served_scans(simulator), held)
