"""Readings in DynamoDB: one item each, the same that the uplink type `dynamodb` writes.

Partition key pk "USER#DEVICE.POINT"; sort key ts, seconds with decimals: three of the
milliseconds, then twelve of the seq, so that two scans of one millisecond are two items and a
repeat is the same one. What is there already is read before anything is written: a repeat costs no
write, another value under the same identity is refused, and nothing is ever overwritten."""
import random
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import ROUND_FLOOR, Decimal, localcontext

from botocore.exceptions import ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

import readings
from readings import Refused

GET_MAX, WRITE_MAX = 100, 25     # the service's own bounds on a request
PARALLEL = 8
KEY_MAX = 2048                   # bytes of a partition key
ITEM_MAX = 400 * 1024
REPLY_MAX = 4 * 1024 * 1024      # bytes of a query's answer; Lambda passes on 6 MB
LIMIT_MAX = 10000
SEQ_PLACES = 12
BUSY = {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded",
        "InternalServerError", "ServiceUnavailable", "LimitExceededException",
        "TransactionInProgressException", "RequestTimeout"}
CONFLICT = "another value is held under this identity"
TOO_SLOW = "not all could be written in time: once more, please"


def sort_key(time_ms, seq):
    """As text: 1769855400.250000000018231."""
    with localcontext() as context:
        context.prec = 38
        digits = Decimal(time_ms).scaleb(-3) + Decimal(seq % 10 ** SEQ_PLACES).scaleb(
            -3 - SEQ_PLACES)
        return f"{digits.normalize():f}"


def time_of(sort):
    return int((Decimal(sort) * 1000).to_integral_value(ROUND_FLOOR))


def partition_key(user, device, point):
    return f"{user}#{device}.{point}"


def attribute(value):
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    size = abs(Decimal(value))
    fits = size == 0 or Decimal("1E-129") < size < Decimal("1E125")
    digits = len(size.as_tuple().digits)
    return {"N" if fits and digits <= 38 else "S": str(value)}


def plain(held):
    """The value that an attribute means."""
    kind, value = next(iter(held.items()))
    if kind == "N":
        number = Decimal(value)
        return int(number) if number == number.to_integral_value() else number
    return None if kind == "NULL" else value


def chunks(whole, size):
    return [whole[i:i + size] for i in range(0, len(whole), size)]


