#include "uplink/mqtt/side.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/mqtt/commands.h"
#include "uplink/mqtt/shadow.h"
#include "uplink/mqtt/statuses.h"

#include <errno.h>

enum {
    PAUSE_FIRST_MS = 1000,
    PAUSE_MAX_MS = 60000,
    HANG_UP_MS = 2000,
    LONG_LIFE_MS = 30000, /* a connection that lasted so long was a good one */
    SUBSCRIPTIONS_MAX = SHADOW_KINDS + 1,
    WARN_MS = 60000,
    LOOK_GAP_MS = 50,
    REST_MAX_MS = 16 * 60000,
};

struct mqtt_side {
    const struct mqtt_settings *settings;
    const struct uplink_host *host;
    const char *uplink;
    struct remote *remote;
    struct mqtt_notes notes;
    struct mqtt_statuses statuses;
    struct mqtt_commands commands;
    struct shadow *shadow; /* NULL: off */

    struct mqtt_link *link;         /* while it is up */
    int waiting[SUBSCRIPTIONS_MAX]; /* subscriptions that the broker has not answered; 0: free */
    size_t waiting_count;
    bool refused, settled, resting; /* settled: the broker bears with what is asked of it */
    unsigned strikes;
    int64_t rest_until_ms, up_since_ms, connect_at_ms, pause_ms, warn_at_ms;
    int64_t rest_ms, looked_ms, look_at_ms;
    int64_t refused_ms; /* when the broker last refused a note on this connection, 0: it did not */
};

void mqtt_side_destroy(struct mqtt_side *side)
{
    if (side == NULL) {
        return;
    }
    shadow_destroy(side->shadow);
    mqtt_commands_finish(&side->commands);
    mqtt_statuses_finish(&side->statuses);
    mqtt_notes_finish(&side->notes);
    remote_close(side->remote);
    free(side);
}

static int make_parts(struct mqtt_side *side, const char *gateway)
{
    const struct mqtt_settings *s = side->settings;
    const struct remote_rights rights = {
        .allowed = s->writes, .points = &s->write_points, .horizon_ms = s->write_expiry_ms};
    int r = remote_create(&side->host->writes, &rights, &side->remote);
    if (r < 0) {
        return r;
    }
    side->statuses = (struct mqtt_statuses){.settings = s, .gateway = gateway};
    side->commands = (struct mqtt_commands){
        .settings = s, .uplink = side->uplink, .remote = side->remote, .notes = &side->notes};
    r = mqtt_commands_init(&side->commands, gateway);
    return r < 0 || s->shadow == MQTT_SHADOW_OFF
               ? r
               : shadow_create(s, gateway, side->host, side->remote, &side->notes, &side->shadow);
}

int mqtt_side_create(const struct mqtt_settings *settings, const char *gateway,
                     const struct uplink_host *host, const char *uplink,
                     struct mqtt_side **ret_side)
{
    struct mqtt_side *side = calloc(1, sizeof *side);
    if (side == NULL) {
        return -ENOMEM;
    }
    side->settings = settings;
    side->host = host;
    side->uplink = uplink;
    mqtt_notes_init(&side->notes);
    int r = make_parts(side, gateway);
    if (r < 0) {
        mqtt_side_destroy(side);
        return r;
    }
    *ret_side = side;
    return 0;
}

static void subscribe(struct mqtt_side *side, const char *filter, bool live_only)
{
    int message;
    if (mqtt_link_subscribe(side->link, filter, live_only, &message) == 0) {
        side->waiting[side->waiting_count++] = message;
    } else {
        side->refused = true;
    }
}

void mqtt_side_up(struct mqtt_side *side, struct mqtt_link *link, int64_t now_ms)
{
    side->link = link;
    side->up_since_ms = side->look_at_ms = now_ms;
    side->waiting_count = 0;
    side->refused = false;
    side->refused_ms = 0;
    side->settled = side->resting = now_ms < side->rest_until_ms;
    if (side->resting) {
        return;
    }
    if (side->commands.filter != NULL) {
        subscribe(side, side->commands.filter, true);
    }
    for (size_t i = 0; side->shadow != NULL && shadow_topic(side->shadow, i) != NULL; i++) {
        subscribe(side, shadow_topic(side->shadow, i), false);
    }
}

