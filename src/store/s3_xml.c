/* What S3 and STS say in XML: see store/s3_xml.h.
 *
 * One walk serves all readers: it keeps the path of the element that it is in
 * ("ListBucketResult/Contents/Key", without namespaces) and the text since the
 * last tag.  At the end of each element a reader is shown both, takes what it
 * knows, and may object.  What it does not know it passes over: stores add
 * elements of their own.
 *
 * The bytes may come from anybody.  The walk stops at a document type (without
 * which there are no entities to expand), at nesting, names or text beyond the
 * limits, and at whatever expat finds malformed.  Nothing is kept of a document
 * that is refused; only s3_xml_error() takes what came before the trouble,
 * because an answer that is an error is one also when its end is missing.
 *
 * Text is wiped when the walk ends: it may have been a secret of STS. */
#include "store/s3_xml.h"

#include <assert.h>
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

#define PATH_MAX_BYTES (S3_XML_DEPTH_MAX * (S3_XML_NAME_MAX + 1) + 1)

static_assert(S3_XML_BYTES_MAX <= INT32_MAX, "expat counts in int");
static_assert(3 * 1024 < S3_XML_TEXT_MAX, "an encoded key is within the limit");
static_assert(STORE_LIST_MAX * (3 * 1024 + 1024) <= S3_XML_BYTES_MAX, "so is a page of the longest keys");

/* ---- the walk ---- */

/* What is wrong with it, or NULL; a string that lives for ever. */
typedef const char *read_element(void *state, const char *path, const char *text, size_t length);

struct walk {
    XML_Parser parser;
    read_element *read;
    void *state;
    int depth;
    char path[PATH_MAX_BYTES];
    size_t path_length;
    char root[S3_XML_NAME_MAX + 1];
    char text[S3_XML_TEXT_MAX + 1]; /* since the last tag */
    size_t text_length;
    const char *trouble; /* NULL: none so far */
};

static void stop(struct walk *walk, const char *trouble)
{
    walk->trouble = trouble;
    XML_StopParser(walk->parser, XML_FALSE);
}

/* Expat may still report what it has in hand when it was stopped: every handler asks for trouble first. */
static void XMLCALL element_begins(void *data, const XML_Char *name, const XML_Char **attributes)
{
    struct walk *walk = data;
    const char *colon = strchr(name, ':');
    const char *local = colon != NULL ? colon + 1 : name;
    size_t length = strlen(local);
    if (walk->trouble != NULL)
        return;
    if (walk->depth == S3_XML_DEPTH_MAX) {
        stop(walk, "it is nested too deep");
        return;
    }
    if (length > S3_XML_NAME_MAX) {
        stop(walk, "an element's name is too long");
        return;
    }
    if (walk->depth++ == 0)
        memcpy(walk->root, local, length + 1);
    else
        walk->path[walk->path_length++] = '/';
    memcpy(walk->path + walk->path_length, local, length + 1);
    walk->path_length += length;
    walk->text_length = 0;
}

static void XMLCALL element_ends(void *data, const XML_Char *name)
{
    struct walk *walk = data;
    if (walk->trouble != NULL)
        return;
    assert(walk->depth > 0);
    walk->text[walk->text_length] = '\0';
    const char *trouble = walk->read(walk->state, walk->path, walk->text, walk->text_length);
    if (trouble != NULL) {
        stop(walk, trouble);
        return;
    }
    char *slash = strrchr(walk->path, '/');
    walk->path_length = slash != NULL ? (size_t)(slash - walk->path) : 0;
    walk->path[walk->path_length] = '\0';
    walk->depth--;
    walk->text_length = 0;
}

static void XMLCALL text_comes(void *data, const XML_Char *text, int length)
{
    struct walk *walk = data;
    if (walk->trouble != NULL)
        return;
    if ((size_t)length > S3_XML_TEXT_MAX - walk->text_length) {
        stop(walk, "an element's text is too long");
        return;
    }
    memcpy(walk->text + walk->text_length, text, (size_t)length);
    walk->text_length += (size_t)length;
}

static void XMLCALL doctype_begins(void *data, const XML_Char *name, const XML_Char *system_id,
                                   const XML_Char *public_id, int has_internal_subset)
{
    stop(data, "it has a document type");
}

