#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

/* A snapshot (pipeline/snapshot.c) says what the sums were when a day began, so that a day is the
 * difference of two, and the last one goes up to the ledger as it is. Where the gateway stood still
 * at midnight, or snapshots have left the store, a row is of several days. */
enum { DAYS_MAX = 400, NAME_MAX_BYTES = 64 };
static const int64_t day_ms = 86400000;

struct uplink_sums {
    char name[NAME_MAX_BYTES];
    uint64_t offered, waiting, fates[FATE_COUNTS];
};

struct sums {
    int64_t time_ms;
    uint64_t counts[LEDGER_COUNTS];
    struct uplink_sums uplinks[STORE_UPLINKS_MAX];
    size_t uplink_count;
};

struct days {
    const char *store;
    struct sums *list; /* ascending; of DAYS_MAX and some the newest */
    size_t count;
};

/* The next piece of text before `by`. */
static bool next_piece(const char **at, const char *end, const char *by, const char **ret_piece,
                       size_t *ret_len)
{
    if (*at >= end) {
        return false;
    }
    const char *stop = memmem(*at, (size_t)(end - *at), by, strlen(by));
    *ret_piece = *at;
    *ret_len = (size_t)((stop == NULL ? end : stop) - *at);
    *at = stop == NULL ? end : stop + strlen(by);
    return true;
}

/* "read 4711" */
static bool is_count(const char *piece, size_t len, const char *name, uint64_t *ret_value)
{
    size_t name_len = strlen(name);
    char digits[24];
    if (len <= name_len + 1 || len - name_len > sizeof(digits) ||
        memcmp(piece, name, name_len) != 0 || piece[name_len] != ' ') {
        return false;
    }
    snprintf(digits, sizeof(digits), "%.*s", (int)(len - name_len - 1), piece + name_len + 1);
    *ret_value = strtoull(digits, NULL, 10);
    return true;
}

/* "read 1, stored 1, ..."; false: of another store. */
static bool parse_counts(const char *at, const char *end, const char *store, struct sums *sums)
{
    static const char id[] = "store ";
    const char *piece;
    size_t len;
    while (next_piece(&at, end, ", ", &piece, &len)) {
        if (len > strlen(id) && memcmp(piece, id, strlen(id)) == 0) {
            return len - strlen(id) == strlen(store) &&
                   memcmp(piece + strlen(id), store, strlen(store)) == 0;
        }
        for (int c = 0; c < LEDGER_COUNTS; c++) {
            if (is_count(piece, len, ledger_count_name((enum ledger_count)c), &sums->counts[c])) {
                break;
            }
        }
    }
    return true;
}

/* "NAME: offered 1, delivered 1, ..." */
static void parse_uplink(const char *at, const char *end, struct sums *sums)
{
    const char *piece;
    size_t len;
    if (sums->uplink_count == STORE_UPLINKS_MAX || !next_piece(&at, end, ": ", &piece, &len)) {
        return;
    }
    struct uplink_sums *uplink = &sums->uplinks[sums->uplink_count++];
    snprintf(uplink->name, sizeof(uplink->name), "%.*s", (int)len, piece);
    while (next_piece(&at, end, ", ", &piece, &len)) {
        if (is_count(piece, len, "offered", &uplink->offered) ||
            is_count(piece, len, "waiting", &uplink->waiting)) {
            continue;
        }
        for (int f = 0; f < FATE_COUNTS; f++) {
            if (is_count(piece, len, ledger_fate_name((enum ledger_fate)f), &uplink->fates[f])) {
                break;
            }
        }
    }
}

static bool parse(const char *text, size_t text_len, const char *store, struct sums *sums)
{
    const char *at = text, *end = text + text_len, *piece;
    size_t len;
    bool good = next_piece(&at, end, "; ", &piece, &len) &&
                parse_counts(piece, piece + len, store, sums);
    while (good && next_piece(&at, end, "; ", &piece, &len)) {
        parse_uplink(piece, piece + len, sums);
    }
    return good;
}

static bool is_text(const struct scan *scan, size_t i, const char *text)
{
    const struct reading *reading = &scan->readings[i];
    return reading->kind == VALUE_TEXT && reading->text.len == strlen(text) &&
           memcmp(scan_text(scan, reading), text, reading->text.len) == 0;
}

static struct sums *add_day(struct days *days)
{
    if (days->count == DAYS_MAX) {
        memmove(days->list, days->list + 1, (DAYS_MAX - 1) * sizeof(*days->list));
        days->count--;
    }
    days->list[days->count] = (struct sums){.time_ms = 0};
    return &days->list[days->count++];
}

static int see(void *user, const struct scan *scan)
{
    struct days *days = user;
    if (scan->count != 2 || !is_text(scan, 0, "ledger") || scan->readings[1].kind != VALUE_TEXT) {
        return 0;
    }
    struct sums *sums = add_day(days);
    sums->time_ms = scan->time_ms;
    if (!parse(scan_text(scan, &scan->readings[1]), scan->readings[1].text.len, days->store,
               sums)) {
        days->count--; /* what came back of an earlier store counts for that one */
    }
    return 0;
}

