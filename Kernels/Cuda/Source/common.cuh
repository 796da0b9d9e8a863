// What every kernel builds on. No toolkit header is included, so that NVRTC needs no include path.
//
// A kernel is KERNEL(name, Parameters, threads) { ... }: it takes one struct by value, `p`, and runs in blocks of at most `threads`.
//
// From sm_90 on a kernel's blocks may start before the kernel queued before it has ended (programmatic dependent launch; the host says when,
// CudaDevice.Launch). So the first thing a KERNEL does is to wait until that one has ended and what it wrote can be seen: all it does itself is
// then in the same order as without. A KERNEL_EARLY is for what may come before that: it calls dependency_wait() itself, in every thread, and
// touches no device memory before but by prefetch(). Since no grid can end before its own wait is over, the end of the kernel before means
// the end of all that were queued earlier: reused buffers, scratch memory and the status word are as safe as in a stream without it.
// Every kernel lets the next one start as soon as all its own blocks have: whatever room those leave, they do not need.
//
// Shared memory is declared by SHARED(type, name, count) or DYNAMIC_SHARED(name), never by __shared__: the emulated
// device puts each such array before a page that may not be touched.
// Sums that matter are written as fmaf; the compiler fuses nothing by itself (--fmad=false), so a result does not depend on the target.

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

#ifndef TRIMTAB_EMULATED

#if __CUDA_ARCH__ >= 900
inline void dependency_launch() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
inline void dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Has whole 16 bytes of a range brought to the L2 cache; one thread asks for all of it. It reads nothing, so that it may come before the wait.
inline void prefetch(const void* p, i32 bytes)
{
    const u64 first = ((u64)p + 15) & ~15ull, end = ((u64)p + bytes) & ~15ull;
    if (first < end)
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(first), "r"((u32)(end - first)) : "memory");
}
#else
inline void dependency_launch() {}
inline void dependency_wait() {}
inline void prefetch(const void*, i32) {}
#endif

#define KERNEL_BODY(name, Parameters, wait, ...) \
    __forceinline__ void name##_body(const Parameters& p); \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) name(const __grid_constant__ Parameters p) { dependency_launch(); wait; name##_body(p); } \
    __forceinline__ void name##_body(const Parameters& p)
#define KERNEL(name, Parameters, ...) /* threads, and, if the compiler is to fit so many, blocks a multiprocessor */ \
    KERNEL_BODY(name, Parameters, dependency_wait(), __VA_ARGS__)
#define KERNEL_EARLY(name, Parameters, ...) KERNEL_BODY(name, Parameters, , __VA_ARGS__)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]

inline float to_float(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
inline bf16 to_bf16(float x) { bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }

inline u32 pack_bf16(float low, float high) { u32 y; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y; }

// 16 bytes of weights, which no kernel writes: the compiler may take these loads above the wait, and their cache does not see what others write.
inline uint4 load16(const void* p)
{
    uint4 v;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

inline uint2 load8(const void* p)
{
    uint2 v;
    asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

// 16 and 8 bytes of anything else: ordinary loads, which the wait holds back.
inline uint4 load_act16(const void* p) { return *(const uint4*)p; }
inline uint2 load_act8(const void* p) { return *(const uint2*)p; }

inline void store16(void* p, uint4 v) { *(uint4*)p = v; }

inline u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, in flight until cp_async_wait.
inline void cp_async16(void* shared, const void* global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_address(shared)), "l"(global) : "memory");
}

// The same; zeros instead where not `inside`.
inline void cp_async16(void* shared, const void* global, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(shared_address(shared)), "l"(global), "r"(inside ? 16 : 0) : "memory");
}

inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the newest `pending` groups have arrived.
template <int pending> inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory"); }

