/* The table of keys, the four sources of values, the checks, and what is printed. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/options.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What one call of config_load() gave. */
struct loaded {
    enum config_outcome outcome;
    struct config *config;
    char *out, *err;
};

static char file_path[] = "/tmp/switchboard-test-config-XXXXXX";

static void write_file(const char *text)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static struct loaded load_with(const char *const arguments[], const char *const environment[])
{
    struct loaded loaded = {0};
    size_t out_size, err_size;
    FILE *out = open_memstream(&loaded.out, &out_size), *err = open_memstream(&loaded.err, &err_size);
    char *argv[16] = {(char *)(uintptr_t) "switchboard"};
    int argc = 1;
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)arguments[argc - 1];
    loaded.outcome = config_load(argc, argv, (char *const *)(uintptr_t)environment, &loaded.config, out, err);
    fclose(out);
    fclose(err);
    assert_true((loaded.outcome == CONFIG_LOADED) == (loaded.config != NULL));
    assert_true((loaded.outcome == CONFIG_FAILED) == (loaded.err[0] != '\0'));
    return loaded;
}

#define ENV(...)  ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define ARGS(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define load(...) load_with(ARGS(__VA_ARGS__), ENV())

static struct loaded load_file(const char *text)
{
    write_file(text);
    return load("-c", file_path);
}

static void done(struct loaded *loaded)
{
    config_unref(loaded->config);
    free(loaded->out);
    free(loaded->err);
}

static void expect_text(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("expected \"%s\" in:\n%s", part, text);
}

static void expect_no_text(const char *text, const char *part)
{
    if (strstr(text, part) != NULL)
        fail_msg("unexpected \"%s\" in:\n%s", part, text);
}

/* The only problem of this command line holds `part`. */
static void expect_refused(const char *argument, const char *part)
{
    struct loaded loaded = load(argument);
    assert_int_equal(loaded.outcome, CONFIG_FAILED);
    expect_text(loaded.err, part);
    char *end = strchr(loaded.err, '\n');
    assert_string_equal(end, "\n");
    done(&loaded);
}

static void expect_file_refused(const char *text, const char *part)
{
    struct loaded loaded = load_file(text);
    assert_int_equal(loaded.outcome, CONFIG_FAILED);
    expect_text(loaded.err, part);
    done(&loaded);
}

/* --- Defaults and precedence
 * ------------------------------------------------------------------------------------ */

static void defaults_serve_on_loopback(void **state)
{
    (void)state;
    struct loaded loaded = load();
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    const struct config *config = loaded.config;
    assert_string_equal(config->listen.text, "127.0.0.1:8000");
    assert_string_equal(config->api.text, "127.0.0.1:8001");
    assert_int_equal(config->listen.port, 8000);
    assert_int_equal(config->listen.sockaddr.ss_family, AF_INET);
    assert_int_equal(config->storage, CONFIG_STORAGE_MEMORY);
    assert_int_equal(config->redis.kind, CONFIG_REDIS_NONE);
    assert_string_equal(config->prefix, "sb:");
    assert_string_equal(config->instance, "");
    assert_int_equal(config->max_connections, 20000);
    assert_int_equal(config->max_message, 1 << 20);
    assert_int_equal(config->outbox_limit, 4 << 20);
    assert_int_equal(config->ping_interval, 25000);
    assert_int_equal(config->heartbeat, 1000);
    assert_int_equal(config->lease, 5000);
    assert_int_equal(config->log_level, LOG_LEVEL_INFO);
    assert_int_equal(config->log_format, LOG_FORMAT_LOGFMT);
    assert_false(config->insecure);
    assert_int_equal(config->route_count, 3);
    assert_int_equal(config->prefixes.count, 2);
    done(&loaded);
}

static void sources_win_in_order(void **state)
{
    (void)state;
    write_file("max_connections = 2\ninflight_limit = 2\nping_timeout = 2s\n");
    struct loaded loaded =
        load_with(ARGS("--max-connections=4", "--config", file_path),
                  ENV("SWITCHBOARD_MAX_CONNECTIONS=3", "SWITCHBOARD_INFLIGHT_LIMIT=3", "HOME=/x"));
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(loaded.config->max_connections, 4);
    assert_int_equal(loaded.config->inflight_limit, 3);
    assert_int_equal(loaded.config->ping_timeout, 2000);
    assert_int_equal(loaded.config->close_timeout, 5000);
    done(&loaded);
}

