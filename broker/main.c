/* The daemon: reads the configuration, boots, serves until a signal ends it. */
#include "base/log.h"
#include "broker/broker.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/workers.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct daemon {
    struct loop *loop;
    struct broker *broker;
    struct event *signals[3];
    bool ending, forced;
};

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

static int serve(struct config *config, unsigned worker)
{
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
    if (daemon.broker && loop_run(daemon.loop) == 0 && !daemon.forced)
        status = EXIT_OK;

    for (size_t i = 0; i < sizeof daemon.signals / sizeof *daemon.signals; i++)
        if (daemon.signals[i])
            event_free(daemon.signals[i]);
    broker_destroy(daemon.broker);
    loop_destroy(daemon.loop);
    return status;
}

int main(int argc, char *argv[])
{
    struct config *config;

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
