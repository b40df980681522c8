#include "gateway/store/dead.h"

#include "gateway/api/amend.h"
#include "gateway/base/clock.h"
#include "gateway/cli/dead_export.h"
#include "gateway/cli/offline.h"
#include "gateway/cli/text.h"
#include "gateway/cli/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int run_dead(int argc, char **argv);

const struct command command_dead = {
    .name = "dead",
    .arguments = "[UPLINK | export UPLINK | requeue UPLINK | drop UPLINK]",
    .summary = "readings that an endpoint refused for good, and why",
    .help = "  export          the readings themselves, as lines\n"
            "  requeue         they wait again and are sent once more, as the same readings\n"
            "  drop            forgets them; the ledger still counts them as refused\n"
            "  --device D      only of this device\n"
            "  --reason TEXT   only where the reason contains this\n"
            "  --limit N       rows of the list, the newest ones (20)\n"
            "  --out FILE      of export; otherwise stdout\n"
            "  --format F      of export: ndjson or csv (ndjson)\n"
            "  List and export work with the daemon stopped. Exit 1 when there are any.\n",
    .run = run_dead,
};

enum { LIMIT = 20, REASONS_MAX = 64, WHY_MAX = 200 };

/* What is counted together: an uplink and a reason. */
struct reason {
    char uplink[64], why[WHY_MAX];
    uint64_t scans, readings;
    int64_t first_ms, last_ms;
};

struct row {
    int64_t time_ms, refused_ms;
    uint64_t seq;
    unsigned refused;
    char device[128], uplink[64], why[WHY_MAX], points[96];
};

struct listing {
    struct store *store;
    struct store_letter_filter filter;
    struct reason reasons[REASONS_MAX];
    size_t reason_count;
    uint64_t scans, readings;
    struct row *rows; /* a ring of the newest `limit` */
    size_t limit;
    json_t *letters; /* for --json */
};

static struct reason *reason_of(struct listing *l, const struct store_letter *letter)
{
    size_t i = 0;
    while (i < l->reason_count && (strcmp(l->reasons[i].uplink, letter->uplink) != 0 ||
                                   strncmp(l->reasons[i].why, letter->why, WHY_MAX - 1) != 0)) {
        i++;
    }
    if (i == REASONS_MAX) {
        snprintf(l->reasons[i - 1].why, WHY_MAX, "other reasons");
        return &l->reasons[i - 1];
    }
    if (i == l->reason_count) {
        l->reason_count++;
        l->reasons[i] = (struct reason){.first_ms = letter->scan->time_ms,
                                        .last_ms = letter->scan->time_ms};
        snprintf(l->reasons[i].uplink, sizeof l->reasons[i].uplink, "%s", letter->uplink);
        snprintf(l->reasons[i].why, WHY_MAX, "%s", letter->why);
    }
    return &l->reasons[i];
}

static const char *name_of(struct store *store, const struct store_letter *letter, uint16_t i)
{
    const struct store_names *names = store_names(store, letter->scan->device);
    uint16_t point = letter->scan->readings[letter->refused[i]].point;
    return names != NULL && point < names->point_count && names->points[point].name != NULL
               ? names->points[point].name
               : "?";
}

static const char *device_of(struct store *store, const struct store_letter *letter)
{
    const struct store_names *names = store_names(store, letter->scan->device);
    return names != NULL ? names->device : "?";
}

static void keep_row(struct listing *l, const struct store_letter *letter)
{
    enum { SHOWN = 3 };
    if (l->limit == 0) {
        return;
    }
    struct row *row = &l->rows[(l->scans - 1) % l->limit];
    *row = (struct row){.time_ms = letter->scan->time_ms,
                        .refused_ms = letter->refused_ms,
                        .seq = letter->scan->seq,
                        .refused = letter->refused_count};
    snprintf(row->device, sizeof row->device, "%s", device_of(l->store, letter));
    snprintf(row->uplink, sizeof row->uplink, "%s", letter->uplink);
    snprintf(row->why, sizeof row->why, "%s", letter->why);
    size_t n = 0;
    for (uint16_t i = 0; i < letter->refused_count && i <= SHOWN && n < sizeof row->points; i++) {
        n += (size_t)snprintf(row->points + n, sizeof row->points - n, "%s%.24s", i > 0 ? " " : "",
                              i < SHOWN ? name_of(l->store, letter, i) : "...");
    }
}

static json_t *letter_json(struct store *store, const struct store_letter *letter)
{
    char time[CLOCK_TEXT_SIZE], refused[CLOCK_TEXT_SIZE];
    clock_format_utc(letter->scan->time_ms, time);
    clock_format_utc(letter->refused_ms, refused);
    json_t *points = json_array();
    for (uint16_t i = 0; i < letter->refused_count; i++) {
        json_array_append_new(points, json_string(name_of(store, letter, i)));
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:o}", "uplink", letter->uplink, "device",
                     device_of(store, letter), "stream",
                     stream_name((enum stream)letter->scan->stream), "seq",
                     (json_int_t)letter->scan->seq, "time", time, "refused", refused, "reason",
                     letter->why, "points", points);
}

