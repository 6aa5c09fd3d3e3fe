/* What holds for every message that a client may send, in either face: shared by fuzz_command_json.c and fuzz_command_msgpack.c. */
#ifndef TESTS_FUZZ_FUZZ_COMMAND_H
#define TESTS_FUZZ_FUZZ_COMMAND_H

#include "base/utf8.h"
#include "fuzz.h"
#include "proto/command.h"
#include "proto/writer.h"

#include <jansson.h>
#include <string.h>

static inline void require_utf8(struct slice text)
{
    fuzz_require(utf8_valid(text.data, text.len));
}

/* A payload that was read can be written to receivers of both faces, and JSON readers understand it. */
static inline void require_writable(const struct command *command)
{
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        struct writer writer;
        struct buffer out;
        buffer_init(&out, 0);
        writer_begin(&writer, (enum face)face, &out);
        writer_map(&writer, 1);
        writer_payload(&writer, command->content, command->payload);
        writer_end(&writer);
        fuzz_require(!out.failed);
        if (face == FACE_JSON) {
            json_t *frame = json_loadb(out.data, out.len, JSON_ALLOW_NUL, NULL);
            static const char *const keys[] = {
                [CONTENT_TEXT] = "text", [CONTENT_BINARY] = "binary", [CONTENT_JSON] = "data"};
            fuzz_require(json_object_size(frame) == 1);
            fuzz_require(json_object_get(frame, keys[command->content]));
            json_decref(frame);
        }
        buffer_close(&out);
    }
}

static inline void require_sound(const struct command *command)
{
    const struct slice texts[] = {command->cmd,     command->to,          command->topic,
                                  command->address, command->request,     command->refuse,
                                  command->key,     command->since_epoch, command->since_offset};

    fuzz_require(command->id >= 0 && command->id < (int64_t)1 << 53);
    fuzz_require(command->present & FIELD_CMD);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        require_utf8(texts[i]);
    if (command->content != CONTENT_BINARY)
        require_utf8(command->payload);
    fuzz_require(command->present & FIELD_PAYLOAD ||
                 (!command->payload.len && command->content == CONTENT_TEXT));
    require_writable(command);
}

/* Reads all frames of a message. */
static inline void read_message(enum face face, const uint8_t *data, size_t size)
{
    struct command_reader reader;
    struct command command;
    enum command_status status;
    size_t frames = 0;
    /* A copy of its own, so that the sanitizer sees a step past the end. */
    char *bytes = malloc(size ? size : 1);

    fuzz_require(bytes);
    if (size)
        memcpy(bytes, data, size);
    command_reader_init(&reader, face, slice_from(bytes, size));
    while ((status = command_read(&reader, &command)) != COMMAND_END && status != COMMAND_FATAL) {
        fuzz_require(++frames <= size);
        fuzz_require((status == COMMAND_BAD) == (reader.problem[0] != '\0'));
        if (status == COMMAND_READ)
            require_sound(&command);
        else
            fuzz_require(command.id >= 0);
        require_utf8(slice_text(reader.problem));
    }
    fuzz_require((status == COMMAND_FATAL) == (reader.problem[0] != '\0'));
    require_utf8(slice_text(reader.problem));
    command_reader_close(&reader);
    free(bytes);
}

#endif
