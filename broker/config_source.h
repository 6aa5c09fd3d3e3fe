/* Where the values of a configuration came from; shared by the files that read, reload and print it. */
#ifndef BROKER_CONFIG_SOURCE_H
#define BROKER_CONFIG_SOURCE_H

#include "broker/options.h"

/* The lowest first: a value replaces one of a lower rank. */
enum config_rank { RANK_DEFAULT, RANK_BUILT_IN, RANK_FILE, RANK_ENVIRONMENT, RANK_COMMAND_LINE };

struct config_setting {
    enum config_rank rank;
    char *origin; /* owned: "FILE:LINE" with RANK_FILE, else NULL */
    char *text;   /* owned: as written; NULL for a default */
    bool failed;  /* some value given for this key was refused */
};

struct config_source {
    char **argv, **environment; /* owned copies, each ending with NULL; environment: SWITCHBOARD_… only */
    int argc;
    char *file;                       /* owned; NULL: none */
    struct config_setting settings[]; /* one for each row of option_specs */
};

/* Appends where the value came from, for people: "FILE:LINE", "environment NAME", "command line", … */
void config_origin(const struct config *config, const struct option_spec *spec, struct buffer *out);

#endif