static void overridden_values_are_checked_too(void **state)
{
    (void)state;
    write_file("max_connections = none\n");
    struct loaded loaded = load("--max-connections=4", "-c", file_path);
    assert_int_equal(loaded.outcome, CONFIG_FAILED);
    expect_text(loaded.err, ":1: max_connections = none: must be an integer from 1 to 10000000");
    done(&loaded);
}

static void environment_names_the_file(void **state)
{
    (void)state;
    write_file("max_connections = 7\n");
    char variable[128];
    snprintf(variable, sizeof variable, "SWITCHBOARD_CONFIG=%s", file_path);
    struct loaded loaded = load_with(ARGS(), ENV(variable));
    assert_int_equal(loaded.config->max_connections, 7);
    done(&loaded);
    loaded = load_with(ARGS("-c", "/nonexistent"), ENV(variable));
    expect_text(loaded.err, "/nonexistent: can't be opened: No such file");
    done(&loaded);
}

static void environment_of_services_is_ignored(void **state)
{
    (void)state;
    struct loaded loaded =
        load_with(ARGS(), ENV("SWITCHBOARD_PORT=tcp://10.0.0.1:80", "SWITCHBOARD_SERVICE_HOST=10.0.0.1",
                              "SWITCHBOARD_LISTEN=", "SWITCHBOARD_REDIS_SERVICE_PORT=1",
                              "SWITCHBOARD_PORT_80_TCP_ADDR=1", "SWITCHBOARDX=1"));
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_string_equal(loaded.config->listen.text, "127.0.0.1:8000");
    done(&loaded);
    loaded = load_with(ARGS(), ENV("SWITCHBOARD_LISTN=1"));
    expect_text(loaded.err, "SWITCHBOARD_LISTN is unknown; did you mean listen?");
    done(&loaded);
}

static void short_and_long_options(void **state)
{
    (void)state;
    struct loaded loaded = load("-l127.0.0.1:9", "-r", "redis://h", "--insecure", "--api", "off");
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(loaded.config->listen.port, 9);
    assert_true(loaded.config->insecure);
    assert_true(loaded.config->api.off);
    assert_int_equal(loaded.config->api.sockaddr_len, 0);
    assert_int_equal(loaded.config->storage, CONFIG_STORAGE_REDIS);
    done(&loaded);
    loaded = load("--insecure=no");
    assert_false(loaded.config->insecure);
    done(&loaded);
}

static void lists_continue(void **state)
{
    (void)state;
    struct loaded loaded = load_file("prefixes = /a, /b\nprefixes = /c/d /a\n");
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(loaded.config->prefixes.count, 3);
    assert_string_equal(loaded.config->prefixes.items[2], "/c/d");
    done(&loaded);
    write_file("prefixes = /a\n");
    loaded = load("-c", file_path, "--prefixes=/x", "--prefixes=/y");
    assert_int_equal(loaded.config->prefixes.count, 2);
    assert_string_equal(loaded.config->prefixes.items[0], "/x");
    done(&loaded);
    loaded = load("--prefixes=");
    assert_int_equal(loaded.config->prefixes.count, 0);
    done(&loaded);
}

/* --- Values
 * ------------------------------------------------------------------------------------------------------ */

