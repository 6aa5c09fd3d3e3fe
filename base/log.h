/* Structured logging: one line an event, on standard error.
 *
 *     log_info("session online", log_str("session", name), log_int("online", total));
 *
 * logfmt:  time=2026-01-31T23:59:59.999Z level=info instance=a1 event="session online" session=bob online=2
 * JSON:    {"time":"…","level":"info","instance":"a1","event":"session online","session":"bob","online":2}
 *
 * Message contents never appear at info or above.
 *
 * Writing never waits (base/stderr.h). A line that can't be written is dropped and counted, and as soon as one can be
 * written again a line says how many are missing. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log_field {
    const char *key; /* a constant, [a-z_]+ */
    enum { LOG_FIELD_STR, LOG_FIELD_INT } type;
    const char *text; /* not NUL-terminated; what can't be seen (base/printable.h) is escaped */
    size_t len;
    int64_t number;
};

struct log_field log_str(const char *key, const char *text); /* NULL is written as an empty string */
struct log_field log_bytes(const char *key, const char *text, size_t len);

static inline struct log_field log_int(const char *key, int64_t number)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_INT, .number = number};
}

extern enum log_level log_threshold; /* what is less important is not written */

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
void log_set_instance(const char *id);                         /* copied, cut at 63 bytes; NULL: none */
void log_set_sink(void (*sink)(const char *line, size_t len)); /* for tests; NULL: standard error */

/* Names as in the configuration: error, warn, info, debug; logfmt, json. False when unknown. */
bool log_level_parse(const char *name, enum log_level *level);
const char *log_level_name(enum log_level level);

/* For lines that somebody else can bring about as often as he likes: one a minute, and how many were left out before it.
 * Zeroed at first. */
struct log_pause {
    uint64_t until_ms; /* monotonic */
    uint64_t left_out;
};

/* Whether the line may be written now; then `*left_out` of its kind were not since the last. */
bool log_pause_is_over(struct log_pause *pause, uint64_t *left_out);

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count);

uint64_t log_dropped(void); /* lines, by this process */

/* For the start and the end of a process, when nothing else is served and a line must get out: how long all lines together may
 * wait for the reader. 0, as at first: not at all. */
void log_set_patience(uint64_t ms);

/* `on_blocked` is called when lines begin to be dropped because the reader is slow: `fd`'s being writable is the time for
 * log_resume(). Without it the next line that is written says what is missing. NULL: none. */
void log_set_on_blocked(void (*on_blocked)(int fd, void *data), void *data);

/* Says what is missing; calls `on_blocked` again if even that can't be written. */
void log_resume(void);

#define log_event(level, event, ...)                                                                         \
    do {                                                                                                     \
        if ((level) <= log_threshold) {                                                                      \
            const struct log_field log_fields_[] = {__VA_ARGS__};                                            \
            log_write((level), (event), log_fields_, sizeof log_fields_ / sizeof(struct log_field));         \
        }                                                                                                    \
    } while (0)
#define log_error(event, ...) log_event(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_event(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_event(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_event(LOG_LEVEL_DEBUG, event, __VA_ARGS__)

#endif
