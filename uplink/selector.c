#include "uplink/selector.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

/* What is known of a device's points; `names` tells when the store has learned new ones. */
struct choice {
    const struct store_names *names;
    size_t known;  /* points judged */
    uint8_t *bits; /* one a point id */
};

struct selector {
    const struct config_list *patterns;
    struct choice *choices; /* by device id */
    size_t count;
};

enum { DEVICES_MAX = 1 << 20, NAME_MAX_LEN = 512 };

int selector_create(const struct config_list *patterns, struct selector **ret_selector)
{
    struct selector *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return -ENOMEM;
    }
    s->patterns = patterns;
    *ret_selector = s;
    return 0;
}

void selector_destroy(struct selector *selector)
{
    if (selector != NULL) {
        for (size_t i = 0; i < selector->count; i++) {
            free(selector->choices[i].bits);
        }
        free(selector->choices);
        free(selector);
    }
}

static bool wanted(const struct selector *s, const struct store_names *names, size_t point)
{
    char name[NAME_MAX_LEN];
    const char *point_name = names->points[point].name;
    snprintf(name, sizeof name, "%s.%s", names->device, point_name != NULL ? point_name : "");
    for (size_t i = 0; i < s->patterns->count; i++) {
        if (fnmatch(s->patterns->items[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

static int judge_points(struct selector *s, struct choice *c, const struct store_names *names)
{
    uint8_t *bits = realloc(c->bits, names->point_count / 8 + 1);
    if (bits == NULL) {
        return -ENOMEM;
    }
    memset(bits, 0, names->point_count / 8 + 1);
    for (size_t i = 0; i < names->point_count; i++) {
        bits[i / 8] = (uint8_t)(bits[i / 8] | (wanted(s, names, i) ? 1u << (i % 8) : 0u));
    }
    *c = (struct choice){.names = names, .known = names->point_count, .bits = bits};
    return 0;
}

static struct choice *choice_of(struct selector *s, uint32_t device)
{
    if (device >= DEVICES_MAX) {
        return NULL;
    }
    if (device >= s->count) {
        size_t count = s->count == 0 ? 64 : s->count;
        while (count <= device) {
            count *= 2;
        }
        struct choice *choices = realloc(s->choices, count * sizeof *choices);
        if (choices == NULL) {
            return NULL;
        }
        memset(choices + s->count, 0, (count - s->count) * sizeof *choices);
        s->choices = choices;
        s->count = count;
    }
    return &s->choices[device];
}

int selector_pick(struct selector *selector, const struct scan *scan,
                  const struct store_names *names, uint16_t *indexes, uint16_t *ret_count,
                  bool *ret_all)
{
    *ret_count = scan->count;
    *ret_all = true;
    if (selector->patterns->count == 0) {
        return 0;
    }
    struct choice *c = choice_of(selector, scan->device);
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): names is never NULL */
    if (c == NULL || ((c->names != names || c->known != names->point_count) &&
                      judge_points(selector, c, names) < 0)) {
        return -ENOMEM;
    }
    uint16_t count = 0;
    for (uint16_t i = 0; i < scan->count; i++) {
        uint16_t point = scan->readings[i].point;
        if (point < c->known && (c->bits[point / 8] >> (point % 8) & 1) != 0) {
            indexes[count++] = i;
        }
    }
    *ret_count = count;
    *ret_all = count == scan->count;
    return 0;
}
