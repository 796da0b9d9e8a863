// Small ops that move rows: TakeRows, BlendRows, the vision transformer's patches, gating where gates and values were multiplied apart, capping.
#include "common.cuh"
#include "linear.cuh"

struct TakeParameters
{
    act* output;      // [blocks, columns]
    const act* input; // [inputRows, columns]
    const i32* rows;
    Status* status;
    i32 columns, inputRows;
};

KERNEL(take_rows, TakeParameters, 128)
{
    const i32 row = p.rows[blockIdx.x];
    if (row < 0 || row >= p.inputRows)
    {
        if (threadIdx.x == 0)
            report(p.status, TAKE_ROW, row, p.inputRows);
        return;
    }
    for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
        p.output[(i64)blockIdx.x * p.columns + i] = p.input[(i64)row * p.columns + i];
}

struct BlendParameters
{
    act* output;          // [count, columns]
    const act* input;     // [inputRows, columns]
    const i32* rows;      // [terms, count]
    const float* weights; // [terms, count]
    Status* status;
    i32 columns, inputRows, terms, count;
};

// A block a row; terms in their order.
KERNEL(blend_rows, BlendParameters, 128)
{
    const i32 row = blockIdx.x;
    for (i32 g = 0; g < p.terms; g++)
    {
        const i32 source = p.rows[(i64)g * p.count + row];
        if (source < 0 || source >= p.inputRows)
        {
            if (threadIdx.x == 0)
                report(p.status, BLEND_ROW, source, p.inputRows);
            return;
        }
    }
    for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
    {
        float sum = 0;
        for (i32 g = 0; g < p.terms; g++)
            sum = fmaf(p.weights[(i64)g * p.count + row], to_float(p.input[(i64)p.rows[(i64)g * p.count + row] * p.columns + i]), sum);
        p.output[(i64)row * p.columns + i] = to_act(sum);
    }
}

struct CapParameters
{
    act* x; // [count]
    i64 count;
    float cap;
};

KERNEL(soft_cap, CapParameters, 256)
{
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += (i64)gridDim.x * blockDim.x)
        p.x[i] = to_act(p.cap * tanhf(to_float(p.x[i]) / p.cap));
}

struct PatchParameters
{
    act* output;             // of the columns: [images side side, channels patch patch]; of the placing: [images length, width]
    const float* pixels;     // [images, channels, size, size]
    const act* projected;    // [images side side, width]
    const float* classToken; // [width] or null
    const float* positions;  // [length, width]
    i32 size, patch, side, channels, width, length;
};

// Pixels of a patch in channel, y, x order: a block a patch.
KERNEL(patch_columns, PatchParameters, 128)
{
    const i32 cells = p.side * p.side, image = blockIdx.x / cells, at = blockIdx.x % cells;
    const i32 top = at / p.side * p.patch, left = at % p.side * p.patch, area = p.patch * p.patch, columns = p.channels * area;
    for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
    {
        const i32 c = i / area, y = i % area / p.patch, x = i % p.patch;
        p.output[(i64)blockIdx.x * columns + i] = to_act(p.pixels[((i64)(image * p.channels + c) * p.size + top + y) * p.size + left + x]);
    }
}

// Class token or projected patch, plus its position: a block a row.
KERNEL(patch_place, PatchParameters, 128)
{
    const i32 image = blockIdx.x / p.length, s = blockIdx.x % p.length, first = p.length - p.side * p.side;
    const act* patch = p.projected + ((i64)image * p.side * p.side + s - first) * p.width;
    for (i32 i = threadIdx.x; i < p.width; i += blockDim.x)
        p.output[(i64)blockIdx.x * p.width + i] = to_act((s < first ? p.classToken[i] : to_float(patch[i])) + p.positions[(i64)s * p.width + i]);
}

struct GateParameters
{
    act* output;     // [tokens, columns]
    const act* sums; // [tokens, 2 columns]
    i32 columns, epilogue;
};

KERNEL(gate, GateParameters, 256)
{
    const i32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.columns)
        return;
    const act* sums = p.sums + (i64)blockIdx.y * 2 * p.columns;
    p.output[(i64)blockIdx.y * p.columns + i] = to_act(activate(p.epilogue, to_float(sums[i])) * to_float(sums[p.columns + i]));
}
