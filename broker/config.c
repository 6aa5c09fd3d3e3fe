#include "broker/config.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "broker/config_check.h"
#include "broker/config_loader.h"

#include <stdlib.h>
#include <string.h>

static void on_check_problem(void *data, const char *sentence)
{
    loader_problem(data, "%s", sentence);
}

/* --- Life
 * ------------------------------------------------------------------------------------------------------ */

static void free_strings(char **strings)
{
    for (char **p = strings; p != NULL && *p != NULL; p++)
        mem_free(*p);
    mem_free(strings);
}

/* Copies those strings that begin with `prefix`. */
static char **copy_strings(char *const strings[], const char *prefix)
{
    size_t count = 0, kept = 0;
    while (strings[count] != NULL)
        count++;
    char **copy = mem_calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++) {
        if (strncmp(strings[i], prefix, strlen(prefix)) != 0)
            continue;
        copy[kept] = mem_strdup(strings[i]);
        if (copy[kept++] == NULL) {
            free_strings(copy);
            return NULL;
        }
    }
    return copy;
}

static void source_destroy(struct config_source *source)
{
    if (source == NULL)
        return;
    for (size_t i = 0; i < option_count; i++) {
        mem_free(source->settings[i].origin);
        mem_free(source->settings[i].text);
    }
    free_strings(source->argv);
    free_strings(source->environment);
    mem_free(source->file);
    mem_free(source);
}

static void config_destroy(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < option_count; i++)
        option_clear(&option_specs[i], config);
    for (size_t i = 0; i < config->route_count; i++)
        route_destroy(config->routes[i]);
    mem_free(config->routes);
    source_destroy(config->source);
    mem_free(config);
}

/* A configuration of nothing but defaults; NULL when memory is short. */
static struct config *config_create(char *const argv[], char *const environment[])
{
    char reason[256];
    struct config *config = mem_calloc(1, sizeof *config);
    if (config == NULL)
        return NULL;
    config->references = 1;
    config->source = mem_calloc(1, sizeof *config->source + option_count * sizeof(struct config_setting));
    bool ok = config->source != NULL;
    if (ok) {
        config->source->argv = copy_strings(argv, "");
        config->source->environment = copy_strings(environment, "SWITCHBOARD_");
        ok = config->source->argv != NULL && config->source->environment != NULL;
    }
    for (size_t i = 0; ok && i < option_count; i++)
        ok = option_parse(&option_specs[i], option_specs[i].fallback, config, reason, sizeof reason);
    if (ok)
        return config;
    config_destroy(config);
    return NULL;
}

struct config *config_ref(struct config *config)
{
    config->references++;
    return config;
}

void config_unref(struct config *config)
{
    if (config != NULL && --config->references == 0)
        config_destroy(config);
}

/* No key configures authentication yet. */
bool config_has_auth(const struct config *config)
{
    (void)config;
    return false;
}

/* --- Loading
 * --------------------------------------------------------------------------------------------------- */

static bool asks_for_text(const struct loader *loader)
{
    return loader->help || loader->version || loader->reference;
}

/* Reads everything into loader->config. */
static void load_sources(struct loader *loader)
{
    struct config_source *source = loader->config->source;
    const char *file = NULL;
    loader_read_commands(loader, &file);
    if (asks_for_text(loader))
        return;
    if (file == NULL)
        file = loader_environment_file(source->environment);
    source->file = mem_strdup(file);
    if (file != NULL && source->file == NULL)
        loader_refuse_memory(loader);

    loader_read_file(loader);
    loader_read_environment(loader);
    loader_read_keys(loader);
    struct config *config = loader->config;
    if (config->route_count == 0)
        loader_read_built_in(loader);
    if (config->storage == CONFIG_STORAGE_AUTO)
        config->storage =
            config->redis.kind == CONFIG_REDIS_NONE ? CONFIG_STORAGE_MEMORY : CONFIG_STORAGE_REDIS;
}

