// Attention of many tokens with bfloat16 activations: tensor cores. A block takes 64 tokens and one query head, a warp 16 of them, and walks
// over keys 64 at a time with an online softmax in registers. Keys of the next tile arrive while values are multiplied, values while
// scores are. Heads are padded with zeros to a width that the registers are cut for.
#include "common.cuh"
#include "attend.cuh"

#define TOKENS 64
#define KEYS 64
#define THREADS 128
#define LOG2_E 1.4426950408889634f

// Shared memory of a block of heads up to `width`: queries, keys, values; rows are 16 bytes longer, so that ldmatrix meets all banks.
template <int width> struct Tiles
{
    static const i32 stride = width + 8;
    bf16 *queries, *keys, *values;
};

// Cache rows of keys [begin, begin + KEYS): two tiles' are known at a time.
template <bool paged> inline void find_rows(const AttendParameters& p, const Run& run, i32* rows, i32 tile, i32 begin)
{
    for (i32 j = threadIdx.x; j < KEYS; j += THREADS)
        rows[tile % 2 * KEYS + j] = key_row<paged>(p, run, begin + j);
}

template <int width> inline void stage(bf16* target, const HeadRows& from, const i32* rows, i32 dimension)
{
    const i32 stride = Tiles<width>::stride;
    const bf16* base = (const bf16*)from.base;
    const bool bytes = is_bytes(from.kind), wide = dimension % 8 == 0 && ((u64)base & 15) == 0;
    for (i32 i = threadIdx.x; i < KEYS * width / 8; i += THREADS)
    {
        const i32 j = i / (width / 8), d = i % (width / 8) * 8, row = rows[j];
        bf16* to = target + j * stride + d;
        if (row >= 0 && wide && !bytes && d < dimension)
        {
            cp_async16(to, base + from.at(row, d));
            continue;
        }
        const float scale = row < 0 ? 1 : from.scale(row);
        if (row >= 0 && wide && d < dimension)
        {
            const uint2 v = load_act8(from.base + from.at(row, d));
            float x[8];
#pragma unroll
            for (i32 e = 0; e < 8; e++)
                x[e] = from_bytes(from.kind, v, e) * scale;
            store_bf16x8(to, x);
            continue;
        }
        for (i32 e = 0; e < 8; e++)
            to[e] = to_bf16(row < 0 || d + e >= dimension ? 0 : cached(from.base, from.kind, from.at(row, d + e), scale));
    }
}


