/* `windrow sink` as a process: signals, the first line and the last. */
#include "gateway/cli/command.h"
#include "uplink/sink/sink.h"

#include <event2/event.h>
#include <signal.h>
#include <string.h>

static void stop(evutil_socket_t signal_number, short events, void *user)
{
    (void)signal_number, (void)events;
    event_base_loopbreak(user);
}

static void print_line(FILE *out, json_t *json)
{
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    fprintf(out, "%s\n", text == NULL ? "{}" : text);
    fflush(out);
    free(text);
    json_decref(json);
}

static void print_listening(FILE *out, const struct sink_options *options, uint16_t port)
{
    const char *colon = strrchr(options->listen, ':');
    char where[128];
    snprintf(where, sizeof where, "%.*s:%u", (int)(colon - options->listen), options->listen, port);
    print_line(out, json_pack("{s:s, s:i}", "listening", where, "port", (int)port));
}

static int serve(const struct sink_options *options, struct event_base *base, FILE *out)
{
    struct sink *sink;
    char error[SINK_ERROR_SIZE];
    if (sink_create(options, base, &sink, error) < 0) {
        fprintf(stderr, "windrow sink: %s\n", error);
        return COMMAND_USAGE;
    }
    struct event *term = evsignal_new(base, SIGTERM, stop, base);
    struct event *interrupt = evsignal_new(base, SIGINT, stop, base);
    int status = COMMAND_NOT_WELL;
    if (term != NULL && interrupt != NULL && event_add(term, NULL) == 0 &&
        event_add(interrupt, NULL) == 0) {
        print_listening(out, options, sink_port(sink));
        status = event_base_dispatch(base) < 0 ? COMMAND_NOT_WELL : COMMAND_GOOD;
        print_line(out, sink_stats(sink));
    }
    if (term != NULL) {
        event_free(term);
    }
    if (interrupt != NULL) {
        event_free(interrupt);
    }
    sink_destroy(sink);
    return status;
}

int sink_run(const struct sink_options *options, FILE *out)
{
    signal(SIGPIPE, SIG_IGN);
    struct event_base *base = event_base_new();
    if (base == NULL) {
        fprintf(stderr, "windrow sink: out of memory\n");
        return COMMAND_NOT_WELL;
    }
    int status = serve(options, base, out);
    event_base_free(base);
    return status;
}
