#include "broker/config_file.h"

#include "base/buffer.h"
#include "base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct line {
    const struct config_file_events *events;
    void *data;
    unsigned number;
};

static void problem_at(const struct line *line, const char *problem)
{
    line->events->on_problem(line->data, line->number, problem);
}

static int on_ini_value(void *data, const char *section, const char *key, const char *value)
{
    const struct line *line = data;
    (void)section;
    if (key[0] == '\0')
        problem_at(line, "there is nothing before the =");
    else
        line->events->on_value(line->data, line->number, key, value);
    return 1;
}

/* `text` begins with the bracket. */
static void parse_section(const struct line *line, char *text)
{
    char *end = strchr(text, ']');
    if (end == NULL) {
        problem_at(line, "the section's ] is missing");
        return;
    }
    const char *rest = end + 1 + strspn(end + 1, " \t\r");
    if (*rest != '\0' && *rest != ';' && *rest != '#') {
        problem_at(line, "there is something after the section's ]");
        return;
    }
    *end = '\0';
    line->events->on_section(line->data, line->number, text + 1);
}

static void parse_line(const struct line *line, const char *start, size_t len)
{
    while (len > 0 && isspace((unsigned char)*start)) {
        start++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)start[len - 1]))
        len--;
    if (len == 0 || *start == ';' || *start == '#')
        return;
    if (len > CONFIG_LINE_MAX) {
        problem_at(
            line,
            "the line is longer than 197 bytes (a list may be spread over several lines by repeating its "
            "key; a long value fits into the environment)");
        return;
    }
    char text[CONFIG_LINE_MAX + 1];
    memcpy(text, start, len);
    text[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f) {
            problem_at(line, "the line holds control characters");
            return;
        }
    }
    if (!utf8_valid(text, len))
        problem_at(line, "the line is not UTF-8");
    else if (text[0] == '[')
        parse_section(line, text);
    else if (ini_parse_string(text, on_ini_value, (void *)(uintptr_t)line) != 0)
        problem_at(line, "the line is neither KEY = VALUE, nor a [section], nor a comment");
}

void config_file_parse(const char *text, size_t len, const struct config_file_events *events, void *data)
{
    static const char bom[] = "\xef\xbb\xbf";
    struct line line = {.events = events, .data = data};
    if (len >= strlen(bom) && memcmp(text, bom, strlen(bom)) == 0) {
        text += strlen(bom);
        len -= strlen(bom);
    }
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        size_t size = end != NULL ? (size_t)(end - text) : len;
        line.number++;
        parse_line(&line, text, size);
        size_t step = end != NULL ? size + 1 : size;
        text += step;
        len -= step;
    }
}

static bool read_all(FILE *file, struct buffer *out, char *problem, size_t problem_size)
{
    char chunk[4096];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0) {
        if (out->len + got > CONFIG_FILE_MAX) {
            snprintf(problem, problem_size, "the file is larger than 1MiB");
            return false;
        }
        if (!buffer_append(out, chunk, got)) {
            snprintf(problem, problem_size, "out of memory");
            return false;
        }
    }
    if (ferror(file)) {
        snprintf(problem, problem_size, "can't be read: %s", strerror(errno));
        return false;
    }
    return true;
}

/* NULL and errno 0: it is there, but of another kind. */
static FILE *open_kind(int fd, enum config_file_kind kind)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return NULL;
    if (kind == CONFIG_FILE_ANY || S_ISREG(status.st_mode))
        return fdopen(fd, "r");
    errno = 0;
    return NULL;
}

FILE *config_file_open(const char *path, enum config_file_kind kind, char *problem, size_t problem_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (kind == CONFIG_FILE_REGULAR ? O_NONBLOCK : 0));
    FILE *file = fd < 0 ? NULL : open_kind(fd, kind);
    if (file != NULL)
        return file;
    if (fd >= 0 && errno == 0)
        snprintf(problem, problem_size, "is not a regular file");
    else
        snprintf(problem, problem_size, "can't be opened: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return NULL;
}

bool config_file_read(const char *path, enum config_file_kind kind, struct buffer *out, char *problem,
                      size_t problem_size)
{
    FILE *file = config_file_open(path, kind, problem, problem_size);
    if (file == NULL)
        return false;
    bool ok = read_all(file, out, problem, problem_size);
    fclose(file);
    return ok;
}
