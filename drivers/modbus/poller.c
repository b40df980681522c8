#include "drivers/modbus/poller.h"

#include "drivers/modbus/read_now.h"
#include "drivers/modbus/write_now.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>

static void next_request(struct poller *poller);
static void start_seek(struct poller *poller);

static enum quality quality_of(enum device_error error, int detail)
{
    if (error == DEVICE_ERROR_EXCEPTION) {
        bool silent = detail == MBAP_GATEWAY_PATH || detail == MBAP_GATEWAY_TARGET;
        return silent ? QUALITY_BAD_TIMEOUT : QUALITY_BAD_REFUSED;
    }
    return error == DEVICE_ERROR_TIMEOUT ? QUALITY_BAD_TIMEOUT : QUALITY_BAD_CONNECTION;
}

/* Whether the error says that nobody is there, rather than that somebody declines. */
static bool is_silence(enum device_error error, int detail)
{
    return quality_of(error, detail) != QUALITY_BAD_REFUSED;
}

static void submit(struct poller *poller)
{
    if (scan_submit(poller->device, collect_scan(&poller->collect)) != 0) {
        device_report_error(poller->device, DEVICE_ERROR_OVERRUN, 0, false);
    }
}

/* All due points bad: where the gap begins. */
static void submit_gap(struct poller *poller)
{
    enum quality quality = quality_of(poller->error, poller->detail);
    collect_begin(&poller->collect);
    for (size_t i = 0; i < poller->plan.request_count; i++) {
        if (plan_is_due(&poller->plan.requests[i], poller->poll)) {
            collect_bad(&poller->collect, &poller->plan, &poller->plan.requests[i], quality);
        }
    }
    collect_refused(&poller->collect, &poller->plan, poller->poll);
    collect_unplaced(&poller->collect, poller->poll, quality);
    submit(poller);
}

static void finish_bad(struct poller *poller)
{
    struct device *device = poller->device;
    const char *name = device->config->name;
    int before = atomic_load_explicit(&device->health.state, memory_order_relaxed);
    bool dead = false;
    if (is_silence(poller->error, poller->detail)) {
        dead = breaker_bad(&poller->breaker, &poller->wire->line, clock_mono_ms(), poller->cost_ms,
                           poller->wire->users > 1);
    }
    if (before == DEVICE_GOOD) {
        submit_gap(poller);
    }
    device_report_error(device, poller->error, poller->detail, dead);
    if (before == DEVICE_GOOD || before == DEVICE_STARTING) {
        char why[128];
        device_describe_error(device, why, sizeof(why));
        log_warning("%s: no readings: %s", name, why);
    } else if (dead && before != DEVICE_DEAD) {
        log_warning("%s: does not answer, asked now and then from here on", name);
    }
}

static void finish_good(struct poller *poller)
{
    struct device *device = poller->device;
    int before = atomic_load_explicit(&device->health.state, memory_order_relaxed);
    breaker_good(&poller->breaker);
    collect_refused(&poller->collect, &poller->plan, poller->poll);
    collect_unplaced(&poller->collect, poller->poll, QUALITY_BAD_REFUSED);
    submit(poller);
    if (poller->error != DEVICE_ERROR_NONE) {
        device_report_error(device, poller->error, poller->detail, false);
    }
    device_report_good(device, poller->rtt_us);
    if (before == DEVICE_FAILING || before == DEVICE_DEAD) {
        log_info("%s: answers again", device->config->name);
    }
    /* It may have been exchanged for another while it was away. */
    if (before == DEVICE_DEAD && poller->layout.has_models) {
        start_seek(poller);
    }
    if (!poller->learned) {
        plan_settle(&poller->plan);
    }
}

static void finish_round(struct poller *poller)
{
    poller->running = false;
    if (poller->answers > 0) {
        finish_good(poller);
    } else if (poller->error != DEVICE_ERROR_NONE) {
        finish_bad(poller);
    }
    poller->poll++;
    if (poller->settings->close_after_round) {
        wire_close_idle(poller->wire);
    }
}

static void note_error(struct poller *poller, enum device_error error, int detail)
{
    if (poller->error == DEVICE_ERROR_NONE) {
        poller->error = error;
        poller->detail = detail;
    }
}

