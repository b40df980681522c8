#include "gateway/writes/writes.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/durable.h"
#include "gateway/store/salvage.h"
#include "gateway/store/store_clock.h"
#include "gateway/writes/write_answer.h"
#include "gateway/writes/write_memory.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>

struct writes {
    struct store *store;
    struct pipeline *pipeline;
    struct writes_host host;
    pthread_mutex_t lock; /* over what follows, short */
    struct write_memory memory;
    size_t open;
};

/* A command on its way. */
struct job {
    struct writes *writes;
    struct write_record record;
    uint64_t number, replaced; /* in the store; replaced: the word that this one takes over, or 0 */
    struct device *device;     /* a reference */
    size_t point;
    int64_t deadline_ms;
    void (*done)(void *arg, int status, struct buffer *body);
    void *arg;
};

static void job_free(struct job *job)
{
    device_unref(job->device);
    free(job);
}

/* --- the end --- */

static void tell(struct job *job)
{
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, job->record.body);
    job->done(job->arg, job->record.status, &body);
    job_free(job);
}

/* Takes the job out of what is open: its outcome is remembered, or nothing is. */
static void close_job(struct job *job, bool remember)
{
    struct writes *writes = job->writes;
    pthread_mutex_lock(&writes->lock);
    const struct write_entry *entry = write_memory_number(&writes->memory, job->number);
    if (entry != NULL && remember) {
        *entry->record = job->record;
    } else {
        write_memory_forget(&writes->memory, job->number);
    }
    writes->open--;
    pthread_mutex_unlock(&writes->lock);
    tell(job);
}

/* [pipeline thread] */
static void on_outcome_durable(void *user, int error)
{
    struct job *job = user;
    if (error < 0) {
        log_error("write %s: its outcome could not be recorded: %s", job->record.id,
                  strerrordesc_np(-error));
    }
    close_job(job, job->record.chosen);
}

static int record_with(struct writes *writes, struct device *device, const char *kind,
                       const char *text, uint64_t number, const struct write_record *record,
                       void (*durable)(void *user, int error), void *user)
{
    auto_buffer struct buffer bytes = {0};
    if (record != NULL) {
        write_record_encode(record, &bytes);
    }
    if (buffer_failed(&bytes)) {
        return -ENOMEM;
    }
    const struct durable_event wanted = {
        .kind = kind, .text = text, .number = number, .bytes = bytes.data, .len = bytes.len};
    return durable_submit(writes->pipeline, device, &wanted, durable, user);
}

/* The outcome stands in job->record: into the event stream and the store, then to who asked. */
static void conclude(struct job *job, const struct write_outcome *outcome)
{
    auto_buffer struct buffer text = {0};
    write_answer_fill(&job->record, outcome);
    write_answer_event(&job->record, outcome, &text);
    const char *words = buffer_text(&text);
    log_line(outcome->kind == WRITE_DONE ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "%s: %s",
             write_answer_kind(outcome->kind), words != NULL ? words : job->record.id);
    /* An id that nobody chose cannot come again: its record goes. */
    int r = record_with(job->writes, job->device, write_answer_kind(outcome->kind),
                        words != NULL ? words : "{}", job->number,
                        job->record.chosen ? &job->record : NULL, on_outcome_durable, job);
    if (r < 0) {
        on_outcome_durable(job, r);
    }
}

/* --- execution --- */

static const char *text_of(const json_t *result, const char *key)
{
    return json_string_value(json_object_get(result, key));
}

/* [field thread] */
static void on_device(void *arg, int error, const char *why, json_t *result)
{
    struct job *job = arg;
    struct write_outcome outcome = {.kind = WRITE_FAILED, .why = why, .error = error};
    if (error == 0) {
        const char *word = text_of(result, "outcome");
        word = word != NULL ? word : "";
        outcome = (struct write_outcome){
            .kind = strcmp(word, "done") == 0     ? WRITE_DONE
                    : strcmp(word, "failed") == 0 ? WRITE_FAILED
                                                  : WRITE_UNKNOWN,
            .why = text_of(result, "why"),
            .sent = true,
            .old = text_of(result, "old"),
            .written = text_of(result, "written"),
            .read_back = text_of(result, "read_back"),
        };
    }
    conclude(job, &outcome);
    json_decref(result);
}

static void fail(struct job *job, int error, const char *why)
{
    const struct write_outcome outcome = {.kind = WRITE_FAILED, .why = why, .error = error};
    conclude(job, &outcome);
}

