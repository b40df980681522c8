"""A stand-in for AWS IoT Core's HTTPS endpoint, POST /topics/TOPIC?qos=1: mutual TLS, its limits,
and its answers."""
import json
import ssl
import threading
import urllib.parse

from endpoint import Endpoint
from process import free_ports

PAYLOAD_MAX, TOPIC_MAX, SLASHES_MAX = 128 * 1024, 256, 7


class IotCore:
    """published: (topic, bytes). `script`: (status, body) for the next requests, whatever these
    want; `forbidden`: topics that the policy does not allow begin so."""

    def __init__(self, authority, alpn=None):
        self.authority, self.alpn, self.lock = authority, alpn, threading.Lock()
        self.cert, self.key = authority.issue("iot", "IP:127.0.0.1,DNS:localhost")
        self.published, self.script, self.forbidden, self.traces = [], [], (), 0
        self.protocols = set()
        self.endpoint = self.serve(free_ports())  # restart() comes back to it

    def serve(self, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(self.authority.cert)
        context.verify_mode = ssl.CERT_REQUIRED
        if self.alpn:
            context.set_alpn_protocols([self.alpn])
            wrap = context.wrap_socket

            def wrap_and_look(*words, **more):
                one = wrap(*words, **more)
                self.protocols.add(one.selected_alpn_protocol())
                return one

            context.wrap_socket = wrap_and_look
        return Endpoint(self.cert, self.key, self.answer, context, port)

    @property
    def port(self):
        return self.endpoint.port

    def restart(self):
        self.endpoint.close()
        self.endpoint = self.serve(self.endpoint.port)

    def close(self):
        self.endpoint.close()

    def answer(self, path, _headers, body):
        with self.lock:
            self.traces += 1
            status, message = self.script.pop(0) if self.script else self.publish(path, body)
            if isinstance(message, str) and message.startswith("<"):
                return status, "text/html", message
            return status, "application/json", \
                json.dumps({"message": message, "traceId": f"trace-{self.traces}"})

    def publish(self, path, body):
        where, _, query = path.partition("?")
        topic = urllib.parse.unquote(where[len("/topics/"):])
        counted = topic.split("/", 3)[-1] if topic.startswith("$aws/rules/") else topic
        if not where.startswith("/topics/") or "/" in where[len("/topics/"):]:
            return 404, "Not Found"
        if query != "qos=1" or len(topic) > TOPIC_MAX or counted.count("/") > SLASHES_MAX:
            return 400, "Bad Request"
        if len(body) > PAYLOAD_MAX:
            return 413, "Request Entity Too Large"
        if topic.startswith(self.forbidden or "\0"):
            return 403, "Forbidden"
        self.published.append((topic, body))
        return 200, "OK"

    def records(self):
        """(device, seq) -> values; what comes twice must be the same."""
        with self.lock:
            published = list(self.published)
        found = {}
        for _, body in published:
            payload = json.loads(body)
            for one in payload.get("records", [payload]):
                device = one.get("device", one.get("deviceId"))
                values = one.get("values", one.get("readings"))
                assert found.setdefault((device, one["seq"]), values) == values
        return found
