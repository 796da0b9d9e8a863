// The driver's entry points, as CUDA names them. Whatever a program may not rely on is late here: work runs when somebody waits for it, a
// copy from pinned memory reads what is there then. Kernels get their parameters as they were at the launch.
#include "emulator.h"
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <elf.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace
{
enum { PROGRAMMATIC_STREAM_SERIALIZATION = 6 };
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, UPDATE_FAILURE = 910 };

struct Function { std::string name; void (*entry)(const void*); const KernelInfo* info; int device; int most_dynamic = 48 << 10; };
struct Module { void* handle; int device; std::map<std::string, std::unique_ptr<Function>> functions; };
struct Operation { int kind; void* what; std::function<int()> run; }; // kind and what: to compare graphs by
struct Graph { std::vector<Operation> nodes; };
struct Stream { int device; std::deque<Operation> queue; std::unique_ptr<Graph> capture; };
struct Event { Stream* stream = nullptr; bool done = true; };

std::recursive_mutex gate;
const int devices = 2; // alike
bool initialized = false, context_lives[devices];
thread_local int current = -1; // whose context the thread has
std::map<uintptr_t, size_t> pinned;
std::string message; // of the last fault
std::vector<std::unique_ptr<Stream>> streams;
size_t memory_used = 0;
int driver_version = 12040, dependent_launches = 0;
std::map<uintptr_t, size_t> sizes;

bool is_pinned(const void* p)
{
    auto next = pinned.upper_bound((uintptr_t)p);
    return next != pinned.begin() && (uintptr_t)p < std::prev(next)->first + std::prev(next)->second;
}

int fault(const std::string& text)
{
    message = text;
    fprintf(stderr, "emulated CUDA: %s\n", text.c_str());
    return ILLEGAL_ADDRESS;
}

int run_first(Stream* s)
{
    Operation o = std::move(s->queue.front());
    s->queue.pop_front();
    memory_select(s->device);
    const int error = o.run();
    if (error)
        s->queue.clear();
    return error;
}

int drain(Stream* s)
{
    while (!s->queue.empty())
        if (int error = run_first(s))
            return error;
    return SUCCESS;
}

int drain_all()
{
    int error = SUCCESS;
    for (auto& s : streams)
        if (int e = drain(s.get()))
            error = e;
    return error;
}

int enqueue(Stream* s, Operation o)
{
    if (!s || s->device != current)
        return INVALID_HANDLE;
    if (s->capture)
        s->capture->nodes.push_back(std::move(o));
    else
        s->queue.push_back(std::move(o));
    return SUCCESS;
}

int enter()
{
    return !initialized ? NOT_INITIALIZED : current < 0 || !context_lives[current] ? INVALID_CONTEXT : SUCCESS;
}

// One caller at a time, with a context.
#define ENTER std::lock_guard<std::recursive_mutex> lock(gate); if (int error = enter()) return error
}

int emulated_capability = 90;

// For tests: what the device and the driver say they are; and launches so far that did not wait for the kernel before them to end.
extern "C" __attribute__((visibility("default"))) void emulator_pretend(int capability, int version) { emulated_capability = capability; driver_version = version; }
extern "C" __attribute__((visibility("default"))) int emulator_dependent_launches() { return dependent_launches; }

API cuInit(unsigned) { initialized = true; return SUCCESS; }
API cuDriverGetVersion(int* version) { *version = driver_version; return SUCCESS; }
API cuDeviceGetCount(int* count) { *count = devices; return initialized ? SUCCESS : NOT_INITIALIZED; }
API cuDeviceGet(int* device, int ordinal) { *device = ordinal; return (unsigned)ordinal < devices ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetName(char* name, int length, int) { snprintf(name, length, "emulated device"); return SUCCESS; }
API cuDeviceGetPCIBusId(char* id, int length, int device) { snprintf(id, length, "0000:%02x:00.0", device); return SUCCESS; }
API cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = (size_t)8 << 30; return SUCCESS; }

