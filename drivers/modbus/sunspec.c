#include "drivers/modbus/sunspec.h"

#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <string.h>

enum { MARKER_HIGH = 0x5375, MARKER_LOW = 0x6e53, CHAIN_END = 0xffff, HEAD = 2 };

static const uint16_t markers[] = {40000, 50000, 0};

int sunspec_parse_point(const char *model, const char *name, struct registers_point *point,
                        char *ret_why, size_t why_size)
{
    char *end = NULL;
    unsigned long id = model[0] >= '0' && model[0] <= '9' ? strtoul(model, &end, 10) : 0;
    unsigned long instance = 1;
    if (id > 0 && end[0] == ':' && end[1] >= '1' && end[1] <= '0' + SUNSPEC_INSTANCES_MAX) {
        instance = strtoul(end + 1, &end, 10);
    }
    if (id < 1 || id >= CHAIN_END || *end != '\0' || instance > SUNSPEC_INSTANCES_MAX) {
        snprintf(ret_why, why_size, "'%.20s' is not a model, nor MODEL:1..%d", model,
                 SUNSPEC_INSTANCES_MAX);
        return -EINVAL;
    }
    if (sunspec_model_length((uint16_t)id) == 0) {
        snprintf(ret_why, why_size,
                 "model %lu is none of 1 101..103 111..113 201..204 211..214 307", id);
        return -EINVAL;
    }
    if (!sunspec_find_point((uint16_t)id, name, point)) {
        snprintf(ret_why, why_size, "model %lu has no point '%.30s'", id, name);
        return -EINVAL;
    }
    point->model = (uint16_t)id;
    point->instance = (uint8_t)instance;
    return 0;
}

void sunspec_walk_start(struct sunspec_walk *walk)
{
    walk->marker = 0;
    walk->found = walk->ended = false;
    walk->at = markers[0];
    walk->count = 0;
}

uint16_t sunspec_walk_at(const struct sunspec_walk *walk)
{
    return walk->at;
}

void sunspec_walk_refused(struct sunspec_walk *walk)
{
    if (walk->found || walk->marker + 1 == ARRAY_SIZE(markers)) {
        walk->ended = true;
        return;
    }
    walk->marker++;
    walk->at = markers[walk->marker];
}

static void take_head(struct sunspec_walk *walk, uint16_t model, uint16_t length)
{
    unsigned next = (unsigned)walk->at + HEAD + length;
    if (model == CHAIN_END || model == 0) {
        walk->ended = true;
        return;
    }
    walk->places[walk->count++] = (struct sunspec_place){model, walk->at, length};
    walk->ended = walk->count == SUNSPEC_MODELS_MAX || next + HEAD > UINT16_MAX;
    walk->at = (uint16_t)next;
}

void sunspec_walk_take(struct sunspec_walk *walk, const uint8_t data[4])
{
    uint16_t high = mbap_get16(data), low = mbap_get16(data + 2);
    if (walk->found) {
        take_head(walk, high, low);
    } else if (high == MARKER_HIGH && low == MARKER_LOW) {
        walk->found = true;
        walk->at = (uint16_t)(walk->at + HEAD);
    } else {
        sunspec_walk_refused(walk);
    }
}

bool sunspec_place_point(const struct sunspec_walk *walk, struct registers_point *point)
{
    unsigned instance = 0;
    for (size_t i = 0; i < walk->count; i++) {
        const struct sunspec_place *place = &walk->places[i];
        if (place->model != point->model || ++instance != point->instance) {
            continue;
        }
        unsigned end = (unsigned)point->first + point->width;
        /* Early devices leave the end of a model out; a lying one claims more than there is room.
         */
        if (end > (unsigned)place->length + HEAD || place->first + end > UINT16_MAX + 1U) {
            return false;
        }
        point->first = (uint16_t)(place->first + point->first);
        return true;
    }
    return false;
}

void sunspec_walk_describe(const struct sunspec_walk *walk, char *text, size_t size)
{
    size_t used = 0;
    snprintf(text, size, "none");
    for (size_t i = 0; i < walk->count && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%u", i > 0 ? " " : "", walk->places[i].model);
        used += n > 0 ? (size_t)n : 0;
    }
}
