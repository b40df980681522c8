#include "life.h"

#include <errno.h>
#include <string.h>

enum { MAX_AGE_S = 5, KEEP_S = 86400 };

const char *life_name(enum life life)
{
    static const char *const names[LIVES] = {"steady", "drop", "pause", "thin", "expire", "moves"};
    return life < LIVES ? names[life] : "?";
}

int life_named(const char *name)
{
    for (int life = 0; life < LIVES; life++) {
        if (strcmp(name, life_name((enum life)life)) == 0) {
            return life;
        }
    }
    return -1;
}

struct store_settings life_settings(enum life life)
{
    int when_full = life == LIFE_PAUSE  ? STORE_FULL_PAUSE
                    : life == LIFE_THIN ? STORE_FULL_THIN
                                        : STORE_FULL_DROP_OLDEST;
    struct store_settings settings = load_settings(when_full);
    if (life == LIFE_MOVES) {
        settings.keep_ms = KEEP_S * 1000;
        settings.max_size_bytes *= 2; /* all of it fits, and an eighth of it is flushed */
    }
    return settings;
}

int64_t life_max_age_ms(enum life life, unsigned uplink)
{
    return life == LIFE_EXPIRE ? MAX_AGE_S * 1000 * (1 + (int64_t)uplink) : 0;
}

/* -ENOSPC is an answer, not the end; so is, under faults, all but a latched store. */
static int go_on(const struct load *load, int rc)
{
    bool end = rc == -EIO || rc == -EPROTO || rc == -E2BIG;
    return rc == -ENOSPC || (load->faulty && !end) ? 0 : rc;
}

static int append_some(struct load *load, unsigned scans, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < scans && rc == 0; i++) {
        for (unsigned d = 0; d < TRUTH_DEVICES && rc == 0; d++) {
            rc = go_on(load, load_append(load, STREAM_RAW, d, count));
        }
    }
    if (rc == 0 && load_chance(load, 5) == 0) {
        rc = go_on(load,
                   load_append(load, STREAM_AGGREGATE, load_chance(load, TRUTH_DEVICES), count));
    }
    if (rc == 0 && load_chance(load, 9) == 0) {
        rc = go_on(load,
                   load_append(load, STREAM_EVENT, load_chance(load, TRUTH_DEVICES), LOAD_SMALL));
    }
    return rc;
}

/* Commits of that size each, with `deliveries` takes after each. */
static int phase(struct load *load, unsigned commits, unsigned scans, unsigned count,
                 unsigned deliveries)
{
    int rc = 0;
    for (unsigned i = 0; i < commits && rc == 0; i++) {
        rc = append_some(load, scans, count);
        if (rc == 0) {
            rc = go_on(load, load_commit(load));
        }
        for (unsigned u = 0; u < TRUTH_UPLINKS * deliveries && rc == 0; u++) {
            rc = go_on(load, load_deliver(load, u % TRUTH_UPLINKS));
        }
    }
    return rc;
}

/* Commits that bring settlements and next to nothing else; the live lane runs ahead, so that the
 * ranges of a device get holes, and the backfill fills them. */
static int move_ranges(struct load *load, unsigned commits)
{
    int rc = 0;
    for (unsigned i = 0; i < commits && rc == 0; i++) {
        rc = i % 4 == 0 ? append_some(load, 2, LOAD_SMALL) : 0;
        if (i % 8 == 0 && load->readers[0] != NULL) {
            store_reader_split(load->readers[0]);
        }
        for (unsigned n = 0; n < 3 && rc == 0; n++) {
            rc = go_on(load, load_deliver(load, load_chance(load, TRUTH_UPLINKS)));
        }
        rc = rc < 0 ? rc : go_on(load, load_commit(load));
    }
    return rc;
}

/* Letters are sent once more, and readings leave by hand, with commits that bring other things,
 * too; `away`: what was refused has left the log by then. */
