/* The thread pool of pool.h.
 *
 * Tasks. Each worker has a part of the task numbers to itself, the same one in each job of that
 * size, so that its caches hold what it needs; when it is through, it takes what others have left.
 * A part is a counter that workers add to.
 *
 * Helpers. One that has finished looks for more work for a moment (SPIN_NANOSECONDS) before it
 * sleeps: waking a sleeping core takes tens of microseconds, a good part of a layer's time. It
 * yields its core between looks, and sleeps as soon as anyone else used it.
 *
 * The ticket passes a job on. It is one word:
 *
 *     bits 0..15    helpers that are invited and have not come yet
 *     bits 16..31   helpers invited: those of index below this
 *     bits 32..62   number of the job
 *
 *   The caller writes the job (plain words), then stores the ticket with all invited outstanding.
 *   A helper that finds itself invited to a job it has not seen takes 1 off the outstanding by
 *     compare-and-exchange. That succeeds only on the ticket it looked at: from then on the caller
 *     waits for it, and the job does not change. It reads the job, works, and adds 1 to `finished`.
 *   The caller, when no task is left, exchanges the ticket for one without outstanding helpers,
 *     which closes it: it learns how many came, and waits until as many have finished. Only then
 *     may it change the job or return.
 *
 * Sleep. A helper stores asleep = 1, then looks at the ticket once more, then sleeps. The caller
 * stores the ticket, then looks at `asleep`. Both words are sequentially consistent, so that one
 * of the two sees what the other wrote and no job is missed. The first to exchange `asleep` for 0
 * decides: if it is the caller, it wakes the helper; if it is the helper, it does not sleep.
 *
 * Memory order. Every operation on a Word is sequentially consistent (spin.h). The job is plain
 * data: its writes come before the store of the ticket, its reads after the compare-and-exchange;
 * what tasks wrote comes before the addition to `finished`, which the caller reads last.
 *
 * Why not a mutex and a condition variable. Microseconds of a job of 20 tasks for two workers, medians
 * of 7 processes in turn, 2 cores at real-time priority (AMD EPYC):
 *
 *     one thread                               6.1    24    238
 *     this pool, 0 to 100 us between jobs      3.4    12    120
 *     condition variable, the same            16      44    251
 *     this pool, helpers asleep (1 ms)        14      31    138
 *     condition variable, the same            19      44    257
 *
 * With every core busy with other processes, a job takes as long as on one thread here, and 1.8
 * times that with a condition variable, where the caller waits for a helper that does not get a core.
 */
#include "pool.h"

#include "spin.h"

/* Threads, and a wakeup for each: wakeup_wait sleeps until it is signaled, not at all if it already is. */
#if defined(_WIN32)
#define THREAD DWORD WINAPI
typedef HANDLE Wakeup;

static int start_thread(DWORD(WINAPI *work)(void *), void *argument) {
    const HANDLE thread = CreateThread(NULL, 0, work, argument, 0, NULL);
    return thread != NULL && CloseHandle(thread);
}

static void wakeup_make(Wakeup *wakeup) { *wakeup = CreateEventW(NULL, FALSE, FALSE, NULL); }
static void wakeup_send(Wakeup *wakeup) { SetEvent(*wakeup); }
static void wakeup_wait(Wakeup *wakeup) { WaitForSingleObject(*wakeup, INFINITE); }
#else
#include <pthread.h>

#define THREAD void *
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    int signaled;
} Wakeup;

static int start_thread(void *(*work)(void *), void *argument) {
    pthread_t thread;
    return pthread_create(&thread, NULL, work, argument) == 0 && pthread_detach(thread) == 0;
}

static void wakeup_make(Wakeup *wakeup) {
    pthread_mutex_init(&wakeup->mutex, NULL);
    pthread_cond_init(&wakeup->condition, NULL);
    wakeup->signaled = 0;
}

static void wakeup_send(Wakeup *wakeup) {
    pthread_mutex_lock(&wakeup->mutex);
    wakeup->signaled = 1;
    pthread_cond_signal(&wakeup->condition);
    pthread_mutex_unlock(&wakeup->mutex);
}

static void wakeup_wait(Wakeup *wakeup) {
    pthread_mutex_lock(&wakeup->mutex);
    while (!wakeup->signaled) pthread_cond_wait(&wakeup->condition, &wakeup->mutex);
    wakeup->signaled = 0;
    pthread_mutex_unlock(&wakeup->mutex);
}
#endif

enum {
    MOST_HELPERS = 1023,
    COUNT = 0xFFFF,
    INVITED = 16,               /* bits below them */
    NUMBER = 32,
    SPIN_NANOSECONDS = 300000,
    AWAY_NANOSECONDS = 50000,   /* much more than from one look at the clock to the next */
    PAUSES = 64,                /* between two looks at the clock */
    NAP_NANOSECONDS = 50000
};

