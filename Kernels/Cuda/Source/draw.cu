// Draws tokens from rows of logits by the rules of Kernels/Sampling.cs, which is the definition. Scores and their edits are its floats, to the bit. A
// weight, exp((score - highest) / temperature) in double precision, becomes a whole number of the unit 2^-shift: sums of whole numbers do not depend
// on their order, so that any number of threads gives one result, alone and in any batch. Three kernels: scores, weights, the draw.
#include "common.cuh"

struct DrawParameters
{
    i32* tokens;           // [rows]: what is drawn, or -1: nothing was to be, or the row admits no token
    const act* logits;     // [rows, vocabulary]
    const float* numbers;  // [rows, 6]: temperature (negative: draw nothing), top-p, min-p; repetition, presence and frequency penalty
    const i32* settings;   // [rows, 8]: top-k; seed, position: low and high word; first edit, biases, seen tokens
    const i32* edits;      // [editRows, 2]: a token and its bias (bits of a float), or how often it was generated
    float* scores;         // [rows, vocabulary]
    u64* weights;          // [rows, vocabulary]
    float* highest;        // [rows]; NaN where nothing is left to do
    Status* status;
    i32 vocabulary, editRows, shift;
};

#define THREADS 1024

// Larger floats have larger keys; both zeros have one.
inline u32 key_of(float x)
{
    const u32 b = __float_as_uint(x + 0.0f);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}

