// Attention of many tokens: a block takes 16 tokens and one query head and walks over keys 32 at a time, keeping highest score, sum and
// weighted values as it goes (online softmax). Paged: tokens of one sequence that stand together walk together, each to its own position.
// Full: an image's rows look at all of its rows.
#include "common.cuh"
#include "attend.cuh"

#define TOKENS 16
#define KEYS 32
#define THREADS 128

// The first key's place and how to reach the others: pages, or the rows of the image itself.
template <bool paged> struct Source
{
    const AttendParameters& p;
    i32 sequence, head, first; // first: of an image, its first row

    // Keys or values [begin, begin + count) to shared memory, KEYS x (dimension + 1); -1 in rows for what is not there.
    inline void stage(float* tile, i32* rows, bool values, i32 begin, i32 count) const
    {
        const Cache& c = p.cache;
        const i32 dimension = c.dimension;
        for (i32 i = threadIdx.x; i < KEYS * dimension; i += THREADS)
        {
            const i32 j = i / dimension, d = i % dimension;
            float x = 0;
            if (j < count)
            {
                if (paged)
                {
                    const i32 row = rows[j];
                    if (row >= 0)
                        x = cached(values ? c.values : c.keys, c.kind, ((i64)row * c.keyValue + head) * dimension + d,
                            c.kind == CACHE_U8 ? c.scales[((i64)row * 2 + (values ? 1 : 0)) * c.keyValue + head] : 1);
                }
                else
                {
                    const i32 columns = (p.query + 2 * c.keyValue) * dimension;
                    x = to_float(p.qkv[(i64)(first + begin + j) * columns + (p.query + (values ? c.keyValue : 0) + head) * dimension + d]);
                }
            }
            tile[j * (dimension + 1) + d] = x;
        }
    }
};

// Tokens [token, token + count), all of one sequence; limits[t] and floors[t]: the last and first position that each sees.
template <bool paged> inline void attend(const AttendParameters& p, i32 token, i32 count, i32 sequence, i32 image,
    float* memory, i32* rows, i32* limits, i32* floors, float* highest, float* total, float* factor)
{
    const Cache& c = p.cache;
    const i32 dimension = c.dimension, head = blockIdx.y, group = p.query / c.keyValue, columns = (p.query + 2 * c.keyValue) * dimension;
    float* queries = memory;                                 // [TOKENS, dimension]
    float* sums = queries + TOKENS * dimension;              // [TOKENS, dimension]
    float* tile = sums + TOKENS * dimension;                 // [KEYS, dimension + 1]
    float* weights = tile + KEYS * (dimension + 1);          // [TOKENS, KEYS + 1]
    const Source<paged> source = { p, sequence, head / group, image };
    __syncthreads(); // limits are set, and a run before this one is done with memory
    for (i32 i = threadIdx.x; i < count * dimension; i += THREADS)
    {
        queries[i] = to_float(p.qkv[(i64)(token + i / dimension) * columns + head * dimension + i % dimension]);
        sums[i] = 0;
    }
    for (i32 t = threadIdx.x; t < count; t += THREADS)
        highest[t] = -INFINITY, total[t] = 0;
    i32 begin = floors[0], end = limits[0] + 1;
    for (i32 t = 1; t < count; t++)
        begin = least(begin, floors[t]), end = most(end, limits[t] + 1);
    for (i32 k = begin; k < end; k += KEYS)
    {
        const i32 keys = least(KEYS, end - k);
        __syncthreads();
        if (paged)
        {
            for (i32 j = threadIdx.x; j < keys; j += THREADS)
            {
                bool seen = false; // pages behind every window are given back, so none but a seen position is looked up
                for (i32 t = 0; t < count; t++)
                    seen |= k + j >= floors[t] && k + j <= limits[t];
                rows[j] = seen ? cache_row(p, sequence, k + j) : -1;
            }
            __syncthreads();
        }
        source.stage(tile, rows, false, k, keys);
        __syncthreads();
        for (i32 i = threadIdx.x; i < count * KEYS; i += THREADS)
        {
            const i32 t = i / KEYS, j = i % KEYS;
            float s = -INFINITY;
            if (j < keys && k + j >= floors[t] && k + j <= limits[t] && (!paged || rows[j] >= 0))
            {
                s = 0;
                const float* q = queries + t * dimension;
                const float* key = tile + j * (dimension + 1);
                for (i32 d = 0; d < dimension; d++)
                    s = fmaf(q[d], key[d], s);
                s *= p.scale;
            }
            weights[t * (KEYS + 1) + j] = s;
        }
        __syncthreads();
        for (i32 t = threadIdx.x; t < count; t += THREADS)
        {
            float* w = weights + t * (KEYS + 1);
            float most_now = highest[t], sum = 0;
            for (i32 j = 0; j < KEYS; j++)
                most_now = fmaxf(most_now, w[j]);
            for (i32 j = 0; j < KEYS; j++)
                sum += w[j] = most_now == -INFINITY ? 0 : expf(w[j] - most_now);
            factor[t] = most_now == -INFINITY ? 1 : expf(highest[t] - most_now);
            total[t] = total[t] * factor[t] + sum;
            highest[t] = most_now;
        }
        source.stage(tile, rows, true, k, keys); // keys are no longer read; weights are not of the tile
        __syncthreads();
        for (i32 i = threadIdx.x; i < count * dimension; i += THREADS)
        {
            const i32 t = i / dimension, d = i % dimension;
            const float* w = weights + t * (KEYS + 1);
            float sum = sums[i] * factor[t];
            for (i32 j = 0; j < keys; j++)
                sum = fmaf(w[j], tile[j * (dimension + 1) + d], sum);
            sums[i] = sum;
        }
    }
    __syncthreads();
    for (i32 i = threadIdx.x; i < count * dimension; i += THREADS)
        p.output[(i64)(token + i / dimension) * p.query * dimension + head * dimension + i % dimension] = to_act(sums[i] / total[i / dimension]);
}

