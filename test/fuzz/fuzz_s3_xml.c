/* What a store or STS says in XML: store/s3_xml.c.  All readers read the same bytes: none may fall for what is meant
 * for another.  The listing is read with and without a prefix to be taken off. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "store/s3_xml.h"

static void check_refusal(int result, const struct error *error)
{
    PROMISE(result == -EPROTO && error->code == EPROTO && error->story[0] != '\0');
}

static bool is_plain(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return length < capacity;
}

static bool try_error(const uint8_t *bytes, size_t length)
{
    struct s3_error told;
    memset(&told, 0x5a, sizeof told);
    if (!s3_xml_error(bytes, length, &told)) {
        PROMISE(told.code[0] == 0x5a);
        return false;
    }
    PROMISE(is_plain(told.code, sizeof told.code) && is_plain(told.message, sizeof told.message));
    PROMISE(is_plain(told.region, sizeof told.region) && is_plain(told.endpoint, sizeof told.endpoint));
    PROMISE(strpbrk(told.region, " /,=") == NULL);
    return true;
}

static bool try_listing(const uint8_t *bytes, size_t length, const char *strip)
{
    struct store_listing listing = { .entries = NULL };
    struct error error = ERROR_NONE;
    char *token = NULL;
    int result = s3_xml_listing(bytes, length, strip, &listing, &token, &error);
    if (result != 0) {
        check_refusal(result, &error);
        PROMISE(listing.entries == NULL && token == NULL);
        return false;
    }
    PROMISE(listing.count <= STORE_LIST_MAX && listing.more == (token != NULL));
    PROMISE(token == NULL || token[0] != '\0');
    for (size_t i = 0; i < listing.count; i++) {
        PROMISE(store_key_allowed(listing.entries[i].key, false));
        PROMISE(i == 0 || strcmp(listing.entries[i - 1].key, listing.entries[i].key) <= 0);
    }
    store_listing_free(&listing);
    free(token);
    return true;
}

static bool try_versioning(const uint8_t *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    char status[16] = "";
    int result = s3_xml_versioning(bytes, length, status, &error);
    if (result != 0)
        check_refusal(result, &error);
    PROMISE(status[0] == '\0' || strcmp(status, "Enabled") == 0 || strcmp(status, "Suspended") == 0);
    return result == 0;
}

static bool try_lifecycle(const uint8_t *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    char rule[128] = "", rule_of_all[128] = "";
    bool expires = false, expires_in_all = false;
    int result = s3_xml_lifecycle_expires(bytes, length, "p/", &expires, rule, &error);
    if (result != 0) {
        check_refusal(result, &error);
        return false;
    }
    PROMISE(is_plain(rule, sizeof rule) && (expires || rule[0] == '\0'));
    /* Whatever hits a prefix hits the whole bucket. */
    PROMISE(s3_xml_lifecycle_expires(bytes, length, "", &expires_in_all, rule_of_all, &error) == 0);
    PROMISE(!expires || expires_in_all);
    return true;
}

static bool try_credentials(const uint8_t *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    struct s3_xml_credentials credentials = { .access_key = NULL };
    int result = s3_xml_credentials(bytes, length, &credentials, &error);
    if (result != 0) {
        check_refusal(result, &error);
        PROMISE(credentials.access_key == NULL && credentials.secret_key == NULL && credentials.token == NULL);
        return false;
    }
    PROMISE(credentials.access_key[0] != '\0' && credentials.secret_key[0] != '\0' && credentials.token[0] != '\0');
    PROMISE(credentials.expires_s > 0);
    free(credentials.access_key);
    free(credentials.secret_key);
    free(credentials.token);
    return true;
}

static void try_time(const uint8_t *bytes, size_t length)
{
    char text[64] = "";
    uint64_t seconds;
    memcpy(text, bytes, length < sizeof text - 1 ? length : sizeof text - 1);
    if (s3_time_parse(text, &seconds) == 0)
        PROMISE(seconds < UINT64_C(253402300800) + 86400);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int readers = try_error(data, size);
    bool listing = try_listing(data, size, "");
    PROMISE(!try_listing(data, size, "p/") || listing);
    readers += listing + try_versioning(data, size) + try_lifecycle(data, size) + try_credentials(data, size);
    PROMISE(readers <= 1);
    if (size > 0)
        try_time(data, size);
    return 0;
}