static void bad_command_lines(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"--max-connections=0", "--max-connections=0: must be an integer from 1 to 10000000"},
        {"--max-connections=-1", "must be an integer"},
        {"--max-connections=1x", "must be an integer"},
        {"--max-connections=", "must be an integer"},
        {"--max-connections=99999999999999999999999", "must be an integer"},
        {"--max-message=1023", "must be a size (bytes, KiB, MiB, GiB) from 1KiB to 1GiB"},
        {"--max-message=2GiB", "must be a size"},
        {"--max-message=1MB", "must be a size"},
        {"--max-message=999999999999999GiB", "must be a size"},
        {"--ping-interval=25", "must be a time (ms, s, m, h) from 100ms to 24h, or 0"},
        {"--ping-interval=1ms", "must be a time"},
        {"--ping-interval=1.5s", "must be a time"},
        {"--ping-timeout=0", "must be a time"},
        {"--log-level=loud", "must be error, warn, info or debug"},
        {"--log-format=xml", "must be logfmt or json"},
        {"--insecure=perhaps", "--insecure=perhaps: must be yes or no"},
        {"--listen=8000", "must be IPV4:PORT"},
        {"--listen=127.0.0.1", "must be IPV4:PORT"},
        {"--listen=127.0.0.1:", "must be IPV4:PORT"},
        {"--listen=127.0.0.1:65536", "must be IPV4:PORT"},
        {"--listen=127.0.0.1:80x", "must be IPV4:PORT"},
        {"--listen=example.org:80", "must be IPV4:PORT"},
        {"--listen=::1:80", "must be IPV4:PORT"},
        {"--listen=[::1:80", "must be IPV4:PORT"},
        {"--listen=off", "must be IPV4:PORT"},
        {"--instance=a b", "must be up to 63 of"},
        {"--prefix=a{b}", "must be 1 to 64 of"},
        {"--prefix=", "must be 1 to 64 of"},
        {"--prefixes=chat", "must be up to 16 paths"},
        {"--prefixes=/a/", "must be up to 16 paths"},
        {"--prefixes=/a//b", "must be up to 16 paths"},
        {"--tls-cert=a ;b", "must not hold a ;"},
        {"--tls-cert=a\nb", "must not hold control characters"},
        {"--tls-cert=\xff", "must be UTF-8"},
        {"--max-conections=1", "--max-conections is unknown or ambiguous; did you mean --max-connections?"},
        {"--zzzzzzzzzzzz", "--zzzzzzzzzzzz is unknown or ambiguous; see switchboard --help"},
        {"--help=1", "--help=1 takes no value"},
        {"-x", "-x is unknown"},
        {"--redis", "--redis needs a value"},
        {"word", "word: there are no arguments"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(cases[i][0], cases[i][1]);
}

static void quantities_have_units(void **state)
{
    (void)state;
    struct loaded loaded = load("--max-message=64 KiB", "--outbox-limit=1048576", "--ping-interval=0",
                                "--lease=1m", "--drain-time=1h", "--ping-timeout=1500ms");
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(loaded.config->max_message, 65536);
    assert_int_equal(loaded.config->outbox_limit, 1 << 20);
    assert_int_equal(loaded.config->ping_interval, 0);
    assert_int_equal(loaded.config->lease, 60000);
    assert_int_equal(loaded.config->drain_time, 3600000);
    assert_int_equal(loaded.config->ping_timeout, 1500);
    done(&loaded);
}

static void redis_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *canonical;
    } good[] = {
        {"redis://h", "redis://h:6379/0"},
        {"redis://h:1/15", "redis://h:1/15"},
        {"redis://h/", "redis://h:6379/0"},
        {"redis://[::1]:7", "redis://[::1]:7/0"},
        {"redis://:p@h", "redis://:p@h:6379/0"},
        {"redis://u:p%40%2f@h/2", "redis://u:p%40%2F@h:6379/2"},
        {"redis://u:p@q@h", "redis://u:p%40q@h:6379/0"},
        {"unix:///run/r.sock", "unix:///run/r.sock?db=0"},
        {"unix://u:p@/run/r.sock?db=4", "unix://u:p@/run/r.sock?db=4"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char problem[256];
        struct config_redis redis;
        struct buffer text;
        buffer_init(&text, 0);
        assert_true(config_redis_parse(good[i].url, &redis, problem, sizeof problem));
        config_redis_format(&redis, true, &text);
        assert_string_equal(buffer_text(&text), good[i].canonical);
        buffer_close(&text);
        config_redis_clear(&redis);
    }
    static const char *const bad[] = {
        "h",
        "http://h",
        "redis://",
        "redis:///1",
        "redis://h:0",
        "redis://h:x",
        "redis://h:65536",
        "redis://h:",
        "redis://h/x",
        "redis://h/65536",
        "redis://h/1/2",
        "redis://u@h",
        "redis://u:@h",
        "redis://u:%zz@h",
        "redis://u:%00@h",
        "redis://u:***@h",
        "redis://[::1",
        "redis://[::1]x",
        "redis://a b",
        "rediss://h",
        "unix://x",
        "unix://",
        "unix:///",
        "unix:///x?db=",
        "unix:///x?x=1",
        "redis://u:%4@h",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char problem[256] = "";
        struct config_redis redis;
        if (config_redis_parse(bad[i], &redis, problem, sizeof problem))
            fail_msg("accepted %s", bad[i]);
        assert_true(problem[0] != '\0');
    }
}

