// Small ops that move rows: TakeRows, the vision transformer's patches, and gating where gates and values were multiplied apart.
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
