#include "gateway/pipeline/thin.h"

#include <errno.h>
#include <math.h>

/* The last reading that passed. */
struct thin_state {
    int64_t time_ms;
    uint64_t value; /* the bits of the number, or a hash of the text */
    int8_t exponent;
    uint8_t kind, quality;
    bool any;
};

struct thin {
    size_t count;
    struct thin_state states[];
};

static bool is_thinned(const struct config_point *point)
{
    return point->on_change || point->deadband > 0;
}

int thin_create(const struct config_points *points, struct thin **ret_thin)
{
    size_t needed = 0;
    for (size_t i = 0; i < points->count; i++) {
        needed = is_thinned(&points->list[i]) ? i + 1 : needed;
    }
    struct thin *thin = NULL;
    if (needed > 0) {
        thin = calloc(1, sizeof *thin + needed * sizeof thin->states[0]);
        if (thin == NULL) {
            return -ENOMEM;
        }
        thin->count = needed;
    }
    *ret_thin = thin;
    return 0;
}

void thin_destroy(struct thin *thin)
{
    free(thin);
}

/* FNV-1a: a text that changes to one of the same 64-bit hash is held back once in 2^64. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3;
    }
    return hash;
}

static struct thin_state state_of(const struct scan *scan, const struct reading *reading)
{
    struct thin_state state = {.time_ms = scan->time_ms,
                               .exponent = reading->exponent,
                               .kind = reading->kind,
                               .quality = reading->quality,
                               .any = true};
    if (reading->kind == VALUE_TEXT) {
        state.value = hash_text(scan_text(scan, reading), reading->text.len);
    } else if (reading->kind != VALUE_NULL) {
        state.value = (uint64_t)reading->integer;
    }
    return state;
}

static double number_of(const struct thin_state *state)
{
    struct reading reading = {
        .kind = state->kind, .exponent = state->exponent, .integer = (int64_t)state->value};
    return reading_double(&reading);
}

static bool differs(const struct config_point *point, const struct thin_state *last,
                    const struct thin_state *now)
{
    if (last->value == now->value && last->exponent == now->exponent) {
        return false;
    }
    if (now->kind == VALUE_TEXT || now->kind == VALUE_BOOL) {
        return true;
    }
    double change = fabs(number_of(now) - number_of(last));
    return point->deadband > 0 ? !(change <= point->deadband) : change != 0;
}

bool thin_passes(struct thin *thin, const struct config_points *points, const struct scan *scan,
                 const struct reading *reading)
{
    const struct config_point *point = &points->list[reading->point];
    if (thin == NULL || reading->point >= thin->count || !is_thinned(point)) {
        return true;
    }
    struct thin_state *last = &thin->states[reading->point];
    struct thin_state now = state_of(scan, reading);
    bool passes = !last->any || now.kind != last->kind || now.quality != last->quality ||
                  now.time_ms - last->time_ms >= THIN_ALWAYS_MS || now.time_ms < last->time_ms ||
                  differs(point, last, &now);
    if (passes) {
        *last = now;
    }
    return passes;
}