static void passwords_stay_secret(void **state)
{
    (void)state;
    struct loaded loaded = load("--redis=redis://u:hush@h", "--print-config");
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    expect_text(loaded.out, "redis = redis://u:***@h:6379/0");
    expect_no_text(loaded.out, "hush");
    done(&loaded);
    loaded = load("--redis=rediss://u:hush@h");
    expect_text(loaded.err, "TLS");
    expect_no_text(loaded.err, "hush");
    done(&loaded);
    loaded = load("--redis=redis://u:hush@h", "--storage=memory");
    expect_text(loaded.err, "contradict");
    expect_no_text(loaded.err, "hush");
    done(&loaded);
}

/* --- The file
 * ---------------------------------------------------------------------------------------------------- */

static void bad_files(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\n\nmax_conections = 1\n", ":3: max_conections is unknown; did you mean max_connections?"},
        {"max_connections = 1\nmax_connections = 1\n", ":2: max_connections = 1: is set already at /tmp"},
        {"[nonsense]\n", ":1: [nonsense] is no section; allowed are [switchboard] and [route PATTERN]"},
        {"[routes /x]\n", "is no section"},
        {"[route]\n", "[route] is no section; allowed"},
        {"[switchboard\n", ":1: the section's ] is missing"},
        {"[switchboard] x\n", ":1: there is something after the section's ]"},
        {"listen\n", ":1: the line is neither KEY = VALUE"},
        {"= 3\n", ":1: there is nothing before the ="},
        {"prefix = \xff\n", ":1: the line is not UTF-8"},
        {"prefix = \x01\n", ":1: the line holds control characters"},
        {"redis = nonsense\n", ":1: redis = ***: must be redis://"},
        {"[route /a/{x}]\ncolour = red\n", ":2: colour is unknown in a [route] section; allowed are address"},
        {"[route /a/{x}]\naddress = user:{y}\n", ":2: address: {y} is unknown here; known: {x}"},
        {"[route /a/{x}]\naddress = user:{x}\naddress = user:{x}\n", ":3: address: is set twice"},
        {"[route /a/{x}]\n[route /a/{y:int}]\n",
         ":2: [route /a/{y:int}]: matches the same paths as [route /a/{x}]"},
        {"[route /a]\non_message = echo\nreply = x\n", ":1: [route /a]: reply needs on_message"},
        {"[route a]\n", ":1: [route a]: a pattern begins with /"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_file_refused(cases[i][0], cases[i][1]);
}

static void long_lines_are_refused_not_cut(void **state)
{
    (void)state;
    char text[600];
    snprintf(text, sizeof text, "instance = ok\nprefix = %0200d\n", 1);
    expect_file_refused(text, ":2: the line is longer than 197 bytes");
    snprintf(text, sizeof text, "[route /%0150d/{name}]\naddress = topic:{name}\n", 1);
    struct loaded loaded = load_file(text);
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(strlen(loaded.config->routes[0]->pattern), 158);
    done(&loaded);
    snprintf(text, sizeof text, "tls_cert = /%0150d\n", 1);
    loaded = load_file(text);
    expect_text(loaded.err, "tls_cert = /000");
    done(&loaded);
}

static void all_problems_are_named_at_once(void **state)
{
    (void)state;
    write_file(
        "max_message = 3\nfoo = 1\n[bar]\nx = 1\n[route /{a}]\naddress = b\n[switchboard]\nlease = 1s\n");
    struct loaded loaded = load_with(ARGS("-c", file_path, "--nope", "--log-level=x", "word"),
                                     ENV("SWITCHBOARD_PING_TIMEOUT=x"));
    assert_int_equal(loaded.outcome, CONFIG_FAILED);
    static const char *const parts[] = {
        "--nope",      "--log-level=x", "word:",       ":1: max_message = 3",
        ":2: foo",     ":3: [bar]",     ":6: address", "SWITCHBOARD_PING_TIMEOUT=x",
        "lease = 1s ("};
    size_t lines = 0;
    for (const char *p = loaded.err; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, sizeof parts / sizeof parts[0]);
    for (size_t i = 0; i < lines; i++)
        expect_text(loaded.err, parts[i]);
    expect_no_text(loaded.err, "outbox_limit"); /* max_message is refused already */
    done(&loaded);
}

static void files_may_look_untidy(void **state)
{
    (void)state;
    struct loaded loaded =
        load_file("\xef\xbb\xbf; comment\r\n# comment\r\n  max_connections=5   ; comment\r\n"
                  "\t[ switchboard ]\n");
    expect_text(loaded.err, "[ switchboard ] is no section");
    done(&loaded);
    loaded = load_file("\xef\xbb\xbf; comment\r\n# comment\r\n  max_connections=5   ; comment\r\n"
                       "    inflight_limit : 6\n\t[switchboard] ; comment\ninstance = a");
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    assert_int_equal(loaded.config->max_connections, 5);
    assert_int_equal(loaded.config->inflight_limit, 6);
    assert_string_equal(loaded.config->instance, "a");
    done(&loaded);
}

static void problems_hold_no_control_characters(void **state)
{
    (void)state;
    struct loaded loaded = load("\033[31mred");
    expect_text(loaded.err, "?[31mred");
    done(&loaded);
}

/* --- Checks across keys
 * ------------------------------------------------------------------------------------------ */

static void exposure_needs_insecure(void **state)
{
    (void)state;
    static const char *const open[] = {"--listen=0.0.0.0:80", "--listen=[::]:80", "--listen=10.0.0.1:80",
                                       "--listen=[::ffff:10.0.0.1]:80", "--api=0.0.0.0:81"};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        expect_refused(open[i], "can be reached from other machines, and no authentication is configured");
        struct loaded loaded = load(open[i], "--insecure");
        assert_int_equal(loaded.outcome, CONFIG_LOADED);
        done(&loaded);
    }
    static const char *const closed[] = {"--listen=127.8.8.8:80", "--listen=[::1]:80",
                                         "--listen=localhost:80", "--listen=[::ffff:127.0.0.1]:80",
                                         "--api=off"};
    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
        struct loaded loaded = load(closed[i]);
        assert_int_equal(loaded.outcome, CONFIG_LOADED);
        done(&loaded);
    }
}

