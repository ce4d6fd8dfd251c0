/* Threads that help the compiled functions: one pool for the whole process, with no Python in it.
 *
 * Work is a number of tasks, numbered from 0. The caller works too, so that nothing depends on
 * whether helpers come. Helpers are threads of the operating system: they need no GIL, and nothing
 * has to be ended with the interpreter. The pool serves one caller at a time; a second one does its
 * tasks alone, so that the package never uses more threads than the pool has, however many threads
 * of a user call it. Where a compiler has no atomic operations (spin.h), there are no helpers.
 */
#ifndef SYSTOLIC_POOL_H
#define SYSTOLIC_POOL_H

#include <stddef.h>

/* Does task `number`; `worker`, from 0 (the caller) to workers - 1, is for memory of its own. */
typedef void (*PoolTask)(void *context, ptrdiff_t number, int worker);

/* Start helpers until there are workers - 1, or as many as the system gives; return how many
 * threads may work at once. */
int pool_hire(ptrdiff_t workers);

/* Do tasks 0..count-1 in this thread and at most workers - 1 helpers; `workers` is what pool_hire
 * returned. Sleeping helpers are woken only if the work is long, a tenth of a millisecond or more. */
void pool_share(PoolTask task, void *context, ptrdiff_t count, int workers, int is_long);

/* How many helpers this process has started. */
int pool_helpers(void);

/* With more threads than cores helpers do not wait actively: they would keep others from working. */
void pool_set_cores(int cores);

/* In a forked child, which has no helpers: forget them and the caller that they worked for. */
void pool_forget(void);

#endif