/* The rest of the round would fare no better: its points are bad without being asked for. */
static void abandon_round(struct poller *poller, enum quality quality)
{
    for (; poller->at < poller->plan.request_count; poller->at++) {
        struct plan_request *request = &poller->plan.requests[poller->at];
        if (plan_is_due(request, poller->poll)) {
            collect_bad(&poller->collect, &poller->plan, request, quality);
        }
    }
    finish_round(poller);
}

static void ask(struct poller *poller)
{
    if (poller->seeking) {
        poller->request.ask = (struct mbap_request){.function = MBAP_READ_HOLDING,
                                                    .first = sunspec_walk_at(&poller->walk),
                                                    .count = SUNSPEC_WALK_REGISTERS};
    } else {
        const struct plan_request *due = &poller->plan.requests[poller->at];
        poller->request.ask = (struct mbap_request){
            .function = registers_read_function(due->table),
            .first = due->first,
            .count = due->count,
        };
    }
    bool goes_on = poller->answers > 0;
    int r = wire_submit(poller->wire, &poller->request, goes_on);
    if (r != 0) {
        note_error(poller, DEVICE_ERROR_CONNECT, -r);
        abandon_round(poller, QUALITY_BAD_CONNECTION);
    }
}

static void next_request(struct poller *poller)
{
    poller->seeking = poller->seek_wanted;
    if (poller->seeking) {
        ask(poller);
        return;
    }
    while (poller->at < poller->plan.request_count &&
           !plan_is_due(&poller->plan.requests[poller->at], poller->poll)) {
        poller->at++;
    }
    if (poller->at < poller->plan.request_count) {
        ask(poller);
    } else {
        finish_round(poller);
    }
}

/* --- SunSpec models are looked for --- */

static void name_unplaced(const struct poller *poller)
{
    const struct config_device *config = poller->device->config;
    char found[160];
    sunspec_walk_describe(&poller->walk, found, sizeof(found));
    for (size_t i = 0; i < config->points.count; i++) {
        if (!layout_is_placed(&poller->layout.list[i])) {
            log_warning("%s: point %s (%s) is not in the device; SunSpec models found: %s",
                        config->name, config->points.list[i].name, config->points.list[i].source,
                        found);
        }
    }
}

static void end_seek(struct poller *poller)
{
    struct plan plan;
    size_t before = poller->layout.unplaced;
    layout_place(&poller->layout, &poller->walk);
    if (layout_plan(&poller->layout, &plan) == 0) {
        plan_finish(&poller->plan);
        poller->plan = plan;
    }
    poller->seek_wanted = false;
    if (poller->layout.unplaced > 0) {
        poller->retry_ms = clock_mono_ms() + POLLER_RETRY_MS;
        note_error(poller, DEVICE_ERROR_EXCEPTION, MBAP_ILLEGAL_ADDRESS);
    }
    if (poller->layout.unplaced > 0 && (!poller->was_sought || poller->layout.unplaced != before)) {
        name_unplaced(poller);
    }
    poller->was_sought = true;
}

static void start_seek(struct poller *poller)
{
    sunspec_walk_start(&poller->walk);
    poller->sought_silent = false;
    poller->seek_wanted = true;
}

/* Some devices keep silent about an address that they do not have: then the next round goes on
 * with the next one. When they were silent about all, they are just not there. */
static void on_sought_nothing(struct poller *poller, const struct session_result *result)
{
    enum quality quality = quality_of(result->error, result->detail);
    note_error(poller, result->error, result->detail);
    if (result->error == DEVICE_ERROR_TIMEOUT && !poller->walk.found) {
        poller->sought_silent = true;
        sunspec_walk_refused(&poller->walk);
    }
    if (poller->walk.ended) {
        start_seek(poller);
    }
    poller->seeking = false;
    abandon_round(poller, quality);
}

static void on_sought(struct poller *poller, const struct session_result *result)
{
    bool refused = result->error == DEVICE_ERROR_EXCEPTION &&
                   quality_of(result->error, result->detail) == QUALITY_BAD_REFUSED &&
                   result->detail != MBAP_BUSY && result->detail != MBAP_ACKNOWLEDGE;
    if (result->error == DEVICE_ERROR_NONE) {
        sunspec_walk_take(&poller->walk, result->data);
    } else if (refused) {
        sunspec_walk_refused(&poller->walk);
    } else {
        on_sought_nothing(poller, result);
        return;
    }
    if (poller->walk.ended && !poller->walk.found && poller->sought_silent) {
        start_seek(poller);
        note_error(poller, DEVICE_ERROR_TIMEOUT, 0);
        poller->seeking = false;
        abandon_round(poller, QUALITY_BAD_TIMEOUT);
        return;
    }
    if (poller->walk.ended) {
        end_seek(poller);
    }
    next_request(poller);
}