/* The intent was not stored, so there is nothing to report but to who asked. */
static void give_back(struct job *job, int error)
{
    char message[120];
    snprintf(message, sizeof message, "the intent could not be stored (%s): nothing was written",
             strerrordesc_np(-error));
    write_answer_refuse(&job->record, 503, "not_stored", message);
    close_job(job, false);
}

static void ignore(void *user, int error)
{
    (void)user;
    (void)error;
}

/* [pipeline thread] From here on the command may be executed. */
static void on_intent_durable(void *user, int error)
{
    struct job *job = user;
    struct writes *writes = job->writes;
    if (error < 0) {
        /* The record may have got in where the event did not. */
        (void)!record_with(writes, NULL, "", "", job->number, NULL, ignore, NULL);
        give_back(job, error);
        return;
    }
    if (job->replaced > 0) {
        pthread_mutex_lock(&writes->lock);
        write_memory_forget(&writes->memory, job->replaced);
        pthread_mutex_unlock(&writes->lock);
        (void)!record_with(writes, NULL, "", "", job->replaced, NULL, ignore, NULL);
    }
    if (clock_mono_ms() > job->deadline_ms) {
        fail(job, -ETIMEDOUT, "the deadline passed before anything was written");
        return;
    }
    int r = writes->host.ask_device(writes->host.user, job->record.device, &job->point, 1,
                                    job->record.value, job->deadline_ms, on_device, job);
    if (r < 0) {
        fail(job, r,
             r == -ENOSYS  ? "the device's driver cannot write"
             : r == -EBUSY ? "too many requests are under way"
                           : strerrordesc_np(-r));
    }
}

/* --- a command comes --- */

struct refusal {
    int status;
    const char *code;
    char message[200];
    int64_t wait_ms;
};

