/* A configuration file of any bytes is read or refused; what was read prints as a file that reads back to the
 * same. */
#include "base/buffer.h"
#include "broker/config.h"
#include "broker/options.h"
#include "fuzz.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static FILE *nowhere;

static struct config *load(const void *data, size_t size)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    fuzz_require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    char path[64], name[] = "switchboard", option[] = "-c";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    char *const argv[] = {name, option, path, NULL}, *const environment[] = {NULL};
    struct config *config;
    config_load(3, argv, environment, &config, nowhere, nowhere);
    close(fd);
    return config;
}

static void require_same(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < option_count; i++) {
        struct buffer x, y;
        buffer_init(&x, 0);
        buffer_init(&y, 0);
        option_format(&option_specs[i], a, true, &x);
        option_format(&option_specs[i], b, true, &y);
        fuzz_require(x.len == y.len && (x.len == 0 || memcmp(x.data, y.data, x.len) == 0));
        buffer_close(&x);
        buffer_close(&y);
    }
    fuzz_require(a->route_count == b->route_count);
    for (size_t i = 0; i < a->route_count; i++)
        fuzz_require(strcmp(a->routes[i]->pattern, b->routes[i]->pattern) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    struct config *config = load(data, size);
    if (config == NULL)
        return 0;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fuzz_require(out != NULL && config_print(config, out));
    fclose(out);
    struct config *again = load(text, len);
    if (config->redis.password != NULL) {
        fuzz_require(again == NULL);
    } else {
        fuzz_require(again != NULL);
        require_same(config, again);
    }
    free(text);
    config_unref(config);
    config_unref(again);
    return 0;
}
