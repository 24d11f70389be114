/* The front door of channels: asserts the contract of rt/channel.h around the
 * implementation, and builds the full read from the short one. */
#include "rt/channel.h"

#include <assert.h>
#include <errno.h>

#include "rt/loop.h"

static size_t total(const struct iovec *pieces, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += pieces[i].iov_len;
    return sum;
}

ssize_t channel_read(struct channel *channel, const struct iovec *pieces, int count)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == channel->loop);
    assert(!channel->reading);
    assert(count > 0 && total(pieces, count) > 0);
    channel->reading = true;
    ssize_t result = channel->ops->read(channel, pieces, count);
    channel->reading = false;
    assert(result < 0 || (size_t)result <= total(pieces, count));
    return result;
}

int channel_read_full(struct channel *channel, void *bytes, size_t length)
{
    char *at = bytes, *end = at + length;
    while (at < end) {
        struct iovec piece = { .iov_base = at, .iov_len = (size_t)(end - at) };
        ssize_t got = channel_read(channel, &piece, 1);
        if (got <= 0)
            return got == 0 ? -EPIPE : (int)got;
        at += got;
    }
    return 0;
}

int channel_write(struct channel *channel, const struct iovec *pieces, int count)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == channel->loop);
    assert(!channel->writing);
    assert(count >= 0);
    channel->writing = true;
    int result = channel->ops->write(channel, pieces, count);
    channel->writing = false;
    assert(result <= 0);
    return result;
}

ssize_t channel_write_some(struct channel *channel, const struct iovec *pieces, int count)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == channel->loop);
    assert(!channel->writing);
    assert(count > 0 && total(pieces, count) > 0);
    channel->writing = true;
    ssize_t result = channel->ops->write_some(channel, pieces, count);
    channel->writing = false;
    assert(result < 0 || (size_t)result <= total(pieces, count));
    return result;
}

int channel_wait_end(struct channel *channel)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == channel->loop);
    assert(!channel->reading);
    channel->reading = true;
    int result = channel->ops->wait_end(channel);
    channel->reading = false;
    assert(result <= 0);
    return result;
}

size_t channel_unread(struct channel *channel)
{
    return channel->ops->unread(channel);
}

void channel_shutdown(struct channel *channel)
{
    channel->ops->shutdown(channel);
}

void channel_close(struct channel *channel)
{
    if (channel == NULL)
        return;
    assert(!channel->reading && !channel->writing);
    channel->ops->close(channel);
}

int channel_detach(struct channel *channel)
{
    assert(!channel->reading && !channel->writing);
    return channel->ops->detach(channel);
}
