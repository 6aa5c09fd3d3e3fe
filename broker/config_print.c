/* The configuration for people: --help, --print-config and the reference in the manual. */
#include "base/buffer.h"
#include "broker/config_file.h"
#include "broker/config_source.h"

#include <ctype.h>
#include <string.h>

enum { HELP_WIDTH = 100, HELP_COLUMN = 33, COMMENT_COLUMN = 44 };

void config_origin(const struct config *config, const struct option_spec *spec, struct buffer *out)
{
    const struct config_setting *setting = &config->source->settings[spec - option_specs];
    char name[OPTION_NAME_SIZE];
    switch (setting->rank) {
    case RANK_DEFAULT:
        buffer_append_text(out, "default");
        break;
    case RANK_BUILT_IN:
        buffer_append_text(out, "built in");
        break;
    case RANK_FILE:
        buffer_append_text(out, setting->origin);
        break;
    case RANK_ENVIRONMENT:
        buffer_printf(out, "environment %s", option_env_name(spec, name));
        break;
    case RANK_COMMAND_LINE:
        buffer_append_text(out, "command line");
        break;
    }
}

/* --- As a file
 * ------------------------------------------------------------------------------------------------- */

/* One line, with its comment behind it, or above it where both would not fit. */
static bool print_pair(FILE *out, const char *key, const char *value, size_t len, const char *comment)
{
    struct buffer line;
    buffer_init(&line, 0);
    buffer_printf(&line, strlen(key) + len + 3 > CONFIG_LINE_MAX ? "%s=" : "%s = ", key);
    buffer_append(&line, value, len);
    const char *text = buffer_text(&line);
    if (text == NULL || line.failed) {
        buffer_close(&line);
        return false;
    }
    bool beside = line.len + 3 + strlen(comment) <= HELP_WIDTH;
    if (!beside && comment[0] != '\0')
        fprintf(out, "; %s\n", comment);
    if (line.len > CONFIG_LINE_MAX)
        fprintf(out, "; the next value is too long for a line; keep it in the environment\n; ");
    if (beside && comment[0] != '\0')
        fprintf(out, "%-*s ; %s\n", COMMENT_COLUMN, text, comment);
    else
        fprintf(out, "%s\n", text);
    buffer_close(&line);
    return true;
}

static bool print_list(FILE *out, const struct option_spec *spec, const struct config_list *list,
                       const char *comment)
{
    if (list->count == 0)
        return print_pair(out, spec->key, "", 0, comment);
    bool ok = true;
    for (size_t i = 0; i < list->count; i++)
        ok = print_pair(out, spec->key, list->items[i], strlen(list->items[i]), comment) && ok;
    return ok;
}

static bool print_setting(FILE *out, const struct config *config, const struct option_spec *spec)
{
    struct buffer value, origin;
    buffer_init(&value, 0);
    buffer_init(&origin, 0);
    config_origin(config, spec, &origin);
    option_format(spec, config, false, &value);
    if (spec->type == OPTION_REDIS && config->redis.password != NULL)
        buffer_append_text(&origin, "; *** stands for the password");
    if (spec->secret && value.len > 0)
        buffer_append_text(&origin, "; *** stands for the secret");
    const char *comment = buffer_text(&origin);
    bool ok = comment != NULL && buffer_text(&value) != NULL && !value.failed && !origin.failed;
    if (ok && spec->type == OPTION_LIST)
        ok = print_list(out, spec,
                        (const struct config_list *)(const void *)((const char *)config + spec->offset),
                        comment);
    else if (ok)
        ok = print_pair(out, spec->key, value.data, value.len, comment);
    buffer_close(&value);
    buffer_close(&origin);
    return ok;
}

static bool print_route(FILE *out, const struct route *route)
{
    fprintf(out, "\n; %s\n[route %s]\n", route->origin, route->pattern);
    for (size_t i = 0; i < route_key_count; i++) {
        const char *value = route->sources[i];
        if (value != NULL && !print_pair(out, route_keys[i].key, value, strlen(value), ""))
            return false;
    }
    return true;
}

bool config_print(const struct config *config, FILE *out)
{
    bool ok = true;
    fprintf(out, "; The configuration of switchboard %s, each value with its source.\n[switchboard]\n",
            SWITCHBOARD_VERSION);
    for (int group = 0; group < GROUP_COUNT; group++) {
        fprintf(out, "\n; %s\n", option_group_titles[group]);
        for (size_t i = 0; i < option_count; i++) {
            if ((int)option_specs[i].group == group)
                ok = print_setting(out, config, &option_specs[i]) && ok;
        }
    }
    for (size_t i = 0; i < config->route_count; i++)
        ok = print_route(out, config->routes[i]) && ok;
    return ok && fflush(out) == 0 && !ferror(out);
}

/* --- --help
 * ---------------------------------------------------------------------------------------------------- */

/* Prints `text` word by word between the help column and the right edge; the cursor stands at `column`. */
static void print_wrapped(FILE *out, const char *text, size_t column)
{
    if (column + 2 > HELP_COLUMN) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", (int)(HELP_COLUMN - column), "");
    column = HELP_COLUMN;
    for (const char *space = ""; *text != '\0'; space = " ") {
        size_t word = strcspn(text, " ");
        if (column + strlen(space) + word > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
            space = "";
        }
        fprintf(out, "%s%.*s", space, (int)word, text);
        column += strlen(space) + word;
        text += word + strspn(text + word, " ");
    }
    fputc('\n', out);
}

