#include "gateway/api/amend.h"
#include "gateway/api/reply.h"

#include <errno.h>
#include <string.h>

enum { NUMBERS = 6 };

static bool take_name(const json_t *object, const char *key, char text[AMEND_NAME_MAX])
{
    const char *given = json_string_value(json_object_get(object, key));
    return given != NULL && given[0] != '\0' &&
           snprintf(text, AMEND_NAME_MAX, "%s", given) < AMEND_NAME_MAX;
}

static bool take_run(const json_t *list, struct store_handed *ret_run)
{
    json_int_t numbers[NUMBERS] = {0};
    bool good = json_array_size(list) == NUMBERS;
    for (size_t i = 0; i < NUMBERS && good; i++) {
        const json_t *number = json_array_get(list, i);
        numbers[i] = json_integer_value(number);
        good = json_is_integer(number) && numbers[i] >= 0 &&
               (i == 2 || i == 3 || numbers[i] <= INT32_MAX);
    }
    if (good) {
        *ret_run = (struct store_handed){.stream = (enum stream)numbers[0],
                                         .device = (uint32_t)numbers[1],
                                         .first_seq = (uint64_t)numbers[2],
                                         .last_seq = (uint64_t)numbers[3],
                                         .readings = (uint32_t)numbers[4],
                                         .selected = (uint32_t)numbers[5]};
    }
    return good;
}

int amend_handover_parse(const char *body, size_t len, struct amend_handover *ret_handover,
                         const char **ret_why)
{
    json_t *object = json_loadb(body, len, 0, NULL);
    const json_t *runs = json_object_get(object, "runs");
    bool good = take_name(object, "store", ret_handover->store) &&
                take_name(object, "uplink", ret_handover->uplink) && json_is_array(runs) &&
                json_array_size(runs) <= AMEND_RUNS_MAX;
    ret_handover->count = good ? json_array_size(runs) : 0;
    for (size_t i = 0; i < ret_handover->count && good; i++) {
        good = take_run(json_array_get(runs, i), &ret_handover->runs[i]);
    }
    json_decref(object);
    *ret_why = "store, uplink and runs of six numbers each are wanted";
    return good ? 0 : -EINVAL;
}

struct order {
    const struct api_host *host;
    struct amend_handover handover;
    struct store_handover done;
};

static int run_step(void *user)
{
    struct order *order = user;
    struct store *store = order->host->store(order->host->user);
    if (strcmp(store_id(store), order->handover.store) != 0) {
        return -ESTALE;
    }
    return store_hand_over(store, order->handover.uplink, order->handover.runs,
                           order->handover.count, &order->done);
}

static void work(void *arg, struct ticket *ticket)
{
    struct order *order = arg;
    const struct api_host *host = order->host;
    int r = pipeline_call_durable(host->pipeline(host->user), run_step, order);
    if (r == 0) {
        ticket_answer(ticket, 200,
                      json_pack("{s:I, s:I, s:I, s:I}", "scans", (json_int_t)order->done.scans,
                                "readings", (json_int_t)order->done.readings, "before",
                                (json_int_t)order->done.before, "open",
                                (json_int_t)order->done.open),
                      NULL);
        return;
    }
    auto_buffer struct buffer body = {0};
    reply_write_error(&body,
                      r == -ESTALE   ? "other_store"
                      : r == -ENOENT ? "no_such_uplink"
                      : r == -EINVAL ? "bad_runs"
                                     : "store",
                      r == -ESTALE   ? "the gateway has another store by now"
                      : r == -ENOENT ? "the store knows no such uplink"
                      : r == -EINVAL ? "the store has no such scans"
                                     : strerror(-r));
    ticket_answer(ticket,
                  r == -ESTALE || r == -EINVAL ? 409
                  : r == -ENOENT               ? 404
                                               : 500,
                  NULL, &body);
}

void amend_handover(const struct api_host *host, struct later *later, struct history_desk *desk,
                    struct evhttp_request *request, const char *body, size_t len)
{
    struct order *order = calloc(1, sizeof *order);
    const char *why = "out of memory";
    if (order == NULL || amend_handover_parse(body, len, &order->handover, &why) < 0) {
        reply_error(request, order == NULL ? 500 : 400, "bad_request", "%s", why);
        free(order);
        return;
    }
    order->host = host;
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
