#include "gateway/api/push_body.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum { MEMBERS_FIRST = 64 };

struct parser {
    struct json_in json;
    struct push_body *body;
    struct push_object *object;
    bool timed;
    char *why;
    int error;
};

static bool refuse(struct parser *p, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The first refusal stands; behind what the document itself has wrong. */
static bool refuse(struct parser *p, int error, const char *format, ...)
{
    if (p->error != 0 || json_in_failed(&p->json)) {
        return false;
    }
    int n = 0;
    if (p->object != NULL && p->body->object_count > 1) {
        n = snprintf(p->why, PUSH_WHY_MAX, "object %zu: ", p->body->object_count);
    }
    va_list args;
    va_start(args, format);
    vsnprintf(p->why + n, (size_t)(PUSH_WHY_MAX - n), format, args);
    va_end(args);
    p->error = error;
    return false;
}

static int shown(struct json_in_text text)
{
    return text.len > 40 ? 40 : (int)text.len;
}

static bool take_location(struct parser *p)
{
    struct json_in_text *location = &p->object->location;
    if (location->at != NULL) {
        return refuse(p, -EINVAL, "`location` stands twice");
    }
    if (json_in_peek(&p->json) != JSON_IN_STRING) {
        return refuse(p, -EINVAL, "`location` is the name of a device, a string");
    }
    return json_in_string(&p->json, location);
}

static bool take_time(struct parser *p)
{
    struct reading reading = {0};
    struct json_in_text text;
    if (p->timed) {
        return refuse(p, -EINVAL, "`time` stands twice");
    }
    p->timed = true;
    if (!json_reading_take(&p->json, &reading, &text)) {
        return false;
    }
    if (json_reading_time(&reading, text, &p->object->time_ms) < 0) {
        return refuse(p, -EINVAL,
                      "`time` is neither RFC 3339 nor seconds or milliseconds since 1970");
    }
    return true;
}

static struct push_member *add_member(struct parser *p)
{
    struct push_body *body = p->body;
    if (body->member_count == PUSH_MEMBERS_MAX) {
        refuse(p, -E2BIG, "more than %d values in one request", PUSH_MEMBERS_MAX);
        return NULL;
    }
    if (body->member_count == body->member_room) {
        size_t room = body->member_room == 0 ? MEMBERS_FIRST : body->member_room * 2;
        struct push_member *grown = reallocarray(body->members, room, sizeof *grown);
        if (grown == NULL) {
            refuse(p, -ENOMEM, "out of memory");
            return NULL;
        }
        body->members = grown;
        body->member_room = room;
    }
    struct push_member *member = &body->members[body->member_count++];
    *member = (struct push_member){0};
    p->object->count++;
    return member;
}

static bool take_member(struct parser *p, struct json_in_text name)
{
    struct push_member *member = add_member(p);
    if (member == NULL) {
        return false;
    }
    member->name = name;
    if (!json_reading_take(&p->json, &member->reading, &member->text)) {
        return false;
    }
    if (member->reading.quality == QUALITY_BAD_TYPE) {
        return refuse(p, -EINVAL, "'%.*s' is neither a number, a boolean, a short string nor null",
                      shown(name), name.at);
    }
    p->object->text_len += member->text.len;
    return p->object->text_len <= SCAN_TEXT_MAX || refuse(p, -E2BIG, "too much text");
}

static bool take_object(struct parser *p)
{
    struct push_body *body = p->body;
    if (body->object_count == PUSH_OBJECTS_MAX) {
        return refuse(p, -E2BIG, "more than %d objects in one request", PUSH_OBJECTS_MAX);
    }
    p->object = &body->objects[body->object_count++];
    *p->object = (struct push_object){.first = body->member_count};
    p->timed = false;
    struct json_in_text name;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    bool good = true;
    while (good && json_in_member(&p->json, &name)) {
        good = json_in_text_is(name, "location") ? take_location(p)
               : json_in_text_is(name, "time")   ? take_time(p)
                                                 : take_member(p, name);
    }
    if (!good || json_in_failed(&p->json)) {
        return false;
    }
    if (p->object->location.at == NULL) {
        return refuse(p, -EINVAL, "`location`, the name of the device, is missing");
    }
    return p->object->count > 0 || refuse(p, -EINVAL, "there is no value beside `location`");
}

static bool take_all(struct parser *p)
{
    if (json_in_peek(&p->json) != JSON_IN_ARRAY) {
        return take_object(p) && json_in_end(&p->json);
    }
    bool good = json_in_enter(&p->json, JSON_IN_ARRAY);
    while (good && json_in_element(&p->json)) {
        good = take_object(p);
    }
    if (!good || !json_in_end(&p->json)) {
        return false;
    }
    return p->body->object_count > 0 || refuse(p, -EINVAL, "the array is empty");
}

int push_body_parse(const char *bytes, size_t len, struct push_body *ret_body,
                    char ret_why[PUSH_WHY_MAX])
{
    ret_body->object_count = ret_body->member_count = ret_body->member_room = 0;
    ret_body->members = NULL;
    ret_body->arena = (struct json_in_arena){0};
    struct parser p = {.body = ret_body, .why = ret_why};
    json_in_init(&p.json, bytes, len, &ret_body->arena);
    if (take_all(&p)) {
        return 0;
    }
    if (json_in_failed(&p.json)) {
        snprintf(ret_why, PUSH_WHY_MAX, "the body is no JSON object or array of objects: %s",
                 p.json.why);
        return -EINVAL;
    }
    return p.error;
}

void push_body_finish(struct push_body *body)
{
    free(body->members);
    json_in_arena_finish(&body->arena);
    body->members = NULL;
    body->object_count = body->member_count = 0;
}
