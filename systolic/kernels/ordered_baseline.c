/* Products in fixed order in plain C. */
#define ORDERED_TABLE ordered_baseline
#define PANEL 32
#define FLOAT_TILES 0
#include "ordered_driver.h"