API cuDeviceGetAttribute(int* value, int attribute, int)
{
    switch (attribute)
    {
        case 8: *value = 48 << 10; break;
        case 13: *value = 1410000; break;
        case 16: *value = 4; break;
        case 36: *value = 1215000; break;
        case 37: *value = 5120; break;
        case 38: *value = 40 << 20; break;
        case 75: *value = emulated_capability / 10; break;
        case 76: *value = emulated_capability % 10; break;
        case 97: *value = 163 << 10; break;
        case 115: *value = 1; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void** context, int device) { context_lives[device] = true; *context = &context_lives[device]; return SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* context) { current = context ? (int)((bool*)context - context_lives) : -1; return SUCCESS; }
API cuCtxSynchronize() { ENTER; return drain_all(); }

API cuGetErrorName(int error, const char** name)
{
    static const std::map<int, const char*> names = { { 0, "CUDA_SUCCESS" }, { 1, "CUDA_ERROR_INVALID_VALUE" }, { 2, "CUDA_ERROR_OUT_OF_MEMORY" },
        { 3, "CUDA_ERROR_NOT_INITIALIZED" }, { 101, "CUDA_ERROR_INVALID_DEVICE" }, { 200, "CUDA_ERROR_INVALID_IMAGE" }, { 201, "CUDA_ERROR_INVALID_CONTEXT" },
        { 400, "CUDA_ERROR_INVALID_HANDLE" }, { 500, "CUDA_ERROR_NOT_FOUND" }, { 600, "CUDA_ERROR_NOT_READY" }, { 700, "CUDA_ERROR_ILLEGAL_ADDRESS" },
        { 900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" }, { 910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE" } };
    auto found = names.find(error);
    *name = found == names.end() ? nullptr : found->second;
    return found == names.end() ? INVALID_VALUE : SUCCESS;
}

API cuGetErrorString(int error, const char** text)
{
    *text = error == ILLEGAL_ADDRESS ? message.c_str() : nullptr;
    return *text ? SUCCESS : INVALID_VALUE;
}

int emulator_enqueue(void* stream, void* what, std::function<const char*()> run, int device)
{
    ENTER;
    const int before = current;
    current = device < 0 ? current : device;
    const int error = enqueue((Stream*)stream, { 9, what, [=] { const char* wrong = run(); return wrong ? fault(wrong) : (int)SUCCESS; } });
    current = before;
    return error;
}

int emulator_device_of(void* stream) { return ((Stream*)stream)->device; }

bool emulator_meet(void* stream, void* what)
{
    auto* s = (Stream*)stream;
    while (!s->queue.empty())
    {
        const bool met = s->queue.front().kind == 9 && s->queue.front().what == what;
        if (run_first(s))
            return false;
        if (met)
            return true;
    }
    return false;
}

// Modules.

API cuModuleLoadData(Module** module, const uint8_t* image)
{
    ENTER;
    if (memcmp(image, ELFMAG, SELFMAG) != 0)
        return INVALID_IMAGE;
    const auto* header = (const Elf64_Ehdr*)image;
    const size_t bytes = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize; // section headers come last
    char path[] = "/tmp/trimtab-kernel-XXXXXX";
    const int file = mkstemp(path);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes)
        return OUT_OF_MEMORY;
    close(file);
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    if (!handle)
    {
        fprintf(stderr, "emulated CUDA: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    if (auto* bind = (void (*)(Emulator*))dlsym(handle, "emulator_bind"))
        bind(emulator_first());
    *module = new Module { handle, current, {} };
    return SUCCESS;
}

API cuModuleUnload(Module* module)
{
    ENTER;
    const int error = drain_all();
    dlclose(module->handle);
    delete module;
    return error;
}

API cuModuleGetFunction(Function** function, Module* module, const char* name)
{
    ENTER;
    auto& found = module->functions[name];
    if (!found)
    {
        auto* entry = (void (*)(const void*))dlsym(module->handle, name);
        auto* info = (const KernelInfo*)dlsym(module->handle, (std::string(name) + "_info").c_str());
        if (!entry || !info)
            return NOT_FOUND;
        found.reset(new Function { name, entry, info, module->device });
    }
    *function = found.get();
    return SUCCESS;
}

API cuFuncGetAttribute(int* value, int attribute, Function* f)
{
    switch (attribute)
    {
        case 0: *value = f->info->threads; break;
        case 1: *value = 0; break;
        case 3: *value = 0; break;
        case 4: *value = 32; break;
        case 6: *value = 80; break;
        case 8: *value = f->most_dynamic; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

API cuFuncSetAttribute(Function* f, int attribute, int value)
{
    if (attribute != 8 || value > 163 << 10)
        return INVALID_VALUE;
    f->most_dynamic = value;
    return SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function*, int threads, size_t) { *blocks = 2048 / threads; return SUCCESS; }

struct LaunchAttribute { int id; alignas(8) int value; char rest[60]; };
struct LaunchConfig { unsigned grid[3], block[3], shared; Stream* stream; const LaunchAttribute* attributes; unsigned attribute_count; };
static_assert(sizeof(LaunchAttribute) == 72, "a union of 64 bytes behind a number");

API cuLaunchKernelEx(const LaunchConfig* c, Function* f, void** parameters, void** extra)
{
    ENTER;
    for (int i = 0; i < 3; i++)
        if (c->grid[i] == 0 || c->block[i] == 0 || (i > 0 && c->grid[i] > 65535))
            return INVALID_VALUE;
    if (c->block[0] * c->block[1] * c->block[2] > f->info->threads || (int)c->shared > f->most_dynamic || parameters || !extra)
        return INVALID_VALUE;
    if (f->device != current)
        return INVALID_HANDLE;
    // The attribute lets the kernel start before the one before it has ended; machine code for less than sm_90 would not wait for that.
    bool dependent = false;
    for (unsigned i = 0; i < c->attribute_count; i++)
        if (c->attributes[i].id != PROGRAMMATIC_STREAM_SERIALIZATION || f->info->architecture < 900)
            return INVALID_VALUE;
        else
            dependent = c->attributes[i].value != 0;
    const void* p = nullptr;
    size_t bytes = 0;
    for (void** e = extra; *e; e += 2)
        if (*e == (void*)1)
            p = e[1];
        else if (*e == (void*)2)
            bytes = *(size_t*)e[1];
    if (!p || bytes != f->info->parameters)
        return INVALID_VALUE;
    std::vector<uint8_t> copy((const uint8_t*)p, (const uint8_t*)p + bytes);
    const dim3 grid = { c->grid[0], c->grid[1], c->grid[2] }, block = { c->block[0], c->block[1], c->block[2] };
    const size_t dynamic = c->shared;
    return enqueue(c->stream, { 1, f, [=]
    {
        alignas(16) uint8_t aligned[4096];
        memcpy(aligned, copy.data(), copy.size());
        dependent_launches += dependent;
        // Whether it follows a kernel, its source does not know: it has to wait wherever it may have to.
        const char* wrong = run_grid(f->name.c_str(), f->entry, aligned, copy.size(), grid, block, dynamic, f->info->early && f->info->architecture >= 900);
        return wrong ? fault(wrong) : SUCCESS;
    } });
}

// Memory.

API cuMemGetInfo_v2(size_t* free, size_t* total) { ENTER; *total = (size_t)8 << 30; *free = *total - memory_used; return SUCCESS; }
API cuDeviceGetDefaultMemPool(void** pool, int) { *pool = (void*)&memory_used; return SUCCESS; }
API cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }

API cuMemAllocAsync(void** p, size_t bytes, Stream* s)
{
    ENTER;
    if (s->capture)
        return CAPTURE_UNSUPPORTED; // a GPU would make it the graph's; nothing here means that
    if (bytes == 0)
        return INVALID_VALUE;
    if (bytes + memory_used > (size_t)8 << 30 || !(*p = memory_allocate(bytes, current)))
        return OUT_OF_MEMORY;
    memory_used += sizes[(uintptr_t)*p] = bytes;
    return SUCCESS;
}

API cuMemFreeAsync(void* p, Stream* s)
{
    ENTER;
    if (s->capture)
        return CAPTURE_UNSUPPORTED;
    return enqueue(s, { 2, p, [=]
    {
        memory_used -= sizes[(uintptr_t)p];
        sizes.erase((uintptr_t)p);
        const char* wrong = memory_free(p);
        return wrong ? fault(wrong) : SUCCESS;
    } });
}

API cuMemHostAlloc(void** p, size_t bytes, unsigned)
{
    ENTER;
    *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    pinned[(uintptr_t)*p] = bytes;
    return SUCCESS;
}

API cuMemFreeHost(void* p)
{
    ENTER;
    const int error = drain_all();
    pinned.erase((uintptr_t)p);
    free(p);
    return error;
}

API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, Stream* s)
{
    ENTER;
    // Of pageable memory the driver takes a copy at once; pinned memory is read when the copy's turn comes.
    std::shared_ptr<std::vector<uint8_t>> taken;
    if (!is_pinned(from))
        taken = std::make_shared<std::vector<uint8_t>>((const uint8_t*)from, (const uint8_t*)from + bytes);
    return enqueue(s, { 3, to, [=]
    {
        if (!memory_holds(to, bytes))
            return fault("a copy to the device that is not within an allocation");
        memcpy(to, taken ? taken->data() : from, bytes);
        return (int)SUCCESS;
    } });
}

API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, Stream* s)
{
    ENTER;
    const int error = enqueue(s, { 4, to, [=]
    {
        if (!memory_holds(from, bytes))
            return fault("a copy from the device that is not within an allocation");
        memcpy(to, from, bytes);
        return (int)SUCCESS;
    } });
    return error || is_pinned(to) || s->capture ? error : drain(s);
}

API cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, Stream* s)
{
    ENTER;
    return enqueue(s, { 5, to, [=]
    {
        if (!memory_holds(from, bytes) || !memory_holds(to, bytes))
            return fault("a copy on the device that is not within allocations");
        memmove(to, from, bytes);
        return (int)SUCCESS;
    } });
}

