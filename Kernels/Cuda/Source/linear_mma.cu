// Many tokens, bfloat16 activations: tensor cores. Tiles of 64 tokens by 64 rows by 64 columns, two of them in shared memory: one arrives
// while the other is multiplied. Four warps, 32 x 32 sums each. Quantised weights become bfloat16 on their way in.
#include "common.cuh"
#include "forms.cuh"
#include "linear.cuh"

#define TILE 64
#define DEPTH 64
#define STRIDE (DEPTH + 8) // 144 bytes: the eight rows of an 8x8 tile fall into different banks

inline void stage_input(bf16* tile, const LinearParameters& p, i32 token, i32 tokens, i32 k, bool wide)
{
    for (i32 c = threadIdx.x; c < TILE * DEPTH / 8; c += blockDim.x)
    {
        const i32 t = c / (DEPTH / 8), at = c % (DEPTH / 8) * 8;
        bf16* target = tile + t * STRIDE + at;
        const act* source = p.input + (i64)(token + t) * p.columns + k + at;
        if (t < tokens && wide && k + at < p.columns)
            cp_async16(target, source);
        else
            for (i32 i = 0; i < 8; i++)
                target[i] = to_bf16(t < tokens && k + at + i < p.columns ? to_float(source[i]) : 0);
    }
}

inline void stage_weights(bf16* tile, const Matrix& m, i32 first, i32 rows, i32 k, i32 columns)
{
    for (i32 c = threadIdx.x; c < TILE * DEPTH / CHUNK; c += blockDim.x)
    {
        const i32 row = c / (DEPTH / CHUNK), at = c % (DEPTH / CHUNK) * CHUNK;
        bf16* target = tile + row * STRIDE + at;
        const bool inside = row < rows && k + at < columns;
#if FORM == FORM_BF16
        if (inside)
        {
            cp_async16(target, m.elements + (i64)(first + row) * m.elementStride + 2 * (k + at));
            continue;
        }
#endif
        float w[CHUNK];
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            w[i] = 0;
        if (inside)
            load_weights(m, first + row, k + at, w);
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            target[i] = to_bf16(w[i]);
    }
}

template <bool gated> inline void linear_mma(const LinearParameters& p)
{
    DYNAMIC_SHARED(memory);
    const i32 tile_size = TILE * STRIDE, stage_size = (gated ? 3 : 2) * tile_size;
    bf16* tiles = (bf16*)memory; // of two stages: input, weights, values
    const i32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const i32 y = warp / 2 * 32, x = warp % 2 * 32; // the warp's tokens and rows in the tile
    const Share share = share_of(p, TILE);
    const i32 row = blockIdx.x * TILE, token = share.first;
    const i32 rows = least(TILE, p.rows - row), tokens = share.end - token;
    if (tokens <= 0)
        return;
    const Matrix m = { share.elements, share.scales, p.elementStride, p.scaleStride };
    const bool wide = wide_rows(p.input, p.columns);
    const i32 stages = ceil_div(p.columns, DEPTH);
    float sum[2][4][4] = {}, value[gated ? 2 : 1][4][4] = {};

    auto stage = [&](i32 s)
    {
        bf16* tile = tiles + s % 2 * stage_size;
        stage_input(tile, p, token, tokens, s * DEPTH, wide);
        stage_weights(tile + tile_size, m, row, rows, s * DEPTH, p.columns);
        if (gated)
            stage_weights(tile + 2 * tile_size, m, row + p.gate, rows, s * DEPTH, p.columns);
    };

    if (stages > 0)
        stage(0);
    cp_async_commit();
    for (i32 s = 0; s < stages; s++)
    {
        if (s + 1 < stages)
            stage(s + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        const bf16* inputs = tiles + s % 2 * stage_size;
        const bf16* weights = inputs + tile_size;
#pragma unroll
        for (i32 k = 0; k < DEPTH; k += 16)
        {
            u32 a[2][4];
#pragma unroll
            for (i32 i = 0; i < 2; i++) // lanes 0-15 name the rows of the left half, 16-31 those of the right
                ldmatrix_x4(a[i], inputs + (y + 16 * i + lane % 16) * STRIDE + k + lane / 16 * 8);
#pragma unroll
            for (i32 j = 0; j < 2; j++)
            {
                u32 b[4]; // of rows 0-7: columns 0-7, 8-15; of rows 8-15 likewise
                const i32 at = (x + 16 * j + lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 8;
                ldmatrix_x4(b, weights + at);
#pragma unroll
                for (i32 i = 0; i < 2; i++)
                {
                    mma_bf16(sum[i][2 * j], a[i], b);
                    mma_bf16(sum[i][2 * j + 1], a[i], b + 2);
                }
                if (gated)
                {
                    ldmatrix_x4(b, weights + tile_size + at);
#pragma unroll
                    for (i32 i = 0; i < 2; i++)
                    {
                        mma_bf16(value[gated ? i : 0][2 * j], a[i], b);
                        mma_bf16(value[gated ? i : 0][2 * j + 1], a[i], b + 2);
                    }
                }
            }
        }
        __syncthreads(); // before the next stage overwrites what was read here
    }
#pragma unroll
    for (i32 i = 0; i < 2; i++)
#pragma unroll
        for (i32 j = 0; j < 4; j++)
#pragma unroll
            for (i32 e = 0; e < 4; e++)
            {
                const i32 t = y + 16 * i + lane / 4 + e / 2 * 8, r = x + 8 * j + lane % 4 * 2 + e % 2;
                if (t < tokens && r < rows)
                    store_output(p, token + t, row + r, sum[i][j][e], value[gated ? i : 0][j][e]);
            }
}

KERNEL(linear_mma_plain, LinearParameters, 128) { linear_mma<false>(p); }
KERNEL(linear_mma_gated, LinearParameters, 128) { linear_mma<true>(p); }
