/* What a broker sends beside acknowledgements: commands, and a shadow service's messages. The first
 * byte chooses. Whatever comes, orders are bounded and well-formed, and a patch leads from what the
 * service holds to what is to be reported. */
#include "uplink/mqtt/commands.h"
#include "uplink/mqtt/shadow_slots.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW_S = 1769855400 };

static void check(const char *text, size_t max)
{
    assert(strnlen(text, max + 1) <= max);
}

static void take_order(void *user, const struct write_command *command,
                       void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    auto_buffer struct buffer body = {0};
    (void)user;
    check(command->id, WRITES_TEXT_MAX);
    check(command->device, WRITES_TEXT_MAX);
    check(command->point, WRITES_TEXT_MAX);
    check(command->value, WRITES_TEXT_MAX);
    check(command->who, WRITES_TEXT_MAX);
    assert(command->expires_ms > 0 && command->id[0] != '\0' && command->value[0] != '\0');
    buffer_add_text(&body, "{\"outcome\":\"done\",\"read_back\":1}");
    done(arg, 200, &body);
}

static int64_t now_ms(void *user)
{
    (void)user;
    return (int64_t)NOW_S * 1000;
}

static void try_command(struct remote *remote, const struct mqtt_settings *settings,
                        const uint8_t *data, size_t size)
{
    struct mqtt_notes notes;
    struct remote_answer answer;
    mqtt_notes_init(&notes);
    struct mqtt_commands commands = {
        .settings = settings, .uplink = "mq", .remote = remote, .notes = &notes};
    assert(mqtt_commands_init(&commands, "gw") == 0);
    assert(mqtt_commands_take(&commands, "c/x", data, size, false));
    while (remote_next(remote, &answer)) {
        mqtt_commands_answer(&commands, &answer);
    }
    assert(notes.count == (size > 0 ? 1 : 0));
    if (notes.first != NULL) { /* every reply is JSON */
        json_t *reply = json_loadb((const char *)notes.first->frame.payload, notes.first->frame.len,
                                   0, NULL);
        assert(json_is_object(reply));
        json_decref(reply);
    }
    mqtt_commands_finish(&commands);
    mqtt_notes_finish(&notes);
}

/* What an update does to a document. */
static void apply(json_t *to, const json_t *patch)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)patch, key, value)
    {
        json_t *there = json_object_get(to, key);
        if (json_is_null(value)) {
            json_object_del(to, key);
        } else if (json_is_object(value) && json_is_object(there)) {
            apply(there, value);
        } else {
            json_object_set_new(to, key, json_deep_copy(value));
        }
    }
}

static void try_patch(const json_t *known)
{
    json_t *want = json_pack("{s:{s:i}, s:{s:{s:s}}}", "gateway", "uptime_s", 1, "devices", "t01",
                             "state", "online");
    json_t *patch = shadow_patch(known, want), *common = shadow_common(known, want);
    json_t *becomes = json_deep_copy(known);
    apply(becomes, patch);
    assert(json_equal(becomes, want));
    json_decref(becomes), json_decref(common), json_decref(patch), json_decref(want);
}

static void try_shadow(struct remote *remote, const struct mqtt_settings *settings,
                       enum shadow_kind kind, const uint8_t *data, size_t size)
{
    struct shadow_slots slots = {.settings = settings, .remote = remote, .series = "shadow t"};
    struct shadow_message m;
    struct remote_answer answer;
    if (shadow_read(kind, data, size, &m) < 0) {
        return;
    }
    for (int round = 0; round < 2; round++) {
        shadow_slots_take(&slots, &m, m.reported);
        shadow_slots_step(&slots, round * SHADOW_AGAIN_MS);
        while (remote_next(remote, &answer)) {
            shadow_slots_answer(&slots, &answer, 1, round * SHADOW_AGAIN_MS);
        }
    }
    if (m.reported != NULL) {
        try_patch(m.reported);
    }
    shadow_message_finish(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const all[] = {"*"};
    const struct mqtt_settings settings = {.command_topic = "c/+",
                                           .reply_topic = "r",
                                           .write_points = {all, 1},
                                           .write_expiry_ms = 60000};
    const struct remote_host host = {.write = take_order, .now_ms = now_ms};
    const struct remote_rights rights = {
        .allowed = true, .points = &settings.write_points, .horizon_ms = REMOTE_HORIZON_MAX_MS};
    struct remote *remote;
    if (size == 0) {
        return 0;
    }
    assert(remote_create(&host, &rights, &remote) == 0);
    unsigned which = data[0] % (SHADOW_KINDS + 1);
    if (which == SHADOW_KINDS) {
        try_command(remote, &settings, data + 1, size - 1);
    } else {
        try_shadow(remote, &settings, (enum shadow_kind)which, data + 1, size - 1);
    }
    remote_close(remote);
    return 0;
}
