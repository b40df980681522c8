#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"
#include "gateway/store/store_clock.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Text format 0.0.4: one HELP and TYPE a family, then its samples. */
static void family(struct buffer *b, const char *name, const char *type, const char *help)
{
    buffer_printf(b, "# HELP windrow_%s %s\n# TYPE windrow_%s %s\n", name, help, name, type);
}

/* `name="value"`, escaped as the format wants it: backslash, quote and line feed. */
static void label(struct buffer *b, const char *name, const char *value, bool first)
{
    buffer_printf(b, "%s%s=\"", first ? "{" : ",", name);
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '\\' || *at == '"') {
            buffer_add_byte(b, '\\');
            buffer_add_byte(b, (uint8_t)*at);
        } else if (*at == '\n') {
            buffer_add_text(b, "\\n");
        } else {
            buffer_add_byte(b, (uint8_t)*at);
        }
    }
    buffer_add_byte(b, '"');
}

static void labelled(struct buffer *b, const char *name, const char *key, const char *value)
{
    buffer_printf(b, "windrow_%s", name);
    label(b, key, value, true);
    buffer_add_text(b, "} ");
}

static void number(struct buffer *b, double value)
{
    if (isnan(value)) {
        buffer_add_text(b, "NaN");
    } else {
        decimal_write_double(b, value);
    }
    buffer_add_byte(b, '\n');
}

static void single(struct buffer *b, const char *name, const char *type, const char *help,
                   double value)
{
    family(b, name, type, help);
    buffer_printf(b, "windrow_%s ", name);
    number(b, value);
}

/* A family with one sample a device (or uplink), by a function that gives its number. */
struct device_family {
    const char *name, *type, *help;
    double (*value)(const struct device *device);
};

static double up(const struct device *d)
{
    return d->health.state == DEVICE_GOOD ? 1 : 0;
}

static double polls(const struct device *d)
{
    return (double)d->health.polls;
}

static double failures(const struct device *d)
{
    return (double)d->health.failures;
}

static double rtt(const struct device *d)
{
    return (double)d->health.rtt_us / 1e6;
}

static double last_good(const struct device *d)
{
    return (double)d->health.last_good_ms / 1e3;
}

static double late(const struct device *d)
{
    return (double)d->health.late_us_max / 1e6;
}

static const struct device_family device_families[] = {
    {"device_up", "gauge", "1 while the device answers", up},
    {"device_polls_total", "counter", "rounds begun", polls},
    {"device_failures_total", "counter", "rounds that failed, wholly or in part", failures},
    {"device_rtt_seconds", "gauge", "round trip of the last good request", rtt},
    {"device_last_good_timestamp_seconds", "gauge", "last good reading, UTC", last_good},
    {"device_late_seconds_max", "gauge", "how late a poll began, at most", late},
};

static void write_devices(struct buffer *b, const struct roster *roster)
{
    for (size_t f = 0; f < ARRAY_SIZE(device_families); f++) {
        const struct device_family *of = &device_families[f];
        family(b, of->name, of->type, of->help);
        for (size_t i = 0; i < roster->device_count; i++) {
            labelled(b, of->name, "device", roster->devices[i]->config->name);
            number(b, of->value(roster->devices[i]));
        }
    }
    family(b, "device_errors_total", "counter", "errors by kind");
    for (size_t i = 0; i < roster->device_count; i++) {
        const struct device *device = roster->devices[i];
        for (int kind = 1; kind < DEVICE_ERRORS; kind++) {
            uint64_t count = device->health.errors[kind];
            if (count > 0) {
                buffer_add_text(b, "windrow_device_errors_total");
                label(b, "device", device->config->name, true);
                label(b, "kind", device_error_name((enum device_error)kind), false);
                buffer_printf(b, "} %" PRIu64 "\n", count);
            }
        }
    }
}

struct uplink_family {
    const char *name, *type, *help;
    double (*value)(const struct sender_status *status);
};

static double waiting(const struct sender_status *s)
{
    return (double)s->waiting;
}

static double delivered(const struct sender_status *s)
{
    return (double)s->delivered;
}

static double rejected(const struct sender_status *s)
{
    return (double)s->rejected;
}

static double lag(const struct sender_status *s)
{
    return (double)s->lag_s;
}

static double requests(const struct sender_status *s)
{
    return (double)s->requests;
}

static double failed(const struct sender_status *s)
{
    return (double)s->failures;
}

static double sent(const struct sender_status *s)
{
    return (double)s->bytes_sent;
}

static const struct uplink_family uplink_families[] = {
    {"uplink_waiting_readings", "gauge", "readings still to deliver", waiting},
    {"uplink_delivered_readings_total", "counter", "readings confirmed since start", delivered},
    {"uplink_rejected_readings_total", "counter", "readings refused since start", rejected},
    {"uplink_lag_seconds", "gauge", "age of the oldest waiting reading", lag},
    {"uplink_requests_total", "counter", "requests made", requests},
    {"uplink_failures_total", "counter", "requests that failed", failed},
    {"uplink_sent_bytes_total", "counter", "bytes sent", sent},
};

