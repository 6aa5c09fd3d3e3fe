// The table that the build generates from the files in this folder; for assets.c only.
#ifndef SWITCHBOARD_WEB_ASSETS_TABLE_H
#define SWITCHBOARD_WEB_ASSETS_TABLE_H

#include "web/assets.h"

extern const struct web_asset web_assets[];
extern const size_t web_asset_count;

#endif
