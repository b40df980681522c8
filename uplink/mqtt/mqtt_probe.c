#include "gateway/base/clock.h"
#include "uplink/mqtt/link.h"
#include "uplink/probe/probe.h"
#include "uplink/transport/errand.h"

#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <poll.h>

/* A client id of its own: a broker would end the session of a gateway that runs under the same one.
 * Nothing is said on the status topic either. */
static void prepare(struct probe *probe)
{
    struct mqtt_settings *s = probe->settings;
    snprintf(probe->scratch, sizeof probe->scratch, "%.100s-test",
             s->client_id != NULL ? s->client_id : probe->gateway);
    s->client_id = probe->scratch;
    s->status_topic = NULL;
}

static void before(struct probe *probe)
{
    probe_secret(probe, "password", &((const struct mqtt_settings *)probe->settings)->line.token);
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    const struct mqtt_settings *s = settings;
    struct mqtt_target broker;
    if (!mqtt_target_parse(s->url, &broker)) {
        return false;
    }
    *ret_target = (struct probe_target){.port = broker.port,
                                        .tls = broker.tls,
                                        .ca_file = s->line.ca_file,
                                        .cert_file = s->line.cert_file,
                                        .key_file = s->line.key_file,
                                        .timeout_ms = s->line.connect_timeout_ms};
    ret_target->alpn = s->alpn != NULL                    ? s->alpn
                       : broker.aws && broker.port == 443 ? "x-amzn-mqtt-ca"
                                                          : NULL;
    snprintf(ret_target->host, sizeof ret_target->host, "%s", broker.host);
    return true;
}

static void on_acknowledged(void *user, int message, int reason)
{
    (void)user;
    (void)message;
    (void)reason;
}

static const char *mend_of(int reason)
{
    switch (reason) {
    case MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION:
        return "set protocol = 3.1.1";
    case MQTT_RC_CLIENTID_NOT_VALID:
        return "the test comes as CLIENT_ID-test, so that it does not end the gateway's session: "
               "the broker may take only the gateway's own";
    case MQTT_RC_BAD_USERNAME_OR_PASSWORD:
        return "compare user and password_file with the broker's";
    case MQTT_RC_NOT_AUTHORIZED:
        return "the certificate's policy (AWS IoT: iot:Connect) or the user's rights; the test "
               "comes as CLIENT_ID-test, which must be allowed, too";
    default:
        return NULL;
    }
}

static void say_end(struct probe *probe, const struct mqtt_link *link)
{
    const struct mqtt_settings *s = probe->settings;
    int reason = 0;
    bool contested = false;
    if (mqtt_link_state(link) == MQTT_UP) {
        probe_say(probe, "greeting", PROBE_GOOD, NULL, "the broker accepts us as %s, MQTT %s",
                  s->client_id, s->protocol == MQTT_5 ? "5" : "3.1.1");
        return;
    }
    const char *why = mqtt_link_why(link, &reason, &contested);
    if (reason != 0) {
        probe_say(probe, "greeting", PROBE_BAD, mend_of(reason), "refused with code %d: %s", reason,
                  why);
    } else {
        probe_say(probe, "greeting", PROBE_BAD,
                  "does a broker listen there, and does it take this gateway's certificate?", "%s",
                  why);
    }
}

static void ask(struct probe *probe)
{
    static const struct mqtt_link_events events = {.acknowledged = on_acknowledged};
    const struct mqtt_settings *s = probe->settings;
    struct mqtt_link *link = NULL;
    probe_begin(probe);
    int r = mosquitto_lib_init() != MOSQ_ERR_SUCCESS
                ? -ENOMEM
                : mqtt_link_create(s, probe->gateway, s->line.token.text, &events, NULL, &link);
    if (r < 0) {
        probe_say(probe, "greeting", PROBE_BAD,
                  r == -EINVAL ? "ca_file, cert_file, key_file: are they PEM, and do they belong "
                                 "together?"
                               : NULL,
                  "no connection can be made: %s", strerror(-r));
        return;
    }
    enum { STEP_MS = 200 };
    while (mqtt_link_state(link) == MQTT_DIALLING || mqtt_link_state(link) == MQTT_GREETING) {
        struct pollfd wait = {.fd = mqtt_link_fd(link), .events = mqtt_link_wants(link)};
        int n = poll(&wait, 1, STEP_MS);
        mqtt_link_step(link, n > 0 ? wait.revents : 0);
    }
    say_end(probe, link);
    errand_drop(mqtt_link_take_dial(link));
    mqtt_link_destroy(link);
}

const struct uplink_probe mqtt_probe = {
    .prepare = prepare, .before = before, .target = target, .ask = ask};
