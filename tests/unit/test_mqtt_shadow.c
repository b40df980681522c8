/* The shadow without a broker: documents, patches, and the conversation with the service. */
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/mqtt/shadow.h"
#include "uplink/mqtt/shadow_slots.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

enum { DEVICES = 300, NOW_S = 1769855400 };

/* --- documents --- */

static json_t *json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

static void expect_patch(const char *known, const char *want, const char *patch, bool differs)
{
    json_t *a = json(known), *b = json(want), *c = json(patch), *is = shadow_patch(a, b);
    if (!json_equal(is, c)) {
        char *text = json_dumps(is, 0);
        fail_msg("%s -> %s: %s", known, want, text);
    }
    assert_int_equal(shadow_differs(a, b), differs);
    json_decref(a), json_decref(b), json_decref(c), json_decref(is);
}

static void test_patches(void **state)
{
    (void)state;
    expect_patch("{}", "{}", "{}", false);
    expect_patch("{}", "{\"a\":1}", "{\"a\":1}", true);
    expect_patch("{\"a\":1}", "{}", "{\"a\":null}", true);
    expect_patch("{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":1,\"c\":3}}", "{\"a\":{\"c\":3}}",
                 true);
    expect_patch("{\"a\":{\"b\":1}}", "{\"a\":2}", "{\"a\":2}", true);
    expect_patch("{\"a\":1}", "{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1}}", true);
    expect_patch("{\"g\":{\"uptime_s\":1,\"clock\":\"x\"}}",
                 "{\"g\":{\"uptime_s\":9,\"clock\":\"x\"}}", "{\"g\":{\"uptime_s\":9}}", false);
    expect_patch("{\"d\":{\"t\":{\"last_good\":\"1\"}}}", "{\"d\":{}}", "{\"d\":{\"t\":null}}",
                 true);
    json_t *a = json("{\"a\":{\"b\":1,\"c\":2},\"d\":3}"), *b = json("{\"a\":{\"c\":5,\"e\":1}}");
    json_t *common = shadow_common(a, b), *is = json("{\"a\":{\"c\":2}}");
    assert_true(json_equal(common, is));
    json_decref(a), json_decref(b), json_decref(common), json_decref(is);
}

static void expect_digits(const char *text, const char *value)
{
    char is[WRITE_VALUE_MAX + 1];
    json_t *one = json(text);
    shadow_value(one, is);
    assert_string_equal(is, value);
    json_decref(one);
}

static void test_values_keep_their_digits(void **state)
{
    (void)state;
    expect_digits("2.5", "2.5");
    expect_digits("0.1", "0.1");
    expect_digits("-12.34", "-12.34");
    expect_digits("7", "7");
    expect_digits("9223372036854775807", "9223372036854775807");
    expect_digits("true", "1");
    expect_digits("false", "0");
    expect_digits("\"5\"", "");
    expect_digits("null", "");
    expect_digits("[1]", "");
    expect_digits("1e300", "1e+300");
}

static void test_messages_that_are_none(void **state)
{
    (void)state;
    struct shadow_message m;
    static const char *const bad[] = {
        "", "[]", "7", "{", "{}", "{\"version\":\"1\"}", "{\"version\":1.5}", "{\"version\":-1}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(shadow_read(SHADOW_UPDATE_DELTA, bad[i], strlen(bad[i]), &m), -EBADMSG);
        assert_int_equal(shadow_read(SHADOW_GET_REJECTED, bad[i], strlen(bad[i]), &m), -EBADMSG);
    }
    static char huge[MQTT_INCOMING_MAX + 2];
    memset(huge, ' ', sizeof huge - 1);
    memcpy(huge, "{\"version\":1}", 13);
    assert_int_equal(shadow_read(SHADOW_UPDATE_DELTA, huge, MQTT_INCOMING_MAX + 1, &m), -EBADMSG);
    assert_int_equal(shadow_read(SHADOW_UPDATE_DELTA, huge, MQTT_INCOMING_MAX, &m), 0);
    assert_true(m.version == 1 && m.points == NULL && m.stamps == NULL && m.token[0] == '\0');
    shadow_message_finish(&m);
}

/* --- a gateway of its own --- */

struct order {
    char id[80], device[40], point[40], value[40], who[80];
    int64_t expires_ms, order;
    bool standing;
    void (*done)(void *arg, int status, struct buffer *body);
    void *arg;
};

