#include "client/swb/link.h"

#include "base/buffer.h"
#include "client/url.h"
#include "proto/address.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void on_state(struct swb_client *client, const struct swb_status *status, void *data)
{
    struct link *link = data;
    bool verbose = args_has(link->args, OPT_VERBOSE);

    (void)client;
    switch (status->state) {
    case SWB_CONNECTING:
        break;
    case SWB_ONLINE:
        if (verbose)
            complain("online as session:%s on instance %s", status->hello->session, status->hello->instance);
        link->was_online = true;
        if (link->on_online)
            link->on_online(link);
        break;
    case SWB_DOWN:
        if (link->status >= 0)
            break;
        if (status->reconnect && link->was_online) {
            complain("offline: %s; connecting again in %u ms", status->reason, status->delay);
            break;
        }
        complain("%s: %s", link->was_online ? "disconnected" : "no connection",
                 *status->reason ? status->reason : "closed");
        enum { STOP_CODES = 4500 };
        link_end(link, status->close_code >= STOP_CODES ? EXIT_REFUSED : EXIT_UNAVAILABLE);
        break;
    case SWB_STOPPED:
        event_base_loopbreak(link->base);
        break;
    }
}

static void on_message(struct swb_client *client, const struct swb_message *message, void *data)
{
    struct link *link = data;

    (void)client;
    if (link->on_message)
        link->on_message(link, message);
}

static void on_recovery(struct swb_client *client, const struct swb_recovery *recovery, void *data)
{
    struct link *link = data;

    (void)client;
    if (link->on_recovery)
        link->on_recovery(link, recovery);
}

static void on_signal(evutil_socket_t number, short what, void *data)
{
    (void)number;
    (void)what;
    link_end(data, EXIT_OK);
}

static void write_parameter(struct buffer *out, const char *separator, const char *name, const char *value)
{
    buffer_printf(out, "%s%s=", separator, name);
    for (const unsigned char *at = (const unsigned char *)value; *at; at++)
        buffer_printf(out, "%%%02X", *at);
}

/* False: it was said what is wrong with --user or --session. */
static bool check_names(const struct link *link)
{
    const char *user = link->args->values[OPT_USER], *session = link->args->values[OPT_SESSION];
    const char *wrong = NULL;

    if (!link->as_session)
        return true;
    if (user && session) {
        complain("--user and --session exclude each other");
        return false;
    }
    if (user)
        wrong = address_check_name(slice_text(user));
    else if (session)
        wrong = address_check_exclusive(slice_text(session));
    if (wrong)
        complain("--%s %s: %s", user ? "user" : "session", user ? user : session, wrong);
    return !wrong;
}

/* The URL, with --user or --session in its query. */
static int connect_client(struct link *link)
{
    const char *url = settings_url(link->args);
    const char *user = link->as_session ? link->args->values[OPT_USER] : NULL;
    const char *session = link->as_session ? link->args->values[OPT_SESSION] : NULL;
    const char *separator = strchr(url, '?') ? "&" : "?";
    struct buffer text;
    struct url parsed;

    if (!check_names(link))
        return SWB_BAD_REQUEST;
    const char *wrong = url_parse(url, "/connect", &parsed);
    if (wrong) {
        complain("%s: %s", url, wrong);
        return SWB_BAD_REQUEST;
    }
    url_close(&parsed);
    buffer_init(&text, 0);
    buffer_append_text(&text, url);
    if (user || session)
        write_parameter(&text, separator, user ? "user" : "session", user ? user : session);
    const char *whole = buffer_text(&text);
    int error = whole ? swb_client_connect(link->client, whole) : SWB_NO_MEMORY;
    buffer_close(&text);
    if (error)
        complain("%s: %s", url, swb_error_text(error));
    return error;
}

static bool create_signals(struct link *link)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        link->signals[i] = evsignal_new(link->base, numbers[i], on_signal, link);
        if (!link->signals[i] || event_add(link->signals[i], NULL) != 0)
            return false;
    }
    return true;
}

bool link_open(struct link *link, const struct args *args)
{
    struct swb_options options = SWB_OPTIONS;

    link->args = args;
    link->status = EXIT_USAGE;
    if (!settings_check(args))
        return false;
    link->status = -1;
    options.token = settings_token(args);
    options.ca_file = args->values[OPT_CA_FILE];
    options.agent = "swb/" SWITCHBOARD_VERSION;
    options.no_reconnect = !link->lasting;
    options.data = link;
    options.on_state = on_state;
    options.on_message = on_message;
    options.on_recovery = on_recovery;
    link->base = event_base_new();
    link->client = link->base ? swb_client_create(link->base, &options) : NULL;
    if (!link->client || !create_signals(link)) {
        complain("memory or file descriptors are short");
        link->status = EXIT_ERROR;
        return false;
    }
    if (connect_client(link) == SWB_OK)
        return true;
    link->status = EXIT_USAGE;
    return false;
}

int link_run(struct link *link)
{
    event_base_dispatch(link->base);
    return link->status < 0 ? EXIT_ERROR : link->status;
}

void link_end(struct link *link, int status)
{
    if (link->status < 0)
        link->status = status;
    swb_client_stop(link->client);
}

void link_fail(struct link *link, const char *what, int error, const char *text)
{
    if (link->status < 0)
        complain("%s: %s", what, text ? text : swb_error_text(error));
    link_end(link, exit_code_of(error));
}

void link_close(struct link *link)
{
    for (size_t i = 0; i < sizeof link->signals / sizeof *link->signals; i++)
        if (link->signals[i])
            event_free(link->signals[i]);
    swb_client_destroy(link->client);
    if (link->base)
        event_base_free(link->base);
}
