#include "gateway/pipeline/clock.h"

#include "gateway/base/log.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store_clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void pipeline_clock_init(struct pipeline *p)
{
    p->clock.offset_ms = p->clock.system_offset_ms = clock_offset_ms();
}

int64_t pipeline_now_ms(const struct pipeline *p)
{
    return clock_boot_ms() + p->clock.offset_ms;
}

static bool same_offset(int64_t a, int64_t b)
{
    return llabs(a - b) <= ANCHORS_SAME_MS;
}

void pipeline_stamp(const struct pipeline *p, struct scan *scan)
{
    int64_t offset_ms = p->clock.offset_ms, boot_ms = clock_boot_ms();
    if (scan->time_ms == 0) {
        scan->boot_ms = scan->boot_ms > 0 && scan->boot_ms <= boot_ms ? scan->boot_ms : boot_ms;
        scan->time_ms = scan->boot_ms + offset_ms;
        return;
    }
    /* A time that was given is one of the system's clock, or it is the sender's own: that one is
     * kept whatever happens to ours. */
    int64_t system_ms = clock_offset_ms();
    bool ours = llabs(scan->time_ms - boot_ms - system_ms) <= PIPELINE_OWN_TIME_MS;
    scan->boot_ms = ours ? scan->time_ms - system_ms : boot_ms;
    if (ours && same_offset(system_ms, offset_ms)) {
        scan->boot_ms = scan->time_ms - offset_ms;
    } else if (ours) {
        scan->time_ms = scan->boot_ms + offset_ms;
    }
}

void pipeline_restamp(const struct pipeline *p, struct scan *scan)
{
    int64_t offset_ms = p->clock.offset_ms, stamped_ms = scan->time_ms - scan->boot_ms;
    for (size_t i = 0; stamped_ms != offset_ms && i < PIPELINE_OFFSETS; i++) {
        if (stamped_ms == p->clock.former_ms[i]) {
            scan->time_ms = scan->boot_ms + offset_ms;
            return;
        }
    }
}

static void describe_step(struct pipeline *p, int64_t step_ms, bool followed)
{
    char text[120];
    snprintf(text, sizeof text, "the clock was set %s by %lld ms%s",
             step_ms > 0 ? "forward" : "back", (long long)llabs(step_ms),
             followed ? "" : "; nobody vouches for it: readings wait, on the time as it was");
    log_warning("%s", text);
    pipeline_record(p, NULL, "clock-step", text);
}

static void take_offset(struct pipeline *p, int64_t offset_ms)
{
    if (offset_ms != p->clock.offset_ms) {
        memmove(&p->clock.former_ms[1], &p->clock.former_ms[0],
                sizeof p->clock.former_ms - sizeof p->clock.former_ms[0]);
        p->clock.former_ms[0] = p->clock.offset_ms;
        p->clock.offset_ms = offset_ms;
    }
    struct store_clock clock;
    store_clock(p->store, &clock);
    p->clock.anchored_ms = clock.since_ms + offset_ms;
}

static int look(struct pipeline *p, struct anchors_look *ret_look)
{
    if (!p->clock.boot_known) {
        int r = clock_boot_id(p->clock.boot);
        if (r < 0) {
            return r;
        }
        p->clock.boot_known = true;
    }
    *ret_look = (struct anchors_look){
        .offset_ms = clock_offset_ms(),
        .boot_ms = clock_boot_ms(),
        .vouched = p->config->gateway->clock == CONFIG_CLOCK_TRUSTED || clock_synchronised()};
    memcpy(ret_look->boot, p->clock.boot, sizeof p->clock.boot);
    return 0;
}

/* Windows end on the time on which they were filled, and in the store under the same anchor. */
static void move_clock(struct pipeline *p, const struct anchors_look *look, int64_t offset_ms)
{
    int64_t step_ms = offset_ms - p->clock.offset_ms, moved_ms = 0;
    bool cut = p->clock.started && llabs(step_ms) >= PIPELINE_CLOCK_STEP_MS;
    if (cut) {
        tracks_cut(p, pipeline_now_ms(p));
    }
    int r = store_clock_mind(p->store, look, p->config->gateway->clock_wait_ms, &moved_ms);
    if (r < 0) {
        pipeline_fail(p, r);
    }
    take_offset(p, offset_ms);
    if (cut) {
        tracks_reopen(p, pipeline_now_ms(p));
    }
    p->clock.notes_moved_ms += p->clock.started ? 0 : moved_ms;
}

void pipeline_mind_clock(struct pipeline *p)
{
    struct anchors_look now;
    int r = atomic_load(&p->error);
    r = r < 0 ? r : look(p, &now);
    if (r < 0) {
        return; /* a failed store has been told of; without the boot's id times stay as they are */
    }
    int64_t step_ms = now.offset_ms - p->clock.system_offset_ms;
    int64_t offset_ms = store_clock_plan(p->store, &now);
    p->clock.system_offset_ms = now.offset_ms;
    move_clock(p, &now, offset_ms);
    if (llabs(step_ms) >= PIPELINE_CLOCK_STEP_MS) {
        describe_step(p, step_ms, same_offset(offset_ms, now.offset_ms));
    }
}

void pipeline_watch_clock(struct pipeline *p)
{
    if (!same_offset(clock_offset_ms(), p->clock.system_offset_ms)) {
        pipeline_mind_clock(p);
    }
}
