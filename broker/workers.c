/* The parent has no event loop: a worker is forked from a process that holds nothing it would have to let go of. It sleeps in
 * sigtimedwait(2) until a signal comes or a pause is over. */
#include "broker/workers.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PAUSE_FIRST_MS = 100,
    PAUSE_MAX_MS = 10000,
    QUICK_DEATH_MS = 10000, /* who lived longer is started again at once */
    FALSE_START_MS = 1000,  /* who fails this early at the very start would always fail */
};

struct worker {
    pid_t pid;                   /* 0: not running */
    uint64_t started_ms, due_ms; /* monotonic; when to start it again */
    uint64_t pause_ms;
    bool was_up; /* lived past its start once */
};

struct workers {
    struct config *config; /* a reference */
    int (*serve)(struct config *config, unsigned worker);
    struct worker *list;
    unsigned count;
    sigset_t signals, inherited;
    bool ending;
    bool failed; /* a worker ended badly while all were to end, or could not start */
};

static unsigned running(const struct workers *workers)
{
    unsigned count = 0;

    for (unsigned i = 0; i < workers->count; i++)
        count += workers->list[i].pid != 0;
    return count;
}

static void signal_all(const struct workers *workers, int number)
{
    for (unsigned i = 0; i < workers->count; i++)
        if (workers->list[i].pid)
            kill(workers->list[i].pid, number);
}

/* True in the child. */
static bool start(struct workers *workers, unsigned number)
{
    struct worker *worker = &workers->list[number];
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &workers->inherited, NULL);
        /* A worker without its parent drains, rather than stay behind unwatched. */
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(EXIT_FAILURE);
        return true;
    }
    worker->started_ms = clock_monotonic_ms();
    if (pid > 0) {
        worker->pid = pid;
        log_info("worker started", log_int("worker", number), log_int("pid", pid));
    } else {
        log_error("worker can't be started", log_int("worker", number), log_str("reason", strerror(errno)));
        worker->due_ms = worker->started_ms + PAUSE_MAX_MS;
    }
    return false;
}

static void end(struct workers *workers, int number)
{
    workers->ending = true;
    signal_all(workers, number);
}

static void on_death(struct workers *workers, struct worker *worker, int status)
{
    uint64_t now = clock_monotonic_ms(), lived = now - worker->started_ms;
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    unsigned number = (unsigned)(worker - workers->list);

    worker->pid = 0;
    worker->was_up |= lived >= FALSE_START_MS;
    if (workers->ending) {
        workers->failed |= !well;
        return;
    }
    struct log_field how =
        WIFSIGNALED(status) ? log_int("signal", WTERMSIG(status)) : log_int("status", WEXITSTATUS(status));
    /* It gave up by itself, as it would again: a port that is taken, a certificate that can't be read. */
    if (WIFEXITED(status) && !well && !worker->was_up) {
        log_error("worker failed to start", log_int("worker", number), how);
        workers->failed = true;
        end(workers, SIGTERM);
        return;
    }
    /* An operator may drain one worker by its instance; that one is not wanted back. */
    if (well) {
        log_info("worker drained", log_int("worker", number));
        worker->due_ms = UINT64_MAX;
        return;
    }
    worker->pause_ms = lived >= QUICK_DEATH_MS ? 0 : worker->pause_ms ? worker->pause_ms * 2 : PAUSE_FIRST_MS;
    if (worker->pause_ms > PAUSE_MAX_MS)
        worker->pause_ms = PAUSE_MAX_MS;
    worker->due_ms = now + worker->pause_ms;
    log_error("worker died", log_int("worker", number), how,
              log_int("restart_in_ms", (int64_t)worker->pause_ms));
}

static void reap(struct workers *workers)
{
    int status;

    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (unsigned i = 0; i < workers->count; i++)
            if (workers->list[i].pid == pid)
                on_death(workers, &workers->list[i], status);
}

/* Starts whose pause is over; `wait_ms` receives how long the next one has to wait. True in a child, with its number. */
static bool start_due(struct workers *workers, uint64_t *wait_ms, unsigned *number)
{
    uint64_t now = clock_monotonic_ms();

    *wait_ms = PAUSE_MAX_MS;
    for (*number = 0; *number < workers->count && !workers->ending; ++*number) {
        struct worker *worker = &workers->list[*number];
        if (worker->pid || worker->due_ms == UINT64_MAX)
            continue;
        if (worker->due_ms > now)
            *wait_ms = worker->due_ms - now < *wait_ms ? worker->due_ms - now : *wait_ms;
        else if (start(workers, *number))
            return true;
    }
    return false;
}

static bool over(const struct workers *workers)
{
    if (running(workers))
        return false;
    for (unsigned i = 0; i < workers->count; i++)
        if (!workers->ending && workers->list[i].due_ms != UINT64_MAX)
            return false;
    return true;
}

static void on_signal(struct workers *workers, int number)
{
    switch (number) {
    case SIGTERM:
    case SIGINT:
        end(workers, number);
        break;
    case SIGHUP: {
        /* For the workers that are started later. */
        struct config *config = config_reload(workers->config);
        if (config) {
            config_unref(workers->config);
            workers->config = config;
        }
        signal_all(workers, SIGHUP);
        break;
    }
    default:
        break;
    }
}

/* Watches until all have ended; true in a child, with its number. */
static bool watch(struct workers *workers, unsigned *number)
{
    uint64_t wait_ms;

    while (!over(workers)) {
        if (start_due(workers, &wait_ms, number))
            return true;
        struct timespec timeout = {.tv_sec = (time_t)(wait_ms / 1000),
                                   .tv_nsec = (long)(wait_ms % 1000 * 1000000)};
        on_signal(workers, sigtimedwait(&workers->signals, NULL, &timeout));
        reap(workers);
        log_resume();
    }
    return false;
}

int workers_run(struct config *config, int (*serve)(struct config *config, unsigned worker))
{
    struct workers workers = {
        .config = config_ref(config), .serve = serve, .count = (unsigned)config->workers};
    unsigned number;
    int status;

    workers.list = mem_calloc(workers.count, sizeof *workers.list);
    if (!workers.list) {
        config_unref(workers.config);
        return EXIT_FAILURE;
    }
    sigemptyset(&workers.signals);
    sigaddset(&workers.signals, SIGTERM);
    sigaddset(&workers.signals, SIGINT);
    sigaddset(&workers.signals, SIGHUP);
    sigaddset(&workers.signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &workers.signals, &workers.inherited);
    if (watch(&workers, &number))
        status = serve(workers.config, number);
    else
        status = workers.failed ? EXIT_FAILURE : EXIT_SUCCESS;
    mem_free(workers.list);
    config_unref(workers.config);
    return status;
}
