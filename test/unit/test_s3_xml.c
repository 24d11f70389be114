/* What stores say in XML, as they say it, and as somebody hostile would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "store/s3_xml.h"

#define DECLARATION "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define NAMESPACE " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static void assert_story(const struct error *error, const char *expected)
{
    assert_int_equal(error->code, EPROTO);
    if (strstr(error->story, expected) == NULL)
        fail_msg("expected '%s', told: %s", expected, error->story);
}

/* ---- errors ---- */

static struct s3_error error_of(const char *text)
{
    struct s3_error told;
    memset(&told, 0x5a, sizeof told);
    assert_true(s3_xml_error(text, strlen(text), &told));
    return told;
}

static void errors(void **state)
{
    struct s3_error told =
        error_of(DECLARATION "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is "
                             "malformed; the region 'us-east-1' is wrong</Message><Region>eu-west-1</Region>"
                             "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint><RequestId>4711</RequestId></Error>");
    assert_string_equal(told.code, "AuthorizationHeaderMalformed");
    assert_string_equal(told.message, "The authorization header is malformed; the region 'us-east-1' is wrong");
    assert_string_equal(told.region, "eu-west-1");
    assert_string_equal(told.endpoint, "b.s3.eu-west-1.amazonaws.com");

    told = error_of("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>"
                    "<Code>AccessDenied</Code><Message>No &lt;access&gt;</Message></Error></ErrorResponse>");
    assert_string_equal(told.code, "AccessDenied");
    assert_string_equal(told.message, "No <access>");
    assert_string_equal(told.region, "");

    told = error_of("<s3:Error xmlns:s3='x'><s3:Code>SlowDown</s3:Code></s3:Error>");
    assert_string_equal(told.code, "SlowDown");
    told = error_of("<Error/>");
    assert_string_equal(told.code, "");
    told = error_of("<Error><Detail><Code>Other</Code></Detail></Error>");
    assert_string_equal(told.code, "");
    /* A declared encoding that expat knows. */
    told = error_of("<?xml version='1.0' encoding='ISO-8859-1'?><Error><Message>M\xfcller</Message></Error>");
    assert_string_equal(told.message, "M\xc3\xbcller");
}

static void errors_that_are_none(void **state)
{
    static const char *const bodies[] = {
        "",
        " ",
        "Error",
        "<html><body>404</body></html>",
        "<!DOCTYPE html><html></html>",
        "{\"Error\": 1}",
        "<Errors><Error><Code>X</Code></Error></Errors>",
        "<ListBucketResult><Error><Code>X</Code></Error></ListBucketResult>",
        "\xff\xfe\xfd",
        "<Error",
    };
    struct s3_error told, untouched;
    memset(&told, 0x5a, sizeof told);
    untouched = told;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        assert_false(s3_xml_error(bodies[i], strlen(bodies[i]), &told));
        assert_memory_equal(&told, &untouched, sizeof told);
    }
    assert_false(s3_xml_error(NULL, 0, &told));
}

static void errors_are_plain_and_cut(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    struct s3_error told = error_of("<Error><Code>a&#10;b&#x7f;c&#x9b;d\te</Code><Region>eu\nwest</Region></Error>");
    assert_string_equal(told.code, "a b c d e");
    assert_string_equal(told.region, "");
    /* Cut where a character ends. */
    buffer_printf(&text, "<Error><Message>");
    for (int i = 0; i < 200; i++)
        buffer_printf(&text, "\xe2\x82\xac");
    buffer_printf(&text, "</Message><Region>");
    for (int i = 0; i < 64; i++)
        buffer_printf(&text, "r");
    buffer_printf(&text, "</Region></Error>");
    told = error_of((char *)text.data);
    assert_int_equal(strlen(told.message), 255);
    assert_memory_equal(told.message + 252, "\xe2\x82\xac", 4);
    assert_string_equal(told.region, "");
    buffer_free(&text);
}