typedef struct {
    Wakeup wakeup;
    Word asleep;
    Word last; /* job seen */
} Helper;

typedef struct {
    Word next;
    char rest[56]; /* of the cache line */
} Part;

static struct {
    PoolTask task;
    void *context;
    ptrdiff_t count;
    int workers;
} job;

static Part parts[MOST_HELPERS + 1];
static Helper each[MOST_HELPERS];
static Word ticket, finished, helpers, cores;
static Word taken;  /* whether a caller has the pool */
static Word hiring; /* whether a thread is starting helpers */

static ptrdiff_t part_start(int part) { return part * job.count / job.workers; }

static void work(int worker) {
    int i;
    for (i = 0; i < job.workers; ++i) {
        const int part = (worker + i) % job.workers;
        const ptrdiff_t end = part_start(part + 1);
        ptrdiff_t number;
        while ((number = (ptrdiff_t)word_add(&parts[part].next, 1)) < end) job.task(job.context, number, worker);
    }
}

/* Work if there is a job that this helper is invited to and has not seen; returns whether there was. */
static int look(Helper *me) {
    const Word seen = word_load(&ticket);
    const int worker = (int)(me - each) + 1;
    if (!(seen & COUNT) || worker > (seen >> INVITED & COUNT) || seen >> NUMBER == me->last) return 0;
    if (word_replace(&ticket, seen, seen - 1)) {
        me->last = seen >> NUMBER;
        work(worker);
        word_add(&finished, 1);
    }
    return 1;
}

static THREAD help(void *argument) {
    Helper *me = (Helper *)argument;
    spin_block_signals();
    for (;;) {
        int64_t since = spin_clock(), looked = since, now;
        int i;
        for (;;) {
            for (i = 0; i < PAUSES; ++i) {
                if (look(me)) since = looked = spin_clock();
                spin_pause();
            }
            spin_yield();
            now = spin_clock();
            /* Someone else had this core meanwhile, perhaps the caller: a thread that never sleeps may stay
             * on a busy core for long, one that is woken is put on an idle one. */
            if (now - looked > AWAY_NANOSECONDS || now - since > SPIN_NANOSECONDS ||
                word_load(&helpers) >= word_load(&cores))
                break;
            looked = now;
        }
        word_store(&me->asleep, 1);
        if (!look(me) || !word_exchange(&me->asleep, 0)) wakeup_wait(&me->wakeup);
    }
    return 0; /* never */
}

int pool_hire(ptrdiff_t workers) {
    ptrdiff_t there = (ptrdiff_t)word_load(&helpers);
    if (there < workers - 1 && !word_exchange(&hiring, 1)) {
        for (; there < workers - 1 && there < MOST_HELPERS && ATOMIC_WORDS; ++there) {
            Helper *me = &each[there];
            me->asleep = 0;
            me->last = -1;
            wakeup_make(&me->wakeup);
            if (!start_thread(help, me)) break;
            word_store(&helpers, there + 1);
        }
        word_store(&hiring, 0);
    }
    return (int)(workers < there + 1 ? workers : there + 1);
}

void pool_share(PoolTask task, void *context, ptrdiff_t count, int workers, int is_long) {
    Word open;
    int i, came, naps;
    if (workers > count) workers = (int)count;
    if (workers <= 1 || word_exchange(&taken, 1)) {
        ptrdiff_t number;
        for (number = 0; number < count; ++number) task(context, number, 0);
        return;
    }
    job.task = task;
    job.context = context;
    job.count = count;
    job.workers = workers;
    for (i = 0; i < workers; ++i) word_store(&parts[i].next, part_start(i));
    word_store(&finished, 0);
    /* The number wraps after 2^31 jobs: only a helper that slept through all of them could be misled. */
    open = ((word_load(&ticket) >> NUMBER) + 1) & 0x7FFFFFFF;
    open = open << NUMBER | (Word)(workers - 1) << INVITED;
    word_store(&ticket, open | (workers - 1));
    for (i = 0; is_long && i < workers - 1; ++i)
        if (word_load(&each[i].asleep) && word_exchange(&each[i].asleep, 0)) wakeup_send(&each[i].wakeup);
    work(0);
    came = workers - 1 - (int)(word_exchange(&ticket, open) & COUNT);
    for (naps = 0; word_load(&finished) < came; ++naps) {
        if (naps < 20 * PAUSES) spin_pause();
        else if (naps < 40 * PAUSES) spin_yield();
        else spin_nap(NAP_NANOSECONDS); /* its task is long, or it does not get its core */
    }
    word_store(&taken, 0);
}

int pool_helpers(void) { return (int)word_load(&helpers); }

void pool_set_cores(int count) { word_store(&cores, count); }

void pool_forget(void) {
    word_store(&helpers, 0);
    word_store(&hiring, 0);
    word_store(&ticket, word_load(&ticket) & ~(Word)COUNT);
    word_store(&taken, 0);
}
