#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"
#include "gateway/store/store_clock.h"

static const char note_name[] = "ledger.day"; /* the UTC day of the last snapshot */
static const int64_t day_ms = 86400000;

static void add_counts(struct buffer *text, const struct ledger_device *total)
{
    for (unsigned c = 0; c < LEDGER_COUNTS; c++) {
        buffer_printf(text, "%s%s %llu", c == 0 ? "" : ", ", ledger_count_name(c),
                      (unsigned long long)total->counts[c]);
    }
}

static void add_fates(struct buffer *text, const char *uplink, const struct ledger_device *total)
{
    buffer_printf(text, "; %s: offered %llu", uplink, (unsigned long long)total->offered);
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        buffer_printf(text, ", %s %llu", ledger_fate_name(f), (unsigned long long)total->fates[f]);
    }
    buffer_printf(text, ", waiting %llu", (unsigned long long)total->waiting);
}

void pipeline_snapshot(struct pipeline *p)
{
    int64_t day = store_now_ms(p->store) / day_ms, last = 0;
    bool known = store_note(p->store, note_name, &last);
    if (known && last == day) {
        return;
    }
    store_set_note(p->store, note_name, day);
    auto_buffer struct buffer text = {0};
    struct ledger_device total;
    if (!known || store_ledger_total(p->store, -1, &total) < 0) {
        return; /* a day that had no beginning here */
    }
    add_counts(&text, &total);
    buffer_printf(&text, ", store %s", store_id(p->store));
    for (unsigned u = 0; u < store_uplinks(p->store); u++) {
        const char *name = store_uplink_name(p->store, u);
        if (name[0] != '\0' && store_ledger_total(p->store, (int)u, &total) == 0) {
            add_fates(&text, name, &total);
        }
    }
    const char *words = buffer_text(&text);
    if (words != NULL) {
        (void)pipeline_record(p, NULL, "ledger", words);
    }
}
