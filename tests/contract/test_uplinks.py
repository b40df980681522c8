"""What every uplink keeps to, whatever it speaks: through cut connections, delays, errors and
restarts of both sides all readings arrive, each once in the receiving table (or as a repeat known
by its identity), the dead letters are exactly the refused ones, and the ledger adds up.

$WINDROW_CONTRACT_READINGS sets how many (the long run: 100000)."""
import base64
import collections
import json
import os
import re
import subprocess
import time

import pytest

from chaos import Chaos
from fake_aws import FakeAws
from influx_servers import InfluxDB, VictoriaMetrics
from process import program, wait_for
from site_parts import Gateway, Simulator, Sink

READINGS = int(os.environ.get("WINDROW_CONTRACT_READINGS", "4000"))
SEED = int(os.environ.get("WINDROW_CONTRACT_SEED", "7"))
TURBINES = 6
# Those whose servers need more than a port, proved in files of their own.
ELSEWHERE = {"file", "mqtt", "postgres", "kafka"}


def refused(device, seq):
    """The readings that a receiving side which can refuse some does refuse."""
    return device == "t02" and seq % 7 == 0


class Receiver:
    """The receiving side of one type. readings(): (device, seq) -> names of its points."""
    http, refuses, most = True, False, 60000  # most: bytes that a connection lives for

    def start(self):
        raise NotImplementedError

    def restart(self):
        """Goes away at once and comes back with its data."""
        raise NotImplementedError


class SinkSide(Receiver):
    type, http = "http", False  # over TLS: errors cannot be put in on the way

    def __init__(self, folder):
        self.sink = Sink(folder)
        self.port = self.sink.port

    def start(self):
        self.sink.start()

    def restart(self):
        self.sink.process.kill()
        self.sink.start()

    def keys(self, port):
        return {"url": f"https://127.0.0.1:{port}/v1/readings",
                "ca_file": self.sink.authority.cert}

    def readings(self):
        found = collections.defaultdict(list)
        for device, seq, point in self.sink.query("SELECT device, seq, point FROM readings"):
            found[device, seq].append(point)
        assert self.sink.count("conflicts") == 0
        return found


class InfluxSide(Receiver):
    type, most = "influx", 6000

    def __init__(self, folder):
        self.server = InfluxDB(folder)
        self.port = self.server.port

    def start(self):
        self.server.start().create()

    def restart(self):
        self.server.kill()
        self.server.start()

    def keys(self, port):
        return {"url": f"http://127.0.0.1:{port}", "version": "v1", "db": "wind"}

    def readings(self):
        found = {}
        for row in self.server.query("SELECT * FROM readings"):
            names = [key for key, value in row.items() if value is not None and key not in
                     ("time", "seq", "device", "gateway", "store", "stream")]
            assert (row["device"], row["seq"]) not in found
            found[row["device"], row["seq"]] = names
        return found


class VictoriaSide(Receiver):
    type, most = "influx", 6000

    def __init__(self, folder):
        self.server = VictoriaMetrics(folder)
        self.port = self.server.port

    def start(self):
        self.server.start()

    def restart(self):
        """In an orderly way: it promises nothing about its last second otherwise."""
        self.server.process.stop(30)
        self.server.start()

    def keys(self, port):
        return {"url": f"http://127.0.0.1:{port}", "version": "v2", "org": "any", "bucket": "wind"}

    def readings(self):
        """It has no rows: a reading is known by device, point and time, its seq by the time."""
        series = self.server.export('{__name__=~"readings_.*"}')
        seq_of, found = {}, collections.defaultdict(list)
        for one in series:
            if one["metric"]["__name__"] == "readings_seq":
                seq_of.update({(one["metric"]["device"], at): int(seq) for at, seq in
                               zip(one["timestamps"], one["values"])})
        for one in series:
            name = one["metric"]["__name__"][len("readings_"):]
            if name != "seq":
                for at in set(one["timestamps"]):
                    found[one["metric"]["device"], seq_of[one["metric"]["device"], at]].append(name)
        return found


class AwsSide(Receiver):
    refuses = True
    more = {}

    def __init__(self, folder):
        self.folder, self.aws, self.port = folder, None, 0

    def start(self):
        self.aws = FakeAws(seed=SEED)
        self.aws.wild = True
        self.aws.refuse = self.refuse
        self.port = self.aws.port

    def restart(self):
        """The data is the service's; only its connections go."""
        self.aws.server.shutdown()
        self.aws.server.server_close()
        held = self.aws
        self.aws = FakeAws(seed=SEED + 1, port=self.port)
        self.aws.wild, self.aws.refuse = True, self.refuse
        for name in ("timestream", "dynamodb", "kinesis", "sqs", "problems"):
            setattr(self.aws, name, getattr(held, name))

    def keys(self, port):
        path = os.path.join(str(self.folder), "aws.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[default]\naws_access_key_id = AKIDEXAMPLE\n"
                       "aws_secret_access_key = secret/key\n")
        os.chmod(path, 0o600)
        if self.aws is not None:
            self.aws.advertised = f"http://127.0.0.1:{port}"
        return dict(self.more, region="eu-west-1", credentials="file:" + path,
                    endpoint=f"http://127.0.0.1:{port}")

    def refuse(self, what):
        return "refused" if refused(what["device"], int(what["seq"])) else None


