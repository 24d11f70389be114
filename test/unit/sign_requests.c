/* Signs requests that it reads, for tools/compare-sigv4.
 *
 * A request is a line of fields with a space between each, all bytes of them in
 * hexadecimal, "-" for an empty one:
 *
 *     METHOD KEY PAYLOAD-HASH TIME ACCESS-KEY SECRET-KEY REGION SERVICE [?NAME VALUE]… [:NAME VALUE]…
 *
 * with the parameters of the query (behind a '?') and the headers (behind a
 * ':').  What is printed for it is the header Authorization. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/text.h"
#include "store/sigv4.h"

enum { METHOD, KEY, PAYLOAD_HASH, TIME, ACCESS_KEY, SECRET_KEY, REGION, SERVICE, FIXED_FIELDS };
#define FIELDS_MAX (FIXED_FIELDS + 2 * (SIGV4_PARAMETERS_MAX + SIGV4_HEADERS_MAX))

struct field {
    char *text;
    size_t length;
};

static struct field unhex(const char *hex)
{
    struct field field = { .length = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2 };
    field.text = memory_new(field.length + 1);
    if (field.length > 0 && !text_unhex(hex, (uint8_t *)field.text, field.length)) {
        fprintf(stderr, "sign_requests: '%s' is not hexadecimal\n", hex);
        exit(2);
    }
    return field;
}

/* Keeps the key from one request to the next, as a server does. */
static void sign(const struct field *fields, const char *query, const struct sigv4_header *headers, int header_count)
{
    static struct sigv4_key key;
    struct buffer path = BUFFER_EMPTY, value = BUFFER_EMPTY;
    buffer_put_u8(&path, '/');
    sigv4_encode(fields[KEY].text, fields[KEY].length, 1, &path);
    struct sigv4_request request = {
        .method = fields[METHOD].text,
        .path = (const char *)path.data,
        .query = query,
        .headers = headers,
        .header_count = header_count,
        .payload_hash = fields[PAYLOAD_HASH].text,
        .time = fields[TIME].text,
    };
    sigv4_sign(&request, fields[ACCESS_KEY].text, fields[SECRET_KEY].text, fields[REGION].text, fields[SERVICE].text,
               &key, &value);
    puts((const char *)value.data);
    buffer_free(&path);
    buffer_free(&value);
}

static void sign_line(char *line)
{
    struct field fields[FIELDS_MAX];
    struct sigv4_header headers[SIGV4_HEADERS_MAX];
    struct buffer query = BUFFER_EMPTY;
    int count = 0, header_count = 0;
    sigv4_encode("", 0, 0, &query);
    for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n")) {
        char kind = *word;
        assert(count < FIELDS_MAX);
        fields[count++] = unhex(kind == '?' || kind == ':' ? word + 1 : word);
        if (kind != '?' && kind != ':')
            continue;
        char *value = strtok(NULL, " \n");
        assert(value != NULL && count < FIELDS_MAX);
        fields[count++] = unhex(value);
        const struct field *pair = &fields[count - 2];
        if (kind == ':') {
            assert(header_count < SIGV4_HEADERS_MAX);
            headers[header_count++] = (struct sigv4_header){ .name = pair[0].text, .value = pair[1].text };
        } else {
            if (query.length > 0)
                buffer_put_u8(&query, '&');
            sigv4_encode(pair[0].text, pair[0].length, 0, &query);
            buffer_put_u8(&query, '=');
            sigv4_encode(pair[1].text, pair[1].length, 0, &query);
        }
    }
    assert(count >= FIXED_FIELDS);
    sign(fields, (const char *)query.data, headers, header_count);
    for (int i = 0; i < count; i++)
        free(fields[i].text);
    buffer_free(&query);
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0)
        sign_line(line);
    free(line);
    return 0;
}