static void on_busy_over(struct schedule_timer *timer)
{
    struct poller *poller = (struct poller *)((char *)timer - offsetof(struct poller, busy));
    ask(poller);
}

static void on_values(struct poller *poller, const struct session_result *result)
{
    struct plan_request *request = &poller->plan.requests[poller->at];
    int64_t boot_ms = poller->answers == 0 ? clock_boot_ms() : 0;
    collect_values(&poller->collect, &poller->plan, request, result->data, boot_ms);
    if (request->parts == 1 && poller->plan.parts[request->part].named) {
        struct plan_part *part = &poller->plan.parts[request->part];
        part->named = false;
        log_info("%s: point %s is no longer refused", poller->device->config->name,
                 poller->device->config->points.list[part->point].name);
    }
    plan_accept(&poller->plan, poller->at);
    poller->was_busy = false;
    poller->answers++;
    poller->rtt_us = result->rtt_us;
    poller->at++;
}

static void name_refused(struct poller *poller, struct plan_refusal refusal, int detail)
{
    const struct config_device *config = poller->device->config;
    for (unsigned i = 0; i < refusal.parts; i++) {
        struct plan_part *part = &poller->plan.parts[refusal.part + i];
        if (!part->named) {
            part->named = true;
            log_warning("%s: point %s (%s) is refused by the device: %s", config->name,
                        config->points.list[part->point].name,
                        config->points.list[part->point].source,
                        mbap_exception_name((unsigned)detail));
        }
    }
}

/* Exception 2, or 3 where the device finds the request too long. */
static void on_refused(struct poller *poller, int detail)
{
    struct plan_refusal refusal = plan_refuse(&poller->plan, poller->at);
    poller->learned = true;
    if (refusal.parts > 0) {
        name_refused(poller, refusal, detail);
        note_error(poller, DEVICE_ERROR_EXCEPTION, detail);
        poller->retry_ms = clock_mono_ms() + POLLER_RETRY_MS;
    }
}

static void on_exception(struct poller *poller, int detail)
{
    struct plan_request *request = &poller->plan.requests[poller->at];
    if (detail == MBAP_ILLEGAL_ADDRESS || detail == MBAP_ILLEGAL_VALUE) {
        on_refused(poller, detail);
        next_request(poller);
        return;
    }
    if ((detail == MBAP_BUSY || detail == MBAP_ACKNOWLEDGE) && !poller->was_busy) {
        poller->was_busy = true;
        schedule_set(poller->schedule, &poller->busy, POLLER_BUSY_MS);
        return;
    }
    note_error(poller, DEVICE_ERROR_EXCEPTION, detail);
    collect_bad(&poller->collect, &poller->plan, request,
                quality_of(DEVICE_ERROR_EXCEPTION, detail));
    poller->at++;
    next_request(poller);
}

/* One range that a device keeps silent about must not cost it all the others; but a device that is
 * silent altogether, now and in the round before, is not asked for each of them. */
static void on_silence(struct poller *poller, enum quality quality)
{
    collect_bad(&poller->collect, &poller->plan, &poller->plan.requests[poller->at], quality);
    poller->at++;
    poller->timeouts++;
    bool again = poller->answers == 0 && poller->breaker.failures > 0;
    if (poller->timeouts >= POLLER_TIMEOUTS_MAX || again) {
        abandon_round(poller, quality);
    } else {
        next_request(poller);
    }
}

static void on_result(struct session_request *request, const struct session_result *result)
{
    struct poller *poller = (struct poller *)((char *)request - offsetof(struct poller, request));
    poller->cost_ms += result->cost_ms;
    for (unsigned i = 0; i < result->mismatches; i++) {
        device_report_error(poller->device, DEVICE_ERROR_MISMATCH, 0, false);
    }
    if (poller->seeking) {
        on_sought(poller, result);
        return;
    }
    if (result->error == DEVICE_ERROR_NONE) {
        on_values(poller, result);
        next_request(poller);
        return;
    }
    enum quality quality = quality_of(result->error, result->detail);
    if (quality == QUALITY_BAD_REFUSED) {
        on_exception(poller, result->detail);
        return;
    }
    note_error(poller, result->error, result->detail);
    if (quality == QUALITY_BAD_TIMEOUT) {
        on_silence(poller, quality);
    } else {
        abandon_round(poller, quality);
    }
}