static void keys_must_go_together(void **state)
{
    (void)state;
    static const struct {
        const char *first, *second, *part;
    } cases[] = {
        {"--storage=redis", "--log-level=info", "storage = redis (command line) needs to know the server"},
        {"--storage=memory", "--redis=redis://h", "contradict each other"},
        {"--tls-cert=/dev/null", "--log-level=info", "tls_cert = /dev/null (command line) needs tls_key"},
        {"--tls-key=/dev/null", "--log-level=info", "tls_key = /dev/null (command line) needs tls_cert"},
        {"--tls-key=/dev/null", "--tls-cert=/nonexistent", "can't be read: No such file"},
        {"--outbox-limit=1MiB", "--max-message=1MiB", "outbox_limit must be at least max_message plus 64KiB"},
        {"--lease=1900ms", "--heartbeat=1s", "lease must be at least twice the heartbeat"},
        {"--listen=127.0.0.1:5", "--api=127.0.0.1:5", "are the same address"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded loaded = load(cases[i].first, cases[i].second);
        assert_int_equal(loaded.outcome, CONFIG_FAILED);
        expect_text(loaded.err, cases[i].part);
        done(&loaded);
    }
    struct loaded loaded = load("--listen=127.0.0.1:0", "--api=127.0.0.1:0", "--tls-cert=/dev/null",
                                "--tls-key=/dev/null", "--outbox-limit=1088KiB", "--lease=2s");
    assert_int_equal(loaded.outcome, CONFIG_LOADED);
    done(&loaded);
}

/* --- What is printed
 * --------------------------------------------------------------------------------------------- */

static void commands_print_and_end(void **state)
{
    (void)state;
    struct loaded loaded = load("--version");
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    assert_string_equal(loaded.out, "switchboard " SWITCHBOARD_VERSION "\n");
    done(&loaded);
    loaded = load("--check-config");
    assert_string_equal(loaded.out, "configuration: OK\n");
    done(&loaded);
    write_file("max_connections = 1\n");
    loaded = load("--check-config", "-c", file_path);
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    assert_memory_equal(loaded.out, file_path, strlen(file_path));
    assert_string_equal(loaded.out + strlen(file_path), ": OK\n");
    done(&loaded);
    loaded = load("--check-config", "--lease=1ms");
    assert_int_equal(loaded.outcome, CONFIG_FAILED);
    assert_string_equal(loaded.out, "");
    done(&loaded);
}

static void help_names_every_option_within_100_columns(void **state)
{
    (void)state;
    struct loaded loaded = load("--help", "--listen=nonsense");
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    for (const char *line = loaded.out; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 100);
    for (size_t i = 0; i < option_count; i++) {
        char option[OPTION_NAME_SIZE + 3] = "--";
        option_long_name(&option_specs[i], option + 2);
        expect_text(loaded.out, option);
    }
    done(&loaded);
    loaded = load("--print-config-reference");
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    for (size_t i = 0; i < option_count; i++) {
        char row[OPTION_NAME_SIZE + 8];
        snprintf(row, sizeof row, "| `%s` |", option_specs[i].key);
        expect_text(loaded.out, row);
    }
    for (size_t i = 0; i < route_key_count; i++)
        expect_text(loaded.out, route_keys[i].key);
    done(&loaded);
}

static void assert_same(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < option_count; i++) {
        struct buffer x, y;
        buffer_init(&x, 0);
        buffer_init(&y, 0);
        option_format(&option_specs[i], a, true, &x);
        option_format(&option_specs[i], b, true, &y);
        assert_string_equal(buffer_text(&x), buffer_text(&y));
        buffer_close(&x);
        buffer_close(&y);
    }
    assert_int_equal(a->route_count, b->route_count);
    for (size_t i = 0; i < a->route_count; i++) {
        assert_string_equal(a->routes[i]->pattern, b->routes[i]->pattern);
        for (size_t k = 0; k < route_key_count; k++) {
            const char *x = a->routes[i]->sources[k], *y = b->routes[i]->sources[k];
            assert_true((x == NULL) == (y == NULL) && (x == NULL || strcmp(x, y) == 0));
        }
    }
}