/* Cut at every byte, it is an error from the moment at which its name is whole, and its code is whole or not there. */
static void errors_that_are_cut_off(void **state)
{
    static const char whole[] = DECLARATION "<Error><Code>SlowDown</Code><Message>Slow.</Message></Error>";
    size_t named = (size_t)(strstr(whole, "<Error>") - whole) + 7;
    size_t coded = (size_t)(strstr(whole, "</Code>") - whole) + 7;
    for (size_t length = 0; length < sizeof whole; length++) {
        struct s3_error told = { .code = "untouched" };
        assert_int_equal(s3_xml_error(whole, length, &told), length >= named);
        assert_string_equal(told.code, length < named ? "untouched" : length < coded ? "" : "SlowDown");
    }
}

/* ---- listings ---- */

#define PAGE(flags, contents) DECLARATION "<ListBucketResult" NAMESPACE ">" flags contents "</ListBucketResult>"
#define LAST "<IsTruncated>false</IsTruncated>"
#define URL "<EncodingType>url</EncodingType>"
#define ENTRY(key, size) "<Contents><Key>" key "</Key><Size>" size "</Size><ETag>&quot;x&quot;</ETag></Contents>"

static void assert_listing(const char *text, const char *strip, const char *expected, const char *expected_token)
{
    struct store_listing listing;
    struct error error = ERROR_NONE;
    struct buffer told = BUFFER_EMPTY;
    char *token = NULL;
    if (s3_xml_listing(text, strlen(text), strip, &listing, &token, &error) != 0)
        fail_msg("%s", error.story);
    buffer_printf(&told, "%s", "");
    for (size_t i = 0; i < listing.count; i++)
        buffer_printf(&told, "%s=%llu;", listing.entries[i].key, (unsigned long long)listing.entries[i].size);
    assert_string_equal((char *)told.data, expected);
    assert_int_equal(listing.more, expected_token != NULL);
    if (expected_token != NULL)
        assert_string_equal(token, expected_token);
    else
        assert_null(token);
    free(token);
    buffer_free(&told);
    store_listing_free(&listing);
}

static void assert_no_listing(const char *text, size_t length, const char *strip, const char *story)
{
    struct store_listing listing = { .count = 4711 };
    struct error error = ERROR_NONE;
    char *token = (char *)"untouched";
    assert_int_equal(s3_xml_listing(text, length, strip, &listing, &token, &error), -EPROTO);
    assert_int_equal(listing.count, 4711);
    assert_string_equal(token, "untouched");
    assert_story(&error, story);
}

static void refuse_listing(const char *text, const char *story)
{
    assert_no_listing(text, strlen(text), "p/", story);
}

static void listings(void **state)
{
    assert_listing(PAGE(LAST, ""), "p/", "", NULL);
    assert_listing(PAGE(LAST URL "<Name>b</Name><Prefix>p/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>",
                        ENTRY("p/a", "0") ENTRY("p/b", "18446744073709551615")),
                   "p/", "a=0;b=18446744073709551615;", NULL);
    /* What tells how to read keys may follow them. */
    assert_listing(PAGE("", ENTRY("p/%61%20+%2b%C3%BC", "7") URL LAST), "p/", "a  +\xc3\xbc=7;", NULL);
    assert_listing(PAGE(LAST, ENTRY("p/n.%41+b", "7")), "p/", "n.%41+b=7;", NULL);
    assert_listing(PAGE(LAST, ENTRY("a&amp;&lt;&#98;<![CDATA[<c>]]>", "1")), "", "a&<b<c>=1;", NULL);
    assert_listing(PAGE("<IsTruncated>true</IsTruncated><NextContinuationToken>1/&amp;+=</NextContinuationToken>",
                        ENTRY("p/a", "1")),
                   "p/", "a=1;", "1/&+=");
    /* A token of the last page is none. */
    assert_listing(PAGE(LAST "<NextContinuationToken>t</NextContinuationToken>", ""), "", "", NULL);
    /* Any namespace, prefix or none. */
    assert_listing("<ListBucketResult>" LAST ENTRY("a", "1") "</ListBucketResult>", "", "a=1;", NULL);
    assert_listing("<x:ListBucketResult xmlns:x='u'><x:IsTruncated>false</x:IsTruncated><x:Contents><x:Size>1</x:Size>"
                   "<x:Key>a</x:Key></x:Contents></x:ListBucketResult>",
                   "", "a=1;", NULL);
    /* Elements of the same names elsewhere mean nothing. */
    assert_listing(PAGE(LAST, "<Contents><Key>a</Key><Size>1</Size><Owner><Key>b</Key><Size>x</Size></Owner></Contents>"
                              "<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>"),
                   "", "a=1;", NULL);
}