static int add_now(struct days *days, struct store *store, int64_t now_ms)
{
    struct ledger_device total;
    struct sums *sums = add_day(days);
    int r = store_ledger_total(store, -1, &total);
    if (r < 0) {
        return r;
    }
    sums->time_ms = now_ms;
    memcpy(sums->counts, total.counts, sizeof(sums->counts));
    for (unsigned u = 0; u < store_uplinks(store); u++) {
        const char *name = store_uplink_name(store, u);
        if (name[0] != '\0' && store_ledger_total(store, (int)u, &total) == 0) {
            struct uplink_sums *uplink = &sums->uplinks[sums->uplink_count++];
            snprintf(uplink->name, sizeof(uplink->name), "%s", name);
            uplink->offered = total.offered;
            uplink->waiting = total.waiting;
            memcpy(uplink->fates, total.fates, sizeof(uplink->fates));
        }
    }
    return 0;
}

static const struct uplink_sums *find_uplink(const struct sums *sums, const char *name)
{
    static const struct uplink_sums none;
    for (size_t u = 0; sums != NULL && u < sums->uplink_count; u++) {
        if (strcmp(sums->uplinks[u].name, name) == 0) {
            return &sums->uplinks[u];
        }
    }
    return &none;
}

/* Sums only grow; one that did not makes a day that does not add up. */
static uint64_t more(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

static void write_uplink(struct json_out *out, const struct uplink_sums *from,
                         const struct uplink_sums *to)
{
    /* An uplink that was dropped and came again begins at nothing. */
    static const struct uplink_sums none;
    from = from->offered > to->offered ? &none : from;
    uint64_t offered = to->offered - from->offered, fates = 0;
    json_out_open(out, NULL, '{');
    json_out_text(out, "name", to->name);
    json_out_uint(out, "offered", offered);
    for (int f = 0; f < FATE_COUNTS; f++) {
        uint64_t fate = more(to->fates[f], from->fates[f]);
        json_out_uint(out, ledger_fate_name((enum ledger_fate)f), fate);
        fates += fate;
    }
    json_out_uint(out, "waiting", to->waiting);
    json_out_bool(out, "adds_up", from->waiting + offered == fates + to->waiting);
    json_out_close(out, '}');
}

static void write_date(struct json_out *out, const char *key, int64_t time_ms)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(time_ms, text);
    text[strlen("2026-01-31")] = '\0';
    json_out_text(out, key, text);
}

/* from NULL: nothing was counted before. */
static void write_day(struct json_out *out, const struct sums *from, const struct sums *to,
                      int64_t from_ms, int64_t until_ms)
{
    uint64_t counts[LEDGER_COUNTS];
    json_out_open(out, NULL, '{');
    write_date(out, "day", from_ms);
    write_date(out, "until", until_ms > from_ms ? until_ms : from_ms);
    for (int c = 0; c < LEDGER_COUNTS; c++) {
        counts[c] = more(to->counts[c], from == NULL ? 0 : from->counts[c]);
        json_out_uint(out, ledger_count_name((enum ledger_count)c), counts[c]);
    }
    json_out_bool(out, "adds_up",
                  counts[LEDGER_READ] == counts[LEDGER_STORED] + counts[LEDGER_SUPPRESSED] +
                                             counts[LEDGER_DROPPED_OVERRUN] +
                                             counts[LEDGER_DROPPED_DISK]);
    json_out_open(out, "uplinks", '[');
    for (size_t u = 0; u < to->uplink_count; u++) {
        write_uplink(out, find_uplink(from, to->uplinks[u].name), &to->uplinks[u]);
    }
    json_out_close(out, ']');
    json_out_close(out, '}');
}

static void write_days(struct json_out *out, const struct days *days, int64_t made_ms)
{
    json_out_open(out, "days", '[');
    for (size_t i = 0; i < days->count; i++) {
        const struct sums *to = &days->list[i], *from = i == 0 ? NULL : to - 1;
        /* What a snapshot counts was before its day; the last one is of now. */
        int64_t until_ms = i + 1 == days->count ? to->time_ms
                                                : to->time_ms - to->time_ms % day_ms - 1;
        write_day(out, from, to, from == NULL ? made_ms : from->time_ms, until_ms);
    }
    json_out_close(out, ']');
}

int view_ledger_days(struct store *store, const char *gateway, struct buffer *b)
{
    struct json_out out = {.b = b};
    struct store_stat stat;
    struct days days = {.store = store_id(store), .list = calloc(DAYS_MAX, sizeof(*days.list))};
    int r = days.list == NULL ? -ENOMEM : 0;
    store_stat(store, &stat);
    r = r < 0 ? r : store_history(store, STREAM_EVENT, 0, INT64_MIN, INT64_MAX, see, &days);
    r = r < 0 ? r : add_now(&days, store, clock_wall_ms());
    if (r == 0) {
        json_out_open(&out, NULL, '{');
        json_out_text(&out, "gateway", gateway);
        json_out_text(&out, "store", store_id(store));
        write_days(&out, &days, stat.made_ms);
        json_out_close(&out, '}');
    }
    free(days.list);
    return r < 0 ? r : (buffer_failed(b) ? -ENOMEM : 0);
}
