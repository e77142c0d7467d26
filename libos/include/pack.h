/*
 * files.pack: [index][zero padding to 4096][file data, each 4096-aligned]. The index's SHA-256 is measured.
 * Written by src/strongroom/image/pack.py; a test compares the two.
 */
#ifndef STRONGROOM_PACK_H
#define STRONGROOM_PACK_H
#include <stddef.h>
#include <stdint.h>

#define PACK_MAGIC "SRPACK01"
#define PACK_VERSION 1
#define PACK_CHUNK 16384u
enum pack_kind { PACK_FILE = 1, PACK_DIRECTORY = 2, PACK_SYMLINK = 3 };

struct pack_header {
    uint8_t magic[8];
    uint32_t version, chunk_size, entry_count, chunk_count;
    uint64_t entries_off, chunks_off, strings_off, index_size, data_off;
};
struct pack_entry {
    uint32_t path, path_len, mode, kind;
    uint64_t size, data_off;
    uint32_t first_chunk, chunk_count, target, target_len;
};
#define PACK_AT(type, member, offset) _Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
PACK_AT(pack_header, version, 8);
PACK_AT(pack_header, entries_off, 24);
PACK_AT(pack_header, chunks_off, 32);
PACK_AT(pack_header, strings_off, 40);
PACK_AT(pack_header, index_size, 48);
PACK_AT(pack_header, data_off, 56);
PACK_AT(pack_entry, size, 16);
PACK_AT(pack_entry, data_off, 24);
PACK_AT(pack_entry, first_chunk, 32);
PACK_AT(pack_entry, target_len, 44);
_Static_assert(sizeof(struct pack_header) == 64, "pack_header");
_Static_assert(sizeof(struct pack_entry) == 48, "pack_entry");
#endif