static void begin_round(struct poller *poller)
{
    atomic_fetch_add_explicit(&poller->device->health.polls, 1, memory_order_relaxed);
    poller->running = true;
    poller->was_busy = poller->learned = false;
    poller->at = 0;
    poller->answers = poller->timeouts = 0;
    poller->error = DEVICE_ERROR_NONE;
    poller->cost_ms = 0;
    collect_begin(&poller->collect);
    next_request(poller);
}

/* Refused points are taken in again after a while: the device may have been starting, or have a new
 * firmware. Returns whether there is anything to ask for. */
static bool revive_refused(struct poller *poller)
{
    struct plan *plan = &poller->plan;
    if (plan->refused_count > 0) {
        int64_t early = plan->request_count > 0 ? 0 : POLLER_RETRY_MS - POLLER_RETRY_ALL_MS;
        if (clock_mono_ms() >= poller->retry_ms - early) {
            plan_retry(plan);
        }
    }
    if (poller->layout.unplaced > 0 && !poller->seek_wanted) {
        int64_t early = plan->request_count > 0 ? 0 : POLLER_RETRY_MS - POLLER_RETRY_ALL_MS;
        if (clock_mono_ms() >= poller->retry_ms - early) {
            start_seek(poller);
        }
    }
    return plan->request_count > 0 || poller->seek_wanted;
}

static void note_lateness(struct device *device, int64_t late_us)
{
    if (late_us > atomic_load_explicit(&device->health.late_us_max, memory_order_relaxed)) {
        atomic_store_explicit(&device->health.late_us_max, late_us, memory_order_relaxed);
    }
}

static size_t due_points(const struct poller *poller)
{
    return plan_due_points(&poller->plan, poller->poll) + poller->layout.unplaced;
}

static void on_due(struct schedule_entry *entry, unsigned skipped, int64_t late_us)
{
    struct poller *poller = (struct poller *)((char *)entry - offsetof(struct poller, entry));
    struct device *device = poller->device;
    note_lateness(device, late_us);
    if (skipped > 0) {
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
        atomic_fetch_add_explicit(&device->health.errors[DEVICE_ERROR_OVERRUN], skipped - 1U,
                                  memory_order_relaxed);
    }
    if (!poller->running && breaker_is_open(&poller->breaker) &&
        !breaker_allows(&poller->breaker, &poller->wire->line, clock_mono_ms())) {
        return;
    }
    if (poller->running || !scan_has_room(device, due_points(poller))) {
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
        return;
    }
    if (revive_refused(poller)) {
        begin_round(poller);
    }
}

int poller_create(struct schedule *schedule, struct wire *wire, struct device *device,
                  struct poller **ret_poller)
{
    struct poller *poller = calloc(1, sizeof(*poller));
    if (poller == NULL) {
        wire_put(wire);
        return -ENOMEM;
    }
    poller->wire = wire;
    poller->schedule = schedule;
    poller->device = device;
    poller->settings = device->config->settings;
    int r = layout_init(&poller->layout, device->config);
    if (r == 0) {
        r = layout_plan(&poller->layout, &poller->plan);
    }
    if (r == 0) {
        r = collect_init(&poller->collect, &poller->layout);
    }
    if (r != 0) {
        poller_destroy(poller);
        return r;
    }
    if (poller->layout.has_models) {
        start_seek(poller);
    }
    poller->request.unit = (uint8_t)poller->settings->unit;
    poller->request.timeout_ms = device->config->timeout_ms;
    poller->request.done = on_result;
    poller->busy.fire = on_busy_over;
    poller->entry.due = on_due;
    schedule_add(schedule, &poller->entry, device->config->poll_ms);
    *ret_poller = poller;
    return 0;
}

void poller_destroy(struct poller *poller)
{
    if (poller == NULL) {
        return;
    }
    schedule_remove(&poller->entry);
    schedule_cancel(poller->schedule, &poller->busy);
    if (poller->wire != NULL) {
        read_now_cancel_all(poller);
        write_now_cancel(poller);
        wire_cancel(poller->wire, &poller->request);
        wire_put(poller->wire);
    }
    plan_finish(&poller->plan);
    layout_finish(&poller->layout);
    collect_finish(&poller->collect);
    free(poller);
}
