"""packaging/cloud: its template, and its function with the daemon's real output, behind stand-ins
of API Gateway and DynamoDB that throttle, leave items unprocessed and lose replies.

$WINDROW_CLOUD_READINGS sets how many go through the bad line (the long run: 100000)."""
import base64
import collections
import functools
import gzip
import http.client
import importlib
import json
import os
import ssl
import subprocess
import sys
from decimal import Decimal

import pytest

from api_gateway import ApiGateway, Context
from certificates import Authority
from chaos import Chaos
from cloud_template import Template
from fake_aws import FakeAws, Refusal
from fake_dynamodb import Dynamo
from influx_servers import InfluxDB
from process import ROOT, program, wait_for
from served import MAP, served_scans
from site_parts import Gateway, Simulator

READINGS = int(os.environ.get("WINDROW_CLOUD_READINGS", "3000"))
FOLDER = os.path.join(ROOT, "packaging", "cloud")
TEMPLATE = os.path.join(FOLDER, "template.yaml")


@pytest.fixture(name="aws")
def make_aws():
    fake = FakeAws()
    fake.tables = Dynamo({"readings": ("pk", "ts"), "tokens": ("hash", None)})
    yield fake
    fake.close()
    assert not fake.problems, fake.problems[:3]


@pytest.fixture(name="functions")
def make_functions(aws, monkeypatch):
    """The functions by the names that the template gives them, with its environment."""
    for name, value in {"AWS_ACCESS_KEY_ID": aws.keys[0], "AWS_SECRET_ACCESS_KEY": aws.keys[1],
                        "AWS_DEFAULT_REGION": aws.region, "TABLE": "readings", "KEEP_DAYS": "90",
                        "TARGET": "dynamodb", "TOKENS_TABLE": "tokens", "DATABASE": "wind",
                        "STREAM_USER": "borssele", "REFUSED_QUEUE": "refused"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(os.path.join(FOLDER, "function"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("handler", "tokens", "table", "timestream", "readings")
    for name in names:
        sys.modules.pop(name, None)
    loaded = {name: importlib.import_module(name) for name in names}
    boto = loaded["handler"].boto3
    local = functools.partial(boto.client, endpoint_url=aws.url)
    for name in ("handler", "tokens"):
        monkeypatch.setattr(loaded[name], "boto3", type("boto3", (), {"client": local}))
    found = {}
    for name, one in Template(TEMPLATE).of_type("AWS::Lambda::Function").items():
        module, _, function = one["Handler"].partition(".")
        assert one["Code"] == "function"
        found[name] = getattr(loaded[module], function)
    yield found
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(name="api")
def make_api(functions, tmp_path):
    authority = Authority(tmp_path / "ca")
    front = ApiGateway(Template(TEMPLATE), functions, *authority.issue("api"))
    front.authority = authority
    yield front
    front.close()


def make_token(aws, *words):
    """What packaging/cloud/token prints."""
    result = subprocess.run(
        ["/usr/bin/python3", os.path.join(FOLDER, "token"), *words, "--table", "tokens",
         "--endpoint-url", aws.url], capture_output=True, text=True, timeout=90, check=False,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def site(folder, aws, api, turbines=4, port=None, **keys):
    simulator = Simulator(folder, turbines).start()
    gateway = Gateway(folder).turbines(simulator, poll="50 ms")
    gateway.simulator = simulator
    path = gateway.path("cloud.token")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(make_token(aws, "add", "borssele", "write") + "\n")
    given = dict(pasted("UplinkHttp", url=f"https://127.0.0.1:{port or api.port}/v1/readings"),
                 token_file=path, ca_file=api.authority.cert, send="raw", batch_interval="100 ms",
                 connect_timeout="3 s", timeout="10 s", parallel=2)
    return gateway.set("uplink cloud", **dict(given, **keys))


def pasted(output, **other):
    """The keys of an uplink that an output of the template says to paste."""
    text = Template(TEMPLATE).outputs[output]["Value"]["Fn::Sub"]
    lines = [line.partition(" = ") for line in text.splitlines()[1:]]
    return dict({key: value for key, _, value in lines}, **other)


def ask(api, method, query="", token=None, body=None, **headers):
    """(status, headers, the body as JSON)."""
    context = ssl.create_default_context(cafile=api.authority.cert)
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, timeout=90, context=context)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        given["Authorization"] = "Bearer " + token
    connection.request(method, "/v1/readings" + query, body, given)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    if reply.getheader("content-encoding") == "gzip":
        text = gzip.decompress(text)
    return reply.status, reply.headers, json.loads(text) if text else None


def batch(*records, store="0123456789ab"):
    return json.dumps({"gateway": "g", "store": store, "stream": "raw", "records": list(records)})


def record(seq, **values):
    return {"seq": seq, "device": "t01", "time": f"2026-01-31T10:30:{seq % 60:02d}.250Z",
            "values": values}


def held(aws):
    """{device: {seq: {point: value in units of its scale}}} of the table."""
    found = collections.defaultdict(lambda: collections.defaultdict(dict))
    for item in aws.tables.items["readings"].values():
        device, point = item["pk"]["S"].removeprefix("borssele#").split(".")
        kind, value = next(iter(item["value"].items()))
        raw = value if kind == "BOOL" else round(Decimal(value) / Decimal(str(MAP[point][3])))
        scan = found[device][int(item["seq"]["N"])]
        assert point not in scan, "twice in the table"
        scan[point] = int(raw)
    return found


# -- the template --

def test_the_template_resolves():
    template = Template(TEMPLATE)
    assert template.problems() == []
    for name, one in template.resources.items():
        text = json.dumps(one)
        assert "Principal\": \"*\"" not in text and "\"Action\": \"*\"" not in text, name
    # No right on everything, but where the service knows nothing less.
    everything = [one for one in statements(template.resources) if one.get("Resource") == "*"]
    assert {one["Action"] for one in everything} == {"timestream:DescribeEndpoints"}


def statements(node):
    if isinstance(node, list):
        for one in node:
            yield from statements(one)
    elif isinstance(node, dict):
        if "Effect" in node and "Action" in node:
            yield node
        for one in node.values():
            yield from statements(one)


@pytest.mark.parametrize("was, is_now, words", [
    ("!GetAtt Readings.Arn", "!GetAtt Reading.Arn", "nothing is called Reading"),
    ("!GetAtt Refused.Arn", "!GetAtt Refused.Url", "has no attribute Url"),
    ("[InDynamo, !Ref Readings,", "[InTimestream, !Ref Readings,", "only there with InDynamo"),
    ("StreamName: !Ref DataStream", "StreamName: !Sub ${DataStreams}", "DataStreams"),
    ("!Equals [!Ref Iot, \"yes\"]", "!Equals [!Ref Target, \"yes\"]", "Iot is used by nobody"),
    ("DependsOn: IngestRole", "DependsOn: IngestRoles", "IngestRoles"),
    ("LogGroup: !Ref IngestLog", "LogGroup: !GetAtt Ingest.Arn", "a circle")])
def test_the_check_of_the_template_sees(tmp_path, was, is_now, words):
    text = Template(TEMPLATE).text
    assert was in text
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(was, is_now, 1), encoding="utf-8")
    assert words in " ".join(Template(path).problems())


def test_the_lines_to_paste_are_right(tmp_path):
    """With a file where one is named, `windrow check` has nothing against them."""
    template = Template(TEMPLATE)
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("gateway")
    token = tmp_path / "token"
    token.write_text("x" * 43 + "\n", encoding="ascii")
    token.chmod(0o600)
    given = {"Api.ApiEndpoint": "https://a1b2c3.execute-api.eu-west-1.amazonaws.com",
             "AWS::Region": "eu-west-1", "KeepDays": "365", "Readings": "windrow-Readings-1"}
    files = {"/etc/windrow/cloud.token": str(token), "/etc/windrow/gateway.pem": cert,
             "/etc/windrow/gateway.key": key, "/etc/windrow/AmazonRootCA1.pem": authority.cert}
    shown = 0
    for name, one in template.outputs.items():
        if name.startswith("Uplink"):
            text = template.resolve(one["Value"]["Fn::Sub"].replace("{device}", "{dev}"), given)
            text = text.replace("{dev}", "{device}").replace("ENDPOINT", "x.amazonaws.com")
            for path, local in files.items():
                text = text.replace(path, local)
            path = tmp_path / f"{name}.ini"
            path.write_text(f"[gateway]\nname = g\ndata_dir = {tmp_path}\nrun_dir = {tmp_path}\n"
                            + text, encoding="utf-8")
            result = subprocess.run([program("windrow"), "check", path], capture_output=True,
                                    text=True, timeout=90, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
            shown += 1
    assert shown == 4


@pytest.mark.lasts(17)
# -- the way of the readings --

def test_all_arrives_once_through_a_bad_line(tmp_path, aws, api):
    chaos = Chaos(api.port, 11, False, 9000)
    gateway = site(tmp_path, aws, api, port=chaos.port, batch_records=40).start()
    aws.wild = True
    aws.tables.dice = lambda: aws.random.randrange(8) == 0
    for part in range(1, 4):
        wait_for(lambda: gateway.ledger()["read"] >= READINGS * part // 3, 60 + READINGS / 200,
                 "readings")
        gateway.kill()
        gateway.start()
    gateway.stop_polling()
    wait_for(lambda: chaos.cuts > 3 and aws.tables.unprocessed > 10, 60,
             lambda: f"a bad line: {chaos.cuts} cuts, {aws.tables.unprocessed} unprocessed")
    chaos.calm()
    aws.wild = False
    ledger = gateway.drain(60 + READINGS / 200)
    assert ledger["dead"] == ledger["dropped"] == 0
    items = aws.tables.items["readings"]
    assert len(items) == ledger["delivered"] == ledger["read"]
    assert not aws.tables.changed
    assert all(int(item["expires_at"]["N"]) == int(Decimal(item["ts"]["N"])) + 90 * 86400
               for item in items.values())
    gateway.simulator.stop()
    served, found = served_scans(gateway.simulator), held(aws)
    assert served.keys() == found.keys()
    for device, scans in served.items():
        seqs = sorted(found[device])
        assert seqs == list(range(1, len(seqs) + 1)), f"{device} has gaps"
        values = [found[device][seq] for seq in seqs]
        # What was read and not yet on flash when the gateway was killed was never the store's.
        at = 0
        for one in values:
            at = scans.index(one, at) + 1
    chaos.close()


def test_a_repeat_is_no_change_and_another_value_is_refused(aws, api):
    token = make_token(aws, "add", "borssele", "write")
    first = batch(record(1, power=13.50, ok=True), record(2, power=None, state="run"))
    assert ask(api, "POST", token=token, body=first)[2] == {"accepted": 2}
    writes = aws.tables.writes["readings"]
    again = batch(record(1, power=13.5, ok=True), record(2, power=None, state="run"),
                  record(3, power=1))
    assert ask(api, "POST", token=token, body=again)[2] == {"accepted": 3}
    assert aws.tables.writes["readings"] == writes + 1 == 5
    other = batch(record(1, power=13.6, ok=True), record(2, power=0, more=7), record(4, power=1))
    status, _, reply = ask(api, "POST", token=token, body=other)
    assert status == 200 and reply["accepted"] == 1
    assert [(one["seq"], one["device"]) for one in reply["rejected"]] == [(1, "t01"), (2, "t01")]
    assert "another value" in reply["rejected"][0]["reason"]
    items = {key: item["value"] for key, item in aws.tables.items["readings"].items()}
    assert len(items) == 6  # nothing of a refused record, not even its new point
    first_key = ("borssele#t01.power", Decimal("1769855401.250000000000001"))
    assert items[first_key] == {"N": "13.5"}
    twice = batch(record(9, power=1), record(9, power=1), record(9, power=2))
    reply = ask(api, "POST", token=token, body=twice)[2]
    assert reply["accepted"] == 2 and reply["rejected"][0]["seq"] == 9


def test_two_scans_of_one_millisecond_are_two_items(aws, api):
    token = make_token(aws, "add", "borssele", "write")
    two = [dict(record(1, power=1), seq=seq) for seq in (18231, 18232)]
    assert ask(api, "POST", token=token, body=batch(*two))[2] == {"accepted": 2}
    keys = [str(ts) for _, ts in aws.tables.items["readings"]]
    assert keys == ["1769855401.250000000018231", "1769855401.250000000018232"]
    reader = make_token(aws, "add", "borssele", "read")
    rows = ask(api, "GET", "?device=t01&point=power&from=2026-01-31T10:30:01.250Z"
               "&to=2026-01-31T10:30:01.251Z", reader)[2]["readings"]
    assert [row["seq"] for row in rows] == [18231, 18232]
    assert {row["time"] for row in rows} == {"2026-01-31T10:30:01.250Z"}


def test_what_cannot_be_kept_in_time_is_not_accepted(aws, api):
    token = make_token(aws, "add", "borssele", "write")
    api.limit_s["Ingest"] = 4
    with aws.lock:
        aws.tables.dice = lambda: True
    status, headers, reply = ask(api, "POST", token=token, body=batch(record(1, power=1)))
    assert status == 503 and headers["retry-after"] == "1" and "accepted" not in reply
    aws.tables.dice, api.limit_s["Ingest"] = lambda: False, 90
    # Half of the writes done, then the service is gone: an error, and the rest comes by a repeat.
    many = batch(*(record(seq, power=seq) for seq in range(1, 61)))
    asked = aws.tables.batch_write_item
    aws.tables.operations["BatchWriteItem"] = lambda request: \
        asked(request) if not aws.tables.items["readings"] else denied()

    def denied():
        raise Refusal(400, "AccessDeniedException", "no right to write")

    status, _, reply = ask(api, "POST", token=token, body=many)
    assert status == 500 and "accepted" not in reply
    assert 0 < len(aws.tables.items["readings"]) < 60
    aws.tables.operations["BatchWriteItem"] = asked
    assert ask(api, "POST", token=token, body=many)[2] == {"accepted": 60}
    assert len(aws.tables.items["readings"]) == aws.tables.writes["readings"] == 60


@pytest.mark.parametrize("body, encoding, status, words", ids=range(15), argvalues=[
    (b"\x28\xb5\x2f\xfd", "zstd", 415, "compress = gzip"),
    (b"{}", "gzip", 415, "compress = none"), (b"\xff\xfe", "", 415, "UTF-8"),
    (b'{"gateway":"g","blocks":[]}', "", 415, "format = batch"), (b"[]", "", 415, "batch"),
    (b"{", "", 400, "no JSON"), (b'{"records":[]}', "", 400, "gateway"),
    (batch({"device": "t01"}).encode(), "", 400, "seq"),
    (batch(record(True, power=1)).encode(), "", 400, "seq"),
    (batch(record(2 ** 63, power=1)).encode(), "", 400, "seq"),
    (b'{"records":[{"x":"\\ud800"}]}', "", 400, "no JSON"), (b"[" * 100000, "", 400, "no JSON"),
    (b'{"records":[{"x":NaN}]}', "", 400, "NaN"),
    (gzip.compress(bytes(40 << 20)), "gzip", 413, "too large"),
    (gzip.compress(b"{}" * 99)[:-9], "gzip", 400, "ends early")])
def test_bodies_that_are_refused(aws, api, body, encoding, status, words):
    token = make_token(aws, "add", "borssele", "write")
    headers = {"Content_Encoding": encoding} if encoding else {}
    got, _, reply = ask(api, "POST", token=token, body=body, **headers)
    assert got == status and words in reply["error"]["message"]
    assert not aws.tables.items["readings"]


def test_records_that_are_refused_do_not_hold_up_the_others(aws, api):
    token = make_token(aws, "add", "borssele", "write")
    bad = [dict(record(2, power=1), time="yesterday"), record(3), record(4, power=[1]),
           dict(record(5, power=1), quality=7), record(6, **{"p" * 300: 1}),
           record(7, power="x" * 70000), dict(record(9, power=1), time="9" * 30),
           dict(record(10, power=1), time="1969-12-31T23:59:59.000Z"),
           dict(record(11, power=1), window_s=-1), dict(record(12, power=1), time=7)]
    status, _, reply = ask(api, "POST", token=token, body=batch(record(1, power=1), *bad))
    assert status == 200 and reply["accepted"] == 1
    assert [one["seq"] for one in reply["rejected"]] == [2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    extremes = record(8, large=10**40, tiny=1e-150, whole=2**63, zero=-0.0)
    for _ in range(2):
        assert ask(api, "POST", token=token, body=batch(extremes))[2] == {"accepted": 1}


def test_zstd_waits_and_says_so(tmp_path, aws, api):
    gateway = site(tmp_path, aws, api, compress="zstd").start()
    wait_for(lambda: gateway.uplink_state()["state"] == "held", 30, "it is held")
    assert "compress = gzip" in gateway.uplink_state()["last_error"]
    gateway.set("uplink cloud", compress="none")
    gateway.reload()
    gateway.wait_delivered(50, 30)
    assert gateway.ledger()["dead"] == 0


# -- tokens --

def test_tokens(tmp_path, aws, api):
    writer = make_token(aws, "add", "borssele", "write")
    reader = make_token(aws, "add", "borssele", "read", "--days", "30", "--note", "dashboard")
    other = make_token(aws, "add", "egmond", "read")
    one = batch(record(1, power=1))
    question = "?device=t01&point=power"
    assert ask(api, "POST", token=writer, body=one)[0] == 200
    assert [ask(api, "POST", token=token, body=one)[0] for token in (reader, "x", None)] == \
        [403, 403, 401]
    assert len(ask(api, "GET", question, reader)[2]["readings"]) == 1
    assert ask(api, "GET", question, other)[2]["readings"] == []
    assert [ask(api, "GET", question, token)[0] for token in (writer, "x", None)] == [403, 403, 401]
    # Nothing that is held can be used as a token, and what is listed does not show one.
    listed = make_token(aws, "list")
    for token in (writer, reader, other):
        assert token not in listed + str(aws.tables.items["tokens"])
    for (held_hash, _), item in aws.tables.items["tokens"].items():
        assert ask(api, "GET", question, held_hash)[0] == 403
        if item["user"]["S"] == "borssele" and item["right"]["S"] == "read":
            item["expires_at"] = {"N": "1700000000"}
    assert ask(api, "GET", question, reader)[0] == 403
    hash_of_writer = next(line.split()[0] for line in listed.splitlines() if " write" in line)
    make_token(aws, "remove", hash_of_writer)
    assert ask(api, "POST", token=writer, body=one)[0] == 403
    # The gateway keeps everything and says why.
    gateway = site(tmp_path, aws, api)
    aws.tables.items["tokens"].clear()
    gateway.start()
    wait_for(lambda: gateway.uplink_state()["state"] == "held", 30, "it is held")
    assert "403" in gateway.uplink_state()["last_error"] and gateway.ledger()["dead"] == 0


def test_an_authoriser_in_trouble_is_no_refusal(tmp_path, aws, api):
    gateway = site(tmp_path, aws, api)
    asked = aws.tables.operations["GetItem"]

    def broken(_request):
        raise Refusal(400, "AccessDeniedException", "no right to read")

    aws.tables.operations["GetItem"] = broken
    gateway.start()
    wait_for(lambda: "500" in (gateway.uplink_state()["last_error"] or ""), 30, "an error")
    assert gateway.uplink_state()["state"] != "held"
    aws.tables.operations["GetItem"] = asked
    gateway.wait_delivered(50, 30)


# -- queries --

def test_queries_give_what_the_table_holds(tmp_path, aws, api):
    gateway = site(tmp_path, aws, api).start()
    gateway.wait_delivered(2500, 60)
    gateway.stop_polling()
    gateway.drain()
    reader = make_token(aws, "add", "borssele", "read")
    found = held(aws)
    for device, point in (("t01", "power"), ("t03", "grid_ok")):
        question = f"?device={device}&point={point}"
        rows, pages, more = [], 0, ""
        while more is not None:
            reply = ask(api, "GET", question + f"&limit=7{more}", reader)[2]
            rows += reply["readings"]
            more = f"&next={reply['next']}" if "next" in reply else None
            pages += 1
        assert pages > 5 and len(reply["readings"]) <= 7
        assert [row["seq"] for row in rows] == sorted(found[device])
        assert [round(row["value"] / MAP[point][3]) for row in rows] == \
            [found[device][seq][point] for seq in sorted(found[device])]
        back = ask(api, "GET", question + "&limit=10000&order=desc", reader)[2]
        assert back["readings"] == rows[::-1] and "next" not in back
        some = ask(api, "GET", question + f"&from={rows[3]['time']}&to={rows[9]['time']}", reader)
        assert some[2]["readings"] == rows[3:9]
    status, headers, reply = ask(api, "GET", question + "&limit=500", reader,
                                 Accept_Encoding="gzip", Origin="https://dash.example.com")
    assert status == 200 and headers["content-encoding"] == "gzip" and reply["readings"]
    assert headers["access-control-allow-origin"] == "https://dash.example.com"
    assert "access-control-allow-origin" not in ask(api, "GET", question, reader,
                                                    Origin="https://other.example.com")[1]
    status, headers, _ = ask(api, "OPTIONS", Origin="https://dash.example.com",
                             Access_Control_Request_Method="GET",
                             Access_Control_Request_Headers="authorization")
    assert status == 204 and headers["access-control-allow-headers"] == "authorization"


@pytest.mark.parametrize("query", [
    "", "?device=t01", "?point=power", "?device=t01&point=power&limit=0",
    "?device=t01&point=power&limit=10001", "?device=t01&point=power&limit=x",
    "?device=t01&point=power&from=yesterday", "?device=t01&point=power&from=2026-01-31T10:30:00",
    "?device=t01&point=power&next=x", "?device=t01&point=power&order=up",
    "?device=t01&point=power&user=egmond", "?device=t01&point=power&to=-5"])
def test_questions_that_are_refused(aws, api, query):
    reader = make_token(aws, "add", "borssele", "read")
    status, _, reply = ask(api, "GET", query, reader)
    assert status == 400 and reply["error"]["message"]


# -- without a token: a stream, a topic, direct writes --

def invoke(functions, event):
    return functions["Ingest"](json.loads(json.dumps(event)), Context(28))


def stream_event(records):
    return {"Records": [{"eventSource": "aws:kinesis", "kinesis": {
        "sequenceNumber": str(i), "data": record["Data"]}} for i, record in enumerate(records)]}


def wrap(message):
    return base64.b64encode(json.dumps(message).encode()).decode()


def of_topic(message):
    """What the rule of the topic makes of a message: encode(*, 'base64') AS data."""
    return {"data": wrap(message)}


def test_every_way_into_the_table_makes_the_same_items(tmp_path, aws, functions, api):
    """The API, a stream, messages of a topic; and past all of them the uplink type dynamodb."""
    credentials = tmp_path / "aws.ini"
    credentials.write_text(f"[default]\naws_access_key_id = {aws.keys[0]}\n"
                           f"aws_secret_access_key = {aws.keys[1]}\n", encoding="ascii")
    credentials.chmod(0o600)
    gateway = site(tmp_path, aws, api, turbines=2)
    common = {"region": aws.region, "endpoint": aws.url, "credentials": f"file:{credentials}",
              "send": "raw", "batch_interval": "100 ms"}
    gateway.set("uplink stream", type="kinesis", stream="readings", **common)
    gateway.set("uplink direct", type="dynamodb", table="readings", user="borssele",
                expire_after="90 d", **common)
    gateway.start()
    for name in ("cloud", "stream", "direct"):
        gateway.wait_delivered(200, 30, name)
    gateway.stop_polling()
    def uplinks():
        return gateway.get("/v1/status")["uplinks"]

    wait_for(lambda: all(one["waiting"] == 0 for one in uplinks()), 30, uplinks)
    items = dict(aws.tables.items["readings"])
    assert len(items) == gateway.ledger()["read"]
    sent = [record for _, record in aws.kinesis]
    assert invoke(functions, stream_event(sent)) == {"batchItemFailures": []}
    for record_sent in sent[:20]:
        message = json.loads(base64.b64decode(record_sent["Data"]))
        invoke(functions, of_topic(message))
        message.update(deviceId=message.pop("device"), timestamp=message.pop("time"),
                       readings=message.pop("values"))
        invoke(functions, of_topic(message))
        invoke(functions, stream_event([{"Data": wrap(of_topic(message))}]))
    assert aws.tables.items["readings"] == items and not aws.tables.changed


def test_a_stream_goes_on_where_it_failed_and_puts_aside_what_nobody_can_read(
        aws, functions, monkeypatch):
    handler, aside = sys.modules["handler"], []

    class Queue:
        def send_message(self, QueueUrl, MessageBody):
            assert QueueUrl == "refused"
            aside.append(json.loads(MessageBody))

    monkeypatch.setitem(handler.CONTEXT, "queue", Queue())

    def data(text):
        return {"Data": base64.b64encode(text.encode()).decode()}

    whole = dict(json.loads(batch()), **record(1, power=1))
    one = json.dumps({key: value for key, value in whole.items() if key != "records"})
    event = stream_event([data("no JSON"), data(one), data(batch(record(2, power=2))),
                          data('{"data":"!"}'), data('{"data":"/w=="}')])
    aws.tables.operations["BatchWriteItem"], asked = failing, aws.tables.batch_write_item
    assert invoke(functions, event) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert not aside
    with pytest.raises(Exception):
        invoke(functions, of_topic(json.loads(one)))
    aws.tables.operations["BatchWriteItem"] = asked
    assert invoke(functions, event) == {"batchItemFailures": []}
    assert len(aws.tables.items["readings"]) == 2
    assert [message["message"] for message in aside] == \
        ["no JSON", '{"data":"!"}', '{"data":"/w=="}']
    invoke(functions, of_topic(json.loads(one.replace('"power": 1', '"power": 5'))))
    assert "another value" in aside[3]["why"] and len(aws.tables.items["readings"]) == 2


def test_a_message_cannot_pass_for_a_request(aws, functions, monkeypatch):
    """Who may publish must not be able to write as another user."""
    rule = next(iter(Template(TEMPLATE).of_type("AWS::IoT::TopicRule").values()))
    assert rule["TopicRulePayload"]["Sql"].startswith("SELECT encode(*, 'base64') AS data FROM")
    handler, aside = sys.modules["handler"], []
    monkeypatch.setattr(handler, "set_aside", lambda text, why: aside.append(why))
    forged = {"rawPath": "/v1/readings", "headers": {}, "body": batch(record(1, power=1)),
              "requestContext": {"http": {"method": "POST"}, "authorizer": {
                  "lambda": {"user": "egmond", "right": "write"}}}}
    invoke(functions, of_topic(forged))
    invoke(functions, of_topic(dict(forged, data=wrap(json.loads(batch(record(1, power=1)))))))
    invoke(functions, stream_event([{"Data": wrap(forged)}]))
    assert len(aside) == 3 and not aws.tables.items["readings"]
    assert json.loads(invoke(functions, dict(forged, requestContext={
        "http": {"method": "POST"}}))["body"])["error"]["code"] == "forbidden"


def failing(_request):
    raise Refusal(400, "AccessDeniedException", "no right to write")


# -- Timestream --

def test_timestream_takes_it_too(tmp_path, aws, functions, api, monkeypatch):
    monkeypatch.setenv("TARGET", "timestream")
    gateway = site(tmp_path, aws, api).start()
    gateway.wait_delivered(400, 30)
    aws.wild = True
    gateway.wait_delivered(1000, 60)
    gateway.stop_polling()
    aws.wild = False
    ledger = gateway.drain(60)
    assert ledger["dead"] == 0
    assert sum(len(values) - 1 for values in aws.timestream.values()) == ledger["read"]
    assert {dict(key[0])["user"] for key in aws.timestream} == {"borssele"}
    token = make_token(aws, "add", "borssele", "write")
    odd = {f"p{i}": i for i in range(600)}
    odd.update({"device": 1, "x_quality": 2, "x": 3, "seq": 4, "text": "y" * 1000})
    one = dict(record(1), values=odd, device="odd", quality={"x": "uncertain"})
    assert ask(api, "POST", token=token, body=batch(one))[2] == {"accepted": 1}
    assert ask(api, "POST", token=token, body=batch(one))[2] == {"accepted": 1}
    names = [name for key, values in aws.timestream.items() if dict(key[0])["device"] == "odd"
             for name in values if name != "seq"]
    assert len(names) == len(set(names)) == 606
    assert {"device_", "x_quality", "x_quality_", "seq_"} <= set(names)
    others = dict(record(1, power=1), device="odd"), record(2, text="y" * 1025), record(3, power=1)
    reply = ask(api, "POST", token=token, body=batch(*others))[2]
    assert reply["accepted"] == 1
    assert {one["seq"]: one["reason"].split(" ")[1] for one in reply["rejected"]} == \
        {1: "value", 2: "text"}


def test_timestream_is_asked(functions, monkeypatch):
    asked = []

    class Query:
        def query(self, QueryString, **more):
            asked.append(QueryString)
            columns = [("at", "BIGINT"), ("gateway", "VARCHAR"), ("store", "VARCHAR"),
                       ("stream", "VARCHAR"), ("seq", "BIGINT"), ("value", "DOUBLE")]
            at = 1769855401250000001 if not more else 1769855402250000002
            data = [{"ScalarValue": text}
                    for text in (str(at), "g", "s", "raw", str(at % 9), "8.5")]
            reply = {"ColumnInfo": [{"Name": name, "Type": {"ScalarType": kind}}
                                    for name, kind in columns], "Rows": [{"Data": data}]}
            return reply if more else dict(reply, NextToken="x")

    timestream, handler = sys.modules["timestream"], sys.modules["handler"]
    monkeypatch.setitem(handler.CONTEXT, "store",
                        timestream.Timestream(None, Query(), "wind", "readings"))
    event = {"rawPath": "/v1/readings", "queryStringParameters": {
        "device": "o'brien", "point": 'a"b', "limit": "2"}, "requestContext": {
            "http": {"method": "GET"}, "authorizer": {"lambda": {"user": "u", "right": "read"}}}}
    reply = json.loads(invoke(functions, event)["body"])
    assert [row["value"] for row in reply["readings"]] == [8.5, 8.5]
    assert reply["readings"][0]["time"] == "2026-01-31T10:30:01.250Z"
    assert "'o''brien'" in asked[0] and '"a""b"' in asked[0] and "\"user\" = 'u'" in asked[0]
    event["queryStringParameters"]["next"] = reply["next"]
    invoke(functions, event)
    assert f"from_nanoseconds({int(reply['next']) + 1})" in asked[-1]


# -- dashboards --

def dashboard(name):
    with open(os.path.join(FOLDER, "grafana", name + ".json"), encoding="utf-8") as file:
        board = json.load(file)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and board["templating"]["list"]
    source = "${" + board["__inputs"][0]["name"] + "}"
    assert all(panel["datasource"]["uid"] == source for panel in board["panels"])
    return board


def fill_in(text, **variables):
    for name, value in variables.items():
        for form in ("${" + name + "}", "${" + name + ":regex}", "$" + name):
            text = text.replace(form, str(value))
    assert "$" not in text.replace("$/", ""), text
    return text


def test_the_dashboard_of_the_api(tmp_path, aws, api):
    gateway = site(tmp_path, aws, api).start()
    gateway.wait_delivered(200, 30)
    reader = make_token(aws, "add", "borssele", "read")
    for panel in dashboard("api")["panels"]:
        for target in panel["targets"]:
            path, _, query = target["url"].partition("?")
            query = fill_in(query, device="t01", point="power", other="wind_speed", __from=0,
                            __to=4102444800000)
            assert path == "/v1/readings"
            status, _, reply = ask(api, "GET", "?" + query, reader)
            assert status == 200 and reply[target["root_selector"]], query
            assert all(column["selector"] in reply["readings"][0] for column in target["columns"])


def test_the_dashboard_of_influx(tmp_path):
    server = InfluxDB(tmp_path).start()
    server.create()
    simulator = Simulator(tmp_path, 2).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="100 ms")
    gateway.set("uplink cloud", type="influx", url=server.url, version="v1", db="wind", send="raw",
                batch_interval="100 ms").start()
    gateway.wait_delivered(200, 30)
    simulator.process.kill()
    wait_for(lambda: server.query('SELECT last(/_quality$/) FROM "readings"'), 30, "bad readings")
    board = dashboard("influx")
    for variable in board["templating"]["list"]:
        assert server.query(variable["query"]), variable["query"]
    for panel in board["panels"]:
        for target in panel["targets"]:
            query = fill_in(target["query"], device="(t01|t02)", point="power", __interval="10s",
                            timeFilter="time > now() - 1h")
            assert server.query(query), query
