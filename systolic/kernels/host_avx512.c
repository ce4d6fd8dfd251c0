/* Operators on the host: AVX-512 F, BW, VL, DQ. */
#define HOST_TABLE host_avx512
#include "host_loops.h"
