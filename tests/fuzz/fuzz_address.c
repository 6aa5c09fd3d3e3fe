/* An address that parses survives its text and its channel; a channel that is read names a valid address. */
#include "fuzz.h"
#include "proto/address.h"

#include <string.h>

static void require_same(const struct address *a, const struct address *b)
{
    fuzz_require(a->kind == b->kind && slice_equal(a->name, b->name));
}

static void try_text(struct slice text)
{
    char out[ADDRESS_MAX + 1], channel[CHANNEL_MAX], name[ADDRESS_NAME_MAX + 1];
    struct address address, again;

    if (address_parse(text, &address) != NULL)
        return;
    size_t len = address_format(&address, out);
    fuzz_require(len == strlen(out) && slice_equal(slice_from(out, len), text));
    len = address_channel(&address, channel);
    fuzz_require(len == strlen(channel) && len < CHANNEL_MAX);
    const char *open = strchr(channel, '{');
    fuzz_require(open != NULL && strpbrk(open + 1, "{ \t\r\n") == NULL);
    fuzz_require(strchr(channel, '}') == channel + len - 1);
    fuzz_require(address_from_channel(slice_from(channel, len), &again, name));
    require_same(&address, &again);
}

static void try_channel(struct slice text)
{
    char channel[CHANNEL_MAX], first[ADDRESS_NAME_MAX + 1], second[ADDRESS_NAME_MAX + 1];
    struct address address, again;

    if (!address_from_channel(text, &address, first))
        return;
    fuzz_require(address_check_name(address.name) == NULL);
    fuzz_require(address.name.data == first && strlen(first) == address.name.len);
    size_t len = address_channel(&address, channel);
    fuzz_require(address_from_channel(slice_from(channel, len), &again, second));
    require_same(&address, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_from(data, size);

    try_text(text);
    try_channel(text);
    return 0;
}
