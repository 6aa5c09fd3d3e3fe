/* Text templates of routes: literal text, `{name}` for a path parameter, `{message}` for the message, and
 * `{{` `}}` for literal braces. Parsed once with the configuration, expanded for every message. */
#ifndef BROKER_TEMPLATE_H
#define BROKER_TEMPLATE_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>

struct buffer;

struct template_piece {
    enum { TEMPLATE_TEXT, TEMPLATE_PARAM, TEMPLATE_MESSAGE } kind;
    size_t param;      /* TEMPLATE_PARAM: its index among the names */
    struct slice text; /* TEMPLATE_TEXT: points into the template's storage */
};

struct template
{
    struct template_piece *pieces; /* owned */
    size_t count;
    char *storage; /* owned: the literal texts, braces unescaped */
};

/* Parses `source`. A parameter must be one of `names`; `{message}` is known only with `with_message`. On
 * failure the template is empty and `problem` says why, in words for the author of the configuration. */
bool template_parse(struct template *template, const char *source, char *const names[], size_t name_count,
                    bool with_message, char *problem, size_t problem_size);
void template_close(struct template *template);

/* True when expanding yields the message as it is: nothing was configured, or `{message}` alone. */
bool template_is_plain(const struct template *template);

/* The number of bytes template_expand() appends. `values` are the parameters in the order of `names`. */
size_t template_size(const struct template *template, const struct slice *values, size_t message_len);

/* Appends the expansion; false when the buffer had no room, and then it is unchanged. */
bool template_expand(const struct template *template, const struct slice *values, const char *message,
                     size_t message_len, struct buffer *out);

#endif
