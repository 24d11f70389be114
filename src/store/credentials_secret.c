/* Secrets in memory, and keeping them out of messages.
 *
 * What is ours is wiped before it is freed.  What others say (a server that
 * refuses, a process that complains) goes into stories, since it is the best
 * explanation there is; but nobody knows what they quote.  So words in it that
 * look like a key or a token are left out: long runs of the letters of base64
 * that mix capitals, small letters and digits.  A path or an ARN seldom looks
 * like that, a secret nearly always does. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "store/credentials_internal.h"

/* A secret key of AWS has 40 characters, an access key 20 and no small letters. */
#define SECRET_WORD_MIN 24

void secret_free(char *text)
{
    if (text == NULL)
        return;
    explicit_bzero(text, strlen(text));
    free(text);
}

void secret_buffer_free(struct buffer *buffer)
{
    if (buffer->data != NULL)
        explicit_bzero(buffer->data, buffer->capacity);
    buffer_free(buffer);
}

void secrets_free(struct secrets *secrets)
{
    secret_free(secrets->access_key);
    secret_free(secrets->secret_key);
    secret_free(secrets->token);
    secrets->access_key = secrets->secret_key = secrets->token = NULL;
}

bool secrets_same(const struct secrets *a, const struct secrets *b)
{
    if (strcmp(a->access_key, b->access_key) != 0 || strcmp(a->secret_key, b->secret_key) != 0)
        return false;
    if (a->token == NULL || b->token == NULL)
        return a->token == b->token;
    return strcmp(a->token, b->token) == 0;
}

static bool in_secret_word(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("+/=_-.~", c) != NULL);
}

static bool looks_secret(const char *word, size_t length)
{
    bool upper = false, lower = false, digit = false;
    for (size_t i = 0; i < length; i++) {
        upper |= isupper((unsigned char)word[i]) != 0;
        lower |= islower((unsigned char)word[i]) != 0;
        digit |= isdigit((unsigned char)word[i]) != 0;
    }
    return length >= SECRET_WORD_MIN && upper && lower && digit;
}

void secret_redact(const char *bytes, size_t length, char *ret_text, size_t capacity)
{
    static const char instead[] = "[…]";
    struct buffer text = BUFFER_EMPTY;
    for (size_t at = 0; at < length;) {
        size_t end = at;
        while (end < length && in_secret_word(bytes[end]))
            end++;
        if (end == at) {
            bool blank = isspace((unsigned char)bytes[at]) != 0;
            buffer_put_u8(&text, blank ? ' ' : (uint8_t)bytes[at]);
            at++;
            continue;
        }
        if (looks_secret(bytes + at, end - at))
            buffer_put(&text, instead, sizeof instead - 1);
        else
            buffer_put(&text, bytes + at, end - at);
        at = end;
    }
    while (text.length > 0 && text.data[text.length - 1] == ' ')
        text.length--;
    text_quote((const char *)text.data, text.length, ret_text, capacity);
    secret_buffer_free(&text);
}
