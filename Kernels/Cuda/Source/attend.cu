// AttendPaged for few tokens: flash-decoding. A block takes 256 positions of one token and one key head, for all query heads that share it
// (GQA: keys and values are read once for them). Positions are divided at multiples of 256, whatever the batch: a token's sums close in
// the same order always, and a merge adds the parts.
#include "common.cuh"
#include "attend.cuh"

#define SPLIT 256 // positions a block, one a thread

// q . k of one position; the query lies in shared memory as floats.
inline float score(const Cache& c, const float* query, i32 row, i32 head, float scale)
{
    const i64 first = ((i64)row * c.keyValue + head) * c.dimension;
    float sum = 0;
    if (is_bytes(c.kind))
    {
        i32 i = 0;
        if (c.dimension % 8 == 0)
            for (; i < c.dimension; i += 8)
            {
                const uint2 v = load_act8(c.keys + first + i);
#pragma unroll
                for (i32 j = 0; j < 8; j++)
                    sum = fmaf(query[i + j], from_bytes(c.kind, v, j), sum);
            }
        for (; i < c.dimension; i++)
            sum = fmaf(query[i], from_byte(c.kind, c.keys[first + i]), sum);
        return sum * byte_scale(c.kind, c.scales, (i64)row * 2 * c.keyValue + head) * scale;
    }
    if (c.kind == CACHE_ACT && c.dimension % 8 == 0)
    {
        for (i32 i = 0; i < c.dimension; i += 8)
        {
            float k[8];
            load_act8((const act*)c.keys + first, i, c.dimension, true, k);
#pragma unroll
            for (i32 j = 0; j < 8; j++)
                sum = fmaf(query[i + j], k[j], sum);
        }
        return sum * scale;
    }
    for (i32 i = 0; i < c.dimension; i++)
        sum = fmaf(query[i], cached(c.keys, c.kind, first + i, 1), sum);
    return sum * scale;
}

KERNEL(attend_split, AttendParameters, SPLIT)
{
    DYNAMIC_SHARED(memory);
    SHARED(float, scratch, 32);
    SHARED(i32, rows, SPLIT);
    const Cache& c = p.cache;
    const i32 split = blockIdx.x, head = blockIdx.y, token = blockIdx.z, group = p.query / c.keyValue, thread = threadIdx.x;
    const i32 dimension = c.dimension, columns = (p.query + 2 * c.keyValue) * dimension;
    float* query = (float*)memory;              // [group, dimension]
    float* weights = query + group * dimension; // [group, SPLIT]
    Reach seen;
    if (!reach(p, token, split == 0 && head == 0 && thread == 0, seen))
        return;
    const i32 begin = most(split * SPLIT, seen.first), end = least((split + 1) * SPLIT, seen.last + 1);
    if (begin >= end)
        return; // the merge knows the same bounds
    const i32 count = end - begin;
    for (i32 i = thread; i < group * dimension; i += SPLIT)
        query[i] = to_float(p.qkv[(i64)token * columns + head * group * dimension + i]);
    const i32 row = thread < count ? cache_row(p, p.sequence[token], begin + thread) : -1;
    rows[thread] = row;
    __syncthreads();
    for (i32 g = 0; g < group; g++)
    {
        float s = row >= 0 ? score(c, query + g * dimension, row, head, p.scale) : -INFINITY;
        if (p.softCap > 0 && row >= 0)
            s = capped(p.softCap, s);
        const float highest = block_max(s, scratch);
        const float w = row >= 0 ? expf(s - highest) : 0;
        const float total = block_sum(w, scratch);
        // A byte's scale goes into the weight: once a position, not once an element.
        weights[g * SPLIT + thread] = is_bytes(c.kind) && row >= 0 ? w * byte_scale(c.kind, c.scales, ((i64)row * 2 + 1) * c.keyValue + head) : w;
        if (thread == 0 && p.splits > 1)
        {
            float* part = p.partial + (((i64)token * p.query + head * group + g) * p.splits + split) * (dimension + 2);
            part[dimension] = highest;
            part[dimension + 1] = total;
        }
        if (thread == 0)
            query[g * dimension] = total; // this head's query has been read by all: block_sum came after
    }
    __syncthreads();
    for (i32 i = thread; i < group * dimension; i += SPLIT)
    {
        const i32 g = i / dimension, d = i % dimension;
        const float* w = weights + g * SPLIT;
        float sum = 0;
        for (i32 j = 0; j < count; j++)
            if (rows[j] >= 0)
                sum = fmaf(w[j], cached(c.values, c.kind, ((i64)rows[j] * c.keyValue + head) * dimension + d, 1), sum);
        const i64 at = (i64)token * p.query + head * group + g;
        if (p.splits > 1)
            p.partial[(at * p.splits + split) * (dimension + 2) + d] = sum;
        else
            p.output[at * dimension + d] = to_act(sum / query[g * dimension]);
    }
}

KERNEL(attend_merge, AttendParameters, 128)
{
    const i32 head = blockIdx.x, token = blockIdx.y, dimension = p.cache.dimension;
    Reach seen;
    if (!reach(p, token, false, seen))
        return;
    const i32 first = seen.first / SPLIT, end = seen.last / SPLIT + 1;
    const i64 at = (i64)token * p.query + head;
    const float* parts = p.partial + at * p.splits * (dimension + 2);
    float highest = -INFINITY;
    for (i32 s = first; s < end; s++)
        highest = fmaxf(highest, parts[s * (dimension + 2) + dimension]);
    for (i32 d = threadIdx.x; d < dimension; d += blockDim.x)
    {
        float sum = 0, total = 0;
        for (i32 s = first; s < end; s++)
        {
            const float* part = parts + s * (dimension + 2);
            const float w = expf(part[dimension] - highest);
            total = fmaf(w, part[dimension + 1], total);
            sum = fmaf(w, part[d], sum);
        }
        p.output[at * dimension + d] = to_act(sum / total);
    }
}
