#include "uplink/mqtt/shadow.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/mqtt/shadow_slots.h"

#include <errno.h>
#include <sys/random.h>

enum { DESIRED_MORE_MAX = 1024, CONFLICT_MS = 100 };
enum { PAUSE_FIRST_MS = 500, PAUSE_MAX_MS = 300 * 1000, TOKEN_MAX = 40, BUDGET_MIN = 1024 };

enum request { REQUEST_NONE, REQUEST_GET, REQUEST_UPDATE };

struct shadow {
    const struct mqtt_settings *settings;
    const char *gateway;
    const struct uplink_host *host;
    struct mqtt_notes *notes;
    struct shadow_slots slots;
    char *series, *topics[SHADOW_KINDS], *get, *update;

    bool up, heard, base_known; /* base_known: `known` is what the service holds */
    enum request asked;
    char token[TOKEN_MAX];
    unsigned run, number; /* of the token */
    int64_t asked_ms, quiet_until_ms, pause_ms;
    int64_t reported_ms;      /* when the last report was accepted or found needless; 0: none was */
    bool urgent;              /* an outcome waits to be reported */
    int64_t version;          /* of the document; -1: there is none */
    json_t *known, *proposed; /* reported: in the service; once the update is accepted */
    int64_t missed;           /* the version of a delta that came before the document */
    size_t desired_size, cut; /* bytes; cut: what 413 has taught */
    size_t desired_more;      /* what others have desired since the document */
    unsigned conflicts;
    int told_code;       /* the last refusal that was logged */
    int64_t accepted_ms; /* UTC, of the last report; 0: none was */
    uint64_t done;       /* desired values carried out */
};

static const char *const kinds[SHADOW_KINDS] = {[SHADOW_GET_ACCEPTED] = "get/accepted",
                                                [SHADOW_GET_REJECTED] = "get/rejected",
                                                [SHADOW_UPDATE_ACCEPTED] = "update/accepted",
                                                [SHADOW_UPDATE_REJECTED] = "update/rejected",
                                                [SHADOW_UPDATE_DELTA] = "update/delta"};

void shadow_destroy(struct shadow *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < SHADOW_KINDS; i++) {
        free(s->topics[i]);
    }
    free(s->series);
    free(s->get);
    free(s->update);
    json_decref(s->known);
    json_decref(s->proposed);
    free(s);
}

static char *topic(const char *thing, const char *name, const char *what)
{
    char *text;
    int r = name == NULL ? asprintf(&text, "$aws/things/%s/shadow/%s", thing, what)
                         : asprintf(&text, "$aws/things/%s/shadow/name/%s/%s", thing, name, what);
    return r < 0 ? NULL : text;
}

static int make_topics(struct shadow *s)
{
    const struct mqtt_settings *settings = s->settings;
    const char *name = settings->shadow_name;
    const char *thing = settings->thing != NULL       ? settings->thing
                        : settings->client_id != NULL ? settings->client_id
                                                      : s->gateway;
    bool good = true;
    for (size_t i = 0; i < SHADOW_KINDS; i++) {
        s->topics[i] = topic(thing, name, kinds[i]);
        good = good && s->topics[i] != NULL;
    }
    s->get = topic(thing, name, "get");
    s->update = topic(thing, name, "update");
    if (asprintf(&s->series, "shadow %.70s%s%.40s", thing, name != NULL ? "/" : "",
                 name != NULL ? name : "") < 0) {
        s->series = NULL;
    }
    return good && s->get != NULL && s->update != NULL && s->series != NULL ? 0 : -ENOMEM;
}

