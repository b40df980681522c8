"""The receiving side of every uplink type, for the contract that all of them keep to: started,
ended and begun again, refusing what it is told to refuse, and read back."""
import base64
import collections
import json
import os
import random
import re

import mosquitto
from certificates import Authority
from fake_aws import FakeAws
from fake_s3 import FakeS3
from influx_servers import InfluxDB, VictoriaMetrics
from iot_core import IotCore
from kafka import Cluster, Front, records as kafka_records
from postgres import Postgres
from process import free_ports
from site_parts import Sink
from written_files import identities, tear

SEED = int(os.environ.get("WINDROW_CONTRACT_SEED", "7"))


def every_seventh(device, seq):
    """What a receiving side that can refuse single records does refuse."""
    return device == "t02" and seq % 7 == 0


def credentials(folder, key, secret):
    path = os.path.join(str(folder), "aws.ini")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    return "file:" + path


class Receiver:
    """The receiving side of one type. Required: start(), keys(port): those of its [uplink], and
    readings(): (device, seq) -> names of its points, nothing twice. `http`: errors may be put in on
    the way; `most`: bytes that a connection lives for; `port` None: there is no line."""
    http, most, port = True, 60000, None

    @staticmethod
    def refused(_device, _seq):
        return False

    def restart(self):
        """Required: goes away at once and comes back with its data."""
        raise NotImplementedError

    def calm(self):
        """From now on it refuses only what refused() says."""

    def line(self, port):
        """The server's replies name the line's port instead of its own, where they name one."""

    def gateway_died(self):
        """A power cut of the gateway may leave something behind here."""

    def close(self):
        pass


class SinkSide(Receiver):
    type, http, most = "http", False, 15000  # over TLS: errors cannot be put in on the way

    def __init__(self, folder):
        self.sink = Sink(folder, None, "--reject", "t02:21")
        self.port = self.sink.port

    def start(self):
        self.sink.start()

    def restart(self):
        self.sink.process.kill()
        self.sink.start()

    @staticmethod
    def refused(device, seq):
        return device == "t02" and seq == 21

    def keys(self, port):
        return {"url": f"https://127.0.0.1:{port}/v1/readings",
                "ca_file": self.sink.authority.cert}

    def readings(self):
        found = collections.defaultdict(list)
        for device, seq, point in self.sink.query("SELECT device, seq, point FROM readings"):
            found[device, seq].append(point)
        assert self.sink.count("conflicts") == 0
        return found


class TimestreamSinkSide(SinkSide):
    """Type timestream over TLS, into the sink's table."""
    type = "timestream"

    def __init__(self, folder):
        self.sink = Sink(folder, None, "--reject", "t02:21", "--aws-key", "AKID:secret/key")
        self.port, self.folder = self.sink.port, folder

    def keys(self, port):
        return {"credentials": credentials(self.folder, "AKID", "secret/key"), "table": "readings",
                "region": "eu-west-1", "database": "wind", "ca_file": self.sink.authority.cert,
                "endpoint": f"https://127.0.0.1:{port}"}


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
    type, most = "influx", 3000

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
    more, most, service = {}, 30000, FakeAws
    held = ("timestream", "dynamodb", "kinesis", "sqs")
    refused = staticmethod(every_seventh)

    def __init__(self, folder):
        self.folder, self.aws, self.port = folder, None, 0

    def start(self):
        self.aws = self.service(seed=SEED, port=free_ports())  # it comes back to the same one
        self.aws.wild = True
        self.aws.refuse = self.refuse
        self.port = self.aws.port

    def restart(self):
        """The data is the service's; only its connections go."""
        self.aws.server.shutdown()
        self.aws.server.server_close()
        held = self.aws
        self.aws = self.service(seed=SEED + 1, port=self.port)
        self.aws.wild, self.aws.refuse = True, self.refuse
        for name in (*self.held, "problems"):
            setattr(self.aws, name, getattr(held, name))

    def line(self, port):
        self.aws.advertised = f"http://127.0.0.1:{port}"

    def calm(self):
        self.aws.wild = False

    def close(self):
        self.aws.close()
        assert not self.aws.problems, self.aws.problems[:2]

    def keys(self, port):
        return dict(self.more, region="eu-west-1", endpoint=f"http://127.0.0.1:{port}",
                    credentials=credentials(self.folder, "AKIDEXAMPLE", "secret/key"))

    def refuse(self, what):
        """In the stand-in's words."""
        return "refused" if self.refused(what["device"], int(what["seq"])) else None


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
        return "refused" if self.refused(device, int(what["seq"]["N"])) else None

    def readings(self):
        found = collections.defaultdict(list)
        for (key, seconds), item in self.aws.dynamodb.items():
            device, point = key.split("#")[1].split(".")
            assert int(item["expires_at"]["N"]) == int(float(seconds)) + 90 * 86400
            found[device, int(item["seq"]["N"])].append(point)
        # What was taken of a scan before another item of it was refused.
        return {key: points for key, points in found.items() if not self.refused(*key)}


class KinesisSide(AwsSide):
    type, more = "kinesis", {"stream": "readings"}
    refused = staticmethod(Receiver.refused)  # the service takes any bytes

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


