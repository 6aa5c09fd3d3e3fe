#include "broker/metrics.h"

#include "base/buffer.h"

#include <inttypes.h>

void metrics_write(const struct metrics *metrics, struct buffer *out)
{
#define METRICS_LINE(field, name, help)                                                                      \
    buffer_printf(out,                                                                                       \
                  "# HELP switchboard_" name "_total " help ".\n"                                            \
                  "# TYPE switchboard_" name "_total counter\n"                                              \
                  "switchboard_" name "_total %" PRIu64 "\n",                                                \
                  metrics->field);
    METRICS_COUNTERS(METRICS_LINE)
#undef METRICS_LINE
}

void metrics_write_gauge(const char *name, const char *help, double value, struct buffer *out)
{
    buffer_printf(out, "# HELP switchboard_%s %s.\n# TYPE switchboard_%s gauge\nswitchboard_%s %.17g\n", name,
                  help, name, name, value);
}
