#include "gateway/store/child.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { LOWEST_PRIORITY = 19 };

static void limit_memory(size_t more)
{
    auto_fclose FILE *f = fopen("/proc/self/statm", "re");
    char line[128];
    if (more == 0 || f == NULL || fgets(line, sizeof(line), f) == NULL) {
        return;
    }
    rlim_t mapped = (rlim_t)strtoull(line, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE);
    struct rlimit memory = {mapped + more, mapped + more};
    setrlimit(RLIMIT_AS, &memory);
}

/* What the daemon set up is not for the child: signals end it, and it leaves no core. */
static void become_child(int *out, pid_t parent, size_t memory)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(ECANCELED);
    }
    if (*out != STDERR_FILENO + 1) {
        *out = dup2(*out, STDERR_FILENO + 1);
    }
    close_range((unsigned)STDERR_FILENO + 2, UINT_MAX, 0);
    static const int usual[] = {SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL, SIGPIPE, SIGTERM, SIGINT};
    for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
        signal(usual[i], SIG_DFL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    (void)setpriority(PRIO_PROCESS, 0, LOWEST_PRIORITY);
    limit_memory(memory);
}

int child_start(struct child *child, size_t memory, int (*fn)(int out, void *user), void *user)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    (void)fcntl(ends[1], F_SETPIPE_SZ, CHILD_PIPE_BYTES); /* a smaller one is only slower */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        int out = ends[1];
        become_child(&out, parent, memory);
        _exit(fn(out, user));
    }
    int rc = pid < 0 ? -errno : 0;
    close(ends[1]);
    if (rc < 0) {
        close(ends[0]);
        return rc;
    }
    *child = (struct child){.pid = pid, .fd = ends[0], .heard_ms = clock_mono_ms()};
    return 0;
}

ssize_t child_read(struct child *child, size_t most, struct buffer *to)
{
    uint8_t *at = buffer_reserve(to, most);
    if (at == NULL) {
        return -ENOMEM;
    }
    ssize_t n = read(child->fd, at, most);
    if (n > 0) {
        to->len += (size_t)n;
        child->heard_ms = clock_mono_ms();
        return n;
    }
    if (n == 0) {
        return -EPIPE;
    }
    if (errno != EAGAIN && errno != EINTR) {
        return -errno;
    }
    return clock_mono_ms() - child->heard_ms > CHILD_SILENCE_MS ? -ETIMEDOUT : 0;
}

enum child_end child_finish(struct child *child, bool kill_it)
{
    int status = 0;
    if (child->pid == 0) {
        return CHILD_STOPPED;
    }
    if (kill_it) {
        kill(child->pid, SIGKILL);
    }
    close(child->fd);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    *child = (struct child){.fd = -1};
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        return number == SIGKILL || number == SIGTERM || number == SIGINT || number == SIGPIPE
                   ? CHILD_STOPPED
                   : CHILD_CRASHED;
    }
    return WEXITSTATUS(status) == 0 ? CHILD_FINISHED : CHILD_FAILED;
}

int child_write(int out, const void *bytes, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = write(out, (const uint8_t *)bytes + have, len - have);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        have += n > 0 ? (size_t)n : 0;
    }
    return 0;
}
