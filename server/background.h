/* background.h: threads whose work may wait: loading, and asking a version on trial in secret. */
#ifndef WINNOW_SERVER_BACKGROUND_H
#define WINNOW_SERVER_BACKGROUND_H

/* The calling thread, and those that it starts from then on, get the processor when nobody else wants it, and lose it the moment
 * somebody does. A low nice value alone lets them keep it for a slice of milliseconds, which is the whole time of a small model. On a
 * machine that is full they hardly get on: a load may take minutes then. Where the system refuses they stay as they are. */
void background_thread(void);

#endif
