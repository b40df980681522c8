#include "gateway/base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

/* The clocks in a test's hand; read without locks, so tests move them while threads stand still. */
static _Atomic bool held;
static _Atomic int64_t held_wall_ms, held_mono_ns, held_offset_ms;
static _Atomic bool held_synchronised = true;
static _Atomic uint8_t held_boot;

static int64_t read_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t clock_mono_ns(void)
{
    return held ? held_mono_ns : read_ns(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

int64_t clock_boot_ms(void)
{
    return (held ? held_mono_ns : read_ns(CLOCK_BOOTTIME)) / 1000000;
}

int64_t clock_wall_ms(void)
{
    return held ? held_wall_ms : read_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_offset_ms(void)
{
    enum { TRIES = 4 };
    static const int64_t at_one_moment_ns = 100000;
    if (held) {
        return held_offset_ms; /* the other two are not moved at one moment */
    }
    int64_t best_ns = INT64_MAX, offset_ns = 0;
    for (int i = 0; i < TRIES && best_ns > at_one_moment_ns; i++) {
        int64_t before_ns = read_ns(CLOCK_BOOTTIME), wall_ns = read_ns(CLOCK_REALTIME);
        int64_t took_ns = read_ns(CLOCK_BOOTTIME) - before_ns;
        if (took_ns < best_ns) {
            best_ns = took_ns;
            offset_ns = wall_ns - before_ns - took_ns / 2;
        }
    }
    return offset_ns / 1000000;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int clock_boot_id(uint8_t id[CLOCK_BOOT_ID_SIZE])
{
    if (held) {
        memset(id, held_boot, CLOCK_BOOT_ID_SIZE);
        return 0;
    }
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text);
    int error = len < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    size_t digits = 0;
    for (ssize_t i = 0; i < len && digits < 2 * (size_t)CLOCK_BOOT_ID_SIZE; i++) {
        int digit = hex_digit(text[i]);
        if (digit >= 0) {
            id[digits / 2] = (uint8_t)(digits % 2 == 0 ? digit << 4 : id[digits / 2] | digit);
            digits++;
        }
    }
    return error < 0 ? error : digits == 2 * (size_t)CLOCK_BOOT_ID_SIZE ? 0 : -EINVAL;
}

bool clock_synchronised(void)
{
    if (held) {
        return held_synchronised;
    }
    struct timex state = {0};
    int rc = adjtimex(&state);
    return rc >= 0 && rc != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
}

void clock_hold(int64_t wall_ms, int64_t mono_ns)
{
    held_wall_ms = wall_ms;
    held_mono_ns = mono_ns;
    held_offset_ms = wall_ms - mono_ns / 1000000;
    held = true;
}

void clock_advance_ms(int64_t ms)
{
    held_wall_ms += ms;
    held_mono_ns += ms * 1000000;
}

void clock_hold_synchronised(bool synchronised)
{
    held_synchronised = synchronised;
}

void clock_hold_boot(uint8_t boot)
{
    held_boot = boot;
}

void clock_release(void)
{
    held = false;
    held_synchronised = true;
    held_boot = 0;
}

int clock_format_utc(int64_t wall_ms, char text[CLOCK_TEXT_SIZE])
{
    int64_t ms = wall_ms % 1000;
    int64_t seconds = wall_ms / 1000;
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    struct tm utc;
    time_t t = (time_t)seconds;
    gmtime_r(&t, &utc);
    size_t n = strftime(text, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(text + n, CLOCK_TEXT_SIZE - n, ".%03dZ", (int)ms);
    return (int)n;
}

static bool all_digits(const char *text, size_t from, size_t count)
{
    for (size_t i = from; i < from + count; i++) {
        if (!isdigit((unsigned char)text[i])) {
            return false;
        }
    }
    return true;
}

static int two(const char *text)
{
    return (text[0] - '0') * 10 + (text[1] - '0');
}

/* "Z" or "+hh:mm" to minutes east of UTC. */
static int parse_offset(const char *text, int *ret_minutes)
{
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
        *ret_minutes = 0;
        return 0;
    }
    if (strlen(text) != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':' ||
        !all_digits(text, 1, 2) || !all_digits(text, 4, 2)) {
        return -EINVAL;
    }
    int minutes = two(text + 1) * 60 + two(text + 4);
    *ret_minutes = text[0] == '-' ? -minutes : minutes;
    return 0;
}

int clock_parse_utc(const char *text, int64_t *ret_wall_ms)
{
    if (strlen(text) < 20 || !all_digits(text, 0, 4) || text[4] != '-' || !all_digits(text, 5, 2) ||
        text[7] != '-' || !all_digits(text, 8, 2) ||
        (text[10] != 'T' && text[10] != 't' && text[10] != ' ') || !all_digits(text, 11, 2) ||
        text[13] != ':' || !all_digits(text, 14, 2) || text[16] != ':' ||
        !all_digits(text, 17, 2)) {
        return -EINVAL;
    }
    struct tm utc = {.tm_year = two(text) * 100 + two(text + 2) - 1900,
                     .tm_mon = two(text + 5) - 1,
                     .tm_mday = two(text + 8),
                     .tm_hour = two(text + 11),
                     .tm_min = two(text + 14),
                     .tm_sec = two(text + 17)};
    if (utc.tm_mon < 0 || utc.tm_mon > 11 || utc.tm_mday < 1 || utc.tm_mday > 31 ||
        utc.tm_hour > 23 || utc.tm_min > 59 || utc.tm_sec > 60) {
        return -EINVAL;
    }
    const char *rest = text + 19;
    int ms = 0;
    if (*rest == '.') {
        int weight = 100;
        for (rest++; isdigit((unsigned char)*rest); rest++) {
            ms += (*rest - '0') * weight;
            weight /= 10;
        }
    }
    int minutes = 0;
    if (parse_offset(rest, &minutes) < 0) {
        return -EINVAL;
    }
    *ret_wall_ms = ((int64_t)timegm(&utc) - (int64_t)minutes * 60) * 1000 + ms;
    return 0;
}