static char *printed(const struct config *config)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_true(config_print(config, out));
    fclose(out);
    return text;
}

static void assert_reads_back(struct loaded *loaded)
{
    assert_int_equal(loaded->outcome, CONFIG_LOADED);
    char *text = printed(loaded->config);
    struct loaded again = load_file(text);
    if (again.outcome != CONFIG_LOADED)
        fail_msg("%s\n%s", again.err, text);
    assert_same(loaded->config, again.config);
    free(text);
    done(&again);
    done(loaded);
}

static void printed_configurations_read_back(void **state)
{
    (void)state;
    struct loaded loaded = load();
    assert_reads_back(&loaded);
    loaded = load("--max-message=65537", "--redis=unix:///r?db=3", "--api=off", "--prefixes=", "--insecure",
                  "--listen=[::]:1", "--ping-interval=0", "--drain-time=90s", "--log-format=json",
                  "--instance=a.b");
    assert_reads_back(&loaded);
    char text[500];
    snprintf(text, sizeof text,
             "prefixes=/a,/b\n[route /x/{y}]\non_message=publish topic:{y} \"%0160d\"\n[route /]\n", 7);
    loaded = load_file(text);
    assert_reads_back(&loaded);
}

static void sources_are_printed(void **state)
{
    (void)state;
    write_file("\nmax_connections = 2\n");
    struct loaded loaded = load_with(ARGS("--ping-timeout=4s", "-c", file_path, "--print-config"),
                                     ENV("SWITCHBOARD_INFLIGHT_LIMIT=3"));
    assert_int_equal(loaded.outcome, CONFIG_DONE);
    expect_text(loaded.out, "; environment SWITCHBOARD_INFLIGHT_LIMIT\n");
    expect_text(loaded.out, "; command line\n");
    expect_text(loaded.out, ":2\n");
    expect_text(loaded.out, "; default\n");
    expect_text(loaded.out, "; built in\n");
    done(&loaded);
}

/* --- Reload
 * ------------------------------------------------------------------------------------------------------ */

static char logged[8192];

static void collect_log(const char *line, size_t len)
{
    size_t have = strlen(logged);
    snprintf(logged + have, sizeof logged - have, "%.*s", (int)len, line);
}

