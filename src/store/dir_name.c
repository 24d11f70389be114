/* How keys and files of the directory store are called.
 *
 * A key `v/ab/log/17` is the file objects/v/ab/log/17.obj: components are
 * directories, and the suffix keeps the file of `v/ab` apart from the directory
 * of `v/ab/log`.  Keys as cairn makes them come out unchanged; for the rest:
 *
 *   - bytes other than a-z 0-9 . _ - and % become =xx.  (% is left alone since
 *     the names of volumes are full of it.  Upper case is escaped, so that
 *     nothing collides on a file system that ignores case.)
 *   - a dot at the front of a name becomes =2e: nothing is hidden, nothing is
 *     called `..`; and so does the dot of a directory's name ending in .obj.
 *   - a component too long for a name goes on in a directory: the name so far
 *     ends in `+`, which no other name contains.
 *
 * The encoding is one to one.  A file whose name is not the encoding of a key
 * is not ours and is never listed. */
#include <assert.h>
#include <string.h>

#include "base/text.h"
#include "store/dir_internal.h"

static const char digits[] = "0123456789abcdef";

static bool plain(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-' ||
           byte == '%';
}

static size_t escape(char byte, char *ret_text)
{
    ret_text[0] = '=';
    ret_text[1] = digits[(unsigned char)byte >> 4];
    ret_text[2] = digits[(unsigned char)byte & 15];
    return 3;
}

static bool ends_with_suffix(const char *name, size_t length)
{
    const size_t suffix = sizeof DIR_SUFFIX - 1;
    return length >= suffix && memcmp(name + length - suffix, DIR_SUFFIX, suffix) == 0;
}

/* Ends a directory's name that begins at `name_at`; the new length of the path, slash included. */
static size_t end_directory(char *text, size_t name_at, size_t length)
{
    if (ends_with_suffix(text + name_at, length - name_at)) {
        const size_t dot = length - (sizeof DIR_SUFFIX - 1);
        memmove(text + dot + 3, text + dot + 1, length - dot - 1);
        length += escape('.', text + dot) - 1;
    }
    text[length] = '/';
    return length + 1;
}

void dir_path_of(const char *key, struct dir_path *ret_path)
{
    char *text = ret_path->text;
    size_t length = 0, name_at = 0;
    assert(strlen(key) <= STORE_KEY_MAX);
    for (const char *at = key; *at != '\0'; at++) {
        if (*at == '/') {
            length = name_at = end_directory(text, name_at, length);
            continue;
        }
        bool as_is = plain(*at);
        if (length - name_at + (as_is ? 1 : 3) > DIR_NAME_BYTES) {
            text[length++] = '+';
            text[length++] = '/';
            name_at = length;
        }
        if (*at == '.' && length == name_at)
            as_is = false;
        if (as_is)
            text[length++] = *at;
        else
            length += escape(*at, text + length);
    }
    assert(length + sizeof DIR_SUFFIX <= sizeof ret_path->text);
    memcpy(text + length, DIR_SUFFIX, sizeof DIR_SUFFIX);
    ret_path->directory_length = name_at > 0 ? name_at - 1 : 0;
    ret_path->name_at = name_at;
}

bool dir_name_is_file(const char *name)
{
    return ends_with_suffix(name, strlen(name));
}

bool dir_name_append(const char *name, bool is_directory, char key[STORE_KEY_MAX + 1], size_t *length)
{
    size_t name_length = strlen(name), at = *length;
    bool goes_on = is_directory && name_length > 0 && name[name_length - 1] == '+';
    if (goes_on)
        name_length--;
    if (!is_directory)
        name_length -= sizeof DIR_SUFFIX - 1;
    for (size_t i = 0; i < name_length; i++) {
        char byte = name[i];
        if (byte == '=') {
            char pair[3] = { 0 };
            memcpy(pair, name + i + 1, name_length - i - 1 < 2 ? name_length - i - 1 : 2);
            if (!text_unhex(pair, (uint8_t *)&byte, 1))
                return false;
            i += 2;
        } else if (!plain(byte)) {
            return false;
        }
        if (at == STORE_KEY_MAX || byte == '\0')
            return false;
        key[at++] = byte;
    }
    if (is_directory && !goes_on) {
        if (at == STORE_KEY_MAX)
            return false;
        key[at++] = '/';
    }
    key[at] = '\0';
    *length = at;
    return true;
}
