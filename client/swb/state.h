/* Where each topic stands: the last stored message that was printed, remembered in a file.
 *
 * The file has one JSON object a line: {"topic":"orders.eu","epoch":"…","offset":"…"}; later lines count. What is noted
 * is appended at once, so that a killed program repeats one message at most; opening writes the file anew. */
#ifndef CLIENT_SWB_STATE_H
#define CLIENT_SWB_STATE_H

#include "base/list.h"
#include "base/map.h"

#include <stdbool.h>
#include <stddef.h>

struct state_entry {
    struct map_node node;
    struct list link;
    char *topic, *epoch, *offset; /* owned */
};

struct state {
    int fd; /* -1: only in memory */
    char *path;
    struct map topics;
    struct list entries; /* struct state_entry */
    size_t appended;     /* bytes since the file was written anew */
};

enum state_result { STATE_OK, STATE_IN_USE, STATE_FAILED };

/* An empty one in memory alone. */
void state_init(struct state *state);

/* Reads the file and locks it for this process. On failure the state stays in memory, and errno says why. */
enum state_result state_open(struct state *state, const char *path);

/* The file for a URL and topics, below ~/.local/state/switchboard; made, with its folders, when missing. False when there
 * is no place for it. */
bool state_default_path(const char *url, char *const *topics, size_t count, char *out, size_t size);

const struct state_entry *state_find(const struct state *state, const char *topic);
bool state_note(struct state *state, const char *topic, const char *epoch, const char *offset);
void state_close(struct state *state);

#endif
