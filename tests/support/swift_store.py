"""OpenStack Swift of Debian with its S3 side, in one process: `swift_store.py FOLDER PORT`. It
checks SigV4 signatures by code of its own. Data and rings lie in FOLDER; PORT and the three behind
it are taken. Keys and region are those below."""
import os
import sys
import time

REGION, KEYS = "eu-west-1", ("wind:archiver", "secret/key")
STORES = ("account", "container", "object")

STORE = """[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
[app:main]
use = egg:swift#{name}
"""

PROXY = """[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors proxy-logging s3api tempauth slo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:slo]
use = egg:swift#slo
[filter:tempauth]
use = egg:swift#tempauth
user_wind_archiver = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = {region}
"""

HASH = """[swift-hash]
swift_hash_path_suffix = windrow
[storage-policy:0]
name = one
default = yes
"""


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="ascii") as file:
        file.write(text)


def make_folder(folder, port):
    """One copy of all on one device; the rings say which server has what."""
    from swift.common.ring import RingBuilder
    os.makedirs(os.path.join(folder, "devices", "d1"))
    write(folder, "swift.conf", HASH)
    for i, name in enumerate(STORES, 1):
        builder = RingBuilder(2, 1, 0)
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1",
                         "port": port + i, "device": "d1"})
        builder.rebalance()
        builder.get_ring().save(os.path.join(folder, name + ".ring.gz"))
        write(folder, name + ".conf", STORE.format(folder=folder, name=name))
    write(folder, "proxy.conf", PROXY.format(folder=folder, secret=KEYS[1], region=REGION))


class Cache:
    """What memcached would keep; tempauth does not go without."""

    def __init__(self):
        self.held = {}

    def get(self, key, **_):
        return self.held.get(key)

    def set(self, key, value, **_):
        self.held[key] = value

    def incr(self, key, delta=1, **_):
        self.held[key] = int(self.held.get(key) or 0) + delta
        return self.held[key]

    def delete(self, key, **_):
        self.held.pop(key, None)


def with_cache(app, cache):
    def call(environ, start_response):
        environ["swift.cache"] = cache
        return app(environ, start_response)
    return call


def main(folder, port):
    import eventlet.wsgi  # only where it runs: a test wants no more than the constants
    from swift.common import utils, wsgi
    from swift.common.http_protocol import SwiftHttpProtocol
    utils.eventlet_monkey_patch()
    if not os.path.exists(os.path.join(folder, "proxy.conf")):
        make_folder(folder, port)
    utils.set_swift_dir(folder)
    os.environ["TZ"] = "UTC+0"
    time.tzset()
    waiting = []
    for i, name in reversed(list(enumerate(("proxy", *STORES)))):  # the proxy is the last to listen
        app = wsgi.loadapp(os.path.join(folder, name + ".conf"), global_conf={"log_name": name})
        utils.get_logger({"log_name": name, "log_level": "WARNING"}, name, log_to_console=True)
        if name == "proxy":
            app = with_cache(app, Cache())
        waiting.append(eventlet.spawn(
            eventlet.wsgi.server, eventlet.listen(("127.0.0.1", port + i), reuse_port=False), app,
            utils.NullLogger(), protocol=SwiftHttpProtocol, capitalize_response_headers=False))
    for one in waiting:
        one.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
