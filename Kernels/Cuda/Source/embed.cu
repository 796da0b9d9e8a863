// A token's row of the table, or an image feature's row: splicing costs no extra pass.
#include "common.cuh"
#include "forms.cuh"

struct EmbedParameters
{
    act* output;         // [tokens, columns]
    const act* features; // [featureRows, columns] or null
    const i32* rows;     // [tokens]; -1 - row of the features where negative
    const u8* elements;
    const u8* scales;
    Status* status;
    i32 elementStride, scaleStride;
    i32 columns;
    i32 firstRow, tableRows; // rows [firstRow, firstRow + tableRows) of allRows lie in this part of the table
    i32 allRows, featureRows;
    float scale;             // of the table's rows
};

KERNEL(embed, EmbedParameters, 128)
{
    const i32 row = p.rows[blockIdx.x];
    act* output = p.output + (i64)blockIdx.x * p.columns;
    if (row < 0)
    {
        const i32 feature = -1 - row;
        if (feature >= p.featureRows)
        {
            if (threadIdx.x == 0)
                report(p.status, EMBED_FEATURE, feature, p.featureRows);
            return;
        }
        const act* source = p.features + (i64)feature * p.columns;
        if (p.firstRow == 0) // the first part's launch does it for all
            for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
                output[i] = source[i];
        return;
    }
    if (row >= p.allRows)
    {
        if (threadIdx.x == 0)
            report(p.status, EMBED_ROW, row, p.allRows);
        return;
    }
    if (row < p.firstRow || row >= p.firstRow + p.tableRows)
        return;
    const Matrix m = { p.elements, p.scales, p.elementStride, p.scaleStride };
    for (i32 k = threadIdx.x * CHUNK; k < p.columns; k += blockDim.x * CHUNK)
    {
        float w[CHUNK];
        load_weights(m, row - p.firstRow, k, w);
#pragma unroll
        for (i32 i = 0; i < CHUNK; i++)
            if (k + i < p.columns)
                output[k + i] = to_act(w[i] * p.scale);
    }
}
