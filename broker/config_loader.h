/* A configuration being read: shared by the readers of the command line, the environment and the file. */
#ifndef BROKER_CONFIG_LOADER_H
#define BROKER_CONFIG_LOADER_H

#include "broker/config_source.h"

#include <stdbool.h>
#include <stdio.h>

struct loader {
    struct config *config;
    FILE *err;
    size_t problems;

    /* What the command line asks for instead of running. */
    bool help, version, check, print, reference;

    bool reloading; /* into a running broker */

    /* The file being read. */
    const char *file;
    enum config_rank rank;
    enum { IN_TOP, IN_ROUTE, IN_UNKNOWN } section;
    struct route *route; /* NULL while its pattern is refused */
};

/* Writes one line to `err`, control characters replaced, and counts it. */
void loader_problem(struct loader *loader, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Writes one line to `err` that is no problem: at the start, not again at each reload. */
void loader_note(struct loader *loader, const char *text);
void loader_refuse_memory(struct loader *loader);

/* Sets a key, unless a higher rank has; `origin` is FILE:LINE with RANK_FILE, else NULL. */
void loader_set(struct loader *loader, const struct option_spec *spec, enum config_rank rank,
                const char *origin, const char *text);

/* Reports the key written as `shown`; `key` is how it would look in a file, to find what was meant. */
void loader_unknown_key(struct loader *loader, const char *where, const char *shown, const char *key);

/* The readers. The ranks must be read from low to high, the built-in routes last. */
void loader_read_file(struct loader *loader);
void loader_read_built_in(struct loader *loader);
void loader_read_environment(struct loader *loader);
void loader_read_keys(struct loader *loader); /* of the command line */

/* Reads what the command line asks for and refuses what it must not hold; `*file` becomes the argument of
 * -c, which lives as long as the configuration.
 */
void loader_read_commands(struct loader *loader, const char **file);

/* SWITCHBOARD_CONFIG, or NULL. */
const char *loader_environment_file(char *const environment[]);

#endif