static void strike(struct mqtt_side *side, int64_t now_ms)
{
    if (++side->strikes < MQTT_SIDE_STRIKES) {
        return;
    }
    side->rest_ms = side->rest_ms == 0             ? MQTT_SIDE_REST_MS
                    : side->rest_ms >= REST_MAX_MS ? REST_MAX_MS
                                                   : side->rest_ms * 2;
    log_warning("uplink %s: the broker ends the connection for what goes with it beside readings "
                "(device_status_topic, command_topic, shadow: rights of the certificate or user?): "
                "that rests for %lld s",
                side->uplink, (long long)(side->rest_ms / 1000));
    side->strikes = 0;
    side->rest_until_ms = now_ms + side->rest_ms;
    mqtt_notes_finish(&side->notes);
    mqtt_notes_init(&side->notes);
}

/* The broker has just refused a note: it may be about to hang up on that. */
static bool refused_lately(const struct mqtt_side *side, int64_t now_ms)
{
    return side->refused_ms != 0 && now_ms - side->refused_ms < HANG_UP_MS;
}

void mqtt_side_down(struct mqtt_side *side, int64_t now_ms)
{
    bool was_up = side->link != NULL;
    bool asking = side->waiting_count > 0 || side->notes.inflight > 0;
    if (was_up && ((!side->settled && asking) || refused_lately(side, now_ms))) {
        strike(side, now_ms);
    }
    if (was_up && now_ms - side->up_since_ms >= LONG_LIFE_MS) {
        side->pause_ms = 0;
    }
    side->pause_ms = side->pause_ms == 0                 ? PAUSE_FIRST_MS
                     : side->pause_ms * 2 < PAUSE_MAX_MS ? side->pause_ms * 2
                                                         : PAUSE_MAX_MS;
    /* Half of it is at random, so that a site's gateways do not come all at once. */
    side->connect_at_ms = now_ms + side->pause_ms / 2 +
                          (int64_t)((uint64_t)clock_mono_ns() % (uint64_t)(side->pause_ms / 2));
    side->link = NULL;
    mqtt_notes_down(&side->notes);
    mqtt_statuses_down(&side->statuses);
    if (side->shadow != NULL) {
        shadow_down(side->shadow);
    }
}

/* Looking costs a copy of the device list: not for each message of a flood. */
static void look_soon(struct mqtt_side *side)
{
    int64_t soon_ms = side->looked_ms + LOOK_GAP_MS;
    side->look_at_ms = soon_ms < side->look_at_ms ? soon_ms : side->look_at_ms;
}

void mqtt_side_received(struct mqtt_side *side, const char *topic, const void *payload, size_t len,
                        bool retained)
{
    if (side->shadow != NULL && shadow_take(side->shadow, topic, payload, len, clock_mono_ms())) {
        look_soon(side);
        return;
    }
    (void)mqtt_commands_take(&side->commands, topic, payload, len, retained);
}

void mqtt_side_subscribed(struct mqtt_side *side, int message, int reason)
{
    for (size_t i = 0; i < side->waiting_count; i++) {
        if (side->waiting[i] == message) {
            side->waiting[i] = side->waiting[--side->waiting_count];
            side->refused = side->refused || reason >= 0x80;
            if (reason >= 0x80) {
                log_warning("uplink %s: the broker refuses a subscription for command_topic or "
                            "shadow: %s",
                            side->uplink, mqtt_reason_words(reason));
            }
            break;
        }
    }
    if (side->waiting_count == 0 && !side->refused && side->shadow != NULL) {
        shadow_up(side->shadow, clock_mono_ms());
        look_soon(side);
    }
}

