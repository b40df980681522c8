"""Type kafka against librdkafka's mock cluster: outages, restarts of both sides, refusals, TLS,
logins. Through a bad line: test_uplinks.py.

WINDROW_KAFKA_ROUNDS sets how often both are ended (4).
"""
import collections
import os
import random
import ssl
import time

import pytest

import kafka
from certificates import Authority
from kafka import Cluster, Front, records
from process import wait_for
from site_parts import Gateway, Simulator

ROUNDS = int(os.environ.get("WINDROW_KAFKA_ROUNDS", "4"))


def site(folder, brokers, turbines=3, **keys):
    simulator = Simulator(folder, turbines).start()
    gateway = Gateway(folder).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms")
    given = {"type": "kafka", "brokers": brokers, "tls": "no", "batch_interval": "100 ms",
             "connect_timeout": "3 s", "timeout": "5 s"}
    given.update(keys)
    return gateway.set("uplink ka", **given)


def words(gateway):
    """The uplink's last error; it is not listed while a reload restarts it."""
    states = gateway.get("/v1/status")["uplinks"]
    return states[0]["last_error"] or "" if states else ""


def told(gateway, text, limit_s=60):
    wait_for(lambda: text in words(gateway), limit_s, lambda: f"'{text}': {words(gateway)}")


def begin_anew(gateway, **keys):
    """Restarts the uplink, so that nobody waits for its next attempt."""
    gateway.set("uplink ka", client_id=f"gateway-{time.monotonic()}", **keys)
    gateway.reload()


def seqs_by_device(messages):
    """In the order in which a consumer sees them."""
    found = collections.defaultdict(list)
    for message in messages:
        payload = message["value"]
        found[message["key"]] += [one["seq"] for one in payload.get("records", [payload])]
    return found


def settle(gateway, cluster, limit_s=60, dead=0):
    gateway.wait_delivered(1, 30, "ka")
    gateway.stop_polling()
    ledger = gateway.drain(limit_s)
    assert ledger["dead"] == dead and ledger["delivered"] + dead == ledger["read"] > 0
    cluster.wait(lambda messages: sum(map(len, records(messages).values())) >=
                 ledger["delivered"])
    seen = records(cluster.messages())
    assert sum(map(len, seen.values())) == ledger["delivered"]
    partitions = collections.defaultdict(set)
    for message in cluster.messages():
        partitions[message["key"]].add(message["partition"])
    assert all(len(where) == 1 for where in partitions.values())
    if dead == 0:
        for device, seqs in seqs_by_device(cluster.messages()).items():
            assert sorted(set(seqs)) == list(range(1, max(seqs) + 1)), f"{device} has gaps"
    return ledger


def assert_in_order(cluster):
    for device, seqs in seqs_by_device(cluster.messages()).items():
        order = first_times(seqs)
        assert order == sorted(order), device


def first_times(seqs):
    """The seqs where each comes for the first time: that must be in order."""
    seen, order = set(), []
    for seq in seqs:
        if seq not in seen:
            seen.add(seq)
            order.append(seq)
    return order


def test_both_sides_ended_again_and_again(tmp_path):
    cluster = Cluster(tmp_path, brokers=3).start()
    chance = random.Random(random.randrange(2**32))
    gateway = site(tmp_path, " ".join(cluster.bootstrap))
    gateway.write()
    for _ in range(ROUNDS):
        gateway.process.start()
        time.sleep(chance.uniform(0.3, 1))  # the random moment itself
        cluster.down()
        time.sleep(chance.uniform(0, 0.3))
        if chance.random() < 0.5:
            gateway.kill()
            cluster.up()
        else:
            cluster.up()
            time.sleep(chance.uniform(0, 0.5))
            gateway.kill()
    gateway.start()
    settle(gateway, cluster)


def test_nothing_overtakes_within_a_device(tmp_path):
    """Errors that pass, a leader that moves, an acknowledgement that comes late: each message of a
    device is first seen behind those before it."""
    cluster = Cluster(tmp_path).start()
    gateway = site(tmp_path, cluster.bootstrap[0], replay="oldest-first", batch_records=50).start()
    cluster.tell("rtt", 1, 30)
    gateway.wait_delivered(500, 30, "ka")
    for code in (kafka.NOT_LEADER, kafka.TIMED_OUT, kafka.DISCONNECT, kafka.NOT_LEADER, 19, 2):
        cluster.fail(code, 3)
        before = gateway.uplink_state("ka")["delivered"]
        gateway.wait_delivered(before + 200, 60, "ka")
    settle(gateway, cluster)
    assert_in_order(cluster)
    wait_for(lambda: gateway.uplink_state("ka")["bytes_sent"] > 1000, 5, "bytes are counted")


