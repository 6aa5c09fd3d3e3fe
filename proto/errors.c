#include "proto/errors.h"

#include <stddef.h>

static const struct error_info error_table[] = {
#define ERROR_ROW(symbol, code, name, retry, text) {(code), (name), (retry), (text)},
    ERROR_LIST(ERROR_ROW)
#undef ERROR_ROW
};

static const struct error_info unknown = {0, "unknown", false, "unknown"};

const struct error_info *error_find(int code)
{
    for (size_t i = 0; i < sizeof error_table / sizeof *error_table; i++)
        if (error_table[i].code == code)
            return &error_table[i];
    return &unknown;
}

const char *error_name(int code)
{
    return error_find(code)->name;
}
