"""`windrow uplink test`: each thing that can be wrong between gateway and cloud is named in its own
step, with the mend, and what is well stays well."""
import contextlib
import datetime
import json
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading

import pytest

import kafka
import mosquitto
import postgres
from certificates import Authority
from endpoint import Endpoint, accept_all, captive_portal, old_tls
from fake_aws import FakeAws, Refusal
from fake_s3 import FakeS3
from iot_core import IotCore
from process import free_ports, program
from site_parts import Gateway, Sink

URL = "https://cloud.example.com/v1/readings"


class Site:
    """A configuration with one uplink, and the command that tests it."""

    def __init__(self, folder):
        self.gateway = Gateway(folder)
        self.authority = Authority(os.path.join(str(folder), "ca"))

    def file(self, name, text, mode=0o600):
        path = self.gateway.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def configure(self, **keys):
        self.gateway.sections.pop("uplink cloud", None)
        self.gateway.set("uplink cloud", **keys).write()

    def test(self, *options, **keys):
        """(exit status, {step: its object}); both forms of the answer say the same."""
        if keys:
            self.configure(**keys)
        status, output, errors = self.gateway.cli("uplink", "test", "cloud", "--json", *options)
        assert output, errors
        answer = json.loads(output)
        assert answer["well"] == (status == 0) and status in (0, 1), answer
        return status, {step["step"]: step for step in answer["steps"]}

    def http(self, endpoint, *options, **keys):
        url = endpoint if isinstance(endpoint, str) else endpoint.url
        return self.test(*options, **dict({"type": "http", "url": url,
                                           "ca_file": self.authority.cert}, **keys))


@pytest.fixture(name="site", scope="module")
def make_site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("uplink"))


def assert_bad(result, step, *words):
    """That step alone is bad, says all these words, and knows a mend; nothing was written."""
    status, steps = result
    assert status == 1
    assert [name for name, one in steps.items() if one["verdict"] == "bad"] == [step], steps
    found = (steps[step]["found"] + " " + steps[step].get("mend", "")).lower()
    assert all(word in found for word in words), steps[step]
    assert steps[step]["mend"] and steps["write"]["verdict"] == "skipped"


def test_well(site, tmp_path):
    sink = Sink(tmp_path, site.authority).start()
    now = datetime.datetime.utcnow()
    end = (now + datetime.timedelta(days=12)).strftime("%Y%m%d%H%M%SZ")
    cert, key = site.authority.issue("gw", start="20240101000000Z", end=end)
    token = site.file("token", "secret")
    status, steps = site.http(sink, token_file=token, cert_file=cert, key_file=key)
    assert status == 0, steps
    assert {name: one["verdict"] for name, one in steps.items()} == {
        "token": "good", "our certificate": "warning", "connection": "good", "TLS": "good",
        "certificate": "good", "request": "good", "write": "skipped", "clock": "good"}
    assert "TLSv1.3" in steps["TLS"]["found"] and steps["TLS"]["ms"] > 0
    assert "sink" in steps["certificate"]["found"] and "days" in steps["certificate"]["found"]
    assert "Windrow test ca" in steps["certificate"]["found"]
    assert "gw" in steps["our certificate"]["found"] and "ends soon" in \
        steps["our certificate"]["mend"]
    assert sink.count() == 0, "without --write nothing arrives"
    status, steps = site.test("--write")
    assert status == 0 and steps["write"]["verdict"] == "good", steps
    assert sink.query("SELECT device, point FROM readings") == [("windrow-test", "test")]
    status, text, _ = site.gateway.cli("uplink", "test")
    assert status == 0 and "cloud, http" in text and "well" in text


def test_runs_beside_the_daemon(site, tmp_path):
    """The daemon is not touched: its own connection and its socket are no part of this."""
    sink = Sink(tmp_path, site.authority).start()
    site.configure(type="http", url=sink.url, ca_file=site.authority.cert)
    site.gateway.start()
    assert site.test()[0] == 0
    site.gateway.stop()
    assert site.test()[0] == 0


def test_unknown_name(site):
    site.configure(type="http", url=URL)
    status, _, errors = site.gateway.cli("uplink", "test", "clod")
    assert status == 2 and "cloud" in errors
    assert site.gateway.cli("uplink", "tset")[0] == 2


