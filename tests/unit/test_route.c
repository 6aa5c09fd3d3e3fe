/* Templates, route patterns, matching of paths, and what a match expands to. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "broker/config.h"
#include "broker/route.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char file_path[] = "/tmp/switchboard-test-route-XXXXXX";

/* The configuration of these sections; NULL without any: what is built in. */
static struct config *configure(const char *sections)
{
    char *const argv[] = {(char *)(uintptr_t) "switchboard", (char *)(uintptr_t) "-c", file_path, NULL};
    char *const environment[] = {NULL};
    struct config *config;
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    fputs(sections != NULL ? sections : "", file);
    fclose(file);
    assert_int_equal(config_load(3, argv, environment, &config, stdout, stderr), CONFIG_LOADED);
    return config;
}

static enum route_result match_raw(const struct config *config, const char *path, struct route_match *match)
{
    return route_match(config, path, strlen(path), match);
}

static void expect_result(const struct config *config, const char *path, enum route_result result)
{
    struct route_match match;
    enum route_result got = match_raw(config, path, &match);
    if (got != result)
        fail_msg("%s: %d instead of %d (%s)", path, got, result, match.problem);
    assert_true((match.problem[0] != '\0') == (result == ROUTE_BAD_PARAMETER));
}

static void expect_address(const struct config *config, const char *path, const char *address)
{
    struct route_match match;
    struct buffer text;
    buffer_init(&text, 0);
    if (route_match(config, path, strlen(path), &match) != ROUTE_OK)
        fail_msg("%s does not match: %s", path, match.problem);
    assert_true(route_address(&match.params, &text));
    assert_string_equal(buffer_text(&text), address);
    buffer_close(&text);
}

static void expect_problem(const struct config *config, const char *path, const char *problem)
{
    struct route_match match;
    assert_int_equal(match_raw(config, path, &match), ROUTE_BAD_PARAMETER);
    if (strstr(match.problem, problem) == NULL)
        fail_msg("expected \"%s\" in \"%s\"", problem, match.problem);
}

static void expect_expansion(const struct template *template, const struct route_match *match,
                             const char *message, const char *expected)
{
    struct buffer text;
    buffer_init(&text, 0);
    assert_true(route_expand(template, &match->params, message, strlen(message), &text));
    assert_string_equal(buffer_text(&text), expected);
    buffer_close(&text);
}

/* --- Templates
 * --------------------------------------------------------------------------------------------------- */

static char *const names[] = {(char *)(uintptr_t) "a", (char *)(uintptr_t) "bc"};

static void templates_expand(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"{a}", "1"},
        {"{a}{bc}{a}", "1221"},
        {"<{a}:{message}>", "<1:hi>"},
        {"{{{a}}}", "{1}"},
        {"{{a}}", "{a}"},
        {"}}{{", "}{"},
        {"é{message}", "éhi"},
    };
    const struct slice values[] = {slice_text("1"), slice_text("22")};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct template template;
        struct buffer out;
        char problem[256];
        buffer_init(&out, 0);
        assert_true(template_parse(&template, cases[i][0], names, 2, true, problem, sizeof problem));
        assert_int_equal(template_size(&template, values, 2), strlen(cases[i][1]));
        assert_true(template_expand(&template, values, "hi", 2, &out));
        assert_string_equal(buffer_text(&out), cases[i][1]);
        buffer_close(&out);
        template_close(&template);
    }
}

static void bad_templates_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *source, *problem;
        bool with_message;
    } cases[] = {
        {"{", "a { is not closed", true},
        {"{a", "a { is not closed", true},
        {"{a{bc}}", "a { is not closed", true},
        {"a}", "a } has no {", true},
        {"{}", "{} is unknown here; known: {a}, {bc}, {message}", true},
        {"{b}", "{b} is unknown here", true},
        {"{a }", "{a } is unknown here", true},
        {"{message}", "{message} is unknown here; known: {a}, {bc}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct template template;
        char problem[256] = "";
        assert_false(template_parse(&template, cases[i].source, names, 2, cases[i].with_message, problem,
                                    sizeof problem));
        if (strstr(problem, cases[i].problem) == NULL)
            fail_msg("%s: %s", cases[i].source, problem);
        assert_null(template.pieces);
        template_close(&template);
    }
}

