/* The binding for libwebsockets 4.2 and later, which take a caller's event operations through a public field.
 */
#include <libwebsockets.h>
#include <stdio.h>

#include "base/log.h"
#include "broker/lws_loop_ops.h"

static void on_io(struct lws *wsi, unsigned int flags)
{
    lws_loop_on_interest(wsi, flags & LWS_EV_START, flags & LWS_EV_READ, flags & LWS_EV_WRITE);
}

static int on_close(struct lws *wsi)
{
    lws_loop_on_gone(wsi);
    return 0;
}

static const struct lws_event_loop_ops operations = {
    .name = "switchboard",
    .init_pt = lws_loop_on_init,
    .wsi_logical_close = on_close,
    .sock_accept = lws_loop_on_accept,
    .io = on_io,
    .destroy_wsi = lws_loop_on_gone,
};

static const lws_plugin_evlib_t event_library = {
    .hdr = {"switchboard event loop", "lws_evlib_plugin", LWS_BUILD_HASH, LWS_PLUGIN_API_MAGIC},
    .ops = &operations,
};

/* The operations' table may grow between minor versions. */
int lws_loop_bind(struct lws_context_creation_info *info)
{
    const char *version = lws_get_library_version();
    int major = 0;
    int minor = 0;
    if (sscanf(version, "%d.%d", &major, &minor) != 2 || major != LWS_LIBRARY_VERSION_MAJOR ||
        minor != LWS_LIBRARY_VERSION_MINOR) {
        log_error("libwebsockets refused: not the version this was built for",
                  log_str("built_for", LWS_LIBRARY_VERSION), log_str("found", version));
        return -1;
    }
    info->event_lib_custom = &event_library;
    return 0;
}
