#include "scratch.h"

#include <stdlib.h>

#include "spin.h"

enum { KEPT_BYTES = 1 << 23 };

static Word spare; /* an address or 0: whoever swaps it out owns it */

/* The address that malloc returned is stored before what is returned. */
static uint8_t *allocate(size_t size) {
    uint8_t *memory = (uint8_t *)malloc(size + 64 + sizeof(void *)), *aligned;
    if (memory == NULL) return NULL;
    aligned = memory + sizeof(void *);
    aligned += (0 - (uintptr_t)aligned) & 63;
    ((void **)(void *)aligned)[-1] = memory;
    return aligned;
}

static void release(uint8_t *memory) {
    if (memory != NULL) free(((void **)(void *)memory)[-1]);
}

uint8_t *scratch_borrow(size_t size, size_t *borrowed) {
    uint8_t *memory = ATOMIC_WORDS ? (uint8_t *)(uintptr_t)word_exchange(&spare, 0) : NULL;
    if (memory != NULL) {
        *borrowed = *(size_t *)(void *)memory; /* written below, before it was kept */
        if (*borrowed >= size) return memory;
        release(memory);
    }
    *borrowed = (size + 4095) / 4096 * 4096;
    return allocate(*borrowed);
}

void scratch_give_back(uint8_t *memory, size_t borrowed) {
    if (memory != NULL && borrowed <= KEPT_BYTES && ATOMIC_WORDS) {
        *(size_t *)(void *)memory = borrowed;
        memory = (uint8_t *)(uintptr_t)word_exchange(&spare, (Word)(uintptr_t)memory);
    }
    release(memory);
}
