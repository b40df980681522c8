/* powercut_disks
 *
 * The store on file systems that run full under it, or become read-only, and below a limit on file
 * sizes: tmpfs, ext4 in a file (where loop devices are allowed), RLIMIT_FSIZE. In a mount namespace
 * of its own. Each time a load runs into the fault; it may be refused or latched, but what was
 * promised must be there, on the full disk as well as once there is room again. The last line is a
 * JSON summary; where nothing may be mounted those cases are counted as skipped. */
#include "disk.h"
#include "examine.h"
#include "life.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SEQS = 4000, ROUNDS = 10, SESSION_SECONDS = 60, FAULT_AT = 14, ENDED_UNTRUE = 3 };

enum surprise { SURPRISE_NONE, SURPRISE_FULL, SURPRISE_READ_ONLY, SURPRISE_FILE_LIMIT };
struct disk_case {
    const char *name, *options; /* of the tmpfs; NULL: ext4 in a file */
    enum surprise surprise;     /* at commit FAULT_AT */
    enum life life;
};
static const struct disk_case cases[] = {
    {"tmpfs small from the start", "size=1400k", SURPRISE_NONE, LIFE_DROP},
    {"tmpfs small, pause", "size=1400k", SURPRISE_NONE, LIFE_PAUSE},
    {"tmpfs filled by others", "size=4m", SURPRISE_FULL, LIFE_DROP},
    {"tmpfs filled by others, thin", "size=4m", SURPRISE_FULL, LIFE_THIN},
    {"tmpfs filled by others, pause", "size=4m", SURPRISE_FULL, LIFE_PAUSE},
    {"file size limit", "size=4m", SURPRISE_FILE_LIMIT, LIFE_DROP},
    {"ext4 filled by others", NULL, SURPRISE_FULL, LIFE_DROP},
    {"ext4 filled by others, pause", NULL, SURPRISE_FULL, LIFE_PAUSE},
    {"ext4 read-only", NULL, SURPRISE_READ_ONLY, LIFE_DROP},
};

static char disk[40], work[64], ballast[64], image[64];
static enum surprise surprise;

static void fill_disk(void)
{
    static const char zeros[4096];
    auto_close int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (fd >= 0 && write(fd, zeros, sizeof(zeros)) > 0) {
    }
    while (fd >= 0 && write(fd, zeros, 1) > 0) {
    }
}

static void spring(enum promise promise, uint32_t commit)
{
    if (promise != PROMISE_BEGUN || commit != FAULT_AT) {
        return;
    }
    struct rlimit little = {150000, 150000};
    switch (surprise) {
    case SURPRISE_FULL:
        fill_disk();
        break;
    case SURPRISE_READ_ONLY:
        /* As ext4 does it after an error of its own; what was on its way is refused. */
        if (mount(NULL, disk, NULL, MS_REMOUNT, "abort") < 0) {
            abort();
        }
        break;
    case SURPRISE_FILE_LIMIT:
        setrlimit(RLIMIT_FSIZE, &little);
        break;
    case SURPRISE_NONE:
        break;
    }
}

static int session(const struct disk_case *one, struct truth *truth)
{
    signal(SIGXFSZ, SIG_IGN); /* as main() does */
    alarm(SESSION_SECONDS);
    struct load load = {.dir = work, .truth = truth, .faulty = true, .promise = spring, .rng = 77};
    surprise = one->surprise;
    int rc = life_run(&load, one->life, ROUNDS);
    fprintf(stderr, "  %s: %u commits, %u promised: %s\n", one->name, truth->attempted,
            truth->acked, strerror(-rc));
    return rc == -EPROTO ? ENDED_UNTRUE : 0;
}

static int mount_image(bool make)
{
    char command[600];
    snprintf(command, sizeof(command),
             "image=%s disk=%s; if %s; then truncate -s 4M $image && mkfs.ext4 -q -F -m0 $image; fi"
             " && mount -o loop $image $disk",
             image, disk, make ? "true" : "false");
    return system(command) == 0 ? 0 : -EPERM;
}

static int mount_case(const struct disk_case *one)
{
    if (one->options != NULL) {
        return mount("none", disk, "tmpfs", 0, one->options) < 0 ? -errno : 0;
    }
    return mount_image(true);
}

/* 1: bad, 0: good, -1: skipped. */
static int run(const struct disk_case *one)
{
    struct store_settings settings = life_settings(one->life);
    struct truth *truth = truth_create(7, SEQS);
    if (truth == NULL || mount_case(one) < 0) {
        truth_destroy(truth);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(session(one, truth));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    bool read_only = one->surprise == SURPRISE_READ_ONLY;
    if (read_only && (umount(disk) < 0 || mount_image(false) < 0)) {
        abort();
    }
    struct examiner *examiner = examiner_create(work, truth, &settings);
    enum verdict full = VERDICT_HUNG, after = VERDICT_HUNG;
    if (examiner != NULL) {
        full = examine_here(examiner, truth->acked, truth->attempted, true);
        (void)unlink(ballast);
        after = examine_here(examiner, truth->acked, truth->attempted, false);
        fprintf(stderr, "  %s: status 0x%x, on the full disk %s, afterwards %s %s\n", one->name,
                (unsigned)status, verdict_name(full), verdict_name(after),
                examiner_judgement(examiner)->reason);
    }
    examiner_destroy(examiner);
    if (umount2(disk, MNT_DETACH) < 0) {
        abort();
    }
    (void)unlink(image);
    truth_destroy(truth);
    return status != 0 || full != VERDICT_GOOD || after != VERDICT_GOOD;
}

int main(void)
{
    char made[] = "/tmp/powercut.XXXXXX";
    if (mkdtemp(made) == NULL) {
        return 2;
    }
    snprintf(disk, sizeof(disk), "%s/disk", made);
    snprintf(work, sizeof(work), "%s/data", disk);
    snprintf(ballast, sizeof(ballast), "%s/ballast", disk);
    snprintf(image, sizeof(image), "%s/image", made);
    unsigned ran = 0, skipped = 0, bad = 0;
    bool allowed = mkdir(disk, 0700) == 0 && unshare(CLONE_NEWNS) == 0 &&
                   mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int result = allowed ? run(&cases[i]) : -1;
        skipped += result < 0;
        ran += result >= 0;
        bad += result > 0;
    }
    (void)rmdir(disk);
    (void)rmdir(made);
    printf("{\"program\": \"powercut_disks\", \"good\": %s, \"cases\": %u, \"skipped\": %u, "
           "\"bad\": %u}\n",
           bad == 0 ? "true" : "false", ran, skipped, bad);
    return bad == 0 ? 0 : 1;
}
