/* Events: how libraries tell what happened without logging it.
 *
 * A library raises an event on a sink that it was given; the daemon's sink
 * makes log lines of them, the simulator's puts them into its trace.  An event
 * says a change of state, once: never one per retry. */
#ifndef CAIRN_BASE_EVENT_H
#define CAIRN_BASE_EVENT_H

enum event_level { EVENT_DEBUG, EVENT_INFO, EVENT_WARNING, EVENT_ERROR };

struct event_sink {
    void (*raise)(struct event_sink *sink, enum event_level level, const char *subject, const char *text);
    enum event_level least; /* events below this are not formatted at all */
};

/* `subject`: what the event is about, such as "volume 'db'" or "client 127.0.0.1:4711"; never NULL.
 * `sink` may be NULL: nobody listens. */
void event_raise(struct event_sink *sink, enum event_level level, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
