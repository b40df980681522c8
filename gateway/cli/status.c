#include "gateway/cli/client.h"
#include "gateway/cli/text.h"

#include <string.h>

enum { TROUBLED_SHOWN = 12 };

/* In words, for uplinks and devices alike. */
static enum tone tone_of(const char *state)
{
    if (strcmp(state, "good") == 0 || strcmp(state, "sending") == 0 || strcmp(state, "idle") == 0) {
        return TONE_GOOD;
    }
    if (strcmp(state, "starting") == 0 || strcmp(state, "stopped") == 0) {
        return TONE_DIM;
    }
    return strcmp(state, "dead") == 0 || strcmp(state, "held") == 0 ? TONE_BAD : TONE_WARN;
}

static bool is_troubled(const char *state)
{
    enum tone tone = tone_of(state);
    return tone == TONE_BAD || tone == TONE_WARN;
}

static void heading(const char *title)
{
    printf("%s%-10s%s", tone_code(TONE_BOLD), title, tone_code(TONE_PLAIN));
}

static void show_gateway(const json_t *answer)
{
    auto_buffer struct buffer b = {0};
    text_span(&b, answer_int(answer, "uptime_s"));
    heading("Gateway");
    printf("%s, windrow %s, up %s\n", answer_text(answer, "gateway"),
           answer_text(answer, "version"), buffer_text(&b));
}

static void show_clock(const json_t *clock)
{
    const char *state = answer_text(clock, "state");
    heading("Clock");
    if (strcmp(state, "synchronised") == 0) {
        puts("synchronised");
    } else if (strcmp(state, "trusted") == 0) {
        puts("trusted: taken for right, as [gateway] clock says");
    } else if (strcmp(state, "holding") == 0) {
        puts("was synchronised, and has not been set since: times are right");
    } else {
        auto_buffer struct buffer wait = {0};
        text_span(&wait, answer_int(clock, "wait_s"));
        printf("%snot synchronised%s (NTP?)\n", tone_code(TONE_WARN), tone_code(TONE_PLAIN));
        heading("");
        printf("%lld readings wait for it up to %s, then go out uncertain\n",
               (long long)answer_int(clock, "held"), buffer_text(&wait));
    }
}

static void add_device(struct table *table, const json_t *device, int64_t now_ms)
{
    auto_buffer struct buffer b = {0};
    const char *state = answer_text(device, "state");
    table_cell(table, TONE_PLAIN, "%s", answer_text(device, "name"));
    table_cell(table, tone_of(state), "%s", state);
    buffer_add_text(&b, "last good ");
    text_age(&b, now_ms, answer_time(device, "last_good"));
    table_cell_take(table, TONE_PLAIN, &b);
    table_cell(table, TONE_PLAIN, "%s", answer_text(device, "last_error"));
}

static void count_devices(const json_t *devices, size_t counts[4])
{
    static const char *const states[] = {"good", "starting", "failing", "dead"};
    size_t i;
    const json_t *device;
    json_array_foreach(devices, i, device)
    {
        for (size_t s = 0; s < ARRAY_SIZE(states); s++) {
            counts[s] += strcmp(answer_text(device, "state"), states[s]) == 0;
        }
    }
}

static void show_devices(const json_t *answer)
{
    static const char *const words[] = {"good", "starting", "failing", "dead"};
    static const enum tone tones[] = {TONE_GOOD, TONE_DIM, TONE_WARN, TONE_BAD};
    const json_t *devices = json_object_get(answer, "devices");
    size_t counts[4] = {0}, shown = 0, i;
    count_devices(devices, counts);
    heading("Devices");
    printf("%zu", json_array_size(devices));
    for (size_t s = 0; s < ARRAY_SIZE(words); s++) {
        if (counts[s] > 0 || s == 0) {
            printf("%s %s%zu %s%s", s == 0 ? ":" : ",", tone_code(tones[s]), counts[s], words[s],
                   tone_code(TONE_PLAIN));
        }
    }
    putchar('\n');
    auto_table struct table table;
    table_begin(&table, "|||");
    table.indent = 10;
    const json_t *device;
    json_array_foreach(devices, i, device)
    {
        if (is_troubled(answer_text(device, "state")) && shown++ < TROUBLED_SHOWN) {
            add_device(&table, device, answer_time(answer, "time"));
        }
    }
    table_print(&table, stdout);
    if (shown > TROUBLED_SHOWN) {
        printf("%10sand %zu more: `windrow devices` lists all\n", "", shown - TROUBLED_SHOWN);
    }
}