static int on_letter(void *user, const struct store_letter *letter)
{
    struct listing *l = user;
    if (!store_letter_fits(l->store, &l->filter, letter)) {
        return 0;
    }
    struct reason *reason = reason_of(l, letter);
    l->scans++;
    l->readings += letter->refused_count;
    reason->scans++;
    reason->readings += letter->refused_count;
    /* Letters out of a salvaged store come in the order of its blocks. */
    int64_t time_ms = letter->scan->time_ms;
    reason->first_ms = time_ms < reason->first_ms ? time_ms : reason->first_ms;
    reason->last_ms = time_ms > reason->last_ms ? time_ms : reason->last_ms;
    if (l->letters != NULL) {
        json_array_append_new(l->letters, letter_json(l->store, letter));
    } else {
        keep_row(l, letter);
    }
    return 0;
}

static void print_json(struct listing *l)
{
    json_t *reasons = json_array();
    for (size_t i = 0; i < l->reason_count; i++) {
        const struct reason *r = &l->reasons[i];
        char first[CLOCK_TEXT_SIZE], last[CLOCK_TEXT_SIZE];
        clock_format_utc(r->first_ms, first);
        clock_format_utc(r->last_ms, last);
        json_array_append_new(reasons,
                              json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "uplink", r->uplink,
                                        "reason", r->why, "scans", (json_int_t)r->scans, "readings",
                                        (json_int_t)r->readings, "first", first, "last", last));
    }
    answer_print(json_pack("{s:I, s:I, s:o, s:o}", "scans", (json_int_t)l->scans, "readings",
                           (json_int_t)l->readings, "reasons", reasons, "letters",
                           json_incref(l->letters)));
}

static void clean_cell(struct table *table, const char *text)
{
    auto_buffer struct buffer b = {0};
    text_clean(&b, text);
    table_cell_take(table, TONE_PLAIN, &b);
}

static void print_reasons(const struct listing *l, int64_t now_ms)
{
    auto_table struct table table;
    table_begin(&table, "UPLINK|>READINGS|>SCANS|OLDEST|NEWEST|REASON");
    for (size_t i = 0; i < l->reason_count; i++) {
        const struct reason *r = &l->reasons[i];
        auto_buffer struct buffer b = {0};
        clean_cell(&table, r->uplink);
        text_count(&b, r->readings);
        table_cell_take(&table, TONE_BAD, &b);
        text_count(&b, r->scans);
        table_cell_take(&table, TONE_PLAIN, &b);
        text_age(&b, now_ms, r->first_ms);
        table_cell_take(&table, TONE_PLAIN, &b);
        text_age(&b, now_ms, r->last_ms);
        table_cell_take(&table, TONE_PLAIN, &b);
        clean_cell(&table, r->why);
    }
    table_print(&table, stdout);
}

static void print_rows(const struct listing *l)
{
    uint64_t shown = l->scans < l->limit ? l->scans : l->limit;
    if (shown == 0) {
        return;
    }
    if (shown < l->scans) {
        printf("\nThe newest %" PRIu64 " of %" PRIu64 " (--limit):\n", shown, l->scans);
    } else {
        putchar('\n');
    }
    auto_table struct table table;
    table_begin(&table, "TIME|UPLINK|DEVICE|>SEQ|>READINGS|POINTS|REASON");
    for (uint64_t i = l->scans - shown; i < l->scans; i++) {
        const struct row *row = &l->rows[i % l->limit];
        char time[CLOCK_TEXT_SIZE];
        clock_format_utc(row->time_ms, time);
        table_cell(&table, TONE_PLAIN, "%.10s %.8s", time, time + 11);
        clean_cell(&table, row->uplink);
        clean_cell(&table, row->device);
        table_cell(&table, TONE_PLAIN, "%" PRIu64, row->seq);
        table_cell(&table, TONE_PLAIN, "%u", row->refused);
        clean_cell(&table, row->points);
        clean_cell(&table, row->why);
    }
    table_print(&table, stdout);
}

