#include "client/swb/state.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "client/json_text.h"
#include "proto/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REWRITE_AT = 1 << 20, FILE_MAX = 64 << 20 };

void state_init(struct state *state)
{
    *state = (struct state){.fd = -1};
    map_init(&state->topics);
    list_init(&state->entries);
}

static void entry_destroy(struct state_entry *entry)
{
    mem_free(entry->topic);
    mem_free(entry->epoch);
    mem_free(entry->offset);
    mem_free(entry);
}

void state_close(struct state *state)
{
    while (!list_empty(&state->entries)) {
        struct state_entry *entry = container_of(state->entries.next, struct state_entry, link);
        list_remove(&entry->link);
        map_remove(&state->topics, &entry->node);
        entry_destroy(entry);
    }
    map_close(&state->topics);
    if (state->fd >= 0)
        close(state->fd);
    mem_free(state->path);
}

static struct state_entry *find(const struct state *state, const char *topic)
{
    struct map_node *node = map_find(&state->topics, topic, strlen(topic));

    return node ? container_of(node, struct state_entry, node) : NULL;
}

const struct state_entry *state_find(const struct state *state, const char *topic)
{
    return find(state, topic);
}

static struct state_entry *create(struct state *state, const char *topic)
{
    struct state_entry *entry = mem_calloc(1, sizeof *entry);

    if (!entry)
        return NULL;
    entry->topic = mem_strdup(topic);
    if (!entry->topic || !map_insert(&state->topics, &entry->node, entry->topic, strlen(entry->topic))) {
        entry_destroy(entry);
        return NULL;
    }
    list_append(&state->entries, &entry->link);
    return entry;
}

static bool set(struct state *state, const char *topic, const char *epoch, const char *offset)
{
    struct state_entry *entry = find(state, topic);
    char *new_epoch = mem_strdup(epoch), *new_offset = mem_strdup(offset);

    if (!entry && new_epoch && new_offset)
        entry = create(state, topic);
    if (!entry || !new_epoch || !new_offset) {
        mem_free(new_epoch);
        mem_free(new_offset);
        return false;
    }
    mem_free(entry->epoch);
    mem_free(entry->offset);
    entry->epoch = new_epoch;
    entry->offset = new_offset;
    return true;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

static void write_entry(struct buffer *out, const char *topic, const char *epoch, const char *offset)
{
    buffer_append_text(out, "{\"topic\":");
    json_write_string(out, topic, strlen(topic));
    json_write_field(out, "epoch", epoch);
    json_write_field(out, "offset", offset);
    buffer_append_text(out, "}\n");
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t done = write(fd, data, len);
        if (done < 0 && errno != EINTR)
            return false;
        data += done > 0 ? done : 0;
        len -= done > 0 ? (size_t)done : 0;
    }
    return true;
}

static void read_line(struct state *state, const char *line, size_t len)
{
    json_t *root = json_loadb(line, len, 0, NULL);
    const char *topic = json_string_value(json_object_get(root, "topic"));
    const char *epoch = json_string_value(json_object_get(root, "epoch"));
    const char *offset = json_string_value(json_object_get(root, "offset"));

    if (topic && epoch && offset) /* else it was cut off while it was written */
        set(state, topic, epoch, offset);
    json_decref(root);
}

static bool read_file(struct state *state, int fd)
{
    struct buffer text;
    char chunk[65536];
    ssize_t len;

    buffer_init(&text, FILE_MAX);
    while ((len = read(fd, chunk, sizeof chunk)) > 0 && buffer_append(&text, chunk, (size_t)len))
        ;
    for (size_t at = 0; at < text.len;) {
        const char *newline = memchr(text.data + at, '\n', text.len - at);
        size_t end = newline ? (size_t)(newline - text.data) : text.len;
        read_line(state, text.data + at, end - at);
        at = end + 1;
    }
    bool ok = len == 0 && !text.failed;
    buffer_close(&text);
    return ok;
}

/* Writes a new file and puts it in the old one's place; the new one is locked before it is there. */
static bool rewrite(struct state *state)
{
    char path[4200];
    struct buffer text;

    snprintf(path, sizeof path, "%s.new", state->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    buffer_init(&text, 0);
    list_for_each (link, &state->entries) {
        const struct state_entry *entry = container_of(link, struct state_entry, link);
        write_entry(&text, entry->topic, entry->epoch, entry->offset);
    }
    bool ok = !text.failed && flock(fd, LOCK_EX | LOCK_NB) == 0 && write_all(fd, text.data, text.len) &&
              rename(path, state->path) == 0;
    buffer_close(&text);
    if (!ok) {
        close(fd);
        return false;
    }
    if (state->fd >= 0)
        close(state->fd);
    state->fd = fd;
    state->appended = 0;
    return true;
}

enum state_result state_open(struct state *state, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return STATE_FAILED;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        bool in_use = errno == EWOULDBLOCK;
        close(fd);
        return in_use ? STATE_IN_USE : STATE_FAILED;
    }
    state->path = mem_strdup(path);
    bool ok = state->path && read_file(state, fd) && rewrite(state);
    close(fd);
    return ok ? STATE_OK : STATE_FAILED;
}

bool state_note(struct state *state, const char *topic, const char *epoch, const char *offset)
{
    struct buffer line;

    if (!set(state, topic, epoch, offset))
        return false;
    if (state->fd < 0)
        return true;
    if (state->appended > REWRITE_AT)
        return rewrite(state);
    buffer_init(&line, 0);
    write_entry(&line, topic, epoch, offset);
    bool ok = !line.failed && write_all(state->fd, line.data, line.len);
    state->appended += line.len;
    buffer_close(&line);
    return ok;
}

/* ---- its place ----------------------------------------------------------------------------------------- */

static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!ok)
            return false;
    }
    return true;
}

bool state_default_path(const char *url, char *const *topics, size_t count, char *out, size_t size)
{
    const char *folder = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok =
        hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) && EVP_DigestUpdate(hash, url, strlen(url) + 1);

    for (size_t i = 0; ok && i < count; i++)
        ok = EVP_DigestUpdate(hash, topics[i], strlen(topics[i]) + 1);
    ok = ok && EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    bool own = folder && *folder;
    if (!ok || (!own && !home))
        return false;
    int len = snprintf(out, size, "%s%s/switchboard/sub-", own ? folder : home, own ? "" : "/.local/state");
    enum { DIGITS = 12 };
    if (len < 0 || (size_t)len + 2 * DIGITS + 1 > size)
        return false;
    for (size_t i = 0; i < DIGITS; i++)
        snprintf(out + len + 2 * i, 3, "%02x", digest[i]);
    return make_folders(out);
}
