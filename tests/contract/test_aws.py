"""The types for AWS against stand-ins that check each signature and fail as documented."""
import os
import ssl

import pytest

from certificates import Authority
from fake_aws import FakeAws, Refusal
from process import wait_for
from site_parts import Gateway, Simulator


@pytest.fixture(name="aws")
def make_aws():
    fake = FakeAws()
    yield fake
    fake.close()
    assert not fake.problems, fake.problems[:3]


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    simulator = Simulator(tmp_path, 2).start()
    return Gateway(tmp_path).turbines(simulator, poll="100 ms")


def credentials_file(gateway, aws, name="aws.ini"):
    path = gateway.path(name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# keys\n[default]\naws_access_key_id = {aws.keys[0]}\n"
                   f"aws_secret_access_key={aws.keys[1]}\n")
    os.chmod(path, 0o600)
    return "file:" + path


def timestream(gateway, aws, **keys):
    given = {"type": "timestream", "region": "eu-west-1", "database": "wind", "table": "readings",
             "endpoint": aws.url, "send": "raw", "batch_records": 20, "batch_interval": "100 ms"}
    if "credentials" not in keys:
        given["credentials"] = credentials_file(gateway, aws)
    given.update(keys)
    return gateway.set("uplink cloud", **given)


def finish(gateway):
    gateway.stop_polling()
    return gateway.drain()


def readings_in(aws):
    return sum(len([name for name in values if name != "seq" and not name.endswith("_quality")])
               for values in aws.timestream.values())


def assert_all_there(gateway, aws):
    ledger = finish(gateway)
    assert ledger["read"] == ledger["delivered"] == readings_in(aws) and ledger["dead"] == 0
    return ledger


def test_every_reading_is_in_timestream(gateway, aws):
    timestream(gateway, aws).start()
    gateway.wait_delivered(200)
    assert_all_there(gateway, aws)
    assert aws.called("Timestream_20181101.DescribeEndpoints") == 1
    dimensions, when, measure = next(iter(aws.timestream))
    assert dict(dimensions)["gateway"] == "gateway" and len(when) == 19 and measure == "readings"
    assert {key for key, _ in dimensions} == {"device", "gateway", "store", "stream"}


def test_many_measures_make_several_records(gateway, aws):
    for i in range(300):
        gateway.set("profile demo-turbine", **{f"point.p{i}": "holding 0 uint16"})
    timestream(gateway, aws).start()
    gateway.wait_delivered(2000)
    assert_all_there(gateway, aws)
    assert {"readings", "readings.2"} == {key[2] for key in aws.timestream}


def test_rejected_records_alone_are_dead(gateway, aws):
    aws.refuse = lambda record: "too old" if record["device"] == "t02" and \
        int(record["seq"]) % 5 == 0 else None
    timestream(gateway, aws).start()
    wait_for(lambda: gateway.ledger()["dead"] >= 3 * 8, 30, lambda: str(gateway.ledger()))
    ledger = finish(gateway)
    assert readings_in(aws) == ledger["delivered"]
    assert ledger["delivered"] + ledger["dead"] == ledger["read"]
    assert not [key for key, values in aws.timestream.items()
                if dict(key[0])["device"] == "t02" and int(values["seq"]) % 5 == 0]


def test_a_moved_endpoint_is_asked_for_again(gateway, aws):
    elsewhere = FakeAws()
    timestream(gateway, aws).start()
    gateway.wait_delivered(50)
    aws.advertised = elsewhere.url
    aws.script = [Refusal(421, "InvalidEndpointException")]
    wait_for(lambda: elsewhere.timestream, 20, "the new endpoint gets records")
    assert aws.called("Timestream_20181101.DescribeEndpoints") == 2
    ledger = finish(gateway)
    assert readings_in(aws) + readings_in(elsewhere) == ledger["delivered"] == ledger["read"]
    elsewhere.close()


@pytest.mark.parametrize("status, kind, headers, state", [
    (400, "ThrottlingException", {}, None),
    (429, "ThrottlingException", {"Retry-After": "1"}, None),
    (429, "ThrottlingException", {}, None), (500, "InternalServerException", {}, None),
    (503, "ServiceUnavailableException", {}, None), (409, "ConflictException", {}, None),
    (403, "AccessDeniedException", {}, "held"), (402, "ServiceQuotaExceededException", {}, "held"),
    (404, "ResourceNotFoundException", {}, "held"), (403, "ExpiredTokenException", {}, "held")])