static void listings_are_sorted(void **state)
{
    assert_listing(PAGE(LAST URL, ENTRY("p/b", "1") ENTRY("p/%C3%BC", "2") ENTRY("p/B", "3") ENTRY("p/a%2Fc", "4")
                                      ENTRY("p/a-c", "5")),
                   "p/", "B=3;a-c=5;a/c=4;b=1;\xc3\xbc=2;", NULL);
}

/* Keys that cannot be ours, and that no call could name. */
static void foreign_keys_are_left_out(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    assert_listing(PAGE(LAST URL, ENTRY("p/", "0") ENTRY("p/folder/", "0") ENTRY("p/a//b", "0") ENTRY("p/../x", "0")
                                      ENTRY("p/%0a", "0") ENTRY("p/a%00b", "0") ENTRY("p/%00", "0") ENTRY("p/a", "1")),
                   "p/", "a=1;", NULL);
    assert_listing(
        PAGE("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", ENTRY("p/", "0")), "p/",
        "", "t");
    buffer_printf(&text, "<ListBucketResult>" LAST "<Contents><Size>1</Size><Key>");
    for (int i = 0; i <= STORE_KEY_MAX; i++)
        buffer_printf(&text, "k");
    buffer_printf(&text, "</Key></Contents></ListBucketResult>");
    assert_listing((char *)text.data, "", "", NULL);
    buffer_free(&text);
}

static void listings_that_are_none(void **state)
{
    refuse_listing("", "cannot be read: no element found");
    refuse_listing("<html><body>Welcome</body></html>", "begins with <html> instead of <ListBucketResult>");
    refuse_listing("<html><body>Welcome<br></body></html>", "begins with <html> instead of <ListBucketResult>");
    refuse_listing("<Error><Code>SlowDown</Code></Error>", "begins with <Error>");
    refuse_listing("<ListBucketResult/>", "does not say whether it is the last page");
    refuse_listing(PAGE("<IsTruncated>maybe</IsTruncated>", ""), "does not say whether it is the last page");
    refuse_listing(PAGE("<IsTruncated>true</IsTruncated>", ENTRY("p/a", "1")), "where the next page begins");
    refuse_listing(PAGE("<IsTruncated>true</IsTruncated><NextContinuationToken/>", ""), "where the next page begins");
    refuse_listing(PAGE(LAST, "<Contents/>"), "has no key");
    refuse_listing(PAGE(LAST, "<Contents><Size>1</Size></Contents>"), "has no key");
    refuse_listing(PAGE(LAST, "<Contents><Key>p/a</Key></Contents>"), "has no size");
    refuse_listing(PAGE(LAST, "<Contents><Key>p/a</Key><Key>p/b</Key><Size>1</Size></Contents>"), "two keys");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "")), "not a number");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "-1")), "not a number");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "1.0")), "not a number");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "18446744073709551616")), "not a number");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "99999999999999999999")), "not a number");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "1") ENTRY("q/a", "1")), "does not begin as it should");
    refuse_listing(PAGE(LAST, ENTRY("p", "1")), "does not begin as it should");
    refuse_listing(PAGE(LAST, ENTRY("", "1")), "does not begin as it should");
    refuse_listing(PAGE(LAST URL, ENTRY("p/%", "1")), "not encoded as keys must be");
    refuse_listing(PAGE(LAST URL, ENTRY("p/%4", "1")), "not encoded as keys must be");
    refuse_listing(PAGE(LAST URL, ENTRY("p/%4g", "1")), "not encoded as keys must be");
    refuse_listing(PAGE(LAST URL, ENTRY("p/%%41", "1")), "not encoded as keys must be");
    refuse_listing(PAGE(LAST, ENTRY("p/a", "1")) "<more/>", "junk after document element");
    refuse_listing(PAGE(LAST, "<Contents><Key>p/a</Contents></Key>"), "mismatched tag");
    refuse_listing(PAGE(LAST, ENTRY("p/\xff", "1")), "not well-formed");
    refuse_listing(PAGE(LAST, ENTRY("p/&#0;", "1")), "invalid character number");
    refuse_listing("<?xml version='1.0' encoding='EBCDIC'?><ListBucketResult/>", "unknown encoding");
    assert_no_listing("<ListBucketResult>\0</ListBucketResult>", 37, "", "not well-formed");
}

