"""What receives a gateway's readings: the HTTP API (POST and GET /v1/readings), a Kinesis stream
and the rule of an IoT topic, all of them into one store.

POST answers {"accepted":N} only when every write is confirmed; what is refused for good is listed
in `rejected`. Everything else that goes wrong is an error status, and the gateway sends the batch
again: what was written already is then a repeat."""
import base64
import gzip
import json
import os
import time
from dataclasses import dataclass
from decimal import Decimal

import boto3
from botocore.config import Config

import readings
from readings import TIME_MAX, Refused
from table import LIMIT_MAX, Table
from timestream import Timestream

GZIP_FROM = 1024          # bytes of an answer that are worth it
CONTEXT = {}              # what outlives one invocation: clients


@dataclass
class Question:
    device: str = ""
    point: str = ""
    from_ms: int = 0
    to_ms: int = TIME_MAX
    limit: int = 1000
    descending: bool = False
    next: str = None


def store():
    if "store" not in CONTEXT:
        config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=3,
                        read_timeout=8)
        if os.environ.get("TARGET") == "timestream":
            CONTEXT["store"] = Timestream(boto3.client("timestream-write", config=config),
                                          boto3.client("timestream-query", config=config),
                                          os.environ["DATABASE"], os.environ["TABLE"])
        else:
            CONTEXT["store"] = Table(boto3.client("dynamodb", config=config), os.environ["TABLE"],
                                     int(os.environ.get("KEEP_DAYS", "0")) * 86400)
    return CONTEXT["store"]


def handle(event, context):
    def time_left():
        return context.get_remaining_time_in_millis() / 1000

    if "data" in event:
        return handle_message(event, time_left)
    if "Records" in event:
        return handle_stream(event["Records"], time_left)
    return handle_http(event, time_left)


# -- HTTP --

def handle_http(event, time_left):
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    try:
        status, body, more = 200, route(event, headers, time_left), {}
    except Refused as refused:
        status, more = refused.status, {}
        body = {"error": {"code": refused.code, "message": refused.words}}
        if refused.retry_after_s is not None:
            more["retry-after"] = str(refused.retry_after_s)
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, default=number)
    reply = {"statusCode": status, "headers": dict(more, **{"content-type": "application/json"}),
             "body": text, "isBase64Encoded": False}
    if len(text) >= GZIP_FROM and "gzip" in headers.get("accept-encoding", ""):
        reply["headers"].update({"content-encoding": "gzip", "vary": "accept-encoding"})
        reply["body"] = base64.b64encode(gzip.compress(text.encode(), 6)).decode()
        reply["isBase64Encoded"] = True
    return reply


