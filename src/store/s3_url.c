/* Where the objects of a bucket are: see store/s3_url.h.
 *
 * People type what is read here, and a wrong setting must be told at once and
 * in words, since a store answers most of them with "403 Forbidden" or with an
 * HTML page.  So everything is checked before the first request: the endpoint
 * is scheme, host and port and no more; the bucket follows S3's rules; the
 * prefix is a beginning of keys as store/store.h wants them.
 *
 * The authority goes into the URL and into the signature as the header Host,
 * and must be the same in both: it is brought into one form, in lower case and
 * without the scheme's default port.
 *
 * An endpoint with a user's name and password in it is refused, and its story
 * repeats nothing of it. */
#include "store/s3_url.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "store/sigv4.h"
#include "store/store.h"

#define BUCKET_MIN 3
#define BUCKET_MAX 63
#define LABEL_MAX 63  /* of a DNS name, as its total */
#define HOST_MAX 253  /* RFC 1035, without the root's dot */
#define REGION_MAX 63 /* AWS's longest has 14; it becomes a label of a host's name */
#define DOMAIN_MAX 24 /* of those below */
#define QUOTE_MAX 96  /* of what was typed, in a story */
#define S3_KEY_MAX 1024

static_assert(S3_PREFIX_MAX + STORE_KEY_MAX <= S3_KEY_MAX, "every key fits behind every prefix");

struct quoted {
    char text[QUOTE_MAX];
};

static struct quoted quote(const char *text, size_t length)
{
    struct quoted quoted;
    text_quote(text, length, quoted.text, sizeof quoted.text);
    return quoted;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

/* ---- buckets and prefixes ---- */

static bool is_ipv4(const char *text)
{
    struct in_addr address;
    return inet_pton(AF_INET, text, &address) == 1;
}

static const char *bucket_trouble(const char *bucket, size_t length)
{
    if (length < BUCKET_MIN || length > BUCKET_MAX)
        return "it must have 3 to 63 characters";
    for (size_t i = 0; i < length; i++)
        if (!is_lower(bucket[i]) && !is_digit(bucket[i]) && bucket[i] != '.' && bucket[i] != '-')
            return "only lower-case letters, digits, dots and hyphens may stand in it";
    if (strchr(".-", bucket[0]) != NULL || strchr(".-", bucket[length - 1]) != NULL)
        return "it must begin and end with a letter or digit";
    if (strstr(bucket, "..") != NULL)
        return "it must not have two dots in a row";
    if (is_ipv4(bucket))
        return "it must not look like an IP address";
    return NULL;
}

static int check_bucket(const char *bucket, struct error *error)
{
    const char *trouble = bucket_trouble(bucket, strlen(bucket));
    if (trouble == NULL)
        return 0;
    return error_set(error, EINVAL, "'%s' is not a bucket's name: %s", quote(bucket, strlen(bucket)).text, trouble);
}

static const char *prefix_trouble(const char *prefix, size_t length)
{
    if (length >= S3_PREFIX_MAX)
        return "it may have 255 bytes at most";
    if (!text_is_utf8(prefix, length))
        return "it must be UTF-8";
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)prefix[i] < 0x20 || prefix[i] == 0x7f)
            return "it must not have control characters";
    for (size_t at = 0; at <= length;) {
        const char *slash = memchr(prefix + at, '/', length - at);
        size_t end = slash != NULL ? (size_t)(slash - prefix) : length;
        if (end == at)
            return "a name between its slashes is empty";
        if ((end - at == 1 && prefix[at] == '.') || (end - at == 2 && memcmp(prefix + at, "..", 2) == 0))
            return "a name between its slashes is '.' or '..'";
        at = end + 1;
    }
    return NULL;
}

/* Without the one slash that may end it. */
static int check_prefix(const char *prefix, size_t *ret_length, struct error *error)
{
    size_t length = strlen(prefix);
    if (length > 0 && prefix[length - 1] == '/')
        length--;
    const char *trouble = *prefix == '\0' ? NULL : prefix_trouble(prefix, length);
    if (trouble != NULL)
        return error_set(error, EINVAL, "'%s' is not a prefix of keys: %s", quote(prefix, strlen(prefix)).text,
                         trouble);
    *ret_length = length;
    return 0;
}

/* Not in the prefix, where '@' is as good as any other byte. */
static bool has_user(const char *url)
{
    const char *authority = strstr(url, "://");
    authority = authority != NULL ? authority + 3 : url;
    return memchr(authority, '@', strcspn(authority, "/?#")) != NULL;
}

