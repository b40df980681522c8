#include "uplink/file/file.h"

#include "uplink/verdict.h"

#include <errno.h>

#define KEY(field) offsetof(struct file_settings, field)

static const char *const format_choices[] = {"ndjson", "csv", NULL};
static const char *const compress_choices[] = {"none", "gzip", NULL};

static const struct config_key keys[] = {
    {
        .name = "path",
        .type = CONFIG_PATH,
        .offset = KEY(path),
        .required = true,
        .example = "/media/usb/readings.ndjson",
        .help = "the file that is appended to; its directory must exist",
    },
    {
        .name = "format",
        .type = CONFIG_CHOICE,
        .offset = KEY(format),
        .fallback = "ndjson",
        .choices = format_choices,
        .help = "one JSON object a scan and line, or one row a reading",
    },
    {
        .name = "rotate_size",
        .type = CONFIG_SIZE,
        .offset = KEY(rotate_size),
        .fallback = "64 MiB",
        .min = 4096,
        .max = 1e13,
        .help = "a file of this size gets a name with the time, and a new one begins",
    },
    {
        .name = "rotate_interval",
        .type = CONFIG_DURATION,
        .offset = KEY(rotate_interval_ms),
        .fallback = "1 d",
        .min = 1000,
        .max = 366 * 86400000.0,
        .help = "the same after this time",
    },
    {
        .name = "compress",
        .type = CONFIG_CHOICE,
        .offset = KEY(compress),
        .fallback = "none",
        .choices = compress_choices,
        .help = "compression of files that were rotated",
    },
    {
        .name = "keep_files",
        .type = CONFIG_INT,
        .offset = KEY(keep_files),
        .min = 1,
        .max = 1e6,
        .example = "100",
        .help = "rotated files beyond this number are removed, the oldest first; default: no limit",
    },
    {
        .name = "max_total",
        .type = CONFIG_SIZE,
        .offset = KEY(max_total),
        .min = 4096,
        .max = 1e15,
        .example = "8 GiB",
        .help = "the same for their bytes; default: no limit",
    },
    {
        .name = "min_free",
        .type = CONFIG_SIZE,
        .offset = KEY(min_free),
        .fallback = "64 MiB",
        .min = 0,
        .max = 1e15,
        .help = "nothing is written while the file system has less room than this",
    },
};

static void check(const void *settings, struct config_errors *errors)
{
    const struct file_settings *s = settings;
    size_t len = s->path != NULL ? strlen(s->path) : 0;
    if (len > 0 && s->path[len - 1] == '/') {
        config_complain(errors, "path", "is a directory; a file's name is wanted");
    }
    if (s->keep_files != 0 || s->max_total != 0) {
        config_warn(errors, s->keep_files != 0 ? "keep_files" : "max_total",
                    "files are removed whether somebody has fetched them or not");
    }
}

static const struct config_table table = {
    .section = "uplink",
    .variant = "file",
    .size = sizeof(struct file_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    const struct file_settings *s = settings;
    request->body.max = FILE_REQUEST_MAX;
    buffer_clear(&request->body);
    int r = s->format == FILE_CSV ? file_encode_csv(batch, &request->body)
                                  : file_encode_ndjson(batch, &request->body);
    if (r < 0) {
        return r;
    }
    return buffer_failed(&request->body) || request->body.len > FILE_REQUEST_MAX ? -E2BIG : 0;
}

/* A file takes whatever it has room for: there is success, and there is later. */
static void judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                  struct uplink_verdict *ret_verdict)
{
    (void)settings;
    if (verdict_by_status(reply, ret_verdict) == VERDICT_SUCCESS) {
        verdict_delivered(ret_verdict, batch);
    }
}

const struct uplink uplink_file = {
    .name = "file",
    .table = &table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = FILE_REQUEST_MAX,
    .encode = encode,
    .judge = judge,
    .transport = &transport_file,
    .probe = &file_probe,
};
