#include "base/alloc.h"
#include "client/swb/swb.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static bool takes(const struct command *command, enum option option)
{
    if (option < OPT_USER)
        return true;
    for (const enum option *own = command->options; *own != OPT_COUNT_ALL; own++)
        if (*own == option)
            return true;
    return false;
}

/* OPT_COUNT_ALL when there is none. */
static enum option find_option(const struct command *command, const char *name, size_t len)
{
    for (size_t i = 0; i < OPT_COUNT_ALL; i++) {
        const struct option_spec *spec = &option_specs[i];
        bool same =
            len == 1 ? spec->letter == *name : strlen(spec->name) == len && !memcmp(spec->name, name, len);
        if (same && takes(command, (enum option)i))
            return (enum option)i;
    }
    return OPT_COUNT_ALL;
}

/* Reads the option at argv[*at], which begins with a dash; moves to its argument when that is a word of its own. */
static bool read_option(struct args *args, int argc, char **argv, int *at)
{
    const char *word = argv[*at];
    bool wide = word[1] == '-';
    const char *name = word + (wide ? 2 : 1);
    size_t len = wide ? strcspn(name, "=") : 1;
    const char *value = wide ? (name[len] ? name + len + 1 : NULL) : name[1] ? name + 1 : NULL;
    enum option option = wide && len == 1 ? OPT_COUNT_ALL : find_option(args->command, name, len);

    if (option == OPT_COUNT_ALL) {
        complain("%s has no option %.*s (see swb %s --help)", args->command->name,
                 (int)(len + (wide ? 2 : 1)), word, args->command->name);
        return false;
    }
    const struct option_spec *spec = &option_specs[option];
    if (!spec->argument && value) {
        complain("--%s takes no value", spec->name);
        return false;
    }
    if (spec->argument && !value) {
        if (*at + 1 >= argc) {
            complain("--%s needs a value: --%s %s", spec->name, spec->name, spec->argument);
            return false;
        }
        value = argv[++*at];
    }
    args->values[option] = value ? value : "";
    if (option == OPT_TOPIC)
        args->topics[args->topic_count++] = value;
    return true;
}

static bool read_words(struct args *args, int argc, char **argv)
{
    bool options = true;

    for (int i = 0; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            if (!read_option(args, argc, argv, &i))
                return false;
        } else {
            args->words[args->word_count++] = argv[i];
            options = options && !args->command->program;
        }
    }
    return true;
}

bool args_parse(struct args *args, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";

    *args = (struct args){.word_count = 0};
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    args->command = find_command(name);
    if (!args->command) {
        complain("there is no command '%s' (see swb help)", name);
        return false;
    }
    args->words = mem_calloc((size_t)argc + 1, sizeof *args->words);
    args->topics = mem_calloc((size_t)argc + 1, sizeof *args->topics);
    if (!args->words || !args->topics) {
        complain("memory is short");
        return false;
    }
    if (!read_words(args, argc > 2 ? argc - 2 : 0, argv + 2))
        return false;
    if (args->values[OPT_HELP])
        return true;
    if (args->word_count < args->command->min_words || args->word_count > args->command->max_words) {
        complain("usage: swb %s [OPTION]... %s", args->command->name, args->command->usage);
        return false;
    }
    return true;
}

bool args_has(const struct args *args, enum option option)
{
    return args->values[option] != NULL;
}

bool args_number(const struct args *args, enum option option, uint64_t otherwise, uint64_t *value)
{
    const char *text = args->values[option];
    char *end;

    *value = otherwise;
    if (!text)
        return true;
    if (isdigit((unsigned char)*text) && strlen(text) < 16) {
        *value = strtoull(text, &end, 10);
        if (!*end)
            return true;
    }
    complain("--%s takes a number, not '%s'", option_specs[option].name, text);
    return false;
}

bool args_duration(const struct args *args, enum option option, unsigned otherwise, unsigned *ms)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}};
    enum { MAX_MS = 1000000000 };
    const char *text = args->values[option];
    char *end;

    *ms = otherwise;
    if (!text)
        return true;
    double number = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;
    for (size_t i = 0; number >= 0 && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].name) == 0 && number * units[i].ms <= MAX_MS) {
            *ms = (unsigned)(number * units[i].ms);
            return true;
        }
    }
    complain("--%s takes a time, as in 500ms, 5s or 2m, not '%s'", option_specs[option].name, text);
    return false;
}
