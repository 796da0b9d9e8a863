// More tokens, bfloat16 activations: tensor cores. A block multiplies a tile of 32, 64 or 128 tokens with 128 weight rows, 64 columns a
// stage: three stages lie in shared memory, two on their way while one is multiplied. Eight warps, each half of the tokens with 32 of the
// rows. Quantised weights become bfloat16 on their way in. Where tiles are too few for the GPU, blocks share a tile's columns and leave
// their sums for linear_merge.
#include "common.cuh"
#include "forms.cuh"
#include "linear.cuh"

#define THREADS 256
#define ROWS 128
#define DEPTH 64
#define STAGES 3
#define SUM_STRIDE (ROWS + 4)

// Eight elements of a row lie on 16 bytes, in an order that puts the eight rows of an 8x8 tile into different banks.
inline bf16* chunk_at(bf16* tile, i32 row, i32 chunk) { return tile + row * DEPTH + (chunk ^ row & 7) * 8; }

// Tokens beyond the last are the last again: their sums are nobody's.
template <int tile_tokens> inline void stage_input(bf16* tile, const LinearParameters& p, i32 token, i32 tokens, i32 k, i32 end, bool wide)
{
#pragma unroll
    for (i32 c = threadIdx.x; c < tile_tokens * DEPTH / 8; c += THREADS)
    {
        const i32 t = c / (DEPTH / 8), at = k + c % (DEPTH / 8) * 8;
        bf16* target = chunk_at(tile, t, c % (DEPTH / 8));
        const act* row = p.input + (i64)(token + least(t, tokens - 1)) * p.columns;
        if (wide)
            cp_async16(target, at < end ? row + at : row, at < end);
        else
            for (i32 i = 0; i < 8; i++)
                target[i] = to_bf16(at + i < end ? to_float(row[at + i]) : 0);
    }
}

inline void stage_weights(bf16* tile, const LinearParameters& p, const Matrix& m, bool gated, i32 row, i32 rows, i32 k, i32 end)
{
#pragma unroll
    for (i32 c = threadIdx.x; c < ROWS * DEPTH / CHUNK; c += THREADS)
    {
        const i32 r = c / (DEPTH / CHUNK), first = c % (DEPTH / CHUNK) * CHUNK, at = k + first;
        // Of a gated weight every warp has 16 gates and then their 16 values.
        const i32 own = gated ? r / 32 * 16 + r % 16 : r;
        const i32 source = row + least(own, rows - 1) + (gated && r & 16 ? p.gate : 0);
#if FORM == FORM_BF16
        const u8* elements = m.elements + (i64)source * m.elementStride;
        cp_async16(chunk_at(tile, r, first / 8), at < end ? elements + 2 * at : elements, at < end);
#else
        float w[CHUNK];
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            w[i] = 0;
        if (at < end)
            load_weights(m, source, at, w);
#pragma unroll
        for (i32 i = 0; i < CHUNK; i += 8)
            store_bf16x8(chunk_at(tile, r, (first + i) / 8), w + i);
#endif
    }
}

// The weights of the first stages on their way to the cache, a row a thread.
inline void prefetch_weights(const LinearParameters& p, bool gated, i32 row, i32 rows, i32 begin)
{
    const i32 own = row + threadIdx.x % rows;
    if (threadIdx.x >= ROWS || own >= p.rows)
        return;
    const i32 stage = p.elementStride * DEPTH / p.columns, at = begin / DEPTH * stage; // bytes
    prefetch(p.elements + (own + (gated && threadIdx.x >= rows ? p.gate : 0)) * (i64)p.elementStride + at, least((STAGES - 1) * stage, p.elementStride - at));
}

// Sums that lie in shared memory go out.
template <int tile_tokens, bool gated> inline void store_tile(const LinearParameters& p, const float* sums, i32 token, i32 tokens, i32 row, i32 rows)
{
    constexpr i32 width = gated ? ROWS / 2 : ROWS;
    if (!gated && !p.partial && !p.bias && p.epilogue == NONE && rows % 8 == 0 && p.outputColumns % 8 == 0 && p.firstRow % 8 == 0)
    {
        for (i32 c = threadIdx.x; c < tokens * (width / 8); c += THREADS)
        {
            const i32 t = c / (width / 8), r = c % (width / 8) * 8;
            if (r < rows)
                store_bf16x8(p.output + (i64)(token + t) * p.outputColumns + p.firstRow + row + r, sums + t * SUM_STRIDE + r);
        }
        return;
    }
    for (i32 c = threadIdx.x; c < tokens * width; c += THREADS)
    {
        const i32 t = c / width, r = c % width;
        if (r >= rows)
            continue;
        const float* own = sums + t * SUM_STRIDE + (gated ? r / 16 * 32 + r % 16 : r);
        if (p.partial)
            p.partial[((i64)blockIdx.z * p.tokens + token + t) * p.rows + row + r] = *own;
        else
            store_output(p, token + t, row + r, own[0], gated ? own[16] : 0);
    }
}

