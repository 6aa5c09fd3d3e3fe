/* How swb prints. */
#ifndef CLIENT_SWB_OUTPUT_H
#define CLIENT_SWB_OUTPUT_H

#include "client/swb/swb.h"
#include "client/switchboard.h"

/* A message on a line: its payload (binary as base64), with -v who, where and when before it; with --json all of it as an
 * object. Flushed, so that whoever reads a pipe has it. False: standard output is gone. */
bool print_message(const struct args *args, const struct swb_message *message);

/* Bytes that came from others. On a terminal control characters are shown, not obeyed. */
void print_safe(const char *text, size_t len);

#endif
