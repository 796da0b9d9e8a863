// Device memory: every allocation has pages of its own, ends right before one that may not be touched, and is never used again when it
// was freed. What lies between its pages' start and its own is poisoned, and looked at when it is freed.
#include "emulator.h"
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <sys/mman.h>

namespace
{
const size_t page = 4096, kept = 1024;
const int poison = 0xff; // not a number, in every floating form

struct Allocation { uint8_t* begin; size_t mapped, bytes; bool freed, open; int device; };

std::recursive_mutex gate;
std::map<uintptr_t, Allocation> allocations; // by the first page
std::deque<uintptr_t> freed;
char written[256];
int selected = -1, wanted = -1;
unsigned changes = 0;

Allocation* find(const void* p)
{
    auto next = allocations.upper_bound((uintptr_t)p);
    if (next == allocations.begin())
        return nullptr;
    Allocation& a = std::prev(next)->second;
    return (uint8_t*)p < a.begin + a.mapped ? &a : nullptr;
}

uint8_t* first(const Allocation& a) { return a.begin + a.mapped - page - (a.bytes + 15) / 16 * 16; }

// Whether what lies between the guard pages may be touched.
void set_open(Allocation& a, bool open)
{
    if (a.freed || a.open == open)
        return;
    mprotect(a.begin + page, a.mapped - 2 * page, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    a.open = open;
}

bool is_selected(const Allocation& a) { return selected < 0 || a.device == selected; }
}

void memory_select(int device)
{
    std::lock_guard<std::recursive_mutex> lock(gate);
    if (device == wanted)
        return;
    wanted = device;
    // Closing memory costs more than most kernels: after a while, between two devices it is closed every sixteenth time.
    if (device >= 0 && ++changes > 1000 && changes % 16)
        device = -1;
    if (device == selected)
        return;
    selected = device;
    for (auto& a : allocations)
        set_open(a.second, is_selected(a.second));
}

void* memory_allocate(size_t bytes, int device)
{
    std::lock_guard<std::recursive_mutex> lock(gate);
    bytes = bytes ? bytes : 1;
    Allocation a = {};
    a.bytes = bytes;
    a.device = device;
    a.open = true;
    // A page before it that may not be touched, the data's, and one after.
    a.mapped = page + (bytes + page - 1) / page * page + page;
    void* m = mmap(nullptr, a.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return nullptr;
    a.begin = (uint8_t*)m;
    mprotect(a.begin, page, PROT_NONE);
    mprotect(a.begin + a.mapped - page, page, PROT_NONE);
    uint8_t *p = first(a), *data = a.begin + page, *end = a.begin + a.mapped - page;
    memset(data, poison, p - data);
    // Memory comes with whatever was in it: small allocations with poison, large ones with zeros, which cost nothing.
    memset(p, poison, bytes < (1 << 20) ? end - p : 0);
    memset(p + bytes, poison, end - p - bytes);
    set_open(allocations[(uintptr_t)a.begin] = a, is_selected(a));
    return p;
}

const char* memory_free(void* p)
{
    std::lock_guard<std::recursive_mutex> lock(gate);
    Allocation* a = find(p);
    if (!a || a->freed || first(*a) != p)
        return "what is freed is no allocation";
    set_open(*a, true);
    const char* result = nullptr;
    const uint8_t *data = a->begin + page, *end = a->begin + a->mapped - page;
    for (const uint8_t* q = data; q < end; q++)
        if (q == (uint8_t*)p)
            q += a->bytes - 1;
        else if (*q != poison)
        {
            snprintf(written, sizeof written, "an allocation of %zu bytes was written %td bytes from its start", a->bytes, q - (uint8_t*)p);
            result = written;
            break;
        }
    a->freed = true;
    mprotect(a->begin, a->mapped, PROT_NONE);
    madvise(a->begin, a->mapped, MADV_DONTNEED);
    freed.push_back((uintptr_t)a->begin);
    if (freed.size() > kept)
    {
        auto oldest = allocations.find(freed.front());
        munmap(oldest->second.begin, oldest->second.mapped);
        allocations.erase(oldest);
        freed.pop_front();
    }
    return result;
}

bool memory_holds(const void* p, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(gate);
    const Allocation* a = find(p);
    return a && !a->freed && is_selected(*a) && (uint8_t*)p >= first(*a) && (uint8_t*)p + bytes <= first(*a) + a->bytes;
}

bool memory_knows(const void* p)
{
    std::lock_guard<std::recursive_mutex> lock(gate);
    return find(p) != nullptr;
}

const char* memory_at(const void* p, char* text, size_t size)
{
    const Allocation* a = find(p);
    if (!a)
        snprintf(text, size, "where nothing was allocated");
    else
        snprintf(text, size, "%td bytes from the start of an allocation of %zu bytes%s", (uint8_t*)p - first(*a), a->bytes,
            a->freed ? " that was freed" : a->open ? "" : " of another device");
    return text;
}
