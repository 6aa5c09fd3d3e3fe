// The page's files, embedded into the binary at build time.
#ifndef SWITCHBOARD_WEB_ASSETS_H
#define SWITCHBOARD_WEB_ASSETS_H

#include <stddef.h>

// Constant and static: never freed, valid for the life of the process.
struct web_asset {
    const char *path;         // as requested, with the leading slash: "/app.js"
    const char *content_type; // a whole header value, character set included
    const char *etag;         // a strong one, quotes included, made from the content
    const unsigned char *data;
    size_t len;
};

// The file at a decoded path without its query; "/" is the page itself. NULL when there is none.
const struct web_asset *web_asset_find(const char *path);

#endif