KERNEL(attend_tile, AttendParameters, THREADS)
{
    DYNAMIC_SHARED(memory);
    SHARED(i32, rows, KEYS);
    SHARED(i32, limits, TOKENS);
    SHARED(i32, floors, TOKENS);
    SHARED(float, highest, TOKENS);
    SHARED(float, total, TOKENS);
    SHARED(float, factor, TOKENS);
    const i32 first = blockIdx.x * TOKENS, end = least(first + TOKENS, p.tokens);
    for (i32 token = first; token < end;)
    {
        const i32 sequence = p.sequence[token];
        i32 count = 0;
        while (token + count < end && p.sequence[token + count] == sequence && token_position(p, token + count, threadIdx.x == 0) >= 0)
            count++;
        if (count == 0)
        {
            token++;
            continue;
        }
        __syncthreads();
        for (i32 t = threadIdx.x; t < count; t += THREADS)
        {
            limits[t] = p.position[token + t];
            floors[t] = first_position(p, limits[t]);
        }
        attend<true>(p, token, count, sequence, 0, (float*)memory, rows, limits, floors, highest, total, factor);
        token += count;
    }
}

KERNEL(attend_full, AttendParameters, THREADS)
{
    DYNAMIC_SHARED(memory);
    SHARED(i32, rows, KEYS);
    SHARED(i32, limits, TOKENS);
    SHARED(i32, floors, TOKENS);
    SHARED(float, highest, TOKENS);
    SHARED(float, total, TOKENS);
    SHARED(float, factor, TOKENS);
    const i32 image = blockIdx.z * p.length, token = image + blockIdx.x * TOKENS, count = least(TOKENS, image + p.length - token);
    for (i32 t = threadIdx.x; t < count; t += THREADS)
    {
        limits[t] = p.length - 1;
        floors[t] = 0;
    }
    attend<false>(p, token, count, 0, image, (float*)memory, rows, limits, floors, highest, total, factor);
}
