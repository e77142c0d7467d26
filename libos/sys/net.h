/* What the files of sockets share: sys_net.c, sys_message.c. */
#ifndef STRONGROOM_NET_H
#define STRONGROOM_NET_H
#include "unix.h"

#define ADDRESS_MOST 128u
#define OPTION_MOST 1024u
enum { UNIX_ = 1, INET = 2, INET6 = 10, NETLINK = 16 };
long socket_of(long fd, struct file **f);
#define SOCK(fd) struct file *f; long bad_ = socket_of(fd, &f); if (bad_) return bad_
struct host_address { u8 bytes[ADDRESS_MOST]; u32 size; };
long address_in(long at, long size, struct host_address *to); /* the program's (at 0: none): what its family has, and no more */
u32 address_trim(u8 *address, u32 room); /* zeroes what its family does not have; that family's size */
u32 address_put(const struct host_address *a);      /* to data[0]; its size */
long address_out(long at, long size_at);            /* data[0] to the program; at 0: not asked for */
long address_give(const void *address, u32 size, long at, long size_at);
void address_room(void);
long unix_name_in(long at, long size, struct unix_name *name); /* -EAFNOSUPPORT: AF_UNSPEC */
#endif
