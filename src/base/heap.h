/*
 * Heap: what was freed goes back to the system.
 *
 * An allocator keeps freed memory for whoever asks next, and looks at what it keeps only when somebody asks.  A node whose load is gone
 * should be as small as what it holds.  Without jemalloc (development builds) heap_start does nothing.
 */
#ifndef NEXUS_BASE_HEAP_H
#define NEXUS_BASE_HEAP_H

/* Once, while the program starts: from then on what was freed leaves memory within about ten seconds, also when nothing happens. */
void heap_start(void);
/* What this thread has freed and keeps for itself is everybody's.  Now and then: an allocator looks after it only while the thread asks for
   memory.  Microseconds. */
void heap_rest(void);
/* Now, all of it; takes up to some milliseconds.  Any thread. */
void heap_give_back(void);

#endif