static void listings_that_are_cut_off(void **state)
{
    static const char whole[] = PAGE(LAST URL, ENTRY("p/a", "1") ENTRY("p/b", "2"));
    for (size_t length = 0; length < sizeof whole - 1; length++)
        assert_no_listing(whole, length, "p/", "the listing that the store sent");
    assert_listing(whole, "p/", "a=1;b=2;", NULL);
}

static void full_pages(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    struct store_listing listing;
    char *token;
    buffer_printf(&text, "<ListBucketResult>" LAST);
    for (int i = 0; i < STORE_LIST_MAX; i++)
        buffer_printf(&text, ENTRY("%04d", "%d"), STORE_LIST_MAX - 1 - i, i);
    size_t full = text.length;
    buffer_printf(&text, "</ListBucketResult>");
    assert_int_equal(s3_xml_listing(text.data, text.length, "", &listing, &token, NULL), 0);
    assert_int_equal(listing.count, STORE_LIST_MAX);
    assert_string_equal(listing.entries[0].key, "0000");
    assert_string_equal(listing.entries[STORE_LIST_MAX - 1].key, "0999");
    store_listing_free(&listing);
    text.length = full;
    buffer_printf(&text, ENTRY("one more", "1") "</ListBucketResult>");
    assert_no_listing((char *)text.data, text.length, "", "more entries than a page may have");
    buffer_free(&text);
}

/* ---- hostile documents: the same for all readers ---- */

static void assert_refused(const struct buffer *text, const char *story)
{
    struct error error = ERROR_NONE;
    char status[16] = "untouched", rule[128] = "untouched";
    bool expires = true;
    struct s3_xml_credentials credentials = { .expires_s = 4711 };
    struct s3_error told;
    assert_no_listing((char *)text->data, text->length, "", story);
    assert_int_equal(s3_xml_versioning(text->data, text->length, status, &error), -EPROTO);
    assert_story(&error, story);
    assert_string_equal(status, "untouched");
    assert_int_equal(s3_xml_lifecycle_expires(text->data, text->length, "", &expires, rule, &error), -EPROTO);
    assert_story(&error, story);
    assert_true(expires);
    assert_string_equal(rule, "untouched");
    assert_int_equal(s3_xml_credentials(text->data, text->length, &credentials, &error), -EPROTO);
    assert_story(&error, story);
    assert_int_equal(credentials.expires_s, 4711);
    assert_null(credentials.access_key);
    s3_xml_error(text->data, text->length, &told);
}

