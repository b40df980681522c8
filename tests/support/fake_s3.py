"""A stand-in for Amazon S3: PUT of objects, signatures checked by botocore's S3SigV4Auth, digests
by hashing what came, errors as XML."""
import base64
import hashlib
import json
import subprocess
import time
import urllib.parse
import zlib

import botocore.auth

from fake_aws import FakeAws, Refusal

# What FakeAws calls its refusals of a signature, and what S3 does.
NAMES = {"MissingAuthenticationTokenException": (403, "AccessDenied"),
         "ExpiredTokenException": (400, "ExpiredToken"),
         "UnrecognizedClientException": (403, "InvalidAccessKeyId"),
         "InvalidSignatureException": (403, "SignatureDoesNotMatch")}


class FakeS3(FakeAws):
    """objects: key -> bytes. `encrypted`: ETags are not MD5s, as with SSE-KMS; `checksums`: replies
    tell the SHA-256."""
    signer = botocore.auth.S3SigV4Auth

    def __init__(self, *words, bucket="wind-archive", **more):
        self.bucket, self.encrypted, self.checksums = bucket, False, True
        self.objects, self.puts, self.storage_classes = {}, 0, set()
        super().__init__(*words, **more)

    def answer(self, method, path, headers, body):
        try:
            self.check_region(headers)
            self.check_signature(method, path, headers, body)
            with self.lock:
                if self.script:
                    planned = self.script.pop(0)
                    if isinstance(planned, Refusal):
                        raise planned
                    return planned
            self.misbehave()
            return self.put(method, path, headers, body)
        except Refusal as refusal:
            return self.as_xml(refusal)

    @staticmethod
    def as_xml(refusal):
        kind = refusal.body.pop("__type").partition("#")[2]
        message = refusal.body.pop("message")
        status, kind = NAMES.get(kind, (refusal.status, kind))
        if message.startswith("Signature expired") or message.startswith("Signature not yet"):
            kind = "RequestTimeTooSkewed"
        more = "".join(f"<{name}>{value}</{name}>" for name, value in refusal.body.items())
        return status, dict(refusal.headers, **{"Content-Type": "application/xml"}), \
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{kind}</Code>' \
            f"<Message>{message}</Message>{more}<RequestId>1</RequestId></Error>"

    def check_region(self, headers):
        scope = headers.get("Authorization", "//us-east-1/").split("Credential=")[-1].split("/")
        if scope[2] != self.region:
            raise Refusal(400, "AuthorizationHeaderMalformed", "The authorization header is "
                          f"malformed; the region '{scope[2]}' is wrong", Region=self.region)

    def misbehave(self):
        if not self.wild:
            return
        dice = self.random.randrange(20)
        if dice == 0:
            raise Refusal(503, "SlowDown", "Please reduce your request rate.")
        if dice == 1:
            raise Refusal(500, "InternalError", "We encountered an internal error.")
        if dice == 2:
            raise Refusal(400, "RequestTimeout", "Your socket connection was not read from")
        if dice == 3:
            raise Refusal(409, "OperationAborted", "A conflicting operation is in progress")
        if dice == 4:
            time.sleep(0.2)

    def put(self, method, path, headers, body):
        in_host = headers["Host"].startswith(self.bucket + ".")
        where = urllib.parse.unquote(path)[1:]
        bucket, _, key = (self.bucket, "/", where) if in_host else where.partition("/")
        if method != "PUT" or bucket != self.bucket or not key:
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
        md5, sha256 = hashlib.md5(body), hashlib.sha256(body)
        sum_text = base64.b64encode(sha256.digest()).decode()
        if headers["Content-MD5"] != base64.b64encode(md5.digest()).decode():
            raise Refusal(400, "BadDigest", "The Content-MD5 you specified did not match")
        if (headers["x-amz-content-sha256"] != sha256.hexdigest()
                or headers["x-amz-checksum-sha256"] != sum_text):
            raise Refusal(400, "XAmzContentSHA256Mismatch", "The hash does not match")
        with self.lock:
            self.puts += 1
            self.storage_classes.add(headers.get("x-amz-storage-class"))
            if self.objects.setdefault(key, body) != body:
                self.problems.append((key, "came again with other bytes"))
        etag = '"' + ("0" * 32 if self.encrypted else md5.hexdigest()) + '"'
        return 200, dict({"ETag": etag}, **({"x-amz-checksum-sha256": sum_text}
                                            if self.checksums else {})), ""

    def records(self):
        """(device, seq) -> record of all objects; what is in several of them must be the same."""
        found = {}
        with self.lock:
            held = dict(self.objects)
        for key, body in held.items():
            for line in unpack(key, body).decode().splitlines():
                one = json.loads(line)
                assert found.setdefault((one["device"], one["seq"]), one) == one
        return found


def unpack(key, body):
    if key.endswith(".gz"):
        return zlib.decompress(body, 31)
    if key.endswith(".zst"):
        return subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True,
                              timeout=90).stdout
    return body
