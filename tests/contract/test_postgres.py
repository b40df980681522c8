"""Type postgres against a real PostgreSQL: killed gateway, killed server, refused records.

WINDROW_POSTGRES_ROUNDS sets how often both are killed (4).
"""
import contextlib
import os
import random
import socket
import threading
import time

import pytest

from certificates import Authority
from postgres import BIN, Postgres
from process import wait_for
from site_parts import Gateway, Simulator

pytestmark = pytest.mark.skipif(not BIN, reason="PostgreSQL is not installed")
ROUNDS = int(os.environ.get("WINDROW_POSTGRES_ROUNDS", "4"))


@pytest.fixture(name="server")
def made_server():
    server = Postgres()
    yield server.start()
    server.remove()


@pytest.fixture(name="tls_server")
def made_tls_server(tmp_path):
    authority = Authority(str(tmp_path / "ca"))
    server = Postgres(authority)
    server.authority = authority
    yield server.start()
    server.remove()


def site(folder, server, turbines=3, **keys):
    simulator = Simulator(folder, turbines).start()
    gateway = Gateway(folder).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms")
    given = {"type": "postgres", "host": server.folder, "port": server.port,
             "database": "postgres", "user": "admin", "batch_interval": "100 ms",
             "connect_timeout": "3 s", "timeout": "10 s"}
    given.update(keys)
    return gateway.set("uplink db", **given)


def settle(gateway):
    gateway.wait_delivered(1, 30, "db")
    gateway.stop_polling()
    return gateway.drain(60)


def words(gateway):
    """The uplink's last error; it is not listed while a reload restarts it."""
    states = gateway.get("/v1/status")["uplinks"]
    return states[0]["last_error"] or "" if states else ""


def test_table_is_made_and_filled(tmp_path, server):
    gateway = site(tmp_path, server, table='public.wind "x"').start()
    ledger = settle(gateway)
    table = 'public."wind ""x"""'
    assert int(server.sql(f"SELECT count(*) FROM {table}")) == ledger["read"] > 0
    assert server.sql(f"SELECT count(DISTINCT gateway || store), min(seq), count(DISTINCT device),"
                      f" min(stream) FROM {table}") == "1|1|3|raw"
    assert server.sql(f"SELECT count(*) FROM {table} WHERE value IS NULL AND quality = 'good'"
                      ) == "0"
    late = server.sql(f"SELECT count(*) FROM {table} WHERE abs(extract(epoch FROM now() - time))"
                      " > 120")
    assert late == "0"
    assert server.sql(
        "SELECT string_agg(a.attname, ' ' ORDER BY array_position(i.indkey::int[], a.attnum::int))"
        " FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND"
        f" a.attnum = ANY (i.indkey) WHERE i.indisprimary AND i.indrelid = '{table}'::regclass"
        ) == "store stream device seq point"


def test_both_sides_killed_over_tls(tmp_path, tls_server):
    server = tls_server
    server.sql("CREATE ROLE gw LOGIN PASSWORD 'se''cret'")
    server.sql("CREATE DATABASE wind OWNER gw")
    secret = tmp_path / "secret"
    secret.write_text("se'cret\n", encoding="ascii")
    secret.chmod(0o600)
    chance = random.Random(random.randrange(2**32))
    gateway = site(tmp_path, server, host="127.0.0.1", user="gw", database="wind",
                   password_file=secret, ca_file=server.authority.cert, parallel=2)
    gateway.write()
    for _ in range(ROUNDS):
        gateway.process.start()
        time.sleep(chance.uniform(0.1, 0.8))  # the random moment itself
        server.kill()
        time.sleep(chance.uniform(0, 0.4))
        gateway.kill()
        server.start()
    gateway.start()
    ledger = settle(gateway)
    assert ledger["dead"] == 0
    count = int(server.sql("SELECT count(*) FROM readings", "wind"))
    assert count == ledger["delivered"] == ledger["read"] > 0
    assert server.sql("SELECT bool_and(top = n) FROM (SELECT max(seq) top, count(DISTINCT seq) n"
                      " FROM readings GROUP BY device) q", "wind") == "t"
    assert server.sql("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE"
                      " usename = 'gw' AND NOT ssl") == "0"


def test_server_restarts_under_a_running_gateway(tmp_path, server):
    gateway = site(tmp_path, server).start()
    gateway.wait_delivered(1, 30, "db")
    for _ in range(2):
        server.stop()
        wait_for(lambda: words(gateway), 15, lambda: gateway.uplink_state("db"))
        server.start()
        before = gateway.uplink_state("db")["delivered"]
        gateway.wait_delivered(before + 1, 30, "db")
    ledger = settle(gateway)
    assert int(server.sql("SELECT count(*) FROM readings")) == ledger["read"]