/* Prints what the command line asked for; false when it asked to run. */
static bool print_asked(const struct loader *loader, FILE *out)
{
    const char *file = loader->config->source->file;
    if (loader->help)
        config_print_help(out);
    else if (loader->version)
        fprintf(out, "switchboard %s\n", SWITCHBOARD_VERSION);
    else if (loader->reference)
        config_print_reference(out);
    else if (loader->print)
        config_print(loader->config, out);
    else if (loader->check)
        fprintf(out, "%s: OK\n", file != NULL ? file : "configuration");
    else
        return false;
    return true;
}

enum config_outcome config_load(int argc, char *const argv[], char *const environ[], struct config **config,
                                FILE *out, FILE *err)
{
    static char *const no_arguments[] = {(char *)"switchboard", NULL};
    struct loader loader = {.config = config_create(argc > 0 ? argv : no_arguments, environ), .err = err};
    *config = NULL;
    if (loader.config == NULL) {
        fprintf(err, "switchboard: out of memory\n");
        return CONFIG_FAILED;
    }
    load_sources(&loader);
    if (!asks_for_text(&loader))
        config_check(loader.config, on_check_problem, &loader);
    else
        loader.problems = 0;

    enum config_outcome outcome = CONFIG_FAILED;
    if (loader.problems == 0)
        outcome = print_asked(&loader, out) ? CONFIG_DONE : CONFIG_LOADED;
    if (outcome == CONFIG_LOADED)
        *config = loader.config;
    else
        config_unref(loader.config);
    return outcome;
}

/* --- Reloading
 * ------------------------------------------------------------------------------------------------- */

static void log_ignored(const struct option_spec *spec, const struct config *old, const struct config *config)
{
    struct buffer was, now;
    buffer_init(&was, 0);
    buffer_init(&now, 0);
    option_format(spec, old, false, &was);
    option_format(spec, config, false, &now);
    log_warn("setting can't change while running", log_str("key", spec->key),
             log_bytes("kept", was.data, was.len), log_bytes("ignored", now.data, now.len));
    buffer_close(&was);
    buffer_close(&now);
}

/* Puts the old value of a key that can't change back in place. */
static bool keep_old(const struct option_spec *spec, const struct config *old, struct config *config)
{
    struct buffer was, now;
    char reason[256];
    buffer_init(&was, 0);
    buffer_init(&now, 0);
    option_format(spec, old, true, &was);
    option_format(spec, config, true, &now);
    const char *text = buffer_text(&was);
    bool ok = text != NULL && buffer_text(&now) != NULL && !was.failed && !now.failed;
    if (ok && strcmp(text, now.data) != 0) {
        struct config_setting *to = &config->source->settings[spec - option_specs];
        const struct config_setting *from = &old->source->settings[spec - option_specs];
        char *origin = mem_strdup(from->origin);
        log_ignored(spec, old, config);
        ok = option_parse(spec, text, config, reason, sizeof reason) &&
             (origin != NULL || from->origin == NULL);
        mem_free(to->origin);
        to->origin = origin;
        to->rank = from->rank;
    }
    buffer_close(&was);
    buffer_close(&now);
    return ok;
}

static void log_problems(const char *text)
{
    static const char prefix[] = "switchboard: ";
    for (const char *line = text; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        const char *start = strncmp(line, prefix, strlen(prefix)) == 0 ? line + strlen(prefix) : line;
        log_error("configuration not reloaded", log_bytes("problem", start, len - (size_t)(start - line)));
        line += len + (line[len] == '\n');
    }
}

struct config *config_reload(const struct config *old)
{
    char *text = NULL;
    size_t size = 0;
    struct loader loader = {.config = config_create(old->source->argv, old->source->environment),
                            .err = open_memstream(&text, &size),
                            .reloading = true};
    bool ok = loader.config != NULL && loader.err != NULL;
    if (ok) {
        load_sources(&loader);
        for (size_t i = 0; i < option_count && loader.problems == 0; i++) {
            if (!option_specs[i].reload && !keep_old(&option_specs[i], old, loader.config))
                loader_refuse_memory(&loader);
        }
        config_check(loader.config, on_check_problem, &loader);
        ok = loader.problems == 0;
    }
    if (loader.err != NULL)
        fclose(loader.err);
    if (!ok)
        log_problems(text != NULL && text[0] != '\0' ? text : "out of memory");
    free(text);
    if (ok)
        return loader.config;
    config_unref(loader.config);
    return NULL;
}
