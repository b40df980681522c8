"""The authoriser: which user a bearer token speaks for, and whether it may read or write.

The table holds tokens by their SHA-256 only. A token has 256 random bits, so that a plain hash is
as good as a slow one. What this returns is kept by API Gateway for some minutes: a token that was
taken back works that long."""
import hashlib
import os
import time

import boto3

CONTEXT = {}


def hash_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


def table():
    if "client" not in CONTEXT:
        CONTEXT["client"] = boto3.client("dynamodb")
    return CONTEXT["client"]


def authorize(event, _context):
    """A simple response (payload format 2.0). An error of the table is one of the request: 500, so
    that a gateway tries again instead of taking it for a refusal."""
    scheme, _, token = (event.get("headers") or {}).get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return {"isAuthorized": False}
    item = table().get_item(TableName=os.environ["TOKENS_TABLE"], ConsistentRead=True,
                            Key={"hash": {"S": hash_of(token.strip())}}).get("Item")
    if item is None or int(item.get("expires_at", {"N": "99999999999"})["N"]) <= time.time():
        return {"isAuthorized": False}
    return {"isAuthorized": True,
            "context": {"user": item["user"]["S"], "right": item["right"]["S"]}}
