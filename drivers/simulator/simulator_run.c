/* `windrow simulate` as a process: signals, the first line and the last, the printed profile. */
#include "drivers/simulator/sim_replay.h"
#include "drivers/simulator/sim_signal.h"
#include "drivers/simulator/simulator.h"
#include "gateway/cli/command.h"

#include <errno.h>
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

static void print_listening(FILE *out, const struct simulator_options *options, uint16_t port)
{
    const char *colon = strrchr(options->listen, ':');
    char where[128];
    snprintf(where, sizeof where, "%.*s:%u", (int)(colon - options->listen), options->listen, port);
    print_line(out, json_pack("{s:s, s:i, s:i}", "listening", where, "port", (int)port, "turbines",
                              (int)options->turbines));
}

static int serve(const struct simulator_options *options, struct event_base *base, FILE *out)
{
    struct simulator *simulator;
    char error[SIMULATOR_ERROR_SIZE];
    if (simulator_create(options, base, out, &simulator, error) < 0) {
        fprintf(stderr, "windrow simulate: %s\n", error);
        return COMMAND_USAGE;
    }
    struct event *term = evsignal_new(base, SIGTERM, stop, base);
    struct event *interrupt = evsignal_new(base, SIGINT, stop, base);
    int status = COMMAND_NOT_WELL;
    json_t *summary = NULL;
    if (term != NULL && interrupt != NULL && event_add(term, NULL) == 0 &&
        event_add(interrupt, NULL) == 0) {
        print_listening(out, options, simulator_port(simulator));
        status = event_base_dispatch(base) < 0 ? COMMAND_NOT_WELL : COMMAND_GOOD;
        summary = simulator_summary(simulator);
    }
    if (term != NULL) {
        event_free(term);
    }
    if (interrupt != NULL) {
        event_free(interrupt);
    }
    if (simulator_destroy(simulator) < 0) {
        fprintf(stderr, "windrow simulate: %s: not all of it could be written\n", options->record);
        status = COMMAND_NOT_WELL;
    }
    /* Last, so that whoever has read it finds the record complete. */
    print_line(out, summary);
    return status;
}

int simulator_run(const struct simulator_options *options, FILE *out)
{
    signal(SIGPIPE, SIG_IGN);
    struct event_base *base = event_base_new();
    if (base == NULL) {
        fprintf(stderr, "windrow simulate: out of memory\n");
        return COMMAND_NOT_WELL;
    }
    int status = serve(options, base, out);
    event_base_free(base);
    return status;
}

int simulator_print_profile(const char *path, unsigned points, FILE *out)
{
    if (path == NULL) {
        fputs("[profile reference]\naddress_base = 0\nmax_gap = 16\n", out);
        for (unsigned i = 0; i < points && i < SIM_FILLERS; i++) {
            const struct sim_filler *filler = sim_signal_filler(i);
            fprintf(out, "point.%s_%02u = holding %u int16, scale %s%s%s\n", filler->name, i,
                    SIM_FILLER + i, filler->scale, filler->unit == NULL ? "" : ", unit ",
                    filler->unit == NULL ? "" : filler->unit);
        }
        return COMMAND_GOOD;
    }
    struct sim_replay replay;
    size_t line;
    int r = sim_replay_load(path, &replay, &line);
    if (r < 0) {
        fprintf(stderr, "windrow simulate: %s:%zu: %s\n", path, line, strerror(-r));
        return COMMAND_USAGE;
    }
    sim_replay_print_profile(&replay, out);
    sim_replay_finish(&replay);
    return COMMAND_GOOD;
}
