#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"
#include "gateway/daemon.h"
#include "gateway/store/store_clock.h"
#include "uplink/host.h"

#include <errno.h>
#include <string.h>

void uplink_view_finish(struct uplink_view *view)
{
    for (size_t i = 0; i < view->device_count; i++) {
        device_unref(view->devices[i]);
    }
    free(view->devices);
    free(view->points);
    *view = (struct uplink_view){0};
}

/* Idle and sending take turns with each batch: both are well. */
static const char *state_word(enum sender_state state)
{
    return state == SENDER_IDLE || state == SENDER_SENDING ? "good" : sender_state_name(state);
}

static const char *clock_word(struct store *store)
{
    struct store_clock clock;
    store_clock(store, &clock);
    return clock.vouched ? "synchronised" : clock.sure ? "holding" : "waiting";
}

static void take_value(struct uplink_view_point *point, const struct reading *reading,
                       int64_t time_ms)
{
    static const struct scan no_texts = {0};
    auto_buffer struct buffer b = {0};
    bool shown = time_ms != 0 && (reading->kind == VALUE_DECIMAL || reading->kind == VALUE_REAL ||
                                  reading->kind == VALUE_FLOAT || reading->kind == VALUE_BOOL);
    if (shown) {
        reading_write_json(&b, &no_texts, reading);
    }
    const char *text = shown ? buffer_text(&b) : NULL;
    if (text != NULL && b.len < sizeof point->value) {
        snprintf(point->value, sizeof point->value, "%s", text);
        point->time_ms = time_ms;
    }
}

static int take_points(struct gateway *gateway, struct device *device,
                       const struct remote_rights *rights, struct uplink_view *view)
{
    const struct config_points *points = &device->config->points;
    auto_snapshot struct snapshot snapshot = {0};
    for (size_t i = 0; i < points->count && view->point_count < UPLINK_VIEW_POINTS_MAX; i++) {
        const struct config_point *config = &points->list[i];
        if (!config->writable || !remote_may(rights, device->config->name, config->name)) {
            continue;
        }
        if (snapshot.readings == NULL && snapshot_take(gateway->pipeline, device, &snapshot) < 0) {
            return -ENOMEM;
        }
        struct uplink_view_point *point = &view->points[view->point_count++];
        *point = (struct uplink_view_point){.device = device, .name = config->name};
        take_value(point, &snapshot.readings[i], snapshot.times_ms[i]);
    }
    return 0;
}

static void take_uplinks(const struct roster *roster, struct uplink_view *view)
{
    for (size_t i = 0; i < roster->uplink_count; i++) {
        struct uplink_view_uplink *uplink = &view->uplinks[view->uplink_count++];
        memcpy(uplink->name, roster->uplinks[i].name, sizeof uplink->name);
        uplink->state = state_word(roster->uplinks[i].status.state);
        uplink->waiting = roster->uplinks[i].status.waiting;
    }
}

static int look(void *user, const struct config_list *points, struct uplink_view *ret_view)
{
    struct gateway *gateway = user;
    auto_roster struct roster roster = {0};
    struct store_stat stat;
    auto_uplink_view struct uplink_view view = {0};
    const struct remote_rights rights = {.points = points};
    int r = roster_take(&gateway->host, ROSTER_DEVICES | ROSTER_UPLINKS, &roster);
    if (r < 0) {
        return r;
    }
    store_stat(gateway->store, &stat);
    view.time_ms = store_now_ms(gateway->store);
    view.uptime_s = (clock_boot_ms() - gateway->started_boot_ms) / 1000;
    view.clock = clock_word(gateway->store);
    view.waiting = stat.waiting;
    view.seconds_left = stat.seconds_left;
    take_uplinks(&roster, &view);
    view.devices = take_ptr(roster.devices);
    view.device_count = roster.device_count;
    roster.device_count = 0;
    if (points != NULL && points->count > 0) {
        view.points = calloc(UPLINK_VIEW_POINTS_MAX, sizeof *view.points);
        r = view.points == NULL ? -ENOMEM : 0;
    }
    for (size_t i = 0; view.points != NULL && r == 0 && i < view.device_count; i++) {
        r = take_points(gateway, view.devices[i], &rights, &view);
    }
    if (r == 0) {
        *ret_view = view;
        view = (struct uplink_view){0};
    }
    return r;
}

static void order(void *user, const struct write_command *command,
                  void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    writes_execute(((struct gateway *)user)->writes, command, done, arg);
}

static int64_t now_ms(void *user)
{
    return store_now_ms(((struct gateway *)user)->store);
}

void daemon_uplink_host_init(struct gateway *gateway)
{
    gateway->uplink_host = (struct uplink_host){
        .writes = {.user = gateway, .write = order, .now_ms = now_ms},
        .look = look,
        .user = gateway,
    };
}
