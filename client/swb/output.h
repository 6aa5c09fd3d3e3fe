/* How swb prints. */
#ifndef CLIENT_SWB_OUTPUT_H
#define CLIENT_SWB_OUTPUT_H

#include "client/swb/swb.h"
#include "client/switchboard.h"

/* A message on a line: its payload (binary as base64), with -v who, where and when before it; with --json all of it as an
 * object. Flushed, so that whoever reads a pipe has it. False: standard output is gone. */
bool print_message(const struct args *args, const struct swb_message *message);

/* Bytes that came from others. On a terminal what is hidden in them, controls above all, is shown and not obeyed. */
void print_safe(const char *text, size_t len);

/* What people tell apart by looking at it, in one line of a list: everywhere, whatever can't be seen is shown. */
void print_name(const char *text);

/* JSON. On a terminal what can't be seen is escaped as JSON does, so it stays the same value. */
void print_json_text(const char *text, size_t len);

/* Columns on a terminal that print_name() takes, a character of UTF-8 counting as one. */
int name_width(const char *text);

#endif