struct rig {
    struct mqtt_settings settings;
    struct uplink_host host;
    struct remote *remote;
    struct mqtt_notes notes;
    struct mqtt_statuses statuses;
    struct shadow *shadow;
    struct uplink_view view;
    struct device *devices[DEVICES];
    struct device storage[DEVICES];
    struct config_device configs[DEVICES];
    char names[DEVICES][8];
    struct uplink_view_point points[1];
    struct order orders[8];
    size_t order_count;
    json_t *asked; /* the last request, NULL: none */
    char topic[120];
    int64_t now_ms;
};

static void write_point(void *user, const struct write_command *command,
                        void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    struct rig *rig = user;
    assert_true(rig->order_count < ARRAY_SIZE(rig->orders));
    struct order *order = &rig->orders[rig->order_count++];
    *order = (struct order){.expires_ms = command->expires_ms,
                            .order = command->order,
                            .standing = command->standing,
                            .done = done,
                            .arg = arg};
    snprintf(order->id, sizeof order->id, "%s", command->id);
    snprintf(order->device, sizeof order->device, "%s", command->device);
    snprintf(order->point, sizeof order->point, "%s", command->point);
    snprintf(order->value, sizeof order->value, "%s", command->value);
    snprintf(order->who, sizeof order->who, "%s", command->who);
}

static int64_t now_ms(void *user)
{
    (void)user;
    return (int64_t)NOW_S * 1000;
}

