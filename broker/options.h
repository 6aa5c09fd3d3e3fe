/* The table of configuration keys. The command line, the environment, the file, --help, --print-config and
 * the reference in the manual are all read from it. */
#ifndef BROKER_OPTIONS_H
#define BROKER_OPTIONS_H

#include "broker/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;

enum option_type {
    OPTION_BOOL,     /* bool */
    OPTION_INTEGER,  /* uint64_t */
    OPTION_SIZE,     /* uint64_t, bytes */
    OPTION_DURATION, /* uint64_t, milliseconds */
    OPTION_ADDRESS,  /* struct config_address */
    OPTION_ENUM,     /* an enum whose values index `names` */
    OPTION_STRING,   /* char * */
    OPTION_LIST,     /* struct config_list */
    OPTION_REDIS     /* struct config_redis */
};

enum option_group { GROUP_LISTEN, GROUP_STORAGE, GROUP_LIMITS, GROUP_TIMES, GROUP_LOG, GROUP_COUNT };

struct option_spec {
    const char
        *key; /* in the file; --key on the command line with - for _, SWITCHBOARD_KEY in the environment */
    enum option_type type;
    enum option_group group;
    size_t offset;                    /* of the field in struct config */
    const char *fallback;             /* the default, as one would write it */
    uint64_t min, max;                /* INTEGER, SIZE, DURATION */
    bool zero_allowed;                /* 0 (off) as well, below min */
    bool off_allowed;                 /* ADDRESS: "off" */
    const char *const *names;         /* ENUM: ends with NULL */
    bool (*check)(const char *value); /* STRING: NULL allows any; LIST: of one item */
    const char *form;                 /* STRING, LIST: what check() allows, in words */
    bool secret;                      /* STRING: shown as *** */
    const char *meta;                 /* what stands for the value in the help */
    char letter;                      /* of the short option; 0: none */
    bool reload;                      /* SIGHUP changes it in a running broker */
    const char *help;
};

extern const struct option_spec option_specs[];
extern const size_t option_count;
extern const char *const option_group_titles[GROUP_COUNT];

/* NULL when there is no such key. */
const struct option_spec *option_find(const char *key);

/* The key most like a misspelt one, or NULL. */
const char *option_nearest(const char *key);

/* Parses `text` into the option's field of `config`, replacing what was there. On failure the field is
 * unchanged and `problem` says what is allowed. */
bool option_parse(const struct option_spec *spec, const char *text, struct config *config, char *problem,
                  size_t size);

/* Appends the field's value in its canonical form; `secrets` false writes *** for passwords. */
void option_format(const struct option_spec *spec, const struct config *config, bool secrets,
                   struct buffer *out);

/* Releases what the field owns. */
void option_clear(const struct option_spec *spec, struct config *config);

/* Appends what is allowed, for messages and the manual: "a size from 1KiB to 1GiB". */
void option_describe(const struct option_spec *spec, struct buffer *out);

/* Writes the environment variable's name, or the long option's (without its dashes). */
#define OPTION_NAME_SIZE 64
const char *option_env_name(const struct option_spec *spec, char out[static OPTION_NAME_SIZE]);
const char *option_long_name(const struct option_spec *spec, char out[static OPTION_NAME_SIZE]);

/* 8 to 256 characters of RFC 6750's token. */
bool option_is_token(const char *value);

/* A path that does not end with a slash, without query and parameters. */
bool option_is_path_prefix(const char *value);

#define OPTION_REDACTED "***" /* what stands for a secret */

/* The parsers of single types; `problem` as above. */
bool config_address_parse(const char *text, bool off_allowed, struct config_address *address);
bool config_redis_parse(const char *text, struct config_redis *redis, char *problem, size_t size);
void config_redis_format(const struct config_redis *redis, bool secrets, struct buffer *out);
void config_redis_clear(struct config_redis *redis);

#endif
