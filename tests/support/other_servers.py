"""Receiving sides that we did not write, for the types that exist only as a cloud: each a receiver
of the contract. OpenStack Swift comes of Debian; the others are npm packages, found below
$WINDROW_NODE_SERVERS:

    npm install --prefix $WINDROW_NODE_SERVERS dynalite@4.0.0 kinesalite@3.3.3 \\
        kinesis-local@0.6.2 s3rver@3.7.1 fauxqs@1.9.2 local-aws-sqs@2.0.2

DynamoDB Local, which is Amazon's own and wants java, is in `npm pack
amplify-dynamodb-simulator@2.9.30`, unpacked there (its folder is called package)."""
import collections
import json
import os
import shutil
import signal
import sys
import time
import urllib.request
import zlib

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

import swift_store
from influx_servers import Server
from process import free_ports, wait_for
from receivers import Receiver, credentials

NODE_SERVERS = os.environ.get("WINDROW_NODE_SERVERS", "")
# Several of them would end when a client goes away in the middle of a request.
NODE = ["node", "--import", "data:text/javascript,process.on('uncaughtException', "
        "error => console.error('went on after', error))"]
KEYS = ("AKIDEXAMPLE", "secret/key")


def client(service, url, region="eu-west-1", keys=KEYS, **more):
    return boto3.client(service, endpoint_url=url, region_name=region, aws_access_key_id=keys[0],
                        aws_secret_access_key=keys[1],
                        config=Config(retries={"max_attempts": 2}, **more))


class Listening(Server):
    """One that is there when it takes connections."""

    def answers(self):
        self.process.wait_port(self.port, 60)
        return True


class OtherSide(Receiver):
    """One server and its data. `program`: its file below the folder of npm packages."""
    most, region, login, program, pauses = 30000, "eu-west-1", KEYS, "", False

    @classmethod
    def missing(cls):
        """What is not installed; None: all there."""
        path = os.path.join(NODE_SERVERS, cls.program)
        if not NODE_SERVERS or not os.path.exists(path):
            return f"{cls.program} below $WINDROW_NODE_SERVERS"
        return None

    def __init__(self, folder):
        self.folder, self.data = str(folder), os.path.join(str(folder), "data")
        os.makedirs(self.data)
        self.port = free_ports(4)
        self.server = Listening(folder, type(self).__name__, self.argv(), self.port)
        self.server.process.environment.update(self.environment())

    def path(self):
        return os.path.join(NODE_SERVERS, self.program)

    def environment(self):
        return {}

    def start(self):
        self.server.start()
        self.prepare()

    def restart(self):
        """One that keeps its data in memory stands still longer than the gateway waits."""
        if self.pauses:
            self.server.process.signal(signal.SIGSTOP)
            time.sleep(4)
            self.server.process.signal(signal.SIGCONT)
            return
        self.server.kill()
        self.server.start()

    def client(self, service):
        return client(service, self.server.url, self.region, self.login)

    def scans(self):
        """(device, seq) -> values, of lines() where a scan is one; a repeat says the same."""
        found = {}
        for line in self.lines():
            scan = json.loads(line)
            assert found.setdefault((scan["device"], scan["seq"]), scan) == scan
        return {key: scan["values"] for key, scan in found.items()}

    def readings(self):
        return {key: list(values) for key, values in self.scans().items()}

    def wrong(self):
        """Settings that it refuses, each with what the gateway says then."""
        raise NotImplementedError

    def keys(self, port):
        return dict(self.more(port), region=self.region, endpoint=f"http://127.0.0.1:{port}",
                    credentials=credentials(self.folder, *self.login))


