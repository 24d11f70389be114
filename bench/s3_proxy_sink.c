/* See s3_proxy_sink.h.
 *
 * Objects stand in one array, sorted by bucket and key, so that listing is a
 * walk and finding a bisection.  An object is immutable once it is in the
 * array; answers under way hold a reference while it is replaced or deleted.
 * Every bucket exists.  A put is applied when its body is complete. */
#include "s3_proxy_sink.h"

#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIST_MAX 1000

struct sink_object {
    int references;
    char *name; /* bucket/key, decoded */
    uint64_t etag;
    uint64_t length, received;
    char *bytes; /* NULL: dropped, or empty */
};

static struct sink_object **objects;
static size_t count, capacity;
static uint64_t last_etag;
static uint64_t keep_max = UINT64_MAX;

void sink_keep(uint64_t bytes_max)
{
    keep_max = bytes_max;
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        fprintf(stderr, "s3_proxy: out of memory\n");
        exit(1);
    }
    return memory;
}

/* ---- objects ---- */

struct sink_object *sink_receive(uint64_t length)
{
    struct sink_object *object = allocate(sizeof *object);
    *object = (struct sink_object){ .references = 1, .length = length };
    if (length > 0 && length <= keep_max)
        object->bytes = allocate(length);
    return object;
}

char *sink_room(struct sink_object *object, size_t *ret_room)
{
    *ret_room = (size_t)(object->length - object->received);
    return object->bytes != NULL ? object->bytes + object->received : NULL;
}

void sink_received(struct sink_object *object, size_t length)
{
    object->received += length;
}

void sink_object_unref(struct sink_object *object)
{
    if (object == NULL || --object->references > 0)
        return;
    free(object->name);
    free(object->bytes);
    free(object);
}

void sink_end(void)
{
    while (count > 0)
        sink_object_unref(objects[--count]);
    free(objects);
    objects = NULL;
    capacity = 0;
}

