#include "gateway/api/push.h"

#include "gateway/api/push_body.h"
#include "gateway/api/reply.h"
#include "gateway/api/roster.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* One request whose scans are on their way to the disk. The last commit callback answers; the one
 * share that is held while scans are still being handed over keeps it from being too early. */
struct push {
    struct ticket *ticket;
    size_t objects;
    _Atomic size_t open, stored;
    _Atomic int error; /* the first */
    struct device *devices[];
};

/* What a request is checked with. */
struct desk {
    const struct api_host *host;
    struct evhttp_request *request;
    struct roster roster;
    struct push_body body;
    const struct device *device; /* the last one found: sensors often send several objects */
};

static bool is_name(struct json_in_text text, const char *name)
{
    return strncmp(name, text.at, text.len) == 0 && name[text.len] == '\0';
}

static struct device *find_device(struct desk *desk, struct json_in_text location)
{
    for (size_t i = 0; i < desk->roster.device_count; i++) {
        if (is_name(location, desk->roster.devices[i]->config->name)) {
            return desk->roster.devices[i];
        }
    }
    return NULL;
}

static int cut(struct json_in_text text)
{
    return text.len > 60 ? 60 : (int)text.len;
}

/* Names the point of each member; false after an answer. */
static bool find_points(struct desk *desk, const struct push_object *object,
                        const struct device *device)
{
    const struct config_points *points = &device->config->points;
    for (size_t i = 0; i < object->count; i++) {
        struct push_member *member = &desk->body.members[object->first + i];
        size_t k = 0;
        while (k < points->count && !is_name(member->name, points->list[k].name)) {
            k++;
        }
        if (k == points->count) {
            reply_error(desk->request, 422, "no_such_point", "'%s' has no point '%.*s'",
                        device->config->name, cut(member->name), member->name.at);
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (desk->body.members[object->first + j].reading.point == k) {
                reply_error(desk->request, 422, "twice", "'%s' stands twice in one object",
                            points->list[k].name);
                return false;
            }
        }
        member->reading.point = (uint16_t)k;
    }
    return true;
}

static bool check_object(struct desk *desk, const struct push_object *object,
                         struct device **ret_device)
{
    struct device *device = find_device(desk, object->location);
    if (device == NULL) {
        reply_error(desk->request, 422, "no_such_device", "there is no device '%.*s'",
                    cut(object->location), object->location.at);
        return false;
    }
    if (!atomic_load(&device->takes_pushes)) {
        reply_error(desk->request, 422, "not_listening",
                    "'%s' takes no pushed readings: it needs driver = http, mode = listen",
                    device->config->name);
        return false;
    }
    if (object->time_ms > clock_wall_ms() + PUSH_AHEAD_MS && clock_synchronised()) {
        reply_error(desk->request, 422, "future", "'%s' sends a time that is more than a day ahead",
                    device->config->name);
        return false;
    }
    *ret_device = device;
    return find_points(desk, object, device);
}

static void push_free(struct push *push)
{
    for (size_t i = 0; i < push->objects; i++) {
        device_unref(push->devices[i]);
    }
    free(push);
}

static void write_failure(const struct push *push, struct buffer *body)
{
    int error = atomic_load(&push->error);
    size_t stored = atomic_load(&push->stored);
    char message[160];
    const char *why = error == -ENOBUFS  ? "the queue is full"
                      : error == -ENOSPC ? "the store is full"
                      : error == -ENODEV ? "the device was just reconfigured"
                                         : strerrordesc_np(-error);
    snprintf(message, sizeof message, "%s: try again (%zu of %zu objects are stored)",
             why != NULL ? why : "it failed", stored, push->objects);
    reply_write_error(body, error == -ENOBUFS ? "busy" : "not_stored", message);
}

static void answer(struct push *push)
{
    auto_buffer struct buffer body = {0};
    if (atomic_load(&push->error) == 0) {
        buffer_printf(&body, "{\"accepted\":%zu}", push->objects);
        ticket_answer(push->ticket, 200, NULL, &body);
    } else {
        write_failure(push, &body);
        ticket_answer(push->ticket, 503, NULL, &body);
    }
    push_free(push);
}

