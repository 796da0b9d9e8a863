// Included before a kernel's source when it is compiled for the emulated device: gives CUDA's words their meaning in C++.
#pragma once
#include <cmath>
#include <cstring>
#include "shared.h"

#define TRIMTAB_EMULATED 1

// Of the thread that runs the block: a register that nothing else uses here, and that all other code restores.
#if defined(__x86_64__)
register Emulator* emulator asm("r15");
extern "C" __attribute__((visibility("default"))) void emulator_bind(Emulator*) {}
#else
static Emulator* emulator;
extern "C" __attribute__((visibility("default"))) void emulator_bind(Emulator* e) { emulator = e; }
#endif

#define threadIdx (emulator->thread)
#define blockDim (emulator->threads)
#define blockIdx (emulator->block)
#define gridDim (emulator->blocks)

#define KERNEL_BODY(name, Parameters, early, most_threads, ...) \
    static void name##_body(const Parameters& p); \
    extern "C" __attribute__((visibility("default"))) void name(const void* q) { name##_body(*(const Parameters*)q); } \
    extern "C" __attribute__((visibility("default"))) const KernelInfo name##_info = { sizeof(Parameters), most_threads, __CUDA_ARCH__, early }; \
    static void name##_body(const Parameters& p)
#define KERNEL(name, Parameters, ...) KERNEL_BODY(name, Parameters, 0, __VA_ARGS__) // waits before anything else (common.cuh): there is nothing before it to look at
#define KERNEL_EARLY(name, Parameters, ...) KERNEL_BODY(name, Parameters, 1, __VA_ARGS__)

inline void dependency_wait() { emulator->dependency_wait(emulator); }
inline void prefetch(const void* p, int bytes) { emulator->prefetch(emulator, p, bytes); }

#define SHARED(type, name, count) type* const name = (type*)emulator->shared(emulator, __LINE__, sizeof(type) * (count))
#define DYNAMIC_SHARED(name) uint8_t* const name = emulator->dynamic_shared

#define __syncthreads() emulator->barrier(emulator, __LINE__)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };

inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }

template <class T> inline T lane_operand(const uint8_t* slots, unsigned lane) { T v; memcpy(&v, slots + 64 * lane, sizeof(T)); return v; }
inline unsigned emulated_lane() { return emulator->thread.x & 31; }

template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int d)
{
    return lane_operand<T>(emulator->exchange(emulator, mask, 1, &v, sizeof(T)), emulated_lane() ^ d);
}

template <class T> inline T __shfl_sync(unsigned mask, T v, int lane)
{
    return lane_operand<T>(emulator->exchange(emulator, mask, 2, &v, sizeof(T)), lane & 31);
}

template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned d)
{
    const unsigned lane = emulated_lane();
    return lane_operand<T>(emulator->exchange(emulator, mask, 8, &v, sizeof(T)), lane >= d ? lane - d : lane);
}

inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator->exchange(emulator, mask, 3, "", 1); }

inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    const uint8_t* slots = emulator->exchange(emulator, mask, 4, &predicate, 4);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && lane_operand<int>(slots, lane))
            bits |= 1u << lane;
    return bits;
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline unsigned atomicCAS(unsigned* p, unsigned expected, unsigned value)
{
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

template <class T> inline T atomicAdd(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }

inline void check_aligned(const void* p, int bytes)
{
    if ((uintptr_t)p % bytes)
        emulator->fail(emulator, "a misaligned vector access", p);
}

inline uint4 load16(const void* p)
{
    check_aligned(p, 16);
    return *(const uint4*)p;
}

inline uint4 load_act16(const void* p) { return load16(p); }

inline void store16(void* p, uint4 v)
{
    check_aligned(p, 16);
    *(uint4*)p = v;
}

inline uint2 load8(const void* p)
{
    check_aligned(p, 8);
    return *(const uint2*)p;
}

inline uint2 load_act8(const void* p) { return load8(p); }

inline void cp_async16(void* shared, const void* global)
{
    check_aligned(shared, 16);
    check_aligned(global, 16);
    emulator->copy(emulator, shared, global);
}

inline void cp_async16(void* shared, const void* global, bool inside)
{
    static const uint4 zeros = {};
    check_aligned(global, 16);
    cp_async16(shared, inside ? global : &zeros);
}

inline void cp_async_commit() { emulator->commit(emulator); }
template <int pending> inline void cp_async_wait() { emulator->wait(emulator, pending); }

// Lane l gets of tile i the elements (l / 4, l % 4 * 2) and the next; transposed: (l % 4 * 2, l / 4) and the one below.
inline void ldmatrix(unsigned* r, const void* row, bool transposed)
{
    check_aligned(row, 16);
    const unsigned lane = emulated_lane();
    const uint8_t* slots = emulator->exchange(emulator, 0xffffffffu, transposed ? 6 : 5, &row, sizeof(row));
    for (unsigned i = 0; i < 4; i++)
    {
        uint16_t e[2];
        for (unsigned h = 0; h < 2; h++)
        {
            const unsigned y = transposed ? lane % 4 * 2 + h : lane / 4, x = transposed ? lane / 4 : lane % 4 * 2 + h;
            e[h] = lane_operand<const uint16_t*>(slots, 8 * i + y)[x];
        }
        r[i] = e[0] | (unsigned)e[1] << 16;
    }
}

inline void ldmatrix_x4(unsigned* r, const void* row) { ldmatrix(r, row, false); }
inline void ldmatrix_x4_trans(unsigned* r, const void* row) { ldmatrix(r, row, true); }

inline float bf16_half(unsigned pair, unsigned high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); }

// mma.m16n8k16: of lane l, a holds rows l / 4 and l / 4 + 8, columns l % 4 * 2 and + 8; b the same of rows k and column l / 4.
inline void mma_bf16(float* d, const unsigned* a, const unsigned* b)
{
    struct { unsigned a[4], b[2]; } mine = { { a[0], a[1], a[2], a[3] }, { b[0], b[1] } };
    const unsigned lane = emulated_lane();
    const uint8_t* slots = emulator->exchange(emulator, 0xffffffffu, 7, &mine, sizeof(mine));
    for (unsigned e = 0; e < 4; e++)
    {
        const unsigned row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        double sum = d[e];
        for (unsigned k = 0; k < 16; k++)
        {
            const auto u = lane_operand<decltype(mine)>(slots, row % 8 * 4 + k % 8 / 2);
            const auto v = lane_operand<decltype(mine)>(slots, column * 4 + k % 8 / 2);
            sum += (double)bf16_half(u.a[row / 8 + k / 8 * 2], k & 1) * bf16_half(v.b[k / 8], k & 1);
        }
        d[e] = (float)sum;
    }
}

// The two roundings of common.cuh that are instructions on a GPU; declared again there as structs of u16.
#define EMULATED_CONVERSIONS \
    inline float to_float(f16 x) \
    { \
        const unsigned s = (x.bits & 0x8000u) << 16, e = x.bits >> 10 & 31, m = x.bits & 1023; \
        if (e == 31) return __uint_as_float(s | 0x7f800000u | m << 13); \
        if (e == 0) { const float v = m * 5.9604644775390625e-8f; return s ? -v : v; } \
        return __uint_as_float(s | (e + 112) << 23 | m << 13); \
    } \
    inline bf16 to_bf16(float x) \
    { \
        const unsigned b = __float_as_uint(x); \
        if ((b & 0x7fffffffu) > 0x7f800000u) return bf16{ (uint16_t)(b >> 16 | 0x40) }; \
        return bf16{ (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16) }; \
    } \
    inline u32 pack_bf16(float low, float high) { return to_bf16(low).bits | (u32)to_bf16(high).bits << 16; }
