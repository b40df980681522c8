#include "drivers/simulator/sim_fault.h"

#include <errno.h>
#include <string.h>

static const char *const names[SIM_FAULTS] = {
    [SIM_SOUND] = "sound", [SIM_DEAD] = "dead",         [SIM_ABSENT] = "absent",
    [SIM_SLOW] = "slow",   [SIM_ILLEGAL] = "illegal",   [SIM_LYING] = "lying",
    [SIM_DRIP] = "drip",   [SIM_TORN] = "torn",         [SIM_CLOSING] = "closing",
    [SIM_BUSY] = "busy",   [SIM_FLAPPING] = "flapping",
};

const char *sim_fault_name(enum sim_fault fault)
{
    return names[fault];
}

static int find_name(const char *text, size_t len, enum sim_fault *ret_fault)
{
    for (int i = 0; i < SIM_FAULTS; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0) {
            *ret_fault = (enum sim_fault)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* "7" or "3-5" up to end. */
static int parse_range(const char *text, const char *end, size_t count, size_t *ret_from,
                       size_t *ret_to)
{
    char *stop;
    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    unsigned long from = strtoul(text, &stop, 10), to = from;
    if (*stop == '-' && stop[1] >= '0' && stop[1] <= '9') {
        to = strtoul(stop + 1, &stop, 10);
    }
    if (stop != end || from < 1 || to < from || to > count) {
        return -EINVAL;
    }
    *ret_from = from;
    *ret_to = to;
    return 0;
}

int sim_fault_parse(const char *text, uint8_t *faults, size_t count,
                    char ret_why[SIM_FAULT_WHY_SIZE])
{
    while (*text != '\0') {
        const char *end = text + strcspn(text, ",");
        size_t len = strcspn(text, ":,");
        enum sim_fault fault;
        size_t from, to;
        if (find_name(text, len, &fault) < 0) {
            snprintf(ret_why, SIM_FAULT_WHY_SIZE, "there is no fault '%.*s'",
                     (int)(len < 40 ? len : 40), text);
            return -EINVAL;
        }
        if (text[len] != ':' || parse_range(text + len + 1, end, count, &from, &to) < 0) {
            snprintf(ret_why, SIM_FAULT_WHY_SIZE, "%s needs a turbine from 1 to %zu, as %s:3",
                     names[fault], count, names[fault]);
            return -EINVAL;
        }
        for (size_t i = from; i <= to; i++) {
            faults[i - 1] = (uint8_t)fault;
        }
        text = *end == ',' ? end + 1 : end;
    }
    return 0;
}
