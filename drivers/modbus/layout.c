#include "drivers/modbus/layout.h"

#include <errno.h>
#include <string.h>

int layout_init(struct layout *layout, const struct config_device *device)
{
    size_t count = device->points.count;
    *layout = (struct layout){.device = device};
    layout->list = calloc(count + 1, sizeof(*layout->list));
    if (layout->list == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        layout->list[i] = *modbus_point(device, i);
        layout->has_models = layout->has_models || layout->list[i].model != 0;
    }
    const struct sunspec_walk nothing = {.ended = true};
    layout_place(layout, &nothing);
    return 0;
}

void layout_finish(struct layout *layout)
{
    free(layout->list);
    *layout = (struct layout){0};
}

void layout_place(struct layout *layout, const struct sunspec_walk *walk)
{
    layout->unplaced = 0;
    for (size_t i = 0; i < layout->device->points.count && layout->has_models; i++) {
        struct registers_point *point = &layout->list[i];
        *point = *modbus_point(layout->device, i);
        if (point->model != 0 && !sunspec_place_point(walk, point)) {
            point->width = 0;
            layout->unplaced++;
        }
    }
}

static bool has_place(const struct sunspec_walk *walk, uint16_t model, unsigned instance)
{
    unsigned found = 0;
    for (size_t i = 0; i < walk->count; i++) {
        found += walk->places[i].model == model;
    }
    return found >= instance || walk->count == SUNSPEC_MODELS_MAX;
}

void layout_place_nominally(struct layout *layout)
{
    struct sunspec_walk walk = {.found = true, .ended = true};
    unsigned at = SUNSPEC_FIRST;
    for (size_t i = 0; i < layout->device->points.count && layout->has_models; i++) {
        const struct registers_point *point = modbus_point(layout->device, i);
        unsigned length = sunspec_model_length(point->model);
        while (point->model != 0 && !has_place(&walk, point->model, point->instance)) {
            walk.places[walk.count++] = (struct sunspec_place){point->model, (uint16_t)at,
                                                               (uint16_t)length};
            at += length + 2;
        }
    }
    layout_place(layout, &walk);
}

int layout_plan(const struct layout *layout, struct plan *ret_plan)
{
    const struct config_device *device = layout->device;
    const struct modbus_settings *settings = device->settings;
    const struct plan_limits limits = {
        .max_gap = (unsigned)settings->max_gap,
        .largest_request = (unsigned)settings->largest_request,
        .one_request_per_point = settings->one_request_per_point,
    };
    size_t count = device->points.count;
    struct plan_source *sources = calloc(count + 1, sizeof(*sources));
    if (sources == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        const struct registers_point *point = &layout->list[i];
        sources[i].point = layout_is_placed(point) ? point : NULL;
        sources[i].every = device->points.list[i].every;
    }
    int r = plan_init(ret_plan, sources, count, limits);
    free(sources);
    return r;
}
