/* descriptors.h: open files enough for the connections that are wanted. A client that takes the last one would leave none for a decoding
 * helper or a look at the registry, so connections are limited to what is left beside those. */
#ifndef WINNOW_SERVER_DESCRIPTORS_H
#define WINNOW_SERVER_DESCRIPTORS_H

/* Raises the process's limit (RLIMIT_NOFILE) to `connections` and `others`, if it is lower, as far as its hard limit allows. Returns the connections
 * that fit: fewer, at least 1, after a warning in the log when it does not suffice. */
int descriptors_make_room(int connections, int others);

#endif