static void entities_are_refused(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    buffer_printf(&text, DECLARATION "<!DOCTYPE lolz [<!ENTITY lol \"lol\">");
    for (int i = 0; i < 9; i++)
        buffer_printf(&text,
                      "<!ENTITY lol%d \"&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;&lol%s;\">",
                      i + 1, "", "", "", "", "", "", "", "", "", "");
    buffer_printf(&text, "]><ListBucketResult><Key>&lol9;</Key></ListBucketResult>");
    assert_refused(&text, "it has a document type");
    buffer_clear(&text);
    buffer_printf(&text, "<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><ListBucketResult/>");
    assert_refused(&text, "it has a document type");
    buffer_clear(&text);
    buffer_printf(&text,
                  "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><ListBucketResult>&e;</ListBucketResult>");
    assert_refused(&text, "it has a document type");
    buffer_free(&text);
    refuse_listing(PAGE(LAST, ENTRY("p/&e;", "1")), "undefined entity");
}

static void nest(struct buffer *text, int depth)
{
    buffer_clear(text);
    for (int i = 0; i < depth; i++)
        buffer_printf(text, "<ListBucketResult>");
    for (int i = 0; i < depth; i++)
        buffer_printf(text, "</ListBucketResult>");
}

static void nesting_is_limited(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    nest(&text, S3_XML_DEPTH_MAX);
    assert_no_listing((char *)text.data, text.length, "", "last page");
    nest(&text, S3_XML_DEPTH_MAX + 1);
    assert_no_listing((char *)text.data, text.length, "", "nested too deep");
    nest(&text, 100000);
    assert_no_listing((char *)text.data, text.length, "", "nested too deep");
    buffer_free(&text);
}

/* `piece` so many times, between the tags of an element. */
static void fill(struct buffer *text, const char *before, const char *piece, size_t count, const char *after)
{
    buffer_clear(text);
    buffer_printf(text, "%s", before);
    for (size_t i = 0; i < count; i++)
        buffer_put(text, piece, strlen(piece));
    buffer_printf(text, "%s", after);
}

static void texts_and_names_are_limited(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    const char *open = "<ListBucketResult><x>", *close = "</x></ListBucketResult>";
    fill(&text, open, "t", S3_XML_TEXT_MAX, close);
    assert_no_listing((char *)text.data, text.length, "", "last page");
    fill(&text, open, "t", S3_XML_TEXT_MAX + 1, close);
    assert_no_listing((char *)text.data, text.length, "", "text is too long");
    fill(&text, open, "&amp;", S3_XML_TEXT_MAX + 1, close);
    assert_no_listing((char *)text.data, text.length, "", "text is too long");
    fill(&text, "<ListBucketResult>", " ", S3_XML_TEXT_MAX + 1, "</ListBucketResult>");
    assert_no_listing((char *)text.data, text.length, "", "text is too long");
    fill(&text, "<ListBucketResult><", "n", S3_XML_NAME_MAX, "/></ListBucketResult>");
    assert_no_listing((char *)text.data, text.length, "", "last page");
    fill(&text, "<ListBucketResult><", "n", S3_XML_NAME_MAX + 1, "/></ListBucketResult>");
    assert_no_listing((char *)text.data, text.length, "", "name is too long");
    fill(&text, "<", "n", S3_XML_NAME_MAX + 1, "/>");
    assert_refused(&text, "name is too long");
    /* No limit but that of the whole: comments, attributes, instructions. */
    fill(&text, "<ListBucketResult><!--", "c", 100000, "--><IsTruncated>false</IsTruncated></ListBucketResult>");
    assert_listing((char *)text.data, "", "", NULL);
    fill(&text, "<ListBucketResult a='", "v", 100000, "'><?x y?><IsTruncated>false</IsTruncated></ListBucketResult>");
    assert_listing((char *)text.data, "", "", NULL);
    fill(&text, "<ListBucketResult>", " <!---->", S3_XML_BYTES_MAX / 8, "</ListBucketResult>");
    assert_refused(&text, "it is too large");
    buffer_free(&text);
}

