/* Events: see base/event.h. */
#include "base/event.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

/* Room for an error's whole story and a sentence around it. */
#define EVENT_TEXT_MAX (ERROR_STORY_MAX + 256)

void event_raise(struct event_sink *sink, enum event_level level, const char *subject, const char *format, ...)
{
    assert(subject != NULL);
    if (sink == NULL || level < sink->least)
        return;
    char text[EVENT_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sink->raise(sink, level, subject, text);
}
