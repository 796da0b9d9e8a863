// What the attention kernels share.
#include "cache.cuh"

struct AttendParameters
{
    act* output;           // [tokens, query dimension]
    const act* qkv;        // [tokens, (query + 2 keyValue) dimension], queries rotated
    const i32* sequence;   // [tokens]
    const i32* position;   // [tokens]
    const i32* pages;      // [sequences, pageColumns]
    const i32* spanFirst;  // [tokens] or null: the stretch that a token sees all of
    const i32* spanLast;
    float* partial;        // of divided sequences: [tokens, query, splits, dimension + 2]
    Status* status;
    Cache cache;
    i32 tokens, query, sequences, pageColumns, pageSize, window, splits;
    i32 length;            // of full attention: rows an image
    float scale, softCap;  // softCap: of scores; 0 for none
};

// What a token sees of its sequence: positions [first, last].
struct Reach { i32 first, last; };

// False where the step says what cannot be.
inline bool reach(const AttendParameters& p, i32 token, bool say, Reach& r)
{
    const i32 sequence = p.sequence[token], position = p.position[token];
    if (sequence < 0 || sequence >= p.sequences)
    {
        if (say)
            report(p.status, SEQUENCE, sequence, p.sequences);
        return false;
    }
    if (position < 0)
    {
        if (say)
            report(p.status, POSITION, position, 0x7fffffff);
        return false;
    }
    r.first = p.window > 0 ? most(0, position - p.window + 1) : 0;
    r.last = position;
    if (p.spanFirst)
    {
        const i32 first = p.spanFirst[token], last = p.spanLast[token];
        if (first < 0 || first > position || last < position)
        {
            if (say)
                report(p.status, SPAN, position, first, last);
            return false;
        }
        r.first = least(r.first, first);
        r.last = last;
    }
    if (r.last / p.pageSize < p.pageColumns)
        return true;
    if (say)
        report(p.status, PAGE, r.last, p.cache.rows / p.pageSize, sequence);
    return false;
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

inline float capped(float cap, float score) { return cap * tanhf(score / cap); }

// Tokens that stand together and attend to the same keys: of one sequence, or of one image.
struct Run
{
    i32 token, count, sequence, image; // image: of full attention, its first row
    i32* limits;                       // [count] the last position that each token sees
    i32* floors;                       // [count] the first one
};

// The runs among the block's tokens, one after the other; all threads of the block come here.
template <bool paged, class Body> inline void each_run(const AttendParameters& p, i32 tokens, i32* limits, i32* floors, Body body)
{
    if (!paged)
    {
        const i32 image = blockIdx.z * p.length, token = image + blockIdx.x * tokens, count = least(tokens, image + p.length - token);
        for (i32 t = threadIdx.x; t < count; t += blockDim.x)
            limits[t] = p.length - 1, floors[t] = 0;
        __syncthreads();
        body(Run{ token, count, 0, image, limits, floors });
        return;
    }
    const i32 first = blockIdx.x * tokens, end = least(first + tokens, p.tokens);
    Reach r;
    for (i32 token = first; token < end;)
    {
        const i32 sequence = p.sequence[token];
        i32 count = 0;
        while (token + count < end && p.sequence[token + count] == sequence && reach(p, token + count, threadIdx.x == 0, r))
            count++;
        if (count == 0)
        {
            token++;
            continue;
        }
        __syncthreads(); // the run before this one is done with the block's memory
        for (i32 t = threadIdx.x; t < count; t += blockDim.x)
        {
            reach(p, token + t, false, r);
            limits[t] = r.last, floors[t] = r.first;
        }
        __syncthreads();
        body(Run{ token, count, sequence, 0, limits, floors });
        token += count;
    }
}

// The keys that any token of the run sees lie in [first, last].
inline Reach reach(const Run& run)
{
    Reach r = { run.floors[0], run.limits[0] };
    for (i32 t = 1; t < run.count; t++)
        r.first = least(r.first, run.floors[t]), r.last = most(r.last, run.limits[t]);
    return r;
}

// The row of a key in the cache (in the image), or -1 where no token of the run sees it: it may lie in a page that was given back.
template <bool paged> inline i32 key_row(const AttendParameters& p, const Run& run, i32 key)
{
    for (i32 t = 0; t < run.count; t++)
        if (key >= run.floors[t] && key <= run.limits[t])
            return paged ? cache_row(p, run.sequence, key) : run.image + key;
    return -1;
}

// Where a head's keys or values lie: element d of row r is number r columns + first + d of base.
struct HeadRows
{
    const u8* base;
    const float* scales; // of bytes
    i32 kind, columns, first, scaleColumns, scaleFirst;

    inline float scale(i32 row) const { return is_bytes(kind) ? byte_scale(kind, scales, (i64)row * scaleColumns + scaleFirst) : 1; }
    inline i64 at(i32 row, i32 d) const { return (i64)row * columns + first + d; }
};

template <bool paged> inline HeadRows head_rows(const AttendParameters& p, bool values, i32 head)
{
    const Cache& c = p.cache;
    if (paged)
        return { values ? c.values : c.keys, c.scales, c.kind, c.keyValue * c.dimension, head * c.dimension, 2 * c.keyValue, (values ? c.keyValue : 0) + head };
    return { (const u8*)p.qkv, nullptr, CACHE_ACT, (p.query + 2 * c.keyValue) * c.dimension, (p.query + (values ? c.keyValue : 0) + head) * c.dimension, 0, 0 };
}
