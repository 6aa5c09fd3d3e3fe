/* The configuration from outside: the environment and the command line. */
#include "base/alloc.h"
#include "broker/config_loader.h"

#include <assert.h>
#include <getopt.h>
#include <string.h>

#define ENV_PREFIX "SWITCHBOARD_"

/* --- The environment
 * ------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* Kubernetes puts such variables into every container when a service is called switchboard or switchboard-….
 * https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables */
static bool is_service_variable(const char *name)
{
    return strstr(name, "_SERVICE_HOST") != NULL || strstr(name, "_SERVICE_PORT") != NULL ||
           strstr(name, "_PORT_") != NULL || ends_with(name, "_PORT");
}

static const struct option_spec *find_variable(const char *name)
{
    char known[OPTION_NAME_SIZE];
    for (size_t i = 0; i < option_count; i++) {
        if (strcmp(option_env_name(&option_specs[i], known), name) == 0)
            return &option_specs[i];
    }
    return NULL;
}

/* What swb reads, the command line of the same product, and what it tells the programs that it runs. */
static bool is_of_swb(const char *name)
{
    static const char *const names[] = {"URL", "TOKEN", "FROM", "TO", "KIND"};
    name += strlen(ENV_PREFIX);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

/* The one name that both read. swb takes the broker's form of it too; what only swb takes is meant for swb. */
static bool is_url_for_swb(struct loader *loader, const char *name, const char *value)
{
    if (strcmp(name, ENV_PREFIX "API") != 0 || strstr(value, "://") == NULL)
        return false;
    loader_note(loader,
                ENV_PREFIX "API holds a URL, which is for swb, and is not used here: the broker's own is "
                           "ADDR:PORT or off");
    return true;
}

/* An empty variable counts as unset: that is how compose files and units pass "nothing". */
static void read_variable(struct loader *loader, const char *variable)
{
    const char *equals = strchr(variable, '=');
    char name[128], key[128];
    if (equals == NULL || equals[1] == '\0' || strncmp(variable, ENV_PREFIX, strlen(ENV_PREFIX)) != 0)
        return;
    snprintf(name, sizeof name, "%.*s", (int)(equals - variable), variable);
    if (strcmp(name, ENV_PREFIX "CONFIG") == 0 || is_of_swb(name) || is_url_for_swb(loader, name, equals + 1))
        return;
    const struct option_spec *spec = find_variable(name);
    if (spec != NULL) {
        loader_set(loader, spec, RANK_ENVIRONMENT, NULL, equals + 1);
        return;
    }
    if (is_service_variable(name))
        return;
    snprintf(key, sizeof key, "%s", name + strlen(ENV_PREFIX));
    for (char *p = key; *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    }
    loader_unknown_key(loader, "environment: ", name, key);
}

const char *loader_environment_file(char *const environment[])
{
    static const char name[] = ENV_PREFIX "CONFIG=";
    for (size_t i = 0; environment[i] != NULL; i++) {
        if (strncmp(environment[i], name, strlen(name)) == 0 && environment[i][strlen(name)] != '\0')
            return environment[i] + strlen(name);
    }
    return NULL;
}

void loader_read_environment(struct loader *loader)
{
    for (char **variable = loader->config->source->environment; *variable != NULL; variable++)
        read_variable(loader, *variable);
}

/* --- The command line
 * ------------------------------------------------------------------------------------------ */

enum { OPT_KEYS = 1000, OPT_CHECK = 256, OPT_PRINT, OPT_REFERENCE };

static const struct option commands[] = {
    {"config", required_argument, NULL, 'c'},
    {"check-config", no_argument, NULL, OPT_CHECK},
    {"print-config", no_argument, NULL, OPT_PRINT},
    {"print-config-reference", no_argument, NULL, OPT_REFERENCE},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
};
enum { OPTIONS_MAX = 128, COMMAND_COUNT = sizeof commands / sizeof commands[0] };

/* getopt's tables, made from the table of keys. */
struct getopt_tables {
    char names[OPTIONS_MAX][OPTION_NAME_SIZE];
    struct option options[COMMAND_COUNT + OPTIONS_MAX + 1];
    char letters[sizeof ":c:hV" + 2 * OPTIONS_MAX];
};

static void make_tables(struct getopt_tables *tables)
{
    assert(option_count <= OPTIONS_MAX);
    *tables = (struct getopt_tables){0};
    memcpy(tables->options, commands, sizeof commands);
    char *letters = stpcpy(tables->letters, ":c:hV");
    for (size_t i = 0; i < option_count; i++) {
        const struct option_spec *spec = &option_specs[i];
        bool flag = spec->type == OPTION_BOOL;
        tables->options[COMMAND_COUNT + i] =
            (struct option){.name = option_long_name(spec, tables->names[i]),
                            .has_arg = flag ? optional_argument : required_argument,
                            .val = OPT_KEYS + (int)i};
        if (spec->letter != 0) {
            *letters++ = spec->letter;
            *letters++ = ':';
        }
    }
    *letters = '\0';
}

static const struct option_spec *find_letter(int letter)
{
    for (size_t i = 0; i < option_count; i++) {
        if (option_specs[i].letter == letter)
            return &option_specs[i];
    }
    return NULL;
}

static void on_bad_option(struct loader *loader, int code, const char *argument)
{
    char key[OPTION_NAME_SIZE] = "", shown[3] = {'-', (char)optopt, '\0'};
    if (code == ':') {
        loader_problem(loader, "%s needs a value; see switchboard --help", argument);
    } else if (strncmp(argument, "--", 2) != 0) {
        loader_problem(loader, "%s is unknown; see switchboard --help", shown);
    } else if (optopt != 0) {
        loader_problem(loader, "%s takes no value; see switchboard --help", argument);
    } else {
        snprintf(key, sizeof key, "%.*s", (int)strcspn(argument + 2, "="), argument + 2);
        for (char *p = key; *p != '\0'; p++) {
            if (*p == '-')
                *p = '_';
        }
        const char *nearest = option_nearest(key);
        char name[OPTION_NAME_SIZE];
        const struct option_spec *spec = nearest != NULL ? option_find(nearest) : NULL;
        loader_problem(loader, "%.*s is unknown or ambiguous%s%s%s; see switchboard --help",
                       (int)strcspn(argument, "="), argument, spec != NULL ? "; did you mean --" : "",
                       spec != NULL ? option_long_name(spec, name) : "", spec != NULL ? "?" : "");
    }
}

static void on_command(struct loader *loader, int code, const char **file)
{
    if (code == 'c')
        *file = optarg;
    else if (code == 'h')
        loader->help = true;
    else if (code == 'V')
        loader->version = true;
    else if (code == OPT_CHECK)
        loader->check = true;
    else if (code == OPT_PRINT)
        loader->print = true;
    else if (code == OPT_REFERENCE)
        loader->reference = true;
}

/* One walk over the command line: what a file may say must be read before the keys given here. getopt
 * permutes the array it walks over, so each walk has a copy. */
static void walk(struct loader *loader, const char **file, bool commands_only)
{
    char **words = loader->config->source->argv;
    struct getopt_tables tables;
    make_tables(&tables);
    int argc = 0, code;
    while (words[argc] != NULL)
        argc++;
    char **argv = mem_dup(words, ((size_t)argc + 1) * sizeof *argv);
    if (argv == NULL) {
        loader_refuse_memory(loader);
        return;
    }
    optind = 0; /* begin anew */
    opterr = 0;
    while ((code = getopt_long(argc, argv, tables.letters, tables.options, NULL)) != -1) {
        const struct option_spec *spec =
            code >= OPT_KEYS ? &option_specs[code - OPT_KEYS] : find_letter(code);
        if (spec != NULL && !commands_only)
            loader_set(loader, spec, RANK_COMMAND_LINE, NULL, optarg != NULL ? optarg : "yes");
        else if (spec == NULL && commands_only && (code == '?' || code == ':'))
            on_bad_option(loader, code, argv[optind - 1]);
        else if (spec == NULL && commands_only)
            on_command(loader, code, file);
    }
    for (int i = optind; commands_only && i < argc; i++)
        loader_problem(loader, "%s: there are no arguments besides options; see switchboard --help", argv[i]);
    mem_free(argv);
}

void loader_read_commands(struct loader *loader, const char **file)
{
    walk(loader, file, true);
}

void loader_read_keys(struct loader *loader)
{
    walk(loader, NULL, false);
}
