"""Readings in Timestream for LiveAnalytics, for those who have it: multi-measure records as the
uplink type `timestream` writes them, with the dimension `user` more. The service keeps a record
once: the same again is no change, another value under its identity and version is refused."""
import re
from decimal import Decimal

from botocore.exceptions import ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

import readings
from readings import Refused
from table import BUSY, CONFLICT, TOO_SLOW, chunks, pause, plain

RECORDS_MAX, MEASURES_MAX = 100, 255  # of a request; of a record beside seq
RECORD_BYTES = 1950                   # 2 KB of names and values, some for the time
TEXT_MAX = 1024                       # what surely fits beside the dimensions
COLUMNS = {"user", "gateway", "store", "stream", "device", "window_s", "seq", "time",
           "measure_name", "measure_value"}
BUSY_HERE = BUSY | {"InternalServerException"}


def nanoseconds(record):
    """The seq tells two scans of one millisecond apart."""
    return record.time_ms * 1000000 + record.seq % 1000000


def free_name(name, names):
    """A column that is neither one of ours nor another point's."""
    while name in COLUMNS or name in names:
        name += "_"
    return name


def column_of(point, names):
    return free_name(point, names) if point in COLUMNS else point


def measures_of(record):
    """[(name, type, text)] of a record's readings."""
    result, names = [], set(record.values)
    for point, value in record.values.items():
        quality = record.quality_of(point)
        if value is None:
            quality = "bad:invalid" if quality == "good" else quality
        elif isinstance(value, bool):
            result.append((column_of(point, names), "BOOLEAN", str(value).lower()))
        elif isinstance(value, str):
            result.append((column_of(point, names), "VARCHAR", value or " "))
        else:
            result.append((column_of(point, names), "DOUBLE", str(value)))
        if quality != "good":
            result.append((free_name(point + "_quality", names), "VARCHAR", quality))
    return result


def parts_of(record, user):
    """The records of the service that one of ours makes: full where 255 measures or 2 KB are."""
    dimensions = {"user": user, "gateway": record.gateway, "store": record.store,
                  "stream": record.stream, "device": record.device}
    if record.window_s:
        dimensions["window_s"] = str(record.window_s)
    used = sum(len(name) + len(value.encode()) for name, value in dimensions.items())
    parts, size = [[]], used
    for name, kind, text in measures_of(record):
        more = len(name.encode()) + (len(text.encode()) if kind == "VARCHAR" else 8)
        if parts[-1] and (len(parts[-1]) == MEASURES_MAX or size + more > RECORD_BYTES):
            parts.append([])
            size = used
        parts[-1].append({"Name": name, "Type": kind, "Value": text})
        size += more
    return [{"Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
             "MeasureName": "readings" if i == 0 else f"readings.{i + 1}",
             "Time": str(nanoseconds(record)),
             "MeasureValues": [{"Name": "seq", "Type": "BIGINT", "Value": str(record.seq)}] + part}
            for i, part in enumerate(parts)]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def column(name):
    return '"' + name.replace('"', '""') + '"'


class Timestream:
    def __init__(self, write, query, database, table):
        self.write_client, self.query_client = write, query
        self.database, self.table = database, table

    def put(self, user, records, time_left):
        """As Table.put(); the service does not say which were repeats."""
        for record in records:
            if any(isinstance(value, str) and len(value.encode()) > TEXT_MAX
                   for value in record.values.values()):
                record.why = "a text value is too long for Timestream"
        whole = [(record, part) for record in records if not record.why
                 for part in parts_of(record, user)]
        for some in chunks(whole, RECORDS_MAX):
            for entry in self.write(some, time_left):
                record = some[entry["RecordIndex"]][0]
                record.why = CONFLICT if "ExistingVersion" in entry else \
                    entry.get("Reason", "rejected without a reason")[:160]
        return 0, sum(record.why == CONFLICT for record in records)

    def write(self, some, time_left):
        """The entries of RejectedRecords; all others are written."""
        def ask():
            self.write_client.write_records(
                DatabaseName=self.database, TableName=self.table,
                CommonAttributes={"MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS",
                                  "Version": 1},
                Records=[part for _, part in some])

        try:
            self.again(ask, time_left)
        except ClientError as error:
            if error.response["Error"]["Code"] != "RejectedRecordsException":
                raise
            return error.response["RejectedRecords"]
        return []

    @staticmethod
    def again(ask, time_left):
        for attempt in range(1000):
            try:
                return ask()
            except ClientError as error:
                if error.response["Error"]["Code"] not in BUSY_HERE:
                    raise
            except (HTTPClientError, ResponseParserError):
                pass
            pause(attempt, time_left)
        raise Refused(503, "busy", TOO_SLOW, 1)

    def query(self, user, question, time_left):
        if not question.device or not question.point:
            raise Refused(400, "bad_request", "device and point are needed")
        value = column(column_of(question.point, ()))
        since, until = question.from_ms * 1000000, question.to_ms * 1000000 - 1
        if question.next is not None and question.descending:
            until = int(question.next) - 1
        elif question.next is not None:
            since = int(question.next) + 1
        text = (f"SELECT to_nanoseconds(time) AS at, gateway, store, stream, seq, {value} AS value "
                f"FROM {column(self.database)}.{column(self.table)} "
                f"WHERE {column('user')} = {quoted(user)} AND device = {quoted(question.device)} "
                f"AND time BETWEEN from_nanoseconds({since}) AND from_nanoseconds({until}) "
                f"AND {value} IS NOT NULL "
                f"ORDER BY time {'DESC' if question.descending else 'ASC'} "
                f"LIMIT {question.limit}")
        rows = self.rows(text, question, time_left)
        last = rows[-1].pop("at") if len(rows) == question.limit else None
        for row in rows:
            row.pop("at", None)
        return rows, last

    def rows(self, text, question, time_left):
        rows, more = [], {}
        while True:
            try:
                reply = self.again(lambda: self.query_client.query(QueryString=text, **more),
                                   time_left)
            except ClientError as error:
                words = error.response["Error"].get("Message", "")
                if re.search(r"[Cc]olumn .*(does not exist|cannot be resolved)", words):
                    return []  # nobody has written that point yet
                raise
            columns = [(one["Name"], one["Type"].get("ScalarType")) for one in reply["ColumnInfo"]]
            rows += [self.row(columns, one["Data"], question) for one in reply["Rows"]]
            if "NextToken" not in reply:
                return rows
            more = {"NextToken": reply["NextToken"]}

    @staticmethod
    def row(columns, data, question):
        text = {name: one.get("ScalarValue") for (name, _), one in zip(columns, data)}
        kind, value = dict(columns)["value"], text["value"]
        if kind in ("DOUBLE", "BIGINT", "INTEGER"):
            value = plain({"N": str(Decimal(value))})
        elif kind == "BOOLEAN":
            value = value == "true"
        return {"gateway": text["gateway"], "store": text["store"], "stream": text["stream"],
                "device": question.device, "seq": int(text["seq"]), "point": question.point,
                "time": readings.time_text(int(text["at"]) // 1000000), "value": value,
                "at": text["at"]}
