"""An HTTPS endpoint of a test's own, which counts what reaches it."""
import http.server
import json
import socketserver
import ssl
import threading


class Endpoint:
    """Serves on a free loopback port until close(). `answer` is called with (path, headers, body)
    and returns (status, content type, body); it may be changed while the endpoint runs."""

    def __init__(self, cert, key, answer, context=None, port=0):
        self.answer, self.lock = answer, threading.Lock()
        self.connections = self.refused = self.bytes_in = 0
        self.requests = []
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server = self.make_server(context, port)
        self.port = self.server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}/v1/readings"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def make_server(self, context, port):
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self):
                with endpoint.lock:
                    endpoint.connections += 1
                try:
                    self.request = context.wrap_socket(self.request, server_side=True)
                except OSError:
                    with endpoint.lock:
                        endpoint.refused += 1
                    self.request = None
                    return
                super().setup()

            def handle(self):
                if self.request is None:
                    return
                try:
                    super().handle()
                except OSError:  # the peer took its leave in the middle, as it may
                    with endpoint.lock:
                        endpoint.refused += 1

            def finish(self):
                if self.request is not None:
                    super().finish()

            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                if len(body) < length:  # the request was cut off on the way
                    self.close_connection = True
                    return
                with endpoint.lock:
                    endpoint.bytes_in += len(body)
                    endpoint.requests.append((self.path, dict(self.headers), body))
                lower = {name.lower(): value for name, value in self.headers.items()}
                status, headers, reply = endpoint.exchange(self.command, self.path, lower, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_OPTIONS = do_POST

            def parse_request(self):
                with endpoint.lock:
                    endpoint.bytes_in += len(self.raw_requestline)
                return super().parse_request()

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a refused hand-shake is what many of the tests are about

        return Server(("127.0.0.1", port), Handler)

    def exchange(self, _method, path, headers, body):
        """(status, headers, body) of a request; others than this one may have more to say."""
        status, kind, reply = self.answer(path, headers, body)
        return status, {"Content-Type": kind}, reply.encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def accept_all(_path, _headers, body):
    """What a proper endpoint says to a batch."""
    return 200, "application/json", json.dumps({"accepted": len(json.loads(body)["records"])})


def captive_portal(_path, _headers, _body):
    return 200, "text/html", "<html><body>Please log in to HarbourWiFi</body></html>"


def old_tls():
    """A server that speaks nothing newer than TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context
