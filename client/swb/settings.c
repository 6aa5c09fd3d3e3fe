#include "client/swb/swb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

/* The first line of ~/.config/switchboard/url; NULL when there is none. */
static const char *from_file(void)
{
    static char line[4200];
    char path[4096];
    const char *config = from_environment("XDG_CONFIG_HOME"), *home = from_environment("HOME");

    if (config)
        snprintf(path, sizeof path, "%s/switchboard/url", config);
    else if (home)
        snprintf(path, sizeof path, "%s/.config/switchboard/url", home);
    else
        return NULL;
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    bool ok = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    line[ok ? strcspn(line, " \t\r\n") : 0] = '\0';
    return *line ? line : NULL;
}

const char *settings_url(const struct args *args)
{
    const char *url = args->values[OPT_URL];

    if (!url)
        url = from_environment("SWITCHBOARD_URL");
    if (!url)
        url = from_file();
    return url ? url : "ws://127.0.0.1:8000";
}

const char *settings_api(const struct args *args)
{
    const char *url = args->values[OPT_API];

    if (!url)
        url = from_environment("SWITCHBOARD_API");
    if (!url)
        return "http://127.0.0.1:8001";
    if (strstr(url, "://"))
        return url;
    /* The broker's own form of it. */
    static char whole[4200];
    snprintf(whole, sizeof whole, "http://%s", url);
    return whole;
}

const char *settings_token(const struct args *args)
{
    const char *token = args->values[OPT_TOKEN];

    return token ? token : from_environment("SWITCHBOARD_TOKEN");
}

bool settings_check(const struct args *args)
{
    const char *token = settings_token(args);

    for (const char *at = token; at && *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            complain("the token in %s holds a control character, such as the end of a line with CR LF",
                     args->values[OPT_TOKEN] ? "--token" : "SWITCHBOARD_TOKEN");
            return false;
        }
    }
    return true;
}