static void templates_know_when_they_change_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        bool plain;
    } cases[] = {{"{message}", true},
                 {"{message} ", false},
                 {"", false},
                 {"{a}", false},
                 {"{message}{message}", false}};
    struct template template = {0};
    assert_true(template_is_plain(&template));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char problem[256];
        assert_true(template_parse(&template, cases[i].source, names, 2, true, problem, sizeof problem));
        assert_int_equal(template_is_plain(&template), cases[i].plain);
        template_close(&template);
    }
}

static void expansion_respects_the_buffers_ceiling(void **state)
{
    (void)state;
    struct template template;
    struct buffer out;
    char problem[256];
    buffer_init(&out, 10);
    assert_true(template_parse(&template, "<{message}>", NULL, 0, true, problem, sizeof problem));
    assert_true(template_expand(&template, NULL, "12345678", 8, &out));
    buffer_clear(&out);
    assert_false(template_expand(&template, NULL, "123456789", 9, &out));
    assert_int_equal(out.len, 0);
    buffer_clear(&out);
    assert_true(template_expand(&template, NULL, NULL, 0, &out));
    assert_int_equal(out.len, 2);
    template_close(&template);
    buffer_close(&out);
}

/* --- The built-in routes
 * ----------------------------------------------------------------------------------------- */

static void original_endpoints_are_built_in(void **state)
{
    (void)state;
    struct config *config = configure(NULL);
    expect_address(config, "/websocket/admin", "user:admin");
    expect_address(config, "/WebSocketTest/websocket/admin", "user:admin");
    expect_address(config, "/testWebsocket/websocket/admin", "user:admin");
    expect_address(config, "//testWebsocket/websocket/userSever/8080", "session:userSever_8080");
    expect_address(config, "/websocket/a/-5", "session:a_-5");
    expect_address(config, "/topics/news", "topic:news");
    expect_result(config, "/testwebsocket/websocket/a", ROUTE_NOT_FOUND);
    expect_result(config, "/WebSocketTest", ROUTE_NOT_FOUND);
    expect_result(config, "/WebSocketTest/testWebsocket/websocket/a", ROUTE_NOT_FOUND);
    expect_result(config, "///websocket/a", ROUTE_NOT_FOUND);
    expect_problem(config, "/websocket/a/007", "userCode must be an integer");
    config_unref(config);
}

static void original_frames_are_exact(void **state)
{
    (void)state;
    struct config *config = configure(NULL);
    struct route_match match;
    struct buffer target;
    buffer_init(&target, 0);

    assert_int_equal(match_raw(config, "/websocket/admin", &match), ROUTE_OK);
    assert_int_equal(match.params.route->action, ROUTE_ACTION_PUBLISH);
    assert_false(match.params.route->has_reply);
    expect_expansion(&match.params.route->text, &match, "{hi} 你好", "admin:{hi} 你好");
    expect_expansion(&match.params.route->text, &match, "", "admin:");
    assert_true(route_target(&match.params, &target));
    assert_string_equal(buffer_text(&target), "user:admin");

    assert_int_equal(match_raw(config, "/websocket/x/1", &match), ROUTE_OK);
    assert_int_equal(match.params.route->action, ROUTE_ACTION_FORWARD);
    assert_true(template_is_plain(&match.params.route->text));
    assert_true(match.params.route->has_reply);
    expect_expansion(&match.params.route->reply, &match, "hi", "Got your message (hi).Thanks !");
    buffer_clear(&target);
    assert_true(route_target(&match.params, &target));
    assert_string_equal(buffer_text(&target), "session:userSever_8080");
    buffer_close(&target);
    config_unref(config);
}

/* --- Matching
 * ---------------------------------------------------------------------------------------------------- */

static void integers_are_canonical(void **state)
{
    (void)state;
    struct config *config = configure("[route /{n:int}]\naddress = topic:{n}\n");
    static const char *const good[] = {"0", "5", "-5", "9223372036854775807", "-9223372036854775808", "%35"};
    static const char *const bad[] = {"007",
                                      "+5",
                                      "-0",
                                      "-",
                                      "",
                                      " 5",
                                      "5 ",
                                      "0x5",
                                      "1e3",
                                      "--5",
                                      "5.0",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999",
                                      "%EF%BC%95",
                                      "a"};
    char path[64];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(path, sizeof path, "/%s", good[i]);
        expect_result(config, path, ROUTE_OK);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(path, sizeof path, "/%s", bad[i]);
        expect_result(config, path, bad[i][0] == '\0' ? ROUTE_NOT_FOUND : ROUTE_BAD_PARAMETER);
    }
    config_unref(config);
}

