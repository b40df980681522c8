#include "drivers/modbus/plan.h"

#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <string.h>

enum { BITS_A_REGISTER = 16 };

/* A limit in registers, in the unit of the table. */
static unsigned in_unit(uint8_t table, unsigned registers)
{
    return registers_table_has_bits(table) ? registers * BITS_A_REGISTER : registers;
}

static unsigned part_end(const struct plan_part *part)
{
    return (unsigned)part->first + part->width;
}

static unsigned request_end(const struct plan_request *request)
{
    return (unsigned)request->first + request->count;
}

static int compare_parts(const void *left, const void *right)
{
    const struct plan_part *a = left, *b = right;
    if (a->table != b->table) {
        return a->table < b->table ? -1 : 1;
    }
    if (a->every != b->every) {
        return a->every < b->every ? -1 : 1;
    }
    if (a->first != b->first) {
        return a->first < b->first ? -1 : 1;
    }
    if (a->width != b->width) {
        return a->width < b->width ? -1 : 1;
    }
    return a->point < b->point ? -1 : a->point > b->point;
}

/* The request that reads exactly these parts. */
static struct plan_request request_of(const struct plan *plan, size_t part, size_t parts)
{
    const struct plan_part *from = &plan->parts[part];
    unsigned end = 0;
    for (size_t i = 0; i < parts; i++) {
        end = part_end(&from[i]) > end ? part_end(&from[i]) : end;
    }
    return (struct plan_request){
        .part = (uint16_t)part,
        .parts = (uint16_t)parts,
        .first = from->first,
        .count = (uint16_t)(end - from->first),
        .table = from->table,
        .every = from->every,
    };
}

/* Whether b, the next request in order, may be read with a. */
static bool may_join(const struct plan *plan, const struct plan_request *a,
                     const struct plan_request *b)
{
    if (a->table != b->table || a->every != b->every || a->part + a->parts != b->part ||
        plan->parts[b->part].wall || plan->limits.one_request_per_point) {
        return false;
    }
    unsigned end = request_end(a) > request_end(b) ? request_end(a) : request_end(b);
    return b->first <= request_end(a) + in_unit(a->table, plan->limits.max_gap) &&
           end - a->first <= in_unit(a->table, plan->limits.largest_request);
}

static void join(struct plan *plan, size_t i)
{
    struct plan_request *a = &plan->requests[i];
    *a = request_of(plan, a->part, (size_t)a->parts + plan->requests[i + 1].parts);
    plan->request_count--;
    memmove(a + 1, a + 2, (plan->request_count - i - 1) * sizeof(*a));
}

static void build(struct plan *plan)
{
    for (size_t i = 0; i < plan->part_count; i++) {
        plan->requests[plan->request_count++] = request_of(plan, i, 1);
        size_t last = plan->request_count - 1;
        if (last > 0 && may_join(plan, &plan->requests[last - 1], &plan->requests[last])) {
            join(plan, last - 1);
        }
    }
    plan->settled = true;
}

int plan_init(struct plan *plan, const struct plan_source *sources, size_t count,
              struct plan_limits limits)
{
    *plan = (struct plan){.limits = limits};
    if (count > SCAN_READINGS_MAX) {
        return -EINVAL;
    }
    plan->parts = calloc(count + 1, sizeof(*plan->parts));
    plan->requests = calloc(count + 1, sizeof(*plan->requests));
    if (plan->parts == NULL || plan->requests == NULL) {
        plan_finish(plan);
        return -ENOMEM;
    }
    plan->all_equal = true;
    for (size_t i = 0; i < count; i++) {
        if (sources[i].point == NULL) {
            continue;
        }
        plan->all_equal = plan->all_equal && sources[i].every <= 1;
        plan->parts[plan->part_count++] = (struct plan_part){
            .point = (uint16_t)i,
            .first = sources[i].point->first,
            .width = sources[i].point->width,
            .table = sources[i].point->table,
            .every = sources[i].every > 0 ? sources[i].every : 1,
        };
    }
    qsort(plan->parts, plan->part_count, sizeof(*plan->parts), compare_parts);
    build(plan);
    return 0;
}