int s3_url_parse(const char *url, char **ret_bucket, char **ret_prefix, struct error *error)
{
    static const char scheme[] = "s3://";
    if (has_user(url)) /* first of all, so that no other story can repeat a password */
        return error_set(error, EINVAL,
                         "the bucket's URL has a user's name in it: write s3://BUCKET/PREFIX, and give keys by "
                         "--s3-access-key and --s3-secret-key");
    if (strncasecmp(url, scheme, sizeof scheme - 1) != 0)
        return error_set(error, EINVAL, "'%s' is not the URL of a bucket: write s3://BUCKET or s3://BUCKET/PREFIX",
                         quote(url, strlen(url)).text);
    const char *at = url + sizeof scheme - 1;
    size_t bucket_length = strcspn(at, "/");
    if (bucket_length == 0)
        return error_set(error, EINVAL, "'%s' names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX",
                         quote(url, strlen(url)).text);
    const char *prefix = at + bucket_length + (at[bucket_length] == '/' ? 1 : 0);
    char *bucket = strndup(at, bucket_length);
    assert(bucket != NULL);
    size_t prefix_length = 0;
    int failed = check_bucket(bucket, error);
    if (failed == 0)
        failed = check_prefix(prefix, &prefix_length, error);
    if (failed != 0) {
        free(bucket);
        return failed;
    }
    *ret_bucket = bucket;
    *ret_prefix = memory_copy(prefix, prefix_length + 1);
    (*ret_prefix)[prefix_length] = '\0';
    return 0;
}

/* ---- hosts ---- */

/* Of AWS's partitions: where a region's endpoints are, by how its name begins. */
static const struct {
    const char *region, *domain;
} partitions[] = {
    { "cn-", "amazonaws.com.cn" },   { "eusc-", "amazonaws.eu" },      { "us-iso-", "c2s.ic.gov" },
    { "us-isob-", "sc2s.sgov.gov" }, { "eu-isoe-", "cloud.adc-e.uk" }, { "us-isof-", "csp.hci.ic.gov" },
    { "", "amazonaws.com" }, /* all others */
};
#define PARTITION_COUNT (sizeof partitions / sizeof partitions[0])

static const char *aws_domain(const char *region)
{
    size_t i = 0;
    while (strncmp(region, partitions[i].region, strlen(partitions[i].region)) != 0)
        i++;
    return partitions[i].domain;
}

static bool is_below(const char *host, const char *domain)
{
    size_t length = strlen(host), domain_length = strlen(domain);
    if (length < domain_length || strcmp(host + length - domain_length, domain) != 0)
        return false;
    return length == domain_length || host[length - domain_length - 1] == '.';
}

static bool is_aws(const char *host)
{
    for (size_t i = 0; i < PARTITION_COUNT; i++)
        if (is_below(host, partitions[i].domain))
            return true;
    return false;
}

static const char *host_trouble(const char *host, size_t length)
{
    if (length == 0)
        return "it names no host";
    if (length > HOST_MAX)
        return "its host is longer than 253 characters";
    size_t label = 0; /* where the current one begins */
    bool number = true;
    for (size_t i = 0; i <= length; i++) {
        if (i == length || host[i] == '.') {
            if (i == label || i - label > LABEL_MAX)
                return "between the dots of its host there must be 1 to 63 characters";
            if (i < length)
                number = true;
            label = i + 1;
        } else if (is_digit(host[i])) {
            continue;
        } else if (isalpha((unsigned char)host[i]) != 0 || host[i] == '-' || host[i] == '_') {
            number = false;
        } else {
            return "only letters, digits, dots and hyphens may stand in its host";
        }
    }
    /* What ends in a number would be read as an address by some, in ways of their own. */
    char text[HOST_MAX + 1];
    snprintf(text, sizeof text, "%.*s", (int)length, host);
    if (number && !is_ipv4(text))
        return "its host is neither a name nor an IPv4 address";
    return NULL;
}

/* What an endpoint names. */
struct endpoint {
    const char *scheme;
    char host[HOST_MAX + 3]; /* in lower case, IPv6 in brackets */
    bool address;            /* the host is an IP address, which has no names below it */
    bool loopback;
    unsigned port; /* 0: the scheme's own */
};

static int parse_ipv6(const char *text, size_t length, struct endpoint *endpoint)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr binary;
    if (length >= sizeof address)
        return -EINVAL;
    memcpy(address, text, length);
    address[length] = '\0';
    if (inet_pton(AF_INET6, address, &binary) != 1)
        return -EINVAL;
    endpoint->loopback = IN6_IS_ADDR_LOOPBACK(&binary) || (IN6_IS_ADDR_V4MAPPED(&binary) && binary.s6_addr[12] == 127);
    endpoint->address = true;
    snprintf(endpoint->host, sizeof endpoint->host, "[%s]", inet_ntop(AF_INET6, &binary, address, sizeof address));
    return 0;
}

