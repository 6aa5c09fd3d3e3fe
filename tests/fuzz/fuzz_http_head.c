/* The input is what a client sends first. Wherever reads cut it, the end of its head is found at the same place; what is taken
 * holds nothing that two readers could read differently. */
#include "broker/http_head.h"
#include "fuzz.h"

#include <string.h>

enum { LIMIT = 16384 };

static enum http_head_result find_in_steps(struct slice input, size_t step, size_t *seen)
{
    struct http_problem problem;
    enum http_head_result result = HTTP_HEAD_INCOMPLETE;

    *seen = 0;
    for (size_t len = step; result == HTTP_HEAD_INCOMPLETE; len += step) {
        len = len < input.len ? len : input.len;
        result = http_head_find_end(slice_from(input.data, len), LIMIT, seen, &problem);
        if (len == input.len)
            break;
    }
    return result;
}

static void check_inside(struct slice part, struct slice whole)
{
    fuzz_require(part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
    for (size_t i = 0; i < part.len; i++)
        fuzz_require(part.data[i] == '\t' || ((unsigned char)part.data[i] >= ' ' && part.data[i] != 0x7f));
}

static void check_head(struct slice input)
{
    struct http_head head;
    struct http_problem problem;
    struct http_list_cursor cursor = {0};
    struct http_field field;
    struct slice member;
    bool repeated;

    if (!http_head_parse(input, &head, &problem)) {
        fuzz_require(problem.status >= 400 && problem.status < 600 && problem.text);
        return;
    }
    fuzz_require(head.len <= input.len && memcmp(input.data + head.len - 4, "\r\n\r\n", 4) == 0);
    check_inside(head.method, input);
    check_inside(head.target, input);
    fuzz_require(head.target.len > 0 && head.target.len <= HTTP_TARGET_MAX && !memchr(head.target.data, ' ', head.target.len));
    for (struct slice rest = head.fields; http_head_next(&rest, &field);) {
        check_inside(field.name, input);
        check_inside(field.value, input);
        fuzz_require(field.name.len > 0 && !memchr(field.name.data, ' ', field.name.len));
    }
    struct slice host = http_head_field(&head, "host", &repeated);
    fuzz_require(!repeated && (host.len > 0 || head.minor_version == 0));
    while (http_head_next_member(&head, "connection", &cursor, &member)) {
        check_inside(member, input);
        fuzz_require(member.len > 0 && !memchr(member.data, ',', member.len));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    size_t seen, other;

    fuzz_require(copy != NULL);
    if (size)
        memcpy(copy, data, size);
    struct slice input = slice_from(copy, size);
    enum http_head_result whole = find_in_steps(input, size ? size : 1, &seen);
    fuzz_require(whole == find_in_steps(input, 1, &other) && (whole != HTTP_HEAD_WHOLE || seen == other));
    fuzz_require(whole == find_in_steps(input, 7, &other) && (whole != HTTP_HEAD_WHOLE || seen == other));
    if (whole == HTTP_HEAD_WHOLE)
        check_head(slice_from(copy, seen));
    free(copy);
    return 0;
}
