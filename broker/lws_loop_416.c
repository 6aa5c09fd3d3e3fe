/* The binding for libwebsockets 4.1.6, built as Debian 12 builds it: with event libraries as plugins, but
 * without the one for libevent. Asked for that one, the library looks for a plugin named "evlib_event"
 * through lws_plugins_init(), a function it exports, and which an executable may therefore define in its
 * place. Ours hands out a plugin that is part of the executable.
 *
 * The operations' table is private to that version, so it is repeated here, and no other version is accepted.
 */
#include <dlfcn.h>
#include <libwebsockets.h>
#include <string.h>

#include "base/log.h"
#include "broker/lws_loop_ops.h"

#define KNOWN_VERSION "4.1.6"
#define PLUGIN_CLASS  "lws_evlib_plugin"
#define PLUGIN_NAME   "evlib_event"

enum { INTEREST_READ = 1 << 0, INTEREST_WRITE = 1 << 1, INTEREST_START = 1 << 2 };

struct lws_event_loop_ops {
    const char *name;
    int (*init_context)(struct lws_context *context, const struct lws_context_creation_info *info);
    int (*destroy_context1)(struct lws_context *context);
    int (*destroy_context2)(struct lws_context *context);
    int (*init_vhost_listen_wsi)(struct lws *wsi);
    int (*init_pt)(struct lws_context *context, void *loop, int thread);
    int (*wsi_logical_close)(struct lws *wsi);
    int (*check_client_connect_ok)(struct lws *wsi);
    void (*close_handle_manually)(struct lws *wsi);
    int (*sock_accept)(struct lws *wsi);
    void (*io)(struct lws *wsi, int flags);
    void (*run_pt)(struct lws_context *context, int thread);
    void (*destroy_pt)(struct lws_context *context, int thread);
    void (*destroy_wsi)(struct lws *wsi);
    uint8_t flags;
    uint16_t size_context, size_thread, size_vhost, size_wsi;
};

static void on_io(struct lws *wsi, int flags)
{
    lws_loop_on_interest(wsi, flags & INTEREST_START, flags & INTEREST_READ, flags & INTEREST_WRITE);
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

static const lws_plugin_evlib_t plugin = {
    .hdr = {"switchboard event loop", PLUGIN_CLASS, LWS_PLUGIN_API_MAGIC},
    .ops = &operations,
};

/* Replaces the library's function of this name in the whole process: no plugin is ever loaded from a file. */
int lws_plugins_init(struct lws_plugin **plugins, const char *const *directories, const char *class_name,
                     const char *file_name, each_plugin_cb_t each, void *each_user)
{
    (void)directories;
    (void)each;
    (void)each_user;
    if (strcmp(class_name, PLUGIN_CLASS) != 0 || !file_name || strcmp(file_name, PLUGIN_NAME) != 0)
        return 1;
    /* The library frees this, and closes the handle, when the context is destroyed. */
    struct lws_plugin *entry = lws_realloc(NULL, sizeof *entry, "plugin");
    if (!entry)
        return 1;
    entry->list = NULL;
    entry->hdr = &plugin.hdr;
    entry->u.l = dlopen(NULL, RTLD_NOW);
    *plugins = entry;
    return 0;
}

int lws_loop_bind(struct lws_context_creation_info *info)
{
    const char *version = lws_get_library_version();
    size_t len = strlen(KNOWN_VERSION);
    if (strncmp(version, KNOWN_VERSION, len) != 0 || (version[len] >= '0' && version[len] <= '9')) {
        log_error("libwebsockets refused: this build knows one version only",
                  log_str("needed", KNOWN_VERSION), log_str("found", version));
        return -1;
    }
    info->options |= LWS_SERVER_OPTION_LIBEVENT;
    return 0;
}