int shadow_create(const struct mqtt_settings *settings, const char *gateway,
                  const struct uplink_host *host, struct remote *remote, struct mqtt_notes *notes,
                  struct shadow **ret_shadow)
{
    struct shadow *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return -ENOMEM;
    }
    s->settings = settings;
    s->gateway = gateway;
    s->host = host;
    s->notes = notes;
    s->version = -1;
    s->known = json_object();
    if (getrandom(&s->run, sizeof s->run, GRND_NONBLOCK) < 0) {
        s->run = (unsigned)clock_mono_ns();
    }
    int r = make_topics(s);
    s->slots = (struct shadow_slots){.settings = settings, .remote = remote, .series = s->series};
    if (r < 0 || s->known == NULL) {
        shadow_destroy(s);
        return -ENOMEM;
    }
    *ret_shadow = s;
    return 0;
}

const char *shadow_topic(const struct shadow *s, size_t i)
{
    /* What is desired concerns only those who do it. */
    size_t count = s->settings->shadow == MQTT_SHADOW_FULL ? SHADOW_KINDS : SHADOW_UPDATE_DELTA;
    return i < count ? s->topics[i] : NULL;
}

void shadow_up(struct shadow *s, int64_t now_ms)
{
    s->up = true;
    s->heard = s->base_known = false;
    s->asked = REQUEST_NONE;
    s->quiet_until_ms = now_ms;
    s->pause_ms = 0;
    s->reported_ms = s->missed = 0;
}

void shadow_down(struct shadow *s)
{
    s->up = s->base_known = false;
    s->asked = REQUEST_NONE;
}

bool shadow_is_heard(const struct shadow *s)
{
    return s->heard;
}

/* --- to the service --- */

static void ask(struct shadow *s, enum request request, json_t *body, int64_t now_ms)
{
    snprintf(s->token, sizeof s->token, "windrow-%08x-%u", s->run, ++s->number);
    json_object_set_new(body, "clientToken", json_string(s->token));
    char *text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(body);
    int r = text == NULL ? -ENOMEM
                         : mqtt_notes_post(s->notes, request == REQUEST_GET ? s->get : s->update,
                                           text, strlen(text), 0);
    free(text);
    s->asked = r == 0 ? request : REQUEST_NONE;
    s->asked_ms = now_ms;
    s->quiet_until_ms = now_ms + (r == 0 ? 0 : SHADOW_GAP_MS);
}

/* The next request waits, longer each time. */
static void back_off(struct shadow *s, int64_t now_ms)
{
    s->pause_ms = s->pause_ms == 0 ? PAUSE_FIRST_MS : s->pause_ms * 2;
    s->pause_ms = s->pause_ms < PAUSE_MAX_MS ? s->pause_ms : PAUSE_MAX_MS;
    s->quiet_until_ms = now_ms + s->pause_ms;
}

static size_t budget(const struct shadow *s)
{
    size_t desired = s->desired_size + s->desired_more;
    size_t taken = desired > SHADOW_DESIRED_ROOM ? desired : SHADOW_DESIRED_ROOM;
    taken += SHADOW_RESERVE + s->cut;
    return taken + BUDGET_MIN < SHADOW_DOCUMENT_MAX ? SHADOW_DOCUMENT_MAX - taken : BUDGET_MIN;
}

static void update(struct shadow *s, json_t *want, int64_t now_ms)
{
    json_t *patch = shadow_patch(s->known, want);
    if (shadow_size(patch) + SHADOW_RESERVE > SHADOW_UPDATE_MAX) {
        /* First what goes, then what comes. */
        json_t *common = shadow_common(s->known, want);
        json_decref(patch);
        json_decref(want);
        want = common;
        patch = shadow_patch(s->known, want);
        s->urgent = true;
    } else {
        s->urgent = false;
    }
    if (json_object_size(patch) == 0) {
        s->reported_ms = now_ms;
        json_decref(patch);
        json_decref(want);
        return;
    }
    json_t *body = json_pack("{s:{s:o}}", "state", "reported", patch);
    if (body != NULL && s->version >= 0 && s->conflicts < SHADOW_CONFLICTS_MAX) {
        json_object_set_new(body, "version", json_integer(s->version));
    }
    json_decref(s->proposed);
    s->proposed = want;
    ask(s, REQUEST_UPDATE, body, now_ms);
}

