#include "broker/config_loader.h"

#include "base/alloc.h"
#include "base/buffer.h"

#include <stdarg.h>
#include <string.h>

void loader_problem(struct loader *loader, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    }
    fprintf(loader->err, "switchboard: %s\n", line);
    loader->problems++;
}

void loader_note(struct loader *loader, const char *text)
{
    if (!loader->reloading)
        fprintf(loader->err, "switchboard: %s\n", text);
}

void loader_refuse_memory(struct loader *loader)
{
    loader_problem(loader, "out of memory");
}

static struct config_setting *setting_of(const struct config *config, const struct option_spec *spec)
{
    return &config->source->settings[spec - option_specs];
}

/* Writes how the value was given, without secrets; a URL that doesn't parse may hold a password, too. */
static void value_given(const struct option_spec *spec, enum config_rank rank, const char *origin,
                        const char *text, char *out, size_t size)
{
    char name[OPTION_NAME_SIZE];
    if (spec->type == OPTION_REDIS || spec->secret)
        text = OPTION_REDACTED;
    if (rank == RANK_COMMAND_LINE)
        snprintf(out, size, "--%s=%s", option_long_name(spec, name), text);
    else if (rank == RANK_ENVIRONMENT)
        snprintf(out, size, "%s=%s", option_env_name(spec, name), text);
    else
        snprintf(out, size, "%s: %s = %s", origin != NULL ? origin : "default", spec->key, text);
}

/* The text to parse: a list given again in the same place continues. */
static char *joined_text(const struct option_spec *spec, const struct config_setting *setting,
                         enum config_rank rank, const char *text)
{
    if (spec->type != OPTION_LIST || setting->rank != rank || setting->text == NULL)
        return mem_strdup(text);
    struct buffer joined;
    buffer_init(&joined, 0);
    char *copy = NULL;
    if (buffer_printf(&joined, "%s, %s", setting->text, text))
        copy = mem_strndup(joined.data, joined.len);
    buffer_close(&joined);
    return copy;
}

void loader_set(struct loader *loader, const struct option_spec *spec, enum config_rank rank,
                const char *origin, const char *text)
{
    struct config_setting *setting = setting_of(loader->config, spec);
    char given[256], reason[512];
    value_given(spec, rank, origin, text, given, sizeof given);
    if (setting->rank > rank)
        return;
    if (rank == RANK_FILE && setting->rank == rank && spec->type != OPTION_LIST) {
        loader_problem(loader, "%s: is set already at %s", given, setting->origin);
        setting->failed = true;
        return;
    }
    char *whole = joined_text(spec, setting, rank, text);
    char *place = mem_strdup(origin);
    if (whole == NULL || (origin != NULL && place == NULL)) {
        loader_refuse_memory(loader);
    } else if (!option_parse(spec, whole, loader->config, reason, sizeof reason)) {
        loader_problem(loader, "%s: %s", given, reason);
        setting->failed = true;
    } else {
        mem_free(setting->origin);
        mem_free(setting->text);
        setting->rank = rank;
        setting->origin = place;
        setting->text = whole;
        return;
    }
    mem_free(whole);
    mem_free(place);
}

void loader_unknown_key(struct loader *loader, const char *where, const char *shown, const char *key)
{
    const char *nearest = option_nearest(key);
    if (nearest != NULL)
        loader_problem(loader, "%s%s is unknown; did you mean %s? switchboard --help lists all keys", where,
                       shown, nearest);
    else
        loader_problem(loader, "%s%s is unknown; switchboard --help lists all keys", where, shown);
}
