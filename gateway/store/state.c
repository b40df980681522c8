#include "gateway/store/state.h"

#include <errno.h>
#include <string.h>

static void uplink_finish(struct state_uplink *uplink, size_t devices)
{
    for (size_t i = 0; uplink->devices != NULL && i < devices; i++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            ranges_finish(&uplink->devices[i].streams[s].settled);
        }
    }
    free(uplink->devices);
    free(uplink->name);
    *uplink = (struct state_uplink){0};
}

void state_finish(struct state *state)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        uplink_finish(&state->uplinks[u], state->device_count);
    }
    for (size_t i = 0; i < state->note_count; i++) {
        free(state->notes[i].name);
    }
    free(state->notes);
    free(state->devices);
    *state = (struct state){0};
}

static int grow_uplink(struct state_uplink *uplink, size_t from, size_t capacity)
{
    struct track_device *devices = reallocarray(uplink->devices, capacity,
                                                sizeof(*uplink->devices));
    if (devices == NULL) {
        return -ENOMEM;
    }
    memset(devices + from, 0, (capacity - from) * sizeof(*devices));
    uplink->devices = devices;
    return 0;
}

int state_add_devices(struct state *state, size_t count)
{
    if (count > STATE_DEVICES_MAX) {
        return -ENOBUFS;
    }
    if (count > state->device_capacity) {
        size_t capacity = state->device_capacity * 3 / 2 > count ? state->device_capacity * 3 / 2
                                                                 : count;
        for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
            if (state->uplinks[u].name != NULL &&
                grow_uplink(&state->uplinks[u], state->device_count, capacity) < 0) {
                return -ENOMEM;
            }
        }
        struct state_device *devices = reallocarray(state->devices, capacity,
                                                    sizeof(*state->devices));
        if (devices == NULL) {
            return -ENOMEM;
        }
        memset(devices + state->device_count, 0,
               (capacity - state->device_count) * sizeof(*devices));
        state->devices = devices;
        state->device_capacity = capacity;
    }
    state->device_count = count > state->device_count ? count : state->device_count;
    return 0;
}

const struct state_note *state_note(const struct state *state, const char *name)
{
    for (size_t i = 0; i < state->note_count; i++) {
        if (strcmp(state->notes[i].name, name) == 0) {
            return &state->notes[i];
        }
    }
    return NULL;
}

int state_set_note(struct state *state, const char *name, int64_t value)
{
    for (size_t i = 0; i < state->note_count; i++) {
        if (strcmp(state->notes[i].name, name) == 0) {
            state->notes[i].value = value;
            return 0;
        }
    }
    if (state->note_count >= STATE_NOTES_MAX || strlen(name) > STATE_NAME_MAX) {
        return -ENOBUFS;
    }
    struct state_note *notes = reallocarray(state->notes, state->note_count + 1,
                                            sizeof(*state->notes));
    if (notes == NULL) {
        return -ENOMEM;
    }
    state->notes = notes;
    notes[state->note_count].value = value;
    notes[state->note_count].name = strdup(name);
    if (notes[state->note_count].name == NULL) {
        return -ENOMEM;
    }
    state->note_count++;
    return 0;
}

void state_drop_uplink(struct state *state, unsigned uplink)
{
    uplink_finish(&state->uplinks[uplink], state->device_count);
}

int state_add_uplink(struct state *state, const char *name, unsigned *ret_uplink)
{
    unsigned u = 0;
    while (u < STORE_UPLINKS_MAX && state->uplinks[u].name != NULL) {
        u++;
    }
    if (u == STORE_UPLINKS_MAX || strlen(name) > STATE_NAME_MAX) {
        return -ENOBUFS;
    }
    struct state_uplink uplink = {.name = strdup(name)};
    if (uplink.name == NULL ||
        (state->device_capacity > 0 && grow_uplink(&uplink, 0, state->device_capacity) < 0)) {
        free(uplink.name);
        return -ENOMEM;
    }
    state->uplinks[u] = uplink;
    *ret_uplink = u;
    return 0;
}