static int list(const struct cli *cli, struct store *store,
                const struct store_letter_filter *filter, size_t limit)
{
    struct listing *l = calloc(1, sizeof *l);
    auto_free struct row *rows = calloc(limit + 1, sizeof *rows);
    if (l == NULL || rows == NULL) {
        free(l);
        return COMMAND_NOT_WELL;
    }
    *l = (struct listing){.store = store,
                          .filter = *filter,
                          .rows = rows,
                          .limit = limit,
                          .letters = cli->json ? json_array() : NULL};
    int r = store_letters(store, on_letter, l);
    if (r < 0) {
        fprintf(stderr, "windrow dead: the store does not read: %s\n", strerror(-r));
    } else if (cli->json) {
        print_json(l);
    } else if (l->scans == 0) {
        puts("No dead letters: nothing was refused for good.");
    } else {
        print_reasons(l, clock_wall_ms());
        print_rows(l);
    }
    bool none = r == 0 && l->scans == 0;
    json_decref(l->letters);
    free(l);
    return none ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

static int say_done(const struct cli *cli, bool drops, uint64_t scans, uint64_t readings,
                    uint64_t refused)
{
    if (cli->json) {
        answer_print(json_pack("{s:I, s:I, s:I}", "scans", (json_int_t)scans, "readings",
                               (json_int_t)readings, "refused", (json_int_t)refused));
    } else {
        printf("%" PRIu64 " scans with %" PRIu64 " readings %s\n", scans, readings,
               drops ? "are forgotten; the ledger goes on counting them as refused"
                     : "wait again and will be sent");
        if (refused > 0) {
            printf("%" PRIu64 " scans stay dead letters: try again later\n", refused);
        }
    }
    return refused == 0 ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

/* With the daemon by its socket, without it as the store's writer. */
static int change(const struct cli *cli, const struct store_letter_filter *filter, bool drops)
{
    struct client client;
    json_t *answer = NULL;
    client_find(cli, &client);
    json_t *body = json_pack("{s:s, s:s*, s:s*}", "uplink", filter->uplink, "device",
                             filter->device, "reason", filter->reason);
    int r = client_ask(&client, drops ? "/v1/dead/drop" : "/v1/dead/requeue", body, &answer);
    json_decref(body);
    if (r == 0) {
        int status = say_done(cli, drops, (uint64_t)answer_int(answer, "scans"),
                              (uint64_t)answer_int(answer, "readings"),
                              (uint64_t)answer_int(answer, "refused"));
        json_decref(answer);
        return status;
    }
    if (!client_is_down(r)) {
        return client_complain(&command_dead, cli, &client, r, answer);
    }
    struct store *store = writer_open(&command_dead, cli);
    if (store == NULL) {
        return COMMAND_NOT_WELL;
    }
    struct amend_letters letters = {.device = ""};
    struct store_requeued total = {0};
    snprintf(letters.uplink, sizeof letters.uplink, "%s", filter->uplink);
    snprintf(letters.device, sizeof letters.device, "%s",
             filter->device != NULL ? filter->device : "");
    snprintf(letters.reason, sizeof letters.reason, "%s",
             filter->reason != NULL ? filter->reason : "");
    r = amend_letters_all(store, NULL, &letters, drops, &total);
    store_close(store);
    if (r < 0) {
        fprintf(stderr, "windrow dead: %s\n",
                r == -ENOENT ? "the store knows no such uplink" : strerror(-r));
        return COMMAND_NOT_WELL;
    }
    return say_done(cli, drops, total.scans, total.readings, total.refused);
}

struct options {
    struct store_letter_filter filter;
    const char *limit, *out, *format;
};

static int read_stored(const struct cli *cli, const struct options *options, bool exports,
                       size_t limit)
{
    struct client client;
    client_find(cli, &client);
    struct store *store = offline_open(&command_dead, cli, &client);
    if (store == NULL) {
        return COMMAND_NOT_WELL;
    }
    int status = exports ? dead_export(cli, store, client.gateway, &options->filter, options->out,
                                       options->format)
                         : list(cli, store, &options->filter, limit);
    store_close(store);
    return status;
}

static int act(const struct cli *cli, struct options *options)
{
    static const char *const verbs[] = {"export", "requeue", "drop"};
    size_t verb = 0;
    char *end = NULL;
    unsigned long limit = LIMIT;
    while (cli->count > 0 && verb < ARRAY_SIZE(verbs) && strcmp(cli->words[0], verbs[verb]) != 0) {
        verb++;
    }
    bool lists = cli->count == 0 || verb == ARRAY_SIZE(verbs);
    if (lists ? cli->count > 1 : cli->count < 2) {
        return cli_usage_error(
            &command_dead, lists ? "'%s' is none of export, requeue, drop" : "%s: which uplink?",
            cli->words[0]);
    }
    options->filter.uplink = lists ? (cli->count > 0 ? cli->words[0] : NULL) : cli->words[1];
    if (options->limit != NULL) {
        limit = strtoul(options->limit, &end, 10);
        if (end == options->limit || *end != '\0' || limit > 100000) {
            return cli_usage_error(&command_dead, "--limit is a number up to 100000");
        }
    }
    return lists || verb == 0 ? read_stored(cli, options, !lists, limit)
                              : change(cli, &options->filter, verb == 2);
}

static int run_dead(int argc, char **argv)
{
    struct options options = {.filter = {.uplink = NULL}};
    const struct cli_option own[] = {
        {.name = "--device", .value = &options.filter.device},
        {.name = "--reason", .value = &options.filter.reason},
        {.name = "--limit", .value = &options.limit},
        {.name = "--out", .value = &options.out},
        {.name = "--format", .value = &options.format},
    };
    struct cli cli;
    int r = cli_parse(&command_dead, argc, argv, own, ARRAY_SIZE(own), 0, 2, &cli);
    return r != CLI_GO ? r : act(&cli, &options);
}
