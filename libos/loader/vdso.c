/* A function of the vDSO by its name. */
#include <elf.h>
#include <string.h>
#include <sys/auxv.h>

#include "loader.h"

void *vdso_symbol(const char *name)
{
    const uint8_t *base = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    if (!base)
        return NULL;
    const Elf64_Ehdr *eh = (const void *)base;
    const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);
    const Elf64_Dyn *dyn = NULL;
    uint64_t slide = 0;
    for (int i = 0; i < eh->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD && !slide)
            slide = (uint64_t)base + ph[i].p_offset - ph[i].p_vaddr;
        if (ph[i].p_type == PT_DYNAMIC)
            dyn = (const void *)(base + ph[i].p_offset);
    }
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
        void *at = (void *)(slide + dyn->d_un.d_ptr);
        if (dyn->d_tag == DT_SYMTAB) symbols = at;
        if (dyn->d_tag == DT_STRTAB) strings = at;
        if (dyn->d_tag == DT_HASH) hash = at;
    }
    for (uint32_t i = 0; symbols && strings && hash && i < hash[1]; i++)
        if (!strcmp(strings + symbols[i].st_name, name) && symbols[i].st_shndx)
            return (void *)(slide + symbols[i].st_value);
    return NULL;
}
