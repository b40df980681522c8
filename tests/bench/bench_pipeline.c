/* What a reading costs between the driver and the store: the hand-over, and the pipeline's turn
 * (scale, quality, live view, window, thinning), over a store that only counts. The load is 770
 * turbines of 20 channels, whole windows included. Prints JSON lines. */
#include "gateway/base/clock.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"
#include "tests/unit/store_clock_fake.inc"
#include "tests/unit/store_ledger_fake.inc"
#include "tests/unit/store_salvage_fake.inc"

#include <malloc.h>
#include <math.h>
#include <time.h>

enum { DEVICES = 770, POINTS = 20, SECONDS = 1300 };

struct store {
    uint64_t readings, names;
    size_t pending;
};

int store_device(struct store *s, const char *name, const char *tags_json, uint32_t *ret_id)
{
    (void)name, (void)tags_json;
    *ret_id = (uint32_t)++s->names;
    return 0;
}

int store_point(struct store *s, uint32_t device, const char *name, const char *unit,
                uint16_t *ret_id)
{
    (void)device, (void)name, (void)unit;
    *ret_id = (uint16_t)(++s->names % UINT16_MAX);
    return 0;
}

uint64_t store_last_seq(struct store *s, enum stream stream, uint32_t device)
{
    (void)s, (void)stream, (void)device;
    return 0;
}

int store_append(struct store *s, const struct scan *scan)
{
    s->readings += scan->count;
    s->pending += scan_size(scan);
    return 0;
}

void store_count(struct store *s, uint32_t device, enum ledger_count count, uint64_t readings)
{
    (void)s, (void)device, (void)count, (void)readings;
}

int store_commit(struct store *s)
{
    s->pending = 0;
    return 0;
}

size_t store_pending_bytes(const struct store *s)
{
    return s->pending;
}

void store_set_note(struct store *s, const char *name, int64_t value)
{
    (void)s, (void)name, (void)value;
}

bool store_note(struct store *s, const char *name, int64_t *ret_value)
{
    (void)s, (void)name, (void)ret_value;
    return false;
}

void store_hold_since(struct store *s, int64_t time_ms)
{
    (void)s, (void)time_ms;
}

int store_history(struct store *s, enum stream stream, uint32_t device, int64_t from_ms,
                  int64_t to_ms, int (*fn)(void *user, const struct scan *scan), void *user)
{
    (void)s, (void)stream, (void)device, (void)from_ms, (void)to_ms, (void)fn, (void)user;
    return 0;
}

int store_ledger(struct store *s, int uplink, struct ledger_device **ret_devices, size_t *ret_count)
{
    (void)s, (void)uplink;
    *ret_devices = NULL;
    *ret_count = 0;
    return 0;
}

static int64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void print(const char *name, double value, const char *unit, double limit)
{
    printf("{\"bench\":\"pipeline\",\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"", name, value,
           unit);
    if (limit > 0) {
        printf(",\"limit\":%g,\"ratio\":%.3g", limit, value / limit);
    }
    printf("}\n");
}

static void make_points(struct config_point points[POINTS], char names[POINTS][16])
{
    for (size_t i = 0; i < POINTS; i++) {
        snprintf(names[i], sizeof names[i], "point_%zu", i);
        points[i] = (struct config_point){.name = names[i],
                                          .unit = "",
                                          .scale = {.mantissa = 1, .exponent = -2},
                                          .min = i == 0 ? 0 : -INFINITY,
                                          .max = INFINITY,
                                          .circular = i == 1,
                                          .on_change = i == 2};
    }
}

static void submit_round(struct device *devices[DEVICES], int64_t time_ms, unsigned *random)
{
    struct {
        struct scan scan;
        struct reading readings[POINTS];
    } s = {.scan = {.count = POINTS}};
    for (size_t d = 0; d < DEVICES; d++) {
        s.scan.time_ms = time_ms;
        for (uint16_t i = 0; i < POINTS; i++) {
            *random = *random * 1103515245 + 12345;
            s.scan.readings[i] = (struct reading){
                .point = i, .kind = VALUE_DECIMAL, .integer = (int64_t)(*random >> 20) + 1000};
        }
        if (scan_submit(devices[d], &s.scan) < 0) {
            abort();
        }
    }
}

/* Both clocks of the run: what the drivers' threads pay, and what the pipeline's pays. */
struct cost {
    int64_t submit_ns, turn_ns;
};

static struct cost run(struct pipeline *p, struct device *devices[DEVICES], int64_t start_ms)
{
    struct cost cost = {0};
    unsigned random = 1;
    for (int64_t second = 0; second < SECONDS; second++) {
        int64_t before = cpu_ns();
        submit_round(devices, start_ms + second * 1000, &random);
        int64_t between = cpu_ns();
        clock_advance_ms(1000);
        pipeline_turn(p);
        cost.submit_ns += between - before;
        cost.turn_ns += cpu_ns() - between;
    }
    return cost;
}

int main(void)
{
    static const char *const all[] = {"*"};
    static char names[POINTS][16];
    static struct config_point points[POINTS];
    make_points(points, names);
    struct config_gateway gateway = {.name = "gw", .clock = CONFIG_CLOCK_TRUSTED};
    struct config_aggregate aggregate = {.name = "scada",
                                         .window_ms = 600000,
                                         .points = {.items = all, .count = 1},
                                         .functions = FUNCTION_MEAN | FUNCTION_MIN | FUNCTION_MAX |
                                                      FUNCTION_STD | FUNCTION_COUNT};
    struct config config = {.gateway = &gateway, .aggregates = &aggregate, .aggregate_count = 1};
    struct config_device device = {.name = "t", .points = {.list = points, .count = POINTS}};
    static struct config_device configs[DEVICES];
    static char device_names[DEVICES][8];
    static struct device *devices[DEVICES];
    const int64_t start_ms = 1769853600000;
    clock_hold(start_ms, 1000000000);
    struct store store = {0};
    struct pipeline *p;
    size_t before = mallinfo2().uordblks;
    if (pipeline_create(&store, &config, &p) < 0) {
        return 1;
    }
    for (size_t i = 0; i < DEVICES; i++) {
        configs[i] = device;
        snprintf(device_names[i], sizeof device_names[i], "t%zu", i);
        configs[i].name = device_names[i];
        if (device_create(&config, &configs[i], (uint32_t)i + 1, (uint64_t[STREAM_COUNT]){0},
                          &devices[i]) < 0 ||
            pipeline_add_device(p, devices[i]) < 0) {
            return 1;
        }
    }
    pipeline_turn(p);
    double bytes = (double)(mallinfo2().uordblks - before);
    struct cost cost = run(p, devices, start_ms);
    double readings = (double)SECONDS * DEVICES * POINTS;
    print("submit", (double)cost.submit_ns / readings, "ns/reading", 0);
    print("turn", (double)cost.turn_ns / readings, "ns/reading", 0);
    print("share", (double)cost.turn_ns / 1e9 / SECONDS * 100, "% of a core at 15400/s", 0);
    print("memory", bytes / 1048576, "MiB for 15400 points", 3);
    for (size_t i = 0; i < DEVICES; i++) {
        device_unref(devices[i]);
    }
    pipeline_destroy(p);
    return store.readings > 0 && bytes < 3 << 20 ? 0 : 1;
}
