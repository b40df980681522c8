"""Scans of one device with the very same time: rows of their own where rows are known by their
time, and the same rows again whatever way they are sent once more."""
import datetime
import http.client
import json

import pytest

from fake_aws import FakeAws
from influx_servers import InfluxDB
from process import PATIENCE_S, wait_for
from receivers import credentials
from site_parts import Gateway, UnixConnection

PUSHES = 7


def push(gateway, reading):
    connection = UnixConnection(gateway.path("run/windrow.sock"), PATIENCE_S)
    try:
        connection.request("POST", "/sensor", json.dumps(reading))
        return connection.getresponse().status
    except http.client.HTTPException:
        return 0
    finally:
        connection.close()


@pytest.fixture(name="deliver")
def make_deliver(tmp_path):
    """Delivers the pushes twice: in one batch, and one by one."""
    def deliver(**keys):
        gateway = Gateway(tmp_path).set("device mast", driver="http", mode="listen",
                                        point__count="json")
        for name, records in (("cloud", 100), ("again", 1)):
            gateway.set(f"uplink {name}", send="raw", batch_records=records,
                        batch_interval="300 ms", **keys)
        gateway.start()
        at = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=250000)
        for i in range(PUSHES):
            reading = {"location": "mast", "time": at.isoformat(), "count": i}
            wait_for(lambda: push(gateway, reading) == 200, 10, "a push is taken")
        for name in ("cloud", "again"):
            gateway.wait_delivered(PUSHES, 20, name)
        assert gateway.ledger()["dead"] == 0
        return int(at.timestamp() * 1000)

    return deliver


def test_influx(tmp_path, deliver):
    server = InfluxDB(tmp_path).start()
    server.create()
    at_ms = deliver(type="influx", url=server.url, version="v1", db="wind")
    rows = server.query("SELECT * FROM readings")
    assert [(row["time"], row["seq"], row["count"]) for row in rows] == \
        [(at_ms, i + 1, i) for i in range(PUSHES)]


@pytest.mark.parametrize("kind", ["timestream", "dynamodb"])
def test_aws(tmp_path, deliver, kind):
    aws = FakeAws()
    more = {"table": "readings", "database": "wind"} if kind == "timestream" else \
        {"table": "readings"}
    at_ms = deliver(type=kind, region=aws.region, endpoint=aws.url, **more,
                    credentials=credentials(tmp_path, *aws.keys))
    if kind == "timestream":
        seen = sorted((int(when) // 1000000, int(values["seq"]))
                      for (_, when, _), values in aws.timestream.items())
    else:
        seen = sorted((int(float(ts) * 1000), int(item["seq"]["N"]))
                      for (_, ts), item in aws.dynamodb.items())
    assert seen == [(at_ms, i + 1) for i in range(PUSHES)]
    aws.close()
    assert not aws.problems
