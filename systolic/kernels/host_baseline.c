/* Operators on the host: whatever the compiler targets by itself (SSE2 on x86-64, NEON on arm64). */
#define HOST_TABLE host_baseline
#include "host_loops.h"
