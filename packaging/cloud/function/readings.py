"""The gateway's `format = batch`, and single records of it, as checked Python objects."""
import base64
import datetime
import json
import zlib
from dataclasses import dataclass, field
from decimal import Decimal

STREAMS = ("raw", "aggregate", "event")
DECODED_MAX = 32 * 1024 * 1024  # bytes of a body after decompression
NAME_MAX = 255                  # bytes of a gateway, store, device or point
RECORDS_MAX = 10000
READINGS_MAX = 4096             # of one record: the gateway's own bound on a scan
TEXT_MAX = 65536                # bytes of a text value
TIME_MAX = 253402300800000      # the year 10000
SEQ_MAX = 2 ** 63 - 1
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Refused(Exception):
    """A request that gets an error reply: status, code and words of it."""

    def __init__(self, status, code, words, retry_after_s=None):
        super().__init__(words)
        self.status, self.code, self.words = status, code, words
        self.retry_after_s = retry_after_s


@dataclass
class Record:
    """One scan. `why`: it cannot be kept, and this is the reason."""
    gateway: str
    store: str
    stream: str
    device: str
    seq: int
    time_ms: int = 0
    window_s: int = 0
    values: dict = field(default_factory=dict)
    quality: dict = field(default_factory=dict)
    why: str = ""

    def quality_of(self, point):
        return self.quality.get(point, "good")


def time_text(time_ms):
    at = EPOCH + datetime.timedelta(milliseconds=time_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def parse_time(text):
    """Milliseconds since 1970 of RFC 3339 text or of a number; ValueError."""
    if isinstance(text, str) and text.lstrip("-").isdigit():
        return int(text)
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, TypeError) as error:
        raise ValueError("no time") from error
    if at.tzinfo is None:
        raise ValueError("a time without its zone")
    return (at - EPOCH) // datetime.timedelta(milliseconds=1)


def decode_body(event, headers):
    """The text of an API Gateway event's body, decompressed within a bound. A refusal begins with
    the mend, because a gateway's status shows the first words only."""
    body = event.get("body") or ""
    data = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    if len(data) > DECODED_MAX:
        raise Refused(413, "too_large", "the body is too large")
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding == "gzip":
        data = gunzip(data)
    elif encoding != "identity":
        raise Refused(415, "encoding", f"compress = gzip or none: no {encoding[:20]} is "
                      "understood here")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(415, "encoding", "compress = none: what arrived is no UTF-8") from error


def gunzip(data):
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(data, DECODED_MAX)
    except zlib.error as error:
        raise Refused(415, "encoding", "compress = none: what arrived is no gzip") from error
    if unpacker.unconsumed_tail:
        raise Refused(413, "too_large", "the body is too large when decompressed")
    if not unpacker.eof:
        raise Refused(400, "bad_encoding", "the compressed body ends early")
    return text


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def load(text):
    """Numbers stay what they are: a float would not compare equal to what the table holds."""
    try:
        body = json.loads(text, parse_float=Decimal, parse_constant=refuse_constant)
        if "\\u" in text:  # halves of a character, which nobody could keep
            json.dumps(body, ensure_ascii=False, default=str).encode()
        return body
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_request", f"no JSON: {error}") from error


def is_name(text):
    return isinstance(text, str) and 0 < len(text.encode()) <= NAME_MAX


def is_whole(number, least):
    return isinstance(number, int) and not isinstance(number, bool) and least <= number <= SEQ_MAX


def parse_batch(body):
    """The records of {"gateway","store","stream","records":[...]}."""
    if not isinstance(body, dict) or not isinstance(body.get("records"), list):
        raise Refused(415, "format", "format = batch is what is taken here")
    gateway, store, stream = (body.get(name) for name in ("gateway", "store", "stream"))
    if not (is_name(gateway) and is_name(store) and stream in STREAMS):
        raise Refused(400, "bad_request", "gateway, store or stream is missing")
    if len(body["records"]) > RECORDS_MAX:
        raise Refused(413, "too_large", f"more than {RECORDS_MAX} records")
    return [parse_record(one, gateway, store, stream) for one in body["records"]]


def parse_one(body):
    """A message of a stream or topic: a batch, or one record that carries the batch's members."""
    if isinstance(body, dict) and "records" not in body:
        one = dict(body)
        for name, other in (("device", "deviceId"), ("time", "timestamp"), ("values", "readings")):
            if name not in one and other in one:
                one[name] = one[other]
        members = {name: body.get(name) for name in ("gateway", "store", "stream")}
        return parse_batch(dict(members, records=[one]))
    return parse_batch(body)


def parse_record(one, gateway, store, stream):
    """Without device and seq there would be nothing to reject it by: that costs the request."""
    if not (isinstance(one, dict) and is_name(one.get("device")) and is_whole(one.get("seq"), 1)):
        raise Refused(400, "bad_request", "a record without a device or a seq from 1")
    record = Record(gateway, store, stream, one["device"], one["seq"])
    values, quality, window_s = one.get("values"), one.get("quality", {}), one.get("window_s", 0)
    try:
        record.time_ms = parse_time(one.get("time"))
    except ValueError:
        record.time_ms = -1
    if not 0 <= record.time_ms <= TIME_MAX:
        record.why = "its time is none"
    if not isinstance(values, dict) or not 0 < len(values) <= READINGS_MAX:
        record.why = "it has no values, or too many"
    elif not all(is_name(point) for point in values):
        record.why = "a point's name is empty or too long"
    elif any(isinstance(value, (dict, list)) for value in values.values()):
        record.why = "a value is no plain value"
    elif any(isinstance(value, str) and len(value.encode()) > TEXT_MAX
             for value in values.values()):
        record.why = "a text value is too long"
    elif not (isinstance(quality, dict) and all(isinstance(q, str) for q in quality.values())):
        record.why = "its quality is none"
    elif not is_whole(window_s, 0):
        record.why = "its window_s is none"
    else:
        record.values, record.quality, record.window_s = values, quality, window_s
    return record


def same_value(one, other):
    """1, 1.0 and 1.00 are one value; true and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other