class Cutter:
    """Before a server: ends or silences a connection at a moment of a batch, `times` times."""

    def __init__(self, server, moment, times=2):
        self.server, self.moment, self.left = server, moment, times
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],),
                                 daemon=True).start()

    def strikes(self):
        with self.lock:
            self.left -= 1
            return self.left >= 0

    def serve(self, client):
        with contextlib.suppress(OSError), client, \
                socket.create_connection(("127.0.0.1", self.server.port)) as server:
            state = {"silent": False}
            threading.Thread(target=self.back, args=(server, client, state), daemon=True).start()
            copying = False
            while data := client.recv(65536):
                if copying and self.moment == "within COPY" and self.strikes():
                    server.sendall(data[:len(data) // 2])
                    return
                copying = b"COPY pg_temp" in data
                if b"INSERT INTO" in data and self.moment != "within COPY" and self.strikes():
                    state["silent"] = True
                    server.sendall(data)
                    if self.moment == "before the commit's answer":
                        self.server.sql("SELECT pg_sleep(0.05)")
                        return
                    continue
                server.sendall(data)

    @staticmethod
    def back(server, client, state):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not state["silent"]:
                    client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("moment, word", [
    ("within COPY", ""), ("before the commit's answer", ""),
    ("silence after the commit", "no answer from the database within timeout")])
def test_a_server_that_goes_away_within_a_batch(tmp_path, server, moment, word):
    """Nothing of such a batch counts as delivered; what was committed all the same is known again
    by its identity."""
    cutter = Cutter(server, moment)
    gateway = site(tmp_path, server, host="127.0.0.1", port=cutter.port, timeout="1 s").start()
    heard = set()

    def struck():
        heard.add(words(gateway))
        return cutter.left < 0
    wait_for(struck, 30, lambda: (cutter.left, heard))
    assert not word or any(word in text for text in heard), heard
    ledger = settle(gateway)
    assert ledger["dead"] == 0 and int(server.sql("SELECT count(*) FROM readings")) == \
        ledger["delivered"] == ledger["read"]
    cutter.listener.close()


def test_only_the_refused_record_is_dead(tmp_path, server):
    gateway = site(tmp_path, server, batch_records=50).start()
    gateway.wait_delivered(1, 30, "db")
    gateway.stop()
    # One that is not there yet, nor would the database take it.
    seq = int(server.sql("SELECT coalesce(max(seq), 0) FROM readings WHERE device = 't02'")) + 50
    server.sql(f"ALTER TABLE readings ADD CHECK (NOT (device = 't02' AND seq = {seq}))")
    gateway.start()
    wait_for(lambda: gateway.uplink_state("db")["rejected"] > 0, 40,
             lambda: gateway.uplink_state("db"))
    assert "23514" in gateway.process.log()
    ledger = settle(gateway)
    point_count = int(server.sql("SELECT max(n) FROM (SELECT count(*) n FROM readings"
                                 " GROUP BY device, seq) q"))
    assert ledger["dead"] == point_count
    assert int(server.sql("SELECT count(*) FROM readings")) + point_count == ledger["read"]


def test_wrong_settings_hold_and_say_so(tmp_path, tls_server):
    server = tls_server
    server.sql("CREATE ROLE gw LOGIN PASSWORD 'right'")
    secret = tmp_path / "secret"
    secret.write_text("wrong\n", encoding="ascii")
    secret.chmod(0o600)
    gateway = site(tmp_path, server, host="127.0.0.1", user="gw", password_file=secret,
                   ca_file=server.authority.cert).start()

    def told(word):
        wait_for(lambda: word in words(gateway), 15, lambda: f"{word}: {words(gateway)}")

    told("28P01")
    assert gateway.uplink_state("db")["state"] == "held"
    secret.write_text("right\n", encoding="ascii")
    gateway.set("uplink db", batch_records=99)  # a reload restarts what changed
    gateway.reload()
    told("42501")  # PostgreSQL 15: not everybody may make tables in the schema public
    server.sql("GRANT CREATE ON SCHEMA public TO gw")
    gateway.set("uplink db", database="none")
    gateway.reload()
    told("3D000")
    stranger = Authority(str(tmp_path / "stranger"))
    gateway.set("uplink db", database="postgres", ca_file=stranger.cert)
    gateway.reload()
    told("certificate verify failed")
    gateway.set("uplink db", ca_file=server.authority.cert)
    gateway.reload()
    ledger = settle(gateway)
    assert int(server.sql("SELECT count(*) FROM readings")) == ledger["read"]


def test_nobody_there(tmp_path, server):
    gateway = site(tmp_path, server, host="no-such-host.invalid").start()
    wait_for(lambda: "no-such-host" in words(gateway), 20, lambda: gateway.uplink_state("db"))
    gateway.set("uplink db", host="localhost", port=1)
    gateway.reload()
    wait_for(lambda: "refused" in words(gateway), 15, lambda: gateway.uplink_state("db"))
    gateway.set("uplink db", host=server.folder, port=server.port)
    gateway.reload()
    ledger = settle(gateway)
    assert int(server.sql("SELECT count(*) FROM readings")) == ledger["read"]
