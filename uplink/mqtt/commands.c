#include "uplink/mqtt/commands.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/writes/write_answer.h"

#include <errno.h>
#include <mosquitto.h>

enum { WARN_MS = 60000 };

static char *topic_of(const char *form, const char *gateway)
{
    auto_buffer struct buffer out = {0};
    mqtt_write_topic(&out, form, gateway, NULL, NULL);
    const char *text = buffer_text(&out);
    return text != NULL ? strdup(text) : NULL;
}

int mqtt_commands_init(struct mqtt_commands *commands, const char *gateway)
{
    if (commands->settings->command_topic == NULL) {
        return 0;
    }
    commands->filter = topic_of(commands->settings->command_topic, gateway);
    commands->reply_topic = topic_of(commands->settings->reply_topic, gateway);
    return commands->filter == NULL || commands->reply_topic == NULL ? -ENOMEM : 0;
}

void mqtt_commands_finish(struct mqtt_commands *commands)
{
    free(commands->filter);
    free(commands->reply_topic);
    commands->filter = commands->reply_topic = NULL;
}

static void reply(struct mqtt_commands *commands, const char *body)
{
    int r = mqtt_notes_post(commands->notes, commands->reply_topic, body, strlen(body),
                            MQTT_NOTE_KEEP);
    int64_t now_ms = clock_mono_ms();
    commands->unanswered += r < 0;
    if (r < 0 && now_ms >= commands->warn_at_ms) {
        log_warning("uplink %s: commands come faster than they can be answered, %llu were not",
                    commands->uplink, (unsigned long long)commands->unanswered);
        commands->warn_at_ms = now_ms + WARN_MS;
    }
}

static void refuse(struct mqtt_commands *commands, const char *id, int status, const char *code,
                   const char *message)
{
    auto_free struct write_record *record = calloc(1, sizeof *record);
    commands->refused++;
    if (record != NULL) {
        snprintf(record->id, sizeof record->id, "%s", id);
        write_answer_refuse(record, status, code, message);
        reply(commands, record->body);
    }
}

static void order(struct mqtt_commands *commands, const char *topic,
                  const struct write_request *request)
{
    char who[WRITES_TEXT_MAX + 1];
    /* Who published it is not known; the topic often says it. */
    snprintf(who, sizeof who, "uplink %.40s, topic %.70s", commands->uplink, topic);
    const struct write_command command = {.id = request->id[0] != '\0' ? request->id : NULL,
                                          .device = request->device,
                                          .point = request->point,
                                          .value = request->value,
                                          .who = who,
                                          .timeout_ms = request->timeout_ms,
                                          .expires_ms = request->expires_ms};
    int r = remote_order(commands->remote, &command, MQTT_COMMAND_TAG | ++commands->number);
    if (r < 0) {
        refuse(commands, request->id, 503, "busy", "too many commands are under way: try again");
    }
}

bool mqtt_commands_take(struct mqtt_commands *commands, const char *topic, const void *payload,
                        size_t len, bool retained)
{
    struct write_request request = {0};
    const char *why = "";
    bool ours = false;
    if (commands->filter == NULL ||
        mosquitto_topic_matches_sub(commands->filter, topic, &ours) != MOSQ_ERR_SUCCESS || !ours) {
        return false;
    }
    commands->taken += len > 0;
    int r = len > WRITE_REQUEST_MAX ? -EMSGSIZE : write_request_parse(payload, len, &request, &why);
    if (retained && len > 0) {
        refuse(commands, request.id, 400, "retained",
               "a retained command would come again with every connection: publish it without");
    } else if (r == -EMSGSIZE) {
        refuse(commands, "", 413, "too_long", "a command has at most 4096 bytes");
    } else if (r < 0 && len > 0) { /* empty: a retained message is taken away */
        refuse(commands, request.id, 400, "bad_request", why);
    } else if (r == 0) {
        order(commands, topic, &request);
    }
    return true;
}

void mqtt_commands_answer(struct mqtt_commands *commands, const struct remote_answer *answer)
{
    commands->done += answer->status == 200;
    commands->refused += answer->status != 200;
    reply(commands, answer->body);
}

/* {gateway} stands for one level without wildcards. */
static const char *filled(const char *form, struct buffer *out)
{
    mqtt_write_topic(out, form, "x", "x", "x");
    return buffer_text(out);
}

static bool matches(const char *filter, const char *form)
{
    auto_buffer struct buffer out = {0};
    bool result = false;
    const char *topic = form != NULL ? filled(form, &out) : NULL;
    return topic != NULL &&
           mosquitto_topic_matches_sub(filter, topic, &result) == MOSQ_ERR_SUCCESS && result;
}

const char *mqtt_commands_fault(const struct mqtt_settings *s, bool aws)
{
    auto_buffer struct buffer out = {0};
    const char *filter = filled(s->command_topic, &out);
    if (filter == NULL || mosquitto_sub_topic_check(filter) != MOSQ_ERR_SUCCESS ||
        strlen(filter) > MQTT_TOPIC_MAX || filter[0] == '\0') {
        return "is no topic filter of MQTT";
    }
    if (strstr(s->command_topic, "{device}") != NULL ||
        strstr(s->command_topic, "{stream}") != NULL) {
        return "knows {gateway} only";
    }
    if (matches(filter, s->reply_topic) || matches(filter, s->topic) ||
        matches(filter, s->status_topic) || matches(filter, s->device_status_topic) ||
        matches(filter, s->alerts_topic)) {
        return "takes in what this gateway itself publishes";
    }
    /* A broker that speaks 3.1.1 may send 256 MB; IoT Core never sends more than 128 KB. */
    return s->protocol != MQTT_5 && !aws ? "needs protocol = 5, which bounds what a broker sends"
                                         : NULL;
}
