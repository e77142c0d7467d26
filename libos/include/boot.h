/*
 * Boot information: what the image tells the LibOS, in measured pages at 0x10000. Little endian; offsets
 * are from 0x10000, offset 0 is "none". Written by src/strongroom/image/boot.py; a test compares the two.
 */
#ifndef STRONGROOM_BOOT_H
#define STRONGROOM_BOOT_H
#include <stddef.h>
#include <stdint.h>

#define BOOT_ADDRESS 0x10000ull
#define BOOT_MAGIC 0x314f464e49545342ull /* "BSTINFO1" */
#define BOOT_VERSION 1

enum boot_flag { BOOT_DEBUG = 1, BOOT_NETWORK = 2, BOOT_HOST_ARGV = 4, BOOT_HOST_ENV = 8, BOOT_EDMM = 16 };
enum boot_object_flag { BOOT_OBJECT_MAIN = 1, BOOT_OBJECT_INTERPRETER = 2 };
enum boot_mount_kind {
    BOOT_MOUNT_TRUSTED = 1, BOOT_MOUNT_TEMPORARY = 2, BOOT_MOUNT_ALLOWED = 3, BOOT_MOUNT_SEALED = 4,
    BOOT_MOUNT_RELEASE = 5, BOOT_MOUNT_SEALED_MRENCLAVE = 6, /* BOOT_MOUNT_SEALED: by MRSIGNER */
};

struct boot_info {
    uint64_t magic;
    uint32_t version, size;
    uint64_t elrange_size;
    uint64_t libos_base, libos_size;
    uint64_t heap_base, heap_size;
    uint64_t thread_base, thread_stride;
    uint32_t thread_count, flags;
    uint8_t pack_index_sha256[32];
    uint64_t pack_index_size;
    uint32_t object_count, object_off;
    uint32_t mount_count, mount_off;
    uint32_t argc, argv_off;
    uint32_t envc, env_off;
    uint32_t program_path, interp_path, cwd_path;
    uint32_t envallow_count, envallow_off;
    uint32_t reserved;
    uint64_t late_base, late_size; /* for code made at run time; 0: none */
    uint32_t reserved2[2];
};
struct boot_object { uint32_t path, segment_count; uint64_t base, span; uint32_t segment_off, flags; };
struct boot_segment { uint64_t vaddr, memsz, fileoff, filesz; uint32_t prot, measured; };
struct boot_mount { uint32_t path, kind, host_path, reserved; };

#define BOOT_AT(type, member, offset) _Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
BOOT_AT(boot_info, elrange_size, 16);
BOOT_AT(boot_info, libos_base, 24);
BOOT_AT(boot_info, heap_base, 40);
BOOT_AT(boot_info, thread_base, 56);
BOOT_AT(boot_info, thread_count, 72);
BOOT_AT(boot_info, pack_index_sha256, 80);
BOOT_AT(boot_info, pack_index_size, 112);
BOOT_AT(boot_info, object_count, 120);
BOOT_AT(boot_info, mount_count, 128);
BOOT_AT(boot_info, argc, 136);
BOOT_AT(boot_info, envc, 144);
BOOT_AT(boot_info, program_path, 152);
BOOT_AT(boot_info, interp_path, 156);
BOOT_AT(boot_info, cwd_path, 160);
BOOT_AT(boot_info, envallow_count, 164);
BOOT_AT(boot_info, envallow_off, 168);
BOOT_AT(boot_info, reserved, 172);
BOOT_AT(boot_info, late_base, 176);
BOOT_AT(boot_info, late_size, 184);
BOOT_AT(boot_info, reserved2, 192);
BOOT_AT(boot_object, base, 8);
BOOT_AT(boot_object, span, 16);
BOOT_AT(boot_object, segment_off, 24);
BOOT_AT(boot_object, flags, 28);
BOOT_AT(boot_segment, prot, 32);
BOOT_AT(boot_segment, measured, 36);
BOOT_AT(boot_mount, host_path, 8);
_Static_assert(sizeof(struct boot_info) == 200, "boot_info");
_Static_assert(sizeof(struct boot_object) == 32, "boot_object");
_Static_assert(sizeof(struct boot_segment) == 40, "boot_segment");
_Static_assert(sizeof(struct boot_mount) == 16, "boot_mount");
#endif
