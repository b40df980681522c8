"""API Gateway's HTTP API on loopback: what packaging/cloud/template.yaml describes, with the
functions called in this process. Its routes, its authoriser and its CORS are the template's."""
import base64
import json
import ssl
import threading
import time
import urllib.parse

from endpoint import Endpoint

PAYLOAD_MAX, LAMBDA_MAX = 10 * 1024 * 1024, 6 * 1024 * 1024


class Context:
    """What Lambda hands to a function beside the event."""

    def __init__(self, limit_s):
        self.end = time.monotonic() + limit_s

    def get_remaining_time_in_millis(self):
        return max(0, (self.end - time.monotonic()) * 1000)


class ApiGateway(Endpoint):
    """functions: the handlers by the logical name of their resource."""

    def __init__(self, template, functions, cert, key):
        self.functions, self.limit_s = functions, {}
        for name, one in template.of_type("AWS::Lambda::Function").items():
            self.limit_s[name] = one["Timeout"]
        self.routes = {one["RouteKey"]: one for one in
                       template.of_type("AWS::ApiGatewayV2::Route").values()}
        self.cors = next(iter(template.of_type("AWS::ApiGatewayV2::Api").values()))[
            "CorsConfiguration"]
        self.origins, self.cache, self.cache_s = ["https://dash.example.com"], {}, 0
        self.errors, self.events = [], 0
        self.invoking = threading.Semaphore(8)
        super().__init__(cert, key, None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def invoke(self, name, event):
        with self.invoking:
            self.events += 1
            event = json.loads(json.dumps(event))
            return json.loads(json.dumps(self.functions[name](event, Context(self.limit_s[name]))))

    def exchange(self, method, target, headers, body):
        """(status, headers, body) of a request; headers by lower-case names."""
        path, _, query = target.partition("?")
        if len(body) > PAYLOAD_MAX:
            return message(413, "Request Entity Too Large")
        if method == "OPTIONS":
            return self.preflight(headers)
        if f"{method} {path}" not in self.routes:
            return message(404, "Not Found")
        event = self.event(method, path, query, headers, body)
        try:
            denied = self.authorize(event)
            reply = denied or self.integrate(event)
        except Exception as error:  # whatever a function raises is a 500 there, too
            self.errors.append(error)
            return message(500, "Internal Server Error")
        return self.with_cors(headers, *reply)

    @staticmethod
    def event(method, path, query, headers, body):
        try:
            text, encoded = body.decode(), False
        except UnicodeDecodeError:
            text, encoded = base64.b64encode(body).decode(), True
        event = {"version": "2.0", "routeKey": f"{method} {path}", "rawPath": path,
                 "rawQueryString": query, "headers": headers, "isBase64Encoded": encoded,
                 "requestContext": {"stage": "$default", "http": {"method": method, "path": path}}}
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True)
        if parameters:
            event["queryStringParameters"] = {name: ",".join(values)
                                              for name, values in parameters.items()}
        if body:
            event["body"] = text
        return event

    def authorize(self, event):
        token = event["headers"].get("authorization")
        if not token:
            return message(401, "Unauthorized")
        known = self.cache.get(token)
        if known is None or known[0] < time.monotonic():
            asked = dict(event, type="REQUEST", identitySource=[token])
            asked.pop("body", None)
            known = (time.monotonic() + self.cache_s, self.invoke("Authorizer", asked))
            self.cache[token] = known
        if known[1].get("isAuthorized") is not True:
            return message(403, "Forbidden")
        event["requestContext"]["authorizer"] = {"lambda": known[1].get("context", {})}
        return None

    def integrate(self, event):
        if len(json.dumps(event)) > LAMBDA_MAX:
            return message(413, "Request Entity Too Large")
        reply = self.invoke("Ingest", event)
        body = reply["body"].encode()
        if reply.get("isBase64Encoded"):
            body = base64.b64decode(body)
        return reply["statusCode"], reply["headers"], body

    def preflight(self, headers):
        status, more, body = self.with_cors(headers, 204, {}, b"")
        if "access-control-allow-origin" in more:
            more.update({"access-control-allow-methods": ",".join(self.cors["AllowMethods"]),
                         "access-control-allow-headers": ",".join(self.cors["AllowHeaders"]),
                         "access-control-max-age": str(self.cors["MaxAge"])})
        return status, more, body

    def with_cors(self, headers, status, more, body):
        if headers.get("origin") in self.origins:
            more = dict(more, **{"access-control-allow-origin": headers["origin"]})
        return status, more, body


def message(status, words):
    return status, {"content-type": "application/json"}, json.dumps({"message": words}).encode()
