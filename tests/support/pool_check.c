/* Checks of systolic/kernels/pool.c, also under ThreadSanitizer: see test_pool.py. Prints what is wrong. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool.h"

enum { MOST_TASKS = 64, CALLERS = 4 };

/* Plain data, written by the caller and by workers: a sanitizer sees whether the pool orders them. */
typedef struct {
    int input, turns;
    int done[MOST_TASKS], worker[MOST_TASKS], output[MOST_TASKS];
} Job;

static void task(void *context, ptrdiff_t number, int worker) {
    Job *job = (Job *)context;
    volatile int turn;
    for (turn = 0; turn < job->turns; ++turn) continue;
    job->done[number] += 1;
    job->worker[number] = worker;
    job->output[number] = job->input + (int)number;
}

static int helped; /* whether a helper did anything; of the main thread */

static int wrong_tasks(Job *job, int count, int workers, int is_long) {
    const int input = job->input = rand();
    int i, wrong = 0;
    memset(job->done, 0, sizeof(job->done));
    pool_share(task, job, count, pool_hire(workers), is_long);
    for (i = 0; i < count; ++i) {
        wrong += job->done[i] != 1 || job->output[i] != input + i;
        wrong += job->worker[i] < 0 || job->worker[i] >= workers;
    }
    return wrong;
}

static void *caller(void *argument) {
    const int seed = *(const int *)argument;
    Job job = {0};
    long i, wrong = 0;
    for (i = 0; i < 2000; ++i) wrong += wrong_tasks(&job, (int)(seed * 7 + i) % 30, 3, i % 2 == 0);
    return (void *)wrong;
}

static void report(const char *what, long wrong) {
    if (!wrong) return;
    printf("%s: %ld wrong\n", what, wrong);
    exit(1);
}

int main(void) {
    static Job job;
    pthread_t threads[CALLERS];
    int seeds[CALLERS], i, j;
    long wrong = 0;
    pool_set_cores(64);
    for (i = 0; i < 20000; ++i) wrong += wrong_tasks(&job, i % MOST_TASKS, 1 + i % 5, i % 3 == 0);
    report("short jobs one after another", wrong);
    job.turns = 20000;
    for (i = 0; i < 100; ++i) {
        usleep(i % 10 * 100); /* helpers fall asleep after 300 microseconds */
        wrong += wrong_tasks(&job, 30, 4, 1);
        for (j = 0; j < 30; ++j) helped |= job.worker[j] > 0;
    }
    report("long jobs for sleeping helpers", wrong);
    report("helpers did nothing", !helped);
    job.turns = 0;
    for (i = 0; i < CALLERS; ++i) {
        seeds[i] = i;
        report("pthread_create", pthread_create(&threads[i], NULL, caller, &seeds[i]));
    }
    for (i = 0; i < 2000; ++i) wrong += wrong_tasks(&job, 20, 4, 0);
    for (i = 0; i < CALLERS; ++i) {
        void *result;
        report("pthread_join", pthread_join(threads[i], &result));
        wrong += (long)result;
    }
    report("several callers", wrong);
    report("helpers", pool_helpers() != 4);
    pool_set_cores(1); /* helpers sleep at once */
    for (i = 0; i < 2000; ++i) wrong += wrong_tasks(&job, 20, 4, i % 2);
    report("more threads than cores", wrong);
    puts("right");
    return 0;
}
