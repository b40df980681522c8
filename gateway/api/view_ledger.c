#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>

static bool counts_add_up(const struct ledger_device *d)
{
    return d->counts[LEDGER_READ] == d->counts[LEDGER_STORED] + d->counts[LEDGER_SUPPRESSED] +
                                         d->counts[LEDGER_DROPPED_OVERRUN] +
                                         d->counts[LEDGER_DROPPED_DISK];
}

static bool fates_add_up(const struct ledger_device *d)
{
    uint64_t sum = d->waiting;
    for (int i = 0; i < FATE_COUNTS; i++) {
        sum += d->fates[i];
    }
    /* A fate counted twice would make `waiting` wrap below zero. */
    return sum == d->offered && d->waiting <= d->offered;
}

static void write_counts(struct json_out *out, const struct ledger_device *d)
{
    for (int i = 0; i < LEDGER_COUNTS; i++) {
        json_out_uint(out, ledger_count_name((enum ledger_count)i), d->counts[i]);
    }
    json_out_bool(out, "adds_up", counts_add_up(d));
}

static void write_fates(struct json_out *out, const struct ledger_device *d)
{
    json_out_uint(out, "offered", d->offered);
    for (int i = 0; i < FATE_COUNTS; i++) {
        json_out_uint(out, ledger_fate_name((enum ledger_fate)i), d->fates[i]);
    }
    json_out_uint(out, "waiting", d->waiting);
    json_out_bool(out, "adds_up", fates_add_up(d));
}

static int write_list(struct json_out *out, struct store *store, int uplink,
                      void (*write)(struct json_out *out, const struct ledger_device *d))
{
    auto_free struct ledger_device *devices = NULL;
    size_t count = 0;
    int r = store_ledger(store, uplink, &devices, &count);
    if (r < 0) {
        return r;
    }
    json_out_open(out, "devices", '[');
    for (size_t i = 0; i < count; i++) {
        json_out_open(out, NULL, '{');
        json_out_text(out, "name", devices[i].name);
        write(out, &devices[i]);
        json_out_close(out, '}');
    }
    json_out_close(out, ']');
    return 0;
}

static int write_uplink(struct json_out *out, struct store *store, unsigned uplink)
{
    struct ledger_device total;
    int r = store_ledger_total(store, (int)uplink, &total);
    if (r < 0) {
        return r;
    }
    json_out_open(out, NULL, '{');
    json_out_text(out, "name", store_uplink_name(store, uplink));
    write_fates(out, &total);
    r = write_list(out, store, (int)uplink, write_fates);
    json_out_close(out, '}');
    return r;
}

int view_ledger(struct store *store, const char *gateway, struct buffer *b)
{
    struct json_out out = {.b = b};
    struct ledger_device total;
    int r = store_ledger_total(store, -1, &total);
    if (r < 0) {
        return r;
    }
    json_out_open(&out, NULL, '{');
    json_out_text(&out, "gateway", gateway);
    json_out_text(&out, "store", store_id(store));
    json_out_time(&out, "time", clock_wall_ms());
    json_out_open(&out, "total", '{');
    write_counts(&out, &total);
    json_out_close(&out, '}');
    r = write_list(&out, store, -1, write_counts);
    json_out_open(&out, "uplinks", '[');
    for (unsigned i = 0; r == 0 && i < store_uplinks(store); i++) {
        r = write_uplink(&out, store, i);
    }
    json_out_close(&out, ']');
    json_out_close(&out, '}');
    return r < 0 ? r : (buffer_failed(b) ? -ENOMEM : 0);
}
