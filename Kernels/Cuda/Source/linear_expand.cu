// Weights of any form as numbers of the activations' type, for a product of a library that knows no other. A thread a chunk.
#include "common.cuh"
#include "forms.cuh"

struct ExpandParameters
{
    act* output;        // [rows, outputColumns], zeros beyond a row's end
    const u8* elements; // see forms.cuh
    const u8* scales;
    i32 elementStride, scaleStride;
    i32 columns, outputColumns;
};

KERNEL(linear_expand, ExpandParameters, 256)
{
    const Matrix m = { p.elements, p.scales, p.elementStride, p.scaleStride };
    act* row = p.output + (i64)blockIdx.x * p.outputColumns;
    const i32 end = least(p.columns, (i32)(blockIdx.y + 1) * 2048);
    for (i32 k = blockIdx.y * 2048 + threadIdx.x * CHUNK; k < end; k += 256 * CHUNK)
    {
        float w[CHUNK];
        load_weights(m, blockIdx.x, k, w);
#pragma unroll
        for (i32 i = 0; i < CHUNK; i += 8)
        {
            if (k + i >= p.outputColumns)
                break; // a longer chunk would reach into the next row, which another block writes
#ifdef ACT_BF16
            store_bf16x8(row + k + i, w + i);
#else
#pragma unroll
            for (i32 j = i; j < i + 8; j++)
                row[k + j] = w[j];
#endif
        }
    }
}