def test_documented_failures(gateway, aws, status, kind, headers, state):
    """None of them costs a reading; those of the configuration say so."""
    timestream(gateway, aws).start()
    gateway.wait_delivered(20)
    times = 60 if state else 2
    with aws.lock:
        aws.script = [Refusal(status, kind, "words of it", headers) for _ in range(times)]
    wait_for(lambda: kind in (gateway.uplink_state()["last_error"] or "") or
             kind in gateway.process.log() or len(aws.script) == 0, 20, "the failure is met")
    if state:
        wait_for(lambda: gateway.uplink_state()["state"] == state, 20,
                 lambda: str(gateway.uplink_state()))
        assert kind in gateway.uplink_state()["last_error"]
        assert gateway.ledger()["dead"] == 0
        return
    assert_all_there(gateway, aws)


def test_a_captive_portal_is_no_acknowledgement(gateway, aws):
    timestream(gateway, aws).start()
    gateway.wait_delivered(20)
    aws.script = [(200, {}, "<html>Welcome</html>"), (200, {}, "{}"),
                  (200, {}, '{"RecordsIngested":{"Total":100000}}')]
    wait_for(lambda: not aws.script, 20, "the replies are used up")
    assert_all_there(gateway, aws)


@pytest.mark.parametrize("skew_s", [-4000, 86400])
def test_a_wrong_clock_is_corrected_from_the_reply(gateway, aws, skew_s):
    aws.skew_s = skew_s
    timestream(gateway, aws).start()
    gateway.wait_delivered(100)
    assert_all_there(gateway, aws)


def test_wrong_keys_are_said_and_mended(gateway, aws):
    timestream(gateway, aws).start()
    gateway.wait_delivered(20)
    right, aws.keys = aws.keys, ("AKIDEXAMPLE", "another")
    wait_for(lambda: gateway.uplink_state()["state"] == "held", 20,
             lambda: str(gateway.uplink_state()))
    assert "InvalidSignatureException" in gateway.uplink_state()["last_error"]
    aws.keys = right
    aws.problems.clear()
    assert gateway.ledger()["dead"] == 0


def test_credentials_file_that_others_read_is_refused(gateway, aws):
    where = credentials_file(gateway, aws)
    os.chmod(where[5:], 0o644)
    timestream(gateway, aws, credentials=where).start()
    wait_for(lambda: "chmod 600" in (gateway.uplink_state()["last_error"] or ""), 20,
             lambda: str(gateway.uplink_state()))
    os.chmod(where[5:], 0o600)


def test_credentials_from_the_environment(gateway, aws):
    gateway.process.environment.update(AWS_ACCESS_KEY_ID=aws.keys[0],
                                       AWS_SECRET_ACCESS_KEY=aws.keys[1],
                                       AWS_SESSION_TOKEN="a token")
    aws.token = "a token"
    timestream(gateway, aws, credentials="env:").start()
    gateway.wait_delivered(50)
    assert_all_there(gateway, aws)


def test_credentials_by_certificate_are_renewed(gateway, aws, tmp_path):
    authority = Authority(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("provider"))
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    aws.life_s = 4
    provider = FakeAws(context=context)
    provider.provide = aws.provide
    cert, key = authority.issue("gateway")
    timestream(gateway, aws, ca_file=authority.cert, cert_file=cert, key_file=key,
               thing="borssele-1",
               credentials=f"iot:{provider.url}/role-aliases/windrow/credentials").start()
    wait_for(lambda: aws.provided >= 3, 30, lambda: str(gateway.uplink_state()))
    assert_all_there(gateway, aws)


def test_expired_keys_of_the_provider_are_renewed_at_once(gateway, aws, tmp_path):
    authority = Authority(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("provider"))
    provider = FakeAws(context=context)
    provider.provide = aws.provide
    cert, key = authority.issue("gateway")
    timestream(gateway, aws, ca_file=authority.cert, cert_file=cert, key_file=key,
               thing="borssele-1",
               credentials=f"iot:{provider.url}/role-aliases/windrow/credentials").start()
    gateway.wait_delivered(20)
    aws.token = "revoked meanwhile"
    wait_for(lambda: aws.provided >= 2, 30, lambda: str(gateway.uplink_state()))
    assert_all_there(gateway, aws)
