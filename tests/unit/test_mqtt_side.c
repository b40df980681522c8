/* What goes beside the batches, without a broker: notes, states of devices, commands. */
#include "gateway/base/log.h"
#include "uplink/mqtt/commands.h"
#include "uplink/mqtt/side.h"
#include "uplink/mqtt/statuses.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

enum { DEVICES = 100 };
#define NOW_MS 1769855400000

struct rig {
    struct mqtt_settings settings;
    struct remote *remote;
    struct mqtt_notes notes;
    struct mqtt_commands commands;
    struct mqtt_statuses statuses;
    struct uplink_view view;
    struct device *devices[DEVICES];
    struct device storage[DEVICES];
    struct config_device configs[DEVICES];
    char names[DEVICES][8];
    struct write_command last;
    char who[128];
    unsigned orders;
    bool held;
    void (*done[16])(void *arg, int status, struct buffer *body);
    void *args[16];
};

static void write_point(void *user, const struct write_command *command,
                        void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    struct rig *rig = user;
    auto_buffer struct buffer body = {0};
    rig->last = *command;
    snprintf(rig->who, sizeof rig->who, "%s", command->who);
    if (rig->held) {
        assert_true(rig->orders < ARRAY_SIZE(rig->done));
        rig->done[rig->orders] = done;
        rig->args[rig->orders++] = arg;
        return;
    }
    rig->orders++;
    buffer_printf(&body, "{\"id\":\"%s\",\"outcome\":\"done\"}", command->id);
    done(arg, 200, &body);
}

static int64_t now_ms(void *user)
{
    (void)user;
    return NOW_MS;
}

static int set_up(void **state)
{
    static const char *const all[] = {"t*.pitch"};
    struct rig *rig = calloc(1, sizeof *rig);
    *state = rig;
    rig->settings = (struct mqtt_settings){.command_topic = "windrow/{gateway}/commands/+",
                                           .reply_topic = "windrow/{gateway}/replies",
                                           .device_status_topic = "s/{device}/status",
                                           .topic = "s/{device}/telemetry",
                                           .write_points = {all, 1}};
    const struct remote_host host = {.user = rig, .write = write_point, .now_ms = now_ms};
    const struct remote_rights rights = {
        .allowed = true, .points = &rig->settings.write_points, .horizon_ms = 60000};
    assert_int_equal(remote_create(&host, &rights, &rig->remote), 0);
    mqtt_notes_init(&rig->notes);
    rig->commands = (struct mqtt_commands){
        .settings = &rig->settings, .uplink = "mq", .remote = rig->remote, .notes = &rig->notes};
    assert_int_equal(mqtt_commands_init(&rig->commands, "g+w"), 0);
    rig->statuses = (struct mqtt_statuses){.settings = &rig->settings, .gateway = "gw"};
    for (size_t i = 0; i < DEVICES; i++) {
        snprintf(rig->names[i], sizeof rig->names[i], "t%03zu", i);
        rig->configs[i].name = rig->names[i];
        rig->storage[i].config = &rig->configs[i];
        rig->devices[i] = &rig->storage[i];
    }
    rig->view = (struct uplink_view){.devices = rig->devices, .device_count = 3};
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    mqtt_statuses_finish(&rig->statuses);
    mqtt_commands_finish(&rig->commands);
    mqtt_notes_finish(&rig->notes);
    remote_close(rig->remote);
    free(rig);
    return 0;
}

/* The oldest note as "topic payload", taken out; "": there is none. */
static const char *next(struct rig *rig)
{
    static char text[600];
    struct mqtt_note *note = mqtt_notes_next(&rig->notes);
    text[0] = '\0';
    if (note != NULL) {
        snprintf(text, sizeof text, "%s%s %.*s", note->frame.topic, note->frame.retain ? "!" : "",
                 (int)note->frame.len, (const char *)note->frame.payload);
        mqtt_notes_drop(&rig->notes, note);
    }
    return text;
}

static void answer(struct rig *rig)
{
    struct remote_answer one;
    while (remote_next(rig->remote, &one)) {
        assert_true((one.tag & MQTT_COMMAND_TAG) != 0);
        mqtt_commands_answer(&rig->commands, &one);
    }
}

static void expect_reply(struct rig *rig, const char *words)
{
    answer(rig);
    const char *text = next(rig);
    if (strncmp(text, "windrow/g_w/replies {", 21) != 0 || strstr(text, words) == NULL) {
        fail_msg("%s: '%s'", words, text);
    }
    assert_string_equal(next(rig), "");
}

static bool take(struct rig *rig, const char *payload, bool retained)
{
    return mqtt_commands_take(&rig->commands, "windrow/g_w/commands/ops", payload, strlen(payload),
                              retained);
}

#define COMMAND(id, more)                                                                          \
    "{\"id\":\"" id "\",\"device\":\"t01\",\"point\":\"pitch\",\"value\":2.50" more "}"
