/* An allocator for tests: counts what is live and fails the n-th allocation. */
#ifndef TESTS_LIB_ALLOC_FIXTURE_H
#define TESTS_LIB_ALLOC_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>

/* Takes over from malloc for all of base/alloc.h; nothing may be live there. */
void alloc_fixture_install(void);

/* Back to malloc; returns how many blocks were never released. */
size_t alloc_fixture_remove(void);

size_t alloc_fixture_live(void); /* blocks */

/* The n-th allocation from now on fails (1: the next), once. 0: none. */
void alloc_fixture_fail(size_t n);

/* Every allocation from the n-th on fails, until alloc_fixture_fail(0). */
void alloc_fixture_fail_from(size_t n);

bool alloc_fixture_failed(void); /* an allocation failed since the last call of the two above */

#endif
