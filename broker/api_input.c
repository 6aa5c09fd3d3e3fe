#include "broker/api_internal.h"

#include "broker/router.h"
#include "proto/payload.h"
#include "proto/topic.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- the path ---- */

static bool accept_address(struct api *api, const struct api_input *input, const struct address *address,
                           const char *wrong)
{
    char text[200];

    if (!wrong && address->kind == ADDRESS_TOPIC && topic_is_pattern(address->name))
        wrong = "a pattern can only be subscribed to";
    if (!wrong)
        return true;
    snprintf(text, sizeof text, "the path's last parameter: %s", wrong);
    api_reply_error(api, input->http, ERROR_BAD_REQUEST, text);
    return false;
}

bool api_input_address(struct api *api, const struct api_input *input, struct address *address)
{
    const char *wrong = address_parse(input->param, address);

    return accept_address(api, input, address, wrong);
}

bool api_input_name(struct api *api, const struct api_input *input, enum address_kind kind,
                    struct address *address)
{
    *address = (struct address){.kind = kind, .name = input->param};
    return accept_address(api, input, address, address_check_name(input->param));
}

/* ---- the query ---- */

static bool accept_quantity(struct api *api, const struct api_input *input, const char *name, bool good,
                            uint64_t min, uint64_t max, const char *unit)
{
    char text[160];

    if (good)
        return true;
    snprintf(text, sizeof text, "query parameter \"%s\" must be from %" PRIu64 " to %" PRIu64 "%s", name, min,
             max, unit);
    api_reply_error(api, input->http, ERROR_BAD_REQUEST, text);
    return false;
}

bool api_input_number(struct api *api, const struct api_input *input, const char *name, uint64_t min,
                      uint64_t max, uint64_t *value)
{
    const struct slice *text = api_query_find(input->query, name);
    bool good = !text || (api_read_number(*text, value) && *value >= min && *value <= max);

    return accept_quantity(api, input, name, good, min, max, "");
}

bool api_input_duration(struct api *api, const struct api_input *input, const char *name, uint64_t min,
                        uint64_t max, uint64_t *value)
{
    const struct slice *text = api_query_find(input->query, name);
    bool good = !text || (api_read_duration(*text, value) && *value >= min && *value <= max);

    return accept_quantity(api, input, name, good, min, max, " milliseconds (or a time like 5s)");
}

bool api_input_bool(struct api *api, const struct api_input *input, const char *name, bool *value)
{
    const struct slice *text = api_query_find(input->query, name);
    char problem[96];

    if (!text || api_read_bool(*text, value))
        return true;
    snprintf(problem, sizeof problem, "query parameter \"%s\" must be true or false", name);
    api_reply_error(api, input->http, ERROR_BAD_REQUEST, problem);
    return false;
}

/* ---- the body ---- */

bool api_input_payload(struct api *api, const struct api_input *input, struct api_payload *payload)
{
    const char *type = api_head_field(api_http_head(input->http), "content-type");
    int error = api_payload_read(type, api_http_body(input->http), payload);

    if (error) {
        api_reply_error(api, input->http, error, payload->problem);
        return false;
    }
    if (payload_fits(payload->content, payload->bytes, router_max_payload(api->options.router)))
        return true;
    api_payload_close(payload);
    api_reply_error(api, input->http, ERROR_TOO_LARGE, "the message is too large in JSON or MessagePack");
    return false;
}
