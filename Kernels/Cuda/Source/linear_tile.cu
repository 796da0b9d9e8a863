// Many tokens, float activations: tiles of 64 tokens by 64 rows in shared memory, 4 x 4 sums a thread. Tensor cores would round floats to
// 10 bits; this path is for those who asked for floats.
#include "common.cuh"
#include "forms.cuh"
#include "linear.cuh"

#define TILE 64
#define DEPTH 32
#define STRIDE (TILE + 4) // rows shifted by four banks

// 64 rows of a weight, or of the input, columns [k, k + DEPTH): transposed, so that a thread's four neighbours lie side by side.
inline void stage_weights(float* tile, const Matrix& m, i32 first, i32 rows, i32 k, i32 columns)
{
    for (i32 c = threadIdx.x; c < TILE * DEPTH / CHUNK; c += blockDim.x)
    {
        const i32 row = c % TILE, at = c / TILE * CHUNK;
        float w[CHUNK];
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            w[i] = 0;
        if (row < rows && k + at < columns)
            load_weights(m, first + row, k + at, w);
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            tile[(at + i) * STRIDE + row] = w[i];
    }
}

template <bool gated> inline void linear_tile(const LinearParameters& p)
{
    SHARED(float, inputs, DEPTH * STRIDE);
    SHARED(float, weights, DEPTH * STRIDE);
    SHARED(float, values, gated ? DEPTH * STRIDE : 4);
    const i32 x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
    const Share share = share_of(p, blockIdx.y, TILE);
    const i32 row = blockIdx.x * TILE, token = share.first;
    const i32 rows = least(TILE, p.rows - row), tokens = share.end - token;
    if (tokens <= 0)
        return;
    const Matrix m = { share.elements, share.scales, p.elementStride, p.scaleStride };
    const bool wide = wide_rows(p.input, p.columns);
    float sum[4][4] = {}, value[4][4] = {};
    for (i32 k = 0; k < p.columns; k += DEPTH)
    {
        __syncthreads();
        for (i32 c = threadIdx.x; c < TILE * DEPTH / 8; c += blockDim.x)
        {
            const i32 t = c % TILE, at = c / TILE * 8;
            float v[8] = {};
            if (t < tokens)
                load_act8(p.input + (i64)(token + t) * p.columns, k + at, p.columns, wide, v);
#pragma unroll
            for (i32 i = 0; i < 8; i++)
                inputs[(at + i) * STRIDE + t] = v[i];
        }
        stage_weights(weights, m, row, rows, k, p.columns);
        if (gated)
            stage_weights(values, m, row + p.gate, rows, k, p.columns);
        __syncthreads();
#pragma unroll 4
        for (i32 d = 0; d < DEPTH; d++)
        {
            const float4 a = *(const float4*)&inputs[d * STRIDE + y], b = *(const float4*)&weights[d * STRIDE + x];
            const float u[4] = { a.x, a.y, a.z, a.w }, w[4] = { b.x, b.y, b.z, b.w };
#pragma unroll
            for (i32 i = 0; i < 4; i++)
#pragma unroll
                for (i32 j = 0; j < 4; j++)
                    sum[i][j] = fmaf(u[i], w[j], sum[i][j]);
            if (gated)
            {
                const float4 c = *(const float4*)&values[d * STRIDE + x];
                const float v[4] = { c.x, c.y, c.z, c.w };
#pragma unroll
                for (i32 i = 0; i < 4; i++)
#pragma unroll
                    for (i32 j = 0; j < 4; j++)
                        value[i][j] = fmaf(u[i], v[j], value[i][j]);
            }
        }
    }
#pragma unroll
    for (i32 i = 0; i < 4; i++)
#pragma unroll
        for (i32 j = 0; j < 4; j++)
            if (y + i < tokens && x + j < rows)
                store_output(p, token + y + i, row + x + j, sum[i][j], value[i][j]);
}

KERNEL(linear_tile_plain, LinearParameters, 256) { linear_tile<false>(p); }
KERNEL(linear_tile_gated, LinearParameters, 256) { linear_tile<true>(p); }
