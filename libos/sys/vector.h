/* The program's vectors of memory (struct iovec): vector.c, sys_message.c. */
#ifndef STRONGROOM_VECTOR_H
#define STRONGROOM_VECTOR_H
#include <linux/uio.h>

#include "libos.h"

#define VECTOR_FEW 8u
struct vector { struct iovec few[VECTOR_FEW], *part; u64 count, total; };
/* Our own copy of `count` parts: 0, `too_many`, -EFAULT, -EINVAL (lengths), -ENOMEM. vector_drop when it was 0. */
long vector_in(struct vector *v, u64 at, u64 count, long too_many);
void vector_drop(struct vector *v);
bool vector_ok(const struct vector *v, bool write); /* all of it is the program's memory, now */
/* `size` bytes from `skip` on, each part checked as it is copied; false: EFAULT. */
bool vector_copy(const struct vector *v, u8 *bytes, u64 size, bool out, u64 skip);
#endif