@pytest.mark.parametrize("form,compress", [("record", "gzip"), ("batch", "none")])
def test_formats_through_an_outage(tmp_path, form, compress):
    topics = [f"site.gateway.t{i:02d}" for i in (1, 2, 3)]
    cluster = Cluster(tmp_path, topics=topics).start()
    gateway = site(tmp_path, cluster.bootstrap[0], format=form, compress=compress,
                   topic="site.{gateway}.{device}", timestamp="scan", inflight=10).start()
    gateway.wait_delivered(1, 30, "ka")
    cluster.down()
    wait_for(lambda: words(gateway), 15, "an error is told")
    cluster.up()
    settle(gateway, cluster)
    for message in cluster.messages():
        assert message["topic"] == "site.gateway." + message["key"]
        first = message["value"].get("records", [message["value"]])[0]
        stamp = time.gmtime(message["time_ms"] // 1000)
        assert time.strftime("%Y-%m-%dT%H:%M:%S", stamp) == first["time"][:19]


def test_what_is_too_large_is_found_and_only_that(tmp_path):
    """A batch on the wire is refused as a whole; then messages go one by one, and the one that is
    refused again becomes a dead letter."""
    cluster = Cluster(tmp_path).start()
    gateway = site(tmp_path, cluster.bootstrap[0], turbines=1, batch_interval="500 ms",
                   replay="oldest-first").start()
    gateway.wait_delivered(100, 30, "ka")
    cluster.fail(kafka.TOO_LARGE)
    told(gateway, "smaller batches")
    before = gateway.uplink_state("ka")["delivered"]
    gateway.wait_delivered(before + 100, 30, "ka")
    assert gateway.ledger()["dead"] == 0
    cluster.fail(kafka.TOO_LARGE)
    wait_for(lambda: gateway.ledger()["dead"] > 0, 20, lambda: words(gateway))
    settle(gateway, cluster, dead=8)
    assert_in_order(cluster)
    gateway.process.wait_log("8 readings became dead letters: .*no message as large")


def test_a_document_that_is_too_large_is_split(tmp_path):
    cluster = Cluster(tmp_path).start()
    gateway = site(tmp_path, cluster.bootstrap[0], turbines=1, format="batch",
                   batch_interval="500 ms").start()
    gateway.wait_delivered(100, 30, "ka")
    failures = gateway.uplink_state("ka")["failures"]
    cluster.fail(kafka.TOO_LARGE, 2)
    # The words stand there for a moment only, the count stays.
    wait_for(lambda: gateway.uplink_state("ka")["failures"] > failures, 30,
             lambda: gateway.uplink_state("ka"))
    # While documents of many scans still come: one scan alone would be too large for good.
    before = gateway.uplink_state("ka")["delivered"]
    gateway.wait_delivered(before + 200, 30, "ka")
    settle(gateway, cluster)


def test_what_must_be_mended_is_told(tmp_path):
    cluster = Cluster(tmp_path).start()
    cluster.tell("topic", "windrow.raw", kafka.UNKNOWN_TOPIC)
    gateway = site(tmp_path, cluster.bootstrap[0], turbines=1).start()
    told(gateway, "no such topic", 40)
    cluster.tell("topic", "windrow.raw", 0)
    cluster.fail(kafka.TOPIC_FORBIDDEN, 1000)
    begin_anew(gateway)
    told(gateway, "may not write to that topic")
    ledger = gateway.ledger()
    assert ledger["dead"] == 0 and ledger["delivered"] == 0 and ledger["waiting"] > 0
    cluster.tell("clear", kafka.PRODUCE)
    begin_anew(gateway)
    settle(gateway, cluster)


def test_no_right_to_write_idempotently(tmp_path):
    cluster = Cluster(tmp_path).start()
    cluster.fail(kafka.CLUSTER_FORBIDDEN, 1000, kafka.INIT_PRODUCER)
    gateway = site(tmp_path, cluster.bootstrap[0], turbines=1).start()
    told(gateway, "may not write idempotently")
    cluster.tell("clear", kafka.INIT_PRODUCER)
    begin_anew(gateway)
    settle(gateway, cluster)


def context(authority, name="kafka", alternative="IP:127.0.0.1", mutual=True):
    cert, key = authority.issue(name, alternative)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    if mutual:
        made.load_verify_locations(authority.cert)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def test_mutual_tls(tmp_path):
    authority, stranger = Authority(str(tmp_path / "ca")), Authority(str(tmp_path / "other"))
    cluster = Cluster(tmp_path).start()
    front = Front(cluster.port, context(authority))
    elsewhere = Front(cluster.port, context(authority, "elsewhere", "DNS:elsewhere.example.com"))
    cert, key = authority.issue("gw")
    gateway = site(tmp_path, f"127.0.0.1:{front.port}", tls="yes", ca_file=stranger.cert,
                   cert_file=cert, key_file=key).start()
    told(gateway, "certificate verify failed")
    begin_anew(gateway, ca_file=authority.cert, brokers=f"127.0.0.1:{elsewhere.port}")
    told(gateway, "another host name")
    cert, key = stranger.issue("gw2")
    begin_anew(gateway, brokers=f"127.0.0.1:{front.port}", cert_file=cert, key_file=key)
    wait_for(lambda: words(gateway) and "another host" not in words(gateway), 20,
             lambda: words(gateway))
    assert gateway.uplink_state("ka")["delivered"] == 0
    cert, key = authority.issue("gw3")
    begin_anew(gateway, cert_file=cert, key_file=key)
    gateway.wait_delivered(1, 30, "ka")
    # A renewed certificate is used without a word to the gateway.
    before, renewed = front.peers[-1], authority.issue("gw4")
    for new, old in zip(reversed(renewed), (key, cert)):
        os.replace(new, old)
    wait_for(lambda: front.peers[-1] != before, 20, "the renewed certificate is shown")
    settle(gateway, cluster)


@pytest.mark.parametrize("sasl", ["plain", "scram-sha-256", "scram-sha-512"])
def test_logins(tmp_path, sasl):
    authority = Authority(str(tmp_path / "ca"))
    cluster = Cluster(tmp_path).start()
    front = Front(cluster.port, context(authority, mutual=False), {"windrow": "right"},
                  [sasl.upper()])
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    gateway = site(tmp_path, f"127.0.0.1:{front.port}", turbines=1, tls="yes", sasl=sasl,
                   ca_file=authority.cert, user="windrow", password_file=password).start()
    told(gateway, "does not let us in")
    assert gateway.ledger()["dead"] == 0 and not front.logins
    password.write_text("right\n")
    begin_anew(gateway)
    settle(gateway, cluster)
    assert front.logins[0] == (sasl.upper(), "windrow")


def test_nobody_there(tmp_path):
    gateway = site(tmp_path, "127.0.0.1:1", turbines=1).start()
    told(gateway, "Connection refused")
    begin_anew(gateway, brokers="no-such-host.invalid:9092", tls="yes")
    told(gateway, "no-such-host")


@pytest.mark.parametrize("keys, text", [
    ({"brokers": "192.0.2.1:9092"}, "'192.0.2.1:9092' is not on this machine: tls = yes is needed"),
    ({"brokers": "127.0.0.1:1 kafka1"}, "'kafka1' is not on this machine"),
    ({"brokers": "127.0.0.1:99999"}, "'127.0.0.1:99999' is no HOST:PORT"),
    ({"brokers": "a:1,b:1"}, "'a:1,b:1' is no HOST:PORT"),
    ({"topic": "site/{device}"}, "may hold letters, digits"),
    ({"topic": "{devise}"}, "knows {gateway}, {stream} and {device} only"),
    ({"sasl": "plain"}, "needs user and password_file, too"),
    ({"user": "windrow"}, "is of no use without sasl"),
])
def test_what_check_says(tmp_path, keys, text):
    gateway = Gateway(tmp_path)
    gateway.set("uplink ka", **dict({"type": "kafka", "brokers": "[::1]:9092 localhost",
                                     "tls": "no"}, **keys)).write()
    status, output, _ = gateway.cli("check")
    assert status == 2 and text in output, output
