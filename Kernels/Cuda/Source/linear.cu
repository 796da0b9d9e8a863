// Few tokens: a warp a weight row, read once for up to 8 tokens (16 of floats). What bounds it is the weights' way from memory, so each lane has 128-bit
// loads of several chunks under way. A row's sum is taken in the same order whatever else is computed beside it.
#include "common.cuh"
#include "forms.cuh"
#include "linear.cuh"

#define WARPS 8

// What is on its way to the cache before the wait: the beginnings of the rows of the blocks that start first (48 warps of each of an H100's 132
// multiprocessors), 12 MB. Its memory delivers that in 4 us, some more than a kernel of one block and its launch leave it idle; the L2 cache
// holds four times as much.
#define PREFETCHED_ROWS 6144
#define PREFETCHED_BYTES 2048

// A lane's share of the sums of one row. `whole`: there are most_tokens tokens, and their rows are read 128 bits at a time; nothing is
// asked inside the loop then, so that the loads of several chunks are under way together.
template <int most_tokens, bool gated, bool whole>
inline void sum_row(const LinearParameters& p, const Matrix& m, i32 row, const act* input, i32 tokens, bool wide, float* sum, float* value)
{
    const i32 step = 32 * CHUNK;
    i32 k = (threadIdx.x & 31) * CHUNK;
    // Of quantised weights the compiler would begin no load before it has used up the one before.
    const bool ahead = whole && most_tokens == 1 && !gated && CHUNK > 8;
    Stored next = {};
    if (ahead && k < p.columns)
        next = fetch_weights(m, row, k);
#pragma unroll (!whole || most_tokens > 4 || ahead ? 1 : most_tokens > 1 ? 2 : 32 / CHUNK) // more tokens have loads enough under way, and code enough
    for (; k < p.columns; k += step)
    {
        float w[CHUNK], v[gated ? CHUNK : 1];
        if (ahead)
        {
            const Stored now = next;
            if (k + step < p.columns)
                next = fetch_weights(m, row, k + step);
            unpack_weights(now, k, w);
        }
        else
            load_weights(m, row, k, w);
        if (gated)
            load_weights(m, row + p.gate, k, v);
#pragma unroll
        for (i32 t = 0; t < most_tokens; t++)
        {
            if (!whole && t >= tokens)
                break;
#pragma unroll
            for (i32 i = 0; i < CHUNK; i += 8)
            {
                const act* x_row = input + (i64)t * p.columns;
                float x[8];
                if (whole)
                    load_wide8(x_row + k + i, x);
                else
                    load_act8(x_row, k + i, p.columns, wide, x);
#pragma unroll
                for (i32 j = 0; j < 8; j++)
                {
                    sum[t] = fmaf(w[i + j], x[j], sum[t]);
                    if (gated)
                        value[t] = fmaf(v[i + j], x[j], value[t]);
                }
            }
        }
    }
}

template <int most_tokens, bool gated> inline void linear_rows(const LinearParameters& p)
{
    const i32 lane = threadIdx.x & 31, row = blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (!p.tiles && lane == 0 && row < least(p.rows, PREFETCHED_ROWS) && blockIdx.y == 0) // where an expert's rows lie, the kernel before says
    {
        const u8* elements = p.elements + (i64)row * p.elementStride;
        const i32 bytes = least(p.elementStride, PREFETCHED_BYTES / (gated ? 2 : 1));
        prefetch(elements, bytes);
        if (gated)
            prefetch(elements + (i64)p.gate * p.elementStride, bytes);
    }
    dependency_wait();
    const Share share = share_of(p, blockIdx.y, most_tokens);
    const i32 first = share.first, tokens = share.end - first;
    if (row >= p.rows || tokens <= 0)
        return;
    const Matrix m = { share.elements, share.scales, p.elementStride, p.scaleStride };
    const act* input = p.input + (i64)first * p.columns;
    const bool wide = wide_rows(p.input, p.columns);
    float sum[most_tokens], value[gated ? most_tokens : 1];
#pragma unroll
    for (i32 t = 0; t < most_tokens; t++)
        sum[t] = value[gated ? t : 0] = 0;
    if (wide && p.columns % CHUNK == 0 && tokens == most_tokens)
        sum_row<most_tokens, gated, true>(p, m, row, input, tokens, wide, sum, value);
    else
        sum_row<most_tokens, gated, false>(p, m, row, input, tokens, wide, sum, value);
    float s = 0, v = 0; // lane t keeps token t's
#pragma unroll
    for (i32 t = 0; t < most_tokens; t++)
    {
        const float all = warp_sum(sum[t]), all_values = gated ? warp_sum(value[t]) : 0;
        if (lane == t)
            s = all, v = all_values;
    }
    if (lane < tokens)
        store_output(p, first + lane, row, s, v);
}

// So few blocks that there are registers for four loads of weights under way, or for the next one: left alone, the compiler puts off each load to fit more.
KERNEL_EARLY(linear_1, LinearParameters, 256, FORM == FORM_Q4_K ? 3 : 4) { linear_rows<1, false>(p); }
KERNEL_EARLY(linear_2, LinearParameters, 256) { linear_rows<2, false>(p); }
KERNEL_EARLY(linear_4, LinearParameters, 256) { linear_rows<4, false>(p); }
KERNEL_EARLY(linear_gated_2, LinearParameters, 256) { linear_rows<2, true>(p); }
KERNEL_EARLY(linear_gated_4, LinearParameters, 256) { linear_rows<4, true>(p); }
// Where the compiler would keep registers in memory for one more block a multiprocessor, it is told how many are enough.
#if FORM <= FORM_BF16
KERNEL_EARLY(linear_8, LinearParameters, 256, 4) { linear_rows<8, false>(p); }
KERNEL_EARLY(linear_gated_1, LinearParameters, 256) { linear_rows<1, true>(p); }
KERNEL_EARLY(linear_gated_8, LinearParameters, 256, 3) { linear_rows<8, true>(p); }
#else
KERNEL_EARLY(linear_8, LinearParameters, 256) { linear_rows<8, false>(p); }
KERNEL_EARLY(linear_gated_1, LinearParameters, 256, 3) { linear_rows<1, true>(p); }
KERNEL_EARLY(linear_gated_8, LinearParameters, 256, 2) { linear_rows<8, true>(p); }
#endif
#ifndef ACT_BF16 // from 9 tokens on, tensor cores multiply bfloat16
KERNEL_EARLY(linear_16, LinearParameters, 256) { linear_rows<16, false>(p); }
KERNEL_EARLY(linear_gated_16, LinearParameters, 256) { linear_rows<16, true>(p); }
#endif