static int set_up(void **state)
{
    static const char *const all[] = {"*"};
    struct rig *rig = calloc(1, sizeof *rig);
    *state = rig;
    rig->settings = (struct mqtt_settings){.shadow = MQTT_SHADOW_FULL,
                                           .thing = "wt-7",
                                           .writes = true,
                                           .write_points = {all, 1},
                                           .write_expiry_ms = 60000,
                                           .shadow_interval_ms = 5000};
    rig->host.writes = (struct remote_host){.user = rig, .write = write_point, .now_ms = now_ms};
    const struct remote_rights rights = {
        .allowed = true, .points = &rig->settings.write_points, .horizon_ms = 600000};
    assert_int_equal(remote_create(&rig->host.writes, &rights, &rig->remote), 0);
    mqtt_notes_init(&rig->notes);
    rig->statuses = (struct mqtt_statuses){.settings = &rig->settings, .gateway = "gw"};
    for (size_t i = 0; i < DEVICES; i++) {
        snprintf(rig->names[i], sizeof rig->names[i], "t%03zu", i);
        rig->configs[i].name = rig->names[i];
        rig->storage[i].config = &rig->configs[i];
        rig->storage[i].health.state = DEVICE_GOOD;
        rig->storage[i].health.last_good_ms = (int64_t)NOW_S * 1000;
        rig->devices[i] = &rig->storage[i];
    }
    rig->points[0] = (struct uplink_view_point){
        .device = rig->devices[0], .name = "pitch", .time_ms = 1, .value = "1.5"};
    rig->view = (struct uplink_view){.clock = "synchronised",
                                     .seconds_left = -1,
                                     .devices = rig->devices,
                                     .device_count = 2,
                                     .points = rig->points,
                                     .point_count = 1,
                                     .uplink_count = 1};
    snprintf(rig->view.uplinks[0].name, sizeof rig->view.uplinks[0].name, "mq");
    rig->view.uplinks[0].state = "good";
    rig->now_ms = 1000000;
    assert_int_equal(
        shadow_create(&rig->settings, "gw", &rig->host, rig->remote, &rig->notes, &rig->shadow), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    json_decref(rig->asked);
    shadow_destroy(rig->shadow);
    remote_close(rig->remote);
    for (size_t i = 0; i < rig->order_count; i++) {
        auto_buffer struct buffer none = {0};
        if (rig->orders[i].done != NULL) {
            rig->orders[i].done(rig->orders[i].arg, 503, &none);
        }
    }
    mqtt_statuses_finish(&rig->statuses);
    mqtt_notes_finish(&rig->notes);
    free(rig);
    return 0;
}

/* A step, and what it asks of the service, if anything. */
static const char *step(struct rig *rig)
{
    struct mqtt_note *note;
    struct remote_answer answer;
    while (remote_next(rig->remote, &answer)) {
        shadow_answer(rig->shadow, &answer, rig->now_ms);
    }
    assert_int_equal(mqtt_statuses_look(&rig->statuses, &rig->view, rig->now_ms, &rig->notes), 0);
    shadow_step(rig->shadow, &rig->view, &rig->statuses, rig->now_ms);
    rig->topic[0] = '\0';
    while ((note = mqtt_notes_next(&rig->notes)) != NULL) {
        snprintf(rig->topic, sizeof rig->topic, "%s", note->frame.topic);
        json_decref(rig->asked);
        assert_true(note->frame.len <= SHADOW_UPDATE_MAX);
        rig->asked = json_loadb((const char *)note->frame.payload, note->frame.len, 0, NULL);
        assert_non_null(rig->asked);
        mqtt_notes_drop(&rig->notes, note);
    }
    const char *last = strrchr(rig->topic, '/');
    return last != NULL ? last + 1 : "";
}

static const char *later(struct rig *rig, int64_t ms)
{
    rig->now_ms += ms;
    return step(rig);
}

/* The service speaks; %s in the text becomes the token of the last request. */
static void hear(struct rig *rig, const char *kind, const char *form)
{
    char topic[120], text[2000];
    const char *token = json_string_value(json_object_get(rig->asked, "clientToken"));
    snprintf(topic, sizeof topic, "$aws/things/wt-7/shadow/%s", kind);
    const char *gap = strstr(form, "%s");
    snprintf(text, sizeof text, "%.*s%s%s", gap != NULL ? (int)(gap - form) : (int)strlen(form),
             form, gap != NULL ? token : "", gap != NULL ? gap + 2 : "");
    assert_true(shadow_take(rig->shadow, topic, text, strlen(text), rig->now_ms));
}

static json_t *at(struct rig *rig, const char *a, const char *b, const char *c)
{
    json_t *in = json_object_get(json_object_get(rig->asked, "state"), "reported");
    in = json_object_get(in, a);
    in = b != NULL ? json_object_get(in, b) : in;
    return c != NULL ? json_object_get(in, c) : in;
}

static void connect_to(struct rig *rig, const char *document)
{
    shadow_up(rig->shadow, rig->now_ms);
    assert_string_equal(step(rig), "get");
    assert_string_equal(rig->topic, "$aws/things/wt-7/shadow/get");
    hear(rig, document != NULL ? "get/accepted" : "get/rejected",
         document != NULL ? document
                          : "{\"code\":404,\"message\":\"none\",\"clientToken\":\"%s\"}");
    assert_string_equal(step(rig), "update");
}

static void accept(struct rig *rig, int version)
{
    char text[100];
    snprintf(text, sizeof text, "{\"state\":{},\"version\":%d,\"clientToken\":\"%%s\"}", version);
    hear(rig, "update/accepted", text);
}

/* --- the conversation --- */

static void test_the_first_report(void **state)
{
    struct rig *rig = *state;
    connect_to(rig, NULL);
    assert_null(json_object_get(rig->asked, "version"));
    assert_string_equal(json_string_value(at(rig, "devices", "t001", "state")), "online");
    assert_string_equal(json_string_value(at(rig, "gateway", "clock", NULL)), "synchronised");
    assert_null(at(rig, "gateway", "seconds_left", NULL));
    assert_true(json_real_value(at(rig, "points", "t000", "pitch")) == 1.5);
    assert_int_equal(json_integer_value(at(rig, "counts", "online", NULL)), 2);
    accept(rig, 1);
    /* Nothing but counters: not before the tenth interval. */
    rig->view.uptime_s = 7;
    assert_string_equal(later(rig, 5000), "");
    assert_string_equal(later(rig, 45000), "update");
    assert_int_equal(json_integer_value(json_object_get(rig->asked, "version")), 1);
    assert_int_equal(json_integer_value(at(rig, "gateway", "uptime_s", NULL)), 7);
    assert_null(at(rig, "devices", NULL, NULL));
    accept(rig, 2);
    /* A change: once an interval. */
    rig->storage[1].health.state = DEVICE_DEAD;
    assert_string_equal(later(rig, 4000), "");
    assert_string_equal(later(rig, 1000), "update");
    assert_string_equal(json_string_value(at(rig, "devices", "t001", "state")), "lost");
    accept(rig, 3);
    rig->view.device_count = 1;
    assert_string_equal(later(rig, 5000), "update");
    assert_true(json_is_null(at(rig, "devices", "t001", NULL)));
}

static void test_what_the_service_has_of_old_is_taken_away(void **state)
{
    struct rig *rig = *state;
    connect_to(
        rig, "{\"version\":9,\"clientToken\":\"%s\",\"state\":{\"reported\":{\"devices\":{\"old\":"
             "{\"state\":\"online\"},\"t000\":{\"state\":\"online\"}},\"mine\":1}}}");
    assert_int_equal(json_integer_value(json_object_get(rig->asked, "version")), 9);
    assert_true(json_is_null(at(rig, "devices", "old", NULL)));
    assert_null(at(rig, "devices", "t000", "state"));
    assert_true(json_is_null(at(rig, "mine", NULL, NULL)));
}

static void test_refusals_and_silence(void **state)
{
    struct rig *rig = *state;
    connect_to(rig, NULL);
    int version = 5;
    for (int i = 0; i < SHADOW_CONFLICTS_MAX; i++) {
        hear(rig, "update/rejected", "{\"code\":409,\"clientToken\":\"%s\"}");
        assert_string_equal(step(rig), "");
        assert_string_equal(later(rig, 1000), "get");
        hear(rig, "get/accepted", "{\"version\":5,\"clientToken\":\"%s\",\"state\":{}}");
        assert_string_equal(step(rig), "update");
        const json_t *told = json_object_get(rig->asked, "version");
        /* At last without: what is reported is ours alone. */
        assert_true(i + 1 < SHADOW_CONFLICTS_MAX ? json_integer_value(told) == version
                                                 : told == NULL);
    }
    hear(rig, "update/rejected", "{\"code\":429,\"clientToken\":\"%s\"}");
    assert_string_equal(later(rig, 499), "");
    assert_string_equal(later(rig, 1), "get");
    hear(rig, "get/rejected", "{\"code\":500,\"clientToken\":\"%s\"}");
    assert_string_equal(later(rig, 999), "");
    assert_string_equal(later(rig, 1), "get");
    /* No answer; others' answers are not ours. */
    hear(rig, "get/accepted", "{\"version\":6,\"clientToken\":\"another\",\"state\":{}}");
    assert_string_equal(later(rig, SHADOW_ANSWER_MS - 1), "");
    assert_string_equal(later(rig, 1), "");
    assert_string_equal(later(rig, 2000), "get");
    hear(rig, "get/accepted", "{\"version\":6,\"clientToken\":\"%s\",\"state\":{}}");
    assert_string_equal(step(rig), "update");
    hear(rig, "update/rejected", "{\"code\":403,\"clientToken\":\"%s\"}");
    assert_string_equal(later(rig, 299999), "");
    assert_string_equal(later(rig, 1), "get");
}

static void test_what_is_too_large_becomes_smaller(void **state)
{
    struct rig *rig = *state;
    rig->view.device_count = DEVICES;
    for (size_t i = 0; i < DEVICES; i += 100) {
        rig->storage[i].health.state = DEVICE_DEAD;
    }
    connect_to(rig, NULL);
    json_t *want = json_object_get(json_object_get(rig->asked, "state"), "reported");
    size_t first = json_object_size(at(rig, "devices", NULL, NULL));
    assert_true(shadow_size(want) <= SHADOW_DOCUMENT_MAX - SHADOW_DESIRED_ROOM);
    assert_true(first > 50 && first < DEVICES);
    assert_string_equal(json_string_value(at(rig, "devices", "t200", "state")), "lost");
    assert_int_equal(json_integer_value(at(rig, "devices_left_out", NULL, NULL)), DEVICES - first);
    hear(rig, "update/rejected", "{\"code\":413,\"clientToken\":\"%s\"}");
    assert_string_equal(later(rig, 500), "get");
    hear(rig, "get/rejected", "{\"code\":404,\"clientToken\":\"%s\"}");
    assert_string_equal(step(rig), "update");
    assert_true(json_object_size(at(rig, "devices", NULL, NULL)) < first);
}

/* --- what is desired --- */

#define STAMP(seconds) "{\"timestamp\":" seconds "}"
#define DELTA(version, value, seconds)                                                             \
    "{\"version\":" version ",\"state\":{\"points\":{\"t000\":{\"pitch\":" value                   \
    "}}},\"metadata\":{\"points\":{\"t000\":{\"pitch\":" STAMP(seconds) "}}}}"

static void end_order(struct rig *rig, size_t i, int status, const char *body)
{
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, body);
    rig->orders[i].done(rig->orders[i].arg, status, &text);
    rig->orders[i].done = NULL;
}

