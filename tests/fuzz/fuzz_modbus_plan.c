/* Any map on a device with any holes: the plan settles, every point is either read or refused
 * because it touches a hole, and no request breaks a limit. Four bytes make a hole or a point. */
#include "drivers/modbus/plan.h"

#include <assert.h>
#include <string.h>

enum { POINTS_MAX = 64, HOLES_MAX = 6, SPAN = 512, ROUNDS_MAX = 600 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct hole {
    uint8_t table;
    unsigned first, end;
};

struct map {
    struct registers_point points[POINTS_MAX];
    struct plan_source sources[POINTS_MAX];
    size_t count;
    struct hole holes[HOLES_MAX];
    size_t hole_count;
    struct plan_limits limits;
};

static void read_map(const uint8_t *data, size_t size, struct map *map)
{
    map->limits = (struct plan_limits){.max_gap = data[0] % 125,
                                       .largest_request = data[1] % 125 + 1U,
                                       .one_request_per_point = data[2] % 16 == 0};
    for (size_t i = 3; i + 4 <= size && map->count < POINTS_MAX; i += 4) {
        unsigned first = ((unsigned)data[i + 1] << 8 | data[i + 2]) % SPAN;
        uint8_t table = data[i] >> 2 & 3;
        if ((data[i] & 0x80) != 0 && map->hole_count < HOLES_MAX) {
            map->holes[map->hole_count++] = (struct hole){table, first, first + data[i + 3] % 20U};
            continue;
        }
        unsigned width = registers_table_has_bits(table) ? 1U : data[i + 3] % 8U + 1U;
        width = width > map->limits.largest_request ? map->limits.largest_request : width;
        map->points[map->count] = (struct registers_point){
            .table = table, .first = (uint16_t)first, .width = (uint16_t)width};
        map->sources[map->count] = (struct plan_source){&map->points[map->count],
                                                        (data[i] & 3) == 3 ? 5 : 1};
        map->count++;
    }
}

static bool touches_hole(const struct map *map, uint8_t table, unsigned first, unsigned end)
{
    for (size_t i = 0; i < map->hole_count; i++) {
        const struct hole *hole = &map->holes[i];
        if (hole->table == table && first < hole->end && end > hole->first) {
            return true;
        }
    }
    return false;
}

static void check_request(const struct plan *plan, const struct plan_request *request)
{
    unsigned most = plan->limits.largest_request;
    most = registers_table_has_bits(request->table) ? 16 * most : most;
    assert(request->parts >= 1 && request->count >= 1 && request->count <= most);
    for (unsigned i = 0; i < request->parts; i++) {
        const struct plan_part *part = &plan->parts[request->part + i];
        assert(!part->refused && part->table == request->table && part->every == request->every);
        assert(part->first >= request->first);
        assert(part->first + part->width <= request->first + request->count);
    }
}

/* Sends everything once; whether nothing was refused. */
static bool run_round(const struct map *map, struct plan *plan)
{
    bool learned = false;
    unsigned sent = 0;
    for (size_t i = 0; i < plan->request_count;) {
        const struct plan_request *request = &plan->requests[i];
        assert(++sent <= 4 * POINTS_MAX);
        check_request(plan, request);
        if (touches_hole(map, request->table, request->first,
                         (unsigned)request->first + request->count)) {
            plan_refuse(plan, i);
            learned = true;
        } else {
            plan_accept(plan, i++);
        }
    }
    return !learned;
}

static void check_all_points(const struct map *map, const struct plan *plan)
{
    unsigned seen[POINTS_MAX] = {0};
    for (size_t i = 0; i < plan->request_count; i++) {
        for (unsigned p = 0; p < plan->requests[i].parts; p++) {
            seen[plan->parts[plan->requests[i].part + p].point]++;
        }
    }
    for (size_t i = 0; i < plan->part_count; i++) {
        const struct plan_part *part = &plan->parts[i];
        bool bad = touches_hole(map, part->table, part->first, (unsigned)part->first + part->width);
        assert(part->refused == bad);
        assert(seen[part->point] == (part->refused ? 0 : 1));
    }
}

static void settle(const struct map *map, struct plan *plan)
{
    unsigned rounds = 0;
    bool quiet;
    do {
        quiet = run_round(map, plan);
        if (quiet) {
            check_all_points(map, plan);
            plan_settle(plan);
        }
        assert(++rounds < ROUNDS_MAX);
    } while (!quiet || !plan->settled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct map map;
    struct plan plan;
    memset(&map, 0, sizeof(map));
    if (size < 7) {
        return 0;
    }
    read_map(data, size, &map);
    if (plan_init(&plan, map.sources, map.count, map.limits) != 0) {
        return 0;
    }
    settle(&map, &plan);
    plan_retry(&plan);
    map.hole_count /= 2;
    settle(&map, &plan);
    plan_finish(&plan);
    return 0;
}
