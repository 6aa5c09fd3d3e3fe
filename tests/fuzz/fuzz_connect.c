/* The input is the query of a request. What is read from it is fit for its use, or there is a sentence in ASCII; and what /connect
 * takes, every other route takes, too. */
#include "broker/connect.h"
#include "fuzz.h"
#include "storage/offset.h"

#include <string.h>

static void require_inside(const struct connect_arguments *arguments, struct slice value)
{
    if (value.data)
        fuzz_require(value.data >= arguments->text && value.data + value.len <= arguments->text + sizeof arguments->text);
    else
        fuzz_require(value.len == 0);
}

static void require_sentence(const char *problem)
{
    size_t len = strlen(problem);

    fuzz_require(len > 0 && len < sizeof ((struct connect_arguments *)NULL)->problem - 1);
    for (size_t i = 0; i < len; i++)
        fuzz_require(problem[i] >= ' ' && problem[i] < 0x7f);
}

static void require_good(const struct connect_arguments *arguments)
{
    struct storage_offset offset;

    require_inside(arguments, arguments->user);
    require_inside(arguments, arguments->session);
    require_inside(arguments, arguments->since_epoch);
    require_inside(arguments, arguments->since_offset);
    fuzz_require(!arguments->user.data || !arguments->session.data);
    fuzz_require(!arguments->user.data || address_check_name(arguments->user) == NULL);
    fuzz_require(!arguments->session.data || address_check_exclusive(arguments->session) == NULL);
    fuzz_require(arguments->since || (!arguments->since_epoch.data && !arguments->since_offset.data));
    if (arguments->since_epoch.data)
        fuzz_require(storage_offset_parse(arguments->since_offset, &offset));
}

static void match(const struct connect_arguments *arguments)
{
    static struct connect_routes *routes;
    struct route_match match;

    if (!routes)
        routes = connect_routes_create();
    fuzz_require(routes != NULL);
    connect_match(routes, arguments, &match);
    fuzz_require(match.params.route != NULL && match.problem[0] == '\0');
    struct slice name = route_param(&match.params, arguments->user.data ? "user" : "session");
    fuzz_require(slice_equal(name, arguments->user.data ? arguments->user : arguments->session));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *input = malloc(size > 0 ? size : 1);
    struct connect_arguments strict, lax;

    fuzz_require(input != NULL);
    if (size > 0)
        memcpy(input, data, size);
    const char *wrong = connect_parse(slice_from(input, size), &strict);
    const char *lax_wrong = connect_parse_since(slice_from(input, size), &lax);
    if (wrong) {
        require_sentence(wrong);
    } else {
        require_good(&strict);
        match(&strict);
        fuzz_require(lax_wrong == NULL && lax.since == strict.since);
        fuzz_require(slice_equal(lax.since_epoch, strict.since_epoch));
    }
    if (lax_wrong)
        require_sentence(lax_wrong);
    else
        require_good(&lax);
    free(input);
    return 0;
}