def test_configuration(site):
    """What the configuration refuses is told with its line, and exit 2."""
    for path, word in ((site.gateway.path("none"), "does not exist"),
                       (site.file("open", "secret", 0o644), "chmod 600"),
                       (site.file("empty", "\n"), "empty")):
        site.configure(type="http", url=URL, token_file=path)
        status, output, _ = site.gateway.cli("uplink", "test", "cloud")
        assert status == 2 and "token_file" in output and word in output
        answer = json.loads(site.gateway.cli("uplink", "test", "cloud", "--json")[1])
        assert answer["well"] is False and word in answer["errors"][0]


def test_refused(site):
    assert_bad(site.http(f"https://127.0.0.1:{free_ports()}/"), "connection", "refuses", "port")


def test_silent(site):
    """A port that takes the connection and says nothing."""
    server = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler, False)
    server.server_bind()
    server.server_activate()
    assert_bad(site.http(f"https://127.0.0.1:{server.server_address[1]}/",
                         connect_timeout="300 ms"), "TLS", "no answer", "firewall")
    server.server_close()


@pytest.mark.parametrize("name, issue, words", [
    ("host", lambda a: a.issue("other", "DNS:other.example"), ("another host", "other.example")),
    ("old", lambda a: a.issue("old", start="20230101000000Z", end="20230201000000Z"),
     ("expired", "2023-02-01", "days ago", "clock")),
    ("new", lambda a: a.issue("new", start="20480101000000Z", end="20490101000000Z"),
     ("not valid yet", "2048-01-01", "here it is", "clock")),
    ("alone", lambda a: a.self_signed("alone"), ("self-signed", "ca_file")),
    ("stranger", lambda a: Authority(a.path("stranger"), "stranger").issue("good"),
     ("do not know", "windrow test stranger", "ca_file")),
])
def test_certificate(site, name, issue, words):
    endpoint = Endpoint(*issue(site.authority), accept_all)
    assert_bad(site.http(endpoint), "certificate", *words)
    assert endpoint.bytes_in == 0, f"{name}: nothing is said to whom we do not trust"
    endpoint.close()


def test_two_faults_at_once(site):
    cert = site.authority.issue("both", "DNS:other.example", start="20230101000000Z",
                                end="20230201000000Z")
    endpoint = Endpoint(*cert, accept_all)
    assert_bad(site.http(endpoint), "certificate", "expired", "another host")
    endpoint.close()


