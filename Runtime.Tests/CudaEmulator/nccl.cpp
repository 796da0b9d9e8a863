// NCCL's entry points, for ranks of one process that one thread speaks for. A collective happens when one of its streams comes to it: the
// others' work before theirs is done then. Sums are rounded to the type after each rank, in the ranks' order.
#include "emulator.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace
{
enum { SUCCESS = 0, UNHANDLED_CUDA_ERROR = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, FLOAT = 7, BFLOAT16 = 9, SUM = 0 };

struct Call { const void* send; void* receive; size_t count; int type; bool gather; };
struct Comm;
struct Clique { std::vector<Comm*> ranks; std::vector<std::unique_ptr<Call>> met; bool meeting = false; int left; };
struct Comm { std::shared_ptr<Clique> clique; int rank, device; void* stream = nullptr; };

int depth = 0;
std::vector<Comm*> group;

size_t size_of(int type) { return type == FLOAT ? 4 : 2; }

float load(const void* p, int type, size_t i)
{
    if (type == FLOAT)
        return ((const float*)p)[i];
    const uint32_t bits = (uint32_t)((const uint16_t*)p)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

float rounded(float x, int type)
{
    if (type == FLOAT || std::isnan(x))
        return x;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, 4);
    return x;
}

void store(void* p, int type, size_t i, float x)
{
    if (type == FLOAT)
        ((float*)p)[i] = x;
    else
    {
        uint32_t bits;
        memcpy(&bits, &x, 4);
        ((uint16_t*)p)[i] = (uint16_t)(bits >> 16);
    }
}

// A rank's stream has come to its call: the first to come fetches the others.
const char* meet(Comm* comm, Call call)
{
    Clique& c = *comm->clique;
    c.met[comm->rank].reset(new Call(call));
    if (c.meeting)
        return nullptr;
    c.meeting = true;
    const char* wrong = nullptr;
    for (Comm* other : c.ranks)
        if (other != comm && !wrong && (!other->stream || !emulator_meet(other->stream, other)))
            wrong = "a collective of which one rank does not come: it would never end";
    c.meeting = false;
    memory_select(-1);
    for (const auto& other : c.met)
        if (!wrong && (other->count != call.count || other->type != call.type || other->gather != call.gather))
            wrong = "a collective whose ranks disagree on what it is";
    for (const auto& other : c.met)
        if (!wrong && (!memory_holds(other->send, call.count * size_of(call.type)) || !memory_holds(other->receive, (call.gather ? c.ranks.size() : 1) * call.count * size_of(call.type))))
            wrong = "a collective of memory that is not within an allocation";
    const size_t bytes = call.count * size_of(call.type);
    for (size_t r = 0; !wrong && call.gather && r < c.met.size(); r++)
        for (const auto& other : c.met)
            memcpy((uint8_t*)other->receive + r * bytes, c.met[r]->send, bytes);
    for (size_t i = 0; !wrong && !call.gather && i < call.count; i++)
    {
        float sum = load(c.met[0]->send, call.type, i);
        for (size_t r = 1; r < c.met.size(); r++)
            sum = rounded(sum + load(c.met[r]->send, call.type, i), call.type);
        for (const auto& other : c.met)
            store(other->receive, call.type, i, sum);
    }
    for (auto& one : c.met)
        one.reset();
    memory_select(comm->device);
    return wrong;
}
}

extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int result)
{
    return result == SUCCESS ? "no error" : result == INVALID_ARGUMENT ? "invalid argument" : result == INVALID_USAGE ? "invalid usage" : "unhandled cuda error";
}

API ncclCommInitAll(Comm** comms, int count, const int* devices)
{
    auto clique = std::make_shared<Clique>();
    clique->met.resize(count);
    clique->left = count;
    for (int r = 0; r < count; r++)
    {
        if (devices[r] < 0 || devices[r] > 1)
            return INVALID_ARGUMENT;
        for (int other = 0; other < r; other++)
            if (devices[other] == devices[r])
                return INVALID_USAGE; // as NCCL has it since 2.5
        clique->ranks.push_back(comms[r] = new Comm { clique, r, devices[r] });
    }
    return SUCCESS;
}

API ncclCommDestroy(Comm* comm)
{
    if (--comm->clique->left == 0)
        for (Comm* one : std::vector<Comm*>(comm->clique->ranks))
            delete one;
    return SUCCESS;
}

API ncclCommAbort(Comm* comm) { return ncclCommDestroy(comm); }
API ncclCommGetAsyncError(Comm*, int* result) { *result = SUCCESS; return SUCCESS; }

API ncclGroupStart()
{
    if (depth++ == 0)
        group.clear();
    return SUCCESS;
}

API ncclGroupEnd()
{
    if (depth == 0)
        return INVALID_USAGE;
    if (--depth > 0 || group.empty())
        return SUCCESS;
    // One thread that speaks for some ranks alone would wait for the others for ever.
    for (Comm* one : group[0]->clique->ranks)
        if (std::count(group.begin(), group.end(), one) != std::count(group.begin(), group.end(), group[0]))
            return INVALID_USAGE;
    return SUCCESS;
}

static int collective(Comm* comm, void* stream, Call call)
{
    if (depth == 0 && comm->clique->ranks.size() > 1)
        return INVALID_USAGE;
    if ((call.type != FLOAT && call.type != BFLOAT16) || emulator_device_of(stream) != comm->device)
        return INVALID_ARGUMENT;
    group.push_back(comm);
    comm->stream = stream;
    return emulator_enqueue(stream, comm, [=] { return meet(comm, call); }, comm->device) ? UNHANDLED_CUDA_ERROR : SUCCESS;
}

API ncclAllReduce(const void* send, void* receive, size_t count, int type, int operation, Comm* comm, void* stream)
{
    return operation != SUM ? (int)INVALID_ARGUMENT : collective(comm, stream, { send, receive, count, type, false });
}

API ncclAllGather(const void* send, void* receive, size_t count, int type, Comm* comm, void* stream)
{
    return collective(comm, stream, { send, receive, count, type, true });
}