static bool refuse(struct refusal *refusal, int status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static bool refuse(struct refusal *refusal, int status, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(refusal->message, sizeof refusal->message, format, args);
    va_end(args);
    refusal->status = status;
    refusal->code = code;
    return false;
}

static bool check_value(const struct config_point *point, const char *text, struct refusal *refusal)
{
    struct decimal value;
    if (decimal_parse(text, &value) < 0) {
        return refuse(refusal, 422, "not_a_number", "'%.40s' is no number", text);
    }
    double number = decimal_nearest(value);
    if (!(number >= point->write_min && number <= point->write_max)) {
        return refuse(refusal, 422, "out_of_range", "%s may be %.10g to %.10g", point->name,
                      point->write_min, point->write_max);
    }
    return true;
}

static bool find_point(struct job *job, struct refusal *refusal)
{
    const struct config_points *points = &job->device->config->points;
    while (job->point < points->count &&
           strcmp(points->list[job->point].name, job->record.point) != 0) {
        job->point++;
    }
    if (job->point == points->count) {
        return refuse(refusal, 404, "no_such_point", "'%s' has no point '%s'", job->record.device,
                      job->record.point);
    }
    const struct config_point *point = &points->list[job->point];
    if (!point->writable) {
        return refuse(refusal, 403, "not_writable",
                      "'%s.%s' may not be written: its line has no `writable MIN MAX`",
                      job->record.device, point->name);
    }
    return check_value(point, job->record.value, refusal);
}

static bool check_device(struct job *job, const struct config *config, struct refusal *refusal)
{
    struct writes_host *host = &job->writes->host;
    if (!config->gateway->allow_writes) {
        return refuse(refusal, 403, "off", "nothing may be written: [gateway] allow_writes is no");
    }
    job->device = host->find_device(host->user, job->record.device);
    if (job->device == NULL) {
        return refuse(refusal, 404, "no_such_device", "there is no device '%s'",
                      job->record.device);
    }
    if (!find_point(job, refusal)) {
        return false;
    }
    if (atomic_load_explicit(&job->device->health.state, memory_order_relaxed) == DEVICE_DEAD) {
        return refuse(refusal, 503, "dead", "'%s' does not answer at present", job->record.device);
    }
    return true;
}

/* Under the lock: a number for it, unless it comes too soon or too many are open. */
static bool enter(struct job *job, const struct config *config, uint64_t *ret_forgotten,
                  struct refusal *refusal)
{
    struct writes *writes = job->writes;
    int64_t now_ms = clock_mono_ms();
    int64_t wait_ms = write_memory_wait_ms(&writes->memory, &job->record,
                                           config->gateway->write_interval_ms, now_ms);
    if (wait_ms > 0) {
        refusal->wait_ms = wait_ms;
        return refuse(refusal, 429, "too_soon", "'%s.%s' may be written again in %.1f s",
                      job->record.device, job->record.point, (double)wait_ms / 1000);
    }
    if (writes->open == WRITES_OPEN_MAX) {
        return refuse(refusal, 503, "busy", "%d writes are under way", WRITES_OPEN_MAX);
    }
    int r = write_memory_add(&writes->memory, &job->record, &job->number, ret_forgotten);
    if (r == 0 && write_memory_begin(&writes->memory, &job->record, now_ms) < 0) {
        write_memory_forget(&writes->memory, job->number);
        r = -ENOMEM;
    }
    if (r < 0) {
        return refuse(refusal, 503, "busy", "too many writes with an id of their own lately");
    }
    writes->open++;
    return true;
}

/* The last word on this point: is it this one again, a later one, or one still on its way? */
static bool answer_standing(struct job *job)
{
    const struct write_entry *entry = write_memory_standing(&job->writes->memory, &job->record);
    if (entry == NULL) {
        return false;
    }
    job->replaced = entry->number;
    bool again = strcmp(entry->record->id, job->record.id) == 0;
    if (again && entry->record->status != 0) {
        job->record = *entry->record;
    } else if (entry->record->status == 0) {
        write_answer_refuse(&job->record, 503, "under_way",
                            again ? "that command is under way"
                                  : "an earlier command for this point is under way");
    } else if (job->record.order < entry->record->order) {
        write_answer_refuse(&job->record, 409, "outdated", "a later command came before it");
    } else {
        return false;
    }
    return true;
}

/* Under the lock: a command that was here before is answered with what became of it. */
static bool answer_repeat(struct job *job)
{
    if (job->record.standing) {
        return answer_standing(job);
    }
    const struct write_entry *entry = job->record.chosen
                                          ? write_memory_find(&job->writes->memory, job->record.id)
                                          : NULL;
    if (entry == NULL) {
        return false;
    }
    if (!write_record_same(entry->record, &job->record)) {
        write_answer_refuse(&job->record, 409, "id_used", "that id was given to another command");
    } else if (entry->record->status == 0) {
        write_answer_refuse(&job->record, 409, "under_way", "that command is under way");
    } else {
        job->record = *entry->record;
    }
    return true;
}

static void begin(struct job *job, uint64_t forgotten)
{
    auto_buffer struct buffer text = {0};
    write_answer_intent(&job->record, &text);
    const char *words = buffer_text(&text);
    if (forgotten > 0) {
        (void)!record_with(job->writes, NULL, "", "", forgotten, NULL, ignore, NULL);
    }
    log_info("write-intent: %s", words != NULL ? words : job->record.id);
    int r = words == NULL ? -ENOMEM
                          : record_with(job->writes, job->device, "write-intent", words,
                                        job->number, &job->record, on_intent_durable, job);
    if (r < 0) {
        give_back(job, r);
    }
}

static bool copy(char *to, size_t max, const char *from)
{
    size_t len = strnlen(from, max + 1);
    if (len > max) {
        return false;
    }
    memcpy(to, from, len + 1);
    return true;
}

static bool take_command(struct job *job, const struct write_command *command,
                         struct refusal *refusal)
{
    struct write_record *record = &job->record;
    uint64_t random[2];
    record->chosen = command->id != NULL;
    record->standing = command->standing;
    record->afar = command->afar;
    record->order = command->order;
    record->time_ms = clock_wall_ms();
    if (command->id == NULL) {
        if (getrandom(random, sizeof random, 0) != sizeof random) {
            return refuse(refusal, 503, "busy", "no random number for an id");
        }
        snprintf(record->id, sizeof record->id, "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
    } else if (command->id[0] == '\0' || !copy(record->id, WRITE_ID_MAX, command->id)) {
        return refuse(refusal, 422, "bad_id", "an id has 1 to %d characters", WRITE_ID_MAX);
    }
    if (!copy(record->device, WRITE_NAME_MAX, command->device) ||
        !copy(record->point, WRITE_NAME_MAX, command->point) ||
        !copy(record->value, WRITE_VALUE_MAX, command->value) ||
        !copy(record->who, WRITE_NAME_MAX, command->who)) {
        return refuse(refusal, 422, "too_long", "a name or the value is too long");
    }
    return true;
}

/* A command that outlived its time is not executed; nor one whose time nobody can tell. */
static bool check_expiry(struct job *job, int64_t expires_ms, struct refusal *refusal)
{
    struct store_clock clock;
    store_clock(job->writes->store, &clock);
    if (expires_ms == 0) {
        return true;
    }
    if (!clock.vouched && !clock.sure) {
        return refuse(refusal, 503, "no_clock",
                      "the gateway's clock is not set yet: whether the command has expired cannot "
                      "be told");
    }
    int64_t left_ms = expires_ms - store_now_ms(job->writes->store);
    if (left_ms <= 0) {
        return refuse(refusal, 422, "expired", "the command had expired when it came");
    }
    int64_t until_ms = clock_mono_ms() + left_ms;
    job->deadline_ms = until_ms < job->deadline_ms ? until_ms : job->deadline_ms;
    return true;
}

/* A command that may have been executed before a damaged store was set aside, and no record says
 * whether: its id is a client's, and it was good then, or is without an end. False: answered. */
static bool check_doubt(struct job *job, int64_t expires_ms, struct refusal *refusal)
{
    int64_t doubt_ms = store_salvage_doubt_ms(job->writes->store);
    if (!job->record.chosen || doubt_ms == 0) {
        return true;
    }
    if (doubt_ms == SALVAGE_DOUBT_NEW) {
        return refuse(refusal, 503, "recovering",
                      "records of commands are being recovered from a damaged store: try again");
    }
    int64_t then_ms = expires_ms != 0 ? expires_ms : store_now_ms(job->writes->store);
    if (doubt_ms < SALVAGE_DOUBT_UNDATED && then_ms > doubt_ms + WRITES_KEPT_MS) {
        return true;
    }
    const struct write_outcome outcome = {
        .kind = WRITE_UNKNOWN,
        .why = "a damaged store was set aside, and records of commands with it: this one may have "
               "been executed before, and will not be executed again"};
    write_answer_fill(&job->record, &outcome);
    log_warning("write %s: not executed, it may have been before the store was set aside",
                job->record.id);
    return false;
}

static void answer_refusal(struct job *job, const struct refusal *refusal)
{
    if (refusal->code != NULL) { /* otherwise the answer stands in the record */
        write_answer_refuse(&job->record, refusal->status, refusal->code, refusal->message);
    }
    tell(job);
}

void writes_execute(struct writes *writes, const struct write_command *command,
                    void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        auto_buffer struct buffer none = {0};
        done(arg, 503, &none);
        return;
    }
    job->writes = writes;
    job->done = done;
    job->arg = arg;
    job->deadline_ms = clock_mono_ms() + command->timeout_ms;
    struct refusal refusal = {0};
    if (!take_command(job, command, &refusal)) {
        answer_refusal(job, &refusal);
        return;
    }
    const struct config *config = writes->host.config(writes->host.user);
    uint64_t forgotten = 0;
    pthread_mutex_lock(&writes->lock);
    bool repeat = answer_repeat(job);
    pthread_mutex_unlock(&writes->lock);
    bool good = repeat || (check_device(job, config, &refusal) &&
                           check_expiry(job, command->expires_ms, &refusal) &&
                           check_doubt(job, command->expires_ms, &refusal));
    pthread_mutex_lock(&writes->lock);
    if (good && !repeat) {
        /* Looked for again: the same id may have come in between. */
        repeat = answer_repeat(job);
        good = repeat || enter(job, config, &forgotten, &refusal);
    }
    pthread_mutex_unlock(&writes->lock);
    config_unref(config);
    if (repeat) {
        tell(job);
    } else if (!good) {
        answer_refusal(job, &refusal);
    } else {
        begin(job, forgotten);
    }
}

/* --- start and end --- */

/* Its intent was stored, what became of it was not: the power went, or the process. */
static int report_unknown(struct writes *writes, uint64_t number, struct write_record *record)
{
    const struct write_outcome outcome = {
        .kind = WRITE_UNKNOWN,
        .why = "the gateway stopped before its outcome was recorded: it may have been executed or "
               "not, and it will not be executed again",
    };
    auto_buffer struct buffer text = {0};
    write_answer_fill(record, &outcome);
    write_answer_event(record, &outcome, &text);
    const char *words = buffer_text(&text);
    if (words == NULL) {
        return -ENOMEM;
    }
    log_warning("write-unknown: %s", words);
    return record_with(writes, NULL, "write-unknown", words, number, record->chosen ? record : NULL,
                       ignore, NULL);
}

/* The store may remember a few more than fit, when it was stopped in the wrong moment. */
static int forget_oldest(struct writes *writes)
{
    if (writes->memory.count < WRITES_REMEMBERED) {
        return 0;
    }
    size_t i = 0;
    while (i + 1 < writes->memory.count && writes->memory.entries[i].record->standing) {
        i++;
    }
    uint64_t oldest = writes->memory.entries[i].number;
    write_memory_forget(&writes->memory, oldest);
    return record_with(writes, NULL, "", "", oldest, NULL, ignore, NULL);
}

/* The power went between a word's intent and the end of the one that it took over. */
static int forget_replaced(struct writes *writes, const struct write_record *record)
{
    const struct write_entry *entry = write_memory_standing(&writes->memory, record);
    if (entry == NULL) {
        return 0;
    }
    uint64_t number = entry->number;
    write_memory_forget(&writes->memory, number);
    return record_with(writes, NULL, "", "", number, NULL, ignore, NULL);
}

static int restore(struct writes *writes)
{
    auto_buffer struct buffer bytes = {0};
    auto_free struct write_record *record = malloc(sizeof *record);
    uint64_t number = 0;
    int r = record == NULL ? -ENOMEM : 0;
    for (uint64_t from = 1; r == 0; from = number + 1) {
        r = store_copy_record(writes->store, from, &number, &bytes);
        if (r < 0) {
            return r == -ENOENT ? 0 : r;
        }
        if (write_record_decode(bytes.data, bytes.len, record) < 0) {
            log_error("write: record %llu does not read", (unsigned long long)number);
            writes->memory.next = number + 1;
            continue;
        }
        if (record->status == 0) {
            r = report_unknown(writes, number, record);
        }
        writes->memory.next = number + 1;
        if (r == 0 && record->standing) {
            r = forget_replaced(writes, record);
        }
        if (r == 0 && record->chosen) {
            r = forget_oldest(writes);
        }
        if (r == 0 && record->chosen) {
            r = write_memory_restore(&writes->memory, number, record);
        }
    }
    return r;
}

/* --- what comes back of a store that was set aside --- */

/* Under the lock: whether the record is to be kept; what is here of its kind is newer mostly. */
static bool is_wanted(struct writes *writes, const struct write_record *record,
                      uint64_t *ret_replaced)
{
    const struct write_entry *entry = record->standing
                                          ? write_memory_standing(&writes->memory, record)
                                          : write_memory_find(&writes->memory, record->id);
    *ret_replaced = 0;
    if (entry != NULL && record->standing && entry->record->status != 0 &&
        entry->record->order < record->order) {
        *ret_replaced = entry->number;
        return true;
    }
    return entry == NULL;
}

static int keep(struct writes *writes, const struct write_record *record, uint64_t replaced)
{
    auto_buffer struct buffer bytes = {0};
    uint64_t number = writes->memory.next;
    write_record_encode(record, &bytes);
    int r = buffer_failed(&bytes) ? -ENOMEM : 0;
    if (r == 0 && writes->memory.count == WRITES_REMEMBERED) {
        return -ENOSPC;
    }
    r = r < 0 ? r : store_set_record(writes->store, number, bytes.data, bytes.len);
    if (r == 0 && replaced > 0) {
        r = store_set_record(writes->store, replaced, NULL, 0);
        write_memory_forget(&writes->memory, replaced);
    }
    return r < 0 ? r : write_memory_restore(&writes->memory, number, record);
}

int writes_take_over(void *user, const void *bytes, size_t len)
{
    struct writes *writes = user;
    auto_free struct write_record *record = malloc(sizeof *record);
    uint64_t replaced;
    if (record == NULL) {
        return -ENOMEM;
    }
    int r = write_record_decode(bytes, len, record);
    if (r < 0) {
        return r;
    }
    pthread_mutex_lock(&writes->lock);
    bool wanted = is_wanted(writes, record, &replaced);
    if (wanted && record->status == 0) {
        r = report_unknown(writes, 0, record);
    }
    if (r == 0 && wanted && record->chosen) {
        r = keep(writes, record, replaced);
    }
    pthread_mutex_unlock(&writes->lock);
    return r == 0 && !write_record_is_sealed(bytes) ? -EBADMSG : r;
}

int writes_create(struct store *store, struct pipeline *pipeline, const struct writes_host *host,
                  struct writes **ret_writes)
{
    struct writes *writes = calloc(1, sizeof *writes);
    if (writes == NULL) {
        return -ENOMEM;
    }
    writes->store = store;
    writes->pipeline = pipeline;
    writes->host = *host;
    pthread_mutex_init(&writes->lock, NULL);
    int r = write_memory_init(&writes->memory);
    r = r < 0 ? r : restore(writes);
    if (r < 0) {
        writes_destroy(writes);
        return r;
    }
    *ret_writes = writes;
    return 0;
}

void writes_destroy(struct writes *writes)
{
    if (writes != NULL) {
        write_memory_finish(&writes->memory);
        pthread_mutex_destroy(&writes->lock);
        free(writes);
    }
}
