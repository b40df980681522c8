#include "config/nearest.h"

#include <ctype.h>
#include <string.h>

enum { NAME_MAX_LEN = 63 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][NAME_MAX_LEN + 1] = {0};
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *higher = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            row[j] = least(least(row[j - 1], above[j]) + 1, above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2])) {
                row[j] = least(row[j], higher[j - 2] + 1);
            }
        }
    }
    return rows[a_len % 3][b_len];
}

void nearest_try(struct nearest *nearest, const char *candidate)
{
    size_t given_len = strlen(nearest->given), len = strlen(candidate);
    if (given_len > NAME_MAX_LEN || len > NAME_MAX_LEN || len == 0 || given_len == 0) {
        return;
    }
    size_t limit = given_len < 4 ? 1 : given_len < 8 ? 2 : 3;
    size_t distance = edit_distance(nearest->given, given_len, candidate, len);
    if (distance <= limit && distance < len &&
        (nearest->best == NULL || distance < nearest->distance)) {
        nearest->best = candidate;
        nearest->distance = distance;
    }
}
