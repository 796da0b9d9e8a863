// A mixture of experts around the matrix kernels: which experts a token uses, its rows sorted by expert, and what comes out of them put
// together. Nothing of it comes back to the host: the matrix kernels are launched for as many tiles as there can be, and find theirs in a table.
#include "common.cuh"
#include "linear.cuh"

struct ExpertsParameters
{
    act* output;        // [tokens, columns]
    const act* input;   // [tokens, columns]
    const act* scores;  // [tokens, experts]
    act* gathered;      // [tokens used, columns]: a row for each expert of each token, those of an expert together
    const act* results; // the same rows behind the experts
    float* share;       // [tokens, used]
    i32* expert;        // [tokens, used], the lower numbers first
    i32* place;         // [tokens, used]: where the row lies among the sorted
    Tile* tiles;        // [tileCount]
    Status* status;
    i32 tokens, columns, experts, used, normalised, tileTokens, tileCount;
};

// The experts of a token and what each counts for: a warp a token.
KERNEL(experts_route, ExpertsParameters, 32)
{
    DYNAMIC_SHARED(memory);
    float* score = (float*)memory;               // [experts]
    i32* taken = (i32*)(score + p.experts);      // [experts]
    const i32 lane = threadIdx.x;
    const act* scores = p.scores + (i64)blockIdx.x * p.experts;
    float highest = -INFINITY, all = 0, sum = 0;
    bool numbers = true;
    for (i32 e = lane; e < p.experts; e += 32)
    {
        score[e] = to_float(scores[e]);
        taken[e] = 0;
        highest = fmaxf(highest, score[e]);
        numbers = numbers && score[e] < INFINITY; // so it is not for NaN
    }
    if (__ballot_sync(0xffffffffu, !numbers))
    {
        if (lane == 0)
            report(p.status, ROUTER_SCORE, blockIdx.x, p.tokens);
        highest = 0; // the first experts are as good as any
        for (i32 e = lane; e < p.experts; e += 32)
            score[e] = 0;
    }
    highest = warp_max(highest);
    for (i32 e = lane; e < p.experts; e += 32)
        all += expf(score[e] - highest);
    all = warp_sum(all);
    for (i32 k = 0; k < p.used; k++)
    {
        i32 best = -1;
        for (i32 e = lane; e < p.experts; e += 32)
            if (!taken[e] && (best < 0 || score[e] > score[best]))
                best = e;
        float value = best < 0 ? -INFINITY : score[best];
        for (i32 d = 16; d > 0; d >>= 1)
        {
            const i32 other = __shfl_xor_sync(0xffffffffu, best, d);
            const float theirs = __shfl_xor_sync(0xffffffffu, value, d);
            if (other >= 0 && (best < 0 || theirs > value || (theirs == value && other < best)))
                best = other, value = theirs;
        }
        sum += expf(value - highest);
        if (best % 32 == lane)
            taken[best] = 1;
    }
    const float total = p.normalised ? sum : all;
    i32 before = 0;
    for (i32 first = 0; first < p.experts; first += 32)
    {
        const i32 e = first + lane;
        const bool mine = e < p.experts && taken[e];
        const u32 mask = __ballot_sync(0xffffffffu, mine);
        if (mine)
        {
            const i64 at = (i64)blockIdx.x * p.used + before + __popc(mask & ((1u << lane) - 1));
            p.expert[at] = e;
            p.share[at] = expf(score[e] - highest) / total;
        }
        before += __popc(mask);
    }
}

// Where each row goes and which tiles there are: a block an expert, its rows in the order of their tokens.
KERNEL(experts_place, ExpertsParameters, 256)
{
    DYNAMIC_SHARED(memory);
    SHARED(i32, warps, 8);
    i32* counts = (i32*)memory; // [experts]
    const i32 mine = blockIdx.x, slots = p.tokens * p.used, thread = threadIdx.x;
    for (i32 e = thread; e < p.experts; e += blockDim.x)
        counts[e] = 0;
    __syncthreads();
    for (i32 i = thread; i < slots; i += blockDim.x)
        atomicAdd(&counts[p.expert[i]], 1);
    __syncthreads();
    i32 offset = 0, tile = 0;
    for (i32 e = 0; e < mine; e++)
        offset += counts[e], tile += ceil_div(counts[e], p.tileTokens);
    const i32 count = counts[mine], tiles = ceil_div(count, p.tileTokens);
    for (i32 i = thread; i < tiles; i += blockDim.x)
        p.tiles[tile + i] = Tile{ mine, offset + i * p.tileTokens, least(offset + (i + 1) * p.tileTokens, offset + count), 0 };
    if (mine == p.experts - 1)
        for (i32 i = tile + tiles + thread; i < p.tileCount; i += blockDim.x)
            p.tiles[i] = Tile{ 0, 0, 0, 0 };
    for (i32 first = 0; first < slots && count > 0; first += blockDim.x)
    {
        const i32 i = first + thread;
        const bool here = i < slots && p.expert[i] == mine;
        const u32 mask = __ballot_sync(0xffffffffu, here);
        if ((thread & 31) == 0)
            warps[thread >> 5] = __popc(mask);
        __syncthreads();
        i32 before = offset;
        for (i32 w = 0; w < 8; w++)
        {
            before += w < thread >> 5 ? warps[w] : 0;
            offset += warps[w];
        }
        if (here)
            p.place[i] = before + __popc(mask & ((1u << (thread & 31)) - 1));
        __syncthreads();
    }
}

KERNEL(experts_gather, ExpertsParameters, 128)
{
    const act* input = p.input + (i64)(blockIdx.x / p.used) * p.columns;
    act* gathered = p.gathered + (i64)p.place[blockIdx.x] * p.columns;
    for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
        gathered[i] = input[i];
}

// A block a token: its experts in the order of their numbers.
KERNEL(experts_combine, ExpertsParameters, 128)
{
    const i64 slot = (i64)blockIdx.x * p.used;
    for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
    {
        float sum = 0;
        for (i32 k = 0; k < p.used; k++)
            sum = fmaf(p.share[slot + k], to_float(p.results[(i64)p.place[slot + k] * p.columns + i]), sum);
        p.output[(i64)blockIdx.x * p.columns + i] = to_act(sum);
    }
}