/* What a full store does, in words. */
static void show_room(const json_t *store)
{
    static const char *const names[][2] = {
        {"thinning", "the oldest readings that wait become statistics"},
        {"dropping", "the oldest readings that wait are dropped and counted"},
        {"refusing", "new readings are refused and counted"},
    };
    const char *which = json_is_true(json_object_get(store, "disk_full")) ? "disk" : "store";
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(answer_text(store, "room"), names[i][0]) == 0) {
            printf("%10s%sthe %s is full: %s%s\n", "", tone_code(TONE_BAD), which, names[i][1],
                   tone_code(TONE_PLAIN));
        }
    }
}

static void show_salvage(const json_t *salvage)
{
    if (json_is_object(salvage)) {
        auto_buffer struct buffer b = {0};
        text_salvage(&b, answer_text(salvage, "from"), answer_text(salvage, "state"),
                     (uint64_t)answer_int(salvage, "readings"),
                     (uint64_t)answer_int(salvage, "blocks_unreadable"),
                     (uint64_t)answer_int(salvage, "lost"));
        printf("%10ssalvage: %s\n", "", buffer_text(&b));
    }
}

static void show_store(const json_t *answer)
{
    auto_buffer struct buffer b = {0};
    const json_t *store = json_object_get(answer, "store");
    text_bytes(&b, (uint64_t)answer_int(store, "bytes"));
    buffer_add_text(&b, " of ");
    text_bytes(&b, (uint64_t)answer_int(store, "max_bytes"));
    if (json_is_integer(json_object_get(store, "seconds_left"))) {
        buffer_add_text(&b, ", full in ");
        text_span(&b, answer_int(store, "seconds_left"));
        buffer_add_text(&b, " at the present rate");
    }
    heading("Store");
    puts(buffer_text(&b));
    buffer_clear(&b);
    text_count(&b, (uint64_t)answer_int(store, "waiting"));
    buffer_add_text(&b, " readings wait");
    if (answer_time(store, "oldest") != 0) {
        buffer_add_text(&b, ", the oldest from ");
        text_age(&b, answer_time(answer, "time"), answer_time(store, "oldest"));
    }
    printf("%10s%s\n", "", buffer_text(&b));
    show_room(store);
    if (answer_text(store, "quarantined")[0] != '\0') {
        printf("%10s%sa damaged store was set aside as %s%s\n", "", tone_code(TONE_BAD),
               answer_text(store, "quarantined"), tone_code(TONE_PLAIN));
    }
    show_salvage(json_object_get(store, "salvage"));
    if (answer_int(store, "damaged_blocks") > 0) {
        printf("%10s%s%lld of its blocks are damaged%s: `windrow store verify`\n", "",
               tone_code(TONE_BAD), (long long)answer_int(store, "damaged_blocks"),
               tone_code(TONE_PLAIN));
    }
}

/* Commands and the shadow, where the uplink has them. */
static void show_beside(const json_t *uplink, int64_t now_ms)
{
    const json_t *orders = json_object_get(uplink, "commands");
    const json_t *shadow = json_object_get(uplink, "shadow");
    if (orders != NULL) {
        printf("%10scommands %s: %lld taken, %lld done, %lld refused or failed\n", "",
               answer_text(orders, "state"), (long long)answer_int(orders, "taken"),
               (long long)answer_int(orders, "done"), (long long)answer_int(orders, "refused"));
    }
    if (shadow != NULL) {
        auto_buffer struct buffer b = {0};
        text_age(&b, now_ms, answer_time(shadow, "last_report"));
        printf("%10sshadow %s: last report %s, %lld values desired, %lld done\n", "",
               answer_text(shadow, "state"), buffer_text(&b),
               (long long)answer_int(shadow, "desired"), (long long)answer_int(shadow, "done"));
    }
}

