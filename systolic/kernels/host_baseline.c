/* Operators beside the array: whatever the compiler targets by itself (SSE2 on x86-64, NEON on arm64). */
#define HOST_NAME "baseline"
#define HOST_TABLE systolic_host_baseline
#include "host_loops.h"
