#include "gateway/api/views.h"
#include "gateway/cli/offline.h"
#include "gateway/cli/text.h"

#include <string.h>

/* A column of counts; one that may be left out is not shown while it is zero throughout. */
struct column {
    const char *key, *title;
    bool may_go;
    enum tone tone; /* of a count that is not zero */
};

static const struct column of_devices[] = {
    {"read", ">READ", false, TONE_PLAIN},
    {"stored", ">STORED", false, TONE_PLAIN},
    {"suppressed", ">UNCHANGED", true, TONE_PLAIN},
    {"dropped_overrun", ">DROPPED: QUEUE", true, TONE_BAD},
    {"dropped_disk", ">DROPPED: DISK", true, TONE_BAD},
    {"derived", ">DERIVED", true, TONE_PLAIN},
    {"salvaged", ">SALVAGED", true, TONE_PLAIN},
    {"lost", ">LOST BEFORE", true, TONE_BAD},
};

static const struct column of_uplinks[] = {
    {"offered", ">OFFERED", false, TONE_PLAIN},
    {"delivered", ">DELIVERED", false, TONE_PLAIN},
    {"waiting", ">WAITING", false, TONE_WARN},
    {"dead", ">REFUSED", true, TONE_BAD},
    {"thinned", ">THINNED", true, TONE_WARN},
    {"expired", ">EXPIRED", true, TONE_WARN},
    {"not_selected", ">NOT SELECTED", true, TONE_PLAIN},
};

enum { COLUMNS_MAX = TABLE_COLUMNS_MAX - 2 }; /* beside the name and the verdict */
_Static_assert(ARRAY_SIZE(of_devices) <= COLUMNS_MAX, "columns of devices");
_Static_assert(ARRAY_SIZE(of_uplinks) <= COLUMNS_MAX, "columns of uplinks");

static bool is_used(const json_t *rows, const char *key)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (answer_int(row, key) != 0) {
            return true;
        }
    }
    return false;
}

static void add_row(struct table *table, const char *name, const json_t *row,
                    const struct column *columns, size_t count, const bool *shown)
{
    table_cell(table, TONE_PLAIN, "%s", name);
    for (size_t i = 0; i < count; i++) {
        if (shown[i]) {
            auto_buffer struct buffer b = {0};
            uint64_t number = (uint64_t)answer_int(row, columns[i].key);
            text_count(&b, number);
            table_cell_take(table, number != 0 ? columns[i].tone : TONE_PLAIN, &b);
        }
    }
    bool fine = json_is_true(json_object_get(row, "adds_up"));
    table_cell(table, fine ? TONE_GOOD : TONE_BAD, "%s", fine ? "adds up" : "DOES NOT ADD UP");
}

/* total may be NULL. */
static void print_table(const char *first, const json_t *rows, const json_t *total,
                        const struct column *columns, size_t count)
{
    bool shown[COLUMNS_MAX];
    auto_buffer struct buffer titles = {0};
    buffer_add_text(&titles, first);
    for (size_t i = 0; i < count; i++) {
        shown[i] = !columns[i].may_go || is_used(rows, columns[i].key);
        if (shown[i]) {
            buffer_printf(&titles, "|%s", columns[i].title);
        }
    }
    buffer_add_text(&titles, "|");
    auto_table struct table table;
    table_begin(&table, buffer_text(&titles));
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        add_row(&table, answer_text(row, "name"), row, columns, count, shown);
    }
    if (total != NULL) {
        add_row(&table, "all", total, columns, count, shown);
    }
    table_print(&table, stdout);
}

static void print_heading(const json_t *answer)
{
    printf("%s%s%s, store %s, counts in readings as of the last commit\n\n", tone_code(TONE_BOLD),
           answer_text(answer, "gateway"), tone_code(TONE_PLAIN), answer_text(answer, "store"));
}

static void show(const json_t *answer)
{
    const json_t *ends = json_object_get(answer, "uplinks");
    print_heading(answer);
    puts("From the field: read = stored + unchanged + dropped");
    print_table("DEVICE", json_object_get(answer, "devices"), json_object_get(answer, "total"),
                of_devices, ARRAY_SIZE(of_devices));
    if (json_array_size(ends) > 0) {
        puts("\nTo the uplinks: offered = delivered + waiting + what else became of them");
        print_table("UPLINK", ends, NULL, of_uplinks, ARRAY_SIZE(of_uplinks));
    }
}

static int show_uplink(const json_t *answer, const char *name)
{
    size_t i;
    const json_t *uplink;
    json_array_foreach(json_object_get(answer, "uplinks"), i, uplink)
    {
        if (strcmp(answer_text(uplink, "name"), name) == 0) {
            print_heading(answer);
            printf("To %s, by device\n", name);
            print_table("DEVICE", json_object_get(uplink, "devices"), uplink, of_uplinks,
                        ARRAY_SIZE(of_uplinks));
            return COMMAND_GOOD;
        }
    }
    fprintf(stderr, "windrow ledger: the store knows no uplink '%s'\n", name);
    return COMMAND_NOT_WELL;
}

