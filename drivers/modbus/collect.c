#include "drivers/modbus/collect.h"

#include <errno.h>
#include <string.h>

int collect_init(struct collect *collect, const struct layout *layout)
{
    const struct config_device *device = layout->device;
    size_t text = 0;
    for (size_t i = 0; i < device->points.count; i++) {
        const struct registers_point *point = modbus_point(device, i);
        text += point->type == REGISTERS_STRING ? point->detail : 0U;
    }
    *collect = (struct collect){.layout = layout};
    if (device->points.count > SCAN_READINGS_MAX || text > SCAN_TEXT_MAX) {
        return -EINVAL;
    }
    collect->scan = calloc(1, scan_size_for(device->points.count, text));
    collect->text = malloc(text + REGISTERS_TEXT_MAX);
    if (collect->scan == NULL || collect->text == NULL) {
        collect_finish(collect);
        return -ENOMEM;
    }
    return 0;
}

void collect_finish(struct collect *collect)
{
    free(collect->scan);
    free(collect->text);
    *collect = (struct collect){0};
}

void collect_begin(struct collect *collect)
{
    collect->scan->time_ms = 0; /* the pipeline's to say */
    collect->scan->boot_ms = 0;
    collect->scan->count = 0;
    collect->scan->text_len = 0;
}

void collect_values(struct collect *collect, const struct plan *plan,
                    const struct plan_request *request, const uint8_t *data, int64_t boot_ms)
{
    struct scan *scan = collect->scan;
    bool bits = registers_table_has_bits(request->table);
    if (scan->boot_ms == 0) {
        scan->boot_ms = boot_ms;
    }
    for (unsigned i = 0; i < request->parts; i++) {
        const struct plan_part *part = &plan->parts[request->part + i];
        unsigned offset = (unsigned)part->first - request->first;
        struct reading *reading = &scan->readings[scan->count++];
        reading->point = part->point;
        if (bits) {
            registers_decode_bit(data, offset, reading);
            continue;
        }
        registers_decode(&collect->layout->list[part->point], data + 2 * (size_t)offset, reading,
                         collect->text + scan->text_len);
        if (reading->kind == VALUE_TEXT) {
            reading->text.offset = scan->text_len;
            scan->text_len += reading->text.len;
        }
    }
}

static void add_bad(struct scan *scan, uint16_t point, enum quality quality)
{
    struct reading *reading = &scan->readings[scan->count++];
    *reading = (struct reading){.point = point, .kind = VALUE_NULL, .quality = (uint8_t)quality};
}

void collect_bad(struct collect *collect, const struct plan *plan,
                 const struct plan_request *request, enum quality quality)
{
    for (unsigned i = 0; i < request->parts; i++) {
        add_bad(collect->scan, plan->parts[request->part + i].point, quality);
    }
}

void collect_refused(struct collect *collect, const struct plan *plan, uint64_t poll)
{
    for (size_t p = 0; p < plan->part_count && plan->refused_count > 0; p++) {
        const struct plan_part *part = &plan->parts[p];
        if (part->refused && (part->every <= 1 || poll % part->every == 0)) {
            add_bad(collect->scan, part->point, QUALITY_BAD_REFUSED);
        }
    }
}

void collect_unplaced(struct collect *collect, uint64_t poll, enum quality quality)
{
    const struct layout *layout = collect->layout;
    for (size_t i = 0; i < layout->device->points.count && layout->unplaced > 0; i++) {
        uint32_t every = layout->device->points.list[i].every;
        if (!layout_is_placed(&layout->list[i]) && (every <= 1 || poll % every == 0)) {
            add_bad(collect->scan, (uint16_t)i, quality);
        }
    }
}

struct scan *collect_scan(struct collect *collect)
{
    struct scan *scan = collect->scan;
    memcpy(&scan->readings[scan->count], collect->text, scan->text_len);
    return scan;
}
