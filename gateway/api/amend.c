#include "gateway/api/amend.h"

#include "gateway/api/json_out.h"
#include "gateway/api/reply.h"

#include <errno.h>
#include <string.h>

static bool take(const json_t *object, const char *key, char text[AMEND_NAME_MAX])
{
    const json_t *value = json_object_get(object, key);
    const char *given = json_string_value(value);
    text[0] = '\0';
    if (value == NULL) {
        return true;
    }
    return given != NULL && snprintf(text, AMEND_NAME_MAX, "%s", given) < AMEND_NAME_MAX;
}

int amend_letters_parse(const char *body, size_t len, struct amend_letters *ret_letters,
                        const char **ret_why)
{
    json_t *object = json_loadb(body, len, 0, NULL);
    struct amend_letters letters = {0};
    bool good = json_is_object(object) && take(object, "uplink", letters.uplink) &&
                take(object, "device", letters.device) && take(object, "reason", letters.reason);
    json_decref(object);
    if (!good || letters.uplink[0] == '\0') {
        *ret_why = good ? "uplink is needed" : "uplink, device and reason are texts";
        return -EINVAL;
    }
    *ret_letters = letters;
    return 0;
}

struct step {
    struct store *store;
    struct store_letter_filter filter;
    bool drops;
    struct store_requeued done;
};

static int run_step(void *user)
{
    struct step *step = user;
    int (*act)(struct store *, const struct store_letter_filter *, uint64_t,
               struct store_requeued *) = step->drops ? store_drop_letters : store_requeue;
    return act(step->store, &step->filter, step->done.next, &step->done);
}

int amend_letters_all(struct store *store, struct pipeline *pipeline,
                      const struct amend_letters *letters, bool drops,
                      struct store_requeued *ret_total)
{
    struct step step = {
        .store = store,
        .filter = {.uplink = letters->uplink,
                   .device = letters->device[0] != '\0' ? letters->device : NULL,
                   .reason = letters->reason[0] != '\0' ? letters->reason : NULL},
        .drops = drops,
    };
    struct store_requeued total = {0};
    do {
        int r;
        if (pipeline != NULL) {
            r = pipeline_call_durable(pipeline, run_step, &step);
        } else {
            r = run_step(&step);
            r = r < 0 ? r : store_commit(store);
        }
        if (r < 0) {
            return r;
        }
        total.scans += step.done.scans;
        total.readings += step.done.readings;
        total.refused += step.done.refused;
    } while (step.done.more);
    *ret_total = total;
    return 0;
}

/* What waits for the desk's thread. */
struct order {
    const struct api_host *host;
    struct amend_letters letters;
    bool drops;
};

static void answer_error(struct ticket *ticket, const struct order *order, int r)
{
    auto_buffer struct buffer body = {0};
    if (r == -ENOENT) {
        char message[AMEND_NAME_MAX + 64];
        snprintf(message, sizeof message, "the store knows no uplink '%s'", order->letters.uplink);
        reply_write_error(&body, "no_such_uplink", message);
    } else {
        reply_write_error(&body, "store", strerror(-r));
    }
    ticket_answer(ticket, r == -ENOENT ? 404 : 500, NULL, &body);
}

static void work(void *arg, struct ticket *ticket)
{
    const struct order *order = arg;
    const struct api_host *host = order->host;
    struct store_requeued total;
    int r = amend_letters_all(host->store(host->user), host->pipeline(host->user), &order->letters,
                              order->drops, &total);
    if (r < 0) {
        answer_error(ticket, order, r);
        return;
    }
    ticket_answer(ticket, 200,
                  json_pack("{s:I, s:I, s:I}", "scans", (json_int_t)total.scans, "readings",
                            (json_int_t)total.readings, "refused", (json_int_t)total.refused),
                  NULL);
}

void amend_letters(const struct api_host *host, struct later *later, struct history_desk *desk,
                   struct evhttp_request *request, const char *body, size_t len, bool drops)
{
    struct order *order = calloc(1, sizeof *order);
    const char *why = "out of memory";
    if (order == NULL || amend_letters_parse(body, len, &order->letters, &why) < 0) {
        reply_error(request, order == NULL ? 500 : 400, "bad_request", "%s", why);
        free(order);
        return;
    }
    order->host = host;
    order->drops = drops;
    struct ticket *ticket;
    int r = ticket_open(later, request, &ticket);
    if (r == 0) {
        r = history_desk_do(desk, work, free, order, ticket);
        if (r < 0) {
            ticket_cancel(ticket);
        }
    }
    if (r < 0) {
        free(order);
        reply_error(request, 503, "busy", "too many questions at once: try again");
    }
}