def test_revoked(site, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert = authority.issue("revoked")
    endpoint = Endpoint(*cert, accept_all)
    authority.revoke(cert[0])
    assert_bad(site.http(endpoint, ca_file=authority.cert, crl_file=authority.crl()),
               "certificate", "revoked")
    endpoint.close()


def test_old_tls(site):
    endpoint = Endpoint(*site.authority.issue("good"), accept_all, old_tls())
    assert_bad(site.http(endpoint), "TLS", "older than 1.2")
    endpoint.close()


def test_our_certificate(site, tmp_path):
    stranger = Authority(tmp_path / "stranger", "stranger")
    (cert, key), (_, other) = site.authority.issue("gw"), stranger.issue("gw")
    status, steps = site.http(URL, cert_file=cert, key_file=other)
    assert status == 1 and "cannot be used" in steps["our certificate"]["found"]
    assert "connection" not in steps
    old = site.authority.issue("gone", start="20230101000000Z", end="20230201000000Z")
    status, steps = site.http(f"https://127.0.0.1:{free_ports()}/", cert_file=old[0],
                              key_file=old[1])
    assert "expired" in steps["our certificate"]["found"]
    assert steps["our certificate"]["verdict"] == "bad"
    assert "new certificate" in steps["our certificate"]["mend"] and key


def test_portal_over_tls(site):
    endpoint = Endpoint(*site.authority.issue("portal"), captive_portal)
    assert_bad(site.http(endpoint), "request", "captive portal", "200")
    endpoint.answer = lambda *_: (302, "text/plain", "")
    assert_bad(site.http(endpoint), "request", "captive portal", "302")
    endpoint.close()


def test_portal_without_tls(site):
    """It answers plain HTTP where TLS is expected, and its words are shown."""
    class Portal(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.0 302 Found\r\n"
                             b"Location: http://login.harbour/\x1b[2J\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Portal) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        result = site.http(f"https://127.0.0.1:{server.server_address[1]}/")
        assert_bad(result, "TLS", "does not speak tls", "302", "login.harbour", "captive portal")
        assert "\x1b" not in site.gateway.cli("uplink", "test", "cloud")[1]
        server.shutdown()


@pytest.mark.parametrize("status, body, step, verdict, words", [
    (401, "who are you", "request", "bad", ("token_file",)),
    (404, "", "request", "bad", ("path", "url")),
    (400, "records must not be empty", "request", "warning", ("--write",)),
    (200, "{}", "request", "warning", ("accepted", "ack = status")),
    (503, "", "request", "bad", ("503",)),
])
def test_answers(site, status, body, step, verdict, words):
    endpoint = Endpoint(*site.authority.issue("good"),
                        lambda *_: (status, "application/json", body))
    _, steps = site.http(endpoint)
    found = steps[step]["found"] + " " + steps[step].get("mend", "")
    assert steps[step]["verdict"] == verdict and all(word in found for word in words), steps[step]
    endpoint.close()


def test_write_is_refused(site):
    endpoint = Endpoint(*site.authority.issue("good"), lambda _path, _headers, body: (
        (200, "application/json", '{"accepted":0}') if b'"records":[]' in body else
        (200, "text/html", "<html>")))
    status, steps = site.http(endpoint, "--write")
    assert status == 1 and steps["write"]["verdict"] == "bad" and steps["write"]["found"]
    endpoint.close()


def inside(site, resolver, *words, network=True):
    """The command in namespaces of its own: another /etc/resolv.conf, or no network at all."""
    path = site.file("resolv.conf", resolver, 0o644)
    kinds = "-m" if network else "-nm"
    result = subprocess.run(
        ["unshare", kinds, "sh", "-c", f"mount --bind {path} /etc/resolv.conf && exec \"$@\"", "sh",
         program("windrow"), "uplink", "-c", site.gateway.config_path, "test", "cloud", "--json",
         *words], capture_output=True, text=True, timeout=90, check=False)
    answer = json.loads(result.stdout)
    return result.returncode, {step["step"]: step for step in answer["steps"]}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root")
def test_no_name(site):
    """No network, no name server and no such name are told apart."""
    site.configure(type="http", url=URL, connect_timeout="3 s")
    if subprocess.run(["unshare", "-nm", "true"], check=False).returncode != 0:
        pytest.skip("no namespaces here")
    assert_bad(inside(site, "nameserver 127.0.0.1\n", network=False), "name", "no network")
    result = inside(site, "nameserver 127.77.0.1\noptions timeout:1 attempts:1\n")
    assert_bad(result, "name", "name server", "127.77.0.1", "does not answer")


def test_unknown_host(site):
    """By the hosts file and whatever DNS there is: .invalid never resolves (RFC 6761)."""
    site.configure(type="http", url="https://nowhere.invalid/", connect_timeout="5 s")
    status, steps = site.test()
    assert status == 1 and steps["name"]["verdict"] == "bad" and "nowhere.invalid" in \
        steps["name"]["found"]


def test_proxy(site, tmp_path):
    """The way through a proxy of the environment, and one that leads nowhere."""
    sink = Sink(tmp_path, site.authority).start()
    site.configure(type="http", url=sink.url.replace("127.0.0.1", "localhost"),
                   ca_file=site.authority.cert)

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self):
            request = self.rfile.readline().decode()
            while self.rfile.readline().strip():
                pass
            asked.append(request.split()[1])
            if not leads:
                self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            forward(self.connection, sink.port)

    asked, leads = [], []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        os.environ["https_proxy"] = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            assert_bad(site.test(), "connection", "proxy", "407", "https_proxy")
            leads.append(True)
            status, steps = site.test()
            assert status == 0 and "leads on" in steps["connection"]["found"], steps
            assert steps["request"]["verdict"] == "good" and len(set(asked)) == 1
            os.environ["no_proxy"] = "example.com, localhost"
            before = len(asked)
            assert site.test()[0] == 0 and len(asked) == before
        finally:
            os.environ.pop("https_proxy")
            os.environ.pop("no_proxy", None)
        server.shutdown()


def forward(client, port):
    with socket.create_connection(("127.0.0.1", port)) as server:
        def back():
            with contextlib.suppress(OSError):  # the client may leave first
                while data := server.recv(65536):
                    client.sendall(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        while data := client.recv(65536):
            server.sendall(data)


# -- services of AWS, by the stand-in that checks every signature --

AWS_TYPES = {"timestream": {"database": "wind", "table": "readings"},
             "dynamodb": {"table": "readings"}, "kinesis": {"stream": "readings"},
             "sqs": {"queue_url": "https://sqs.eu-west-1.amazonaws.com/1/readings"}}


@pytest.fixture(name="fake")
def make_fake():
    fake = FakeAws()
    yield fake
    assert not fake.problems
    fake.close()


def aws(site, fake, kind, *options, **keys):
    text = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret/key\n"
    given = {"type": kind, "region": "eu-west-1", "endpoint": fake.url,
             "credentials": "file:" + site.file("aws.ini", text), **AWS_TYPES[kind]}
    return site.test(*options, **dict(given, **keys))


@pytest.mark.parametrize("kind", AWS_TYPES)
def test_aws(site, fake, kind):
    status, steps = aws(site, fake, kind, "--write")
    assert status == 0 and steps["request"]["verdict"] == "good", steps
    assert steps["write"]["verdict"] == "good" and "AKID...MPLE" in steps["credentials"]["found"]
    assert "secret" not in json.dumps(steps)
    fake.resources = set()
    assert_bad(aws(site, fake, kind), "request", "not found", "region")


def test_aws_policies_and_keys(site, fake):
    fake.script = [Refusal(400, "AccessDeniedException", "not authorized to perform: kinesis")]
    status, steps = aws(site, fake, "kinesis")
    assert status == 0 and steps["request"]["verdict"] == "warning"
    assert "kinesis:DescribeStreamSummary" in steps["request"]["mend"]
    fake.takes_late = False
    assert "dead letters" in aws(site, fake, "timestream")[1]["request"]["mend"]
    assert_bad(aws(site, fake, "dynamodb", partition_key="id"), "request", "partition_key", "pk")
    fake.sort_type = "S"
    assert_bad(aws(site, fake, "dynamodb"), "request", "sort key a number", "keys are pk and ts")
    fake.keys = ("AKIDOTHER", "x")
    assert_bad(aws(site, fake, "sqs"), "request", "unrecognizedclient", "keys")
    none = site.file("none.ini", "[default]\naws_access_key_id = A\n")
    status, steps = aws(site, fake, "sqs", credentials="file:" + none)
    assert status == 1 and "secret access key is missing" in steps["credentials"]["found"]


def test_aws_clock(site, fake):
    fake.skew_s = 4000
    status, steps = aws(site, fake, "kinesis")
    assert status == 1 and steps["clock"]["verdict"] == "bad", steps
    assert "behind" in steps["clock"]["found"] and "timedatectl" in steps["clock"]["mend"]
    assert "Signature expired" in steps["request"]["found"]
    fake.skew_s = -60
    status, steps = aws(site, fake, "kinesis")
    assert status == 0 and steps["clock"]["verdict"] == "warning" and "ahead" in \
        steps["clock"]["found"]


def test_aws_from_provider(site, fake):
    cert, key = site.authority.issue("gw")
    keys = {"credentials": f"iot:{fake.url}/role-aliases/gw/credentials", "thing": "borssele-1",
            "cert_file": cert, "key_file": key}
    status, steps = aws(site, fake, "kinesis", **keys)
    assert status == 0 and "good for" in steps["credentials"]["found"], steps
    keys["thing"] = "borssele-2"
    status, steps = aws(site, fake, "kinesis", **keys)
    assert status == 1 and "403" in steps["credentials"]["found"]
    assert "thing" in steps["credentials"]["mend"]


# -- services of their own protocol --

@pytest.mark.skipif(not mosquitto.installed(), reason="no mosquitto")
def test_mqtt(site, tmp_path):
    broker = mosquitto.Broker(tmp_path, site.authority, acl="topic write sensors/+/telemetry\n")
    broker.start()
    cert, key = site.authority.issue("gw")
    good = {"type": "mqtt", "url": broker.url, "ca_file": site.authority.cert, "cert_file": cert,
            "key_file": key}
    status, steps = site.test("--write", **good)
    assert status == 0 and "gateway-test" in steps["greeting"]["found"], steps
    assert steps["write"]["verdict"] == "good"
    status, steps = site.test("--write", **dict(good, topic="forbidden/{device}"))
    assert status == 1 and "rights" in steps["write"]["found"], steps
    bare = {key: value for key, value in good.items() if key not in ("cert_file", "key_file")}
    assert_bad(site.test(**bare), "TLS", "wants a client certificate")
    cert, key = Authority(tmp_path / "stranger", "stranger").issue("gw")
    assert_bad(site.test(**dict(good, cert_file=cert, key_file=key)), "TLS",
               "does not take our certificate")


@pytest.mark.skipif(not postgres.BIN, reason="no PostgreSQL")
def test_postgres(site):
    server = postgres.Postgres(site.authority).start()
    for sql in ("CREATE USER gw PASSWORD 'pw'", "CREATE DATABASE wind"):
        assert server.try_sql(sql) is not None
    good = {"type": "postgres", "host": "127.0.0.1", "port": server.port, "database": "wind",
            "user": "gw", "ca_file": site.authority.cert, "password_file": site.file("pw", "pw")}
    assert_bad(site.test(**good), "table", "may not make it", "grant create")
    server.try_sql("GRANT ALL ON SCHEMA public TO gw", "wind")
    status, steps = site.test("--write", **good)
    assert status == 0 and "over TLS" in steps["login"]["found"], steps
    assert "will be made" in steps["table"]["found"] and steps["write"]["verdict"] == "good"
    assert server.try_sql("SELECT device FROM readings", "wind") == "windrow-test"
    status, steps = site.test(**good)
    assert status == 0 and "no TimescaleDB" in steps["table"]["found"]
    server.try_sql("ALTER TABLE readings DROP CONSTRAINT readings_pkey", "wind")
    assert "PRIMARY KEY" in site.test(**good)[1]["table"]["mend"]
    assert_bad(site.test(**dict(good, password_file=site.file("bad", "x"))), "login", "28p01",
               "password_file")
    assert_bad(site.test(**dict(good, database="wint")), "login", "wint", "psql -l")
    server.process.stop()
    shutil.rmtree(server.folder)


def test_file(site, tmp_path):
    status, steps = site.test(type="file", path=tmp_path / "readings.ndjson")
    assert status == 0 and steps["write"]["ms"] > 0 and os.listdir(tmp_path) == []
    status, steps = site.test(type="file", path=tmp_path / "usb" / "readings.ndjson")
    assert status == 1 and "mounted" in steps["folder"]["mend"]
    status, steps = site.test(type="file", path=tmp_path / "readings.ndjson", min_free="100 TiB")
    assert status == 1 and "min_free" in steps["room"]["mend"]


def test_kafka(site, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*site.authority.issue("kafka"))
    cluster = kafka.Cluster(tmp_path).start()
    front = kafka.Front(cluster.port, context, {"windrow": "right"}, ["SCRAM-SHA-256"])
    good = {"type": "kafka", "brokers": f"127.0.0.1:{front.port}", "ca_file": site.authority.cert,
            "sasl": "scram-sha-256", "user": "windrow",
            "password_file": site.file("password", "right")}
    status, steps = site.test("--write", **good)
    assert status == 0 and "3 partitions" in steps["topic"]["found"], steps
    assert steps["write"]["verdict"] == "good"
    assert_bad(site.test(**dict(good, password_file=site.file("other", "wrong"))), "topic",
               "authentication", "password_file")
    assert_bad(site.test(**dict(good, sasl="plain")), "topic", "plain", "sasl")
    cluster.tell("topic", "windrow.raw", kafka.UNKNOWN_TOPIC)
    assert_bad(site.test(**good), "topic", "unknown topic", "auto.create.topics")
    stranger = Authority(tmp_path / "stranger", "stranger")
    assert_bad(site.test(**dict(good, ca_file=stranger.cert)), "certificate", "authority")
    front.close()


def test_s3(site):
    s3 = FakeS3()
    keys = site.file("aws.ini", "[default]\naws_access_key_id = AKIDEXAMPLE\n"
                     "aws_secret_access_key = secret/key\n")
    good = {"type": "s3", "region": "eu-west-1", "bucket": s3.bucket, "endpoint": s3.url,
            "credentials": "file:" + keys}
    status, steps = site.test("--write", **good)
    assert status == 0 and steps["write"]["verdict"] == "good", steps
    assert list(s3.records())[0][0] == "windrow-test" and not s3.problems
    status, steps = site.test("--write", **dict(good, bucket="another"))
    assert status == 1 and "no such bucket" in steps["write"]["found"]
    s3.close()


def test_iot_https(site):
    core = IotCore(site.authority, "x-amzn-http-ca")
    cert, key = site.authority.issue("gw")
    good = {"type": "iot-https", "url": f"https://127.0.0.1:{core.port}", "cert_file": cert,
            "key_file": key, "ca_file": site.authority.cert, "alpn": "x-amzn-http-ca"}
    status, steps = site.test("--write", **good)
    assert status == 0 and steps["write"]["verdict"] == "good", steps
    assert core.protocols == {"x-amzn-http-ca"} and len(core.published) == 1
    core.forbidden = "sensors/"
    status, steps = site.test("--write", **good)
    assert status == 1 and "iot:Publish" in steps["write"]["found"]
    core.close()