static void report(struct shadow *s, const struct uplink_view *view,
                   const struct mqtt_statuses *statuses, int64_t now_ms)
{
    const struct shadow_facts facts = {.gateway = s->gateway,
                                       .view = view,
                                       .statuses = statuses,
                                       .slots = s->slots.list,
                                       .left_out = s->slots.left_out};
    int64_t interval_ms = s->settings->shadow_interval_ms, passed_ms = now_ms - s->reported_ms;
    bool first = s->reported_ms == 0, refresh = passed_ms >= SHADOW_REFRESH * interval_ms;
    bool due = first || refresh || (s->urgent && passed_ms >= SHADOW_GAP_MS) ||
               passed_ms >= interval_ms;
    json_t *want = due ? shadow_report(&facts, budget(s)) : NULL;
    if (want == NULL) {
        return;
    }
    if (first || refresh || s->urgent || shadow_differs(s->known, want)) {
        update(s, want, now_ms);
    } else {
        json_decref(want);
    }
}

void shadow_step(struct shadow *s, const struct uplink_view *view,
                 const struct mqtt_statuses *statuses, int64_t now_ms)
{
    if (s->settings->shadow == MQTT_SHADOW_FULL) {
        shadow_slots_step(&s->slots, now_ms);
    }
    if (!s->up) {
        return;
    }
    if (s->asked != REQUEST_NONE && now_ms - s->asked_ms >= SHADOW_ANSWER_MS) {
        s->asked = REQUEST_NONE;
        s->base_known = false; /* it may have been done all the same */
        back_off(s, now_ms);
    }
    if (s->asked != REQUEST_NONE || now_ms < s->quiet_until_ms) {
        return;
    }
    if (!s->base_known) {
        ask(s, REQUEST_GET, json_object(), now_ms);
    } else {
        report(s, view, statuses, now_ms);
    }
}

/* --- from the service --- */

static void set_known(struct shadow *s, json_t *known)
{
    json_decref(s->known);
    s->known = known != NULL ? known : json_object();
}

static void on_document(struct shadow *s, const struct shadow_message *m)
{
    /* The document itself is the truth, even where its versions begin anew (it was deleted). */
    s->version = m->version;
    s->desired_size = m->desired != NULL ? shadow_size(m->desired) : 0;
    set_known(s, m->reported != NULL ? json_deep_copy(m->reported) : NULL);
    s->desired_more = 0;
    s->base_known = s->known != NULL && m->version >= s->missed;
    s->missed = 0;
    if (s->settings->shadow == MQTT_SHADOW_FULL) {
        shadow_slots_take(&s->slots, m, m->reported);
        s->urgent = true;
    }
}

static void on_delta(struct shadow *s, const struct shadow_message *m, int64_t now_ms)
{
    if (!s->base_known) {
        s->missed = m->version; /* the document that is asked for has it, or is asked for again */
        return;
    }
    if (m->version < s->version) {
        /* Late, or the document was deleted and its versions begin anew: it tells itself. */
        s->base_known = false;
        s->quiet_until_ms = now_ms + SHADOW_GAP_MS;
        return;
    }
    s->version = m->version;
    shadow_slots_take(&s->slots, m, NULL);
}

/* Ours, or a change by somebody else, who may have changed what we hold for known. */
static void on_accepted(struct shadow *s, const struct shadow_message *m, bool ours, int64_t now_ms)
{
    if (ours) {
        set_known(s, s->proposed);
        s->proposed = NULL;
        s->conflicts = 0;
        s->pause_ms = 0;
        s->reported_ms = now_ms;
        s->accepted_ms = s->host->writes.now_ms(s->host->writes.user);
    } else if (m->reported != NULL) {
        s->base_known = false;
    }
    s->version = m->version > s->version ? m->version : s->version;
    s->desired_more += m->desired != NULL ? shadow_size(m->desired) : 0;
    if (s->desired_more > DESIRED_MORE_MAX) {
        s->base_known = false; /* most of it has likely taken the place of what was there */
    }
}