static void test_a_desired_value_is_ordered_once(void **state)
{
    struct rig *rig = *state;
    connect_to(rig, NULL);
    accept(rig, 1);
    hear(rig, "update/delta", DELTA("2", "2.50", "1769855399"));
    step(rig);
    assert_int_equal(rig->order_count, 1);
    const struct order *order = &rig->orders[0];
    assert_string_equal(order->device, "t000");
    assert_string_equal(order->value, "2.5");
    assert_string_equal(order->who, "shadow wt-7");
    assert_true(order->standing && order->order == 1769855399);
    assert_true(order->expires_ms == (1769855399LL + 60) * 1000);
    hear(rig, "update/delta", DELTA("3", "2.5", "1769855399"));
    hear(rig, "update/delta", DELTA("1", "9", "1769855400")); /* late: not even looked at */
    step(rig);
    assert_int_equal(rig->order_count, 1);
    end_order(rig, 0, 200, "{\"outcome\":\"done\",\"read_back\":2.5}");
    later(rig, SHADOW_GAP_MS);
    if (strcmp(rig->topic, "$aws/things/wt-7/shadow/get") == 0) { /* the late one asked for it */
        hear(rig, "get/accepted",
             "{\"version\":3,\"clientToken\":\"%s\",\"state\":{\"delta\":{\"points\":{\"t000\":{"
             "\"pitch\":2.5}}}},"
             "\"metadata\":{\"desired\":{\"points\":{\"t000\":{\"pitch\":{\"timestamp\":1769855399}"
             "}}}}}");
        assert_string_equal(later(rig, SHADOW_GAP_MS), "update");
    }
    assert_true(json_real_value(at(rig, "points", "t000", "pitch")) == 2.5);
    assert_string_equal(
        json_string_value(json_object_get(at(rig, "writes", "t000", "pitch"), "outcome")), "done");
    accept(rig, 4);
    assert_int_equal(rig->order_count, 1);
    /* Another value of the same second, then the first one again: new words both. */
    hear(rig, "update/delta", DELTA("5", "3", "1769855399"));
    step(rig);
    assert_int_equal(rig->order_count, 2);
    assert_string_not_equal(rig->orders[0].id, rig->orders[1].id);
    hear(rig, "update/delta", DELTA("6", "1", "1769855000")); /* desired before */
    step(rig);
    assert_int_equal(rig->order_count, 2);
}

