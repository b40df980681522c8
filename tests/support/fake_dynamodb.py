"""DynamoDB for the stand-in of AWS: tables with their keys, as the service's model has them. It
throttles, leaves items unprocessed and refuses what the service refuses."""
import collections
import re
import threading
from decimal import Decimal


class Invalid(Exception):
    """What the service answers with a ValidationException."""


class Dynamo:
    """tables: name -> (partition key, sort key or None). `dice` is called for every item of a
    batch; true leaves it unprocessed. `changed`: keys whose item another one has overwritten."""

    def __init__(self, tables):
        self.keys, self.lock = dict(tables), threading.RLock()
        self.items = {name: {} for name in tables}
        self.dice = lambda: False
        self.writes, self.changed, self.unprocessed = collections.Counter(), [], 0
        self.operations = {"BatchWriteItem": self.batch_write_item, "PutItem": self.put_item,
                           "BatchGetItem": self.batch_get_item, "GetItem": self.get_item,
                           "Query": self.query, "Scan": self.scan, "DeleteItem": self.delete_item}

    def answer(self, operation, request):
        with self.lock:
            return self.operations[operation](request)

    # -- keys and values --

    def key_of(self, table, item, whole=False):
        """The item's place in the table; `whole`: it must have nothing but its keys."""
        if table not in self.keys:
            raise Invalid("Requested resource not found")
        hash_key, range_key = self.keys[table]
        names = {hash_key} | ({range_key} if range_key else set())
        if not names <= set(item) or (whole and names != set(item)):
            raise Invalid("The provided key element does not match the schema")
        if not 1 <= len(item[hash_key]["S"].encode()) <= 2048:
            raise Invalid("One or more parameter values were invalid: size of hashkey")
        return (item[hash_key]["S"], number(item[range_key]["N"]) if range_key else None)

    def check(self, item):
        if len(str(item)) > 500 * 1024:
            raise Invalid("Item size has exceeded the maximum allowed size")
        for value in item.values():
            if set(value) == {"N"}:
                number(value["N"])
            elif set(value) not in ({"S"}, {"BOOL"}, {"NULL"}):
                raise Invalid("Supplied AttributeValue is empty or unknown")

    def distinct(self, keys):
        if len(set(keys)) != len(keys):
            raise Invalid("Provided list of item keys contains duplicates")

    # -- operations --

    def batch_write_item(self, request):
        left = {}
        if not 1 <= sum(map(len, request["RequestItems"].values())) <= 25:
            raise Invalid("Too many items requested for the BatchWriteItem call")
        for table, puts in request["RequestItems"].items():
            keys = [self.key_of(table, put["PutRequest"]["Item"]) for put in puts]
            self.distinct(keys)
            for put in puts:
                self.check(put["PutRequest"]["Item"])
            for key, put in zip(keys, puts):
                if self.dice():
                    left.setdefault(table, []).append(put)
                    self.unprocessed += 1
                else:
                    self.put(table, key, put["PutRequest"]["Item"])
        return {"UnprocessedItems": left}

    def put(self, table, key, item):
        """A number comes back without zeros behind it, whatever way it was written."""
        item = {name: {kind: f"{number(text).normalize():f}" if kind == "N" else text
                       for kind, text in value.items()} for name, value in item.items()}
        if self.items[table].get(key, item) != item:
            self.changed.append(key)
        self.items[table][key] = item
        self.writes[table] += 1

    def put_item(self, request):
        table, item = request["TableName"], request["Item"]
        key = self.key_of(table, item)
        self.check(item)
        condition = request.get("ConditionExpression")
        if condition is not None and not condition.startswith("attribute_not_exists("):
            raise Invalid("ConditionExpression")
        if condition is not None and key in self.items[table]:
            raise KeyError("ConditionalCheckFailedException")
        self.put(table, key, item)
        return {}

    def batch_get_item(self, request):
        found, left = {}, {}
        if not 1 <= sum(len(one["Keys"]) for one in request["RequestItems"].values()) <= 100:
            raise Invalid("Too many items requested for the BatchGetItem call")
        for table, one in request["RequestItems"].items():
            keys = [self.key_of(table, key, whole=True) for key in one["Keys"]]
            self.distinct(keys)
            names = projected(one)
            for place, key in zip(keys, one["Keys"]):
                item = self.items[table].get(place)
                if self.dice():
                    left.setdefault(table, dict(one, Keys=[]))["Keys"].append(key)
                elif item is not None:
                    found.setdefault(table, []).append(
                        {name: value for name, value in item.items()
                         if names is None or name in names})
        return {"Responses": found, "UnprocessedKeys": left}

    def get_item(self, request):
        key = self.key_of(request["TableName"], request["Key"], whole=True)
        item = self.items[request["TableName"]].get(key)
        return {} if item is None else {"Item": item}

    def delete_item(self, request):
        key = self.key_of(request["TableName"], request["Key"], whole=True)
        self.items[request["TableName"]].pop(key, None)
        return {}

    def scan(self, request):
        return {"Items": list(self.items[request["TableName"]].values())}

    def query(self, request):
        """Of one partition, between two sort keys; pages of at most 300, as 1 MB would be."""
        hash_key, range_key = self.keys[request["TableName"]]
        form = rf"{hash_key} = (:\w+) AND {range_key} BETWEEN (:\w+) AND (:\w+)"
        names = re.fullmatch(form, request["KeyConditionExpression"]).groups()
        given = request["ExpressionAttributeValues"]
        partition, low, high = given[names[0]]["S"], *(number(given[name]["N"])
                                                       for name in names[1:])
        if low > high:
            raise Invalid("The BETWEEN operator requires upper bound to be greater")
        rows = sorted((key, item) for key, item in self.items[request["TableName"]].items()
                      if key[0] == partition and low <= key[1] <= high)
        if not request.get("ScanIndexForward", True):
            rows.reverse()
        start = request.get("ExclusiveStartKey")
        if start is not None:
            after = number(start[range_key]["N"])
            forward = request.get("ScanIndexForward", True)
            rows = [row for row in rows if (row[0][1] > after if forward else row[0][1] < after)]
        page = rows[:min(request.get("Limit", 300), 300)]
        reply = {"Items": [item for _, item in page], "Count": len(page)}
        if len(page) < len(rows):
            last = page[-1][1]
            reply["LastEvaluatedKey"] = {name: last[name] for name in (hash_key, range_key)}
        return reply


def number(text):
    value = Decimal(text)
    if not value.is_finite() or len(value.normalize().as_tuple().digits) > 38:
        raise Invalid("Attempting to store more than 38 significant digits in a Number")
    if value and not Decimal("1E-130") <= abs(value) < Decimal("1E126"):
        raise Invalid("Number overflow")
    return value


def projected(request):
    """The names that a ProjectionExpression leaves; None: all."""
    if "ProjectionExpression" not in request:
        return None
    aliases = request.get("ExpressionAttributeNames", {})
    names = [word.strip() for word in request["ProjectionExpression"].split(",")]
    if "value" in names:
        raise Invalid("Attribute name is a reserved keyword; reserved keyword: value")
    return {aliases.get(name, name) for name in names}