class Table:
    """`time_left()` tells how many seconds the request may still take."""

    def __init__(self, client, name, expire_after_s=0):
        self.client, self.name, self.expire_after_s = client, name, expire_after_s

    # -- writing --

    def put(self, user, records, time_left):
        """Returns (readings that were there already, records refused for another value) and sets
        `why` of all that is refused; when it returns, the rest is in the table. Refused 503: not
        all was confirmed in time."""
        offered, repeats = {}, 0  # key: (item, the records that it is of)
        for record in records:
            for key, item in () if record.why else self.items(user, record):
                known, owners = offered.setdefault(key, (item, []))
                owners.append(record)
                repeats += known is not item
                if not self.same(known, item):
                    record.why = CONFLICT
        held = self.fetch(list(offered), time_left)
        for key, item in held.items():
            new, owners = offered[key]
            repeats += 1
            if not self.same(item, new):
                for record in owners:
                    record.why = CONFLICT
        self.write([item for key, (item, owners) in offered.items()
                    if key not in held and not all(record.why for record in owners)], time_left)
        return repeats, sum(record.why == CONFLICT for record in records)

    @staticmethod
    def same(one, other):
        return readings.same_value(plain(one["value"]), plain(other["value"]))

    def items(self, user, record):
        """(key, item) of each reading; none, and `why` set, when one of them is too large."""
        sort, result = sort_key(record.time_ms, record.seq), []
        for point, value in record.values.items():
            pk = partition_key(user, record.device, point)
            item = {"pk": {"S": pk}, "ts": {"N": sort}, "value": attribute(value),
                    "gateway": {"S": record.gateway}, "store": {"S": record.store},
                    "stream": {"S": record.stream}, "seq": {"N": str(record.seq)}}
            if record.quality_of(point) != "good":
                item["quality"] = {"S": record.quality_of(point)}
            if record.window_s:
                item["window_s"] = {"N": str(record.window_s)}
            if self.expire_after_s:
                item["expires_at"] = {"N": str(record.time_ms // 1000 + self.expire_after_s)}
            if len(pk.encode()) > KEY_MAX or len(str(item)) > ITEM_MAX:
                record.why = "its names or values are too long"
                return []
            result.append(((pk, sort), item))
        return result

    def fetch(self, keys, time_left):
        """{key: item} of those that are there."""
        held = {}

        def one(part):
            wanted = [{"pk": {"S": pk}, "ts": {"N": ts}} for pk, ts in part]
            sorts = {(pk, Decimal(ts)): (pk, ts) for pk, ts in part}
            for attempt in range(1000):
                reply = self.ask(time_left, "batch_get_item", RequestItems={self.name: {
                    "Keys": wanted, "ConsistentRead": True,
                    "ProjectionExpression": "pk, ts, #value",
                    "ExpressionAttributeNames": {"#value": "value"}}})
                for item in reply.get("Responses", {}).get(self.name, []):
                    held[sorts[item["pk"]["S"], Decimal(item["ts"]["N"])]] = item
                wanted = reply.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
                if not wanted:
                    return
                pause(attempt, time_left)

        self.each(one, chunks(keys, GET_MAX))
        return held

    def write(self, items, time_left):
        def one(part):
            puts = [{"PutRequest": {"Item": item}} for item in part]
            for attempt in range(1000):
                reply = self.ask(time_left, "batch_write_item", RequestItems={self.name: puts})
                puts = reply.get("UnprocessedItems", {}).get(self.name, [])
                if not puts:
                    return
                pause(attempt, time_left)

        self.each(one, chunks(items, WRITE_MAX))

    @staticmethod
    def each(work, parts):
        """Some at a time; raises what the first of them raised, when all have ended."""
        if len(parts) == 1:
            work(parts[0])
        elif parts:
            with ThreadPoolExecutor(PARALLEL) as pool:
                for done in [pool.submit(work, part) for part in parts]:
                    done.result()

    def ask(self, time_left, operation, **request):
        """One call, repeated while the service is busy."""
        for attempt in range(1000):
            try:
                return getattr(self.client, operation)(**request)
            except ClientError as error:
                busy = error.response["Error"]["Code"] in BUSY or \
                    error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
                if not busy:
                    raise
            except (HTTPClientError, ResponseParserError):
                pass  # a connection that broke: whether it was done shows at the next attempt
            pause(attempt, time_left)
        raise Refused(503, "busy", TOO_SLOW, 1)

    # -- reading --

    def query(self, user, question, time_left):
        """The answer to readings of one device and point, with `next` where there are more."""
        if not question.device or not question.point:
            raise Refused(400, "bad_request", "device and point are needed")
        low = sort_key(question.from_ms, 0)
        high = sort_key(question.to_ms - 1, 10 ** SEQ_PLACES - 1)
        if Decimal(low) > Decimal(high):
            return [], None
        request = {"TableName": self.name, "ScanIndexForward": not question.descending,
                   "KeyConditionExpression": "pk = :pk AND ts BETWEEN :low AND :high",
                   "ExpressionAttributeValues": {
                       ":pk": {"S": partition_key(user, question.device, question.point)},
                       ":low": {"N": low}, ":high": {"N": high}}}
        rows, size, last = [], 0, question.next
        while len(rows) < question.limit and size < REPLY_MAX:
            if last is not None:
                request["ExclusiveStartKey"] = {
                    "pk": request["ExpressionAttributeValues"][":pk"], "ts": {"N": last}}
            request["Limit"] = question.limit - len(rows)
            reply = self.ask(time_left, "query", **request)
            for item in reply["Items"]:
                rows.append(self.row(question, item))
                size += 200 + len(str(item["value"]))
            last = reply.get("LastEvaluatedKey", {}).get("ts", {}).get("N")
            if last is None:
                break
        return rows, last

    @staticmethod
    def row(question, item):
        return {"gateway": item["gateway"]["S"], "store": item["store"]["S"],
                "stream": item["stream"]["S"], "device": question.device,
                "seq": int(item["seq"]["N"]), "point": question.point,
                "time": readings.time_text(time_of(item["ts"]["N"])),
                "value": plain(item["value"]),
                "quality": item.get("quality", {}).get("S", "good")}


def pause(attempt, time_left):
    """Full jitter; gives up rather than be cut off in the middle."""
    wait_s = random.uniform(0, min(2.0, 0.05 * 2 ** min(attempt, 6)))
    if time_left() - wait_s < 2:
        raise Refused(503, "busy", TOO_SLOW, 1)
    time.sleep(wait_s)