static int amend(struct load *load, unsigned commits, bool away)
{
    int rc = 0;
    load->dead_every = 4;
    for (unsigned i = 0; i < commits && rc == 0; i++) {
        rc = append_some(load, 1 + i % 2, LOAD_SMALL);
        for (unsigned n = 0; n < 2 && rc == 0; n++) {
            rc = go_on(load, load_deliver(load, load_chance(load, TRUTH_UPLINKS)));
        }
        if (rc == 0 && away && i % 3 == 1) {
            rc = go_on(load, load_drain(load));
            rc = rc < 0 ? rc : go_on(load, load_commit(load));
        }
        if (rc == 0 && i % 3 == 2) {
            rc = go_on(load, load_requeue(load, i / 3 % TRUTH_UPLINKS));
        }
        if (rc == 0 && i % 2 == 1) {
            rc = go_on(load, load_hand_over(load, i / 2 % TRUTH_UPLINKS));
        }
        rc = rc < 0 ? rc : go_on(load, load_commit(load));
    }
    load->dead_every = 0;
    return rc;
}

static int drain_and_commit(struct load *load)
{
    int rc = go_on(load, load_drain(load));
    return rc < 0 ? rc : go_on(load, load_commit(load));
}

static int reopen(struct load *load)
{
    load_close(load);
    return load_open(load);
}

/* What makes this life another than the others, after the store was opened again. */
static int main_phase(struct load *load, enum life life, unsigned rounds)
{
    int rc = 0;
    switch (life) {
    case LIFE_DROP:
    case LIFE_PAUSE:
        return phase(load, rounds, 20, TRUTH_POINTS, 1);
    case LIFE_THIN: /* slowly, so that there are large blocks to be thinned */
        return phase(load, 3 * rounds, 5, TRUTH_POINTS, 1);
    case LIFE_EXPIRE:
        rc = phase(load, 2 * rounds, 3, TRUTH_POINTS, 0);
        rc = rc < 0 ? rc : reopen(load);
        return rc < 0 ? rc : phase(load, rounds, 2, TRUTH_POINTS, 1);
    case LIFE_MOVES:
        rc = phase(load, rounds, 3, TRUTH_POINTS, 0); /* so that there are large blocks */
        rc = rc < 0 ? rc : move_ranges(load, 2 * rounds);
        rc = rc < 0 ? rc : amend(load, rounds, false);
        rc = rc < 0 ? rc : reopen(load);
        return rc < 0 ? rc : move_ranges(load, rounds);
    default:
        rc = amend(load, rounds / 2, false);
        return rc < 0 ? rc : amend(load, rounds / 2, true);
    }
}

int life_run(struct load *load, enum life life, unsigned rounds)
{
    bool fills = life == LIFE_DROP || life == LIFE_PAUSE;
    load->settings = life_settings(life);
    for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
        load->truth->max_age_ms[u] = life_max_age_ms(life, u);
    }
    bool held = life == LIFE_EXPIRE || life == LIFE_MOVES;
    load->truth->held_ms = held ? load->truth->base_ms : 0;
    load->truth->letters = !load->faulty;
    int rc = load_open(load);
    rc = rc < 0 ? rc : phase(load, rounds, 1, LOAD_SMALL, 1);
    rc = rc < 0 ? rc : phase(load, rounds / 2, fills ? 8 : 2, TRUTH_POINTS, 0); /* growth */
    rc = rc < 0 ? rc : go_on(load, load_look(load));
    rc = rc < 0 ? rc : reopen(load);
    rc = rc < 0 ? rc : main_phase(load, life, rounds);
    rc = rc < 0 ? rc : drain_and_commit(load);
    rc = rc < 0 ? rc : phase(load, rounds, 2, LOAD_SMALL, 3); /* in the space that was given back */
    rc = rc < 0 ? rc : drain_and_commit(load);
    load_close(load);
    return rc;
}
