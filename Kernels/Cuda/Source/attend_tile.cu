// Attention of many tokens: a block takes 16 tokens and one query head and walks over keys 32 at a time, keeping highest score, sum and
// weighted values as it goes (online softmax). Paged: tokens of one sequence that stand together walk together, each to its own position.
// Full: an image's rows look at all of its rows.
#include "common.cuh"
#include "attend.cuh"

#define TOKENS 16
#define KEYS 32
#define THREADS 128

// Keys or values of the rows that are named, as floats; zeros where none is.
inline void stage(float* tile, const i32* rows, const HeadRows& from, i32 dimension)
{
    for (i32 i = threadIdx.x; i < KEYS * dimension; i += THREADS)
    {
        const i32 j = i / dimension, d = i % dimension, row = rows[j];
        tile[j * (dimension + 1) + d] = row < 0 ? 0 : cached(from.base, from.kind, from.at(row, d), from.scale(row));
    }
}

struct Softmax { float *highest, *total, *factor; }; // [TOKENS] each

template <bool paged> inline void attend(const AttendParameters& p, const Run& run, float* memory, i32* rows, const Softmax& state)
{
    const i32 dimension = p.cache.dimension, head = blockIdx.y, keyHead = head / (p.query / p.cache.keyValue), columns = (p.query + 2 * p.cache.keyValue) * dimension;
    float* queries = memory;                                 // [TOKENS, dimension]
    float* sums = queries + TOKENS * dimension;              // [TOKENS, dimension]
    float* tile = sums + TOKENS * dimension;                 // [KEYS, dimension + 1]
    float* weights = tile + KEYS * (dimension + 1);          // [TOKENS, KEYS + 1]
    const HeadRows keys = head_rows<paged>(p, false, keyHead), values = head_rows<paged>(p, true, keyHead);
    for (i32 i = threadIdx.x; i < run.count * dimension; i += THREADS)
    {
        queries[i] = to_float(p.qkv[(i64)(run.token + i / dimension) * columns + head * dimension + i % dimension]);
        sums[i] = 0;
    }
    for (i32 t = threadIdx.x; t < run.count; t += THREADS)
        state.highest[t] = -INFINITY, state.total[t] = 0;
    const Reach all = reach(run);
    for (i32 k = all.first; k <= all.last; k += KEYS)
    {
        __syncthreads();
        for (i32 j = threadIdx.x; j < KEYS; j += THREADS)
            rows[j] = key_row<paged>(p, run, k + j);
        __syncthreads();
        stage(tile, rows, keys, dimension);
        __syncthreads();
        for (i32 i = threadIdx.x; i < run.count * KEYS; i += THREADS)
        {
            const i32 t = i / KEYS, j = i % KEYS;
            float s = -INFINITY;
            if (k + j >= run.floors[t] && k + j <= run.limits[t] && rows[j] >= 0)
            {
                s = 0;
                const float* q = queries + t * dimension;
                const float* key = tile + j * (dimension + 1);
                for (i32 d = 0; d < dimension; d++)
                    s = fmaf(q[d], key[d], s);
                s *= p.scale;
                if (p.softCap > 0)
                    s = capped(p.softCap, s);
            }
            weights[t * (KEYS + 1) + j] = s;
        }
        __syncthreads();
        for (i32 t = threadIdx.x; t < run.count; t += THREADS)
        {
            float* w = weights + t * (KEYS + 1);
            float now = state.highest[t], sum = 0;
            for (i32 j = 0; j < KEYS; j++)
                now = fmaxf(now, w[j]);
            for (i32 j = 0; j < KEYS; j++)
                sum += w[j] = now == -INFINITY ? 0 : expf(w[j] - now);
            state.factor[t] = now == -INFINITY ? 1 : expf(state.highest[t] - now);
            state.total[t] = state.total[t] * state.factor[t] + sum;
            state.highest[t] = now;
        }
        stage(tile, rows, values, dimension); // keys are no longer read; weights are not of the tile
        __syncthreads();
        for (i32 i = threadIdx.x; i < run.count * dimension; i += THREADS)
        {
            const i32 t = i / dimension, d = i % dimension;
            const float* w = weights + t * (KEYS + 1);
            float sum = sums[i] * state.factor[t];
            for (i32 j = 0; j < KEYS; j++)
                sum = fmaf(w[j], tile[j * (dimension + 1) + d], sum);
            sums[i] = sum;
        }
    }
    __syncthreads();
    for (i32 i = threadIdx.x; i < run.count * dimension; i += THREADS)
        p.output[(i64)(run.token + i / dimension) * p.query * dimension + head * dimension + i % dimension] = to_act(sums[i] / state.total[i / dimension]);
}

template <bool paged> inline void attend_block(const AttendParameters& p, u8* memory)
{
    SHARED(i32, integers, 2 * TOKENS + KEYS);
    SHARED(float, floats, 3 * TOKENS);
    const Softmax state = { floats, floats + TOKENS, floats + 2 * TOKENS };
    each_run<paged>(p, TOKENS, integers, integers + TOKENS, [&](const Run& run) { attend<paged>(p, run, (float*)memory, integers + 2 * TOKENS, state); });
}

KERNEL(attend_tile, AttendParameters, THREADS)
{
    DYNAMIC_SHARED(memory);
    attend_block<true>(p, memory);
}

KERNEL(attend_full, AttendParameters, THREADS)
{
    DYNAMIC_SHARED(memory);
    attend_block<false>(p, memory);
}
