#include "gateway/store/store.h"

#include "gateway/base/clock.h"
#include "gateway/cli/offline.h"
#include "gateway/cli/text.h"
#include "gateway/store/salvage.h"
#include "gateway/store/verify.h"

#include <inttypes.h>
#include <string.h>

static int run_store(int argc, char **argv);

const struct command command_store = {
    .name = "store",
    .arguments = "stat|verify",
    .summary = "the local store: its size and content, or every block checked",
    .help = "  stat            size, what waits, what it holds\n"
            "  verify          reads every block and checks it; exit 1 when one is damaged;\n"
            "                  then what was set aside as damaged before\n"
            "  Both read only, with the daemon running or not.\n",
    .run = run_store,
};

static void line(const char *title, struct buffer *b)
{
    printf("%s%-12s%s%s\n", tone_code(TONE_DIM), title, tone_code(TONE_PLAIN), buffer_text(b));
    buffer_clear(b);
}

static double written_a_reading(const struct store_stat *stat)
{
    return stat->readings == 0 ? 0 : (double)stat->written_bytes / (double)stat->readings;
}

/* An eMMC of 8 GB that bears 3,000 cycles, at the rate of the store's life so far; 0: unknown. */
static double flash_years(const struct store_stat *stat)
{
    const double life_bytes = 8e9 * 3000, year_ms = 365.25 * 86400e3;
    double age_ms = (double)(clock_wall_ms() - stat->made_ms);
    return stat->written_bytes == 0 || age_ms <= 0
               ? 0
               : life_bytes / ((double)stat->written_bytes / age_ms * year_ms);
}

static void show_rates(const struct store_stat *stat, struct buffer *b)
{
    if (stat->rest_bytes > 0) {
        buffer_printf(b, "%.2f bytes stored, %.2f written", stat->rest_bytes,
                      written_a_reading(stat));
        line("a reading", b);
    }
    if (flash_years(stat) > 0) {
        buffer_printf(b, "%.1f years of an 8 GB eMMC (3,000 cycles)", flash_years(stat));
        line("flash", b);
    }
    if (stat->seconds_left >= 0) {
        text_span(b, stat->seconds_left);
        buffer_add_text(b, " at the present rate");
        line("full in", b);
    }
}

static void show_salvage(struct store *store, struct buffer *b)
{
    struct store_salvage salvage;
    store_salvage(store, &salvage);
    if (salvage.state != SALVAGE_NONE) {
        text_salvage(b, salvage.from, salvage_state_name(salvage.state), salvage.readings,
                     salvage.bad, salvage.lost);
        line("salvage", b);
    }
}

static void show_verified(struct store *store, struct buffer *b)
{
    struct store_verified verified;
    store_verified(store, &verified);
    if (verified.time_ms != 0) {
        text_age(b, clock_wall_ms(), verified.time_ms);
        buffer_add_text(b, ": ");
        text_count(b, verified.blocks);
        buffer_add_text(b, " blocks, ");
        if (verified.bad > 0) {
            text_count(b, verified.bad);
        }
        buffer_add_text(b, verified.bad > 0 ? " of them damaged" : "all of them sound");
        line("verified", b);
    }
}

static json_t *salvage_json(struct store *store)
{
    struct store_salvage salvage;
    store_salvage(store, &salvage);
    return salvage.state == SALVAGE_NONE
               ? json_null()
               : json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "from", salvage.from, "state",
                           salvage_state_name(salvage.state), "readings",
                           (json_int_t)salvage.readings, "letters", (json_int_t)salvage.letters,
                           "lost", (json_int_t)salvage.lost, "blocks", (json_int_t)salvage.blocks,
                           "blocks_unreadable", (json_int_t)salvage.bad);
}