/* ---- what is set for a bucket ---- */

static void assert_versioning(const char *text, const char *expected)
{
    char status[16] = "untouched";
    assert_int_equal(s3_xml_versioning(text, strlen(text), status, NULL), 0);
    assert_string_equal(status, expected);
}

static void versionings(void **state)
{
    assert_versioning("<VersioningConfiguration" NAMESPACE "/>", "");
    assert_versioning("<VersioningConfiguration><Status/></VersioningConfiguration>", "");
    assert_versioning(DECLARATION "<VersioningConfiguration" NAMESPACE "><Status>Enabled</Status><MfaDelete>Disabled"
                                  "</MfaDelete></VersioningConfiguration>",
                      "Enabled");
    assert_versioning("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>", "Suspended");

    static const char odd[] =
        "<VersioningConfiguration><Status>SomethingElseAndLong</Status></VersioningConfiguration>";
    char status[16] = "untouched";
    struct error error = ERROR_NONE;
    assert_int_equal(s3_xml_versioning(odd, sizeof odd - 1, status, &error), -EPROTO);
    assert_story(&error, "neither Enabled nor Suspended");
    for (size_t length = 0; length < sizeof odd - 1; length++)
        assert_int_equal(s3_xml_versioning(odd, length, status, &error), -EPROTO);
    assert_string_equal(status, "untouched");
}

#define RULES(rules) DECLARATION "<LifecycleConfiguration" NAMESPACE ">" rules "</LifecycleConfiguration>"
#define RULE(id, filter, status, action) "<Rule><ID>" id "</ID>" filter "<Status>" status "</Status>" action "</Rule>"
#define IN(prefix) "<Filter><Prefix>" prefix "</Prefix></Filter>"
#define DAYS "<Expiration><Days>1</Days></Expiration>"

static void assert_lifecycle(const char *text, const char *prefix, const char *expected)
{
    char rule[128] = "untouched";
    bool expires = expected == NULL;
    struct error error = ERROR_NONE;
    if (s3_xml_lifecycle_expires(text, strlen(text), prefix, &expires, rule, &error) != 0)
        fail_msg("%s", error.story);
    assert_int_equal(expires, expected != NULL);
    assert_string_equal(rule, expected != NULL ? expected : "");
}

static void lifecycles(void **state)
{
    assert_lifecycle(RULES(""), "p/", NULL);
    assert_lifecycle(RULES(RULE("r", "", "Enabled", DAYS)), "p/", "r");
    assert_lifecycle(RULES(RULE("r", "", "Disabled", DAYS)), "p/", NULL);
    assert_lifecycle(RULES(RULE("r", "<Filter/>", "Enabled", DAYS)), "p/", "r");
    assert_lifecycle(RULES(RULE("r", "<Prefix/>", "Enabled", DAYS)), "p/", "r");
    assert_lifecycle(RULES(RULE("r", "<Prefix>p</Prefix>", "Enabled", DAYS)), "p/", "r");
    assert_lifecycle(RULES(RULE("r", IN("p/v/"), "Enabled", DAYS)), "p/", "r");
    assert_lifecycle(RULES(RULE("r", IN("p/v/"), "Enabled", DAYS)), "", "r");
    assert_lifecycle(RULES(RULE("r", IN("q/"), "Enabled", DAYS)), "p/", NULL);
    assert_lifecycle(
        RULES(RULE("r", IN("p/"), "Enabled", "<Expiration><Date>2026-01-01T00:00:00Z</Date></Expiration>")), "p/", "r");
    assert_lifecycle(RULES(RULE("r", IN("p/"), "Enabled",
                                "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
                                "<NoncurrentVersionExpiration><Days>1</Days></NoncurrentVersionExpiration>"
                                "<Transition><Days>1</Days></Transition>"
                                "<AbortIncompleteMultipartUpload><Days>1</Days></AbortIncompleteMultipartUpload>")),
                     "p/", NULL);
    /* By tag or size too: may hit ours. */
    assert_lifecycle(RULES(RULE("r", "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>", "Enabled", DAYS)),
                     "p/", "r");
    assert_lifecycle(RULES(RULE("r",
                                "<Filter><And><Prefix>p/</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>"
                                "</And></Filter>",
                                "Enabled", DAYS)),
                     "p/", "r");
    assert_lifecycle(RULES(RULE("r", "<Filter><And><Prefix>q/</Prefix></And></Filter>", "Enabled", DAYS)), "p/", NULL);
    /* Nothing of one rule is taken for another's; the first that hits is named. */
    assert_lifecycle(RULES(RULE("a", IN("q/"), "Enabled", DAYS) RULE("b", IN("p/"), "Disabled", DAYS)
                               RULE("c", IN("p/"), "Enabled", "")),
                     "p/", NULL);
    assert_lifecycle(
        RULES(RULE("a", IN("q/"), "Disabled", DAYS) RULE("b&#10;", "", "Enabled", DAYS) RULE("c", "", "Enabled", DAYS)),
        "p/", "b ");
    assert_lifecycle(RULES("<Rule><Status>Enabled</Status>" DAYS "</Rule>"), "p/", "");
}

