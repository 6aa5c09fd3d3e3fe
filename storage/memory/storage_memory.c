#include "storage/memory/storage_memory.h"
