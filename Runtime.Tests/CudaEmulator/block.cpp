// Runs blocks: a grid's on as many threads as there are processors, a block's threads as fibers of one of them. A fiber runs until it waits for
// others; every second block runs its threads backwards, so that a missing barrier meets poison in one of the orders.
#include "emulator.h"
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unordered_map>
#include <vector>

extern "C" void emulator_finish(Emulator* e);

#if defined(__x86_64__)
extern "C" void emulator_switch(void** from, void* to);
extern "C" void emulator_begin();
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
.globl emulator_begin
.type emulator_begin,@function
emulator_begin:
    movq %r13, %rdi
    call *%r12
    movq %r15, %rdi
    call emulator_finish
    ud2
.size emulator_begin,.-emulator_begin
)");
#else
#include <ucontext.h>
#endif

namespace
{
const size_t stack_bytes = 64 << 10, page = 4096, most_threads = 1024, shared_limit = 163 << 10;
const int dynamic_line = -1; // the place of dynamic memory among the shared arrays
const uintptr_t out_of_reach = (uintptr_t)1 << 46; // before its wait, a kernel's pointers into device memory have another bit, and lead to where nothing is

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

struct SharedArray { int line; size_t bytes; uint8_t* at; uint8_t* begin; size_t mapped; };

// A launch.
struct Job
{
    const char* name;
    void (*entry)(const void*);
    const void* parameters;
    dim3 blocks, threads;
    size_t dynamic_bytes;
    bool before_wait; // in the pass that ends where a thread waits for the kernel before
    std::atomic<size_t> next; // block
    std::atomic<bool> failed;
};

// A thread that runs blocks; kernels know it as their Emulator.
struct Worker : Emulator
{
    Fiber fibers[most_threads];
    Warp warps[most_threads / 32];
    std::unordered_map<void (*)(const void*), std::vector<SharedArray>> kernels; // mapping their arrays costs more than a small launch
    std::vector<SharedArray>* arrays;
    const Job* job;
    unsigned count, warp_count, current, waiting, left;
    int barrier_line;
    bool backwards, before_wait;
    void* main_sp;
#if !defined(__x86_64__)
    ucontext_t main_context;
#endif
    sigjmp_buf escape;
    char failure[1024];