static int show_stat(const struct cli *cli, const struct client *client, struct store *store)
{
    struct store_stat stat;
    store_stat(store, &stat);
    if (cli->json) {
        answer_print(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o}", "id",
                               store_id(store), "dir", client->data_dir, "waiting",
                               (json_int_t)stat.waiting, "oldest_ms", (json_int_t)stat.oldest_ms,
                               "bytes", (json_int_t)stat.bytes, "blocks", (json_int_t)stat.blocks,
                               "bytes_a_reading", stat.rest_bytes, "written_a_reading",
                               written_a_reading(&stat), "flash_years", flash_years(&stat),
                               "salvage", salvage_json(store)));
        return COMMAND_GOOD;
    }
    auto_buffer struct buffer b = {0};
    buffer_printf(&b, "%s in %s", store_id(store), client->data_dir);
    line("store", &b);
    text_bytes(&b, stat.bytes);
    line("size", &b);
    text_count(&b, stat.blocks);
    line("blocks", &b);
    text_count(&b, stat.waiting);
    buffer_add_text(&b, " readings");
    if (stat.oldest_ms != 0) {
        buffer_add_text(&b, ", the oldest from ");
        text_age(&b, clock_wall_ms(), stat.oldest_ms);
    }
    line("waiting", &b);
    show_rates(&stat, &b);
    show_verified(store, &b);
    show_salvage(store, &b);
    return COMMAND_GOOD;
}

/* What was set aside, each folder by itself. It was damaged before: no verdict follows from it. */
static json_t *verify_aside(const struct cli *cli, const char *dir)
{
    json_t *list = json_array();
    char **folders = NULL;
    if (salvage_folders(dir, &folders) < 0) {
        return list;
    }
    for (size_t i = 0; folders[i] != NULL; i++) {
        uint64_t blocks = 0, bad = 0;
        int r = salvage_inspect(dir, folders[i], &blocks, &bad);
        json_array_append_new(list, json_pack("{s:s, s:b, s:I, s:I}", "folder", folders[i],
                                              "readable", r == 0, "blocks", (json_int_t)blocks,
                                              "bad", (json_int_t)bad));
        if (!cli->json && r < 0) {
            printf("%s, set aside: it does not read: %s\n", folders[i], strerror(-r));
        } else if (!cli->json) {
            printf("%s, set aside: %" PRIu64 " blocks, %" PRIu64 " of them damaged\n", folders[i],
                   blocks, bad);
        }
    }
    salvage_folders_free(folders);
    return list;
}

static int verify(const struct cli *cli, const char *dir, struct store *store)
{
    uint64_t blocks = 0, bad = 0;
    int r = store_verify(store, &blocks, &bad);
    if (r < 0) {
        fprintf(stderr, "windrow store: it does not read: %s\n", strerror(-r));
        return COMMAND_NOT_WELL;
    }
    if (!cli->json && bad == 0) {
        printf("%" PRIu64 " blocks, %sall of them sound%s\n", blocks, tone_code(TONE_GOOD),
               tone_code(TONE_PLAIN));
    } else if (!cli->json) {
        printf("%" PRIu64 " blocks, %s%" PRIu64 " of them damaged%s: their readings are lost, all "
               "others are not\n",
               blocks, tone_code(TONE_BAD), bad, tone_code(TONE_PLAIN));
    }
    json_t *aside = verify_aside(cli, dir);
    if (cli->json) {
        answer_print(json_pack("{s:I, s:I, s:O}", "blocks", (json_int_t)blocks, "bad",
                               (json_int_t)bad, "set_aside", aside));
    }
    json_decref(aside);
    return bad == 0 ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

static int run_store(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_store, argc, argv, NULL, 0, 1, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    bool stat = strcmp(cli.words[0], "stat") == 0;
    if (!stat && strcmp(cli.words[0], "verify") != 0) {
        return cli_usage_error(&command_store, "'%s' is neither stat nor verify", cli.words[0]);
    }
    struct client client;
    client_find(&cli, &client);
    struct store *store = offline_open(&command_store, &cli, &client);
    if (store == NULL) {
        return COMMAND_NOT_WELL;
    }
    int status = stat ? show_stat(&cli, &client, store) : verify(&cli, client.data_dir, store);
    store_close(store);
    return status;
}