static void lifecycles_that_are_none(void **state)
{
    static const char whole[] = RULES(RULE("r", "", "Enabled", DAYS));
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        char rule[128] = "untouched";
        bool expires = false;
        assert_int_equal(s3_xml_lifecycle_expires(whole, length, "", &expires, rule, NULL), -EPROTO);
        assert_false(expires);
        assert_string_equal(rule, "untouched");
    }
}

/* ---- credentials ---- */

#define CREDENTIALS(root, fields)                                                                                      \
    "<" root "Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><" root                                     \
    "Result><AssumedRoleUser><Arn>a</Arn>"                                                                             \
    "</AssumedRoleUser><Credentials>" fields "</Credentials></" root "Result></" root "Response>"
#define ACCESS "<AccessKeyId>ASIA</AccessKeyId>"
#define SECRET "<SecretAccessKey>a/+secret</SecretAccessKey>"
#define TOKEN "<SessionToken>to//ken==</SessionToken>"
#define EXPIRES "<Expiration>2026-01-02T03:04:05Z</Expiration>"

static void assert_credentials(const char *text)
{
    struct s3_xml_credentials credentials;
    struct error error = ERROR_NONE;
    if (s3_xml_credentials(text, strlen(text), &credentials, &error) != 0)
        fail_msg("%s", error.story);
    assert_string_equal(credentials.access_key, "ASIA");
    assert_string_equal(credentials.secret_key, "a/+secret");
    assert_string_equal(credentials.token, "to//ken==");
    assert_int_equal(credentials.expires_s, 1767323045);
    free(credentials.access_key);
    free(credentials.secret_key);
    free(credentials.token);
}

static void refuse_credentials(const char *text, size_t length, const char *story)
{
    struct s3_xml_credentials credentials = { .expires_s = 4711 };
    struct error error = ERROR_NONE;
    assert_int_equal(s3_xml_credentials(text, length, &credentials, &error), -EPROTO);
    assert_null(credentials.access_key);
    assert_int_equal(credentials.expires_s, 4711);
    assert_story(&error, story);
    assert_null(strstr(error.story, "ASIA"));
    assert_null(strstr(error.story, "secret"));
    assert_null(strstr(error.story, "ken=="));
}

