#include "gateway/api/ask.h"

#include "gateway/api/query.h"
#include "gateway/api/reply.h"
#include "gateway/api/roster.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

/* Names to indexes in the device's points; -ENOENT with the name that is none. */
static int find_points(const struct device *device, const struct read_query *read,
                       size_t *ret_indexes, const char **ret_missing)
{
    const struct config_points *points = &device->config->points;
    for (size_t i = 0; i < read->count; i++) {
        size_t k = 0;
        while (k < points->count && strcmp(points->list[k].name, read->points[i].name) != 0) {
            k++;
        }
        if (k == points->count) {
            *ret_missing = read->points[i].name;
            return -ENOENT;
        }
        ret_indexes[i] = k;
    }
    return 0;
}

/* On the field's thread. */
static void on_done(void *user, int error, const char *why, json_t *result)
{
    if (error == 0) {
        ticket_answer(user, 200, result, NULL);
        return;
    }
    json_decref(result);
    auto_buffer struct buffer body = {0};
    char message[200];
    snprintf(message, sizeof message, "the device does not give its values: %s",
             why != NULL && why[0] != '\0' ? why : strerror(error < 0 ? -error : error));
    reply_write_error(&body, error == -ETIMEDOUT ? "timeout" : "device", message);
    ticket_answer(user, error == -ETIMEDOUT ? 504 : 502, NULL, &body);
}

static void refuse(struct evhttp_request *request, int r, const char *device)
{
    if (r == -ENOENT) {
        reply_error(request, 404, "no_such_device", "there is no device '%s'", device);
    } else if (r == -ENOSYS) {
        reply_error(request, 501, "cannot", "the driver of '%s' cannot read off schedule", device);
    } else if (r == -EBUSY || r == -ENOBUFS) {
        reply_error(request, 503, "busy", "too many questions at once: try again");
    } else {
        reply_error(request, 500, "internal", "%s", strerror(-r));
    }
}

static void ask(const struct api_host *host, struct later *later, struct evhttp_request *request,
                const struct read_query *read, const size_t *indexes)
{
    struct ticket *ticket;
    int r = ticket_open(later, request, &ticket);
    if (r == 0) {
        /* `done` may come before this returns. */
        r = host->ask_device(host->user, read->device, read->count > 0 ? indexes : NULL,
                             read->count, NULL, clock_mono_ms() + read->timeout_ms, on_done,
                             ticket);
        if (r < 0) {
            ticket_cancel(ticket);
        }
    }
    if (r < 0) {
        refuse(request, r, read->device);
    }
}

void ask_device(const struct api_host *host, struct later *later, struct evhttp_request *request,
                const char *body, size_t len)
{
    struct read_query read;
    const char *why = "";
    if (read_query_parse(body, len, &read, &why) < 0) {
        reply_error(request, 400, "bad_request", "%s", why);
        return;
    }
    auto_roster struct roster roster = {0};
    size_t indexes[READ_POINTS_MAX];
    int r = roster_take(host, ROSTER_DEVICES, &roster);
    const struct device *device = r < 0 ? NULL : roster_find(&roster, read.device);
    const char *missing = NULL;
    if (device == NULL) {
        refuse(request, r < 0 ? r : -ENOENT, read.device);
    } else if (find_points(device, &read, indexes, &missing) < 0) {
        reply_error(request, 404, "no_such_point", "'%s' has no point '%s'", read.device, missing);
    } else {
        ask(host, later, request, &read, indexes);
    }
    read_query_finish(&read);
}