static void parameters_are_decoded_after_splitting(void **state)
{
    (void)state;
    struct config *config = configure("[route /u/{x}]\naddress = user:{x}\n");
    expect_address(config, "/u/a%2Fb", "user:a/b");
    expect_address(config, "/u/a%2fb?x=/y", "user:a/b");
    expect_address(config, "/u/%E4%BD%A0", "user:你");
    expect_address(config, "/u/a+b%20c", "user:a+b c");
    expect_result(config, "/%75/a", ROUTE_NOT_FOUND); /* a fixed part has one spelling */
    expect_address(config, "/u/a%3Fb", "user:a?b");
    expect_address(config, "/u/{x}", "user:{x}");
    expect_result(config, "/u%2Fa", ROUTE_NOT_FOUND);
    expect_result(config, "/%zz/a", ROUTE_NOT_FOUND);
    config_unref(config);
}

static void bad_parameters_are_named(void **state)
{
    (void)state;
    struct config *config =
        configure("[route /u/{x}]\naddress = user:{x}\n[route /p/{a}/{b}]\naddress = session:{a}_{b}\n"
                  "[route /t/{name}/{sub}]\non_message = publish topic:{name}.{sub}\n");
    char path[1024];
    expect_problem(config, "/u/", "x must not be empty");
    expect_problem(config, "/u/%zz", "x has a broken percent-escape");
    expect_problem(config, "/u/a%4", "x has a broken percent-escape");
    expect_problem(config, "/u/a%", "x has a broken percent-escape");
    expect_problem(config, "/u/%FF", "x must be UTF-8");
    expect_problem(config, "/u/%C0%80", "x must be UTF-8");
    expect_problem(config, "/u/a%00b", "x must not hold control characters");
    expect_problem(config, "/u/a%0Ab", "x must not hold control characters");
    expect_problem(config, "/u/%7F", "x must not hold control characters");
    snprintf(path, sizeof path, "/u/%0255d", 1);
    expect_result(config, path, ROUTE_OK);
    snprintf(path, sizeof path, "/u/%0256d", 1);
    expect_problem(config, path, "x is longer than 255 bytes");
    snprintf(path, sizeof path, "/p/%0200d/%054d", 1, 1);
    expect_result(config, path, ROUTE_OK);
    snprintf(path, sizeof path, "/p/%0200d/%055d", 1, 1);
    expect_problem(config, path, "the address of this path can't be used");
    snprintf(path, sizeof path, "/t/%0200d/%055d", 1, 1);
    expect_problem(config, path, "the address of this path can't be used");
    config_unref(config);
}

static void literals_win_from_the_left(void **state)
{
    (void)state;
    struct config *config =
        configure("[route /{a}/{b}]\naddress = topic:1\n[route /{a}/x]\naddress = topic:2\n"
                  "[route /x/{b}]\naddress = topic:3\n[route /x/x]\naddress = topic:4\n"
                  "[route /]\naddress = topic:5\n");
    expect_address(config, "/q/q", "topic:1");
    expect_address(config, "/q/x", "topic:2");
    expect_address(config, "/x/q", "topic:3");
    expect_address(config, "/x/x", "topic:4");
    expect_address(config, "/", "topic:5");
    expect_address(config, "//", "topic:5");
    expect_address(config, "/?a=b", "topic:5");
    expect_result(config, "/x", ROUTE_NOT_FOUND);
    expect_result(config, "/x/x/x", ROUTE_NOT_FOUND);
    expect_result(config, "/x/x/", ROUTE_NOT_FOUND);
    config_unref(config);
}

static void prefixes_come_after_the_path_itself(void **state)
{
    (void)state;
    struct config *config = configure("prefixes = /app, /app/v1, /你\n[route /{a}]\naddress = topic:one.{a}\n"
                                      "[route /{a}/{b}]\naddress = topic:two.{a}.{b}\n[route /app/z/z]\n"
                                      "address = topic:z\n");
    expect_address(config, "/app/x", "topic:two.app.x");
    expect_address(config, "/app/x/y", "topic:two.x.y");
    expect_address(config, "/app/v1/x", "topic:two.v1.x");
    expect_address(config, "/app/v1/x/y", "topic:two.x.y");
    expect_address(config, "/app/z/z", "topic:z");
    expect_address(config, "/%E4%BD%A0/x/y", "topic:two.x.y");
    expect_result(config, "/apple/x/y", ROUTE_NOT_FOUND);
    config_unref(config);
}

