/* plan.h - which requests read a device's points, and what a refusal teaches.
 *
 * Pure; one owner, no locking; nothing allocates after plan_init(). Points of one table and one
 * `every` are read together, whatever their types, as long as the gap between them and the request
 * stay within the limits. Where a device refuses a request (exception 2, or 3 for a length it does
 * not like) the plan halves it, preferably at a gap, down to the exact point; halves that work are
 * joined again one trial a round, so that in the end a request ends only at a proven hole. Sizes
 * are in registers, for coils and discretes in bits; limits count 16 bits as one register. */
#pragma once

#include "drivers/modbus/registers.h"

struct plan_limits {
    unsigned max_gap;
    unsigned largest_request; /* 1..125 */
    bool one_request_per_point;
};

/* One point in the order of the plan. */
struct plan_part {
    uint16_t point; /* index in the device's points */
    uint16_t first, width;
    uint8_t table;
    bool wall;    /* a request over the border to the part before was refused */
    bool refused; /* the device refuses just this point */
    bool named;   /* the owner's: the refusal was logged */
    uint32_t every;
};

/* Reads parts[part..part + parts); a trial joins two requests at `border`. */
struct plan_request {
    uint16_t part, parts;
    uint16_t first, count;
    uint16_t border;
    uint8_t table;
    bool trial;
    uint32_t every;
};

struct plan {
    struct plan_limits limits;
    struct plan_part *parts;
    struct plan_request *requests;
    size_t part_count, request_count;
    size_t refused_count;
    bool settled;   /* nothing left to join */
    bool all_equal; /* no point has an `every` of its own */
};

/* What plan_refuse() found out: parts[part..part + parts) are refused for good; parts 0: the
 * request was split and both halves are to be sent. */
struct plan_refusal {
    uint16_t part, parts;
};

/* A point as the plan is told of it; the i-th becomes point i, without an address it is left out.
 */
struct plan_source {
    const struct registers_point *point;
    uint32_t every;
};

/* The sources may go after the call. -ENOMEM, or -EINVAL for more than SCAN_READINGS_MAX. */
must_check int plan_init(struct plan *plan, const struct plan_source *sources, size_t count,
                         struct plan_limits limits);
void plan_finish(struct plan *plan);

/* Whether requests[i] is read in poll number `poll` (from 0; the first reads everything). */
static inline bool plan_is_due(const struct plan_request *request, uint64_t poll)
{
    return request->every <= 1 || poll % request->every == 0;
}

/* requests[i] was answered with values. */
void plan_accept(struct plan *plan, size_t i);

/* requests[i] was refused. After a split requests[i] and requests[i + 1] stand in its place; after
 * a refusal for good it is gone and requests[i] is the next one. */
struct plan_refusal plan_refuse(struct plan *plan, size_t i);

/* After a round without refusals: joins one pair of neighbours on trial, when there is one. */
void plan_settle(struct plan *plan);

/* Takes the refused points in again, each in a request of its own. Returns how many there were. */
size_t plan_retry(struct plan *plan);

/* How many points are due in that poll, refused ones included. */
size_t plan_due_points(const struct plan *plan, uint64_t poll);
