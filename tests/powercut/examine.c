#include "examine.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* What goes to the child and comes back. */
struct slot {
    struct judgement judgement;
    enum verdict verdict;
    bool here, litter;
    size_t len;
    _Alignas(8) uint8_t image[EXAMINE_IMAGE_MAX];
};

struct examiner {
    char work[400];
    struct slot *slot;
    pid_t child;
    int to_child, from_child;
};

static void leave_litter(const char *work)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/store/lock.mdb", work);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    uint8_t litter[8192];
    memset(litter, 0xA5, sizeof(litter));
    if (fd >= 0 && write(fd, litter, sizeof(litter)) < 0) {
        abort();
    }
}

static void judge_one(struct examiner *examiner)
{
    struct slot *slot = examiner->slot;
    alarm(EXAMINE_SECONDS);
    if (!slot->here && image_write(examiner->work, slot->image, slot->len) < 0) {
        abort();
    }
    if (slot->litter) {
        leave_litter(examiner->work);
    }
    slot->verdict = judge(examiner->work, &slot->judgement);
    alarm(0);
}

__attribute__((noreturn)) static void child(struct examiner *examiner, int in, int out)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGALRM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives a test that was ended */
    if (freopen("/dev/null", "w", stderr) == NULL) {
        _exit(1);
    }
    char byte;
    while (read(in, &byte, 1) == 1) {
        judge_one(examiner);
        if (write(out, &byte, 1) != 1) {
            _exit(1);
        }
    }
    _exit(0);
}

static void start(struct examiner *examiner)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0) {
        abort();
    }
    examiner->child = fork();
    if (examiner->child == 0) {
        close(to[1]);
        close(from[0]);
        child(examiner, to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    examiner->to_child = to[1];
    examiner->from_child = from[0];
}

/* The status that the child ended with. */
static int stop(struct examiner *examiner)
{
    int status = 0;
    close(examiner->to_child);
    close(examiner->from_child);
    while (waitpid(examiner->child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

struct examiner *examiner_create(const char *work, struct truth *truth,
                                 const struct store_settings *settings)
{
    struct examiner *examiner = calloc(1, sizeof(*examiner));
    if (examiner == NULL) {
        return NULL;
    }
    snprintf(examiner->work, sizeof(examiner->work), "%s", work);
    examiner->slot = mmap(NULL, sizeof(*examiner->slot), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (examiner->slot == MAP_FAILED) {
        free(examiner);
        return NULL;
    }
    examiner->slot->judgement.truth = truth;
    examiner->slot->judgement.settings = *settings;
    start(examiner);
    return examiner;
}

void examiner_destroy(struct examiner *examiner)
{
    if (examiner == NULL) {
        return;
    }
    (void)stop(examiner);
    (void)image_clear(examiner->work);
    (void)rmdir(examiner->work);
    munmap(examiner->slot, sizeof(*examiner->slot));
    free(examiner);
}

void examiner_expect(struct examiner *examiner, const struct store_settings *settings)
{
    examiner->slot->judgement.settings = *settings;
}

const struct judgement *examiner_judgement(const struct examiner *examiner)
{
    return &examiner->slot->judgement;
}

static enum verdict ask(struct examiner *examiner, uint32_t acked, uint32_t attempted)
{
    struct slot *slot = examiner->slot;
    slot->judgement.acked = acked;
    slot->judgement.attempted = attempted;
    slot->judgement.reason[0] = '\0';
    char byte = 'x';
    if (write(examiner->to_child, &byte, 1) == 1 && read(examiner->from_child, &byte, 1) == 1) {
        return slot->verdict;
    }
    int status = stop(examiner);
    snprintf(slot->judgement.reason, sizeof(slot->judgement.reason), "status 0x%x", status);
    start(examiner);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? VERDICT_HUNG : VERDICT_CRASHED;
}

enum verdict examine(struct examiner *examiner, const struct buffer *image, uint32_t acked,
                     uint32_t attempted, bool litter)
{
    struct slot *slot = examiner->slot;
    if (image->len > sizeof(slot->image)) {
        abort();
    }
    memcpy(slot->image, image->data, image->len);
    slot->len = image->len;
    slot->litter = litter;
    slot->here = slot->judgement.look_only = false;
    return ask(examiner, acked, attempted);
}

enum verdict examine_here(struct examiner *examiner, uint32_t acked, uint32_t attempted,
                          bool look_only)
{
    struct slot *slot = examiner->slot;
    slot->here = true;
    slot->litter = false;
    slot->judgement.look_only = look_only;
    return ask(examiner, acked, attempted);
}
