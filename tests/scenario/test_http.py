"""HTTP in the field: a JSON API that is asked over TLS, and sensors that post.

What was answered with 200 is never lost, whenever the gateway dies; what was not is absent or
present once. WINDROW_PUSH_KILLS sets how often it dies (500 in the long run).
"""
import http.client
import http.server
import json
import os
import random
import ssl
import threading
import time

import pytest

from certificates import Authority
from process import PATIENCE_S, free_ports, wait_for
from site_parts import Gateway, UnixConnection

KILLS = int(os.environ.get("WINDROW_PUSH_KILLS", "8"))
TOKEN = "0123456789abcdef0123456789abcdef"


class WeatherApi:
    """A JSON API with an ETag, which counts what it is asked."""

    def __init__(self, folder):
        self.authority = Authority(os.path.join(str(folder), "ca"))
        cert, key = self.authority.issue("api")
        self.speed, self.whole, self.unchanged, self.tokens = 8.42, 0, 0, set()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                api.tokens.add(self.headers.get("Authorization"))
                tag = f'"{api.speed}"'
                same = self.headers.get("If-None-Match") == tag
                body = b"" if same else json.dumps(
                    {"wind": {"speed": api.speed, "gust": None}, "list": [1, 2.5]}).encode()
                api.unchanged += same
                api.whole += not same
                self.send_response(304 if same else 200)
                self.send_header("ETag", tag)
                if not same:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


def values(gateway, device):
    return {point["point"]: point for point in gateway.get(f"/v1/points?select={device}")["points"]}


def secret(gateway, name, text):
    path = gateway.path(name)
    with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)
    return path


def test_pull(tmp_path):
    api = WeatherApi(tmp_path)
    gateway = Gateway(tmp_path)
    gateway.set("device forecast", driver="http", url=f"https://127.0.0.1:{api.port}/weather?q=x",
                token_file=secret(gateway, "token", TOKEN), ca_file=api.authority.cert,
                poll="200 ms", timeout="5 s", point__wind="json /wind/speed, unit m/s",
                point__gust="json /wind/gust", point__second="json /list/1")
    gateway.start()
    wait_for(lambda: api.unchanged >= 3, 20, "conditional requests")
    status, output, _ = gateway.cli("points", "--json")
    assert status in (0, 1), output
    points = {p["point"]: p for p in json.loads(output)["points"]}
    assert points["wind"]["value"] == 8.42 and points["second"]["value"] == 2.5
    assert points["gust"]["quality"] == "bad:invalid"
    assert api.whole == 1 and api.tokens == {f"Bearer {TOKEN}"}
    api.speed = 9.5
    wait_for(lambda: api.whole == 2, 10, "the changed answer")
    assert gateway.device("forecast")["failures"] == 0
    gateway.stop()


def test_pull_without_trust(tmp_path):
    """A server whose certificate nobody vouches for is told nothing, the token least of all."""
    api = WeatherApi(tmp_path)
    gateway = Gateway(tmp_path)
    gateway.set("device forecast", driver="http", url=f"https://127.0.0.1:{api.port}/",
                token_file=secret(gateway, "token", TOKEN), poll="100 ms", timeout="5 s",
                point__wind="json /wind/speed")
    gateway.start()
    wait_for(lambda: gateway.device("forecast")["failures"] >= 2, 20, "failures")
    assert "certificate" in gateway.process.log()
    assert not api.tokens
    gateway.stop()


def push(gateway, reading, limit_s=PATIENCE_S):
    connection = UnixConnection(gateway.path("run/windrow.sock"), limit_s)
    try:
        connection.request("POST", "/sensor", json.dumps(reading))
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def listening(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.set("store", keep="7 d")
    return gateway.set("device mast", driver="http", mode="listen", point__count="json",
                       point__wind="json, unit m/s")


def stored_counts(gateway):
    status, output, errors = gateway.cli("history", "mast.count", "--last", "1 d", "--csv")
    assert status == 0, errors
    rows = [row.split(",") for row in output.splitlines()]
    return [round(float(row[1])) for row in rows if len(row) > 1 and row[1].strip("-.0123456789")
            == "" and row[1]]


def test_push_answers_and_reloads(tmp_path):
    gateway = listening(tmp_path)
    gateway.set("api", listen=f"127.0.0.1:{free_ports()}",
                tokens_file=secret(gateway, "tokens", f"mast write {TOKEN}\n"))
    gateway.start()
    assert push(gateway, {"location": "mast", "count": 1, "wind": 8.42}) == (200, '{"accepted":1}')
    assert push(gateway, {"location": "mast", "gust": 1})[0] == 422
    endpoint = gateway.sections["api"]["listen"]
    connection = http.client.HTTPConnection(endpoint, timeout=PATIENCE_S)
    for token, expected in ((TOKEN, 200), ("x" * 32, 401)):
        connection.request("POST", "/sensor", json.dumps({"location": "mast", "count": 2}),
                           {"Authorization": f"Bearer {token}"})
        reply = connection.getresponse()
        assert reply.status == expected, reply.read()
        reply.read()
    gateway.sections["device mast"]["point.gust"] = "json"
    gateway.reload()
    wait_for(lambda: push(gateway, {"location": "mast", "gust": 3})[0] == 200, 10, "the new point")
    assert stored_counts(gateway) == [1, 2]
    gateway.stop()


class Sensors:
    """Senders that never repeat: each reading has a number, each answer is written down."""

    def __init__(self, gateway, count):
        self.gateway, self.lock, self.stopping = gateway, threading.Lock(), False
        self.next, self.accepted, self.unknown, self.refused = 1, set(), set(), set()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopping:
            with self.lock:
                number, self.next = self.next, self.next + 1
            try:
                status, body = push(self.gateway, {"location": "mast", "count": number})
                into = self.accepted if status == 200 else self.refused
                assert status in (200, 503), body
            except ConnectionRefusedError:
                into = self.refused
                time.sleep(0.01)
            except (OSError, http.client.HTTPException):
                into = self.unknown
                time.sleep(0.01)
            with self.lock:
                into.add(number)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(PATIENCE_S)


@pytest.mark.parametrize("kills", [KILLS])
def test_an_accepted_push_survives_kill(tmp_path, kills):
    gateway = listening(tmp_path).set("store", commit_interval="1 s").start()
    sensors = Sensors(gateway, 4)
    for _ in range(kills):
        enough = len(sensors.accepted) + random.randint(1, 12)
        wait_for(lambda: len(sensors.accepted) >= enough, 20, "accepted pushes", 0.001)
        time.sleep(random.uniform(0, 0.02))
        gateway.kill()
        gateway.start()
    sensors.stop()
    gateway.stop()
    stored = stored_counts(gateway)
    assert len(stored) == len(set(stored)), "a reading is there twice"
    assert sensors.accepted <= set(stored), sorted(sensors.accepted - set(stored))[:10]
    assert set(stored) <= sensors.accepted | sensors.unknown | sensors.refused
    print(f"{kills} kills: {len(sensors.accepted)} accepted, {len(stored)} stored, "
          f"{len(sensors.unknown)} without an answer")
