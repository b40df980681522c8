#include "uplink/postgres/postgres.h"
#include "uplink/verdict.h"

/* By class, the first two characters (PostgreSQL's manual, appendix A). What is not named is the
 * database's trouble, and the batch is tried again. */
static const struct {
    char class_of[3];
    enum uplink_outcome outcome;
    const char *words;
} classes[] = {
    {"08", UPLINK_RETRY, "the connection to the database failed"},
    {"0A", UPLINK_HOLD, "the database cannot do what is asked"},
    {"22", UPLINK_SPLIT, "the database refuses the data"},
    {"23", UPLINK_SPLIT, "the database refuses the data"},
    {"28", UPLINK_HOLD, "the database does not let us in: user, password_file, pg_hba.conf"},
    {"3D", UPLINK_HOLD, "there is no such database: database"},
    {"3F", UPLINK_HOLD, "there is no such schema: table"},
    {"42", UPLINK_HOLD, "the table or our rights to it are not as needed"},
    {"53", UPLINK_RETRY, "the database is short of something"},
    {"54", UPLINK_SPLIT, "the batch is too much for the database"},
    {"57", UPLINK_RETRY, "the database is interrupted, starting or shutting down"},
};

void postgres_judge(const void *settings, const struct batch *batch,
                    const struct uplink_reply *reply, struct uplink_verdict *ret_verdict)
{
    (void)settings;
    if (reply->code == NULL) {
        enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
        if (class_of == VERDICT_SUCCESS) {
            verdict_delivered(ret_verdict, batch);
        } else if (class_of == VERDICT_BAD_DATA) { /* not said by our transport */
            verdict_say(ret_verdict, UPLINK_RETRY, reply, "an answer that nobody understands");
        }
        return;
    }
    enum uplink_outcome outcome = UPLINK_RETRY;
    const char *words = "the database is in trouble";
    for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
        if (strncmp(classes[i].class_of, reply->code, 2) == 0) {
            outcome = classes[i].outcome;
            words = classes[i].words;
        }
    }
    if (outcome == UPLINK_SPLIT && batch->count <= 1) {
        outcome = UPLINK_REJECTED;
    }
    *ret_verdict = (struct uplink_verdict){.outcome = outcome, .retry_after_ms = -1};
    snprintf(ret_verdict->why, sizeof ret_verdict->why, "%s (%.5s): %.120s", words, reply->code,
             reply->error);
}