class S3Side(AwsSide):
    """An object holds what its key says; a record may be in two objects after a crash, and says the
    same in both. Nothing in an object is ever refused."""
    type, more, service = "s3", {"bucket": "wind-archive", "compress": "none"}, FakeS3
    held, refused = ("objects",), staticmethod(lambda _device, _seq: False)

    def readings(self):
        return {key: list(record["values"]) for key, record in self.aws.records().items()}


class IotSide(Receiver):
    """IoT Core knows no repeats: the identity tells them."""
    type, http, most = "iot-https", False, 15000

    def __init__(self, folder):
        self.authority, self.core, self.port = Authority(os.path.join(folder, "ca")), None, None

    def start(self):
        self.core = IotCore(self.authority)
        self.port = self.core.port

    def restart(self):
        self.core.restart()

    def close(self):
        self.core.close()

    def keys(self, port):
        cert, key = self.authority.issue("gw")
        return {"url": f"https://127.0.0.1:{port}", "cert_file": cert, "key_file": key,
                "ca_file": self.authority.cert}

    def readings(self):
        return {key: list(values) for key, values in self.core.records().items()}


class FileSide(Receiver):
    type = "file"

    def __init__(self, folder):
        self.folder = os.path.join(str(folder), "usb")
        self.path, self.chance = os.path.join(self.folder, "readings.ndjson"), random.Random(SEED)

    def start(self):
        os.mkdir(self.folder)

    def restart(self):
        """The medium is pulled and put in again."""
        os.rename(self.folder, self.folder + ".away")
        os.rename(self.folder + ".away", self.folder)

    def gateway_died(self):
        if os.path.exists(self.path):
            tear(self.path, self.chance)

    def keys(self, _port):
        return {"path": self.path, "rotate_size": "256 KiB", "compress": "gzip", "min_free": "0 B"}

    def readings(self):
        return {(device, seq): list(values) for (_, _, device, seq), values in
                identities(self.path, "ndjson").items()}


class MqttSide(Receiver):
    type, http, most = "mqtt", False, 20000

    def __init__(self, folder):
        self.broker = mosquitto.Broker(folder, Authority(os.path.join(str(folder), "ca")))
        self.subscriber, self.port = mosquitto.Subscriber(self.broker), self.broker.port

    def start(self):
        self.broker.start()
        self.subscriber.start()

    def restart(self):
        """In an orderly way: mosquitto keeps what it has acknowledged only when it ends by
        itself."""
        self.broker.stop()
        self.broker.start()

    def keys(self, port):
        cert, key = self.broker.authority.issue("gw")
        return {"url": f"mqtts://127.0.0.1:{port}", "ca_file": self.broker.authority.cert,
                "cert_file": cert, "key_file": key}

    def readings(self):
        return {(device, seq): list(values) for (_, _, device, seq), values in
                mosquitto.records(self.subscriber.messages()).items()}


class PostgresSide(Receiver):
    type, http, most = "postgres", False, 20000
    refused = staticmethod(every_seventh)

    def __init__(self, folder):
        self.folder, self.authority = folder, Authority(os.path.join(str(folder), "ca"))
        self.server = Postgres(self.authority)
        self.port = self.server.port

    def start(self):
        self.server.start()
        self.server.sql("CREATE ROLE gw LOGIN PASSWORD 'x'")
        self.server.sql("CREATE TABLE readings (gateway text, store text, stream text, device text,"
                        " seq bigint, time timestamptz, window_s integer, point text,"
                        " value double precision, text text, quality text,"
                        " PRIMARY KEY (store, stream, device, seq, point),"
                        " CHECK (NOT (device = 't02' AND seq % 7 = 0)))")
        self.server.sql("GRANT INSERT, SELECT ON readings TO gw")

    def restart(self):
        self.server.kill()
        self.server.start()

    def close(self):
        self.server.remove()

    def keys(self, port):
        secret = os.path.join(str(self.folder), "secret")
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write("x\n")
        return {"host": "127.0.0.1", "port": port, "user": "gw", "database": "postgres",
                "password_file": secret, "ca_file": self.authority.cert}

    def readings(self):
        found = collections.defaultdict(list)
        for row in self.server.sql("SELECT device, seq, point FROM readings").splitlines():
            device, seq, point = row.split("|")
            found[device, int(seq)].append(point)
        return found


class KafkaSide(Receiver):
    type, http, most = "kafka", False, 12000

    def __init__(self, folder):
        self.cluster, self.front, self.port = Cluster(folder), None, None

    def start(self):
        self.cluster.start()
        self.front = Front(self.cluster.port)
        self.port = self.front.port

    def line(self, port):
        self.front.readdressed[self.cluster.port] = port

    def restart(self):
        self.cluster.down()
        self.cluster.up()

    def close(self):
        self.front.close()

    def keys(self, port):
        return {"brokers": f"127.0.0.1:{port}", "tls": "no", "compress": "none"}

    def readings(self):
        return {(device, seq): list(values) for (_, _, device, seq), values in
                kafka_records(self.cluster.messages()).items()}


SIDES = [SinkSide, TimestreamSinkSide, InfluxSide, VictoriaSide, TimestreamSide, DynamoSide,
         KinesisSide, SqsSide, S3Side, IotSide, FileSide, MqttSide, PostgresSide, KafkaSide]