API cuMemsetD8Async(void* to, uint8_t value, size_t bytes, Stream* s)
{
    ENTER;
    return enqueue(s, { 6, to, [=]
    {
        if (!memory_holds(to, bytes))
            return fault("a memset that is not within an allocation");
        memset(to, value, bytes);
        return (int)SUCCESS;
    } });
}

// Streams and events.

API cuStreamCreate(Stream** s, unsigned) { ENTER; streams.emplace_back(new Stream { current, {}, nullptr }); *s = streams.back().get(); return SUCCESS; }

API cuStreamDestroy_v2(Stream* s)
{
    ENTER;
    const int error = drain(s);
    for (auto i = streams.begin(); i != streams.end(); ++i)
        if (i->get() == s)
        {
            streams.erase(i);
            break;
        }
    return error;
}

API cuStreamSynchronize(Stream* s) { ENTER; return s->capture ? CAPTURE_UNSUPPORTED : drain(s); }

// Asked, a stream does a little of its work.
API cuStreamQuery(Stream* s)
{
    ENTER;
    if (s->capture)
        return CAPTURE_UNSUPPORTED;
    if (!s->queue.empty())
        if (int error = run_first(s))
            return error;
    return s->queue.empty() ? SUCCESS : NOT_READY;
}

API cuEventCreate(Event** e, unsigned) { ENTER; *e = new Event; return SUCCESS; }
API cuEventDestroy_v2(Event* e) { ENTER; const int error = drain_all(); delete e; return error; }

