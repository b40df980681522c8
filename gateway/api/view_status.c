#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"
#include "gateway/store/salvage.h"
#include "gateway/store/store_clock.h"
#include "gateway/store/verify.h"

#include <errno.h>
#include <math.h>

static void write_devices(struct json_out *out, const struct roster *roster)
{
    json_out_open(out, "devices", '[');
    for (size_t i = 0; i < roster->device_count; i++) {
        const struct device *device = roster->devices[i];
        const struct device_health *health = &device->health;
        char error[200] = "";
        if (health->state == DEVICE_FAILING || health->state == DEVICE_DEAD) {
            device_describe_error(device, error, sizeof error);
        }
        int64_t rtt_us = health->rtt_us;
        json_out_open(out, NULL, '{');
        json_out_text(out, "name", device->config->name);
        json_out_text(out, "state", device_state_name((enum device_state)health->state));
        json_out_time(out, "last_good", health->last_good_ms);
        json_out_real(out, "rtt_ms", rtt_us > 0 ? (double)rtt_us / 1e3 : NAN);
        json_out_uint(out, "polls", health->polls);
        json_out_uint(out, "failures", health->failures);
        json_out_text(out, "last_error", error[0] != '\0' ? error : NULL);
        json_out_close(out, '}');
    }
    json_out_close(out, ']');
}

static void write_salvage(struct json_out *out, struct store *store)
{
    struct store_salvage salvage;
    store_salvage(store, &salvage);
    if (salvage.state == SALVAGE_NONE) {
        json_out_null(out, "salvage");
        return;
    }
    json_out_open(out, "salvage", '{');
    json_out_text(out, "from", salvage.from);
    json_out_text(out, "state", salvage_state_name(salvage.state));
    json_out_uint(out, "readings", salvage.readings);
    json_out_uint(out, "letters", salvage.letters);
    json_out_uint(out, "lost", salvage.lost);
    json_out_uint(out, "blocks", salvage.blocks);
    json_out_uint(out, "blocks_unreadable", salvage.bad);
    json_out_close(out, '}');
}

static void write_store(struct json_out *out, struct store *store)
{
    struct store_stat stat;
    store_stat(store, &stat);
    json_out_open(out, "store", '{');
    json_out_text(out, "id", store_id(store));
    json_out_uint(out, "waiting", stat.waiting);
    json_out_time(out, "oldest", stat.oldest_ms);
    json_out_text(out, "room", store_room_name(stat.room));
    json_out_bool(out, "disk_full", stat.disk_full);
    json_out_uint(out, "bytes", stat.bytes);
    json_out_uint(out, "max_bytes", stat.max_bytes);
    if (stat.seconds_left < 0) {
        json_out_null(out, "seconds_left");
    } else {
        json_out_int(out, "seconds_left", stat.seconds_left);
    }
    json_out_uint(out, "commits", stat.commits);
    json_out_real(out, "commit_ms", (double)stat.commit_us_last / 1e3);
    json_out_text(out, "quarantined", store_quarantined(store));
    write_salvage(out, store);
    struct store_verified verified;
    store_verified(store, &verified);
    json_out_time(out, "verified", verified.time_ms);
    json_out_uint(out, "damaged_blocks", verified.bad);
    json_out_close(out, '}');
}

static void write_beside(struct json_out *out, const struct uplink_beside *beside)
{
    if (beside->commands != NULL) {
        json_out_open(out, "commands", '{');
        json_out_text(out, "state", beside->commands);
        json_out_uint(out, "taken", beside->taken);
        json_out_uint(out, "done", beside->done);
        json_out_uint(out, "refused", beside->refused);
        json_out_close(out, '}');
    }
    if (beside->shadow != NULL) {
        json_out_open(out, "shadow", '{');
        json_out_text(out, "state", beside->shadow);
        json_out_int(out, "version", beside->shadow_version);
        json_out_time(out, "last_report", beside->reported_ms);
        json_out_uint(out, "desired", beside->desired);
        json_out_uint(out, "done", beside->desired_done);
        json_out_close(out, '}');
    }
}

