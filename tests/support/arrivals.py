"""Where readings arrive: when, in which order, how often."""
import collections
import datetime
import gzip
import json

from endpoint import Endpoint


class Arrivals:
    """An endpoint that notes how late each scan came, and whether its lane was in order."""

    def __init__(self, authority, first_live):
        self.late_ms, self.last, self.disorder, self.first_live = {}, {}, 0, first_live
        self.times = collections.Counter()  # how often each (device, seq) came
        self.endpoint = Endpoint(*authority.issue("cloud"), self.take)

    def take(self, _path, headers, body):
        now = datetime.datetime.now(datetime.timezone.utc)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        records = json.loads(body)["records"]
        with self.endpoint.lock:
            for record in records:
                device, seq = record["device"], record["seq"]
                live = seq >= self.first_live
                if live:
                    then = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
                    self.late_ms.setdefault((device, seq), (now - then).total_seconds() * 1000)
                self.disorder += seq <= self.last.get((device, live), 0)
                self.times[device, seq] += 1
                self.last[device, live] = seq
        return 200, "application/json", json.dumps({"accepted": len(records)})