static void let_go(struct push *push, size_t shares, int error)
{
    int none = 0;
    if (error < 0) {
        atomic_compare_exchange_strong(&push->error, &none, error);
    }
    if (atomic_fetch_sub(&push->open, shares) == shares) {
        answer(push);
    }
}

/* On the pipeline's thread, after the commit. */
static void on_durable(void *user, int error)
{
    struct push *push = user;
    if (error == 0) {
        atomic_fetch_add(&push->stored, 1);
    }
    let_go(push, 1, error);
}

static int submit(struct desk *desk, const struct push_object *object, struct device *device,
                  struct push *push)
{
    auto_free struct scan *scan = calloc(1, scan_size_for(object->count, object->text_len));
    if (scan == NULL) {
        return -ENOMEM;
    }
    scan->time_ms = object->time_ms;
    scan->count = (uint16_t)object->count;
    char *texts = (char *)&scan->readings[object->count];
    for (size_t i = 0; i < object->count; i++) {
        const struct push_member *member = &desk->body.members[object->first + i];
        scan->readings[i] = member->reading;
        if (member->reading.kind == VALUE_TEXT) {
            scan->readings[i].text.offset = scan->text_len;
            memcpy(texts + scan->text_len, member->text.at, member->text.len);
            scan->text_len += (uint32_t)member->text.len;
        }
    }
    atomic_fetch_add_explicit(&device->health.polls, 1, memory_order_relaxed);
    int r = scan_submit_pushed(device, scan, on_durable, push);
    if (r == 0) {
        device_report_good(device, 0);
    } else {
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
    }
    return r;
}

/* Hands all objects over; the rest is left where one finds no room, so that none overtakes. */
static void submit_all(struct desk *desk, struct push *push)
{
    size_t count = push->objects;
    for (size_t i = 0; i < count; i++) {
        int r = submit(desk, &desk->body.objects[i], push->devices[i], push);
        if (r < 0) {
            let_go(push, count - i + 1, r);
            return;
        }
    }
    let_go(push, 1, 0);
}

static bool has_room(const struct desk *desk, const struct push *push)
{
    return scan_has_room(push->devices[0], desk->body.member_count);
}

static void take(struct desk *desk, struct later *later)
{
    size_t count = desk->body.object_count;
    struct push *push = calloc(1, sizeof *push + count * sizeof push->devices[0]);
    if (push == NULL) {
        reply_error(desk->request, 503, "busy", "out of memory: try again");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct device *device = NULL;
        if (!check_object(desk, &desk->body.objects[i], &device)) {
            push_free(push);
            return;
        }
        push->devices[push->objects++] = device_ref(device);
    }
    if (!has_room(desk, push) || ticket_open(later, desk->request, &push->ticket) < 0) {
        reply_error(desk->request, 503, "busy", "the queue is full: try again");
        push_free(push);
        return;
    }
    atomic_store(&push->open, count + 1);
    submit_all(desk, push);
}

void push_sensor(const struct api_host *host, struct later *later, struct evhttp_request *request,
                 const char *bytes, size_t len)
{
    auto_free struct desk *desk = calloc(1, sizeof *desk);
    char why[PUSH_WHY_MAX] = "out of memory";
    int r = desk == NULL ? -ENOMEM : 0;
    if (r == 0) {
        desk->host = host;
        desk->request = request;
        r = push_body_parse(bytes, len, &desk->body, why);
    }
    if (r == 0) {
        r = roster_take(host, ROSTER_DEVICES, &desk->roster);
    }
    if (r == 0) {
        take(desk, later);
    } else if (r == -ENOMEM) {
        reply_error(request, 503, "busy", "out of memory: try again");
    } else {
        reply_error(request, r == -E2BIG ? 413 : 400, r == -E2BIG ? "too_large" : "bad_request",
                    "%s", why);
    }
    if (desk != NULL) {
        push_body_finish(&desk->body);
        roster_finish(&desk->roster);
    }
}
