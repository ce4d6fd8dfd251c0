/* What the thread pool needs of compiler and system: atomic words, pauses, a clock.
 *
 * Every atomic operation is sequentially consistent. Where the compiler has none that this file
 * knows, ATOMIC_WORDS is 0: then nothing may be shared, and one thread does all the work.
 */
#ifndef SYSTOLIC_SPIN_H
#define SYSTOLIC_SPIN_H

#include <stdint.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <sched.h>
#include <signal.h>
#include <time.h>
#endif

#if defined(__GNUC__)
typedef int64_t Word __attribute__((aligned(8))); /* 32-bit processors, too, are to take it whole */
#else
typedef int64_t Word;
#endif

#if __GCC_ATOMIC_LLONG_LOCK_FREE == 2
#define ATOMIC_WORDS 1
static inline Word word_load(Word *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void word_store(Word *word, Word value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static inline Word word_exchange(Word *word, Word value) {
    return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
}
static inline Word word_add(Word *word, Word value) { return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }
static inline int word_replace(Word *word, Word expected, Word value) {
    return __atomic_compare_exchange_n(word, &expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#elif defined(_MSC_VER) && defined(_WIN64)
#define ATOMIC_WORDS 1
#include <intrin.h>
static inline Word word_load(Word *word) { return _InterlockedCompareExchange64(word, 0, 0); }
static inline void word_store(Word *word, Word value) { (void)_InterlockedExchange64(word, value); }
static inline Word word_exchange(Word *word, Word value) { return _InterlockedExchange64(word, value); }
static inline Word word_add(Word *word, Word value) { return _InterlockedExchangeAdd64(word, value); }
static inline int word_replace(Word *word, Word expected, Word value) {
    return _InterlockedCompareExchange64(word, value, expected) == expected;
}
#else
#define ATOMIC_WORDS 0
static inline Word word_load(Word *word) { return *word; }
static inline void word_store(Word *word, Word value) { *word = value; }
static inline Word word_exchange(Word *word, Word value) {
    const Word before = *word;
    *word = value;
    return before;
}
static inline Word word_add(Word *word, Word value) { return word_exchange(word, *word + value); }
static inline int word_replace(Word *word, Word expected, Word value) {
    return *word == expected ? (*word = value, 1) : 0;
}
#endif

/* Tell the processor that this thread only waits: the other one of its core goes faster. */
static inline void spin_pause(void) {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#elif defined(__GNUC__) && defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#elif defined(_WIN32)
    YieldProcessor();
#endif
}

/* Let another thread that could run have the core. */
static inline void spin_yield(void) {
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}

/* Leave the process's signals to its other threads. */
static inline void spin_block_signals(void) {
#if !defined(_WIN32)
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
#endif
}

/* Sleep for about so long. */
static inline void spin_nap(long nanoseconds) {
#if defined(_WIN32)
    Sleep((DWORD)(nanoseconds / 1000000));
#else
    struct timespec time = {0, nanoseconds};
    nanosleep(&time, NULL);
#endif
}

/* Nanoseconds since some moment. */
static inline int64_t spin_clock(void) {
#if defined(_WIN32)
    LARGE_INTEGER count, each;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&each);
    return (int64_t)((double)count.QuadPart * 1e9 / (double)each.QuadPart);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

#endif
