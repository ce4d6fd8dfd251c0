#define NUMBERS_TABLE numbers_baseline
#include "numbers_table.h"