static void write_uplinks(struct json_out *out, const struct roster *roster)
{
    json_out_open(out, "uplinks", '[');
    for (size_t i = 0; i < roster->uplink_count; i++) {
        const struct roster_uplink *uplink = &roster->uplinks[i];
        const struct sender_status *s = &uplink->status;
        json_out_open(out, NULL, '{');
        json_out_text(out, "name", uplink->name);
        json_out_text(out, "type", uplink->type);
        json_out_text(out, "state", sender_state_name(s->state));
        json_out_uint(out, "waiting", s->waiting);
        json_out_int(out, "lag_s", s->lag_s);
        json_out_uint(out, "delivered", s->delivered);
        json_out_uint(out, "rejected", s->rejected);
        json_out_text(out, "last_error", s->last_error[0] != '\0' ? s->last_error : NULL);
        json_out_text(out, "warning", s->warning[0] != '\0' ? s->warning : NULL);
        json_out_time(out, "last_delivered", s->last_delivered_ms);
        json_out_int(out, "retry_in_ms", s->retry_in_ms);
        json_out_int(out, "backlog_eta_s", s->backlog_eta_s);
        json_out_uint(out, "delivered_per_s", s->delivered_per_s);
        json_out_uint(out, "bytes_per_s", s->bytes_per_s);
        json_out_uint(out, "requests", s->requests);
        json_out_uint(out, "failures", s->failures);
        json_out_uint(out, "bytes_sent", s->bytes_sent);
        write_beside(out, &s->beside);
        json_out_close(out, '}');
    }
    json_out_close(out, ']');
}

static int write_ledger_line(struct json_out *out, struct store *store)
{
    struct ledger_device total;
    int r = store_ledger_total(store, -1, &total);
    if (r < 0) {
        return r;
    }
    uint64_t dropped = total.counts[LEDGER_DROPPED_OVERRUN] + total.counts[LEDGER_DROPPED_DISK];
    json_out_open(out, "ledger", '{');
    json_out_uint(out, "read", total.counts[LEDGER_READ]);
    json_out_uint(out, "stored", total.counts[LEDGER_STORED]);
    json_out_uint(out, "suppressed", total.counts[LEDGER_SUPPRESSED]);
    json_out_uint(out, "derived", total.counts[LEDGER_DERIVED]);
    json_out_uint(out, "salvaged", total.counts[LEDGER_SALVAGED]);
    json_out_uint(out, "lost", total.counts[LEDGER_LOST]);
    json_out_uint(out, "delivered", total.fates[FATE_DELIVERED]);
    json_out_uint(out, "waiting", total.waiting);
    json_out_uint(out, "dead", total.fates[FATE_DEAD]);
    json_out_uint(out, "thinned", total.fates[FATE_THINNED]);
    json_out_uint(out, "expired", total.fates[FATE_EXPIRED]);
    json_out_uint(out, "dropped", dropped);
    json_out_bool(out, "adds_up",
                  total.counts[LEDGER_READ] ==
                      total.counts[LEDGER_STORED] + total.counts[LEDGER_SUPPRESSED] + dropped);
    json_out_close(out, '}');
    return 0;
}

static void write_pipeline(struct json_out *out, struct pipeline *pipeline)
{
    struct pipeline_stats stats;
    pipeline_stats(pipeline, &stats);
    json_out_open(out, "pipeline", '{');
    json_out_uint(out, "queue", stats.queue_readings);
    json_out_uint(out, "queue_peak", stats.queue_peak);
    json_out_uint(out, "overruns", stats.overruns);
    json_out_uint(out, "late", stats.late);
    json_out_close(out, '}');
}

/* synchronised: the times of readings are right, by whoever vouches for them. */
static void write_clock(struct json_out *out, struct store *store, bool trusted)
{
    struct store_clock clock;
    store_clock(store, &clock);
    bool vouched = clock.known ? clock.vouched : trusted || clock_synchronised();
    json_out_open(out, "clock", '{');
    json_out_bool(out, "synchronised", vouched || clock.sure);
    json_out_text(out, "state",
                  vouched      ? (trusted ? "trusted" : "synchronised")
                  : clock.sure ? "holding"
                               : "waiting");
    json_out_uint(out, "held", clock.held);
    json_out_int(out, "wait_s", clock.wait_ms / 1000);
    json_out_close(out, '}');
}

int view_status(const struct api_host *host, struct buffer *b)
{
    auto_roster struct roster roster = {0};
    int r = roster_take(host, ROSTER_DEVICES | ROSTER_UPLINKS, &roster);
    if (r < 0) {
        return r;
    }
    struct json_out out = {.b = b};
    struct store *store = host->store(host->user);
    const struct config *config = host->config(host->user);
    json_out_open(&out, NULL, '{');
    json_out_text(&out, "gateway", config->gateway->name);
    bool trusted = config->gateway->clock == CONFIG_CLOCK_TRUSTED;
    config_unref(config);
    json_out_text(&out, "version", WINDROW_VERSION);
    json_out_int(&out, "uptime_s", (clock_boot_ms() - host->started_boot_ms) / 1000);
    json_out_time(&out, "time", clock_wall_ms());
    write_clock(&out, store, trusted);
    write_devices(&out, &roster);
    write_store(&out, store);
    write_uplinks(&out, &roster);
    r = write_ledger_line(&out, store);
    write_pipeline(&out, host->pipeline(host->user));
    json_out_close(&out, '}');
    return r < 0 ? r : (buffer_failed(b) ? -ENOMEM : 0);
}
