/* The input is up to six lines: pattern, address, on_message, reply, prefix, path. Whatever matches has a
 * valid address. */
#include "base/buffer.h"
#include "broker/config.h"
#include "broker/route.h"
#include "fuzz.h"
#include "proto/address.h"

#include <string.h>

enum { LINE_PATTERN, LINE_KEYS, LINE_PREFIX = LINE_KEYS + 3, LINE_PATH, LINE_COUNT };

/* Cuts `text` into LINE_COUNT strings; only the last, the path, may hold further newlines and NULs. */
static void cut(char *text, size_t size, char *lines[LINE_COUNT], size_t *path_len)
{
    char *end = text + size;
    for (size_t i = 0; i < LINE_COUNT; i++) {
        lines[i] = text;
        char *newline = i < LINE_PATH && text < end ? memchr(text, '\n', (size_t)(end - text)) : NULL;
        if (newline != NULL)
            *newline = '\0';
        text = newline != NULL ? newline + 1 : i < LINE_PATH ? end : text;
    }
    *path_len = (size_t)(end - lines[LINE_PATH]);
}

static void require_address(bool (*expand)(const struct route_params *, struct buffer *),
                            const struct route_params *params, bool present)
{
    struct buffer text;
    struct address address;
    buffer_init(&text, 0);
    fuzz_require(expand(params, &text));
    fuzz_require(present ? address_parse(slice_from(text.data, text.len), &address) == NULL : text.len == 0);
    buffer_close(&text);
}

static void try_path(const struct config *config, const char *path, size_t len)
{
    struct route_match match;
    enum route_result result = route_match(config, path, len, &match);
    fuzz_require((result == ROUTE_BAD_PARAMETER) == (match.problem[0] != '\0'));
    if (result != ROUTE_OK)
        return;
    struct buffer text;
    const struct route *route = match.params.route;
    require_address(route_address, &match.params, route->has_address);
    require_address(route_target, &match.params, route->target.count > 0);
    buffer_init(&text, 1 << 20);
    route_expand(&route->text, &match.params, path, len, &text);
    route_expand(&route->reply, &match.params, path, len, &text);
    buffer_close(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *lines[LINE_COUNT], problem[256];
    size_t path_len;
    fuzz_require(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    cut(text, size, lines, &path_len);

    struct route *route = route_create(lines[LINE_PATTERN], "fuzz:1", problem, sizeof problem);
    bool ok = route != NULL;
    for (size_t i = 0; ok && i < route_key_count; i++) {
        if (lines[LINE_KEYS + i][0] != '\0')
            ok = route_set(route, &route_keys[i], lines[LINE_KEYS + i], problem, sizeof problem);
    }
    if (ok) {
        struct config config = {
            .routes = &route,
            .route_count = 1,
            .prefixes = {.items = &lines[LINE_PREFIX], .count = lines[LINE_PREFIX][0] != '\0'}};
        try_path(&config, lines[LINE_PATH], path_len);
    }
    route_destroy(route);
    free(text);
    return 0;
}