    Worker();
};

__attribute__((tls_model("initial-exec"))) thread_local Worker* running = nullptr; // whose block this thread runs now
struct sigaction previous_segv, previous_bus;

Worker& of(Emulator* e) { return *static_cast<Worker*>(e); }

const void* real(const Worker& w, const void* p)
{
    const void* q = (const void*)((uintptr_t)p ^ out_of_reach);
    return w.before_wait && memory_knows(q) ? q : p;
}

void switch_to(Worker& w, void** from, unsigned next)
{
    const unsigned old = w.current;
    w.current = next;
    w.thread = w.fibers[next].id;
#if defined(__x86_64__)
    (void)old;
    emulator_switch(from, w.fibers[next].sp);
#else
    swapcontext(from == &w.main_sp ? &w.main_context : &w.fibers[old].context, &w.fibers[next].context);
#endif
}

[[noreturn]] void give_up(Worker& w) { siglongjmp(w.escape, 1); }

void describe(Worker& w, const char* format, ...)
{
    const uint3 b = w.block, t = w.thread;
    int n = snprintf(w.failure, sizeof w.failure, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", w.job->name, b.x, b.y, b.z, t.x, t.y, t.z);
    va_list list;
    va_start(list, format);
    vsnprintf(w.failure + n, sizeof w.failure - n, format, list);
    va_end(list);
}

// The next fiber that can run, or none.
int next_ready(Worker& k)
{
    unsigned w = k.current / 32;
    for (unsigned i = 0; i < k.warp_count; i++)
    {
        if (unsigned ready = k.warps[w].ready)
        {
            const unsigned lane = k.backwards ? 31 - __builtin_clz(ready) : __builtin_ctz(ready);
            k.warps[w].ready &= ~(1u << lane);
            return w * 32 + lane;
        }
        w = k.backwards ? (w == 0 ? k.warp_count - 1 : w - 1) : (w + 1 == k.warp_count ? 0 : w + 1);
    }
    return -1;
}

// The next fiber of a block of which one cannot go on.
unsigned other(Worker& w, const char* alone)
{
    const int next = next_ready(w);
    if (next >= 0)
        return next;
    if (w.waiting > 0)
        describe(w, "a divergent barrier (line %d): %u of %u threads wait at it, %u have left the kernel", w.barrier_line, w.waiting, w.count, w.left);
    else
        describe(w, "a divergent warp operation: %s", alone);
    give_up(w);
}

// The running fiber cannot go on: another one runs.
void let_others(Worker& w)
{
    const unsigned next = other(w, "not all lanes of the warp take part");
    switch_to(w, &w.fibers[w.current].sp, next);
}

void finish(Worker& w)
{
    Fiber& f = w.fibers[w.current];
    if (w.before_wait && !f.waited)
    {
        describe(w, "the kernel ends without dependency_wait(): the next one would take its end for that of the kernel before, too");
        give_up(w);
    }
    if (!f.copies.empty() && !w.before_wait)
        for (const Copy& c : f.copies)
            memcpy(c.shared, c.global, 16); // a GPU lets them arrive whenever it likes
    if (++w.left < w.count)
        switch_to(w, &f.sp, other(w, "a lane has left the kernel"));
#if defined(__x86_64__)
    emulator_switch(&f.sp, w.main_sp);
#else
    swapcontext(&f.context, &w.main_context);
#endif
}

void dependency_wait(Emulator* e)
{
    Worker& w = of(e);
    w.fibers[w.current].waited = true;
    if (w.before_wait)
        finish(w); // and does not come back
}

void prefetch(Emulator* e, const void* p, int bytes)
{
    Worker& w = of(e);
    char where[256];
    if (bytes >= 0 && memory_holds(real(w, p), bytes))
        return;
    describe(w, "a prefetch of %d bytes from %p, %s", bytes, real(w, p), memory_at(real(w, p), where, sizeof where));
    give_up(w);
}

void barrier(Emulator* e, int line)
{
    Worker& w = of(e);
    if (w.waiting == 0)
        w.barrier_line = line;
    else if (w.barrier_line != line)
    {
        describe(w, "a divergent barrier: some threads wait in line %d, this one in line %d", w.barrier_line, line);
        give_up(w);
    }
    if (w.left > 0)
    {
        describe(w, "a divergent barrier (line %d): %u threads have left the kernel", line, w.left);
        give_up(w);
    }
    if (++w.waiting < w.count)
        return let_others(w);
    w.waiting = 0;
    for (unsigned i = 0; i < w.warp_count; i++)
        w.warps[i].ready = w.warps[i].lanes;
    w.warps[w.current / 32].ready &= ~(1u << w.current % 32);
}

const uint8_t* exchange(Emulator* e, unsigned mask, int site, const void* operands, size_t bytes)
{
    Worker& k = of(e);
    Warp& w = k.warps[k.current / 32];
    const unsigned lane = k.current % 32;
    if (mask != w.lanes)
    {
        describe(k, "a warp operation of lanes %08x in a warp of %08x", mask, w.lanes);
        give_up(k);
    }
    if (w.arrived == 0)
        w.site = site;
    else if (w.site != site)
    {
        describe(k, "a divergent warp operation: other lanes wait in one of kind %d, this one in kind %d", w.site, site);
        give_up(k);
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
        let_others(k);
    return &w.slots[generation][0][0];
}

uint8_t* guarded(size_t bytes, uint8_t** begin, size_t* mapped)
{
    *mapped = (bytes + page - 1) / page * page + page;
    *begin = (uint8_t*)mmap(nullptr, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(*begin + *mapped - page, page, PROT_NONE);
    return *begin + *mapped - page - (bytes + 15) / 16 * 16;
}

void* shared(Emulator* e, int line, size_t bytes)
{
    Worker& w = of(e);
    for (const SharedArray& a : *w.arrays)
        if (a.line == line && a.bytes == bytes)
            return a.at;
    SharedArray a = { line, bytes, nullptr, nullptr, 0 };
    a.at = guarded(bytes, &a.begin, &a.mapped);
    memset(a.at, 0xff, (bytes + 15) / 16 * 16);
    w.arrays->push_back(a);
    return a.at;
}

void fail(Emulator* e, const char* what, const void* address)
{
    describe(of(e), "%s at %p", what, address);
    give_up(of(e));
}

void copy(Emulator* e, void* to, const void* from)
{
    Worker& w = of(e);
    if (w.before_wait && real(w, from) != from)
        fail(e, "a copy to shared memory before dependency_wait()", real(w, from));
    w.fibers[w.current].copies.push_back({ to, from });
}

void commit(Emulator* e)
{
    Fiber& f = of(e).fibers[of(e).current];
    f.groups.push_back(f.copies.size());
}

void wait(Emulator* e, int pending)
{
    Fiber& f = of(e).fibers[of(e).current];
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
    if (Worker* w = running)
    {
        for (const SharedArray& a : *w->arrays)
            if ((uint8_t*)info->si_addr >= a.begin && (uint8_t*)info->si_addr < a.begin + a.mapped)
            {
                describe(*w, "%zd bytes past the start of a shared array of %zu bytes (line %d)", (uint8_t*)info->si_addr - a.at, a.bytes, a.line);
                give_up(*w);
            }
        char where[256];
        const void* at = real(*w, info->si_addr);
        describe(*w, "access to %p%s, %s", at, at == info->si_addr ? "" : " before dependency_wait()", memory_at(at, where, sizeof where));
        give_up(*w);
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

Worker::Worker()
{
    auto* stacks = (uint8_t*)mmap(nullptr, most_threads * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t i = 0; i < most_threads; i++)
    {
        mprotect(stacks + i * stack_bytes, page, PROT_NONE);
        fibers[i].stack = stacks + (i + 1) * stack_bytes;
    }
    Emulator::barrier = ::barrier;
    Emulator::exchange = ::exchange;
    Emulator::shared = ::shared;
    Emulator::fail = ::fail;
    Emulator::copy = ::copy;
    Emulator::commit = ::commit;
    Emulator::wait = ::wait;
    Emulator::dependency_wait = ::dependency_wait;
    Emulator::prefetch = ::prefetch;
}

void start(Worker& w, unsigned i)
{
    Fiber& f = w.fibers[i];
    f.waited = false;
    f.copies.clear();
    f.groups.clear();
#if defined(__x86_64__)
    // Where emulator_begin finds the kernel, its parameters and the worker; its stack begins at a multiple of 16.
    void** sp = (void**)(f.stack - 16);
    *--sp = (void*)emulator_begin;
    *--sp = nullptr; // rbp, rbx
    *--sp = nullptr;
    *--sp = (void*)w.job->entry;
    *--sp = const_cast<void*>(w.job->parameters);
    *--sp = nullptr;
    *--sp = static_cast<Emulator*>(&w);
    f.sp = sp;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack - stack_bytes + page;
    f.context.uc_stack.ss_size = stack_bytes - page;
    makecontext(&f.context, (void (*)())+[] { running->job->entry(running->job->parameters); finish(*running); }, 0);
#endif
}

void run_block(Worker& k)
{
    for (unsigned w = 0; w < k.warp_count; w++)
    {
        const unsigned lanes = k.count - w * 32 < 32 ? k.count - w * 32 : 32;
        k.warps[w].lanes = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
        k.warps[w].ready = k.warps[w].lanes;
        k.warps[w].arrived = 0;
        k.warps[w].generation = 0;
    }
    for (unsigned i = 0; i < k.count; i++)
        start(k, i);
    k.waiting = k.left = 0;
    k.current = k.backwards ? k.count - 1 : 0;
    switch_to(k, &k.main_sp, next_ready(k));
}

// Runs blocks until there are no more, or one failed.
void run_blocks(Worker& w, Job& job)
{
    w.job = &job;
    w.before_wait = job.before_wait;
    w.threads = job.threads;
    w.blocks = job.blocks;
    w.count = job.threads.x * job.threads.y * job.threads.z;
    w.warp_count = (w.count + 31) / 32;
    for (unsigned i = 0; i < w.count; i++)
        w.fibers[i].id = { i % job.threads.x, i / job.threads.x % job.threads.y, i / job.threads.x / job.threads.y };
    w.arrays = &w.kernels[job.entry];
    w.dynamic_shared = job.dynamic_bytes ? (uint8_t*)shared(&w, dynamic_line, job.dynamic_bytes) : nullptr;
    const size_t total = (size_t)job.blocks.x * job.blocks.y * job.blocks.z;
    if (sigsetjmp(w.escape, 1) == 0)
    {
        running = &w;
        for (size_t i; !job.failed && (i = job.next++) < total;)
        {
            w.block = { (unsigned)(i % job.blocks.x), (unsigned)(i / job.blocks.x % job.blocks.y), (unsigned)(i / job.blocks.x / job.blocks.y) };
            w.backwards = (w.block.x + w.block.y + w.block.z) & 1;
            size_t used = 0;
            for (const SharedArray& a : *w.arrays) // those of this kernel and launch are poisoned
                if ((a.line != dynamic_line || a.bytes == job.dynamic_bytes) && !job.before_wait)
                    memset(a.at, 0xff, (a.bytes + 15) / 16 * 16), used += a.bytes;
            if (used > shared_limit)
            {
                describe(w, "%zu bytes of shared memory", used);
                give_up(w);
            }
            run_block(w);
        }
        w.failure[0] = 0;
    }
    else
        job.failed = true;
    running = nullptr;
}

// The caller and its helpers. A helper takes part where it comes in time; the caller waits for those who do.
class Pool
{
public:
    Pool()
    {
#if defined(__x86_64__)
        const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, 4u);
#else
        const unsigned threads = 1; // kernels know one worker there
#endif
        for (unsigned i = 0; i < threads; i++)
            workers.emplace_back(new Worker);
        for (unsigned i = 1; i < threads; i++)
            std::thread([this, i] { help(*workers[i]); }).detach();
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &previous_segv);
        sigaction(SIGBUS, &action, &previous_bus);
    }

    // Null, or what one of the blocks did wrong.
    const char* run(Job& job)
    {
        const size_t total = (size_t)job.blocks.x * job.blocks.y * job.blocks.z;
        job.next = 0;
        job.failed = false;
        const bool shared = workers.size() > 1 && total > 1 && total * job.threads.x * job.threads.y * job.threads.z >= 2048;
        if (shared)
        {
            std::lock_guard<std::mutex> lock(gate);
            open = &job;
            opened++;
            for (auto& w : workers)
                w->failure[0] = 0;
            called.notify_all();
        }
        run_blocks(*workers[0], job);
        if (shared)
        {
            std::unique_lock<std::mutex> lock(gate);
            open = nullptr;
            left.wait(lock, [this] { return busy == 0; });
        }
        if (job.failed)
            for (auto& w : workers)
                if (w->failure[0])
                    return w->failure;
        return nullptr;
    }

    Emulator* first() { return workers[0].get(); }

private:
    void help(Worker& w)
    {
        sigset_t all; // signals are the runtime's threads' affair, but for faults
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        pthread_sigmask(SIG_SETMASK, &all, nullptr);
        size_t seen = 0;
        std::unique_lock<std::mutex> lock(gate);
        for (;;)
        {
            called.wait(lock, [&] { return open && opened != seen; });
            seen = opened;
            Job& job = *open;
            busy++;
            lock.unlock();
            run_blocks(w, job);
            lock.lock();
            if (--busy == 0)
                left.notify_all();
        }
    }

    std::vector<std::unique_ptr<Worker>> workers;
    std::mutex gate;
    std::condition_variable called, left;
    Job* open = nullptr;
    size_t opened = 0;
    unsigned busy = 0;
};

Pool& pool()
{
    static Pool* const one = new Pool; // its threads outlive everything
    return *one;
}
}

extern "C" void emulator_finish(Emulator* e) { finish(of(e)); }

Emulator* emulator_first() { return pool().first(); }

const char* run_grid(const char* name, void (*kernel)(const void*), const void* p, size_t parameter_bytes, dim3 blocks, dim3 threads, size_t dynamic_bytes, bool waits)
{
    if (waits)
    {
        std::vector<uint64_t> distant((parameter_bytes + 15) / 16 * 2 + 1); // the parameters, their pointers into device memory out of reach
        memcpy(distant.data(), p, parameter_bytes);
        for (uint64_t& word : distant)
            if (memory_knows((const void*)word))
                word ^= out_of_reach;
        Job before = { name, kernel, distant.data(), blocks, threads, dynamic_bytes, true, {}, {} };
        if (const char* wrong = pool().run(before))
            return wrong;
    }
    Job job = { name, kernel, p, blocks, threads, dynamic_bytes, false, {}, {} };
    return pool().run(job);
}
