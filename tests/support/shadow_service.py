"""AWS IoT's Device Shadow service as its guide describes it, behind a broker of our own.

One shadow, classic or named: versions, timestamps, deltas, and the refusals 400, 404, 409, 413.
`refuse` makes the next requests fail otherwise: a list of (operation, code).
"""
import copy
import json
import threading
import time

import paho.mqtt.client as mqtt

from process import PATIENCE_S, wait_for

SIZE_MAX, TOKEN_MAX, DEPTH_MAX = 8192, 64, 6


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


def depth(value):
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


def merge(into, stamps, change, now):
    """As an update does: null takes a member away, an object goes into the one that is there."""
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
            stamps.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key], stamps[key] = {}, {}
            merge(into[key], stamps[key], value, now)
            if not into[key]:
                del into[key], stamps[key]
        else:
            into[key], stamps[key] = value, {"timestamp": now}


def difference(desired, reported, stamps):
    """What is desired and not reported, with its timestamps."""
    state, metadata = {}, {}
    for key, value in desired.items():
        there = reported.get(key) if isinstance(reported, dict) else None
        if isinstance(value, dict):
            inner, inner_stamps = difference(value, there or {}, stamps[key])
            if inner:
                state[key], metadata[key] = inner, inner_stamps
        elif value != there:
            state[key], metadata[key] = value, stamps[key]
    return state, metadata


class ShadowService:
    def __init__(self, broker, thing, name=None):
        self.prefix = f"$aws/things/{thing}/shadow" + (f"/name/{name}" if name else "")
        self.lock = threading.RLock()
        self.state = self.metadata = None
        self.version, self.updates, self.gets, self.refuse = 0, [], 0, []
        self.refused = []
        self.client = mqtt.Client(client_id=f"shadow-{name}", protocol=mqtt.MQTTv311)
        self.client.on_message = self.on_message
        self.ready = threading.Event()
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = lambda *_: self.ready.clear()
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.plain)
        self.client.loop_start()
        assert self.ready.wait(PATIENCE_S)

    def on_connect(self, *_):
        self.client.subscribe([(f"{self.prefix}/update", 1), (f"{self.prefix}/get", 1)])

    def publish(self, topic, body):
        self.client.publish(f"{self.prefix}/{topic}", json.dumps(body), qos=1)

    def on_message(self, _client, _user, message):
        operation = message.topic.rsplit("/", 1)[1]
        with self.lock:
            token = {}
            try:
                try:
                    request = json.loads(message.payload or b"{}")
                except ValueError as error:
                    raise Refused(400, "Invalid JSON") from error
                if "clientToken" in request:
                    token = {"clientToken": request["clientToken"]}
                if self.refuse and self.refuse[0][0] == operation:
                    raise Refused(self.refuse.pop(0)[1], "as the test says")
                if operation == "get":
                    self.get(token)
                else:
                    self.update(request, len(message.payload), token)
            except Refused as refusal:
                self.refused.append((operation, refusal.code))
                self.publish(f"{operation}/rejected",
                             dict(code=refusal.code, message=refusal.message,
                                  timestamp=int(time.time()), **token))

    def get(self, token):
        self.gets += 1
        if self.state is None:
            raise Refused(404, "No shadow exists with name")
        state = copy.deepcopy(self.state)
        delta, _ = difference(state.get("desired", {}), state.get("reported", {}),
                              self.metadata.get("desired", {}))
        if delta:
            state["delta"] = delta
        self.publish("get/accepted", dict(state=state, metadata=self.metadata,
                                          timestamp=int(time.time()), version=self.version,
                                          **token))

    def update(self, request, size, token):
        if size > SIZE_MAX:
            raise Refused(413, "The payload exceeds the maximum size allowed")
        if len(token.get("clientToken", "")) > TOKEN_MAX:
            raise Refused(400, "Invalid clientToken")
        change = request.get("state")
        if not isinstance(change, dict):
            raise Refused(400, "Missing required node: state")
        if depth(change) > DEPTH_MAX:
            raise Refused(400, "JSON contains too many levels of nesting; maximum is 6")
        if request.get("version", self.version) != self.version:
            raise Refused(409, "Version conflict")
        state, metadata = copy.deepcopy((self.state or {}, self.metadata or {}))
        now = int(time.time())
        merge(state, metadata, change, now)
        if len(json.dumps(state, separators=(",", ":"))) > SIZE_MAX:
            raise Refused(413, "The payload exceeds the maximum size allowed")
        self.state, self.metadata, self.version = state, metadata, self.version + 1
        self.updates.append((time.monotonic(), change))
        self.publish("update/accepted", dict(state=change, timestamp=now, version=self.version,
                                             **token))
        self.send_delta(**token)

    def send_delta(self, version=None, **token):
        delta, stamps = difference(self.state.get("desired", {}), self.state.get("reported", {}),
                                   self.metadata.get("desired", {}))
        if delta:
            self.publish("update/delta", dict(state=delta, metadata=stamps, version=version or
                                              self.version, timestamp=int(time.time()), **token))

    def desire(self, **points):
        """An operator's word: t01__pitch_sp=2.5; None takes the desire away."""
        wanted = {}
        for key, value in points.items():
            device, point = key.split("__")
            wanted.setdefault(device, {})[point] = value
        with self.lock:
            self.update({"state": {"desired": {"points": wanted}}}, 0, {})

    def reported(self, *path):
        with self.lock:
            value = (self.state or {}).get("reported")
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            return copy.deepcopy(value)

    def wait(self, expected, *path, limit_s=20):
        """Until what is reported at that place is so (a value, or a test of one)."""
        def holds():
            value = self.reported(*path)
            return expected(value) if callable(expected) else value == expected

        return wait_for(holds, limit_s, lambda: f"{path}: {self.reported(*path)} in "
                                                f"{self.reported()}; refused {self.refused}")
