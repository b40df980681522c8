"""`windrow uplink test` for every registered type: each fault between gateway and endpoint is found
in the same step and words, whatever the protocol; and what only the service itself can refuse."""
import contextlib
import re
import socket
import ssl
import threading

import pytest

import mosquitto
from certificates import Authority
from endpoint import Endpoint, accept_all
from fake_clock import faketime_library
from fake_s3 import FakeS3
from influx_servers import InfluxDB
from process import free_ports
from test_uplink_test import Site, assert_bad

AWS = {"region": "eu-west-1", "credentials": "file:{keys}", "endpoint": "https://{at}"}
TYPES = {
    "http": {"url": "https://{at}/v1/readings"},
    "influx": {"url": "https://{at}", "version": "v2", "org": "o", "bucket": "b"},
    "iot-https": {"url": "https://{at}", "cert_file": "{cert}", "key_file": "{key}"},
    "kafka": {"brokers": "{at}"},
    "mqtt": {"url": "mqtts://{at}"},
    "postgres": {"host": "{host}", "port": "{port}", "database": "wind", "user": "gw"},
    "timestream": {**AWS, "database": "wind", "table": "readings"},
    "dynamodb": {**AWS, "table": "readings"},
    "kinesis": {**AWS, "stream": "readings"},
    "sqs": {**AWS, "queue_url": "https://sqs.eu-west-1.amazonaws.com/1/readings"},
    "s3": {**AWS, "bucket": "readings"},
}
KEYS = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret/key\n"


@pytest.fixture(name="site", scope="module")
def make_site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("faults"))
    site.given = dict(zip(("cert", "key"), site.authority.issue("gw")),
                      keys=site.file("aws.ini", KEYS))
    return site


def ask(site, kind, host="127.0.0.1", port=None, **more):
    port = port or free_ports()
    keys = {name: value.format(at=f"{host}:{port}", host=host, port=port, **site.given)
            for name, value in TYPES[kind].items()}
    return site.test(**dict(keys, type=kind, ca_file=site.authority.cert, connect_timeout="30 s",
                            **more))


class PostgresGreeting:
    """What a server of PostgreSQL does until the handshake is over."""

    def __init__(self, cert, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                with self.listener.accept()[0] as one, contextlib.suppress(OSError):
                    one.settimeout(10)
                    one.recv(8)
                    one.sendall(b"S")
                    self.context.wrap_socket(one, server_side=True).recv(1)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def serve(kind, pair):
    return PostgresGreeting(*pair) if kind == "postgres" else Endpoint(*pair, accept_all)


def test_every_registered_type_is_here(site):
    text = site.gateway.cli("keys", "uplink")[1]
    assert set(re.findall(r"^\[uplink NAME\] with (\S+)", text, re.M)) == {*TYPES, "file"}


@pytest.mark.parametrize("kind", TYPES)
def test_not_reached(site, kind):
    assert_bad(ask(site, kind), "connection", "refuses", "port")
    status, steps = ask(site, kind, host="nowhere.invalid")
    assert status == 1 and steps["name"]["verdict"] == "bad" and steps["name"]["mend"]
    assert "nowhere.invalid" in steps["name"]["found"] and "connection" not in steps


@pytest.mark.parametrize("kind", TYPES)
def test_certificates(site, tmp_path, kind):
    stranger = Authority(tmp_path / "stranger", "stranger")
    for pair, words in (
            (stranger.issue("cloud"), ("do not know", "ca_file")),
            (site.authority.issue("old", start="20230101000000Z", end="20230201000000Z"),
             ("expired", "2023-02-01", "clock")),
            (site.authority.issue("other", "DNS:other.example"), ("another host",))):
        server = serve(kind, pair)
        assert_bad(ask(site, kind, port=server.port), "certificate", *words)
        server.close()


@pytest.mark.parametrize("kind", ["http", "kafka", "mqtt", "postgres"])
def test_our_clock_is_in_the_past(site, monkeypatch, kind):
    server = serve(kind, site.authority.issue("cloud"))
    monkeypatch.setenv("LD_PRELOAD", faketime_library())
    monkeypatch.setenv("FAKETIME", "@2001-01-01 00:00:00")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    status, steps = ask(site, kind, port=server.port)
    monkeypatch.undo()
    server.close()
    assert status == 1 and steps["certificate"]["verdict"] == "bad", steps
    assert "not valid yet" in steps["certificate"]["found"]
    assert "clock" in steps["certificate"]["found"] + steps["certificate"]["mend"]


@pytest.mark.parametrize("status, body, words", [
    (401, '{"code":"unauthorized","message":"unauthorized access"}', ("401", "token_file")),
    (403, '{"code":"forbidden"}', ("403", "right to write")),
    (404, '{"code":"not found","message":"bucket \\"b\\" not found"}', ("404", "bucket")),
    (302, "", ("302", "captive portal")),
    (503, '{"code":"unavailable"}', ("503",)),
])
def test_influx(site, status, body, words):
    endpoint = Endpoint(*site.authority.issue("cloud"),
                        lambda *_: (status, "application/json", body))
    token = site.file("token", "t0ken")
    result, steps = ask(site, "influx", port=endpoint.port, token_file=token)
    found = steps["request"]["found"] + " " + steps["request"].get("mend", "")
    assert result == 1 and steps["request"]["verdict"] == "bad", steps
    assert all(word in found for word in words), found
    assert endpoint.requests[-1][1]["Authorization"] == "Token t0ken" and "t0ken" not in found
    endpoint.close()


def test_influx_without_the_database(site, tmp_path):
    server = InfluxDB(tmp_path).start()
    server.create()
    keys = {"type": "influx", "url": server.url, "version": "v1"}
    status, steps = site.test("--write", **keys, db="wind")
    assert status == 0 and steps["write"]["verdict"] == "good", steps
    assert_bad(site.test(**keys, db="wint"), "request", "404", "compare db")


@pytest.mark.skipif(not mosquitto.installed(), reason="no mosquitto")
def test_mqtt_login(site, tmp_path):
    broker = mosquitto.Broker(tmp_path, site.authority, users={"gw": "right"}).start()
    keys = {"type": "mqtt", "url": broker.url, "ca_file": site.authority.cert, "user": "gw",
            "cert_file": site.given["cert"], "key_file": site.given["key"]}
    status, steps = site.test("--write", password_file=site.file("good", "right"), **keys)
    assert status == 0 and steps["write"]["verdict"] == "good", steps
    assert_bad(site.test(password_file=site.file("bad", "wrong"), **keys), "greeting", "refused")


def test_s3_keys(site):
    s3 = FakeS3()
    other = site.file("other.ini", KEYS.replace("secret/key", "another"))
    keys = {"type": "s3", "region": "eu-west-1", "bucket": s3.bucket, "endpoint": s3.url}
    status, steps = site.test("--write", credentials="file:" + other, **keys)
    assert status == 1 and steps["write"]["verdict"] == "bad", steps
    assert "SignatureDoesNotMatch" in steps["write"]["found"] and steps["write"]["mend"]
    s3.close()


def test_files_that_are_no_certificates(site):
    junk = site.file("junk.pem", "nothing\n", 0o644)
    for kind in ("http", "kafka", "mqtt", "postgres"):
        server = serve(kind, site.authority.issue("cloud"))
        site.authority, own = type("Junk", (), {"cert": junk}), site.authority
        try:
            status, steps = ask(site, kind, port=server.port)
        finally:
            site.authority = own
            server.close()
        assert status in (1, 2), steps
        bad = [one for one in steps.values() if one["verdict"] == "bad"]
        assert "ca_file" in str(bad), (kind, steps)


