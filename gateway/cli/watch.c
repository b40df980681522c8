#include "gateway/cli/client.h"
#include "gateway/cli/points.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>

enum { TICK_MS = 1000, ROWS_DEFAULT = 24 };

static int run_watch(int argc, char **argv);

const struct command command_watch = {
    .name = "watch",
    .arguments = "[DEVICE]",
    .summary = "live view in the terminal, once a second; q ends it",
    .help = "  Without a name all devices, with one its points; '*' and '?' as for `points`.\n"
            "  With --json, or where stdout is no terminal, a line of JSON a second.\n",
    .run = run_watch,
};

/* The screen while it is ours. */
struct screen {
    struct termios before;
    bool taken;
    int signals; /* signalfd */
};

static void screen_take(struct screen *screen)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    screen->signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (tcgetattr(STDIN_FILENO, &screen->before) == 0) {
        struct termios raw = screen->before;
        raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
        screen->taken = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
}

static void screen_give_back(const struct screen *screen)
{
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (screen->taken) {
        tcsetattr(STDIN_FILENO, TCSANOW, &screen->before);
    }
    if (screen->signals >= 0) {
        close(screen->signals);
    }
}

/* Waits for the next second; false: the user has seen enough. */
static bool screen_wait(const struct screen *screen)
{
    struct pollfd polls[] = {{.fd = screen->taken ? STDIN_FILENO : -1, .events = POLLIN},
                             {.fd = screen->signals, .events = POLLIN}};
    if (poll(polls, ARRAY_SIZE(polls), TICK_MS) <= 0) {
        return true;
    }
    char key = 'q';
    if (polls[1].revents != 0 || read(STDIN_FILENO, &key, 1) != 1) {
        return false;
    }
    return key != 'q' && key != 'Q' && key != 27;
}

static size_t screen_rows(void)
{
    struct winsize size = {0};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 4 ? size.ws_row
                                                                           : ROWS_DEFAULT;
}

static void add_device(struct table *table, const json_t *device, int64_t now_ms)
{
    auto_buffer struct buffer b = {0};
    const char *state = answer_text(device, "state");
    bool good = strcmp(state, "good") == 0;
    table_cell(table, TONE_PLAIN, "%s", answer_text(device, "name"));
    table_cell(table, good ? TONE_GOOD : TONE_BAD, "%s", state);
    text_age(&b, now_ms, answer_time(device, "last_good"));
    table_cell_take(table, TONE_PLAIN, &b);
    text_count(&b, (uint64_t)answer_int(device, "polls"));
    table_cell_take(table, TONE_PLAIN, &b);
    text_count(&b, (uint64_t)answer_int(device, "failures"));
    table_cell_take(table, TONE_PLAIN, &b);
    table_cell(table, TONE_PLAIN, "%s", good ? "" : answer_text(device, "last_error"));
}

/* As many rows as the screen has; the rest is counted. */
static void draw(const json_t *answer, const char *list, const char *title)
{
    const json_t *rows = json_object_get(answer, list), *row;
    size_t most = screen_rows() - 4, i;
    int64_t now_ms = answer_time(answer, "time");
    bool points = strcmp(list, "points") == 0;
    auto_table struct table table;
    table_begin(&table, points ? "POINT|>VALUE|UNIT|>AGE|QUALITY"
                               : "DEVICE|STATE|>LAST GOOD|>POLLS|>FAILED|LAST ERROR");
    json_array_foreach(rows, i, row)
    {
        if (i < most) {
            points ? points_add_row(&table, row, now_ms) : add_device(&table, row, now_ms);
        }
    }
    printf("\033[H\033[J%s%s%s  %.19s UTC, q ends\n\n", tone_code(TONE_BOLD), title,
           tone_code(TONE_PLAIN), answer_text(answer, "time"));
    table_print(&table, stdout);
    if (json_array_size(rows) > most) {
        printf("and %zu more: a longer window or a narrower name shows them",
               json_array_size(rows) - most);
    }
}

static void draw_trouble(const struct client *client, int error)
{
    printf("\033[H\033[JNo answer on %s: %s.\nStill trying; q ends.\n", client->socket_path,
           client_is_down(error) ? "the gateway does not run" : strerror(-error));
}

static int watch_screen(const struct client *client, const char *path, const char *list,
                        const char *title)
{
    struct screen screen = {.signals = -1};
    screen_take(&screen);
    do {
        json_t *answer = NULL;
        int r = client_ask(client, path, NULL, &answer);
        if (r == 0) {
            draw(answer, list, title);
        } else {
            draw_trouble(client, r);
        }
        json_decref(answer);
        fflush(stdout);
    } while (screen_wait(&screen));
    screen_give_back(&screen);
    return COMMAND_GOOD;
}

static int watch_lines(const struct client *client, const struct cli *cli, const char *path)
{
    while (true) {
        json_t *answer = NULL;
        int r = client_ask(client, path, NULL, &answer);
        if (r < 0) {
            return client_complain(&command_watch, cli, client, r, answer);
        }
        json_dumpf(answer, stdout, JSON_COMPACT);
        json_decref(answer);
        if (putchar('\n') == EOF || fflush(stdout) == EOF) {
            return COMMAND_GOOD; /* the reader went away */
        }
        poll(NULL, 0, TICK_MS);
    }
}

static int run_watch(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_watch, argc, argv, NULL, 0, 0, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    struct client client;
    client_find(&cli, &client);
    auto_buffer struct buffer path = {0};
    buffer_add_text(&path, cli.count > 0 ? "/v1/points" : "/v1/devices");
    if (cli.count > 0) {
        client_add_param(&path, "select", cli.words[0]);
    }
    if (cli.json || !isatty(STDOUT_FILENO)) {
        return watch_lines(&client, &cli, buffer_text(&path));
    }
    json_t *answer = NULL;
    r = client_ask(&client, buffer_text(&path), NULL, &answer);
    if (r < 0) {
        return client_complain(&command_watch, &cli, &client, r, answer);
    }
    json_decref(answer);
    return watch_screen(&client, buffer_text(&path), cli.count > 0 ? "points" : "devices",
                        cli.count > 0 ? cli.words[0] : "All devices");
}
