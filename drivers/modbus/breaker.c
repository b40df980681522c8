#include "drivers/modbus/breaker.h"

bool breaker_allows(const struct breaker *breaker, const struct breaker_line *line, int64_t now_ms)
{
    return !breaker_is_open(breaker) ||
           (now_ms >= breaker->open_until_ms && now_ms >= line->free_at_ms);
}

void breaker_good(struct breaker *breaker)
{
    *breaker = (struct breaker){0};
}

bool breaker_bad(struct breaker *breaker, struct breaker_line *line, int64_t now_ms,
                 int64_t cost_ms, bool shared)
{
    unsigned threshold = shared ? BREAKER_FAILURES_SHARED : BREAKER_FAILURES;
    breaker->failures++;
    breaker->cost_ms += cost_ms;
    if (shared) {
        int64_t owed_from = line->free_at_ms > now_ms ? line->free_at_ms : now_ms;
        line->free_at_ms = owed_from + BREAKER_SHARE * cost_ms;
    }
    if (breaker->failures < threshold) {
        return false;
    }
    int64_t pause = breaker->pause_ms * 2;
    if (pause < BREAKER_PAUSE_MIN_MS) {
        pause = BREAKER_PAUSE_MIN_MS;
    }
    if (pause > BREAKER_PAUSE_MAX_MS) {
        pause = BREAKER_PAUSE_MAX_MS;
    }
    breaker->pause_ms = pause;
    int64_t price = BREAKER_SHARE * breaker->cost_ms;
    breaker->open_until_ms = now_ms + (shared && price > pause ? price : pause);
    breaker->cost_ms = 0;
    return true;
}
