// Runs blocks: one after another on the calling thread, a block's threads as fibers. A fiber runs until it waits for others; every second
// block runs its threads backwards, so that a missing barrier meets poison in one of the orders.
#include "emulator.h"
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <vector>

#if defined(__x86_64__)
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");
#else
#include <ucontext.h>
#endif

Emulator emulator_state;

namespace
{
const size_t stack_bytes = 64 << 10, page = 4096, most_threads = 1024, shared_limit = 163 << 10;

struct Copy { void* shared; const void* global; };

struct Fiber
{
    void* sp;
    uint3 id;
    uint8_t* stack; // its end
    bool waited; // in the pass before
    std::vector<Copy> copies;
    std::vector<size_t> groups; // ends of committed groups in copies
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};

struct Warp
{
    unsigned ready, arrived, lanes;
    int site, generation;
    uint8_t slots[2][32][64];
};

struct SharedArray { void (*kernel)(const void*); int line; size_t bytes; uint8_t* at; uint8_t* begin; size_t mapped; };

Fiber fibers[most_threads];
Warp warps[most_threads / 32];
std::vector<SharedArray> arrays; // of all kernels so far: mapping them costs more than a small launch
uint8_t* stacks = nullptr;
unsigned count, warp_count, current, waiting, left;
int barrier_line;
bool backwards;
void (*entry)(const void*);
const void* parameters;
void* main_sp;
#if !defined(__x86_64__)
ucontext_t main_context;
#endif
sigjmp_buf escape;
volatile bool running = false, before_wait = false; // before_wait: in the pass that ends where a thread waits for the kernel before

// In that pass a kernel's pointers into device memory have another bit, and lead to where nothing is.
const uintptr_t out_of_reach = (uintptr_t)1 << 46;

const void* real(const void* p)
{
    const void* q = (const void*)((uintptr_t)p ^ out_of_reach);
    return before_wait && memory_knows(q) ? q : p;
}

pthread_t runner;
struct sigaction previous_segv, previous_bus;
char failure[1024];
const char* kernel_name;

void switch_to(void** from, unsigned next)
{
    const unsigned old = current;
    current = next;
    emulator_state.thread = fibers[next].id;
#if defined(__x86_64__)
    (void)old;
    emulator_switch(from, fibers[next].sp);
#else
    swapcontext(from == &main_sp ? &main_context : &fibers[old].context, &fibers[next].context);
#endif
}

[[noreturn]] void give_up() { siglongjmp(escape, 1); }

void describe(const char* format, ...)
{
    const uint3 b = emulator_state.block, t = emulator_state.thread;
    int n = snprintf(failure, sizeof failure, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", kernel_name, b.x, b.y, b.z, t.x, t.y, t.z);
    va_list list;
    va_start(list, format);
    vsnprintf(failure + n, sizeof failure - n, format, list);
    va_end(list);
}

// The next fiber that can run, or none.
int next_ready()
{
    unsigned w = current / 32;
    for (unsigned i = 0; i < warp_count; i++)
    {
        if (unsigned ready = warps[w].ready)
        {
            const unsigned lane = backwards ? 31 - __builtin_clz(ready) : __builtin_ctz(ready);
            warps[w].ready &= ~(1u << lane);
            return w * 32 + lane;
        }
        w = backwards ? (w == 0 ? warp_count - 1 : w - 1) : (w + 1 == warp_count ? 0 : w + 1);
    }
    return -1;
}

// The running fiber cannot go on: another one runs.
void let_others()
{
    const int next = next_ready();
    if (next < 0)
    {
        if (waiting > 0)
            describe("a divergent barrier (line %d): %u of %u threads wait at it, %u have left the kernel", barrier_line, waiting, count, left);
        else
            describe("a divergent warp operation: not all lanes of the warp take part");
        give_up();
    }
    switch_to(&fibers[current].sp, next);
}

void finish()
{
    Fiber& f = fibers[current];
    if (before_wait && !f.waited)
    {
        describe("the kernel ends without dependency_wait(): the next one would take its end for that of the kernel before, too");
        give_up();
    }
    if (!f.copies.empty() && !before_wait)
        for (const Copy& c : f.copies)
            memcpy(c.shared, c.global, 16); // a GPU lets them arrive whenever it likes
    left++;
    if (left < count)
    {
        const int next = next_ready();
        if (next < 0)
        {
            if (waiting > 0)
                describe("a divergent barrier (line %d): %u of %u threads wait at it, %u have left the kernel", barrier_line, waiting, count, left);
            else
                describe("a divergent warp operation: a lane has left the kernel");
            give_up();
        }
        switch_to(&f.sp, next);
    }
#if defined(__x86_64__)
    emulator_switch(&f.sp, main_sp);
#else
    swapcontext(&f.context, &main_context);
#endif
}

void dependency_wait()
{
    fibers[current].waited = true;
    if (before_wait)
        finish(); // and does not come back
}

void prefetch(const void* p, int bytes)
{
    char where[256];
    if (bytes < 0 || !memory_holds(real(p), bytes))
    {
        describe("a prefetch of %d bytes from %p, %s", bytes, real(p), memory_at(real(p), where, sizeof where));
        give_up();
    }
}

void body()
{
    entry(parameters);
    finish();
}

void barrier(int line)
{
    if (waiting == 0)
        barrier_line = line;
    else if (barrier_line != line)
    {
        describe("a divergent barrier: some threads wait in line %d, this one in line %d", barrier_line, line);
        give_up();
    }
    if (left > 0)
    {
        describe("a divergent barrier (line %d): %u threads have left the kernel", line, left);
        give_up();
    }
    if (++waiting < count)
        return let_others();
    waiting = 0;
    for (unsigned w = 0; w < warp_count; w++)
        warps[w].ready = warps[w].lanes;
    warps[current / 32].ready &= ~(1u << current % 32);
}

const uint8_t* exchange(unsigned mask, int site, const void* operands, size_t bytes)
{
    Warp& w = warps[current / 32];
    const unsigned lane = current % 32;
    if (mask != w.lanes)
    {
        describe("a warp operation of lanes %08x in a warp of %08x", mask, w.lanes);
        give_up();
    }
    if (w.arrived == 0)
        w.site = site;
    else if (w.site != site)
    {
        describe("a divergent warp operation: other lanes wait in one of kind %d, this one in kind %d", w.site, site);
        give_up();
    }
    const int generation = w.generation;
    memcpy(w.slots[generation][lane], operands, bytes);
    w.arrived |= 1u << lane;
    if (w.arrived == mask)
    {
        w.arrived = 0;
        w.generation ^= 1; // a lane can be one operation ahead of those who still read this one, not two
        w.ready |= mask & ~(1u << lane);
    }
    else
        let_others();
    return &w.slots[generation][0][0];
}

uint8_t* guarded(size_t bytes, uint8_t** begin, size_t* mapped)
{
    *mapped = (bytes + page - 1) / page * page + page;
    *begin = (uint8_t*)mmap(nullptr, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(*begin + *mapped - page, page, PROT_NONE);
    return *begin + *mapped - page - (bytes + 15) / 16 * 16;
}

void* shared(int line, size_t bytes)
{
    for (const SharedArray& a : arrays)
        if (a.kernel == entry && a.line == line && a.bytes == bytes)
            return a.at;
    SharedArray a = { entry, line, bytes, nullptr, nullptr, 0 };
    a.at = guarded(bytes, &a.begin, &a.mapped);
    memset(a.at, 0xff, (bytes + 15) / 16 * 16);
    arrays.push_back(a);
    return a.at;
}

void fail(const char* what, const void* address)
{
    describe("%s at %p", what, address);
    give_up();
}

void copy(void* to, const void* from)
{
    if (before_wait && real(from) != from)
        fail("a copy to shared memory before dependency_wait()", real(from));
    fibers[current].copies.push_back({ to, from });
}

void commit() { fibers[current].groups.push_back(fibers[current].copies.size()); }

void wait(int pending)
{
    Fiber& f = fibers[current];
    if (f.groups.size() <= (size_t)pending)
        return;
    const size_t groups = f.groups.size() - pending, end = f.groups[groups - 1];
    for (size_t i = 0; i < end; i++)
        memcpy(f.copies[i].shared, f.copies[i].global, 16);
    f.copies.erase(f.copies.begin(), f.copies.begin() + end);
    f.groups.erase(f.groups.begin(), f.groups.begin() + groups);
    for (size_t& g : f.groups)
        g -= end;
}

void on_fault(int signal, siginfo_t* info, void* context)
{
    if (running && pthread_equal(pthread_self(), runner))
    {
        for (const SharedArray& a : arrays)
            if ((uint8_t*)info->si_addr >= a.begin && (uint8_t*)info->si_addr < a.begin + a.mapped)
            {
                describe("%zd bytes past the start of a shared array of %zu bytes (line %d)", (uint8_t*)info->si_addr - a.at, a.bytes, a.line);
                give_up();
            }
        char where[256];
        const void* at = real(info->si_addr);
        describe("access to %p%s, %s", at, at == info->si_addr ? "" : " before dependency_wait()", memory_at(at, where, sizeof where));
        give_up();
    }
    const struct sigaction& next = signal == SIGSEGV ? previous_segv : previous_bus;
    if (next.sa_flags & SA_SIGINFO)
        next.sa_sigaction(signal, info, context);
    else if (next.sa_handler == SIG_DFL)
    {
        sigaction(signal, &next, nullptr); // and again, as if this one had not been
    }
    else if (next.sa_handler != SIG_IGN)
        next.sa_handler(signal);
}

void prepare()
{
    if (stacks)
        return;
    stacks = (uint8_t*)mmap(nullptr, most_threads * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t i = 0; i < most_threads; i++)
    {
        mprotect(stacks + i * stack_bytes, page, PROT_NONE);
        fibers[i].stack = stacks + (i + 1) * stack_bytes;
    }
    emulator_state.barrier = barrier;
    emulator_state.exchange = exchange;
    emulator_state.shared = shared;
    emulator_state.fail = fail;
    emulator_state.copy = copy;
    emulator_state.commit = commit;
    emulator_state.wait = wait;
    emulator_state.dependency_wait = dependency_wait;
    emulator_state.prefetch = prefetch;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
}

void start(unsigned i)
{
    Fiber& f = fibers[i];
    f.waited = false;
    f.copies.clear();
    f.groups.clear();
#if defined(__x86_64__)
    // At its first instruction a function finds its stack 8 past a multiple of 16.
    void** sp = (void**)(f.stack - 16);
    *--sp = nullptr;
    *--sp = (void*)body;
    for (int r = 0; r < 6; r++)
        *--sp = nullptr;
    f.sp = sp;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack - stack_bytes + page;
    f.context.uc_stack.ss_size = stack_bytes - page;
    makecontext(&f.context, body, 0);
#endif
}

void run_block()
{
    for (unsigned w = 0; w < warp_count; w++)
    {
        const unsigned lanes = count - w * 32 < 32 ? count - w * 32 : 32;
        warps[w].lanes = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
        warps[w].ready = warps[w].lanes;
        warps[w].arrived = 0;
        warps[w].generation = 0;
    }
    for (unsigned i = 0; i < count; i++)
        start(i);
    waiting = left = 0;
    current = backwards ? count - 1 : 0;
    switch_to(&main_sp, next_ready());
}

const int dynamic_line = -1; // the place of dynamic memory among the shared arrays

void run_blocks(dim3 blocks, size_t dynamic_bytes)
{
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++)
            {
                emulator_state.block = { x, y, z };
                backwards = (x + y + z) & 1;
                size_t used = 0;
                for (const SharedArray& a : arrays) // those of this kernel and launch are poisoned
                    if (a.kernel == entry && (a.line != dynamic_line || a.bytes == dynamic_bytes) && !before_wait)
                        memset(a.at, 0xff, (a.bytes + 15) / 16 * 16), used += a.bytes;
                if (used > shared_limit)
                {
                    describe("%zu bytes of shared memory", used);
                    give_up();
                }
                run_block();
            }
}
}

const char* run_grid(const char* name, void (*kernel)(const void*), const void* p, size_t parameter_bytes, dim3 blocks, dim3 threads, size_t dynamic_bytes, bool waits)
{
    prepare();
    kernel_name = name;
    entry = kernel;
    parameters = p;
    count = threads.x * threads.y * threads.z;
    warp_count = (count + 31) / 32;
    for (unsigned i = 0; i < count; i++)
        fibers[i].id = { i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y };
    emulator_state.threads = threads;
    emulator_state.blocks = blocks;
    emulator_state.dynamic_shared = dynamic_bytes ? (uint8_t*)shared(dynamic_line, dynamic_bytes) : nullptr;
    runner = pthread_self();
    std::vector<uint64_t> distant((parameter_bytes + 15) / 16 * 2 + 1); // the parameters, their pointers into device memory out of reach
    memcpy(distant.data(), p, parameter_bytes);
    for (uint64_t& word : distant)
        if (memory_knows((const void*)word))
            word ^= out_of_reach;
    const char* result = nullptr;
    if (sigsetjmp(escape, 1) == 0)
    {
        running = true;
        if (waits)
        {
            before_wait = true;
            parameters = distant.data();
            run_blocks(blocks, dynamic_bytes);
            before_wait = false;
            parameters = p;
        }
        run_blocks(blocks, dynamic_bytes);
    }
    else
        result = failure;
    running = before_wait = false;
    return result;
}