class DynaliteSide(OtherSide):
    type, program = "dynamodb", "node_modules/dynalite/cli.js"

    def argv(self):
        return [*NODE, self.path(), "--port", self.port, "--host", "127.0.0.1",
                "--path", self.data, "--createTableMs", 1]

    def more(self, _port):
        return {"table": "readings", "user": "borssele", "expire_after": "90 d"}

    def prepare(self):
        dynamo = self.client("dynamodb")
        dynamo.create_table(TableName="readings", BillingMode="PAY_PER_REQUEST",
                            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"},
                                                  {"AttributeName": "ts", "AttributeType": "N"}],
                            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"},
                                       {"AttributeName": "ts", "KeyType": "RANGE"}])
        wait_for(lambda: dynamo.describe_table(TableName="readings")["Table"]["TableStatus"] ==
                 "ACTIVE", 20, "the table is there")

    def wrong(self):
        return [({"table": "nosuch"}, "ResourceNotFound"),
                ({"sort_key": "time"}, "keys are not those of partition_key")]

    def items(self):
        for page in self.client("dynamodb").get_paginator("scan").paginate(TableName="readings",
                                                                           ConsistentRead=True):
            yield from page["Items"]

    def scans(self):
        found = collections.defaultdict(dict)
        for item in self.items():
            device, point = item["pk"]["S"].split("#")[1].split(".")
            assert int(item["expires_at"]["N"]) == int(float(item["ts"]["N"])) + 90 * 86400
            (kind, value), = item["value"].items()
            found[device, int(item["seq"]["N"])][point] = \
                float(value) if kind == "N" else None if kind == "NULL" else value
        return found


class DynamoLocalSide(DynaliteSide):
    """Amazon's own; on a disk it takes 40 items a second."""
    pauses, program = True, "package/emulator/DynamoDBLocal.jar"

    def argv(self):
        libraries = os.path.join(os.path.dirname(self.path()), "DynamoDBLocal_lib")
        return ["env", "-C", self.folder, "java", f"-Djava.library.path={libraries}",
                "-jar", self.path(), "-port", self.port, "-inMemory", "-sharedDb"]

    @classmethod
    def missing(cls):
        return super().missing() or (None if shutil.which("java") else "java")


class KinesaliteSide(OtherSide):
    type, program = "kinesis", "node_modules/kinesalite/cli.js"

    def argv(self):
        return [*NODE, self.path(), "--port", self.port, "--path", self.data,
                "--createStreamMs", 1]

    def more(self, _port):
        return {"stream": "readings"}

    def prepare(self):
        kinesis = self.client("kinesis")
        kinesis.create_stream(StreamName="readings", ShardCount=2)
        wait_for(lambda: kinesis.describe_stream(StreamName="readings")
                 ["StreamDescription"]["StreamStatus"] == "ACTIVE", 20, "the stream is there")

    def wrong(self):
        return [({"stream": "nosuch"}, "ResourceNotFound")]

    def records(self):
        kinesis = self.client("kinesis")
        shards = kinesis.describe_stream(StreamName="readings")["StreamDescription"]["Shards"]
        for shard in shards:
            at = kinesis.get_shard_iterator(StreamName="readings", ShardId=shard["ShardId"],
                                            ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            while at:
                reply = kinesis.get_records(ShardIterator=at, Limit=5000)
                yield from reply["Records"]
                if not reply["Records"] and reply.get("MillisBehindLatest", 0) == 0:
                    break
                at = reply["NextShardIterator"]

    def lines(self):
        for record in self.records():
            assert record["PartitionKey"] == json.loads(record["Data"])["device"]
            yield record["Data"]


class KinesisLocalSide(KinesaliteSide):
    program, pauses = "node_modules/kinesis-local/main.js", True

    def argv(self):
        return [*NODE, self.path()]

    def environment(self):
        return {"KINESIS_MOCK_PLAIN_PORT": str(self.port), "LOG_LEVEL": "WARN",
                "KINESIS_MOCK_TLS_PORT": str(self.port + 1), "AWS_REGION": self.region,
                "KINESIS_MOCK_CERT_PATH": os.path.join(os.path.dirname(self.path()),
                                                       "server.json"),
                "CREATE_STREAM_DURATION": "1ms"}


class S3rverSide(OtherSide):
    type, program = "s3", "node_modules/s3rver/bin/s3rver.js"
    region, login, most = "us-east-1", ("S3RVER", "S3RVER"), 5000

    def argv(self):
        return [*NODE, self.path(), "-d", self.data, "-a", "127.0.0.1", "-p", self.port,
                "--configure-bucket", "wind-archive", "--allow-mismatched-signatures"]

    def more(self, _port):
        return {"bucket": "wind-archive", "style": "path"}

    def prepare(self):
        pass

    def wrong(self):
        return [({"bucket": "no-such-bucket"}, "no such bucket")]

    @staticmethod
    def whole(body):
        """s3rver keeps what came of an upload that broke off, as S3 never does."""
        try:
            return zlib.decompress(body, 31).decode()
        except zlib.error:
            return ""

    def objects(self):
        s3 = self.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="wind-archive"):
            for one in page.get("Contents", []):
                yield one["Key"], s3.get_object(Bucket="wind-archive",
                                                Key=one["Key"])["Body"].read()

    def lines(self):
        for key, body in self.objects():
            assert key.endswith(".ndjson.gz")
            yield from self.whole(body).splitlines()


