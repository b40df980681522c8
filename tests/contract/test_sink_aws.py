"""`windrow sink --aws-key`: Timestream as AWS's own client (boto3) and as the gateway see it."""
import os

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from process import wait_for
from site_parts import Gateway, Simulator, Sink

KEY, SECRET = "AKIDEXAMPLE", "secret/with:signs+"


@pytest.fixture(name="sink")
def make_sink(tmp_path):
    return Sink(tmp_path, None, "--aws-key", f"{KEY}:{SECRET}", "--reject", "t02:3").start()


def client(sink, key=KEY, secret=SECRET, token=None):
    return boto3.client("timestream-write", region_name="eu-west-1", verify=sink.authority.cert,
                        endpoint_url=f"https://127.0.0.1:{sink.port}", aws_access_key_id=key,
                        aws_secret_access_key=secret, aws_session_token=token,
                        config=Config(retries={"max_attempts": 0}))


def record(seq, power, device="t01", time_ms=1769855400000):
    return {"Dimensions": [{"Name": "device", "Value": device}], "Time": str(time_ms * 1000000),
            "MeasureName": "readings", "MeasureValues": [
                {"Name": "seq", "Type": "BIGINT", "Value": str(seq)},
                {"Name": "power", "Type": "DOUBLE", "Value": str(power)}]}


def write(sink, *records, **keys):
    dimensions = {"gateway": "g", "store": "0123", "stream": "raw"}
    return client(sink, **keys).write_records(
        DatabaseName="wind", TableName="readings", Records=list(records),
        CommonAttributes={"Dimensions": [{"Name": name, "Value": value}
                                         for name, value in dimensions.items()],
                          "MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS", "Version": 1})


def refusal(act, *words, **keys):
    """(status, __type, the whole reply) of what boto3 raises."""
    with pytest.raises(ClientError) as error:
        act(*words, **keys)
    reply = error.value.response
    return reply["ResponseMetadata"]["HTTPStatusCode"], reply["Error"]["Code"], reply


def test_boto3_is_understood(sink):
    [endpoint] = client(sink).describe_endpoints()["Endpoints"]
    assert endpoint == {"Address": f"127.0.0.1:{sink.port}", "CachePeriodInMinutes": 1440}
    reply = write(sink, record(1, 8.5), record(2, 13), token="a session")
    assert reply["RecordsIngested"]["Total"] == 2
    assert write(sink, record(1, 8.50))["RecordsIngested"]["Total"] == 1
    assert sink.query("SELECT gateway, store, stream, device, seq, point, time_ms, value, quality"
                      " FROM readings ORDER BY seq") == [
        ("g", "0123", "raw", "t01", 1, "power", 1769855400000, 8.5, "good"),
        ("g", "0123", "raw", "t01", 2, "power", 1769855400000, 13, "good")]
    assert sink.count("repeats") == 1
    status, code, reply = refusal(write, sink, record(4, 1), record(1, 9), record(3, 1, "t02"))
    assert (status, code) == (419, "RejectedRecordsException")
    first, second = reply["RejectedRecords"]
    assert (first["RecordIndex"], first["ExistingVersion"]) == (1, 1)
    assert second["RecordIndex"] == 2 and "ExistingVersion" not in second
    assert sink.count() == 3 and sink.count("conflicts") == 1


def test_what_is_not_signed_rightly_is_refused_as_the_service_does(sink):
    one = record(1, 1)
    assert refusal(write, sink, one, secret="x")[:2] == (403, "InvalidSignatureException")
    assert refusal(write, sink, one, key="AKIDOTHER")[:2] == (403, "UnrecognizedClientException")
    assert refusal(client(sink, secret="x").describe_endpoints)[:2] == \
        (403, "InvalidSignatureException")
    assert refusal(write, sink, record(0, 1))[:2] == (400, "ValidationException")
    assert refusal(client(sink).list_databases)[:2] == (400, "UnknownOperationException")
    assert sink.count() == 0
    without = Sink(os.path.dirname(sink.db), sink.authority, name="without").start()
    assert refusal(client(without).describe_endpoints)[0] == 404


def test_the_gateway_delivers_to_it(tmp_path, sink):
    simulator = Simulator(tmp_path, 3).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="100 ms")
    path = gateway.path("aws.ini")

    def credentials(secret):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="ascii") as file:
            file.write(f"[default]\naws_access_key_id = {KEY}\n"
                       f"aws_secret_access_key = {secret}\n")

    credentials("wrong")
    gateway.set("uplink cloud", type="timestream", region="eu-west-1", database="wind",
                table="readings", credentials="file:" + path, ca_file=sink.authority.cert,
                endpoint=f"https://127.0.0.1:{sink.port}", send="raw", batch_records=20,
                batch_interval="100 ms").start()
    wait_for(lambda: gateway.uplink_state()["state"] == "held", 20, "the wrong key is said")
    assert "InvalidSignatureException" in gateway.uplink_state()["last_error"]
    credentials(SECRET)
    gateway.set("uplink cloud", batch_records=21)  # a reload restarts what changed
    gateway.reload()
    gateway.wait_delivered(300, 30)
    simulator.process.kill()  # bad readings, too
    wait_for(lambda: sink.query("SELECT count(*) FROM readings WHERE quality LIKE 'bad:%'")[0][0],
             20, "bad readings")
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["dead"] == 8 and sink.count() == ledger["delivered"] == ledger["read"] - 8
    assert sink.count("conflicts") == 0
    assert sink.query("SELECT count(*) FROM readings WHERE (value IS NULL) != (quality LIKE"
                      " 'bad:%')") == [(0,)]
