#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/salvage_work.h"
#include "gateway/store/store_clock.h"

#include <string.h>

int64_t store_salvage_doubt_ms(const struct store *store)
{
    return store->doubt_ms;
}

/* A folder that nobody has looked into; one that an earlier version was done with is none. */
static bool is_new(const struct store *store, const char *folder)
{
    const struct state *state = &store->state;
    return salvage_noted(state, SALVAGE_RECORDS, folder) == RECORDS_SOUGHT &&
           salvage_noted(state, SALVAGE_STATE, folder) < SALVAGE_DONE &&
           !salvage_is_marked(store->dir, folder);
}

void salvage_weigh(struct store *store)
{
    char **folders = NULL;
    int64_t doubt_ms = 0;
    for (size_t i = 0; i < store->state.note_count; i++) {
        const struct state_note *note = &store->state.notes[i];
        if (salvage_about(note, SALVAGE_RECORDS) == NULL || note->value == RECORDS_WHOLE) {
            continue;
        }
        int64_t until_ms = note->value == RECORDS_MISSING ? SALVAGE_DOUBT_UNDATED : note->value;
        doubt_ms = until_ms > doubt_ms ? until_ms : doubt_ms;
    }
    if (salvage_folders(store->dir, &folders) < 0) {
        doubt_ms = SALVAGE_DOUBT_NEW;
    }
    for (size_t i = 0; folders != NULL && folders[i] != NULL; i++) {
        doubt_ms = is_new(store, folders[i]) ? SALVAGE_DOUBT_NEW : doubt_ms;
    }
    salvage_folders_free(folders);
    store->doubt_ms = doubt_ms;
}

/* The store was set aside before now. */
static void date(struct store *store, struct state_note *note)
{
    struct salvage *s = store->salvage;
    char text[CLOCK_TEXT_SIZE];
    int64_t now_ms = store_now_ms(store);
    const char *folder = salvage_about(note, SALVAGE_RECORDS);
    if (s != NULL && strcmp(s->from, folder) == 0) {
        s->now[SALVAGE_RECORDS] = s->noted[SALVAGE_RECORDS] = now_ms;
    }
    clock_format_utc(now_ms, text);
    log_warning("store: records of commands may be missing in what came back of %s: none that may "
                "have been given before %s is executed",
                folder, text);
    store_lock(store);
    note->value = now_ms;
    store_unlock(store);
    store->counted = true;
}

void salvage_date(struct store *store)
{
    struct store_clock clock;
    if (store->doubt_ms < SALVAGE_DOUBT_UNDATED) {
        return;
    }
    store_clock(store, &clock);
    for (size_t i = 0; clock.vouched && i < store->state.note_count; i++) {
        struct state_note *note = &store->state.notes[i];
        if (salvage_about(note, SALVAGE_RECORDS) != NULL && note->value == RECORDS_MISSING) {
            date(store, note);
        }
    }
    if (clock.vouched && store->doubt_ms == SALVAGE_DOUBT_UNDATED) {
        salvage_weigh(store);
    }
}