static void credentials_of_sts(void **state)
{
    assert_credentials(CREDENTIALS("AssumeRole", ACCESS SECRET TOKEN EXPIRES));
    assert_credentials(CREDENTIALS("AssumeRoleWithWebIdentity", EXPIRES TOKEN SECRET ACCESS));
    static const char *const incomplete[] = {
        CREDENTIALS("AssumeRole", SECRET TOKEN EXPIRES),
        CREDENTIALS("AssumeRole", ACCESS TOKEN EXPIRES),
        CREDENTIALS("AssumeRole", ACCESS SECRET EXPIRES),
        CREDENTIALS("AssumeRole", ACCESS SECRET TOKEN),
        CREDENTIALS("AssumeRole", ACCESS "<SecretAccessKey/>" TOKEN EXPIRES),
        CREDENTIALS("AssumeRole", ACCESS SECRET TOKEN EXPIRES "<SessionToken/>"),
        CREDENTIALS("AssumeRole", ""),
    };
    for (size_t i = 0; i < sizeof incomplete / sizeof incomplete[0]; i++)
        refuse_credentials(incomplete[i], strlen(incomplete[i]), "lacks a key");
    static const char when[] = CREDENTIALS("AssumeRole", ACCESS SECRET TOKEN "<Expiration>soon</Expiration>");
    refuse_credentials(when, sizeof when - 1, "time of expiration");
    static const char whole[] = CREDENTIALS("AssumeRole", ACCESS SECRET TOKEN EXPIRES);
    for (size_t length = 0; length < sizeof whole - 1; length++)
        refuse_credentials(whole, length, "the answer with credentials");
    static const char other[] = CREDENTIALS("GetSessionToken", ACCESS SECRET TOKEN EXPIRES);
    refuse_credentials(other, sizeof other - 1, "begins with <GetSessionTokenResponse>");
}

/* ---- times ---- */

static void times(void **state)
{
    static const struct {
        const char *text;
        uint64_t expected;
    } good[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-01-02T03:04:05Z", 1767323045 },
        { "2026-01-02T03:04:05.9Z", 1767323045 },
        { "2026-01-02T03:04:05.123456789Z", 1767323045 },
        { "2026-01-02T03:04:05+00:00", 1767323045 },
        { "2026-01-02T05:34:05+02:30", 1767323045 },
        { "2026-01-01T23:04:05.0-04:00", 1767323045 },
        { "2000-02-29T23:59:59Z", 951868799 },
        { "9999-12-31T23:59:59Z", 253402300799 },
        { "1969-12-31T23:00:00-01:00", 0 },
    };
    static const char *const bad[] = {
        "",
        "soon",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05z ",
        "2026-01-02T03:04:05Z ",
        " 2026-01-02T03:04:05Z",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05+0000",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+01:60",
        "2026-00-02T03:04:05Z",
        "2026-13-02T03:04:05Z",
        "2026-01-00T03:04:05Z",
        "2026-01-32T03:04:05Z",
        "2026-02-29T03:04:05Z",
        "1900-02-29T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:00Z",
        "2026-01-02T03:04:60Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
        "-026-01-02T03:04:05Z",
        "+026-01-02T03:04:05Z",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t seconds = 4711;
        assert_int_equal(s3_time_parse(good[i].text, &seconds), 0);
        assert_int_equal(seconds, good[i].expected);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t seconds = 4711;
        if (s3_time_parse(bad[i], &seconds) != -EINVAL)
            fail_msg("'%s' was taken for a time", bad[i]);
        assert_int_equal(seconds, 4711);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(errors_that_are_none),
        cmocka_unit_test(errors_are_plain_and_cut),
        cmocka_unit_test(errors_that_are_cut_off),
        cmocka_unit_test(listings),
        cmocka_unit_test(listings_are_sorted),
        cmocka_unit_test(foreign_keys_are_left_out),
        cmocka_unit_test(listings_that_are_none),
        cmocka_unit_test(listings_that_are_cut_off),
        cmocka_unit_test(full_pages),
        cmocka_unit_test(entities_are_refused),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(texts_and_names_are_limited),
        cmocka_unit_test(versionings),
        cmocka_unit_test(lifecycles),
        cmocka_unit_test(lifecycles_that_are_none),
        cmocka_unit_test(credentials_of_sts),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