inline float of_key(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

inline u64 block_most(u64 v, u64* scratch)
{
    for (i32 d = 16; d > 0; d >>= 1)
        v = most(v, __shfl_xor_sync(0xffffffffu, v, d));
    __syncthreads();
    if ((threadIdx.x & 31) == 0)
        scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    for (u32 w = 0; w < THREADS / 32; w++)
        v = most(v, scratch[w]);
    return v;
}

// The sum of the threads before, and of all.
inline u64 block_scan(u64 v, u64* scratch, u64& total)
{
    u64 sum = v;
    const u32 lane = threadIdx.x & 31;
    for (u32 d = 1; d < 32; d <<= 1)
    {
        const u64 other = __shfl_up_sync(0xffffffffu, sum, d);
        sum += lane >= d ? other : 0;
    }
    __syncthreads();
    if (lane == 31)
        scratch[threadIdx.x >> 5] = sum;
    __syncthreads();
    sum -= v;
    total = 0;
    for (u32 w = 0; w < THREADS / 32; w++)
    {
        sum += w < threadIdx.x >> 5 ? scratch[w] : 0;
        total += scratch[w];
    }
    return sum;
}

// The best of a row: the largest score, of equal ones the lowest token. All ones where a score is no number, or +infinity.
inline u64 best_of(const float* scores, i32 count, u64* scratch)
{
    u64 best = 0;
    for (i32 i = threadIdx.x; i < count; i += THREADS)
        best = most(best, scores[i] < INFINITY ? (u64)key_of(scores[i]) << 32 | (0xffffffffu - i) : ~0ull);
    return block_most(best, scratch);
}

inline bool is_score(u64 best) { return best != ~0ull && of_key((u32)(best >> 32)) > -INFINITY; }

KERNEL(draw_scores, DrawParameters, THREADS)
{
    SHARED(u64, scratch, THREADS / 32);
    const i32 row = blockIdx.x, thread = threadIdx.x;
    const act* logits = p.logits + (i64)row * p.vocabulary;
    const float* numbers = p.numbers + 6 * row;
    const i32* settings = p.settings + 8 * row;
    float* scores = p.scores + (i64)row * p.vocabulary;
    const i32 first = settings[5], biases = settings[6], seen = settings[7];
    u64 best = 0;
    if (numbers[0] >= 0)
    {
        for (i32 i = thread; i < p.vocabulary; i += THREADS)
            scores[i] = to_float(logits[i]);
        best = best_of(scores, p.vocabulary, scratch); // a thread reads what it wrote
    }
    if (is_score(best) && biases + seen > 0)
    {
        const float repetition = numbers[3], presence = numbers[4], frequency = numbers[5];
        for (i32 e = thread; e < biases + seen; e += THREADS)
            if (first < 0 || first + e >= p.editRows || p.edits[2 * (first + e)] < 0 || p.edits[2 * (first + e)] >= p.vocabulary)
                report(p.status, DRAW_EDIT, first + e, p.editRows, row);
            else if (e < biases)
                scores[p.edits[2 * (first + e)]] += __uint_as_float((u32)p.edits[2 * (first + e) + 1]);
        __syncthreads();
        for (i32 e = biases + thread; e < biases + seen; e += THREADS)
        {
            if (first < 0 || first + e >= p.editRows)
                break;
            const i32 token = p.edits[2 * (first + e)], count = p.edits[2 * (first + e) + 1];
            if (token < 0 || token >= p.vocabulary)
                continue;
            float s = scores[token];
            if (repetition != 1)
                s = s > 0 ? s / repetition : s * repetition;
            if (count > 0 && (presence != 0 || frequency != 0))
                s -= presence + frequency * (float)count;
            scores[token] = s;
        }
        __syncthreads();
        best = best_of(scores, p.vocabulary, scratch);
    }
    if (thread != 0)
        return;
    const bool drawn = is_score(best);
    p.tokens[row] = drawn ? (i32)(0xffffffffu - (u32)best) : -1;
    p.highest[row] = drawn && numbers[0] > 0 ? of_key((u32)(best >> 32)) : __uint_as_float(0x7fffffffu);
}

// A score's weight; 0 where min-p drops it.
inline u64 weight_of(const DrawParameters& p, i32 row, float score)
{
    const float* numbers = p.numbers + 6 * row;
    const double w = exp(((double)score - (double)p.highest[row]) * (1 / (double)numbers[0]));
    return w >= (double)numbers[2] ? (u64)(w * (double)(1ull << p.shift) + 0.5) : 0;
}

KERNEL(draw_weights, DrawParameters, 256)
{
    const i32 row = blockIdx.y;
    if (p.highest[row] != p.highest[row])
        return;
    for (i32 i = blockIdx.x * 256 + threadIdx.x; i < p.vocabulary; i += gridDim.x * 256)
        p.weights[(i64)row * p.vocabulary + i] = weight_of(p, row, p.scores[(i64)row * p.vocabulary + i]);
}

// Tokens in their order, the larger scores first: `key` is that of the token at which `need` of them, or of their weight, is reached; `before`
// is what those of larger keys have.
struct Cut { u32 key; u64 before; };

#define BINS 2048

// Eleven, eleven and ten bits of the keys: what each value of them has is added up, and the one in which `need` is reached is looked into.
inline Cut cut_at(const float* scores, const u64* weights, i32 count, bool by_rank, u32 lowest, u64 need, u64* bins, u64* scratch, u64* found)
{
    Cut cut = { 0, 0 };
    for (i32 low = 21, width = 11; ; low = most(low - 11, 0), width = low == 0 ? 10 : 11)
    {
        for (i32 i = threadIdx.x; i < BINS; i += THREADS)
            bins[i] = 0;
        __syncthreads();
        for (i32 i = threadIdx.x; i < count; i += THREADS)
        {
            const u32 key = key_of(scores[i]);
            if (weights[i] > 0 && key >= lowest && (low == 21 || key >> (low + width) == cut.key >> (low + width)))
                atomicAdd(&bins[key >> low & ((1u << width) - 1)], by_rank ? 1ull : weights[i]);
        }
        __syncthreads();
        const i32 bin = BINS - 2 - 2 * (i32)threadIdx.x;
        u64 all, before = cut.before + block_scan(bins[bin] + bins[bin + 1], scratch, all);
        for (i32 b = bin + 1; b >= bin; b--)
        {
            if (before < need && need <= before + bins[b])
                found[0] = b, found[1] = before;
            before += bins[b];
        }
        __syncthreads();
        cut.key |= (u32)found[0] << low;
        cut.before = found[1];
        __syncthreads();
        if (low == 0)
            return cut;
    }
}

inline u64 random_bits(u32 c0, u32 c1, u32 k0, u32 k1)
{
    u32 c2 = 0, c3 = 0;
    for (i32 round = 0; round < 10; round++)
    {
        const u64 a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (u64)c0 << 32 | c1;
}

KERNEL(draw_tokens, DrawParameters, THREADS)
{
    SHARED(u64, bins, BINS);
    SHARED(u64, scratch, THREADS / 32);
    SHARED(u64, found, 2);
    const i32 row = blockIdx.x, thread = threadIdx.x, count = p.vocabulary;
    if (p.highest[row] != p.highest[row])
        return;
    const float* scores = p.scores + (i64)row * count;
    const u64* weights = p.weights + (i64)row * count;
    const float top_p = p.numbers[6 * row + 1];
    const i32* settings = p.settings + 8 * row;
    const i32 top_k = settings[0];

    // What is kept: keys from `lowest` on, and of those of that key itself the first `ties`.
    u32 lowest = 0;
    u64 total, ties = ~0ull, candidates;
    auto sum = [&](bool by_rank)
    {
        u64 mine = 0, all;
        for (i32 i = thread; i < count; i += THREADS)
            if (key_of(scores[i]) >= lowest && weights[i] > 0)
                mine += by_rank ? 1 : weights[i];
        block_scan(mine, scratch, all);
        return all;
    };
    total = sum(false);
    if (top_k > 0 && top_k < count)
    {
        candidates = sum(true);
        if (candidates > (u64)top_k)
        {
            lowest = cut_at(scores, weights, count, true, lowest, top_k, bins, scratch, found).key;
            total = sum(false);
        }
    }
    if (top_p < 1)
    {
        const u64 need = most(1ull, least(total, (u64)ceil((double)top_p * (double)total)));
        const Cut cut = cut_at(scores, weights, count, false, lowest, need, bins, scratch, found);
        const u64 weight = weight_of(p, row, of_key(cut.key));
        lowest = cut.key;
        ties = (need - cut.before + weight - 1) / weight;
        total = cut.before + ties * weight;
    }

    // The weights in the order of the tokens, a stretch of them a thread.
    const i32 length = ceil_div(count, THREADS), first = least(thread * length, count), end = least(first + length, count);
    u64 equal = 0, mine = 0, unused;
    for (i32 i = first; i < end; i++)
        equal += weights[i] > 0 && key_of(scores[i]) == lowest;
    const u64 rank = block_scan(equal, scratch, unused);
    auto kept = [&](i32 i, u64& seen)
    {
        const u32 key = key_of(scores[i]);
        if (weights[i] == 0 || key < lowest)
            return 0ull;
        return key > lowest || seen++ < ties ? weights[i] : 0ull;
    };
    u64 seen = rank;
    for (i32 i = first; i < end; i++)
        mine += kept(i, seen);
    u64 reached = block_scan(mine, scratch, unused);
    const u64 target = __umul64hi(random_bits(settings[3], settings[4], settings[1], settings[2]) >> 11 << 11, total);
    if (target < reached || target >= reached + mine)
        return;
    seen = rank;
    for (i32 i = first; i < end; i++)
    {
        reached += kept(i, seen);
        if (target < reached)
        {
            p.tokens[row] = i;
            return;
        }
    }
}