static void write_uplinks(struct buffer *b, const struct roster *roster)
{
    for (size_t f = 0; f < ARRAY_SIZE(uplink_families); f++) {
        const struct uplink_family *of = &uplink_families[f];
        family(b, of->name, of->type, of->help);
        for (size_t i = 0; i < roster->uplink_count; i++) {
            labelled(b, of->name, "uplink", roster->uplinks[i].name);
            number(b, of->value(&roster->uplinks[i].status));
        }
    }
}

static int write_store(struct buffer *b, struct store *store)
{
    struct store_stat stat;
    store_stat(store, &stat);
    single(b, "store_bytes", "gauge", "what the store holds", (double)stat.bytes);
    single(b, "store_max_bytes", "gauge", "what it may hold", (double)stat.max_bytes);
    single(b, "store_waiting_readings", "gauge", "readings some uplink still has to deliver",
           (double)stat.waiting);
    single(b, "store_oldest_timestamp_seconds", "gauge", "the oldest of them, UTC, 0: none",
           (double)stat.oldest_ms / 1e3);
    single(b, "store_commits_total", "counter", "durable writes", (double)stat.commits);
    single(b, "store_commit_seconds", "gauge", "time of the last one",
           (double)stat.commit_us_last / 1e6);
    single(b, "store_commit_seconds_max", "gauge", "time of the longest one",
           (double)stat.commit_us_max / 1e6);
    struct ledger_device total;
    int r = store_ledger_total(store, -1, &total);
    if (r < 0) {
        return r;
    }
    family(b, "ledger_readings_total", "counter", "what became of readings, since the store began");
    for (int i = 0; i < LEDGER_COUNTS; i++) {
        labelled(b, "ledger_readings_total", "count", ledger_count_name((enum ledger_count)i));
        buffer_printf(b, "%" PRIu64 "\n", total.counts[i]);
    }
    for (int i = 0; i < FATE_COUNTS; i++) {
        labelled(b, "ledger_readings_total", "count", ledger_fate_name((enum ledger_fate)i));
        buffer_printf(b, "%" PRIu64 "\n", total.fates[i]);
    }
    return 0;
}

static int write_points(struct buffer *b, const struct api_host *host, const struct roster *roster)
{
    family(b, "point_value", "gauge", "latest good value of a numeric point");
    for (size_t i = 0; i < roster->device_count; i++) {
        const struct device *device = roster->devices[i];
        auto_snapshot struct snapshot snapshot = {0};
        int r = snapshot_take(host->pipeline(host->user), device, &snapshot);
        if (r < 0) {
            return r;
        }
        for (size_t k = 0; k < snapshot.count; k++) {
            double value = reading_double(&snapshot.readings[k]);
            if (snapshot.times_ms[k] == 0 || !isfinite(value)) {
                continue;
            }
            buffer_add_text(b, "windrow_point_value");
            label(b, "device", device->config->name, true);
            label(b, "point", device->config->points.list[k].name, false);
            label(b, "unit", device->config->points.list[k].unit, false);
            buffer_add_text(b, "} ");
            number(b, value);
        }
    }
    return 0;
}

int view_metrics(const struct api_host *host, bool points, struct buffer *b)
{
    auto_roster struct roster roster = {0};
    int r = roster_take(host, ROSTER_DEVICES | ROSTER_UPLINKS, &roster);
    if (r < 0) {
        return r;
    }
    family(b, "build_info", "gauge", "the version, always 1");
    labelled(b, "build_info", "version", WINDROW_VERSION);
    number(b, 1);
    single(b, "uptime_seconds", "gauge", "since the gateway started",
           (double)(clock_boot_ms() - host->started_boot_ms) / 1e3);
    struct store_clock clock;
    store_clock(host->store(host->user), &clock);
    single(b, "clock_synchronised", "gauge", "1 while the clock is held for right",
           clock.vouched || clock.sure ? 1 : 0);
    single(b, "clock_held_readings", "gauge", "that wait for it", (double)clock.held);
    struct pipeline_stats stats;
    pipeline_stats(host->pipeline(host->user), &stats);
    single(b, "queue_readings", "gauge", "between the field and the store",
           (double)stats.queue_readings);
    single(b, "queue_overruns_total", "counter", "scans that found the queue full",
           (double)stats.overruns);
    write_devices(b, &roster);
    write_uplinks(b, &roster);
    r = write_store(b, host->store(host->user));
    if (r == 0 && points) {
        r = write_points(b, host, &roster);
    }
    return r < 0 ? r : (buffer_failed(b) ? -ENOMEM : 0);
}