/* The sums of a day stand beside those of each uplink, so that a row is one day. */
static void show_days(const json_t *answer)
{
    const json_t *days = json_object_get(answer, "days"), *day;
    bool shown[COLUMNS_MAX];
    auto_buffer struct buffer titles = {0};
    buffer_add_text(&titles, "DAY (UTC)");
    for (size_t i = 0; i < ARRAY_SIZE(of_devices); i++) {
        shown[i] = !of_devices[i].may_go || is_used(days, of_devices[i].key);
        buffer_printf(&titles, "%s%s", shown[i] ? "|" : "", shown[i] ? of_devices[i].title : "");
    }
    buffer_add_text(&titles, "|");
    auto_table struct table table;
    table_begin(&table, buffer_text(&titles));
    size_t i;
    json_array_foreach(days, i, day)
    {
        char name[64];
        const char *from = answer_text(day, "day"), *until = answer_text(day, "until");
        snprintf(name, sizeof name, "%s%s%s", from, strcmp(from, until) != 0 ? " - " : "",
                 strcmp(from, until) != 0 ? until : "");
        add_row(&table, name, day, of_devices, ARRAY_SIZE(of_devices), shown);
    }
    table_print(&table, stdout);
}

/* One table an uplink: what each day brought it, and what waited at its end. */
static void show_days_of(const json_t *answer, const char *name)
{
    json_t *rows = json_array();
    size_t i, u;
    const json_t *day, *uplink;
    json_array_foreach(json_object_get(answer, "days"), i, day)
    {
        json_array_foreach(json_object_get(day, "uplinks"), u, uplink)
        {
            if (strcmp(answer_text(uplink, "name"), name) == 0) {
                json_t *row = json_copy((json_t *)(uintptr_t)uplink);
                json_object_set(row, "name", json_object_get(day, "day"));
                json_array_append_new(rows, row);
            }
        }
    }
    printf("\nTo %s, by day; waiting: at its end\n", name);
    print_table("DAY (UTC)", rows, NULL, of_uplinks, ARRAY_SIZE(of_uplinks));
    json_decref(rows);
}

static bool all_add_up(const json_t *rows)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *devices = json_object_get(row, "devices");
        if (!json_is_true(json_object_get(row, "adds_up")) ||
            (devices != NULL && !all_add_up(devices))) {
            return false;
        }
    }
    return true;
}

static int write_from_store(struct store *store, const struct client *client, void *user,
                            struct buffer *out, const char **ret_why)
{
    (void)user;
    (void)ret_why;
    return view_ledger(store, client->gateway, out);
}

static int write_days_from_store(struct store *store, const struct client *client, void *user,
                                 struct buffer *out, const char **ret_why)
{
    (void)user;
    (void)ret_why;
    return view_ledger_days(store, client->gateway, out);
}

static bool days_add_up(const json_t *days)
{
    size_t i;
    const json_t *day;
    json_array_foreach(days, i, day)
    {
        if (!json_is_true(json_object_get(day, "adds_up")) ||
            !all_add_up(json_object_get(day, "uplinks"))) {
            return false;
        }
    }
    return true;
}

static int run_days(const struct command *command, const struct cli *cli)
{
    int status;
    json_t *answer = offline_ask(command, cli, "/v1/ledger/days", write_days_from_store, NULL,
                                 &status);
    if (answer == NULL) {
        return status;
    }
    const json_t *days = json_object_get(answer, "days");
    status = days_add_up(days) ? COMMAND_GOOD : COMMAND_NOT_WELL;
    if (cli->json) {
        answer_print(json_incref(answer));
    } else {
        print_heading(answer);
        show_days(answer);
        const json_t *last = json_array_get(days, json_array_size(days) - 1), *uplink;
        size_t i;
        json_array_foreach(json_object_get(last, "uplinks"), i, uplink)
        {
            if (cli->count == 0 || strcmp(cli->words[0], answer_text(uplink, "name")) == 0) {
                show_days_of(answer, answer_text(uplink, "name"));
            }
        }
    }
    json_decref(answer);
    return status;
}

static int run_ledger(int argc, char **argv);

const struct command command_ledger = {
    .name = "ledger",
    .arguments = "[--days] [UPLINK]",
    .summary = "the counts that must add up; works with the daemon stopped",
    .help = "  --days          what each UTC day added, as far back as the store has events\n"
            "  With the name of an uplink: what became of each device's readings there.\n"
            "  Exit 1 when a line does not add up.\n",
    .run = run_ledger,
};

static int run_ledger(int argc, char **argv)
{
    struct cli cli;
    bool days = false;
    const struct cli_option own[] = {{.name = "--days", .flag = &days}};
    int r = cli_parse(&command_ledger, argc, argv, own, ARRAY_SIZE(own), 0, 1, &cli);
    if (r != CLI_GO || days) {
        return r != CLI_GO ? r : run_days(&command_ledger, &cli);
    }
    int status;
    json_t *answer = offline_ask(&command_ledger, &cli, "/v1/ledger", write_from_store, NULL,
                                 &status);
    if (answer == NULL) {
        return status;
    }
    bool fine = json_is_true(json_object_get(json_object_get(answer, "total"), "adds_up")) &&
                all_add_up(json_object_get(answer, "devices")) &&
                all_add_up(json_object_get(answer, "uplinks"));
    status = fine ? COMMAND_GOOD : COMMAND_NOT_WELL;
    if (cli.json) {
        answer_print(json_incref(answer));
    } else if (cli.count > 0) {
        int shown = show_uplink(answer, cli.words[0]);
        status = shown != COMMAND_GOOD ? shown : status;
    } else {
        show(answer);
    }
    json_decref(answer);
    return status;
}