class TimestreamSide(AwsSide):
    type, more = "timestream", {"database": "wind", "table": "readings"}

    def readings(self):
        found = {}
        for (dimensions, _, _), values in self.aws.timestream.items():
            found[dict(dimensions)["device"], int(values["seq"])] = \
                [name for name in values if name != "seq"]
        return found


class DynamoSide(AwsSide):
    type, more = "dynamodb", {"table": "readings", "user": "borssele", "expire_after": "90 d"}

    def refuse(self, what):
        device = re.fullmatch(r"borssele#(\w+)\.\w+", what["pk"]["S"]).group(1)
        return "refused" if refused(device, int(what["seq"]["N"])) else None

    def readings(self):
        found = collections.defaultdict(list)
        for (key, seconds), item in self.aws.dynamodb.items():
            device, point = key.split("#")[1].split(".")
            assert int(item["expires_at"]["N"]) == int(float(seconds)) + 90 * 86400
            found[device, int(item["seq"]["N"])].append(point)
        # What was taken of a scan before another item of it was refused.
        return {key: points for key, points in found.items() if not refused(*key)}


class KinesisSide(AwsSide):
    type, more, refuses = "kinesis", {"stream": "readings"}, False

    def readings(self):
        """Repeats are the stream's nature: the identity tells them, and they say the same."""
        found = {}
        for _, record in self.aws.kinesis:
            scan = json.loads(base64.b64decode(record["Data"]))
            assert record["PartitionKey"] == scan["device"]
            assert found.setdefault((scan["device"], scan["seq"]), scan) == scan
        return {key: list(scan["values"]) for key, scan in found.items()}


class SqsSide(AwsSide):
    type, more = "sqs", {"queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/readings"}

    def readings(self):
        found = {}
        for scan in self.aws.sqs:
            assert found.setdefault((scan["device"], scan["seq"]), scan) == scan
        return {key: list(scan["values"]) for key, scan in found.items()}


SIDES = [SinkSide, InfluxSide, VictoriaSide, TimestreamSide, DynamoSide, KinesisSide, SqsSide]


def test_every_registered_type_has_its_proof():
    text = subprocess.run([program("windrow"), "keys", "--example"], capture_output=True, text=True,
                          check=True).stdout
    uplinks = text[text.index("[uplink"):]
    registered = set(re.findall(r"# with type = (\w+):", uplinks))
    assert registered - ELSEWHERE == {side.type for side in SIDES}


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__.removesuffix("Side"))
def test_all_arrives_through_a_bad_line(tmp_path, side):
    receiver = side(tmp_path)
    receiver.start()
    chaos = Chaos(receiver.port, SEED, receiver.http, receiver.most)
    simulator = Simulator(tmp_path, TURBINES).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("uplink cloud", type=receiver.type, send="raw", batch_records=50,
                batch_interval="100 ms", parallel=2, timeout="3 s", connect_timeout="2 s",
                **receiver.keys(chaos.port))
    gateway.start()
    for part in range(1, 4):
        enough = READINGS * part // 4
        wait_for(lambda: gateway.ledger()["read"] >= enough, 30 + READINGS / 200, "readings")
        if part == 2:
            receiver.restart()
            receiver.keys(chaos.port)
        else:
            gateway.kill()
            gateway.start()
    wait_for(lambda: gateway.ledger()["read"] >= READINGS, 30 + READINGS / 200, "readings")
    gateway.stop_polling()
    # The line stays bad until most is through, so that the rest's way is proved as well.
    end = time.monotonic() + 5
    while gateway.ledger()["waiting"] > 0 and time.monotonic() < end:
        time.sleep(0.1)
    chaos.calm()
    if receiver.refuses:
        receiver.aws.wild = False
    ledger = gateway.drain(60 + READINGS / 200)
    assert_arrived(receiver, gateway, ledger)
    assert chaos.cuts > 3, "the line was not bad at all"
    chaos.close()


def assert_arrived(receiver, gateway, ledger):
    assert ledger["read"] == ledger["delivered"] + ledger["dead"] + ledger["dropped"]
    assert ledger["dropped"] == 0 and ledger["waiting"] == 0

    def all_there():
        return sum(len(points) for points in receiver.readings().values()) == ledger["delivered"]

    wait_for(all_there, 15, lambda: f"{ledger} against "
             f"{sum(len(points) for points in receiver.readings().values())}")
    found = receiver.readings()
    assert all(len(set(points)) == len(points) for points in found.values())
    devices = collections.defaultdict(set)
    for device, seq in found:
        devices[device].add(seq)
    dead = 0
    for device, seqs in devices.items():
        missing = set(range(1, max(seqs) + 1)) - seqs
        expected = {seq for seq in range(1, max(seqs) + 1) if refused(device, seq)}
        assert missing == (expected if receiver.refuses else set()), device
        dead += len(missing)
    assert len(devices) == TURBINES
    if receiver.refuses:
        assert dead > 0 and dead * 8 <= ledger["dead"] <= (dead + 1) * 8
    else:
        assert ledger["dead"] == 0, gateway.process.log()[-2000:]
    if isinstance(receiver, AwsSide):
        assert not receiver.aws.problems, receiver.aws.problems[:2]
