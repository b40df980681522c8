"""Type s3 against a stand-in that checks signatures and digests and fails as documented."""
import os
import re
import ssl

import pytest

from certificates import Authority
from chaos import Chaos
from fake_aws import Refusal
from fake_s3 import FakeS3
from process import wait_for
from site_parts import Gateway, Simulator


@pytest.fixture(name="s3")
def make_s3():
    fake = FakeS3()
    yield fake
    fake.close()
    assert not fake.problems, fake.problems[:3]


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    simulator = Simulator(tmp_path, 3).start()
    return Gateway(tmp_path).turbines(simulator, poll="50 ms")


def site(gateway, s3, **keys):
    path = gateway.path("aws.ini")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[default]\naws_access_key_id = {s3.keys[0]}\n"
                   f"aws_secret_access_key = {s3.keys[1]}\n")
    os.chmod(path, 0o600)
    given = {"type": "s3", "region": "eu-west-1", "bucket": s3.bucket, "endpoint": s3.url,
             "credentials": "file:" + path, "send": "raw", "batch_records": 10000,
             "batch_interval": "300 ms"}
    given.update(keys)
    return gateway.set("uplink cold", **given)


def words(gateway):
    return gateway.uplink_state("cold")["last_error"] or ""


def told(gateway, text, limit_s=20):
    wait_for(lambda: text in words(gateway), limit_s, lambda: f"'{text}': {words(gateway)}")


def settle(gateway, s3, limit_s=30):
    gateway.stop_polling()
    ledger = gateway.drain(limit_s)
    records = s3.records()
    assert ledger["delivered"] == ledger["read"] == \
        sum(len(one["values"]) for one in records.values()) > 0 and ledger["dead"] == 0
    for device in ("t01", "t02", "t03"):
        seqs = sorted(seq for name, seq in records if name == device)
        assert seqs == list(range(1, len(seqs) + 1))
    return ledger