/* Where the name is, or would stand. */
static size_t find(const char *name, bool *ret_there)
{
    size_t low = 0, high = count;
    *ret_there = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(objects[middle]->name, name);
        if (order == 0) {
            *ret_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(size_t at, struct sink_object *object)
{
    if (count == capacity) {
        capacity = capacity == 0 ? 1024 : capacity * 2;
        objects = realloc(objects, capacity * sizeof(struct sink_object *));
        if (objects == NULL)
            abort();
    }
    memmove(objects + at + 1, objects + at, (count - at) * sizeof(struct sink_object *));
    objects[at] = object;
    count++;
}

/* ---- text ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* %XX decoded; the caller frees. */
static char *decode(struct slice slice)
{
    char *text = allocate(slice.length + 1), *to = text;
    for (size_t i = 0; i < slice.length; i++) {
        const char *at = slice.bytes + i;
        if (*at == '%' && i + 2 < slice.length && hex_digit(at[1]) >= 0 && hex_digit(at[2]) >= 0) {
            *to++ = (char)(hex_digit(at[1]) << 4 | hex_digit(at[2]));
            i += 2;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
    return text;
}

static void print_key(FILE *file, const char *key, bool url)
{
    for (; *key != '\0'; key++) {
        unsigned char c = (unsigned char)*key;
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~/", c) != NULL;
        if (plain)
            fputc(c, file);
        else
            fprintf(file, url ? "%%%02X" : "&#%u;", c);
    }
}

/* ---- answers ---- */

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 206:
        return "Partial Content";
    case 404:
        return "Not Found";
    case 412:
        return "Precondition Failed";
    case 416:
        return "Range Not Satisfiable";
    default:
        return "Error";
    }
}

/* Head and status; `fields` are lines of their own. */
static void answer_begin(struct sink_answer *answer, int status, uint64_t length, const char *fields)
{
    char date[64];
    time_t now = time(NULL);
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    answer->status = status;
    char length_field[64] = "";
    if (status != 204)
        snprintf(length_field, sizeof length_field, "Content-Length: %" PRIu64 "\r\n", length);
    int written =
        snprintf(answer->head, sizeof answer->head, "HTTP/1.1 %d %s\r\nServer: s3_proxy\r\nDate: %s\r\n%s%s\r\n",
                 status, reason_of(status), date, length_field, fields);
    answer->head_length = (size_t)written;
}

void sink_text(struct sink_answer *ret_answer, int status, const char *type, char *text)
{
    char fields[128];
    snprintf(fields, sizeof fields, "Content-Type: %s\r\n", type);
    *ret_answer = (struct sink_answer){ .text = text, .body = text, .body_length = strlen(text) };
    answer_begin(ret_answer, status, ret_answer->body_length, fields);
}

void sink_answer_free(struct sink_answer *answer)
{
    sink_object_unref(answer->object);
    free(answer->text);
    *answer = (struct sink_answer){ 0 };
}

static void answer_error(struct sink_answer *ret_answer, int status, const char *code)
{
    char *text;
    if (asprintf(&text, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code,
                 reason_of(status)) < 0)
        abort();
    sink_text(ret_answer, status, "application/xml", text);
}

static void etag_field(const struct sink_object *object, char *ret_field, size_t room)
{
    snprintf(ret_field, room, "ETag: \"%032" PRIx64 "\"\r\n", object->etag);
}

static bool etag_is(const struct sink_object *object, struct slice asked)
{
    char text[64];
    snprintf(text, sizeof text, "\"%032" PRIx64 "\"", object->etag);
    return slice_is(asked, text);
}

/* What is dropped goes by unseen: its sender is believed. */
static bool checksum_holds(const struct sink_object *object, struct slice told)
{
    if (told.bytes == NULL || object->bytes == NULL)
        return true;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t crc = crc32_gzip_refl(0, (const unsigned char *)object->bytes, object->length);
    uint64_t bits = (uint64_t)crc << 4; /* 36 bits are six digits */
    char text[] = "000000==";
    for (int i = 0; i < 6; i++)
        text[i] = digits[bits >> (30 - 6 * i) & 63];
    return told.length == sizeof text - 1 && memcmp(told.bytes, text, told.length) == 0;
}

static void put(const struct head *request, const char *name, struct sink_object *object,
                struct sink_answer *ret_answer)
{
    if (!checksum_holds(object, request->crc32)) {
        sink_object_unref(object);
        answer_error(ret_answer, 400, "BadDigest");
        return;
    }
    bool there;
    size_t at = find(name, &there);
    bool refused = (request->if_none_match.bytes != NULL && there) ||
                   (request->if_match.bytes != NULL && there && !etag_is(objects[at], request->if_match));
    if (refused || (request->if_match.bytes != NULL && !there)) {
        sink_object_unref(object);
        answer_error(ret_answer, refused ? 412 : 404, refused ? "PreconditionFailed" : "NoSuchKey");
        return;
    }
    object->name = strdup(name);
    object->etag = ++last_etag;
    if (there) {
        sink_object_unref(objects[at]);
        objects[at] = object;
    } else {
        insert(at, object);
    }
    char field[64];
    etag_field(object, field, sizeof field);
    answer_begin(ret_answer, 200, 0, field);
}

/* "bytes=1-2", "bytes=1-", "bytes=-2"; false: none of it is in the object. */
static bool read_range(struct slice range, uint64_t size, uint64_t *ret_first, uint64_t *ret_past)
{
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)range.length, range.bytes);
    uint64_t first = 0, last = 0;
    if (sscanf(text, "bytes=%" SCNu64 "-%" SCNu64, &first, &last) == 2) {
        last = last < size ? last : size - 1;
    } else if (strncmp(text, "bytes=-", 7) == 0 && sscanf(text, "bytes=-%" SCNu64, &last) == 1) {
        first = last < size ? size - last : 0;
        last = size - 1;
    } else if (sscanf(text, "bytes=%" SCNu64 "-", &first) == 1) {
        last = size - 1;
    } else {
        return false;
    }
    *ret_first = first;
    *ret_past = last + 1;
    return size > 0 && first < size && first <= last;
}

static void get(const struct head *request, const char *name, bool body, struct sink_answer *ret_answer)
{
    bool there;
    size_t at = find(name, &there);
    if (!there) {
        answer_error(ret_answer, 404, "NoSuchKey");
    } else if (objects[at]->bytes == NULL && objects[at]->length > 0) {
        answer_error(ret_answer, 500, "InternalErrorBodyWasDropped");
    } else {
        struct sink_object *object = objects[at];
        uint64_t first = 0, past = object->length;
        bool part = request->range.bytes != NULL;
        if (part && !read_range(request->range, object->length, &first, &past)) {
            answer_error(ret_answer, 416, "InvalidRange");
            return;
        }
        char fields[256];
        etag_field(object, fields, sizeof fields);
        if (part)
            snprintf(fields + strlen(fields), sizeof fields - strlen(fields),
                     "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", first, past - 1, object->length);
        object->references++;
        ret_answer->object = object;
        ret_answer->body = object->bytes + first;
        ret_answer->body_length = body ? (size_t)(past - first) : 0;
        answer_begin(ret_answer, part ? 206 : 200, past - first, fields);
    }
}