static void reload_takes_what_can_change(void **state)
{
    (void)state;
    struct loaded loaded = load_file("max_connections = 1\nredis = redis://:old@h\nprefix = a:\n");
    write_file("max_connections = 2\nredis = redis://:new@h\nprefix = b:\nlog_level = debug\n[route /x]\n");
    logged[0] = '\0';
    log_set_sink(collect_log);
    struct config *config = config_reload(loaded.config);
    log_set_sink(NULL);
    assert_non_null(config);
    assert_int_equal(config->max_connections, 2);
    assert_int_equal(config->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(config->route_count, 1);
    assert_string_equal(config->prefix, "a:");
    assert_string_equal(config->redis.password, "old");
    expect_text(logged, "key=prefix kept=a: ignored=b:");
    expect_text(logged, "key=redis");
    expect_no_text(logged, "old");
    expect_no_text(logged, "new");
    expect_no_text(logged, "max_connections");
    config_unref(config);
    done(&loaded);
}

static void reload_keeps_the_command_line(void **state)
{
    (void)state;
    write_file("max_connections = 1\ninflight_limit = 1\n");
    struct loaded loaded = load("--max-connections=5", "-c", file_path);
    write_file("max_connections = 2\ninflight_limit = 2\n");
    struct config *config = config_reload(loaded.config);
    assert_int_equal(config->max_connections, 5);
    assert_int_equal(config->inflight_limit, 2);
    struct config *again = config_reload(config);
    assert_same(config, again);
    config_unref(again);
    config_unref(config);
    done(&loaded);
}

static void reload_refuses_a_bad_file(void **state)
{
    (void)state;
    struct loaded loaded = load_file("max_connections = 1\n");
    write_file("max_connections = x\nfoo = 1\n");
    logged[0] = '\0';
    log_set_sink(collect_log);
    assert_null(config_reload(loaded.config));
    log_set_sink(NULL);
    expect_text(logged, "max_connections = x: must be");
    expect_text(logged, ":2: foo is unknown");
    assert_int_equal(loaded.config->max_connections, 1);
    done(&loaded);
}

static void references_keep_it_alive(void **state)
{
    (void)state;
    struct loaded loaded = load();
    struct config *held = config_ref(loaded.config);
    done(&loaded);
    assert_string_equal(held->prefix, "sb:");
    config_unref(held);
    config_unref(NULL);
}

/* --- Memory
 * ------------------------------------------------------------------------------------------------------ */

static void short_memory_is_an_error(void **state)
{
    (void)state;
    alloc_fixture_install();
    for (size_t n = 1;; n++) {
        write_file("prefixes = /a\nprefixes = /b\nredis = redis://u:p@h\n[route /{a}]\naddress = user:{a}\n"
                   "on_message = publish user:{a} \"{message}!\"\nreply = \"x\"\n");
        alloc_fixture_fail(n);
        struct loaded loaded = load("-c", file_path, "--instance=a");
        bool failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        assert_int_equal(loaded.outcome, failed ? CONFIG_FAILED : CONFIG_LOADED);
        done(&loaded);
        if (!failed)
            break;
    }
    assert_int_equal(alloc_fixture_remove(), 0);
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
        cmocka_unit_test(defaults_serve_on_loopback),
        cmocka_unit_test(sources_win_in_order),
        cmocka_unit_test(overridden_values_are_checked_too),
        cmocka_unit_test(environment_names_the_file),
        cmocka_unit_test(environment_of_services_is_ignored),
        cmocka_unit_test(short_and_long_options),
        cmocka_unit_test(lists_continue),
        cmocka_unit_test(bad_command_lines),
        cmocka_unit_test(quantities_have_units),
        cmocka_unit_test(redis_urls),
        cmocka_unit_test(passwords_stay_secret),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(long_lines_are_refused_not_cut),
        cmocka_unit_test(all_problems_are_named_at_once),
        cmocka_unit_test(files_may_look_untidy),
        cmocka_unit_test(problems_hold_no_control_characters),
        cmocka_unit_test(exposure_needs_insecure),
        cmocka_unit_test(keys_must_go_together),
        cmocka_unit_test(commands_print_and_end),
        cmocka_unit_test(help_names_every_option_within_100_columns),
        cmocka_unit_test(printed_configurations_read_back),
        cmocka_unit_test(sources_are_printed),
        cmocka_unit_test(reload_takes_what_can_change),
        cmocka_unit_test(reload_keeps_the_command_line),
        cmocka_unit_test(reload_refuses_a_bad_file),
        cmocka_unit_test(references_keep_it_alive),
        cmocka_unit_test(short_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
