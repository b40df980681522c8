"""Passwords and tokens that change while the gateway runs, and endpoints whose certificate ends
soon, for the types that have a protocol of their own: no restart, no failure, a warning in time."""
import datetime
import os
import ssl

import pytest

import kafka
import mosquitto
import postgres
from certificates import Authority
from endpoint import Endpoint
from process import wait_for
from site_parts import Gateway, Simulator


class Short(Authority):
    """What it issues ends in 29 days and a half."""

    def issue(self, name, *options, **more):
        now = datetime.datetime.utcnow()
        end = now + datetime.timedelta(days=29.5)
        return super().issue(name, *options, **dict(more, start=f"{now:%Y%m%d}000000Z",
                                                    end=f"{end:%Y%m%d%H%M%S}Z"))


class Site:
    def __init__(self, folder):
        self.authority = Short(folder / "ca")
        self.gateway = Gateway(folder).turbines(Simulator(folder, 1).start(), poll="50 ms")
        self.secret = folder / "secret"
        self.write("one")

    def write(self, secret):
        """A whole file takes the place of the one before."""
        new = self.secret.with_suffix(".new")
        new.write_text(secret + "\n")
        new.chmod(0o600)
        os.rename(new, self.secret)

    def start(self, **keys):
        given = {"ca_file": self.authority.cert, "user": "gw", "password_file": self.secret,
                 "send": "raw", "batch_interval": "100 ms"}
        self.gateway.set("uplink cloud", **dict(given, **keys)).start()
        self.gateway.wait_delivered(20)

    def assert_well(self):
        self.gateway.wait_delivered(self.gateway.uplink_state()["delivered"] + 50)
        state = self.gateway.uplink_state()
        assert state["failures"] == 0 and not state["last_error"], state
        assert state["warning"].startswith("the endpoint's certificate expires in 29 days"), state


@pytest.fixture(name="site")
def make_site(tmp_path):
    return Site(tmp_path)


@pytest.mark.parametrize("version, kind, secrets", [
    ("v1", "Basic", ("Z3c6b25l", "Z3c6dHdv")), ("v2", "Token", ("one", "two")),
    ("v3", "Bearer", ("one", "two"))])
def test_influx(site, version, kind, secrets):
    endpoint = Endpoint(*site.authority.issue("influx"), lambda *_: (204, "text/plain", ""))
    where = {"org": "o", "bucket": "b"} if version == "v2" else {"db": "wind"}
    login = "gw:" if version == "v1" else ""
    site.write(login + "one")
    site.gateway.set("uplink cloud", type="influx", version=version, ca_file=site.authority.cert,
                     url=f"https://127.0.0.1:{endpoint.port}", token_file=site.secret, send="raw",
                     batch_interval="100 ms", **where).start()
    for word, shown in zip(("one", "two"), secrets):
        site.write(login + word)
        wait_for(lambda: endpoint.requests and endpoint.requests[-1][1].get("Authorization") ==
                 f"{kind} {shown}", 20, lambda: endpoint.requests[-1:])
    site.assert_well()
    endpoint.close()


@pytest.mark.skipif(not mosquitto.installed(), reason="no mosquitto")
def test_mqtt(site, tmp_path):
    broker = mosquitto.Broker(tmp_path, site.authority, users={"gw": "one"}).start()
    cert, key = site.authority.issue("gw", end="20991231000000Z")
    site.start(type="mqtt", url=broker.url, cert_file=cert, key_file=key)
    assert "cert_file expires" in site.gateway.uplink_state()["warning"]
    broker.stop()  # it would send its clients away, and those without the new one are held then
    broker.write_users({"gw": "two"})
    site.write("two")
    broker.start()
    broker.process.wait_log("u'gw'", 20)
    site.gateway.wait_delivered(site.gateway.uplink_state()["delivered"] + 50)
    assert "not authorised" not in broker.process.log()


@pytest.mark.skipif(not mosquitto.installed(), reason="no mosquitto")
def test_mqtt_endpoint_expires(site, tmp_path):
    broker = mosquitto.Broker(tmp_path, site.authority).start()
    cert, key = Authority.issue(site.authority, "gw")
    site.start(type="mqtt", url=broker.url, cert_file=cert, key_file=key)
    site.assert_well()


def test_kafka(site, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*site.authority.issue("kafka"))
    front = kafka.Front(kafka.Cluster(tmp_path).start().port, context, {"gw": "one"},
                        ["SCRAM-SHA-512"])
    site.start(type="kafka", brokers=f"127.0.0.1:{front.port}", sasl="scram-sha-512")
    before = len(front.logins)
    front.users = {"gw": "two"}
    site.write("two")
    wait_for(lambda: len(front.logins) > before, 20, "a login with the new password")
    site.assert_well()  # though a connection may have been on its way with the old one
    front.close()


@pytest.mark.skipif(not postgres.BIN, reason="no PostgreSQL")
def test_postgres(site):
    server = postgres.Postgres(site.authority).start()
    try:
        server.sql("CREATE ROLE gw LOGIN PASSWORD 'one'")
        server.sql("GRANT CREATE ON SCHEMA public TO gw")
        site.start(type="postgres", host="127.0.0.1", port=server.port, database="postgres")
        begun = "SELECT min(backend_start) FROM pg_stat_activity WHERE usename = 'gw'"
        before = server.sql(begun)
        server.sql("ALTER ROLE gw PASSWORD 'two'")
        site.write("two")
        wait_for(lambda: (server.sql(begun) or before) != before, 20, "a new session")
        site.assert_well()
    finally:
        site.gateway.stop()
        server.remove()
