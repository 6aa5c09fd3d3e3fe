#include "client/swb/swb.h"

#include <stdio.h>
#include <string.h>

static void print_option(enum option option)
{
    const struct option_spec *spec = &option_specs[option];
    char left[64];

    snprintf(left, sizeof left, "%s%c%s--%s%s%s", spec->letter ? "-" : " ", spec->letter ? spec->letter : ' ',
             spec->letter ? ", " : "  ", spec->name, spec->argument ? " " : "",
             spec->argument ? spec->argument : "");
    printf("  %-24s  %s\n", left, spec->summary);
}

static void print_all(void)
{
    puts("Usage: swb COMMAND [OPTION]... [ARGUMENT]...\n\nThe command line of Switchboard, the message "
         "broker.\n");
    for (size_t i = 0; i < command_count; i++)
        printf("  %-11s %s\n", commands[i].name, commands[i].summary);
    puts("\nOptions of all commands:\n");
    for (size_t i = 0; i < OPT_USER; i++)
        print_option((enum option)i);
    puts("\nExit codes: 0 done, 1 error, 2 usage, 3 nobody there, 4 timeout, 5 refused, 6 unavailable.\n"
         "swb COMMAND --help explains a command.");
}

void help_print(const struct command *command)
{
    if (!command) {
        print_all();
        return;
    }
    printf("Usage: swb %s [OPTION]... %s\n\n%c%s.\n", command->name, command->usage,
           command->summary[0] - 'a' + 'A', command->summary + 1);
    if (command->details)
        printf("\n%s\n", command->details);
    puts("");
    for (const enum option *option = command->options; *option != OPT_COUNT_ALL; option++)
        print_option(*option);
    for (size_t i = 0; i < OPT_USER; i++)
        print_option((enum option)i);
}

int command_help(const struct args *args)
{
    if (!args->word_count) {
        help_print(NULL);
        return EXIT_OK;
    }
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, args->words[0]) == 0) {
            help_print(&commands[i]);
            return EXIT_OK;
        }
    }
    complain("there is no command '%s' (see swb help)", args->words[0]);
    return EXIT_USAGE;
}

int command_version(const struct args *args)
{
    (void)args;
    puts("swb " SWITCHBOARD_VERSION);
    return EXIT_OK;
}

/* ---- completion ---------------------------------------------------------------------------------------- */

static void print_long_options(const struct command *command)
{
    for (const enum option *option = command->options; *option != OPT_COUNT_ALL; option++)
        printf(" --%s", option_specs[*option].name);
    for (size_t i = 0; i < OPT_USER; i++)
        printf(" --%s", option_specs[i].name);
}

static void complete_bash(void)
{
    puts("_swb() {\n    local word=${COMP_WORDS[COMP_CWORD]} words=''\n    if ((COMP_CWORD == 1)); then");
    printf("        words='");
    for (size_t i = 0; i < command_count; i++)
        printf("%s%s", i ? " " : "", commands[i].name);
    puts("'\n    else\n        case ${COMP_WORDS[1]} in");
    for (size_t i = 0; i < command_count; i++) {
        printf("        %s) words='", commands[i].name);
        /* A usage such as bash|zsh names the words to choose from. */
        if (strchr(commands[i].usage, '|'))
            for (const char *at = commands[i].usage; *at; at++)
                if (!strchr("[]", *at))
                    putchar(*at == '|' ? ' ' : *at);
        print_long_options(&commands[i]);
        puts("' ;;");
    }
    puts("        esac\n"
         "        case ${COMP_WORDS[COMP_CWORD - 1]} in\n"
         "        --ca-file | --state)\n"
         "            mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
         "            return\n"
         "            ;;\n"
         "        esac\n"
         "    fi\n"
         "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
         "}\n"
         "complete -o default -F _swb swb");
}

/* In single quotes, with what zsh's _arguments takes for its own escaped. */
static void print_zsh(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            printf("'\\''");
        else if (strchr("[]:\\", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void print_zsh_option(enum option option)
{
    const struct option_spec *spec = &option_specs[option];

    printf(" \\\n            '%s--%s%s[", option == OPT_TOPIC ? "*" : "", spec->name,
           spec->argument ? "=" : "");
    print_zsh(spec->summary);
    printf("]%s%s%s'", spec->argument ? ":" : "", spec->argument ? spec->argument : "",
           spec->argument && strcmp(spec->argument, "FILE") == 0 ? ":_files"
           : spec->argument                                      ? ": "
                                                                 : "");
}

static void complete_zsh(void)
{
    puts("#compdef swb\n_swb() {\n    local -a commands=(");
    for (size_t i = 0; i < command_count; i++) {
        printf("        '%s:", commands[i].name);
        print_zsh(commands[i].summary);
        puts("'");
    }
    puts("    )\n    if ((CURRENT == 2)); then\n        _describe command commands\n        return\n    fi\n"
         "    local command=${words[2]}\n    shift words\n    ((CURRENT--))\n    case $command in");
    for (size_t i = 0; i < command_count; i++) {
        printf("    %s)\n        _arguments", commands[i].name);
        for (const enum option *option = commands[i].options; *option != OPT_COUNT_ALL; option++)
            print_zsh_option(*option);
        for (size_t k = 0; k < OPT_USER; k++)
            print_zsh_option((enum option)k);
        puts(" \\\n            '*::argument:_default'\n        ;;");
    }
    puts("    esac\n}\n_swb \"$@\"");
}

int command_completion(const struct args *args)
{
    if (strcmp(args->words[0], "bash") == 0) {
        complete_bash();
    } else if (strcmp(args->words[0], "zsh") == 0) {
        complete_zsh();
    } else {
        complain("completion knows bash and zsh, not '%s'", args->words[0]);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}