static void say_refusal(struct shadow *s, const char *what, const struct shadow_message *m)
{
    if (m->code != s->told_code) {
        log_warning("%s: its %s was refused: %d %.120s", s->series, what, m->code, m->text);
        s->told_code = m->code;
    }
}

static void on_refusal(struct shadow *s, const struct shadow_message *m, int64_t now_ms)
{
    s->base_known = false;
    if (m->code == 409) {
        s->conflicts++;
        s->quiet_until_ms = now_ms + CONFLICT_MS * s->conflicts;
        return;
    }
    back_off(s, now_ms);
    switch (m->code) {
    case 413:
        s->cut += budget(s) / 4;
        break;
    case 429:
        break;
    default:
        s->quiet_until_ms = now_ms + (m->code >= 500 ? s->pause_ms : PAUSE_MAX_MS);
    }
    say_refusal(s, "update", m);
}

static void on_get_refused(struct shadow *s, const struct shadow_message *m, int64_t now_ms)
{
    if (m->code == 404) { /* there is none yet: the first update makes it */
        s->version = -1;
        s->desired_size = 0;
        set_known(s, NULL);
        s->base_known = s->known != NULL;
        return;
    }
    back_off(s, now_ms);
    s->quiet_until_ms = m->code == 429 || m->code >= 500 ? s->quiet_until_ms
                                                         : now_ms + PAUSE_MAX_MS;
    say_refusal(s, "get", m);
}

static void on_message(struct shadow *s, enum shadow_kind kind, const struct shadow_message *m,
                       int64_t now_ms)
{
    bool ours = s->asked != REQUEST_NONE && strcmp(m->token, s->token) == 0;
    if (ours) {
        s->heard = true;
        s->asked = REQUEST_NONE;
    }
    switch (kind) {
    case SHADOW_UPDATE_DELTA:
        on_delta(s, m, now_ms);
        break;
    case SHADOW_UPDATE_ACCEPTED:
        on_accepted(s, m, ours, now_ms);
        break;
    case SHADOW_GET_ACCEPTED:
        if (ours) {
            on_document(s, m);
        }
        break;
    case SHADOW_GET_REJECTED:
        if (ours) {
            on_get_refused(s, m, now_ms);
        }
        break;
    default:
        if (ours) {
            on_refusal(s, m, now_ms);
        }
    }
}

void shadow_tell(const struct shadow *s, struct uplink_beside *ret_beside)
{
    ret_beside->shadow = !s->base_known && s->told_code != 0 ? "refused"
                         : s->heard                          ? "followed"
                                                             : "waiting";
    ret_beside->shadow_version = s->version;
    ret_beside->reported_ms = s->accepted_ms;
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        ret_beside->desired += s->slots.list[i].state != SLOT_FREE;
    }
    ret_beside->desired_done = s->done;
}

bool shadow_take(struct shadow *s, const char *name, const void *payload, size_t len,
                 int64_t now_ms)
{
    for (size_t i = 0; i < SHADOW_KINDS; i++) {
        struct shadow_message m;
        if (strcmp(s->topics[i], name) != 0) {
            continue;
        }
        if (s->up && shadow_read((enum shadow_kind)i, payload, len, &m) == 0) {
            on_message(s, (enum shadow_kind)i, &m, now_ms);
            shadow_message_finish(&m);
        }
        return true;
    }
    return false;
}

void shadow_answer(struct shadow *s, const struct remote_answer *answer, int64_t now_ms)
{
    int64_t time_ms = s->host->writes.now_ms(s->host->writes.user);
    s->done += answer->status == 200;
    if (shadow_slots_answer(&s->slots, answer, time_ms, now_ms)) {
        s->urgent = true;
    }
}
