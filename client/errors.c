#include "proto/errors.h"
#include "client/switchboard.h"

static const struct {
    int code;
    const char *name, *text;
} local[] = {
    {SWB_OK, "ok", "it succeeded"},
    {SWB_OFFLINE, "offline", "not connected"},
    {SWB_LOST, "lost", "the connection was lost before the answer came"},
    {SWB_QUEUE_FULL, "queue_full", "too much is waiting to be sent or answered"},
    {SWB_CANCELLED, "cancelled", "cancelled"},
};

const char *swb_error_name(int error)
{
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (local[i].code == error)
            return local[i].name;
    return error_find(error)->name;
}

const char *swb_error_text(int error)
{
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (local[i].code == error)
            return local[i].text;
    return error_find(error)->text;
}