@pytest.mark.parametrize("compress, ending", [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")])
def test_objects(gateway, s3, compress, ending):
    site(gateway, s3, compress=compress, storage_class="STANDARD_IA").start()
    gateway.wait_delivered(500, name="cold")
    settle(gateway, s3)
    record = next(iter(s3.records().values()))
    for key in s3.objects:
        assert re.fullmatch(r"gateway=gateway/stream=raw/date=\d{4}-\d\d-\d\d/\d{8}T\d{6}Z-"
                            r"[0-9a-f]{32}\.ndjson" + re.escape(ending), key), key
    assert record["gateway"] == "gateway" and record["stream"] == "raw" and record["store"]
    assert s3.storage_classes == {"STANDARD_IA"} and s3.puts < 100


def test_partitions_hold_what_they_say(gateway, s3):
    site(gateway, s3, prefix="site=x/{gateway}/{device}/y={year}/m={month}/{day}/{hour}").start()
    gateway.wait_delivered(500, name="cold")
    settle(gateway, s3)
    one = FakeS3()
    for key, body in s3.objects.items():
        one.objects = {key: body}
        device, year, month, day, hour = re.match(
            r"site=x/gateway/(t\d+)/y=(\d+)/m=(\d+)/(\d+)/(\d+)/", key).groups()
        for name, seq in one.records():
            assert name == device
            assert one.records()[name, seq]["time"].startswith(f"{year}-{month}-{day}T{hour}:")
    one.close()


def test_a_repeat_is_the_same_object(gateway, s3):
    """The reply to the first attempts is lost: what comes again replaces itself."""
    s3.script = [(500, {}, ""), (500, {}, "")]
    chaos = Chaos(s3.port, 3, False, 3000)
    site(gateway, s3, endpoint=f"http://127.0.0.1:{chaos.port}", timeout="3 s").start()
    wait_for(lambda: chaos.cuts > 5 and gateway.ledger()["read"] > 2000, 60,
             lambda: f"{chaos.cuts} {gateway.ledger()}")
    chaos.calm()
    settle(gateway, s3)
    assert s3.puts >= len(s3.objects)
    chaos.close()


def test_nothing_is_lost_among_failures_and_restarts(gateway, s3):
    s3.wild = True
    site(gateway, s3).start()
    for _ in range(2):
        before = gateway.ledger()["read"]
        wait_for(lambda: gateway.ledger()["read"] > before + 500, 20, "readings")
        gateway.kill()
        gateway.start()
    gateway.wait_delivered(500, name="cold")
    s3.wild = False
    settle(gateway, s3, 60)


@pytest.mark.parametrize("planned, text", [
    (Refusal(503, "SlowDown", "Please reduce your request rate."), "slow down"),
    (Refusal(404, "NoSuchBucket", "The specified bucket does not exist"), "no such bucket"),
    (Refusal(403, "AccessDenied", "Access Denied"), "s3:PutObject"),
    (Refusal(301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint",
             Endpoint="wind-archive.s3.eu-central-1.amazonaws.com"), "s3.eu-central-1.amazonaws"),
    (Refusal(307, "TemporaryRedirect", "Please re-send this request"), "not known everywhere"),
    (Refusal(400, "ExpiredToken", "The provided token has expired."), "ExpiredToken"),
    (Refusal(400, "SomethingNew", "what is that"), "refuses the request"),
    ((200, {"Content-Type": "text/html"}, "<html>Please log in</html>"), "captive portal"),
    ((200, {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, ""), "neither the object's MD5"),
])
def test_what_goes_wrong_is_told_and_nothing_lost(gateway, s3, planned, text):
    s3.script = [planned] * 30
    site(gateway, s3).start()
    told(gateway, text)
    assert not s3.objects and gateway.ledger()["dead"] == 0
    s3.script = []
    gateway.set("uplink cold", batch_interval="200 ms")
    gateway.reload()
    settle(gateway, s3)


def test_encrypted_with_keys_of_kms(gateway, s3):
    s3.encrypted = True
    site(gateway, s3).start()
    gateway.wait_delivered(100, name="cold")
    settle(gateway, s3)


def test_a_store_that_tells_no_checksums(gateway, s3):
    s3.checksums = False
    site(gateway, s3).start()
    gateway.wait_delivered(100, name="cold")
    settle(gateway, s3)


def test_the_region_is_wrong(gateway, s3):
    site(gateway, s3, region="us-east-1").start()
    told(gateway, "it is eu-west-1")


def test_a_clock_that_is_wrong_corrects_itself(gateway, s3):
    s3.skew_s = 3600
    site(gateway, s3).start()
    gateway.wait_delivered(100, name="cold")
    settle(gateway, s3)


def test_bucket_in_the_host_name(tmp_path, gateway):
    """localhost with anything before it is this machine (RFC 6761)."""
    authority = Authority(str(tmp_path / "ca"))
    cert, key = authority.issue("s3", "DNS:wind-archive.localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    s3 = FakeS3(context=context)
    site(gateway, s3, style="host", endpoint=f"https://localhost:{s3.port}",
         ca_file=authority.cert).start()
    gateway.wait_delivered(100, name="cold")
    settle(gateway, s3)
    assert not s3.problems
    s3.close()


@pytest.mark.parametrize("keys, text", [
    ({"bucket": "Wind_Archive"}, "is no name of a bucket"),
    ({"prefix": "a//{date}"}, "has an empty segment"),
    ({"prefix": "a/{minute}"}, "knows {gateway}"),
    ({"storage_class": "cold"}, "is none, such as STANDARD_IA"),
    ({"endpoint": "http://s3.example.com"}, "use https"),
    ({"region": "eu west"}, "is no AWS region"),
])
def test_what_check_says(tmp_path, keys, text):
    gateway = Gateway(tmp_path)
    gateway.set("uplink cold", **dict({"type": "s3", "region": "eu-west-1", "bucket": "wind",
                                       "credentials": "env:"}, **keys)).write()
    status, output, _ = gateway.cli("check")
    assert status == 2 and text in output, output