static void print_option_help(FILE *out, char letter, const char *name, const char *meta, const char *help)
{
    char left[128];
    int len = letter != 0
                  ? snprintf(left, sizeof left, "  -%c, --%s %s", letter, name, meta)
                  : snprintf(left, sizeof left, "      --%s%s%s", name, meta[0] == '[' ? "" : " ", meta);
    while (len > 0 && left[len - 1] == ' ')
        left[--len] = '\0';
    fputs(left, out);
    print_wrapped(out, help, (size_t)len);
}

/* The buffer's text, or nothing when memory is short. */
static const char *text_of(struct buffer *buffer)
{
    const char *text = buffer_text(buffer);
    return text != NULL ? text : "";
}

static void print_spec_help(FILE *out, const struct option_spec *spec)
{
    char name[OPTION_NAME_SIZE], meta[OPTION_NAME_SIZE];
    struct buffer help;
    buffer_init(&help, 0);
    buffer_append_text(&help, spec->help);
    if (spec->type == OPTION_ENUM) {
        buffer_append_text(&help, " One of ");
        option_describe(spec, &help);
        buffer_append_text(&help, ".");
    }
    if (spec->fallback[0] != '\0')
        buffer_printf(&help, " (default %s)", spec->fallback);
    snprintf(meta, sizeof meta, spec->type == OPTION_BOOL ? "[=%s]" : "%s", spec->meta);
    print_option_help(out, spec->letter, option_long_name(spec, name), meta, text_of(&help));
    buffer_close(&help);
}

static const struct {
    char letter;
    const char *name, *meta, *help;
} command_help[] = {
    {'c', "config", "FILE", "Read this configuration file. Without it none is read."},
    {0, "check-config", "",
     "Check the configuration and exit: 0 when it is sound, 2 with every problem named."},
    {0, "print-config", "",
     "Print the configuration in effect as a file, each value with its source, and exit."},
    {0, "print-config-reference", "", "Print the reference of all keys in Markdown and exit."},
    {'V', "version", "", "Print the version and exit."},
    {'h', "help", "", "Print this help and exit."},
};

void config_print_help(FILE *out)
{
    fputs("Usage: switchboard [OPTION]...\n"
          "A pub/sub broker that puts every WebSocket client one publish away.\n\n",
          out);
    for (size_t i = 0; i < sizeof command_help / sizeof command_help[0]; i++)
        print_option_help(out, command_help[i].letter, command_help[i].name, command_help[i].meta,
                          command_help[i].help);
    for (int group = 0; group < GROUP_COUNT; group++) {
        fprintf(out, "\n%s:\n", option_group_titles[group]);
        for (size_t i = 0; i < option_count; i++) {
            if ((int)option_specs[i].group == group)
                print_spec_help(out, &option_specs[i]);
        }
    }
    fputs("\nTIME is a number with ms, s, m or h; SIZE is a number of bytes, or with KiB, MiB or GiB.\n"
          "Every option but those of the first group is also a key of the file (max_connections = N) and\n"
          "an environment variable (SWITCHBOARD_MAX_CONNECTIONS=N). The command line wins over the\n"
          "environment, the environment over the file, the file over the default. SWITCHBOARD_CONFIG names\n"
          "a file like --config. Routes are configured in the file only; without any, /websocket/{uid},\n"
          "/websocket/{relationId}/{userCode} and /topics/{name} are served.\n",
          out);
}

/* --- The reference
 * --------------------------------------------------------------------------------------------- */

static void print_cell(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static void print_reference_row(FILE *out, const struct option_spec *spec)
{
    struct buffer allowed;
    buffer_init(&allowed, 0);
    option_describe(spec, &allowed);
    fprintf(out, "| `%s` | ", spec->key);
    print_cell(out, text_of(&allowed));
    fprintf(out, spec->fallback[0] != '\0' ? " | `%s` | " : " | %s | ",
            spec->fallback[0] != '\0' ? spec->fallback : "none");
    fprintf(out, "%s | ", spec->reload ? "yes" : "no");
    print_cell(out, spec->help);
    fputs(" |\n", out);
    buffer_close(&allowed);
}

void config_print_reference(FILE *out)
{
    fputs("# Configuration\n\n"
          "All keys, as `switchboard --print-config-reference` prints them. What a file looks like shows\n"
          "[deploy/switchboard.conf](../deploy/switchboard.conf). The command line wins over the "
          "environment, the\n"
          "environment over the file.\n\n"
          "Each key is also a command line option (`max_connections` is `--max-connections`) and an "
          "environment\n"
          "variable (`SWITCHBOARD_MAX_CONNECTIONS`). \"Reload\" tells whether SIGHUP changes it in a running "
          "broker.\n",
          out);
    for (int group = 0; group < GROUP_COUNT; group++) {
        fprintf(out, "\n## %s\n\n| key | allowed | default | reload | meaning |\n|---|---|---|---|---|\n",
                option_group_titles[group]);
        for (size_t i = 0; i < option_count; i++) {
            if ((int)option_specs[i].group == group)
                print_reference_row(out, &option_specs[i]);
        }
    }
    fputs("\n## `[route PATTERN]`\n\n| key | value | meaning |\n|---|---|---|\n", out);
    for (size_t i = 0; i < route_key_count; i++) {
        fprintf(out, "| `%s` | ", route_keys[i].key);
        print_cell(out, route_keys[i].form);
        fputs(" | ", out);
        print_cell(out, route_keys[i].help);
        fputs(" |\n", out);
    }
}
