/* The body of POST /sensor: whatever arrives, names and texts lie within it or its arena, and
 * what is taken is within the bounds. The same bytes are walked by JSON pointers. */
#include "drivers/http/json_pointer.h"
#include "gateway/api/push_body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(struct json_in_text text)
{
    volatile char last = '\0';
    for (size_t i = 0; i < text.len; i++) {
        last = text.at[i];
    }
    (void)last;
}

static void on_found(void *user, size_t index, const struct reading *reading,
                     struct json_in_text text)
{
    (void)user;
    if (index >= 4 || reading->kind >= VALUE_KINDS || reading->quality >= QUALITY_COUNT) {
        abort();
    }
    touch(text);
}

static void walk(const char *text, size_t len)
{
    static const char *const pointers[] = {"", "/location", "/0/x", "/a~1b/0"};
    struct json_pointer_set set;
    const char *why;
    if (json_pointer_set_init(&set, pointers, ARRAY_SIZE(pointers)) == 0) {
        (void)!json_pointer_walk(&set, text, len, on_found, NULL, &why);
        json_pointer_set_finish(&set);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct push_body body;
    char why[PUSH_WHY_MAX] = "";
    int r = push_body_parse((const char *)data, size, &body, why);
    if (r < 0 && why[0] == '\0') {
        abort();
    }
    for (size_t i = 0; r == 0 && i < body.object_count; i++) {
        const struct push_object *object = &body.objects[i];
        touch(object->location);
        if (object->count == 0 || object->first + object->count > body.member_count) {
            abort();
        }
    }
    for (size_t i = 0; r == 0 && i < body.member_count; i++) {
        touch(body.members[i].name);
        touch(body.members[i].text);
        if (body.members[i].reading.kind >= VALUE_KINDS) {
            abort();
        }
    }
    push_body_finish(&body);
    walk((const char *)data, size);
    return 0;
}
