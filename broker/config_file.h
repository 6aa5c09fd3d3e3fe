/* The lines of a configuration file.
 *
 * inih splits KEY = VALUE and takes comments away, one line at a time: given whole files it cuts lines at 199
 * bytes, section names at 49, joins indented lines, says nothing of sections without keys, and its handler is
 * not told line numbers. So lines are counted, sections read and lengths checked here. */
#ifndef BROKER_CONFIG_FILE_H
#define BROKER_CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct buffer;

#define CONFIG_LINE_MAX 197     /* bytes; what inih takes in one piece on every Debian */
#define CONFIG_FILE_MAX 1048576 /* bytes */

struct config_file_events {
    void (*on_section)(void *data, unsigned line, const char *name); /* without its brackets */
    void (*on_value)(void *data, unsigned line, const char *key, const char *value);
    void (*on_problem)(void *data, unsigned line, const char *problem); /* the line is skipped */
};

/* Calls back for every line of `text` that means something, in order, before it returns. The strings are
 * valid during the call only. */
void config_file_parse(const char *text, size_t len, const struct config_file_events *events, void *data);

/* Where a file may come from. A running broker waits for nobody who would write into a pipe, and what a pipe held at the
 * start is gone. */
enum config_file_kind { CONFIG_FILE_ANY, CONFIG_FILE_REGULAR };

/* Opens for reading, CONFIG_FILE_REGULAR without ever waiting; on failure returns NULL with `problem` set. */
FILE *config_file_open(const char *path, enum config_file_kind kind, char *problem, size_t problem_size);

/* Appends the file's contents; on failure returns false with `problem` set. */
bool config_file_read(const char *path, enum config_file_kind kind, struct buffer *out, char *problem,
                      size_t problem_size);

#endif