static void parse_name(const char *text, size_t length, struct endpoint *endpoint)
{
    for (size_t i = 0; i < length; i++)
        endpoint->host[i] = (char)tolower((unsigned char)text[i]);
    endpoint->host[length] = '\0';
    struct in_addr binary;
    endpoint->address = inet_pton(AF_INET, endpoint->host, &binary) == 1;
    if (endpoint->address)
        endpoint->loopback = ntohl(binary.s_addr) >> 24 == 127;
    else
        endpoint->loopback = is_below(endpoint->host, "localhost");
}

/* ":9000" or nothing; whatever else is no port. */
static bool parse_port(const char *text, size_t length, unsigned *ret_port)
{
    unsigned port = 0;
    if (length == 0) {
        *ret_port = 0;
        return true;
    }
    if (text[0] != ':' || length < 2 || length > 6)
        return false;
    for (size_t i = 1; i < length; i++) {
        if (!is_digit(text[i]))
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    if (port == 0 || port > UINT16_MAX)
        return false;
    *ret_port = port;
    return true;
}

static int parse_authority(const char *text, size_t length, struct endpoint *endpoint, struct error *error)
{
    struct quoted quoted = quote(text, length);
    size_t host_length;
    if (length > 0 && text[0] == '[') {
        const char *bracket = memchr(text, ']', length);
        if (bracket == NULL || parse_ipv6(text + 1, (size_t)(bracket - text) - 1, endpoint) < 0)
            return error_set(error, EINVAL, "the endpoint's host '%s' is not an IPv6 address: write it like [::1]:9000",
                             quoted.text);
        host_length = (size_t)(bracket - text) + 1;
    } else {
        const char *colon = memchr(text, ':', length);
        if (colon != NULL && memchr(colon + 1, ':', length - (size_t)(colon + 1 - text)) != NULL)
            return error_set(error, EINVAL,
                             "the endpoint's host '%s' has several colons: write an IPv6 address like [::1]:9000",
                             quoted.text);
        host_length = colon != NULL ? (size_t)(colon - text) : length;
        const char *trouble = host_trouble(text, host_length);
        if (trouble != NULL)
            return error_set(error, EINVAL,
                             "the endpoint's host '%s' is wrong: %s: write http://HOST:PORT or https://HOST:PORT",
                             quoted.text, trouble);
        parse_name(text, host_length, endpoint);
    }
    if (!parse_port(text + host_length, length - host_length, &endpoint->port))
        return error_set(error, EINVAL, "the endpoint '%s' has no good port: write 1 to 65535 behind the colon",
                         quoted.text);
    return 0;
}

static int parse_endpoint(const char *text, struct endpoint *endpoint, struct error *error)
{
    static const char write[] = "write http://HOST:PORT or https://HOST:PORT";
    /* First of all, so that no other story can repeat a password. */
    if (strchr(text, '@') != NULL)
        return error_set(
            error, EINVAL,
            "the endpoint has a user's name in it: %s, and give keys by --s3-access-key and --s3-secret-key", write);
    const char *colon = strstr(text, "://");
    if (colon == NULL)
        return error_set(error, EINVAL, "the endpoint '%s' has no scheme: %s", quote(text, strcspn(text, "/?#")).text,
                         write);
    size_t scheme_length = (size_t)(colon - text);
    if (scheme_length == 4 && strncasecmp(text, "http", 4) == 0)
        endpoint->scheme = "http";
    else if (scheme_length == 5 && strncasecmp(text, "https", 5) == 0)
        endpoint->scheme = "https";
    else
        return error_set(error, EINVAL, "the endpoint's scheme '%s' is neither http nor https: %s",
                         quote(text, scheme_length).text, write);
    const char *authority = colon + 3;
    size_t length = strcspn(authority, "/?#\\");
    const char *rest = authority + length;
    if (*rest != '\0' && strcmp(rest, "/") != 0)
        return error_set(error, EINVAL,
                         "the endpoint '%s' is followed by '%s': %s alone, and --store s3://BUCKET/PREFIX for the rest",
                         quote(text, (size_t)(rest - text)).text, quote(rest, 1 + strcspn(rest + 1, "?#=")).text,
                         write);
    return parse_authority(authority, length, endpoint, error);
}

/* ---- places ---- */

static int check_region(const char *region, struct error *error)
{
    size_t length = strlen(region);
    bool good = length > 0 && length <= REGION_MAX;
    for (size_t i = 0; i < length; i++)
        good &= isalnum((unsigned char)region[i]) != 0 || strchr("-_.", region[i]) != NULL;
    if (!good)
        return error_set(error, EINVAL, "'%s' is not a region: write one such as us-east-1",
                         quote(region, length).text);
    return 0;
}

static int choose_virtual(const struct endpoint *endpoint, bool aws, const char *bucket, enum s3_addressing addressing,
                          bool *ret_virtual, struct error *error)
{
    size_t bucket_length = strlen(bucket);
    assert(addressing == S3_ADDRESSING_AUTO || addressing == S3_ADDRESSING_PATH || addressing == S3_ADDRESSING_VIRTUAL);
    if (aws && strncmp(endpoint->host, bucket, bucket_length) == 0 &&
        (strncmp(endpoint->host + bucket_length, ".s3.", 4) == 0 ||
         strncmp(endpoint->host + bucket_length, ".s3-", 4) == 0))
        return error_set(error, EINVAL, "the endpoint's host '%s' begins with the bucket's name: write %s://%s",
                         quote(endpoint->host, strlen(endpoint->host)).text, endpoint->scheme,
                         endpoint->host + bucket_length + 1);
    if (addressing == S3_ADDRESSING_VIRTUAL && endpoint->address)
        return error_set(error, EINVAL,
                         "the endpoint's host %s is an address, below which no bucket can have a name: choose the "
                         "addressing 'path'",
                         endpoint->host);
    *ret_virtual =
        addressing == S3_ADDRESSING_VIRTUAL || (addressing == S3_ADDRESSING_AUTO && aws && strchr(bucket, '.') == NULL);
    return 0;
}

static char *make_authority(const struct endpoint *endpoint, const char *bucket, bool virtual)
{
    struct buffer text = BUFFER_EMPTY;
    unsigned standard = strcmp(endpoint->scheme, "http") == 0 ? 80 : 443;
    if (virtual)
        buffer_printf(&text, "%s.", bucket);
    buffer_printf(&text, "%s", endpoint->host);
    if (endpoint->port != 0 && endpoint->port != standard)
        buffer_printf(&text, ":%u", endpoint->port);
    return (char *)text.data;
}

int s3_place_new(const char *endpoint, const char *region, const char *bucket, const char *prefix,
                 enum s3_addressing addressing, struct s3_place *ret_place, struct error *error)
{
    struct endpoint parsed = { 0 };
    char aws_endpoint[sizeof "https://s3.." + REGION_MAX + DOMAIN_MAX];
    size_t prefix_length = 0;
    bool virtual = false;
    int failed = check_bucket(bucket, error);
    if (failed == 0)
        failed = check_prefix(prefix, &prefix_length, error);
    if (failed == 0)
        failed = check_region(region, error);
    if (failed == 0) {
        snprintf(aws_endpoint, sizeof aws_endpoint, "https://s3.%s.%s", region, aws_domain(region));
        failed = parse_endpoint(endpoint != NULL ? endpoint : aws_endpoint, &parsed, error);
    }
    bool aws = failed == 0 && is_aws(parsed.host);
    if (failed == 0)
        failed = choose_virtual(&parsed, aws, bucket, addressing, &virtual, error);
    if (failed != 0)
        return failed;

    struct buffer whole_prefix = BUFFER_EMPTY;
    buffer_printf(&whole_prefix, "%.*s%s", (int)prefix_length, prefix, prefix_length > 0 ? "/" : "");
    *ret_place = (struct s3_place){
        .scheme = memory_string(parsed.scheme),
        .authority = make_authority(&parsed, bucket, virtual),
        .bucket = memory_string(bucket),
        .prefix = (char *)whole_prefix.data,
        .virtual = virtual,
        .loopback = parsed.loopback,
        .aws = aws,
    };
    return 0;
}

void s3_place_free(struct s3_place *place)
{
    free(place->scheme);
    free(place->authority);
    free(place->bucket);
    free(place->prefix);
    *place = (struct s3_place){ 0 };
}

void s3_place_path(const struct s3_place *place, const char *key, struct buffer *ret_path)
{
    sigv4_encode("/", 1, 1, ret_path);
    if (!place->virtual)
        sigv4_encode(place->bucket, strlen(place->bucket), 0, ret_path);
    if (key == NULL)
        return;
    if (!place->virtual)
        sigv4_encode("/", 1, 1, ret_path);
    sigv4_encode(place->prefix, strlen(place->prefix), 1, ret_path);
    sigv4_encode(key, strlen(key), 1, ret_path);
}