template <int tile_tokens, bool gated> inline void linear_mma(const LinearParameters& p)
{
    DYNAMIC_SHARED(memory);
    constexpr i32 stage_size = (tile_tokens + ROWS) * DEPTH, own_tokens = tile_tokens / 2, fragments = own_tokens / 16;
    bf16* stages = (bf16*)memory; // each: tokens, then weights
    const i32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const i32 y = warp / 4 * own_tokens, x = warp % 4 * 32; // the warp's tokens and rows in the tile
    const i32 tile_rows = gated ? ROWS / 2 : ROWS;
    if (!p.tiles && blockIdx.x == 0) // blocks of other tokens share these weights
        prefetch_weights(p, gated, blockIdx.y * tile_rows, tile_rows, blockIdx.z * p.depth);
    dependency_wait();
    const Share share = share_of(p, blockIdx.x, tile_tokens); // neighbours share weights
    const i32 token = share.first, tokens = share.end - token, row = blockIdx.y * tile_rows, rows = least(tile_rows, p.rows - row);
    if (tokens <= 0)
        return;
    const i32 begin = blockIdx.z * p.depth, end = least(p.columns, begin + p.depth), count = ceil_div(end - begin, DEPTH);
    const Matrix m = { share.elements, share.scales, p.elementStride, p.scaleStride };
    const bool wide = wide_rows(p.input, p.columns), used = y < tokens && (gated ? x / 2 : x) < rows;
    float sum[fragments][4][4];
#pragma unroll
    for (i32 i = 0; i < fragments; i++)
#pragma unroll
        for (i32 j = 0; j < 4; j++)
            sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0;

    auto stage = [&](i32 s, i32 slot)
    {
        if (s < count)
        {
            bf16* tile = stages + slot * stage_size;
            stage_input<tile_tokens>(tile, p, token, tokens, begin + s * DEPTH, end, wide);
            stage_weights(tile + tile_tokens * DEPTH, p, m, gated, row, rows, begin + s * DEPTH, end);
        }
        cp_async_commit();
    };

    for (i32 s = 0; s < STAGES - 1; s++)
        stage(s, s);
    for (i32 s = 0, slot = 0; s < count; s++, slot = slot == STAGES - 1 ? 0 : slot + 1)
    {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); // stage s has arrived, and nobody reads the one before any more, whose place is taken now
        stage(s + STAGES - 1, slot == 0 ? STAGES - 1 : slot - 1);
        bf16* inputs = stages + slot * stage_size;
        bf16* weights = inputs + tile_tokens * DEPTH;
        if (!used)
            continue;
#pragma unroll
        for (i32 k = 0; k < DEPTH / 8; k += 2)
        {
            u32 a[fragments][4], b[2][4];
#pragma unroll
            for (i32 i = 0; i < fragments; i++) // lanes 0-15 name the rows of the left half, 16-31 those of the right
                ldmatrix_x4(a[i], chunk_at(inputs, y + 16 * i + lane % 16, k + lane / 16));
#pragma unroll
            for (i32 j = 0; j < 2; j++) // of rows 0-7: columns 0-7, 8-15; of rows 8-15 likewise
                ldmatrix_x4(b[j], chunk_at(weights, x + 16 * j + lane / 16 * 8 + lane % 8, k + lane / 8 % 2));
#pragma unroll
            for (i32 i = 0; i < fragments; i++)
#pragma unroll
                for (i32 j = 0; j < 4; j++)
                    mma_bf16(sum[i][j], a[i], b[j / 2] + j % 2 * 2);
        }
    }
    cp_async_wait<0>();
    __syncthreads();
    float* sums = (float*)memory; // [tile_tokens, SUM_STRIDE], where the stages were
#pragma unroll
    for (i32 i = 0; i < fragments; i++)
#pragma unroll
        for (i32 j = 0; j < 4; j++)
#pragma unroll
            for (i32 e = 0; e < 4; e++)
                sums[(y + 16 * i + lane / 4 + e / 2 * 8) * SUM_STRIDE + x + 8 * j + lane % 4 * 2 + e % 2] = sum[i][j][e];
    __syncthreads();
    store_tile<tile_tokens, gated>(p, sums, token, tokens, row, rows);
}

KERNEL_EARLY(linear_mma_32, LinearParameters, THREADS) { linear_mma<32, false>(p); }
KERNEL_EARLY(linear_mma_64, LinearParameters, THREADS) { linear_mma<64, false>(p); }
KERNEL_EARLY(linear_mma_128, LinearParameters, THREADS) { linear_mma<128, false>(p); }
KERNEL_EARLY(linear_mma_gated_32, LinearParameters, THREADS) { linear_mma<32, true>(p); }
KERNEL_EARLY(linear_mma_gated_64, LinearParameters, THREADS) { linear_mma<64, true>(p); }
KERNEL_EARLY(linear_mma_gated_128, LinearParameters, THREADS) { linear_mma<128, true>(p); }
