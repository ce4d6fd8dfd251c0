/* Operators beside the array: AVX-512 F, BW, VL, DQ. */
#define HOST_NAME "avx512"
#define HOST_TABLE systolic_host_avx512
#include "host_loops.h"
