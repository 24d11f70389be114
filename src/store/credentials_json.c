/* Credentials in JSON, as a process prints them and as containers' endpoints and
 * instances serve them:
 *
 *     process   {"Version": 1, "AccessKeyId": …, "SecretAccessKey": …, "SessionToken": …, "Expiration": …}
 *     service   {"Code": "Success", "AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …}
 *
 * Where a service is unable to, it says {"Code": …, "Message": …}, often with
 * status 200.  Unknown members are fine, they have grown before.
 *
 * The parser recurses, on a coroutine's small stack: so what nests at all is
 * refused before it is parsed.  It tells where it stopped, but quotes what it
 * read, which may be a secret: its words are not passed on.  What it holds is
 * wiped before it goes. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/credentials_internal.h"
#include "store/s3_xml.h"

/* The document itself and, some day, a few members that are objects. */
#define NESTED_MAX 16

#define TIME_MAX 64

static bool nests_too_much(const char *bytes, size_t length)
{
    size_t opened = 0;
    for (size_t i = 0; i < length; i++)
        opened += bytes[i] == '{' || bytes[i] == '[';
    return opened > NESTED_MAX;
}

static void wipe(json_t *value)
{
    const char *key;
    json_t *member;
    size_t index;
    if (json_is_string(value))
        explicit_bzero((char *)json_string_value(value), json_string_length(value));
    json_object_foreach(value, key, member) wipe(member);
    json_array_foreach(value, index, member) wipe(member);
}

/* "2026-01-02T03:04:05Z", and with +HH:MM or -HH:MM in place of the Z, as Python's tools write it. */
static int parse_time(const char *text, uint64_t *ret_s)
{
    char copy[TIME_MAX];
    size_t length = strlen(text);
    unsigned hours = 0, minutes = 0;
    int used = 0;
    if (length < 6 || length >= sizeof copy)
        return -EINVAL;
    memcpy(copy, text, length + 1);
    char *zone = copy + length - 6;
    if (zone[0] != '+' && zone[0] != '-')
        return s3_time_parse(text, ret_s);
    if (!isdigit((unsigned char)zone[1]) || sscanf(zone + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 || used != 5 ||
        hours > 23 || minutes > 59)
        return -EINVAL;
    int sign = zone[0] == '+' ? -1 : 1;
    memcpy(zone, "Z", 2);
    uint64_t seconds;
    if (s3_time_parse(copy, &seconds) != 0 || seconds < 86400)
        return -EINVAL;
    *ret_s = (uint64_t)((int64_t)seconds + sign * (int64_t)(hours * 3600 + minutes * 60));
    return 0;
}

/* NULL: absent, null, no string, or empty. */
static const char *member(const json_t *document, const char *name)
{
    const char *text = json_string_value(json_object_get(document, name));
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* What these go into are headers. */
static bool printable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

static int check_kind(enum credentials_document kind, const json_t *document, struct error *error)
{
    if (kind == DOCUMENT_PROCESS) {
        const json_t *version = json_object_get(document, "Version");
        if (!json_is_integer(version) || json_integer_value(version) != 1)
            return error_set(error, EPROTO, "its \"Version\" is not 1, the one that is known");
        return 0;
    }
    const char *code = member(document, "Code");
    if (code == NULL || strcmp(code, "Success") == 0)
        return 0;
    char said[64], why[256] = "";
    const char *message = member(document, "Message");
    secret_redact(code, strlen(code), said, sizeof said);
    if (message != NULL)
        secret_redact(message, strlen(message), why, sizeof why);
    return error_set(error, EIO, "it says %s%s%s", said, message != NULL ? ": " : "", why);
}

static int take(enum credentials_document kind, const json_t *document, struct secrets *ret_secrets,
                struct error *error)
{
    int failed = check_kind(kind, document, error);
    if (failed != 0)
        return failed;
    const char *token_name = kind == DOCUMENT_PROCESS ? "SessionToken" : "Token";
    const char *access_key = member(document, "AccessKeyId");
    const char *secret_key = member(document, "SecretAccessKey");
    const char *token = member(document, token_name);
    const char *expiration = member(document, "Expiration");
    uint64_t expires_s = UINT64_MAX;
    if (access_key == NULL || secret_key == NULL)
        return error_set(error, EPROTO, "no \"%s\" in it", access_key == NULL ? "AccessKeyId" : "SecretAccessKey");
    if (!printable(access_key) || !printable(secret_key) || (token != NULL && !printable(token)))
        return error_set(error, EPROTO, "keys with blanks or control bytes in them");
    if (expiration != NULL && parse_time(expiration, &expires_s) != 0)
        return error_set(error, EPROTO, "its \"Expiration\" is not a time such as 2026-01-02T03:04:05Z");
    *ret_secrets = (struct secrets){
        .access_key = memory_string(access_key),
        .secret_key = memory_string(secret_key),
        .token = token != NULL ? memory_string(token) : NULL,
        .expires_s = expires_s,
    };
    return 0;
}

int credentials_parse_json(enum credentials_document kind, const void *bytes, size_t length,
                           struct secrets *ret_secrets, struct error *error)
{
    json_error_t where;
    if (length == 0)
        return error_set(error, EPROTO, "nothing where JSON should be");
    if (nests_too_much(bytes, length))
        return error_set(error, EPROTO, "JSON that nests, where a flat object should be");
    json_t *document = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &where);
    if (document == NULL)
        return error_set(error, EPROTO, "not JSON, from line %d, column %d on", where.line, where.column);
    int failed = json_is_object(document) ? take(kind, document, ret_secrets, error)
                                          : error_set(error, EPROTO, "JSON, but not an object");
    wipe(document);
    json_decref(document);
    return failed;
}