def number(value):
    """For what json cannot write by itself: decimals of the table."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value))


def route(event, headers, time_left):
    http = event["requestContext"]["http"]
    known = event["requestContext"].get("authorizer", {}).get("lambda", {})
    needed = {"POST": "write", "GET": "read"}.get(http["method"])
    if event.get("rawPath", "").rstrip("/") != "/v1/readings" or needed is None:
        raise Refused(404, "not_found", "no such resource")
    if known.get("right") != needed or not known.get("user"):
        raise Refused(403, "forbidden", "this token does not give that right")
    if needed == "write":
        return post(known["user"], readings.decode_body(event, headers), time_left)
    return get(known["user"], event.get("queryStringParameters") or {}, time_left)


def post(user, text, time_left):
    records = readings.parse_batch(readings.load(text))
    keep(user, records, time_left)
    rejected = [{"seq": record.seq, "device": record.device, "reason": record.why}
                for record in records if record.why]
    reply = {"accepted": len(records) - len(rejected)}
    return dict(reply, rejected=rejected) if rejected else reply


def keep(user, records, time_left):
    began = time.monotonic()
    repeats, conflicts = store().put(user, records, time_left)
    rejected = sum(bool(record.why) for record in records)
    report(Readings=sum(len(record.values) for record in records if not record.why),
           Repeats=repeats, Conflicts=conflicts, Rejected=rejected,
           Milliseconds=round((time.monotonic() - began) * 1000))


def report(**counts):
    """One line of the embedded metric format: CloudWatch makes metrics of it."""
    metrics = [{"Name": name, "Unit": "Milliseconds" if name == "Milliseconds" else "Count"}
               for name in counts]
    print(json.dumps(dict(counts, _aws={
        "Timestamp": int(time.time() * 1000),
        "CloudWatchMetrics": [{"Namespace": os.environ.get("METRICS", "Windrow"),
                               "Dimensions": [[]], "Metrics": metrics}]})), flush=True)


def get(user, asked, time_left):
    question = Question(device=asked.get("device", ""), point=asked.get("point", ""))
    try:
        question.from_ms = readings.parse_time(asked.get("from", "0"))
        question.to_ms = readings.parse_time(asked.get("to", str(TIME_MAX)))
        question.limit = int(asked.get("limit", "1000"))
        question.next = str(Decimal(asked["next"])) if "next" in asked else None
    except (ValueError, ArithmeticError) as error:
        raise Refused(400, "bad_request", "from, to, limit or next cannot be read") from error
    question.descending = asked.get("order", "asc") == "desc"
    unknown = set(asked) - {"device", "point", "from", "to", "limit", "order", "next"}
    if unknown or asked.get("order", "asc") not in ("asc", "desc"):
        raise Refused(400, "bad_request",
                      "the parameters are device, point, from, to, limit, order and next")
    if not 1 <= question.limit <= LIMIT_MAX or max(question.from_ms, question.to_ms) > TIME_MAX \
            or min(question.from_ms, question.to_ms) < 0:
        raise Refused(400, "bad_request", f"limit is 1 to {LIMIT_MAX}, a time after 1970")
    rows, more = store().query(user, question, time_left)
    return {"readings": rows} if more is None else {"readings": rows, "next": more}


# -- what comes without a token: Kinesis, and a topic's rule --

def handle_stream(records, time_left):
    """All or, where that fails, from the first on once more: what was written is a repeat then."""
    try:
        take([base64.b64decode(one["kinesis"]["data"]).decode("utf-8", "replace")
              for one in records], time_left)
    except Exception as error:  # whatever it is, nothing may be passed over
        print(f"stream: {type(error).__name__}: {error}", flush=True)
        return {"batchItemFailures": [
            {"itemIdentifier": records[0]["kinesis"]["sequenceNumber"]}]}
    return {"batchItemFailures": []}


def handle_message(event, time_left):
    """Raises where it could not be kept: Lambda then tries again, and in the end puts it aside."""
    take([json.dumps(event)], time_left)


def unwrap(body):
    """The topic's rule sends {"data": BASE64}: what a device publishes never is the event itself,
    or it could pass for API Gateway and name any user."""
    if isinstance(body, dict) and set(body) == {"data"} and isinstance(body["data"], str):
        try:
            return readings.load(base64.b64decode(body["data"]).decode())
        except ValueError as error:
            raise Refused(400, "bad_request", "no text in base64") from error
    return body


def take(messages, time_left):
    """Keeps messages; nobody waits for an answer, so what is refused goes to a queue."""
    parsed, unreadable = [], []
    for text in messages:
        try:
            parsed.append((text, readings.parse_one(unwrap(readings.load(text)))))
        except Refused as refused:
            unreadable.append((text, refused.words))
    keep(os.environ["STREAM_USER"], [record for _, some in parsed for record in some], time_left)
    for text, why in unreadable:
        set_aside(text, why)
    for text, some in parsed:
        refused = [f"{record.device} {record.seq}: {record.why}" for record in some if record.why]
        if refused:
            set_aside(text, "; ".join(refused)[:1000])


def set_aside(text, why):
    if "queue" not in CONTEXT:
        CONTEXT["queue"] = boto3.client("sqs")
    body = json.dumps({"why": why, "message": text[:200000]})
    CONTEXT["queue"].send_message(QueueUrl=os.environ["REFUSED_QUEUE"], MessageBody=body)
    report(SetAside=1)