API cuEventRecord(Event* e, Stream* s)
{
    ENTER;
    e->stream = s;
    e->done = false;
    return enqueue(s, { 7, e, [=] { e->done = true; return (int)SUCCESS; } });
}

API cuStreamWaitEvent(Stream* s, Event* e, unsigned)
{
    ENTER;
    return enqueue(s, { 8, e, [=] { return e->done ? (int)SUCCESS : drain(e->stream); } });
}

API cuEventSynchronize(Event* e) { ENTER; return e->done ? SUCCESS : drain(e->stream); }
API cuEventQuery(Event* e) { ENTER; return e->done ? SUCCESS : NOT_READY; }
API cuEventElapsedTime(float* milliseconds, Event*, Event*) { *milliseconds = 0; return SUCCESS; }

// Graphs: recorded operations, launched again as they were recorded.

API cuStreamBeginCapture_v2(Stream* s, unsigned) { ENTER; s->capture.reset(new Graph); return SUCCESS; }
API cuStreamEndCapture(Stream* s, Graph** graph) { ENTER; *graph = s->capture.release(); return *graph ? SUCCESS : INVALID_VALUE; }
API cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) { ENTER; *executable = new Graph(*graph); return SUCCESS; }
API cuGraphExecDestroy(Graph* executable) { ENTER; const int error = drain_all(); delete executable; return error; }
API cuGraphDestroy(Graph* graph) { ENTER; delete graph; return SUCCESS; }

API cuGraphExecUpdate_v2(Graph* executable, Graph* graph, void*)
{
    ENTER;
    bool same = executable->nodes.size() == graph->nodes.size();
    for (size_t i = 0; same && i < graph->nodes.size(); i++)
        same = executable->nodes[i].kind == graph->nodes[i].kind;
    if (!same)
        return UPDATE_FAILURE;
    *executable = *graph;
    return SUCCESS;
}

API cuGraphLaunch(Graph* executable, Stream* s)
{
    ENTER;
    if (s->device != current)
        return INVALID_HANDLE;
    for (const Operation& o : executable->nodes)
        s->queue.push_back(o);
    return SUCCESS;
}
