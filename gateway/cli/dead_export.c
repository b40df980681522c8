#include "gateway/cli/dead_export.h"

#include "gateway/base/clock.h"
#include "gateway/cli/client.h"
#include "gateway/cli/outfile.h"
#include "gateway/cli/text.h"
#include "uplink/file/file.h"
#include "uplink/record.h"

#include <inttypes.h>
#include <string.h>

struct exporting {
    struct store *store;
    const struct store_letter_filter *filter;
    const char *gateway;
    struct outfile *out;
    bool csv;
    struct record_writer writer;
    struct buffer lines, head;
    uint64_t scans, readings;
};

static void add_reason(struct exporting *e, const struct store_letter *letter)
{
    char refused[CLOCK_TEXT_SIZE];
    clock_format_utc(letter->refused_ms, refused);
    buffer_printf(&e->head, "\"refused\":\"%s\",\"uplink\":", refused);
    json_write_string(&e->head, letter->uplink, strlen(letter->uplink));
    buffer_add_text(&e->head, ",\"reason\":");
    json_write_string(&e->head, letter->why, strlen(letter->why));
    buffer_add_text(&e->head, ",");
}

/* A field in quotes (RFC 4180). */
static void add_csv(struct buffer *out, const char *text)
{
    buffer_add_byte(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            buffer_add_byte(out, '"');
        }
        buffer_add_byte(out, (unsigned char)*text < ' ' ? ' ' : (uint8_t)*text);
    }
    buffer_add_byte(out, '"');
}

/* The rows of the reading lines, each with three fields more. */
static void extend_rows(struct exporting *e, const struct store_letter *letter)
{
    char refused[CLOCK_TEXT_SIZE];
    clock_format_utc(letter->refused_ms, refused);
    for (size_t at = 0; at < e->head.len;) {
        const uint8_t *line = e->head.data + at;
        const uint8_t *end = memchr(line, '\n', e->head.len - at);
        size_t len = end != NULL ? (size_t)(end - line) : e->head.len - at;
        buffer_add(&e->lines, line, len);
        buffer_printf(&e->lines, ",%s,", refused);
        add_csv(&e->lines, letter->uplink);
        buffer_add_text(&e->lines, ",");
        add_csv(&e->lines, letter->why);
        buffer_add_text(&e->lines, "\n");
        at += len + 1;
    }
}

static int on_letter(void *user, const struct store_letter *letter)
{
    struct exporting *e = user;
    if (!store_letter_fits(e->store, e->filter, letter)) {
        return 0;
    }
    const struct batch_record record = {.scan = letter->scan,
                                        .names = store_names(e->store, letter->scan->device),
                                        .selected = letter->refused,
                                        .selected_count = letter->refused_count};
    const struct batch batch = {.gateway = e->gateway,
                                .store_id = store_id(e->store),
                                .stream = (enum stream)letter->scan->stream,
                                .records = &record,
                                .count = 1};
    buffer_clear(&e->head);
    buffer_clear(&e->lines);
    int r = record.names == NULL ? -EBADMSG : 0;
    if (r == 0 && e->csv) {
        r = file_encode_csv(&batch, &e->head);
        extend_rows(e, letter);
    } else if (r == 0) {
        record_write_origin(&e->head, &batch);
        add_reason(e, letter);
        r = record_write(&e->lines, &e->writer, (const char *)e->head.data, e->head.len, &record);
        buffer_add_text(&e->lines, "\n");
    }
    if (r == 0 && (buffer_failed(&e->head) || buffer_failed(&e->lines))) {
        r = -ENOMEM;
    }
    e->scans++;
    e->readings += letter->refused_count;
    return r < 0 ? r : outfile_write(e->out, e->lines.data, e->lines.len);
}

static int write_all(struct exporting *e)
{
    static const char more[] = ",refused,uplink,reason\n";
    int r = 0;
    if (e->csv) {
        r = outfile_write(e->out, file_csv_header, strlen(file_csv_header) - 1);
        r = r < 0 ? r : outfile_write(e->out, more, strlen(more));
    }
    return r < 0 ? r : store_letters(e->store, on_letter, e);
}

int dead_export(const struct cli *cli, struct store *store, const char *gateway,
                const struct store_letter_filter *filter, const char *out, const char *format)
{
    bool csv = format != NULL && strcmp(format, "csv") == 0;
    if (format != NULL && !csv && strcmp(format, "ndjson") != 0) {
        fprintf(stderr, "windrow dead: --format is ndjson or csv\n");
        return COMMAND_USAGE;
    }
    struct exporting e = {.store = store,
                          .filter = filter,
                          .gateway = gateway,
                          .out = outfile_open("dead", out),
                          .csv = csv};
    char sum[65];
    if (e.out == NULL) {
        return COMMAND_NOT_WELL;
    }
    int r = write_all(&e);
    if (r < 0) {
        fprintf(stderr, "windrow dead: %s\n", strerror(-r));
        outfile_abandon(e.out);
    } else {
        r = outfile_finish(e.out, true, sum);
    }
    record_writer_finish(&e.writer);
    buffer_finish(&e.lines);
    buffer_finish(&e.head);
    if (r == 0 && out != NULL && cli->json) {
        answer_print(json_pack("{s:s, s:I, s:I, s:s}", "file", out, "scans", (json_int_t)e.scans,
                               "readings", (json_int_t)e.readings, "sha256", sum));
    } else if (r == 0 && out != NULL) {
        printf("%s: %" PRIu64 " readings of %" PRIu64 " scans; sum in %s.sha256\n", out, e.readings,
               e.scans, out);
    }
    return r == 0 ? COMMAND_GOOD : COMMAND_NOT_WELL;
}
