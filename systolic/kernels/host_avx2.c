/* Operators on the host: AVX2 and FMA. */
#define HOST_TABLE host_avx2
#include "host_loops.h"