bool mqtt_side_acknowledged(struct mqtt_side *side, int message, int reason)
{
    auto_free struct mqtt_note *note = mqtt_notes_acknowledged(&side->notes, message);
    int64_t now_ms = clock_mono_ms();
    side->refused_ms = note != NULL && reason >= 0x80 ? now_ms : side->refused_ms;
    if (note != NULL && reason >= 0x80 && now_ms >= side->warn_at_ms) {
        log_warning("uplink %s: topic %s: %s", side->uplink, note->frame.topic,
                    mqtt_reason_words(reason));
        side->warn_at_ms = now_ms + WARN_MS;
    }
    return note != NULL;
}

static void take_answers(struct mqtt_side *side, int64_t now_ms)
{
    struct remote_answer answer;
    while (remote_next(side->remote, &answer)) {
        if ((answer.tag & MQTT_COMMAND_TAG) != 0) {
            mqtt_commands_answer(&side->commands, &answer);
        } else if (side->shadow != NULL) {
            shadow_answer(side->shadow, &answer, now_ms);
            look_soon(side);
        }
    }
}

/* The broker has answered everything that it may dislike. */
static void settle(struct mqtt_side *side)
{
    bool heard = side->shadow == NULL || side->refused || shadow_is_heard(side->shadow);
    bool told = side->looked_ms >= side->up_since_ms && side->notes.count == 0;
    bool borne = !refused_lately(side, clock_mono_ms());
    if (!side->settled && side->waiting_count == 0 && heard && told && borne) {
        side->settled = true;
        side->strikes = 0;
        side->rest_ms = 0;
    }
}

static void look(struct mqtt_side *side, int64_t now_ms)
{
    auto_uplink_view struct uplink_view view = {0};
    const struct config_list *points = side->shadow != NULL ? &side->settings->write_points : NULL;
    side->looked_ms = now_ms;
    side->look_at_ms = now_ms + MQTT_SIDE_LOOK_MS;
    if (side->host->look(side->host->user, points, &view) < 0 ||
        mqtt_statuses_look(&side->statuses, &view, now_ms, &side->notes) < 0) {
        return;
    }
    mqtt_statuses_tell(&side->statuses, &view, &side->notes);
    if (side->shadow != NULL) {
        shadow_step(side->shadow, &view, &side->statuses, now_ms);
    }
}

void mqtt_side_step(struct mqtt_side *side, int64_t now_ms)
{
    take_answers(side, now_ms);
    if (side->link == NULL) {
        return;
    }
    if (side->resting && now_ms >= side->rest_until_ms) {
        mqtt_side_up(side, side->link, now_ms);
    }
    settle(side);
    if (side->resting) {
        side->look_at_ms = now_ms + MQTT_SIDE_LOOK_MS;
    } else if (now_ms >= side->look_at_ms) {
        look(side, now_ms);
    }
}

/* Of what is subscribed to; NULL: it could work as far as the broker is concerned. */
static const char *hindrance(const struct mqtt_side *side)
{
    return side->link == NULL        ? "waiting"
           : side->resting           ? "resting"
           : side->waiting_count > 0 ? "waiting"
           : side->refused           ? "refused"
                                     : NULL;
}

void mqtt_side_tell(const struct mqtt_side *side, struct uplink_beside *ret_beside)
{
    const char *why_not = hindrance(side);
    *ret_beside = (struct uplink_beside){.taken = side->commands.taken,
                                         .done = side->commands.done,
                                         .refused = side->commands.refused,
                                         .shadow_version = -1};
    if (side->commands.filter != NULL) {
        ret_beside->commands = why_not != NULL ? why_not : "ready";
    }
    if (side->shadow != NULL) {
        shadow_tell(side->shadow, ret_beside);
        ret_beside->shadow = why_not != NULL ? why_not : ret_beside->shadow;
    }
}

int64_t mqtt_side_wait_ms(const struct mqtt_side *side, int64_t now_ms)
{
    int64_t at_ms = side->link != NULL ? side->look_at_ms : side->connect_at_ms;
    return at_ms > now_ms ? at_ms - now_ms : 0;
}

struct mqtt_notes *mqtt_side_notes(struct mqtt_side *side)
{
    return &side->notes;
}

int mqtt_side_fd(const struct mqtt_side *side)
{
    return remote_fd(side->remote);
}
