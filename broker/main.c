/* The daemon: reads the configuration, boots, serves until a signal ends it. */
#include "base/log.h"
#include "broker/broker.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/workers.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct daemon {
    struct loop *loop;
    struct broker *broker;
    struct event *signals[3];
    struct event *log_writable; /* NULL while the log isn't held up */
    bool ending, forced;
};

/* How long the lines of the start, and those of the end, may wait for their reader. */
enum { LOG_PATIENCE_MS = 1000 };

static void on_end_signal(evutil_socket_t number, short what, void *data)
{
    struct daemon *daemon = data;

    (void)what;
    if (daemon->ending) {
        log_warn("ended by a second signal", log_int("signal", number));
        daemon->forced = true;
        loop_stop(daemon->loop);
        return;
    }
    daemon->ending = true;
    broker_drain(daemon->broker);
}

static void on_reload_signal(evutil_socket_t number, short what, void *data)
{
    struct daemon *daemon = data;

    (void)number;
    (void)what;
    broker_reload(daemon->broker);
}

static bool catch_signal(struct daemon *daemon, size_t slot, int number, event_callback_fn on_signal)
{
    daemon->signals[slot] = evsignal_new(loop_base(daemon->loop), number, on_signal, daemon);
    return daemon->signals[slot] && event_add(daemon->signals[slot], NULL) == 0;
}

static void on_log_writable(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    (void)data;
    log_resume();
}

/* Whoever reads the log is slow: what is missing is said as soon as there is room. Without memory the next line says it. */
static void on_log_blocked(int fd, void *data)
{
    struct daemon *daemon = data;

    if (!daemon->log_writable)
        daemon->log_writable = event_new(loop_base(daemon->loop), fd, EV_WRITE, on_log_writable, daemon);
    if (daemon->log_writable)
        event_add(daemon->log_writable, NULL);
}

static bool run(struct daemon *daemon)
{
    log_set_patience(0);
    log_set_on_blocked(on_log_blocked, daemon);
    bool done = loop_run(daemon->loop) == 0;
    log_set_on_blocked(NULL, NULL);
    log_set_patience(LOG_PATIENCE_MS);
    if (daemon->log_writable)
        event_free(daemon->log_writable);
    return done;
}

static int serve(struct config *config, unsigned worker)
{
    log_set_patience(LOG_PATIENCE_MS);
    struct daemon daemon = {.loop = loop_create()};
    int status = EXIT_FAILED;

    if (!daemon.loop)
        return EXIT_FAILED;
    /* A signal that comes while the broker is being built is kept until the loop runs. */
    if (!catch_signal(&daemon, 0, SIGTERM, on_end_signal) ||
        !catch_signal(&daemon, 1, SIGINT, on_end_signal) ||
        !catch_signal(&daemon, 2, SIGHUP, on_reload_signal))
        log_error("signals can't be caught", log_int("pid", getpid()));
    else
        daemon.broker = broker_create(daemon.loop, config, worker);
    if (daemon.broker && run(&daemon) && !daemon.forced)
        status = EXIT_OK;

    for (size_t i = 0; i < sizeof daemon.signals / sizeof *daemon.signals; i++)
        if (daemon.signals[i])
            event_free(daemon.signals[i]);
    broker_destroy(daemon.broker);
    loop_destroy(daemon.loop);
    log_resume();
    return status;
}

/* Started without one of the three, the first socket would get its number, and a client the log. */
static bool have_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

int main(int argc, char *argv[])
{
    struct config *config;

    if (!have_standard_streams())
        return EXIT_FAILED;
    /* Nobody reads the log any more: that ends no broker, and no watcher of workers. */
    signal(SIGPIPE, SIG_IGN);
    switch (config_load(argc, argv, environ, &config, stdout, stderr)) {
    case CONFIG_DONE:
        return EXIT_OK;
    case CONFIG_FAILED:
        return EXIT_USAGE;
    case CONFIG_LOADED:
        break;
    }
    log_set_level(config->log_level);
    log_set_format(config->log_format);
    int status = config->workers > 1 ? workers_run(config, serve) : serve(config, 0);
    config_unref(config);
    return status;
}