class SwiftSide(S3rverSide):
    """The only one here that comes of Debian, and that knows a wrong signature from a right one."""
    region, login = swift_store.REGION, swift_store.KEYS

    @classmethod
    def missing(cls):
        return None

    @staticmethod
    def whole(body):
        return zlib.decompress(body, 31).decode()

    def wrong(self):
        other = self.data + "-other"
        os.makedirs(other)
        return [*super().wrong(), ({"region": "us-east-1"}, "it is eu-west-1"),
                ({"credentials": credentials(other, self.login[0], "x")}, "SignatureDoesNotMatch")]

    def argv(self):
        return [sys.executable, swift_store.__file__, self.data, self.port]

    def prepare(self):
        self.client("s3").create_bucket(
            Bucket="wind-archive", CreateBucketConfiguration={"LocationConstraint": self.region})


class FauxS3Side(S3rverSide):
    program, pauses = "node_modules/fauxqs/dist/cli.js", True

    def argv(self):
        return [*NODE, self.path()]

    def environment(self):
        return {"FAUXQS_PORT": str(self.port), "FAUXQS_LOGGER": "false",
                "FAUXQS_DEFAULT_REGION": self.region}

    def prepare(self):
        self.client("s3").create_bucket(Bucket="wind-archive")


class FauxSqsSide(OtherSide):
    type, program, pauses = "sqs", "node_modules/fauxqs/dist/cli.js", True
    queue, attributes = "readings", {}

    argv, environment = FauxS3Side.argv, FauxS3Side.environment

    def more(self, _port):
        return {"queue_url": self.url}

    def wrong(self):
        return [({"queue_url": self.url + "x"}, "QueueDoesNotExist")]

    def ask(self, operation, **request):
        return ask_json(self.server.url, operation, request)

    def prepare(self):
        self.held, self.url = [], self.ask("CreateQueue", QueueName=self.queue,
                                           Attributes=self.attributes)["QueueUrl"]

    def lines(self):
        """All that has been received so far: what is received is taken out of the queue."""
        while True:
            reply = self.ask("ReceiveMessage", QueueUrl=self.url, MaxNumberOfMessages=10)
            if not reply.get("Messages"):
                return self.held
            for message in reply["Messages"]:
                self.held.append(message["Body"])
                self.ask("DeleteMessage", QueueUrl=self.url,
                         ReceiptHandle=message["ReceiptHandle"])


class FauxFifoSide(FauxSqsSide):
    """It knows repeats by itself: none may come out."""
    queue, attributes = "readings.fifo", {"FifoQueue": "true"}

    def scans(self):
        found = super().scans()
        assert len(found) == len(self.held)
        return found


class LocalSqsSide(FauxSqsSide):
    program = "node_modules/local-aws-sqs/dist/index.js"

    def argv(self):
        return [*NODE, "-e", f"require({self.path()!r}).createSqsServer({{port: {self.port}, "
                "hostname: '127.0.0.1', region: 'eu-west-1'})"]


def ask_json(url, operation, request):
    """SQS in the JSON of today's clients; Debian's botocore speaks the protocol of queries."""
    one = AWSRequest(method="POST", url=url + "/", data=json.dumps(request).encode(),
                     headers={"Content-Type": "application/x-amz-json-1.0",
                              "X-Amz-Target": "AmazonSQS." + operation})
    SigV4Auth(Credentials(*KEYS), "sqs", "eu-west-1").add_auth(one)
    with urllib.request.urlopen(urllib.request.Request(
            one.url, one.data, dict(one.headers)), timeout=20) as reply:
        return json.loads(reply.read() or "{}")


ALL = [SwiftSide, DynaliteSide, DynamoLocalSide, KinesaliteSide, KinesisLocalSide, S3rverSide,
       FauxS3Side, FauxSqsSide, FauxFifoSide, LocalSqsSide]
