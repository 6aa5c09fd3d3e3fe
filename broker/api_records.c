/* The registry's records as JSON. */
#include "broker/api_internal.h"

static const struct api_shown_field session_fields[] = {
    {"conn", false}, {"instance", false}, {"route", false}, {"user", false},
    {"face", false}, {"remote", false},   {"agent", false}, {"connected_at", false},
};

struct slice api_record_field(const struct storage_record *record, const char *name)
{
    for (size_t i = 0; i < record->field_count; i++)
        if (slice_is(record->fields[i].name, name))
            return record->fields[i].value;
    return slice_from(NULL, 0);
}

void api_write_record(struct writer *writer, const struct storage_record *record, const char *key,
                      const struct api_shown_field *fields, size_t count)
{
    uint64_t number;
    size_t present = 1;

    for (size_t i = 0; i < count; i++)
        present += api_record_field(record, fields[i].name).len > 0;
    writer_map(writer, present);
    api_write_text(writer, key, record->key);
    for (size_t i = 0; i < count; i++) {
        struct slice value = api_record_field(record, fields[i].name);
        if (!value.len)
            continue;
        if (fields[i].number && api_read_number(value, &number))
            writer_pair_int(writer, fields[i].name, (int64_t)number);
        else
            api_write_text(writer, fields[i].name, value);
    }
    writer_end(writer);
}

void api_write_records(struct writer *writer, const char *name, const struct storage_record *records,
                       size_t record_count, const char *key, const struct api_shown_field *fields,
                       size_t count)
{
    writer_key(writer, name);
    writer_array(writer, record_count);
    for (size_t i = 0; i < record_count; i++)
        api_write_record(writer, &records[i], key, fields, count);
    writer_end(writer);
}

void api_write_session(struct writer *writer, const struct storage_record *record)
{
    api_write_record(writer, record, "session", session_fields, COUNT_OF(session_fields));
}
