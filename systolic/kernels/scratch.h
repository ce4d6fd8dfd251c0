/* Memory for the time of a call. Pages that are new to a process cost more than what small products
 * compute in them: the last few megabytes given back are kept for the next call. */
#ifndef SYSTOLIC_SCRATCH_H
#define SYSTOLIC_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* At least `size` bytes that begin on a cache line, or NULL; *borrowed is how many. */
uint8_t *scratch_borrow(size_t size, size_t *borrowed);

/* Give back what scratch_borrow returned, NULL too, and how many bytes it said. */
void scratch_give_back(uint8_t *memory, size_t borrowed);

#endif
