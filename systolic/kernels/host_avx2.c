/* Operators beside the array: AVX2 and FMA. */
#define HOST_NAME "avx2"
#define HOST_TABLE systolic_host_avx2
#include "host_loops.h"