/* NULL: the whole document was read. ret_root: of the outermost element; "" : there was none. */
static const char *walk_document(const void *bytes, size_t length, read_element *read, void *state,
                                 char ret_root[S3_XML_NAME_MAX + 1])
{
    ret_root[0] = '\0';
    if (length > S3_XML_BYTES_MAX)
        return "it is too large";
    struct walk *walk = memory_new(sizeof *walk);
    walk->read = read;
    walk->state = state;
    walk->parser = XML_ParserCreate(NULL);
    assert(walk->parser != NULL);
    XML_SetUserData(walk->parser, walk);
    XML_SetElementHandler(walk->parser, element_begins, element_ends);
    XML_SetCharacterDataHandler(walk->parser, text_comes);
    XML_SetStartDoctypeDeclHandler(walk->parser, doctype_begins);
    const char *trouble = NULL;
    if (XML_Parse(walk->parser, length > 0 ? bytes : "", (int)length, XML_TRUE) != XML_STATUS_OK)
        trouble = walk->trouble != NULL ? walk->trouble : XML_ErrorString(XML_GetErrorCode(walk->parser));
    memcpy(ret_root, walk->root, sizeof walk->root);
    XML_ParserFree(walk->parser);
    explicit_bzero(walk, sizeof *walk);
    free(walk);
    return trouble;
}

/* `what` in the words of a story: "the listing"; `root`: how the document must begin. */
static int read_document(const void *bytes, size_t length, const char *what, const char *root, read_element *read,
                         void *state, struct error *error)
{
    char found[S3_XML_NAME_MAX + 1];
    const char *trouble = walk_document(bytes, length, read, state, found);
    if (found[0] != '\0' && strcmp(found, root) != 0) {
        char quoted[S3_XML_NAME_MAX + 1];
        text_quote(found, strlen(found), quoted, sizeof quoted);
        return error_set(error, EPROTO, "%s that the store sent begins with <%s> instead of <%s>", what, quoted, root);
    }
    if (trouble != NULL)
        return error_set(error, EPROTO, "%s that the store sent cannot be read: %s", what, trouble);
    return 0;
}

/* ---- texts ---- */

/* With control characters as spaces, cut where a character ends. `text` is UTF-8, of expat. */
static void copy_plain(const char *text, char *ret_text, size_t capacity)
{
    size_t used = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        size_t step = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
        if (used + step >= capacity)
            break;
        bool control = at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
        if (control)
            ret_text[used++] = ' ';
        else
            memcpy(ret_text + used, at, step);
        used += control ? 0 : step;
        at += step;
    }
    ret_text[used] = '\0';
}

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

static bool parse_count(const char *text, uint64_t *ret_count)
{
    uint64_t count = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(count, 10, &count) || __builtin_add_overflow(count, (uint64_t)(*at - '0'), &count))
            return false;
    if (at == text || *at != '\0')
        return false;
    *ret_count = count;
    return true;
}

/* ---- errors ---- */

static void copy_region(const char *text, char *ret_region, size_t capacity)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strlen(text);
    if (length < capacity && strspn(text, allowed) == length)
        memcpy(ret_region, text, length + 1);
}

static const char *read_error(void *state, const char *path, const char *text, size_t length)
{
    struct s3_error *told = state;
    if (begins_with(path, "ErrorResponse/"))
        path += sizeof "ErrorResponse/" - 1;
    if (strcmp(path, "Error/Code") == 0)
        copy_plain(text, told->code, sizeof told->code);
    else if (strcmp(path, "Error/Message") == 0)
        copy_plain(text, told->message, sizeof told->message);
    else if (strcmp(path, "Error/Region") == 0)
        copy_region(text, told->region, sizeof told->region);
    else if (strcmp(path, "Error/Endpoint") == 0)
        copy_plain(text, told->endpoint, sizeof told->endpoint);
    return NULL;
}

bool s3_xml_error(const void *bytes, size_t length, struct s3_error *ret_error)
{
    struct s3_error told = { .code = "" };
    char root[S3_XML_NAME_MAX + 1];
    walk_document(bytes, length, read_error, &told, root);
    if (strcmp(root, "Error") != 0 && strcmp(root, "ErrorResponse") != 0)
        return false;
    *ret_error = told;
    return true;
}

/* ---- listings ---- */

struct page {
    struct store_listing listing; /* keys as they were sent, until the whole page is there */
    char *key;                    /* of the entry that is being read; NULL: not told yet */
    uint64_t size;
    bool has_size;
    bool encoded; /* keys are */
    bool truncated, has_truncated;
    char *token;
};