static void show_uplink(const json_t *uplink, int64_t now_ms)
{
    auto_buffer struct buffer b = {0};
    const char *state = answer_text(uplink, "state");
    text_count(&b, (uint64_t)answer_int(uplink, "delivered"));
    buffer_add_text(&b, " delivered, ");
    text_count(&b, (uint64_t)answer_int(uplink, "waiting"));
    buffer_add_text(&b, " wait");
    if (answer_int(uplink, "waiting") > 0) {
        buffer_add_text(&b, ", lag ");
        text_span(&b, answer_int(uplink, "lag_s"));
    }
    if (answer_int(uplink, "rejected") > 0) {
        buffer_add_text(&b, ", ");
        text_count(&b, (uint64_t)answer_int(uplink, "rejected"));
        buffer_add_text(&b, " refused");
    }
    printf("%s (%s) %s%s%s: %s\n", answer_text(uplink, "name"), answer_text(uplink, "type"),
           tone_code(tone_of(state)), state, tone_code(TONE_PLAIN), buffer_text(&b));
    show_beside(uplink, now_ms);
    buffer_clear(&b);
    text_clean(&b, answer_text(uplink, "warning"));
    if (b.len > 0) {
        text_wrap(stdout, 10, TONE_BAD, buffer_text(&b));
        buffer_clear(&b);
    }
    text_clean(&b, answer_text(uplink, "last_error"));
    if (b.len > 0) {
        text_wrap(stdout, 10, TONE_BAD, buffer_text(&b));
        buffer_clear(&b);
        text_span(&b, (answer_int(uplink, "retry_in_ms") + 999) / 1000);
        buffer_add_text(&b, "; last delivery ");
        text_age(&b, now_ms, answer_time(uplink, "last_delivered"));
        printf("%10snext try in %s\n", "", buffer_text(&b));
    } else if (answer_int(uplink, "backlog_eta_s") > 0) {
        text_span(&b, answer_int(uplink, "backlog_eta_s"));
        buffer_add_text(&b, ": ");
        text_count(&b, (uint64_t)answer_int(uplink, "delivered_per_s"));
        buffer_add_text(&b, " readings and ");
        text_bytes(&b, (uint64_t)answer_int(uplink, "bytes_per_s"));
        printf("%10sthe backlog is gone in about %s a second\n", "", buffer_text(&b));
    }
}

static void show_uplinks(const json_t *answer)
{
    const json_t *uplinks = json_object_get(answer, "uplinks"), *uplink;
    size_t i;
    json_array_foreach(uplinks, i, uplink)
    {
        heading(i == 0 ? "Uplinks" : "");
        show_uplink(uplink, answer_time(answer, "time"));
    }
    if (json_array_size(uplinks) == 0) {
        heading("Uplinks");
        puts("none: readings stay here");
    }
}

static void show_ledger(const json_t *answer)
{
    static const struct {
        const char *key, *words;
    } parts[] = {{"stored", "stored"}, {"suppressed", "unchanged"}, {"dropped", "dropped"}};
    const json_t *ledger = json_object_get(answer, "ledger");
    auto_buffer struct buffer b = {0};
    buffer_add_text(&b, "read ");
    text_count(&b, (uint64_t)answer_int(ledger, "read"));
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        uint64_t count = (uint64_t)answer_int(ledger, parts[i].key);
        if (i == 0 || count > 0) {
            buffer_add_text(&b, i == 0 ? " = " : " + ");
            text_count(&b, count);
            buffer_printf(&b, " %s", parts[i].words);
        }
    }
    bool fine = json_is_true(json_object_get(ledger, "adds_up"));
    heading("Ledger");
    printf("%s  %s%s%s\n", buffer_text(&b), tone_code(fine ? TONE_GOOD : TONE_BAD),
           fine ? "adds up" : "DOES NOT ADD UP", tone_code(TONE_PLAIN));
}

static void show(const json_t *answer)
{
    show_gateway(answer);
    show_clock(json_object_get(answer, "clock"));
    show_devices(answer);
    show_store(answer);
    show_uplinks(answer);
    show_ledger(answer);
}

/* Not well: a device or an uplink in trouble, a store full or set aside, a ledger that does not add
 * up. */
static int verdict(const json_t *answer)
{
    static const char *const lists[] = {"devices", "uplinks"};
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        size_t i;
        const json_t *entry;
        json_array_foreach(json_object_get(answer, lists[l]), i, entry)
        {
            if (is_troubled(answer_text(entry, "state"))) {
                return COMMAND_NOT_WELL;
            }
        }
    }
    bool quarantined = answer_text(json_object_get(answer, "store"), "quarantined")[0] != '\0';
    bool adds_up = json_is_true(json_object_get(json_object_get(answer, "ledger"), "adds_up"));
    const char *room = answer_text(json_object_get(answer, "store"), "room");
    if (room[0] != '\0' && strcmp(room, "enough") != 0) {
        return COMMAND_NOT_WELL;
    }
    return quarantined || !adds_up ? COMMAND_NOT_WELL : COMMAND_GOOD;
}

static int run_status(int argc, char **argv);

const struct command command_status = {
    .name = "status",
    .arguments = "",
    .summary = "clock, devices, store, uplinks and ledger at a glance",
    .help = "",
    .run = run_status,
};

static int run_status(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_status, argc, argv, NULL, 0, 0, 0, &cli);
    return r != CLI_GO ? r : client_show(&command_status, &cli, "/v1/status", show, verdict);
}
