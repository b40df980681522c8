"""Signatures are compared with botocore's, over requests that trip other signers."""
import datetime
import hashlib
import json
import os
import random
import subprocess
import urllib.parse
from unittest import mock

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REQUESTS = 500
PATHS = ["/", "", "/a/b", "/a%2Fb", "/things/t%24x/shadow", "/$aws/rules/x", "/a:b",
         "/a//b/./c/../d/", "/..", "/topics/sensors%2Ft01%2Ftelemetry", "/~user/-._",
         "/with%20blank", "/%E2%82%AC"]
QUERIES = ["", "b=2&a=1", "a=1&a=0", "a", "qos=1&name=x%2Fy", "x=/y/z", "a-b=1&a=2", "a=b=c",
           "A=1&a=2", "prefix=foo&prefix2=bar", "k=&l"]
HEADERS = ["Content-Type: application/x-amz-json-1.0",
           "X-Amz-Target: Timestream_20181101.WriteRecords", "Accept:",
           "X-Custom:   two   blanks  ", "x-amz-meta: b", "x-amz-meta-a: c",
           "X-Amzn-IoT-Thingname: gw"]


def make(rng):
    headers = rng.sample(HEADERS, rng.randrange(len(HEADERS)))
    binary = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
    body = rng.choice([b"", b"{}", binary])
    return {"method": rng.choice(["POST", "GET", "PUT"]), "host": "ingest.example.com:8443",
            "path": rng.choice(PATHS), "query": rng.choice(QUERIES), "headers": headers,
            "body": body.hex(), "access_key": "AKID" + str(rng.randrange(10**6)),
            "secret_key": "secret/" + str(rng.random()),
            "region": rng.choice(["eu-west-1", "us-east-1"]),
            "token": rng.choice([None, "session+token/=="]),
            "service": rng.choice(["timestream", "iotdevicegateway", "kinesis"]),
            "time_ms": rng.randrange(1_500_000_000_000, 1_900_000_000_000)}


def by_botocore(r, auth=botocore.auth.SigV4Auth):
    url = "https://" + r["host"] + r["path"] + ("?" + r["query"] if r["query"] else "")
    request = AWSRequest(method=r["method"], url=url, data=bytes.fromhex(r["body"]))
    for line in r["headers"]:
        name, _, value = line.partition(":")
        request.headers[name] = value
    now = datetime.datetime.utcfromtimestamp(r["time_ms"] // 1000)
    signer = auth(Credentials(r["access_key"], r["secret_key"], r["token"]), r["service"],
                  r["region"])
    held = mock.Mock(wraps=datetime.datetime)
    with mock.patch.object(botocore.auth.datetime, "datetime", held) as clock:
        clock.utcnow.return_value = now
        signer.add_auth(request)
    return request.headers["Authorization"]


def sign_all(requests):
    """What sigv4_sign adds to each."""
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    program = os.path.join(os.environ["WINDROW_BUILD_DIR"], "tests", "sigv4_sign")
    out = subprocess.run([program], input=lines, text=True, capture_output=True, check=True,
                         timeout=90).stdout.splitlines()
    assert len(out) == len(requests)
    return [json.loads(line) for line in out]


def test_signatures_equal_botocores():
    rng = random.Random(20260131)
    requests = [make(rng) for _ in range(REQUESTS)]
    for request, added in zip(requests, sign_all(requests)):
        authorization = [h for h in added if h.startswith("Authorization: ")]
        assert authorization == ["Authorization: " + by_botocore(request)], request


KEY_PARTS = ["gateway=borssele-1", "date=2026-01-31", "a b", "a+b", "a%2Fb", "100%", "$aws", "x:y",
             "t~1", "\u20ac", "\U0001f32c", "..", ".", "", "a//b", "(1)", "it's", "a&b=c", "a,b",
             "@", "q?x=1", "h#ash", "*", "!", "semi;colon", "[x]", "back\\slash", "\u00e4\u0308"]


def test_paths_and_signatures_for_s3_equal_botocores():
    """A key's segments are encoded once, and nothing of it is taken for a step in a tree."""
    rng = random.Random(20260201)
    requests = []
    for _ in range(REQUESTS):
        key = "/".join(rng.choice(KEY_PARTS) for _ in range(rng.randrange(1, 6)))
        request = dict(make(rng), key=key, method="PUT", query="", service="s3")
        body = bytes.fromhex(request["body"])
        request["headers"] = ["Content-Type: application/gzip", "Content-MD5: 1B2M2Y8AsgTpgAmY7==",
                              "x-amz-content-sha256: " + hashlib.sha256(body).hexdigest()]
        requests.append(request)
    for request, added in zip(requests, sign_all(requests)):
        request["path"] = "/" + urllib.parse.quote(request["key"], safe="/~")
        assert added[0] == request["path"]
        authorization = [h for h in added if h.startswith("Authorization: ")]
        expected = by_botocore(request, botocore.auth.S3SigV4Auth)
        assert authorization == ["Authorization: " + expected], request