static const char *finish_entry(struct page *page)
{
    if (page->key == NULL)
        return "an entry has no key";
    if (!page->has_size)
        return "an entry has no size";
    if (page->listing.count == STORE_LIST_MAX)
        return "it has more entries than a page may have";
    if (page->listing.entries == NULL)
        page->listing.entries = memory_array(STORE_LIST_MAX, sizeof page->listing.entries[0]);
    page->listing.entries[page->listing.count++] = (struct store_entry){ .key = page->key, .size = page->size };
    page->key = NULL;
    page->has_size = false;
    return NULL;
}

static const char *read_listing(void *state, const char *path, const char *text, size_t length)
{
    struct page *page = state;
    static const char root[] = "ListBucketResult/";
    if (!begins_with(path, root))
        return NULL;
    const char *name = path + sizeof root - 1;
    if (strcmp(name, "Contents") == 0)
        return finish_entry(page);
    if (strcmp(name, "Contents/Key") == 0) {
        if (page->key != NULL)
            return "an entry has two keys";
        page->key = memory_copy(text, length + 1);
    } else if (strcmp(name, "Contents/Size") == 0) {
        page->has_size = parse_count(text, &page->size);
        if (!page->has_size)
            return "a size is not a number";
    } else if (strcmp(name, "EncodingType") == 0) {
        page->encoded = strcmp(text, "url") == 0;
    } else if (strcmp(name, "IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
        page->has_truncated = page->truncated || strcmp(text, "false") == 0;
    } else if (strcmp(name, "NextContinuationToken") == 0) {
        free(page->token);
        page->token = memory_copy(text, length + 1);
    }
    return NULL;
}

/* In place: what is decoded is never longer.  A space travels as '+' or as %20, depending on the store. */
static bool decode_key(char *key, size_t *ret_length)
{
    char *to = key;
    for (const char *at = key; *at != '\0'; to++) {
        if (*at == '%') {
            char digits[3] = { at[1], at[1] != '\0' ? at[2] : '\0', '\0' };
            uint8_t byte;
            if (!text_unhex(digits, &byte, 1))
                return false;
            *to = (char)byte;
            at += 3;
        } else {
            *to = *at == '+' ? ' ' : *at;
            at++;
        }
    }
    *to = '\0';
    *ret_length = (size_t)(to - key);
    return true;
}

/* Puts keys as the store's callers know them in place of those that were sent. */
static const char *finish_keys(struct page *page, const char *strip)
{
    struct store_listing *listing = &page->listing;
    const size_t strip_length = strlen(strip);
    size_t kept = 0;
    const char *trouble = NULL;
    for (size_t i = 0; i < listing->count; i++) {
        struct store_entry entry = listing->entries[i];
        size_t length = strlen(entry.key);
        bool good = trouble == NULL;
        if (good && page->encoded && !decode_key(entry.key, &length)) {
            trouble = "a key is not encoded as keys must be";
            good = false;
        }
        if (good && !begins_with(entry.key, strip)) {
            trouble = "a key does not begin as it should";
            good = false;
        }
        good = good && strlen(entry.key) == length && store_key_allowed(entry.key + strip_length, false);
        if (good) {
            memmove(entry.key, entry.key + strip_length, length + 1 - strip_length);
            listing->entries[kept++] = entry;
        } else {
            free(entry.key);
        }
    }
    listing->count = kept;
    return trouble;
}

static const char *finish_page(struct page *page, const char *strip)
{
    if (!page->has_truncated)
        return "it does not say whether it is the last page";
    if (page->truncated && (page->token == NULL || page->token[0] == '\0'))
        return "it does not say where the next page begins";
    if (!page->truncated) {
        free(page->token);
        page->token = NULL;
    }
    page->listing.more = page->truncated;
    return finish_keys(page, strip);
}

static int compare_entries(const void *left, const void *right)
{
    const struct store_entry *a = left, *b = right;
    return strcmp(a->key, b->key);
}

int s3_xml_listing(const void *bytes, size_t length, const char *strip, struct store_listing *ret_listing,
                   char **ret_token, struct error *error)
{
    struct page page = { .key = NULL };
    int failed = read_document(bytes, length, "the listing", "ListBucketResult", read_listing, &page, error);
    free(page.key);
    if (failed == 0) {
        const char *trouble = finish_page(&page, strip);
        if (trouble != NULL)
            failed = error_set(error, EPROTO, "the listing that the store sent is wrong: %s", trouble);
    }
    if (failed != 0) {
        store_listing_free(&page.listing);
        free(page.token);
        return failed;
    }
    if (page.listing.count > 0)
        qsort(page.listing.entries, page.listing.count, sizeof page.listing.entries[0], compare_entries);
    *ret_listing = page.listing;
    *ret_token = page.token;
    return 0;
}

/* ---- what is set for a bucket ---- */

struct versioning {
    char status[16];
};

static const char *read_versioning(void *state, const char *path, const char *text, size_t length)
{
    struct versioning *versioning = state;
    if (strcmp(path, "VersioningConfiguration/Status") != 0)
        return NULL;
    if (strcmp(text, "Enabled") != 0 && strcmp(text, "Suspended") != 0 && length > 0)
        return "its status is neither Enabled nor Suspended";
    memcpy(versioning->status, text, length + 1);
    return NULL;
}

int s3_xml_versioning(const void *bytes, size_t length, char ret_status[16], struct error *error)
{
    struct versioning versioning = { .status = "" };
    int failed = read_document(bytes, length, "the bucket's versioning", "VersioningConfiguration", read_versioning,
                               &versioning, error);
    if (failed == 0)
        memcpy(ret_status, versioning.status, sizeof versioning.status);
    return failed;
}

struct lifecycle {
    const char *prefix; /* ours */
    bool expires;       /* a rule does, and it is `rule` */
    char rule[128];
    struct {
        char id[128];
        bool elsewhere; /* its prefix and ours have no key in common */
        bool disabled;
        bool expires;
    } current;
};

static void finish_rule(struct lifecycle *lifecycle)
{
    if (!lifecycle->expires && lifecycle->current.expires && !lifecycle->current.disabled &&
        !lifecycle->current.elsewhere) {
        lifecycle->expires = true;
        memcpy(lifecycle->rule, lifecycle->current.id, sizeof lifecycle->rule);
    }
    memset(&lifecycle->current, 0, sizeof lifecycle->current);
}

static const char *read_lifecycle(void *state, const char *path, const char *text, size_t length)
{
    struct lifecycle *lifecycle = state;
    static const char root[] = "LifecycleConfiguration/Rule";
    if (!begins_with(path, root))
        return NULL;
    const char *name = path + sizeof root - 1;
    if (*name == '\0')
        finish_rule(lifecycle);
    else if (strcmp(name, "/ID") == 0)
        copy_plain(text, lifecycle->current.id, sizeof lifecycle->current.id);
    else if (strcmp(name, "/Status") == 0)
        lifecycle->current.disabled = strcmp(text, "Disabled") == 0;
    else if (strcmp(name, "/Prefix") == 0 || strcmp(name, "/Filter/Prefix") == 0 ||
             strcmp(name, "/Filter/And/Prefix") == 0)
        lifecycle->current.elsewhere |= !begins_with(lifecycle->prefix, text) && !begins_with(text, lifecycle->prefix);
    else if (strcmp(name, "/Expiration/Days") == 0 || strcmp(name, "/Expiration/Date") == 0)
        lifecycle->current.expires = true;
    return NULL;
}

int s3_xml_lifecycle_expires(const void *bytes, size_t length, const char *prefix, bool *ret_expires,
                             char ret_rule[128], struct error *error)
{
    struct lifecycle lifecycle = { .prefix = prefix };
    int failed = read_document(bytes, length, "the bucket's lifecycle", "LifecycleConfiguration", read_lifecycle,
                               &lifecycle, error);
    if (failed != 0)
        return failed;
    *ret_expires = lifecycle.expires;
    memcpy(ret_rule, lifecycle.rule, sizeof lifecycle.rule);
    return 0;
}

/* ---- credentials ---- */

static void wipe_string(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void keep_text(char **field, const char *text, size_t length)
{
    wipe_string(*field);
    *field = length > 0 ? memory_copy(text, length + 1) : NULL;
}

/* AssumeRoleResponse/AssumeRoleResult/Credentials/…, or the same of AssumeRoleWithWebIdentity. */
static const char *read_credentials(void *state, const char *path, const char *text, size_t length)
{
    struct s3_xml_credentials *credentials = state;
    const char *name = strstr(path, "Result/Credentials/");
    if (name == NULL)
        return NULL;
    name += sizeof "Result/Credentials/" - 1;
    if (strcmp(name, "AccessKeyId") == 0)
        keep_text(&credentials->access_key, text, length);
    else if (strcmp(name, "SecretAccessKey") == 0)
        keep_text(&credentials->secret_key, text, length);
    else if (strcmp(name, "SessionToken") == 0)
        keep_text(&credentials->token, text, length);
    else if (strcmp(name, "Expiration") == 0 && s3_time_parse(text, &credentials->expires_s) < 0)
        return "its time of expiration is none";
    return NULL;
}

int s3_xml_credentials(const void *bytes, size_t length, struct s3_xml_credentials *ret_credentials,
                       struct error *error)
{
    static const char what[] = "the answer with credentials";
    static const char web_identity[] = "AssumeRoleWithWebIdentityResponse";
    struct s3_xml_credentials credentials = { .access_key = NULL };
    char root[S3_XML_NAME_MAX + 1];
    const char *trouble = walk_document(bytes, length, read_credentials, &credentials, root);
    int failed = 0;
    if (root[0] != '\0' && strcmp(root, "AssumeRoleResponse") != 0 && strcmp(root, web_identity) != 0)
        failed = error_set(error, EPROTO, "%s begins with <%.64s> instead of <AssumeRoleResponse>", what, root);
    else if (trouble != NULL)
        failed = error_set(error, EPROTO, "%s cannot be read: %s", what, trouble);
    else if (credentials.access_key == NULL || credentials.secret_key == NULL || credentials.token == NULL ||
             credentials.expires_s == 0)
        failed = error_set(error, EPROTO, "%s lacks a key, the session token or the time of expiration", what);
    if (failed != 0) {
        wipe_string(credentials.access_key);
        wipe_string(credentials.secret_key);
        wipe_string(credentials.token);
        return failed;
    }
    *ret_credentials = credentials;
    return 0;
}

/* ---- times ---- */

static bool take_number(const char **at, int digits, int *ret_number)
{
    int number = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        number = number * 10 + (**at - '0');
    }
    *ret_number = number;
    return true;
}

static bool take(const char **at, char expected)
{
    if (**at != expected)
        return false;
    (*at)++;
    return true;
}

/* "Z" or "+01:00", to the end. */
static bool take_zone(const char **at, int *ret_offset_s)
{
    int hours = 0, minutes = 0;
    int sign = **at == '-' ? -1 : 1;
    if (!take(at, 'Z')) {
        if (!take(at, '+') && !take(at, '-'))
            return false;
        if (!take_number(at, 2, &hours) || !take(at, ':') || !take_number(at, 2, &minutes))
            return false;
    }
    *ret_offset_s = sign * (hours * 3600 + minutes * 60);
    return hours < 24 && minutes < 60 && **at == '\0';
}

int s3_time_parse(const char *text, uint64_t *ret_s)
{
    struct tm parts = { 0 };
    int offset_s = 0;
    const char *at = text;
    if (!take_number(&at, 4, &parts.tm_year) || !take(&at, '-') || !take_number(&at, 2, &parts.tm_mon) ||
        !take(&at, '-') || !take_number(&at, 2, &parts.tm_mday) || !take(&at, 'T') ||
        !take_number(&at, 2, &parts.tm_hour) || !take(&at, ':') || !take_number(&at, 2, &parts.tm_min) ||
        !take(&at, ':') || !take_number(&at, 2, &parts.tm_sec))
        return -EINVAL;
    if (take(&at, '.')) {
        size_t fraction = strspn(at, "0123456789");
        at += fraction;
        if (fraction == 0)
            return -EINVAL;
    }
    if (!take_zone(&at, &offset_s))
        return -EINVAL;
    parts.tm_year -= 1900;
    parts.tm_mon -= 1;
    struct tm asked = parts;
    time_t seconds = timegm(&parts); /* brings what is no date into one, another one */
    if (parts.tm_mon != asked.tm_mon || parts.tm_mday != asked.tm_mday || parts.tm_hour != asked.tm_hour ||
        parts.tm_min != asked.tm_min || parts.tm_sec != asked.tm_sec || seconds < offset_s)
        return -EINVAL;
    *ret_s = (uint64_t)(seconds - offset_s);
    return 0;
}