void plan_finish(struct plan *plan)
{
    free(plan->parts);
    free(plan->requests);
    *plan = (struct plan){0};
}

void plan_accept(struct plan *plan, size_t i)
{
    plan->requests[i].trial = false;
}

/* How good a border in front of part `at` is to split at: 2 a gap, 1 registers that touch, 0 an
 * overlap with a part before (then both halves still ask for the same register). */
static int border_rank(unsigned end_before, const struct plan_part *at)
{
    return at->first > end_before ? 2 : at->first == end_before ? 1 : 0;
}

/* The best border of the request nearest to its middle; 0 when all its parts are the same
 * registers, which no split can tell apart. */
static uint16_t choose_border(const struct plan *plan, const struct plan_request *request)
{
    const struct plan_part *parts = &plan->parts[request->part];
    unsigned end = part_end(&parts[0]);
    int best_rank = -1;
    unsigned best = 0, best_distance = 0;
    bool all_same = true;
    for (unsigned i = 1; i < request->parts; i++) {
        int rank = border_rank(end, &parts[i]);
        unsigned distance = 2 * i > request->parts ? 2 * i - request->parts
                                                   : request->parts - 2 * i;
        if (rank > best_rank || (rank == best_rank && distance < best_distance)) {
            best_rank = rank;
            best = i;
            best_distance = distance;
        }
        all_same = all_same && parts[i].first == parts[0].first && parts[i].width == parts[0].width;
        end = part_end(&parts[i]) > end ? part_end(&parts[i]) : end;
    }
    return all_same ? 0 : (uint16_t)(request->part + best);
}

static void remove_request(struct plan *plan, size_t i)
{
    plan->request_count--;
    memmove(&plan->requests[i], &plan->requests[i + 1],
            (plan->request_count - i) * sizeof(*plan->requests));
}

static void insert_request(struct plan *plan, size_t i, struct plan_request request)
{
    memmove(&plan->requests[i + 1], &plan->requests[i],
            (plan->request_count - i) * sizeof(*plan->requests));
    plan->requests[i] = request;
    plan->request_count++;
}

struct plan_refusal plan_refuse(struct plan *plan, size_t i)
{
    struct plan_request request = plan->requests[i];
    plan->settled = false;
    uint16_t border = request.border;
    if (request.trial) {
        plan->parts[border].wall = true;
    } else {
        border = choose_border(plan, &request);
    }
    if (border == 0) {
        for (unsigned p = 0; p < request.parts; p++) {
            plan->parts[request.part + p].refused = true;
        }
        plan->refused_count += request.parts;
        remove_request(plan, i);
        return (struct plan_refusal){.part = request.part, .parts = request.parts};
    }
    unsigned left = (unsigned)border - request.part;
    plan->requests[i] = request_of(plan, request.part, left);
    insert_request(plan, i + 1, request_of(plan, border, request.parts - left));
    return (struct plan_refusal){0};
}

void plan_settle(struct plan *plan)
{
    if (plan->settled) {
        return;
    }
    for (size_t i = 0; i + 1 < plan->request_count; i++) {
        if (may_join(plan, &plan->requests[i], &plan->requests[i + 1])) {
            uint16_t border = plan->requests[i + 1].part;
            join(plan, i);
            plan->requests[i].trial = true;
            plan->requests[i].border = border;
            return;
        }
    }
    plan->settled = true;
}

size_t plan_retry(struct plan *plan)
{
    size_t taken_in = 0, i = 0;
    for (size_t p = 0; p < plan->part_count; p++) {
        if (!plan->parts[p].refused) {
            continue;
        }
        while (i < plan->request_count && plan->requests[i].part < p) {
            i++;
        }
        plan->parts[p].refused = false;
        insert_request(plan, i, request_of(plan, p, 1));
        taken_in++;
    }
    plan->refused_count = 0;
    plan->settled = plan->settled && taken_in == 0;
    return taken_in;
}

size_t plan_due_points(const struct plan *plan, uint64_t poll)
{
    size_t due = 0;
    if (plan->all_equal) {
        return plan->part_count;
    }
    for (size_t p = 0; p < plan->part_count; p++) {
        uint32_t every = plan->parts[p].every;
        due += every <= 1 || poll % every == 0;
    }
    return due;
}
