#include "broker/template.h"

#include "base/alloc.h"
#include "base/buffer.h"

#include <stdio.h>
#include <string.h>

struct parser {
    struct template *template;
    char *const *names;
    size_t name_count;
    bool with_message;
    char *write; /* where the next literal byte goes, in template->storage */
    char *problem;
    size_t problem_size;
};

static void add_literal(struct parser *parser, char byte)
{
    struct template *template = parser->template;
    struct template_piece *last = template->count > 0 ? &template->pieces[template->count - 1] : NULL;
    if (last == NULL || last->kind != TEMPLATE_TEXT) {
        last = &template->pieces[template->count++];
        *last = (struct template_piece){.kind = TEMPLATE_TEXT, .text.data = parser->write};
    }
    *parser->write++ = byte;
    last->text.len++;
}

static bool is_name(const char *name, const char *start, size_t len)
{
    return strlen(name) == len && memcmp(name, start, len) == 0;
}

static bool add_placeholder(struct parser *parser, const char *name, size_t len)
{
    struct template_piece *piece = &parser->template->pieces[parser->template->count];
    for (size_t i = 0; i < parser->name_count; i++) {
        if (is_name(parser->names[i], name, len)) {
            *piece = (struct template_piece){.kind = TEMPLATE_PARAM, .param = i};
            parser->template->count++;
            return true;
        }
    }
    if (parser->with_message && is_name("message", name, len)) {
        *piece = (struct template_piece){.kind = TEMPLATE_MESSAGE};
        parser->template->count++;
        return true;
    }

    struct buffer known;
    buffer_init(&known, parser->problem_size);
    for (size_t i = 0; i < parser->name_count; i++)
        buffer_printf(&known, "%s{%s}", i > 0 ? ", " : "", parser->names[i]);
    if (parser->with_message)
        buffer_printf(&known, "%s{message}", known.len > 0 ? ", " : "");
    const char *list = buffer_text(&known);
    snprintf(parser->problem, parser->problem_size, "{%.*s} is unknown here; known: %s",
             len > 64 ? 64 : (int)len, name,
             list != NULL && list[0] != '\0' ? list : "nothing, as the route has no parameters");
    buffer_close(&known);
    return false;
}

static bool parse(struct parser *parser, const char *source)
{
    for (const char *p = source; *p != '\0'; p++) {
        if ((*p == '{' || *p == '}') && p[1] == *p) {
            add_literal(parser, *p++);
        } else if (*p == '{') {
            size_t len = strcspn(p + 1, "{}");
            if (p[1 + len] != '}') {
                snprintf(parser->problem, parser->problem_size,
                         "a { is not closed; write {{ for a literal brace");
                return false;
            }
            if (!add_placeholder(parser, p + 1, len))
                return false;
            p += 1 + len;
        } else if (*p == '}') {
            snprintf(parser->problem, parser->problem_size, "a } has no {; write }} for a literal brace");
            return false;
        } else {
            add_literal(parser, *p);
        }
    }
    return true;
}

bool template_parse(struct template *template, const char *source, char *const names[], size_t name_count,
                    bool with_message, char *problem, size_t problem_size)
{
    /* A piece takes at least one byte of the source, so its length bounds both allocations. */
    size_t size = strlen(source) + 1;
    *template = (struct template){.pieces = mem_calloc(size, sizeof(struct template_piece)),
                                  .storage = mem_alloc(size)};
    struct parser parser = {.template = template,
                            .names = names,
                            .name_count = name_count,
                            .with_message = with_message,
                            .write = template->storage,
                            .problem = problem,
                            .problem_size = problem_size};
    if (template->pieces == NULL || template->storage == NULL)
        snprintf(problem, problem_size, "out of memory");
    else if (parse(&parser, source))
        return true;
    template_close(template);
    return false;
}

void template_close(struct template *template)
{
    mem_free(template->pieces);
    mem_free(template->storage);
    *template = (struct template){0};
}

bool template_is_plain(const struct template *template)
{
    return template->pieces == NULL || (template->count == 1 && template->pieces[0].kind == TEMPLATE_MESSAGE);
}

static struct slice piece_value(const struct template_piece *piece, const struct slice *values,
                                struct slice message)
{
    switch (piece->kind) {
    case TEMPLATE_PARAM:
        return values[piece->param];
    case TEMPLATE_MESSAGE:
        return message;
    default:
        return piece->text;
    }
}

size_t template_size(const struct template *template, const struct slice *values, size_t message_len)
{
    size_t size = 0;
    for (size_t i = 0; i < template->count; i++)
        size += piece_value(&template->pieces[i], values, (struct slice){.len = message_len}).len;
    return size;
}

bool template_expand(const struct template *template, const struct slice *values, const char *message,
                     size_t message_len, struct buffer *out)
{
    if (!buffer_reserve(out, template_size(template, values, message_len))) {
        out->failed = true;
        return false;
    }
    for (size_t i = 0; i < template->count; i++) {
        struct slice value =
            piece_value(&template->pieces[i], values, (struct slice){.data = message, .len = message_len});
        if (value.len > 0)
            buffer_append(out, value.data, value.len);
    }
    return true;
}
