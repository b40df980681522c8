"""How requests travel: HTTP/2 and 1.1, connections and TLS sessions used again, proxies, and
certificates that change or expire while the gateway runs. Servers and proxies are not ours."""
import datetime
import os
import re
import shutil
import subprocess

import pytest

from certificates import Authority
from endpoint import Endpoint, accept_all
from process import Process, free_ports, wait_for
from relay import Relay
from site_parts import Gateway, Simulator, Sink

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr info;
events {{ worker_connections 64; }}
http {{
  log_format how '$server_protocol $connection $ssl_session_reused $status $msec $request_time '
                 '$ssl_client_serial';
  access_log {folder}/access.log how;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl{http2};
    ssl_certificate {cert}; ssl_certificate_key {key}; ssl_session_cache shared:one:1m;
    ssl_protocols TLSv1.2 TLSv1.3; keepalive_requests {each}; {more}
    location / {{ proxy_pass https://127.0.0.1:{sink}; }}
  }}
}}
"""


class Nginx:
    """Hands on to a sink; log() tells of each request how it came."""

    def __init__(self, folder, sink, http2=False, each=1000, more=""):
        self.port, self.log_path = free_ports(), folder / "access.log"
        cert, key = sink.authority.issue("nginx")
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=self.port, cert=cert, key=key,
                                       sink=sink.port, http2=" http2" if http2 else "", each=each,
                                       more=more))
        Process("nginx", ["/usr/sbin/nginx", "-c", config, "-p", folder, "-e", "stderr"],
                folder).start().wait_port(self.port)

    def log(self):
        """[(protocol, connection, resumed, status, began, ended, client's serial)]"""
        def read(line):
            protocol, connection, reused, status, ended, took, serial = line.split()
            return (protocol, connection, reused == "r", int(status), float(ended) - float(took),
                    float(ended), serial)
        return [read(line) for line in self.log_path.read_text().splitlines()]


@pytest.fixture(name="sink")
def make_sink(tmp_path):
    return Sink(tmp_path).start()


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    return Gateway(tmp_path).turbines(Simulator(tmp_path, 4).start(), poll="50 ms")


def url(port):
    return f"https://127.0.0.1:{port}/v1/readings"


def deliver(gateway, sink, readings=1500):
    """So many more, all of which the sink holds in the end; returns the ledger."""
    gateway.wait_delivered(gateway.uplink_state()["delivered"] + readings, 30)
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sink.count() == ledger["delivered"] == ledger["read"] and sink.count("conflicts") == 0
    return ledger


def test_http2_is_one_connection_for_all(tmp_path, gateway):
    """Negotiated by ALPN; requests overlap on the one connection."""
    sink = Sink(tmp_path, None, "--delay", "60").start()
    nginx = Nginx(tmp_path, sink, http2=True)
    gateway.uplink(sink, url=url(nginx.port), http2="yes", batch_records=5, parallel=4,
                   batch_interval="50 ms").start()
    deliver(gateway, sink)
    log = nginx.log()
    assert {entry[0] for entry in log} == {"HTTP/2.0"} and {entry[3] for entry in log} == {200}
    assert len({entry[1] for entry in log}) == 1
    spans = sorted((began, ended) for _, _, _, _, began, ended, _ in log)
    assert any(after[0] < before[1] - 0.01 for before, after in zip(spans, spans[1:]))


def test_http2_asked_of_a_server_without(tmp_path, gateway, sink):
    nginx = Nginx(tmp_path, sink)
    gateway.uplink(sink, url=url(nginx.port), http2="yes", batch_records=20).start()
    deliver(gateway, sink)
    log = nginx.log()
    assert {entry[0] for entry in log} == {"HTTP/1.1"} and len(log) > 10
    assert len({entry[1] for entry in log}) <= 4, "no more connections than requests in flight"


def test_http2_connections_that_the_server_ends(tmp_path, gateway, sink):
    """nginx says GOAWAY after some requests: nothing is lost, and nothing is told as a failure."""
    nginx = Nginx(tmp_path, sink, http2=True, each=10)
    gateway.uplink(sink, url=url(nginx.port), http2="yes", batch_records=5,
                   batch_interval="50 ms").start()
    deliver(gateway, sink)
    log = nginx.log()
    assert {entry[0] for entry in log} == {"HTTP/2.0"}
    assert len({entry[1] for entry in log}) >= len(log) / 12
    assert sink.count("repeats") == 0


def test_sessions_are_resumed(tmp_path, gateway, sink):
    """By every connection but the first ones, also after an outage."""
    nginx = Nginx(tmp_path, sink, each=5)
    line = Relay(tmp_path, nginx.port).start()
    gateway.uplink(sink, url=url(line.port), batch_records=10, parallel=2).start()
    gateway.wait_delivered(1000, 30)
    line.cut()
    wait_for(lambda: gateway.uplink_state()["state"] == "backing off", 20, "the outage is felt")
    before = {entry[1] for entry in nginx.log()}
    line.start()
    deliver(gateway, sink)
    log, first = nginx.log(), {}
    for _, connection, resumed, *_ in log:
        first.setdefault(connection, resumed)
    assert len(first) > 5
    assert sum(not resumed for resumed in first.values()) <= 2, first
    assert first[min(set(first) - before, key=int)], "the first one after the outage"


TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 30
Allow 127.0.0.1
LogLevel Connect
ConnectPort {allowed}
{more}
"""


def tinyproxy(folder, allowed, more=""):
    port = free_ports()
    config = folder / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(port=port, allowed=allowed, more=more))
    process = Process("tinyproxy", ["/usr/bin/tinyproxy", "-d", "-c", config], folder).start()
    process.wait_port(port)
    return process, port


def error_of(gateway, *words):
    """The uplink's last error, once it has these words."""
    def found():
        error = gateway.uplink_state()["last_error"] or ""
        return error if all(word in error for word in words) else None
    return wait_for(found, 20, lambda: f"{words} in {gateway.uplink_state()}")


def write_login(folder, text):
    path = folder / "login"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_through_a_proxy(tmp_path, gateway, sink):
    process, port = tinyproxy(tmp_path, sink.port)
    gateway.uplink(sink, proxy=f"http://127.0.0.1:{port}").start()
    deliver(gateway, sink)
    assert re.search(rf"CONNECT 127.0.0.1:{sink.port}", process.log())
    status, output, errors = gateway.cli("uplink", "test", "cloud")
    assert status == 0 and f"127.0.0.1:{port}" in output, output + errors


def test_a_proxy_that_wants_a_password(tmp_path, gateway, sink):
    _, port = tinyproxy(tmp_path, sink.port, "BasicAuth windrow geheim")
    gateway.uplink(sink, proxy=f"http://127.0.0.1:{port}",
                   proxy_login_file=write_login(tmp_path, "windrow:falsch\n")).start()
    error_of(gateway, f"the proxy http://127.0.0.1:{port}", "proxy_login_file")
    assert gateway.uplink_state()["delivered"] == 0
    write_login(tmp_path, "windrow:geheim\n")
    gateway.reload()
    wait_for(lambda: gateway.get("/v1/status")["uplinks"], 10, "the uplink is there again")
    deliver(gateway, sink)


def test_a_proxy_that_is_not_there(gateway, sink):
    port = free_ports()
    gateway.uplink(sink, proxy=f"http://127.0.0.1:{port}").start()
    error_of(gateway, f"the proxy http://127.0.0.1:{port}", "refuses the connection")


def test_a_proxy_that_refuses(tmp_path, gateway, sink):
    _, port = tinyproxy(tmp_path, sink.port + 1)
    gateway.uplink(sink, proxy=f"http://127.0.0.1:{port}").start()
    error_of(gateway, f"the proxy http://127.0.0.1:{port}", "does not let us go there", "403")


def serial_of(cert):
    text = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-serial"], check=True,
                          capture_output=True, text=True).stdout
    return text.strip().split("=")[1]


def put_over(files, into):
    """Renames copies of the files over those of the folder `into`, one after the other."""
    for source, name in zip(files, ("gw.pem", "gw.key")):
        shutil.copy(source, into / "new")
        (into / "new").chmod(0o600)
        os.rename(into / "new", into / name)


def write_over(files, into):
    """The same, but into the files that are there."""
    for source, name in zip(files, ("gw.pem", "gw.key")):
        (into / name).write_text(open(source, encoding="utf-8").read())


def test_certificates_change_while_it_runs(tmp_path, gateway, sink):
    """By rename and in place; a pair that does not fit is told of, and the one before goes on."""
    authority, own = sink.authority, tmp_path / "own"
    own.mkdir()
    pairs = [authority.issue(f"gateway-{i}") for i in range(3)]
    nginx = Nginx(tmp_path, sink, more=f"ssl_client_certificate {authority.cert}; "
                                       "ssl_verify_client on;")
    put_over(pairs[0], own)
    gateway.uplink(sink, url=url(nginx.port), cert_file=own / "gw.pem", key_file=own / "gw.key")
    gateway.start()

    def shown(pair):
        return lambda: nginx.log() and nginx.log()[-1][6] == serial_of(pair[0])
    wait_for(shown(pairs[0]), 20, "the first certificate")
    put_over(pairs[1], own)
    wait_for(shown(pairs[1]), 20, "the second certificate")
    write_over((pairs[2][0], pairs[1][1]), own)
    warning = wait_for(lambda: gateway.uplink_state()["warning"], 20, "a warning")
    assert "key_file is not the key of cert_file" in warning and "goes on" in warning
    delivered = gateway.uplink_state()["delivered"]
    gateway.wait_delivered(delivered + 200)
    assert shown(pairs[1])()
    assert warning in gateway.cli("status")[1].replace("\n          ", " ")
    write_over(pairs[2], own)
    wait_for(shown(pairs[2]), 20, "the third certificate")
    wait_for(lambda: not gateway.uplink_state()["warning"], 20, "no warning")
    deliver(gateway, sink, 100)
    assert gateway.uplink_state()["failures"] == 0
    assert {entry[3] for entry in nginx.log()} == {200}


def test_an_authority_and_a_token_change_while_it_runs(tmp_path, gateway):
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    trusted, token = tmp_path / "trusted.pem", tmp_path / "token"
    shutil.copy(old.cert, trusted)
    token.write_text("one\n")
    token.chmod(0o600)
    endpoint = Endpoint(*new.issue("cloud"), accept_all)
    gateway.set("uplink cloud", type="http", url=endpoint.url, ca_file=trusted, send="raw",
                token_file=token, batch_records=10, batch_interval="100 ms").start()
    error_of(gateway, "authority that we do not know")
    shutil.copy(new.cert, trusted)
    gateway.wait_delivered(50)
    assert endpoint.requests[-1][1]["Authorization"] == "Bearer one"
    token.write_text("two\n")
    wait_for(lambda: endpoint.requests[-1][1]["Authorization"] == "Bearer two", 20, "the new token")
    endpoint.close()


def in_days(days):
    return (datetime.datetime.utcnow() + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


def test_expiry_is_told_a_month_ahead(tmp_path, gateway, sink):
    cert, key = sink.authority.issue("short", start=in_days(-1), end=in_days(12.5))
    gateway.uplink(sink, cert_file=cert, key_file=key).start()
    gateway.wait_delivered(50)
    warning = wait_for(lambda: gateway.uplink_state()["warning"], 10, "a warning")
    assert re.match(r"cert_file expires in 12 days, on \d{4}-\d\d-\d\d$", warning)
    assert f"uplink cloud: {warning}" in gateway.process.log()
    assert gateway.process.log().count(warning) == 1
    status, output, errors = gateway.cli("check")
    assert status == 0 and "the certificate expires in 12 days" in output + errors


def test_expiry_of_the_endpoint(tmp_path, gateway, sink):
    authority = sink.authority
    endpoint = Endpoint(*authority.issue("soon", start=in_days(-1), end=in_days(29.5)), accept_all)
    gateway.set("uplink cloud", type="http", url=endpoint.url, ca_file=authority.cert, send="raw",
                batch_records=10, batch_interval="100 ms").start()
    gateway.wait_delivered(50)
    warning = wait_for(lambda: gateway.uplink_state()["warning"], 10, "a warning")
    assert warning.startswith("the endpoint's certificate expires in 29 days")
    endpoint.close()


def test_a_certificate_that_lasts_is_not_mentioned(gateway, sink):
    cert, key = sink.authority.issue("long", start=in_days(-1), end=in_days(31))
    gateway.uplink(sink, cert_file=cert, key_file=key).start()
    gateway.wait_delivered(200)
    assert not gateway.uplink_state()["warning"] and "expires" not in gateway.process.log()