static void test_passing_refusals_are_tried_again(void **state)
{
    struct rig *rig = *state;
    connect_to(rig, NULL);
    accept(rig, 1);
    hear(rig, "update/delta", DELTA("2", "2", "1769855399"));
    step(rig);
    end_order(rig, 0, 429, "{\"outcome\":\"refused\",\"error\":{\"code\":\"too_soon\"}}");
    step(rig);
    assert_int_equal(rig->order_count, 1);
    later(rig, SHADOW_AGAIN_MS);
    assert_int_equal(rig->order_count, 2);
    assert_string_equal(rig->orders[0].id, rig->orders[1].id);
    end_order(rig, 1, 422,
              "{\"outcome\":\"refused\",\"error\":{\"code\":\"expired\",\"message\":\"late\"}}");
    assert_string_equal(later(rig, SHADOW_GAP_MS), "update");
    json_t *told = at(rig, "writes", "t000", "pitch");
    assert_string_equal(json_string_value(json_object_get(told, "code")), "expired");
    accept(rig, 3);
    hear(rig, "update/delta", DELTA("3", "2", "1769855399"));
    for (int i = 0; i < 20; i++) {
        later(rig, SHADOW_AGAIN_MS);
    }
    assert_int_equal(rig->order_count, 2);
}

static void test_what_is_no_order(void **state)
{
    struct rig *rig = *state;
    connect_to(rig, NULL);
    accept(rig, 1);
    hear(rig, "update/delta", DELTA("2", "\"x\"", "1769855399"));
    hear(rig, "update/delta", "{\"version\":3,\"state\":{\"points\":{\"t001\":{\"pitch\":1}}}}");
    hear(rig, "update/delta", "{\"version\":4,\"state\":{\"points\":{\"t001\":7}}}");
    hear(rig, "update/delta", "{\"version\":5,\"state\":{\"points\":[1]}}");
    assert_string_equal(later(rig, 5000), "update");
    assert_int_equal(rig->order_count, 0);
    assert_string_equal(
        json_string_value(json_object_get(at(rig, "writes", "t000", "pitch"), "code")),
        "not_a_number");
    assert_string_equal(
        json_string_value(json_object_get(at(rig, "writes", "t001", "pitch"), "code")), "no_time");
}

