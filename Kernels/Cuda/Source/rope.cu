// RopeStore: norms query and key heads where the family does, rotates query heads in place, writes rotated keys and plain values to the cache.
// A block a head of a token.
#include "common.cuh"
#include "cache.cuh"

struct RopeParameters
{
    act* qkv;            // [tokens, (query + 2 keyValue) dimension]
    const float* rotary; // [tokens, rotated]: cosines, then sines
    const i32* storeRow; // [tokens]
    Status* status;
    Cache cache;
    i32 query, rotated;
    const float* queryNorm; // [dimension] or null
    const float* keyNorm;
    float normEpsilon;
};

inline float rotated_element(const float* head, const float* angles, i32 i, i32 rotated)
{
    const i32 half = rotated / 2;
    const float x = head[i];
    if (i >= rotated)
        return x;
    // Products are rounded apart, as the definition has it.
    return i < half ? x * angles[i] - head[i + half] * angles[half + i]
                    : x * angles[i - half] + head[i - half] * angles[i];
}

KERNEL(rope_store, RopeParameters, 128)
{
    DYNAMIC_SHARED(memory);
    SHARED(float, scratch, 32);
    const Cache& c = p.cache;
    float* plain = (float*)memory;          // [dimension]
    float* rotated = plain + c.dimension;   // [dimension]
    const i32 token = blockIdx.x, head = blockIdx.y, heads = p.query + 2 * c.keyValue;
    act* source = p.qkv + ((i64)token * heads + head) * c.dimension;
    const float* angles = p.rotary + (i64)token * p.rotated;
    const bool value = head >= p.query + c.keyValue;
    for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
        plain[i] = to_float(source[i]);
    if (p.queryNorm && !value)
    {
        const float* norm = head < p.query ? p.queryNorm : p.keyNorm;
        float square = 0;
        for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
            square = fmaf(plain[i], plain[i], square);
        const float inverse = 1 / sqrtf(block_sum(square, scratch) / c.dimension + p.normEpsilon);
        for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
        {
            plain[i] = plain[i] * inverse * norm[i];
            source[i] = to_act(plain[i]);
        }
    }
    __syncthreads(); // pairs lie in different threads
    for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
        rotated[i] = value ? plain[i] : rotated_element(plain, angles, i, p.rotated);
    if (head < p.query)
    {
        for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
            source[i] = to_act(rotated[i]);
        return;
    }
    const i32 row = p.storeRow[token];
    if (row < 0 || row >= c.rows)
    {
        if (threadIdx.x == 0)
            report(p.status, STORE_ROW, row, c.rows);
        return;
    }
    u8* base = value ? c.values : c.keys;
    const i32 kvHead = head - p.query - (value ? c.keyValue : 0);
    const i64 first = ((i64)row * c.keyValue + kvHead) * c.dimension;
    float inverse = 0;
    if (is_bytes(c.kind))
    {
        float most = 0;
        for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
            most = fmaxf(most, fabsf(rotated[i]));
        const float scale = block_max(most, scratch) / (c.kind == CACHE_U8 ? 127 : 448);
        inverse = scale > 0 ? 1 / scale : 0;
        if (threadIdx.x == 0)
            c.scales[(i64)row * 2 * c.keyValue + head - p.query] = scale;
    }
    for (i32 i = threadIdx.x; i < c.dimension; i += blockDim.x)
    {
        if (c.kind == CACHE_ACT)
            ((act*)base)[first + i] = to_act(rotated[i]);
        else if (c.kind == CACHE_BF16)
            ((bf16*)base)[first + i] = to_bf16(rotated[i]);
        else if (c.kind == CACHE_F8E4M3)
            base[first + i] = to_e4m3(rotated[i] * inverse);
        else
            base[first + i] = (u8)(128 + (i32)rintf(rotated[i] * inverse));
    }
}
