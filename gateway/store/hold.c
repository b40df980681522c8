#include "gateway/store/lanes.h"
#include "gateway/store/reader.h"

/* Forgets what is staged of a device. Its blocks are not done with: held_from keeps them. */
static void unstage(struct store_reader *reader, enum store_lane lane, uint32_t device)
{
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        struct staged *staged;
        while ((staged = lanes_pop(reader, lane, (enum stream)s, device)) != NULL) {
            lanes_close_one(reader, staged->number);
            lanes_release(reader, lane, staged);
        }
    }
}

bool store_reader_hold(struct store_reader *reader, uint32_t device)
{
    if (device == 0 || device > reader->device_count) {
        return false;
    }
    struct reader_device *known = &reader->devices[device - 1];
    if (!known->held) {
        reader->held_from = lanes_floor(reader);
        reader->held_count++;
        known->held = true;
        unstage(reader, STORE_LANE_BACKFILL, device);
        unstage(reader, STORE_LANE_LIVE, device);
    }
    return true;
}

void store_reader_release(struct store_reader *reader, uint32_t device)
{
    if (device == 0 || device > reader->device_count || !reader->devices[device - 1].held) {
        return;
    }
    reader->devices[device - 1].held = false;
    lanes_restart(reader, reader->held_from);
    if (--reader->held_count == 0) {
        reader->held_from = UINT64_MAX;
    }
}
