#include "uplink/giveway.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void giveway_init(struct giveway *g, int64_t interval_ms, size_t most)
{
    *g = (struct giveway){.interval_ms = interval_ms,
                          .live_seen_ms = INT64_MIN,
                          .sent_ms = INT64_MIN,
                          .quickest_ms = {-1, -1},
                          .taken_ms = -1,
                          .records = most,
                          .most = most};
}

void giveway_arrived(struct giveway *g, int64_t now_ms)
{
    g->live_seen_ms = now_ms;
}

void giveway_sent(struct giveway *g, int64_t now_ms)
{
    g->sent_ms = now_ms;
}

bool giveway_live(const struct giveway *g, int64_t now_ms)
{
    return g->live_seen_ms != INT64_MIN &&
           now_ms - g->live_seen_ms <= 2 * g->interval_ms + GIVEWAY_LIVE_MS;
}

static int64_t quickest(const struct giveway *g)
{
    int64_t a = g->quickest_ms[0], b = g->quickest_ms[1];
    return a < 0 ? b : b < 0 ? a : smaller(a, b);
}

/* How long a backfill request may take: half as long again as its way takes without any load, so
 * that some of them together fill the line, and the time that its bytes may hold that. */
static int64_t budget_ms(const struct giveway *g)
{
    int64_t share = smaller(larger(g->interval_ms / GIVEWAY_SHARE, GIVEWAY_LEAST_MS),
                            GIVEWAY_MOST_MS);
    return quickest(g) * 3 / 2 + share;
}

static void remember(struct giveway *g, int64_t took_ms, int64_t now_ms)
{
    if (g->quickest_ms[0] < 0 || now_ms - g->window_ms > GIVEWAY_WINDOW_MS) {
        g->quickest_ms[1] = g->quickest_ms[0];
        g->quickest_ms[0] = took_ms;
        g->window_ms = now_ms;
    }
    g->quickest_ms[0] = smaller(g->quickest_ms[0], took_ms);
}

void giveway_answered(struct giveway *g, bool backfill, size_t records, int64_t took_ms,
                      int64_t now_ms)
{
    remember(g, took_ms, now_ms);
    if (!backfill) {
        return;
    }
    /* Up at once, down by an eighth an answer: the slowest of late counts. */
    g->taken_ms = larger(took_ms, g->taken_ms < 0 ? 0 : g->taken_ms - g->taken_ms / 8);
    int64_t most_ms = budget_ms(g);
    if (!giveway_live(g, now_ms)) {
        g->records = g->most;
    } else if (took_ms > most_ms && records <= g->records) {
        /* Larger ones were on their way when the last step was made: they say nothing new. */
        size_t fitting = (size_t)((double)g->records * (double)most_ms / (double)took_ms);
        g->records = fitting > g->records / 2 ? fitting : g->records / 2;
        g->records = g->records > GIVEWAY_RECORDS_LEAST ? g->records : GIVEWAY_RECORDS_LEAST;
    } else if (took_ms < most_ms * 3 / 4 && records >= g->records) {
        g->records += g->records / 8 + 1;
    }
    g->records = g->records < g->most ? g->records : g->most;
}

size_t giveway_records(const struct giveway *g, int64_t now_ms)
{
    return giveway_live(g, now_ms) ? g->records : g->most;
}

/* A live request has the line to itself until most of it has gone: the time of one way. */
int64_t giveway_until(const struct giveway *g, int64_t now_ms)
{
    if (g->sent_ms == INT64_MIN || quickest(g) < 0) {
        return 0;
    }
    int64_t until_ms = g->sent_ms + smaller(quickest(g) / 2, g->interval_ms / 8);
    return until_ms > now_ms ? until_ms : 0;
}

bool giveway_waits(const struct giveway *g, int64_t now_ms, int64_t due_ms, bool only_one)
{
    if (giveway_until(g, now_ms) != 0) {
        return true;
    }
    if (due_ms < 0 || g->taken_ms < 0) {
        return false;
    }
    /* Its bytes have left the line half a round trip before it is answered. */
    int64_t clearing_ms = only_one ? g->taken_ms : g->taken_ms - quickest(g) / 2;
    /* Never more than half of the time: a slow endpoint is no reason to leave a backlog lie. */
    return due_ms - now_ms <= smaller(clearing_ms, g->interval_ms / 2);
}
