"""Stand-ins for services that exist only as a cloud, written from the published service models:
they check every signature with botocore, keep what is written, and fail as documented."""
import datetime
import email.utils
import http.server
import json
import random
import socketserver
import threading
import time
import urllib.parse

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from fake_dynamodb import Invalid

NOT_SIGNED = {"expect", "user-agent", "authorization", "content-length", "accept", "connection",
              "accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request"}

DESCRIPTIONS = {"Timestream_20181101.DescribeTable", "DynamoDB_20120810.DescribeTable",
                "Kinesis_20131202.DescribeStreamSummary", "AmazonSQS.GetQueueAttributes"}


class Refusal(Exception):
    """An error reply: its status, __type and message, and further members of the body."""

    def __init__(self, status, kind, message="", headers=(), **more):
        super().__init__(kind)
        self.status, self.headers = status, dict(headers)
        self.body = dict({"__type": f"com.amazonaws.fake#{kind}", "message": message}, **more)


class FakeAws:
    """One endpoint for all services. `wild`: fails by the dice of a seed. `script`: refusals (or
    (status, headers, text) as they are) for the next requests, whatever these want."""
    signer = botocore.auth.SigV4Auth

    def __init__(self, seed=1, port=0, keys=("AKIDEXAMPLE", "secret/key"), token=None, skew_s=0,
                 region="eu-west-1", context=None):
        self.keys, self.token, self.skew_s, self.region = keys, token, skew_s, region
        self.random, self.lock = random.Random(seed), threading.RLock()
        self.wild, self.script, self.dark = False, [], False
        self.timestream, self.dynamodb, self.kinesis, self.sqs = {}, {}, [], []
        self.tables = None  # a fake_dynamodb.Dynamo: all of DynamoDB, not only what the uplink asks
        self.refuse = lambda what: None  # of a record's data: why it is refused for good
        self.calls, self.problems, self.provided = [], [], 0
        self.cache_minutes, self.life_s = 1440, 3600
        self.sort_type = "N"
        self.resources, self.takes_late = None, True  # what describing tells; None: all there
        self.server = make_server(self, port, context)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.advertised = self.url  # what DescribeEndpoints names
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def now(self):
        return time.time() + self.skew_s

    def called(self, operation):
        return sum(call == operation for call in self.calls)

    # -- what every request goes through --

    def answer(self, method, path, headers, body):
        """(status, headers, text) of one request."""
        try:
            if path.startswith("/role-aliases/"):
                return 200, {}, json.dumps(self.provide(headers))
            operation = headers.get("X-Amz-Target", "")
            self.check_signature(method, path, headers, body)
            with self.lock:
                self.calls.append(operation)
                if self.script:
                    planned = self.script.pop(0)
                    if isinstance(planned, Refusal):
                        raise planned
                    return planned
            self.misbehave()
            if self.tables is not None and operation.startswith("DynamoDB_20120810."):
                return 200, {}, json.dumps(self.ask_tables(operation.split(".")[1], body))
            act = {"Timestream_20181101.DescribeEndpoints": self.describe_endpoints,
                   "Timestream_20181101.WriteRecords": self.write_records,
                   "DynamoDB_20120810.BatchWriteItem": self.batch_write_item,
                   "Kinesis_20131202.PutRecords": self.put_records,
                   "AmazonSQS.SendMessageBatch": self.send_message_batch}.get(
                       operation, self.describe if operation in DESCRIPTIONS else None)
            if act is None:
                raise Refusal(400, "UnknownOperationException", operation)
            with self.lock:
                if act == self.describe:
                    return 200, {}, json.dumps(self.describe(operation, json.loads(body)))
                return 200, {}, json.dumps(act(json.loads(body)))
        except Refusal as refusal:
            return refusal.status, refusal.headers, json.dumps(refusal.body)

    def misbehave(self):
        if not self.wild:
            return
        dice = self.random.randrange(24)
        if dice == 0:
            raise Refusal(400, "ThrottlingException", "Rate exceeded")
        if dice == 1:
            raise Refusal(429, "ThrottlingException", "Rate exceeded")
        if dice == 2:
            raise Refusal(429, "ThrottlingException", "Rate exceeded", {"Retry-After": "1"})
        if dice == 3:
            raise Refusal(500, "InternalServerException")
        if dice == 4:
            raise Refusal(503, "ServiceUnavailableException")
        if dice == 5:
            raise Refusal(421, "InvalidEndpointException", "The requested endpoint is not valid")
        if dice == 6:
            raise Refusal(409, "ConflictException")
        if dice == 7:
            raise Refusal(400, "ProvisionedThroughputExceededException")
        if dice == 8:
            time.sleep(0.2)

    def check_signature(self, method, path, headers, body):
        parts = dict(word.split("=", 1) for word in
                     headers.get("Authorization", "").replace(",", "").split()[1:])
        if not parts:
            raise Refusal(403, "MissingAuthenticationTokenException", "Missing token")
        _, day, region, service, _ = parts["Credential"].rsplit("/", 4)
        stamp = headers["X-Amz-Date"]
        at = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
        age = self.now() - at.replace(tzinfo=datetime.timezone.utc).timestamp()
        if abs(age) > 300:
            raise Refusal(403, "InvalidSignatureException",
                          "Signature expired: " + stamp if age > 0 else
                          "Signature not yet current: " + stamp)
        if self.token is not None and headers.get("X-Amz-Security-Token") != self.token:
            raise Refusal(403, "ExpiredTokenException", "The security token is expired")
        access = parts["Credential"].split("/")[0]
        if access != self.keys[0]:
            raise Refusal(403, "UnrecognizedClientException", "The security token is invalid")
        request = AWSRequest(method=method, url=f"https://{headers['Host']}{path}", data=body)
        for name in parts["SignedHeaders"].split(";"):
            if name != "host":
                request.headers[name] = headers[name]
        request.context["timestamp"] = stamp
        signer = self.signer(Credentials(*self.keys), service, region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        unsigned = {name.lower() for name in headers} - NOT_SIGNED - \
            set(parts["SignedHeaders"].split(";"))
        if (signer.signature(text, request) != parts["Signature"] or region != self.region
                or day != stamp[:8] or unsigned):
            self.problems.append((path, dict(headers)))
            raise Refusal(403, "InvalidSignatureException", "The request signature we calculated "
                          "does not match the signature you provided")

    def provide(self, headers):
        """The IoT credential provider; the handshake has checked the certificate."""
        if headers.get("x-amzn-iot-thingname") != "borssele-1":
            raise Refusal(403, "AccessDeniedException", "no such thing")
        with self.lock:
            self.provided += 1
            self.token = f"token-{self.provided}"
        until = datetime.datetime.utcfromtimestamp(self.now() + self.life_s)
        return {"credentials": {"accessKeyId": self.keys[0], "secretAccessKey": self.keys[1],
                                "sessionToken": self.token,
                                "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}}

    # -- what only describes --

    def describe(self, operation, request):
        """As the models have it; `resources` names what exists, by the request's members."""
        name = tuple(value for value in request.values() if isinstance(value, str))
        if self.resources is not None and name not in self.resources:
            raise Refusal(400, "ResourceNotFoundException", "Requested resource not found")
        if operation.startswith("Timestream"):
            return {"Table": {"TableName": name[-1], "DatabaseName": name[0],
                              "TableStatus": "ACTIVE",
                              "RetentionProperties": {"MemoryStoreRetentionPeriodInHours": 6,
                                                      "MagneticStoreRetentionPeriodInDays": 73000},
                              "MagneticStoreWriteProperties": {
                                  "EnableMagneticStoreWrites": self.takes_late}}}
        if operation.startswith("DynamoDB"):
            return {"Table": {"TableName": name[0], "TableStatus": "ACTIVE", "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "ts", "KeyType": "RANGE"}], "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "ts", "AttributeType": self.sort_type}]}}
        if operation.startswith("Kinesis"):
            return {"StreamDescriptionSummary": {"StreamName": name[0], "StreamStatus": "ACTIVE",
                                                 "OpenShardCount": 2}}
        return {"Attributes": {"ApproximateNumberOfMessages": str(len(self.sqs))}}

    # -- Timestream --

    def describe_endpoints(self, _request):
        return {"Endpoints": [{"Address": self.advertised,
                               "CachePeriodInMinutes": self.cache_minutes}]}

    def write_records(self, request):
        common, records = request.get("CommonAttributes", {}), request["Records"]
        if not 1 <= len(records) <= 100:
            raise Refusal(400, "ValidationException", "1 to 100 records")
        rejected = []
        for index, record in enumerate(records):
            names = [one["Name"] for one in record.get("Dimensions", [])]
            if set(names) & {one["Name"] for one in common.get("Dimensions", [])}:
                raise Refusal(400, "ValidationException", "a dimension is given twice")
            whole = dict(common, **record)
            dimensions = tuple(sorted((one["Name"], one["Value"]) for one in
                                      common.get("Dimensions", []) + record["Dimensions"]))
            values = self.check_record(whole, dimensions)
            why = self.refuse(dict(dimensions, **values))
            known = self.timestream.get((dimensions, whole["Time"], whole["MeasureName"]))
            if why is not None:
                rejected.append({"RecordIndex": index, "Reason": why})
            elif known is not None and known != values:
                rejected.append({"RecordIndex": index, "ExistingVersion": 1,
                                 "Reason": "a record with another value has this version"})
            else:
                self.timestream[dimensions, whole["Time"], whole["MeasureName"]] = values
        if rejected:
            raise Refusal(419, "RejectedRecordsException", "One or more records have been rejected",
                          RejectedRecords=rejected)
        return {"RecordsIngested": {"Total": len(records), "MemoryStore": len(records),
                                    "MagneticStore": 0}}

    @staticmethod
    def check_record(record, dimensions):
        """The values of a record by name; the model's types and limits are held to."""
        measures = record["MeasureValues"]
        size = sum(len(word) for pair in dimensions for word in pair) + len(record["Time"])
        size += sum(len(one["Name"]) + (8 if one["Type"] == "DOUBLE" else len(one["Value"]))
                    for one in measures)
        names = [one["Name"] for one in measures]
        columns = {name for name, _ in dimensions} | {"time", "measure_name"}
        good = (record["MeasureValueType"] == "MULTI" and record["TimeUnit"] == "NANOSECONDS"
                and record["Version"] == 1 and isinstance(record["Time"], str)
                and record["Time"].isdigit() and 1 <= len(measures) <= 256 and size <= 2048
                and len(set(names)) == len(names) and not columns & set(names)
                and all(one["Type"] in ("DOUBLE", "BIGINT", "VARCHAR", "BOOLEAN")
                        and isinstance(one["Value"], str) and 1 <= len(one["Value"]) <= 2048
                        for one in measures)
                and all(one["Value"] in ("true", "false") for one in measures
                        if one["Type"] == "BOOLEAN")
                and all(float(one["Value"]) is not None for one in measures
                        if one["Type"] in ("DOUBLE", "BIGINT"))
                and all(len(name) <= 60 and value for name, value in dimensions))
        if not good:
            raise Refusal(400, "ValidationException", f"not as the model has it, {size} bytes")
        return {one["Name"]: one["Value"] for one in measures}

    # -- DynamoDB --

    def batch_write_item(self, request):
        unprocessed = {}
        if sum(len(puts) for puts in request["RequestItems"].values()) > 25:
            raise Refusal(400, "ValidationException", "Too many items requested")
        for table, puts in request["RequestItems"].items():
            keys = [(put["PutRequest"]["Item"]["pk"]["S"], put["PutRequest"]["Item"]["ts"]["N"])
                    for put in puts]
            if len(set(keys)) != len(keys):
                raise Refusal(400, "ValidationException",
                              "Provided list of item keys contains duplicates")
            for key, put in zip(keys, puts):
                item = put["PutRequest"]["Item"]
                if self.refuse(item) is not None:
                    raise Refusal(400, "ValidationException", self.refuse(item))
                if self.wild and self.random.randrange(10) == 0:
                    unprocessed.setdefault(table, []).append(put)
                else:
                    self.dynamodb[key] = item
        return {"UnprocessedItems": unprocessed}

    def ask_tables(self, operation, body):
        try:
            return self.tables.answer(operation, json.loads(body))
        except Invalid as error:
            raise Refusal(400, "ValidationException", str(error)) from error
        except KeyError as error:
            raise Refusal(400, error.args[0]) from error

    # -- Kinesis --

    def put_records(self, request):
        if not 1 <= len(request["Records"]) <= 500:
            raise Refusal(400, "ValidationException", "1 to 500 records")
        results, failed = [], 0
        for record in request["Records"]:
            if not 1 <= len(record["PartitionKey"]) <= 256:
                raise Refusal(400, "ValidationException", "PartitionKey")
            if self.wild and self.random.randrange(10) == 0:
                failed += 1
                kind = self.random.choice(["ProvisionedThroughputExceededException",
                                           "InternalFailure"])
                results.append({"ErrorCode": kind, "ErrorMessage": "later"})
            else:
                self.kinesis.append((request["StreamName"], record))
                results.append({"SequenceNumber": str(len(self.kinesis)), "ShardId": "shard-0"})
        return {"FailedRecordCount": failed, "Records": results}

    # -- SQS --

    def send_message_batch(self, request):
        entries = request["Entries"]
        if not 1 <= len(entries) <= 10:
            raise Refusal(400, "TooManyEntriesInBatchRequest", "1 to 10 entries")
        if sum(len(one["MessageBody"].encode()) for one in entries) > 262144:
            raise Refusal(400, "BatchRequestTooLong", "more than 262144 bytes")
        if len({one["Id"] for one in entries}) != len(entries):
            raise Refusal(400, "BatchEntryIdsNotDistinct", "Ids")
        good, failed = [], []
        for one in entries:
            why = self.refuse(json.loads(one["MessageBody"]))
            if why is not None:
                failed.append({"Id": one["Id"], "SenderFault": True, "Code": "InvalidMessage",
                               "Message": why})
            elif self.wild and self.random.randrange(10) == 0:
                failed.append({"Id": one["Id"], "SenderFault": False, "Code": "InternalError"})
            else:
                self.sqs.append(json.loads(one["MessageBody"]))
                good.append({"Id": one["Id"], "MessageId": str(len(self.sqs)),
                             "MD5OfMessageBody": "0"})
        return {key: value for key, value in (("Successful", good), ("Failed", failed)) if value}


def make_server(fake, port, context):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            whole = self.command == "GET" or "Content-Length" in self.headers
            if not whole or len(body) < length:  # the request was cut off on the way
                self.close_connection = True
                return
            status, headers, text = fake.answer(self.command, self.path, self.headers, body)
            reply = text.encode()
            self.send_response_only(status)
            self.send_header("Date", email.utils.formatdate(fake.now(), usegmt=True))
            headers = dict({"Content-Type": "application/x-amz-json-1.0"}, **headers)
            for name, value in headers.items():
                self.send_header(name, value)
            torn = fake.wild and fake.random.randrange(40) == 0
            self.send_header("Content-Length", str(len(reply) + (10 if torn else 0)))
            self.end_headers()
            self.wfile.write(reply)
            if torn:
                self.close_connection = True

        do_GET = do_PUT = do_POST

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def get_request(self):
            one, address = super().get_request()
            if context is not None:
                one = context.wrap_socket(one, server_side=True, do_handshake_on_connect=False)
            return one, address

        def handle_error(self, request, client_address):
            pass  # cut connections are what the tests are about

    return Server(("127.0.0.1", port), Handler)


def topic_of(path):
    return urllib.parse.unquote(path.split("?")[0][len("/topics/"):])
