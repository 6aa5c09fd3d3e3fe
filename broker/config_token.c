/* The API's token: given as it is, or in a file that only the broker can read. */
#include "base/alloc.h"
#include "broker/config_file.h"
#include "broker/options.h"

#include <stdio.h>
#include <string.h>

enum { FILE_MAX = 512 };

static bool read_file(const char *path, char text[static FILE_MAX], char *problem, size_t size)
{
    /* It is read several times, so a pipe would be empty after the first. */
    FILE *file = config_file_open(path, CONFIG_FILE_REGULAR, problem, size);

    if (!file)
        return false;
    size_t len = fread(text, 1, FILE_MAX - 1, file);
    bool whole = !ferror(file) && len < FILE_MAX - 1;
    fclose(file);
    text[len] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (whole && option_is_token(text))
        return true;
    snprintf(problem, size, "must hold one line of %s", option_find("api_token")->form);
    return false;
}

bool config_api_token(const struct config *config, char **token, char *problem, size_t size)
{
    char text[FILE_MAX];
    const char *found = config->api_token;

    *token = NULL;
    if (config->api_token_file[0] != '\0') {
        if (!read_file(config->api_token_file, text, problem, size))
            return false;
        found = text;
    }
    if (found[0] == '\0')
        return true;
    *token = mem_strdup(found);
    if (*token == NULL)
        snprintf(problem, size, "can't be kept: memory is short");
    return *token != NULL;
}