// Four 8x8 tiles of bf16; lanes 8 i to 8 i + 7 name the rows of tile i.
inline void ldmatrix_x4(u32* r, const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

inline void ldmatrix_x4_trans(u32* r, const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d[16, 8] += a[16, 16] . b[16, 8], bf16 with float sums.
inline void mma_bf16(float* d, const u32* a, const u32* b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

EMULATED_CONVERSIONS

#endif

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// An E4M3 number over 256: its bits, moved by one, are those of a binary16 that is so much smaller. Not of its NaN.
inline float e4m3_over_256(u32 byte) { return to_float(f16{ (u16)((byte & 0x80) << 8 | (byte & 0x7f) << 7) }); }

// Eight floats, rounded, to 16 bytes.
inline void store_bf16x8(bf16* target, const float* v)
{
    const uint4 u = { pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]) };
    store16(target, u);
}

// The element type of activations: a build of a kernel is for one.
#ifdef ACT_BF16
typedef bf16 act;
inline act to_act(float x) { return to_bf16(x); }
#else
typedef float act;
inline act to_act(float x) { return x; }
#endif

template <class T> inline T least(T a, T b) { return a < b ? a : b; }
template <class T> inline T most(T a, T b) { return a > b ? a : b; }
inline i32 ceil_div(i32 a, i32 b) { return (a + b - 1) / b; }

// Sums and maxima of a warp, in every lane; the order is the lanes' alone.
inline float warp_sum(float v)
{
    for (i32 d = 16; d > 0; d >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}

inline float warp_max(float v)
{
    for (i32 d = 16; d > 0; d >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}

// A sum over the block, in every thread; scratch has a place for each warp. The block's threads are whole warps.
inline float block_sum(float v, float* scratch)
{
    v = warp_sum(v);
    __syncthreads(); // whoever still reads what scratch held before
    if ((threadIdx.x & 31) == 0)
        scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    float sum = 0;
    for (u32 w = 0; w < blockDim.x >> 5; w++)
        sum += scratch[w];
    return sum;
}

inline float block_max(float v, float* scratch)
{
    v = warp_max(v);
    __syncthreads();
    if ((threadIdx.x & 31) == 0)
        scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    float most = scratch[0];
    for (u32 w = 1; w < blockDim.x >> 5; w++)
        most = fmaxf(most, scratch[w]);
    return most;
}

// What went wrong first, for the host to say at its next wait: numbers that lie in device memory are checked where they are read.
struct Status { u32 code; i32 value, count, extra; };

enum StatusCode
{
    EMBED_ROW = 1, EMBED_FEATURE = 2, TAKE_ROW = 3, STORE_ROW = 4, STEER_SLOT = 5, CAPTURE_SLOT = 6, SEQUENCE = 7, POSITION = 8, PAGE = 9, SPAN = 10,
    ADDED_ROW = 11, BLEND_ROW = 12, ROUTER_SCORE = 13, DRAW_EDIT = 14,
};

inline void report(Status* status, u32 code, i32 value, i32 count, i32 extra = 0)
{
    if (atomicCAS(&status->code, 0u, code) == 0)
    {
        status->value = value;
        status->count = count;
        status->extra = extra;
    }
}

// Eight activations from column k on, zeros beyond the row's end. Wide loads where the row allows them.
inline bool wide_rows(const act* base, i32 columns) { return ((u64)base & 15) == 0 && columns % (16 / (i32)sizeof(act)) == 0; }

// Eight of them that lie on 16 bytes.
inline void load_wide8(const act* p, float* x)
{
#ifdef ACT_BF16
    uint4 v = load_act16(p);
    const u32 w[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (i32 i = 0; i < 4; i++)
    {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
#else
    uint4 a = load_act16(p), b = load_act16(p + 4);
    x[0] = __uint_as_float(a.x), x[1] = __uint_as_float(a.y), x[2] = __uint_as_float(a.z), x[3] = __uint_as_float(a.w);
    x[4] = __uint_as_float(b.x), x[5] = __uint_as_float(b.y), x[6] = __uint_as_float(b.z), x[7] = __uint_as_float(b.w);
#endif
}

inline void load_act8(const act* row, i32 k, i32 columns, bool wide, float* x)
{
    if (wide && k + 8 <= columns)
        return load_wide8(row + k, x);
#pragma unroll
    for (i32 i = 0; i < 8; i++)
        x[i] = k + i < columns ? to_float(row[k + i]) : 0.0f;
}