static void list(const struct head *request, const char *bucket, struct sink_answer *ret_answer)
{
    char *prefix = decode(slice_parameter(request->query, "prefix"));
    char *token = decode(slice_parameter(request->query, "continuation-token"));
    char *after = *token != '\0' ? strdup(token) : decode(slice_parameter(request->query, "start-after"));
    char *most_text = decode(slice_parameter(request->query, "max-keys"));
    size_t most = *most_text != '\0' ? strtoul(most_text, NULL, 10) : LIST_MAX;
    bool url = slice_is(slice_parameter(request->query, "encoding-type"), "url");
    most = most < LIST_MAX ? most : LIST_MAX;

    char *from, *text = NULL;
    const char *start = strcmp(after, prefix) > 0 ? after : prefix;
    if (asprintf(&from, "%s/%s", bucket, start) < 0)
        abort();
    size_t skip = strlen(bucket) + 1, size, listed = 0;
    bool there;
    size_t at = find(from, &there);
    FILE *keys = open_memstream(&text, &size);
    if (there && start == after)
        at++;
    const char *last = "";
    for (; at < count && listed < most && strncmp(objects[at]->name, from, skip) == 0; at++) {
        const struct sink_object *object = objects[at];
        if (strncmp(object->name + skip, prefix, strlen(prefix)) != 0)
            break;
        fprintf(keys, "<Contents><Key>");
        print_key(keys, last = object->name + skip, url);
        fprintf(keys,
                "</Key><LastModified>2000-01-01T00:00:00.000Z</LastModified><ETag>&quot;%032" PRIx64
                "&quot;</ETag><Size>%" PRIu64 "</Size><StorageClass>STANDARD</StorageClass></Contents>",
                object->etag, object->length);
        listed++;
    }
    bool more = at < count && strncmp(objects[at]->name, from, skip) == 0 &&
                strncmp(objects[at]->name + skip, prefix, strlen(prefix)) == 0;
    if (more) {
        fprintf(keys, "<NextContinuationToken>");
        print_key(keys, last, url);
        fprintf(keys, "</NextContinuationToken>");
    }
    fclose(keys);
    char *whole;
    if (asprintf(&whole,
                 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult "
                 "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>%s</Name><KeyCount>%zu</KeyCount>"
                 "<MaxKeys>%zu</MaxKeys><IsTruncated>%s</IsTruncated>%s%s</ListBucketResult>",
                 bucket, listed, most, more ? "true" : "false", url ? "<EncodingType>url</EncodingType>" : "",
                 text) < 0)
        abort();
    sink_text(ret_answer, 200, "application/xml", whole);
    free(prefix);
    free(token);
    free(after);
    free(most_text);
    free(from);
    free(text);
}

static void take_away(const char *name, struct sink_answer *ret_answer)
{
    bool there;
    size_t at = find(name, &there);
    if (there) {
        sink_object_unref(objects[at]);
        memmove(objects + at, objects + at + 1, (--count - at) * sizeof(struct sink_object *));
    }
    answer_begin(ret_answer, 204, 0, "");
}

/* Of the bucket itself. */
static void bucket_perform(const struct head *request, const char *bucket, struct sink_answer *ret_answer)
{
    static const struct {
        const char *question, *answer;
    } settings[] = { { "location", "<LocationConstraint/>" }, { "versioning", "<VersioningConfiguration/>" } };
    if (!slice_is(request->method, "GET")) {
        answer_begin(ret_answer, slice_is(request->method, "DELETE") ? 204 : 200, 0, "");
        return;
    }
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (slice_parameter(request->query, settings[i].question).bytes != NULL) {
            sink_text(ret_answer, 200, "application/xml", strdup(settings[i].answer));
            return;
        }
    }
    if (slice_parameter(request->query, "lifecycle").bytes != NULL)
        answer_error(ret_answer, 404, "NoSuchLifecycleConfiguration");
    else
        list(request, bucket, ret_answer);
}

void sink_perform(const struct head *request, struct sink_object *object, struct sink_answer *ret_answer)
{
    *ret_answer = (struct sink_answer){ 0 };
    struct slice path = request->path;
    while (path.length > 0 && path.bytes[0] == '/')
        path = (struct slice){ path.bytes + 1, path.length - 1 };
    char *name = decode(path);
    char *slash = strchr(name, '/');
    if (slash == NULL || slash[1] == '\0') {
        if (slash != NULL)
            *slash = '\0';
        sink_object_unref(object);
        bucket_perform(request, name, ret_answer);
    } else if (slice_is(request->method, "PUT")) {
        put(request, name, object != NULL ? object : sink_receive(0), ret_answer);
    } else {
        sink_object_unref(object);
        if (slice_is(request->method, "GET") || slice_is(request->method, "HEAD"))
            get(request, name, slice_is(request->method, "GET"), ret_answer);
        else if (slice_is(request->method, "DELETE"))
            take_away(name, ret_answer);
        else
            answer_error(ret_answer, 501, "NotImplemented");
    }
    if (slice_is(request->method, "HEAD"))
        ret_answer->body_length = 0;
    free(name);
}
