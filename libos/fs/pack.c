/* Trusted files: files.pack lies in the host's memory. Its index is copied and hashed once, each chunk at every read. */
#include "libos.h"

static u64 g_pack, g_pack_size;
static const struct pack_header *g_index;
static struct { u64 chunk; u8 *data; u32 used; } g_cache[8];
static u32 g_clock;

static const struct pack_entry *entries(void) { return (const void *)((u64)g_index + g_index->entries_off); }
const char *pack_string(u32 offset) { return (const char *)g_index + offset; }
u32 pack_count(void) { return g_index->entry_count; }
const struct pack_entry *pack_at(u32 index) { return entries() + index; }

void pack_start(u64 address, u64 size)
{
    u64 index_size = boot()->pack_index_size;
    u8 digest[32];
    if (index_size < sizeof *g_index || index_size > size || !outside(address, size))
        cannot_start("files.pack is shorter than its index: build the project again");
    u8 *copy = (u8 *)kpages(index_size + 1);
    if (!copy)
        cannot_start("no memory for the index of files.pack: raise memory in enclave.toml");
    memcpy(copy, (const void *)address, index_size);
    copy[index_size] = 0;
    sha256(copy, index_size, digest);
    if (memcmp(digest, boot()->pack_index_sha256, 32))
        cannot_start("files.pack is not the one that was measured: build the project again");
    g_index = (const void *)copy;
    g_pack = address;
    g_pack_size = size;
    if (memcmp(g_index->magic, PACK_MAGIC, 8) || g_index->version != PACK_VERSION || g_index->chunk_size != PACK_CHUNK)
        cannot_start("files.pack has another version: build the project again");
}

static int compare(const struct pack_entry *e, const char *path, u32 length)
{
    u32 both = e->path_len < length ? e->path_len : length;
    int order = memcmp(pack_string(e->path), path, both);
    return order ? order : e->path_len < length ? -1 : e->path_len > length;
}

static u32 lower(const char *path, u32 length)
{
    u32 low = 0, high = g_index->entry_count;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (compare(pack_at(middle), path, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct pack_entry *pack_find(const char *path)
{
    u32 length = (u32)strlen(path), at = lower(path, length);
    return at < g_index->entry_count && !compare(pack_at(at), path, length) ? pack_at(at) : NULL;
}

bool pack_next_child(const char *dir, u32 *index, const struct pack_entry **e, const char **name, u32 *name_len)
{
    char prefix[PATH_ROOM + 1];
    u32 length = (u32)strlen(dir);
    if (length >= PATH_ROOM)
        return false;
    memcpy(prefix, dir, length);
    if (length != 1)
        prefix[length++] = '/';
    if (!*index)
        *index = lower(prefix, length);
    for (; *index < g_index->entry_count; (*index)++) {
        const struct pack_entry *one = pack_at(*index);
        const char *path = pack_string(one->path);
        if (one->path_len < length || memcmp(path, prefix, length))
            return false;
        bool deeper = one->path_len == length;
        for (u32 i = length; i < one->path_len && !deeper; i++)
            deeper = path[i] == '/';
        if (deeper)
            continue;
        *e = one;
        *name = path + length;
        *name_len = one->path_len - length;
        (*index)++;
        return true;
    }
    return false;
}

static bool chunk_ok(u64 chunk, const void *data, u64 size)
{
    u8 digest[32];
    sha256(data, size, digest);
    return !memcmp(digest, (const u8 *)g_index + g_index->chunks_off + 32 * chunk, 32);
}

static long chunk_copy(const struct pack_entry *e, u64 number, void *to, u64 size)
{
    u64 at = e->data_off + number * PACK_CHUNK;
    if (at > g_pack_size || size > g_pack_size - at)
        return -EIO;
    memcpy(to, (const void *)(g_pack + at), size);
    if (chunk_ok(e->first_chunk + number, to, size))
        return 0;
    memset(to, 0, size);
    say("strongroom: %s is not what was measured: the host changed it", pack_string(e->path));
    return -EIO;
}

long pack_read(const struct pack_entry *e, void *to, u64 size, u64 offset)
{
    u64 done = 0;
    if (offset >= e->size)
        return 0;
    size = min64(size, e->size - offset);
    while (done < size) {
        u64 number = (offset + done) / PACK_CHUNK, skip = (offset + done) % PACK_CHUNK;
        u64 length = min64(PACK_CHUNK, e->size - number * PACK_CHUNK), want = min64(length - skip, size - done);
        u64 chunk = e->first_chunk + number;
        if (number >= e->chunk_count)
            return -EIO;
        if (want == length) {
            long bad = chunk_copy(e, number, (u8 *)to + done, length);
            if (bad)
                return bad;
            done += want;
            continue;
        }
        u32 slot = 8, oldest = 0;
        for (u32 i = 0; i < 8; i++) {
            if (g_cache[i].data && g_cache[i].used && g_cache[i].chunk == chunk)
                slot = i;
            if (g_cache[i].used < g_cache[oldest].used)
                oldest = i;
        }
        if (slot == 8) {
            slot = oldest;
            g_cache[slot].used = 0;
            if (!g_cache[slot].data && !(g_cache[slot].data = (u8 *)kpages(PACK_CHUNK)))
                return -ENOMEM;
            long bad = chunk_copy(e, number, g_cache[slot].data, length);
            if (bad)
                return bad;
            g_cache[slot].chunk = chunk;
        }
        g_cache[slot].used = ++g_clock;
        memcpy((u8 *)to + done, g_cache[slot].data + skip, want);
        done += want;
    }
    return (long)done;
}