/* What an earlier life told of it is final. */
static void test_what_was_told_before_is_not_ordered(void **state)
{
    struct rig *rig = *state;
    connect_to(
        rig,
        "{\"version\":9,\"clientToken\":\"%s\",\"state\":{\"delta\":{\"points\":{\"t000\":{"
        "\"pitch\":5}}},"
        "\"reported\":{\"writes\":{\"t000\":{\"pitch\":{\"value\":\"5\",\"ordered\":1769855399,"
        "\"outcome\":\"unknown\",\"code\":\"unknown_outcome\",\"why\":\"w\"}}}}},"
        "\"metadata\":{\"desired\":{\"points\":{\"t000\":{\"pitch\":{\"timestamp\":1769855399}}}}}"
        "}");
    assert_int_equal(rig->order_count, 0);
    assert_null(at(rig, "writes", NULL, NULL)); /* it stays as it is */
}

static void add_delta(struct buffer *text, unsigned version, size_t from, size_t count)
{
    buffer_clear(text);
    buffer_printf(text, "{\"version\":%u,\"state\":{\"points\":{", version);
    for (size_t i = from; i < from + count; i++) {
        buffer_printf(text, "%s\"t%03zu\":{\"pitch\":1}", i > from ? "," : "", i);
    }
    buffer_add_text(text, "}},\"metadata\":{\"points\":{");
    for (size_t i = from; i < from + count; i++) {
        buffer_printf(text, "%s\"t%03zu\":{\"pitch\":{\"timestamp\":1769855399}}",
                      i > from ? "," : "", i);
    }
    buffer_add_text(text, "}}}");
}

static void test_desired_values_have_a_bound(void **state)
{
    struct rig *rig = *state;
    auto_buffer struct buffer text = {0};
    struct shadow_slots slots = {
        .settings = &rig->settings, .remote = rig->remote, .series = "shadow wt-7"};
    struct shadow_message m;
    add_delta(&text, 1, 0, SHADOW_SLOTS_MAX + 3);
    assert_int_equal(shadow_read(SHADOW_UPDATE_DELTA, text.data, text.len, &m), 0);
    shadow_slots_take(&slots, &m, NULL);
    shadow_message_finish(&m);
    assert_int_equal(slots.left_out, 3);
    shadow_slots_step(&slots, 0);
    assert_int_equal(rig->order_count, REMOTE_OPEN_MAX);
    struct remote_answer answer;
    for (size_t i = 0; i < REMOTE_OPEN_MAX; i++) {
        end_order(rig, i, 200, "{\"outcome\":\"done\"}");
        assert_true(remote_next(rig->remote, &answer));
        assert_true(shadow_slots_answer(&slots, &answer, 1, 1));
    }
    /* Those that ended and are not desired any more give way. */
    add_delta(&text, 2, REMOTE_OPEN_MAX, SHADOW_SLOTS_MAX);
    assert_int_equal(shadow_read(SHADOW_UPDATE_DELTA, text.data, text.len, &m), 0);
    shadow_slots_take(&slots, &m, NULL);
    shadow_message_finish(&m);
    assert_int_equal(slots.left_out, 0);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_values_keep_their_digits),
        cmocka_unit_test(test_messages_that_are_none),
        cmocka_unit_test_setup_teardown(test_the_first_report, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_the_service_has_of_old_is_taken_away, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_refusals_and_silence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_too_large_becomes_smaller, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_desired_value_is_ordered_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_passing_refusals_are_tried_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_told_before_is_not_ordered, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_desired_values_have_a_bound, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