static void hostile_paths_match_nothing(void **state)
{
    (void)state;
    struct config *config = configure(NULL);
    struct route_match match;
    static char path[20000];
    static const char *const paths[] = {"", "x", "websocket/a", "?", "/?", "*", "http://h/websocket/a"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        expect_result(config, paths[i], ROUTE_NOT_FOUND);
    memset(path, '/', sizeof path);
    assert_int_equal(route_match(config, path, 40, &match), ROUTE_NOT_FOUND);
    assert_int_equal(route_match(config, path, sizeof path, &match), ROUTE_NOT_FOUND);
    memcpy(path, "/websocket/", 11);
    memset(path + 11, 'a', sizeof path - 11);
    assert_int_equal(route_match(config, path, sizeof path, &match), ROUTE_NOT_FOUND);
    assert_int_equal(route_match(config, path, 8192, &match), ROUTE_BAD_PARAMETER);
    assert_int_equal(route_match(config, "/websocket/a\0b", 14, &match), ROUTE_BAD_PARAMETER);
    assert_int_equal(route_match(config, NULL, 0, &match), ROUTE_NOT_FOUND);
    config_unref(config);
}

static void parameters_can_be_kept(void **state)
{
    (void)state;
    struct config *config =
        configure("[route /{a}/{b}]\naddress = session:{b}.{a}\n[route /]\non_message = echo\n");
    struct route_match match;
    struct buffer text;
    buffer_init(&text, 0);
    assert_int_equal(match_raw(config, "/first/second", &match), ROUTE_OK);
    struct route_params *kept = route_params_keep(&match.params);
    memset(&match, 'x', sizeof match);
    assert_true(slice_is(route_param(kept, "a"), "first"));
    assert_true(slice_is(route_param(kept, "b"), "second"));
    assert_null(route_param(kept, "c").data);
    assert_true(route_address(kept, &text));
    assert_string_equal(buffer_text(&text), "session:second.first");
    mem_free(kept);

    assert_int_equal(match_raw(config, "/", &match), ROUTE_OK);
    assert_false(match.params.route->has_address);
    assert_int_equal(match.params.route->action, ROUTE_ACTION_ECHO);
    kept = route_params_keep(&match.params);
    buffer_clear(&text);
    assert_true(route_address(kept, &text));
    assert_int_equal(text.len, 0);
    mem_free(kept);
    buffer_close(&text);

    alloc_fixture_install();
    alloc_fixture_fail(1);
    assert_int_equal(match_raw(config, "/", &match), ROUTE_OK);
    assert_null(route_params_keep(&match.params));
    alloc_fixture_fail(0);
    alloc_fixture_remove();
    config_unref(config);
}

/* --- Sections
 * ---------------------------------------------------------------------------------------------------- */

static void bad_patterns_are_explained(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "a pattern begins with /"},
        {"a", "a pattern begins with /"},
        {"//", "empty segment"},
        {"/a/", "empty segment"},
        {"/a//b", "empty segment"},
        {"/a b", "no spaces"},
        {"/\xff", "must be UTF-8"},
        {"/a{b}", "a segment is either one {parameter} or text"},
        {"/{a}{b}", "a parameter's name is a letter"},
        {"/%41", "a segment is either"},
        {"/a?b", "a segment is either"},
        {"/{}", "a parameter's name is a letter"},
        {"/{", "a segment is either"},
        {"/{1a}", "a parameter's name is a letter"},
        {"/{a-b}", "a parameter's name is a letter"},
        {"/{message}", "not \"message\""},
        {"/{a:}", "type is int or string"},
        {"/{a:float}", "type is int or string"},
        {"/{a}/{a}", "has this parameter twice"},
        {"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "at most 8 parameters"},
        {"/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7", "at most 16 segments"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char problem[256] = "";
        if (route_create(cases[i][0], "here:1", problem, sizeof problem) != NULL)
            fail_msg("accepted %s", cases[i][0]);
        if (strstr(problem, cases[i][1]) == NULL)
            fail_msg("%s: %s", cases[i][0], problem);
    }
}

static bool set(struct route *route, const char *key, const char *value, char *problem, size_t size)
{
    for (size_t i = 0; i < route_key_count; i++) {
        if (strcmp(route_keys[i].key, key) == 0)
            return route_set(route, &route_keys[i], value, problem, size);
    }
    fail_msg("no key %s", key);
    return false;
}

static void bad_values_are_explained(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"address", "", "must be ADDRESS"},
        {"address", "admin", "an address is session:NAME, user:UID or topic:NAME"},
        {"address", "room:{a}", "an address is"},
        {"address", "user:", "an address is"},
        {"address", "instance:{a}", "an address is"},
        {"address", "{a}", "an address is"},
        {"address", "user:{message}", "{message} is unknown here"},
        {"address", "user:{a", "not closed"},
        {"on_message", "shout", "must be publish ADDRESS"},
        {"on_message", "publishuser:{a}", "must be publish ADDRESS"},
        {"on_message", "publish", "publish needs an address"},
        {"on_message", "forward", "forward needs an address"},
        {"on_message", "forward user:{b}", "{b} is unknown here"},
        {"on_message", "forward user:{a} \"{message}\"", "mean after forward"},
        {"on_message", "publish user:{a} text", "mean after publish"},
        {"on_message", "publish user:{a} \"text", "not closed"},
        {"on_message", "publish user:{a} \"te\"xt\"", "something after the quoted text"},
        {"on_message", "publish user:{a} \"{b}\"", "{b} is unknown here"},
        {"on_message", "echo back", "mean after echo"},
        {"reply", "{nobody}", "{nobody} is unknown here; known: {a}, {message}"},
        {"reply", "\"", "not closed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char problem[512] = "";
        struct route *route = route_create("/{a}", "here:1", problem, sizeof problem);
        assert_non_null(route);
        if (set(route, cases[i][0], cases[i][1], problem, sizeof problem))
            fail_msg("accepted %s = %s", cases[i][0], cases[i][1]);
        if (strstr(problem, cases[i][2]) == NULL)
            fail_msg("%s = %s: %s", cases[i][0], cases[i][1], problem);
        route_destroy(route);
    }
    route_destroy(NULL);
}