template <bool paged, int width> inline void attend(const AttendParameters& p, const Run& run, i32* rows, const Tiles<width>& tiles)
{
    const Cache& c = p.cache;
    const i32 dimension = c.dimension, head = blockIdx.y, keyHead = head / (p.query / c.keyValue), stride = Tiles<width>::stride;
    const i32 columns = (p.query + 2 * c.keyValue) * dimension, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const i32 mine[2] = { warp * 16 + lane / 4, warp * 16 + lane / 4 + 8 }; // the rows whose scores this lane holds
    const HeadRows keys = head_rows<paged>(p, false, keyHead), values = head_rows<paged>(p, true, keyHead);
    const Reach all = reach(run);
    const i32 begin = all.first, end = all.last + 1;
    for (i32 i = threadIdx.x; i < TOKENS * width; i += THREADS)
    {
        const i32 t = i / width, d = i % width;
        tiles.queries[t * stride + d] = t < run.count && d < dimension ? p.qkv[(i64)(run.token + t) * columns + head * dimension + d] : bf16{ 0 };
    }
    find_rows<paged>(p, run, rows, 0, begin);
    __syncthreads();
    stage<width>(tiles.keys, keys, rows, dimension);
    cp_async_commit();
    stage<width>(tiles.values, values, rows, dimension);
    cp_async_commit();

    // Scores are taken to powers of two: a factor of log2(e) in the scale.
    const float scale = p.scale * LOG2_E;
    float sums[width / 8][4] = {}, highest[2] = { -INFINITY, -INFINITY }, total[2] = { 0, 0 };
    i32 limit[2], floor[2];
    for (i32 h = 0; h < 2; h++)
    {
        limit[h] = mine[h] < run.count ? run.limits[mine[h]] : -1;
        floor[h] = mine[h] < run.count ? run.floors[mine[h]] : 0;
    }
    for (i32 k = begin, tile = 0; k < end; k += KEYS, tile++)
    {
        const bool more = k + KEYS < end;
        cp_async_wait<1>();
        if (more)
            find_rows<paged>(p, run, rows, tile + 1, k + KEYS);
        __syncthreads();
        float s[KEYS / 8][4] = {};
#pragma unroll
        for (i32 d = 0; d < width; d += 16)
        {
            u32 a[4];
            ldmatrix_x4(a, tiles.queries + (warp * 16 + lane % 16) * stride + d + lane / 16 * 8);
#pragma unroll
            for (i32 j = 0; j < KEYS / 16; j++)
            {
                u32 b[4];
                ldmatrix_x4(b, tiles.keys + (16 * j + lane / 16 * 8 + lane % 8) * stride + d + lane / 8 % 2 * 8);
                mma_bf16(s[2 * j], a, b);
                mma_bf16(s[2 * j + 1], a, b + 2);
            }
        }
        __syncthreads(); // all have read the keys
        if (more)
            stage<width>(tiles.keys, keys, rows + (tile + 1) % 2 * KEYS, dimension);
        cp_async_commit();
#pragma unroll
        for (i32 j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (i32 e = 0; e < 4; e++)
                s[j][e] *= scale;
        if (p.softCap > 0)
        {
#pragma unroll
            for (i32 j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (i32 e = 0; e < 4; e++)
                    s[j][e] = capped(p.softCap * LOG2_E, s[j][e]);
        }
#pragma unroll
        for (i32 h = 0; h < 2; h++)
        {
            float now = highest[h];
#pragma unroll
            for (i32 j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (i32 e = 0; e < 2; e++)
                {
                    const i32 at = 8 * j + lane % 4 * 2 + e, key = k + at;
                    const bool seen = key >= floor[h] && key <= limit[h] && rows[tile % 2 * KEYS + at] >= 0;
                    float& x = s[j][2 * h + e];
                    x = seen ? x : -INFINITY;
                    now = fmaxf(now, x);
                }
            // A row lies in the four lanes that differ in their last two bits.
            now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
            now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
            const float base = now == -INFINITY ? 0 : now, factor = exp2f(highest[h] - base);
            float sum = 0;
#pragma unroll
            for (i32 j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (i32 e = 0; e < 2; e++)
                    sum += s[j][2 * h + e] = exp2f(s[j][2 * h + e] - base);
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            total[h] = total[h] * factor + sum;
            highest[h] = now;
#pragma unroll
            for (i32 j = 0; j < width / 8; j++)
            {
                sums[j][2 * h] *= factor;
                sums[j][2 * h + 1] *= factor;
            }
        }
        cp_async_wait<1>();
        __syncthreads();
#pragma unroll
        for (i32 j = 0; j < KEYS / 16; j++)
        {
            // Two neighbouring tiles of scores are, as they lie, the left operand of the next product.
            const u32 a[4] = { pack_bf16(s[2 * j][0], s[2 * j][1]), pack_bf16(s[2 * j][2], s[2 * j][3]), pack_bf16(s[2 * j + 1][0], s[2 * j + 1][1]), pack_bf16(s[2 * j + 1][2], s[2 * j + 1][3]) };
#pragma unroll
            for (i32 d = 0; d < width; d += 16)
            {
                u32 b[4];
                ldmatrix_x4_trans(b, tiles.values + (16 * j + lane / 8 % 2 * 8 + lane % 8) * stride + d + lane / 16 * 8);
                mma_bf16(sums[d / 8], a, b);
                mma_bf16(sums[d / 8 + 1], a, b + 2);
            }
        }
        __syncthreads(); // all have read the values
        if (more)
            stage<width>(tiles.values, values, rows + (tile + 1) % 2 * KEYS, dimension);
        cp_async_commit();
    }
    cp_async_wait<0>();
#pragma unroll
    for (i32 h = 0; h < 2; h++)
    {
        if (mine[h] >= run.count)
            continue;
        act* output = p.output + ((i64)(run.token + mine[h]) * p.query + head) * dimension;
#pragma unroll
        for (i32 j = 0; j < width / 8; j++)
#pragma unroll
            for (i32 e = 0; e < 2; e++)
            {
                const i32 d = 8 * j + lane % 4 * 2 + e;
                if (d < dimension)
                    output[d] = to_act(sums[j][2 * h + e] / total[h]);
            }
    }
}

#define ATTEND(name, paged, width) \
    KERNEL(name, AttendParameters, THREADS) \
    { \
        DYNAMIC_SHARED(memory); \
        SHARED(i32, integers, 2 * TOKENS + 2 * KEYS); \
        const i32 size = TOKENS * Tiles<width>::stride; \
        const Tiles<width> tiles = { (bf16*)memory, (bf16*)memory + size, (bf16*)memory + 2 * size }; \
        each_run<paged>(p, TOKENS, integers, integers + TOKENS, [&](const Run& run) { attend<paged, width>(p, run, integers + 2 * TOKENS, tiles); }); \
    }

ATTEND(attend_mma_64, true, 64)
ATTEND(attend_mma_128, true, 128)
ATTEND(attend_full_mma_64, false, 64)
ATTEND(attend_full_mma_128, false, 128)