#define SOON ",\"expires\":1769855430"

static void test_commands(void **state)
{
    struct rig *rig = *state;
    assert_false(mqtt_commands_take(&rig->commands, "windrow/g_w/replies", "{}", 2, false));
    assert_false(mqtt_commands_take(&rig->commands, "windrow/g_w/commands/a/b", "{}", 2, false));
    assert_true(take(rig, COMMAND("a", SOON), false));
    assert_int_equal(rig->orders, 1);
    assert_string_equal(rig->who, "uplink mq, topic windrow/g_w/commands/ops");
    assert_true(!rig->last.standing && rig->last.expires_ms == 1769855430000);
    expect_reply(rig, "\"id\":\"a\",\"outcome\":\"done\"");
    static const struct {
        const char *payload, *words;
    } refused[] = {
        {"", NULL},
        {COMMAND("b", ""),
         "\"id\":\"b\",\"outcome\":\"refused\",\"error\":{\"code\":\"incomplete\""},
        {"{\"device\":\"t01\",\"point\":\"pitch\",\"value\":1" SOON "}", "incomplete"},
        {COMMAND("c", ",\"expires\":1769859999"), "too_far"},
        {COMMAND("d", ",\"expires\":\"soon\""), "\"id\":\"d\""},
        {COMMAND("e", SOON ",\"x\":1"), "bad_request"},
        {"{\"id\":7}", "bad_request"},
        {"\xff\xfe", "bad_request"},
        {"{\"id\":\"f\",\"device\":\"t01\",\"point\":\"wind\",\"value\":1" SOON "}", "not_allowed"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "bad_request"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        assert_true(take(rig, refused[i].payload, false));
        if (refused[i].words != NULL) {
            expect_reply(rig, refused[i].words);
        }
    }
    assert_true(take(rig, COMMAND("g", SOON), true));
    expect_reply(rig, "\"id\":\"g\",\"outcome\":\"refused\",\"error\":{\"code\":\"retained\"");
    char large[WRITE_REQUEST_MAX + 2];
    memset(large, ' ', sizeof large);
    large[WRITE_REQUEST_MAX + 1] = '\0';
    assert_true(take(rig, large, false));
    expect_reply(rig, "too_long");
    assert_int_equal(rig->orders, 1);
}

static void test_a_flood_of_commands(void **state)
{
    struct rig *rig = *state;
    rig->held = true;
    for (int i = 0; i < REMOTE_OPEN_MAX; i++) {
        assert_true(take(rig, COMMAND("a", SOON), false));
    }
    assert_int_equal(rig->orders, REMOTE_OPEN_MAX);
    assert_true(take(rig, COMMAND("b", SOON), false));
    expect_reply(rig, "\"code\":\"busy\"");
    for (int i = 0; i < MQTT_NOTES_MAX + 5; i++) {
        assert_true(take(rig, "{", false));
    }
    assert_int_equal(rig->notes.count, MQTT_NOTES_MAX);
    assert_int_equal(rig->commands.unanswered, 5);
    for (int i = 0; i < REMOTE_OPEN_MAX; i++) {
        auto_buffer struct buffer body = {0};
        rig->done[i](rig->args[i], 200, &body);
    }
}

static const char *fault(const char *filter, const char *reply, int protocol)
{
    const struct mqtt_settings s = {.command_topic = filter,
                                    .reply_topic = reply,
                                    .topic = "sensors/{device}/telemetry",
                                    .status_topic = "sensors/{gateway}/status",
                                    .protocol = protocol};
    return mqtt_commands_fault(&s, false);
}

static void test_filters(void **state)
{
    (void)state;
    assert_null(fault("windrow/{gateway}/commands/+", "windrow/{gateway}/replies", MQTT_5));
    assert_null(fault("commands/#", "replies", MQTT_5));
    assert_non_null(fault("commands/#", "replies", MQTT_3_1_1));
    assert_non_null(fault("windrow/#", "windrow/{gateway}/replies", MQTT_5));
    assert_non_null(fault("windrow/{gateway}/+", "windrow/{gateway}/replies", MQTT_5));
    assert_non_null(fault("+/{gateway}/status", "replies", MQTT_5));
    assert_non_null(fault("sensors/+/telemetry", "replies", MQTT_5));
    assert_non_null(fault("a/#/b", "replies", MQTT_5));
    assert_non_null(fault("a/{device}", "replies", MQTT_5));
    assert_non_null(fault("", "replies", MQTT_5));
}

static void look(struct rig *rig, int64_t at_ms)
{
    assert_int_equal(mqtt_statuses_look(&rig->statuses, &rig->view, at_ms, &rig->notes), 0);
    mqtt_statuses_tell(&rig->statuses, &rig->view, &rig->notes);
}

static void expect_status(struct rig *rig, const char *device, const char *status)
{
    char topic[60], words[40];
    const char *text = next(rig);
    snprintf(topic, sizeof topic, "s/%s/status! {\"gateway\":\"gw\",\"device\":\"%s\"", device,
             device);
    snprintf(words, sizeof words, "\"status\":\"%s\"", status);
    if (strncmp(text, topic, strlen(topic)) != 0 || strstr(text, words) == NULL) {
        fail_msg("%s %s: '%s'", device, status, text);
    }
}

static void test_states(void **state)
{
    struct rig *rig = *state;
    look(rig, 1000);
    assert_string_equal(next(rig), ""); /* nobody knows yet */
    rig->storage[0].health.state = DEVICE_GOOD;
    rig->storage[1].health.state = DEVICE_DEAD;
    rig->storage[2].health.state = DEVICE_FAILING;
    look(rig, 2000);
    expect_status(rig, "t000", "online");
    expect_status(rig, "t001", "lost");
    assert_string_equal(next(rig), "");
    /* Single failures are not told. */
    rig->storage[0].health.state = DEVICE_FAILING;
    look(rig, 3000);
    rig->storage[0].health.state = DEVICE_GOOD;
    look(rig, 2000 + MQTT_SETTLE_MS - 1);
    assert_string_equal(next(rig), "");
    look(rig, 2000 + MQTT_SETTLE_MS);
    expect_status(rig, "t002", "lost");
    /* A probe of one that was given up is no return. */
    rig->storage[1].health.state = DEVICE_FAILING;
    look(rig, 13000);
    assert_string_equal(next(rig), "");
    rig->storage[1].health.state = DEVICE_GOOD;
    look(rig, 14000);
    expect_status(rig, "t001", "online");
    mqtt_statuses_down(&rig->statuses);
    look(rig, 15000);
    expect_status(rig, "t000", "online");
    expect_status(rig, "t001", "online");
    expect_status(rig, "t002", "lost");
    /* The one in the middle goes, a new one comes: what it left behind is taken away. */
    rig->devices[1] = &rig->storage[2];
    rig->devices[2] = &rig->storage[3];
    rig->storage[3].health.state = DEVICE_GOOD;
    look(rig, 16000);
    assert_string_equal(next(rig), "s/t001/status! ");
    expect_status(rig, "t003", "online");
    assert_string_equal(next(rig), "");
}

/* A large site's states leave room for replies, and are told piece by piece. */
static void test_many_states(void **state)
{
    struct rig *rig = *state;
    rig->view.device_count = DEVICES;
    for (size_t i = 0; i < DEVICES; i++) {
        rig->storage[i].health.state = DEVICE_GOOD;
    }
    look(rig, 1000);
    assert_int_equal(rig->notes.count, MQTT_NOTES_MAX / 2);
    size_t told = 0;
    for (int i = 0; i < 5; i++) {
        while (next(rig)[0] != '\0') {
            told++;
        }
        look(rig, 2000);
    }
    assert_int_equal(told, DEVICES);
}

static void test_notes(void **state)
{
    struct rig *rig = *state;
    struct mqtt_notes *notes = &rig->notes;
    static char large[MQTT_NOTE_BYTES_MAX + 1];
    assert_int_equal(mqtt_notes_post(notes, "t", large, sizeof large, 0), -EMSGSIZE);
    for (int i = 0; i < MQTT_NOTES_MAX; i++) {
        unsigned kind = i % 2 == 0 ? MQTT_NOTE_KEEP : MQTT_NOTE_RETAIN;
        assert_int_equal(mqtt_notes_post(notes, "t", "x", 1, kind), 0);
    }
    assert_int_equal(mqtt_notes_post(notes, "t", "x", 1, 0), -ENOBUFS);
    assert_int_equal(mqtt_notes_room(notes), 0);
    for (int i = 0; i < MQTT_NOTES_INFLIGHT; i++) {
        mqtt_notes_sent(notes, mqtt_notes_next(notes), 100 + i);
    }
    assert_null(mqtt_notes_next(notes));
    assert_null(mqtt_notes_acknowledged(notes, 99));
    free(mqtt_notes_acknowledged(notes, 103));
    assert_non_null(mqtt_notes_next(notes));
    assert_int_equal(notes->count, MQTT_NOTES_MAX - 1);
    /* Replies outlive the connection, states are told anew. */
    mqtt_notes_down(notes);
    assert_int_equal(notes->count, MQTT_NOTES_MAX / 2);
    assert_int_equal(notes->inflight, 0);
    assert_int_equal(mqtt_notes_post(notes, "last", "x", 1, 0), 0);
    int n = 0;
    const char *text = "";
    while (mqtt_notes_next(notes) != NULL) {
        text = next(rig);
        n++;
    }
    assert_int_equal(n, MQTT_NOTES_MAX / 2 + 1);
    assert_string_equal(text, "last x");
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_flood_of_commands, set_up, tear_down),
        cmocka_unit_test(test_filters),
        cmocka_unit_test_setup_teardown(test_states, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_states, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_notes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