static void quoted_text_keeps_spaces_and_quotes(void **state)
{
    (void)state;
    struct config *config =
        configure("[route /{a}]\non_message = publish\ttopic:{a}  \" \\\"{a}\\\" \\\\ {message} \"\n"
                  "reply = \" thanks; \"\n[route /x/{a}]\non_message = publish topic:x \"\"\n"
                  "reply = as \"is\"\n");
    struct route_match match;
    assert_int_equal(match_raw(config, "/q", &match), ROUTE_OK);
    expect_expansion(&match.params.route->text, &match, "m", " \"q\" \\ m ");
    expect_expansion(&match.params.route->reply, &match, "m", " thanks; ");
    assert_int_equal(match_raw(config, "/x/q", &match), ROUTE_OK);
    expect_expansion(&match.params.route->text, &match, "m", "");
    assert_false(template_is_plain(&match.params.route->text));
    expect_expansion(&match.params.route->reply, &match, "m", "as \"is\"");
    config_unref(config);
}

static void a_route_without_keys_ignores(void **state)
{
    (void)state;
    struct config *config = configure("[route /connect]\n[route /quiet]\non_message = ignore\n");
    struct route_match match;
    assert_int_equal(match_raw(config, "/connect", &match), ROUTE_OK);
    assert_int_equal(match.params.route->action, ROUTE_ACTION_IGNORE);
    assert_false(match.params.route->has_address || match.params.route->has_reply);
    assert_int_equal(match_raw(config, "/quiet", &match), ROUTE_OK);
    assert_int_equal(match.params.route->action, ROUTE_ACTION_IGNORE);
    expect_result(config, "/websocket/a", ROUTE_NOT_FOUND);
    assert_int_equal(config->prefixes.count, 0);
    config_unref(config);
}

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(file_path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(file_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_expand),
        cmocka_unit_test(bad_templates_are_explained),
        cmocka_unit_test(templates_know_when_they_change_nothing),
        cmocka_unit_test(expansion_respects_the_buffers_ceiling),
        cmocka_unit_test(original_endpoints_are_built_in),
        cmocka_unit_test(original_frames_are_exact),
        cmocka_unit_test(integers_are_canonical),
        cmocka_unit_test(parameters_are_decoded_after_splitting),
        cmocka_unit_test(bad_parameters_are_named),
        cmocka_unit_test(literals_win_from_the_left),
        cmocka_unit_test(prefixes_come_after_the_path_itself),
        cmocka_unit_test(hostile_paths_match_nothing),
        cmocka_unit_test(parameters_can_be_kept),
        cmocka_unit_test(bad_patterns_are_explained),
        cmocka_unit_test(bad_values_are_explained),
        cmocka_unit_test(quoted_text_keeps_spaces_and_quotes),
        cmocka_unit_test(a_route_without_keys_ignores),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
