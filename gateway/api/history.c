#include "gateway/api/history.h"

#include "gateway/api/json_out.h"
#include "gateway/store/reader.h"

#include <errno.h>
#include <math.h>
#include <string.h>

struct bin {
    int64_t start_ms;
    uint64_t count, bad;
    double sum, min, max;
};

/* One walk over the store. */
struct walk {
    const struct history_query *query;
    const _Atomic bool *stop;
    struct json_out out;
    uint16_t point;
    size_t written;
    bool truncated;
    struct bin bin;
};

static int find_device(struct store *store, const char *name, size_t len, uint32_t *ret_id)
{
    auto_free struct ledger_device *devices = NULL;
    size_t count = 0;
    int r = store_ledger(store, -1, &devices, &count);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        if (strlen(devices[i].name) == len && memcmp(devices[i].name, name, len) == 0) {
            *ret_id = devices[i].device;
            return 0;
        }
    }
    return -ENOENT;
}

static int find_point(const struct store_names *names, const char *name, uint16_t *ret_id)
{
    /* From the newest: a name may have older entries. */
    for (size_t i = names->point_count; i-- > 0;) {
        if (names->points[i].name != NULL && strcmp(names->points[i].name, name) == 0) {
            *ret_id = (uint16_t)i;
            return 0;
        }
    }
    return -ENOENT;
}

/* Device names may hold dots, point names too: every dot is tried. */
static int find(struct store *store, const char *name, uint32_t *ret_device, uint16_t *ret_point,
                const char **ret_unit, const char **ret_why)
{
    *ret_why = "nothing was ever stored of a device of that name";
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        int r = find_device(store, name, (size_t)(dot - name), ret_device);
        if (r == -ENOENT) {
            continue;
        }
        const struct store_names *names = r < 0 ? NULL : store_names(store, *ret_device);
        if (names == NULL) {
            return r < 0 ? r : -ENOENT;
        }
        *ret_why = "nothing was ever stored of that point of the device";
        if (find_point(names, dot + 1, ret_point) == 0) {
            *ret_unit = names->points[*ret_point].unit;
            return 0;
        }
    }
    return -ENOENT;
}

static void flush_bin(struct walk *walk)
{
    const struct bin *bin = &walk->bin;
    struct json_out *out = &walk->out;
    if (bin->count + bin->bad == 0) {
        return;
    }
    json_out_open(out, NULL, '{');
    json_out_time(out, "time", bin->start_ms);
    json_out_uint(out, "count", bin->count);
    json_out_uint(out, "bad", bin->bad);
    json_out_real(out, "mean", bin->count > 0 ? bin->sum / (double)bin->count : NAN);
    json_out_real(out, "min", bin->count > 0 ? bin->min : NAN);
    json_out_real(out, "max", bin->count > 0 ? bin->max : NAN);
    json_out_close(out, '}');
    walk->written++;
}

/* Into the bin of that time; a reading that comes out of order opens its bin once more. */
static void add_to_bin(struct walk *walk, int64_t time_ms, const struct reading *reading)
{
    int64_t bin_ms = walk->query->bin_ms;
    int64_t start_ms = time_ms - ((time_ms % bin_ms) + bin_ms) % bin_ms;
    struct bin *bin = &walk->bin;
    if (bin->start_ms != start_ms || bin->count + bin->bad == 0) {
        flush_bin(walk);
        *bin = (struct bin){.start_ms = start_ms, .min = INFINITY, .max = -INFINITY};
    }
    double value = reading_double(reading);
    if (!isfinite(value)) {
        bin->bad++;
        return;
    }
    bin->count++;
    bin->sum += value;
    bin->min = fmin(bin->min, value);
    bin->max = fmax(bin->max, value);
}

static void write_reading(struct walk *walk, const struct scan *scan, const struct reading *reading)
{
    struct json_out *out = &walk->out;
    json_out_open(out, NULL, '{');
    json_out_time(out, "time", scan->time_ms);
    json_out_key(out, "value");
    reading_write_json(out->b, scan, reading);
    if (reading->quality != QUALITY_GOOD) {
        json_out_text(out, "quality", quality_name((enum quality)reading->quality));
    }
    json_out_close(out, '}');
    walk->written++;
}

static int on_scan(void *user, const struct scan *scan)
{
    struct walk *walk = user;
    size_t most = walk->query->bin_ms > 0 ? HISTORY_BINS_MAX : HISTORY_READINGS_MAX;
    if (walk->written >= most || buffer_failed(walk->out.b)) {
        walk->truncated = true;
        return 1;
    }
    if (walk->stop != NULL && *walk->stop) {
        return 1;
    }
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        if (reading->point != walk->point) {
            continue;
        }
        if (walk->query->bin_ms > 0) {
            add_to_bin(walk, scan->time_ms, reading);
        } else {
            write_reading(walk, scan, reading);
        }
    }
    return 0;
}

static void begin(struct walk *walk, const char *unit)
{
    const struct history_query *query = walk->query;
    struct json_out *out = &walk->out;
    json_out_open(out, NULL, '{');
    json_out_text(out, "point", query->point);
    json_out_text(out, "unit", unit != NULL ? unit : "");
    json_out_time(out, "from", query->from_ms);
    json_out_time(out, "to", query->to_ms);
    if (query->bin_ms > 0) {
        json_out_real(out, "bin_s", (double)query->bin_ms / 1e3);
    }
    json_out_open(out, query->bin_ms > 0 ? "bins" : "readings", '[');
}

int history_write(struct store *store, const struct history_query *query, const _Atomic bool *stop,
                  struct buffer *b, const char **ret_why)
{
    if (query->from_ms >= query->to_ms || query->bin_ms < 0) {
        *ret_why = "`from` is not before `to`";
        return -EINVAL;
    }
    uint32_t device = 0;
    const char *unit = "";
    struct walk walk = {.query = query, .stop = stop, .out = {.b = b}};
    int r = find(store, query->point, &device, &walk.point, &unit, ret_why);
    if (r < 0) {
        return r;
    }
    begin(&walk, unit);
    *ret_why = "the store does not read";
    r = store_history(store, STREAM_RAW, device, query->from_ms, query->to_ms, on_scan, &walk);
    if (r < 0) {
        return r;
    }
    flush_bin(&walk);
    json_out_close(&walk.out, ']');
    json_out_bool(&walk.out, "truncated", walk.truncated);
    json_out_close(&walk.out, '}');
    *ret_why = "out of memory";
    return buffer_failed(b) ? -ENOMEM : 0;
}
