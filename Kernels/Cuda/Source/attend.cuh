// What the attention kernels share.
#include "cache.cuh"

struct AttendParameters
{
    act* output;           // [tokens, query dimension]
    const act* qkv;        // [tokens, (query + 2 keyValue) dimension], queries rotated
    const i32* sequence;   // [tokens]
    const i32* position;   // [tokens]
    const i32* pages;      // [sequences, pageColumns]
    float* partial;        // of divided sequences: [tokens, query, splits, dimension + 2]
    Status* status;
    Cache cache;
    i32 tokens, query, sequences, pageColumns, pageSize, window, splits;
    i32 length;            // of full attention: rows an image
    float scale;
};

// The position of a token, or -1 where the step says what cannot be.
inline i32 token_position(const AttendParameters& p, i32 token, bool say)
{
    const i32 sequence = p.sequence[token], position = p.position[token];
    if (sequence < 0 || sequence >= p.sequences)
    {
        if (say)
            report(p.status, SEQUENCE, sequence, p.sequences);
        return -1;
    }
    if (position < 0)
    {
        if (say)
            report(p.status, POSITION, position, 0x7fffffff);
        return -1;
    }
    if (position / p.pageSize >= p.pageColumns)
    {
        if (say)
            report(p.status, PAGE, position, p.cache.rows / p.pageSize, sequence);
        return -1;
    }
    return position;
}

// The cache row of a position, or -1 where there is none.
inline i32 cache_row(const AttendParameters& p, i32 sequence, i32 position)
{
    const i32 index = position / p.pageSize, count = p.cache.rows / p.pageSize;
    const i32 page = index < p.pageColumns ? p.pages[(i64)sequence * p.pageColumns + index] : -1;
    if (page < 0 || page >= count)
    {
        report(p.status, PAGE, position, count, sequence);
        return -1;
    }
    return page * p.pageSize + position % p.pageSize;
}

inline i32 first_position(const AttendParameters& p, i32 position) { return p.window > 0 ? most(0, position - p.window + 1) : 0; }
