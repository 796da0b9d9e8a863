// Norm, and ResidualNorm with the junction of CMRM in it: x += delta; capture; h . v; h -= scale * v; h . v again; features added; norm. A block a token; the
// row stays in shared memory as floats from the residual add to the norm, so that steering meets it unrounded. A token that is not
// steered reads a slot number, nothing more, and requests with different vectors share a launch.
#include "common.cuh"

struct NormParameters
{
    act* output;            // [tokens, columns]
    act* x;                 // [tokens, columns]: input; with delta also where the sum goes
    const act* delta;       // or null
    const float* weight;    // [columns]
    const float* bias;      // [columns] or null
    const i32* steerSlot;   // [tokens] or null
    const float* steerScale;
    const float* vectors;   // [vectorRows, columns]
    const i32* captureSlot; // [tokens] or null
    float* captures;        // [captureRows, columns]
    const i32* productSlot; // [tokens] or null
    float* products;        // [productRows, 2 layers]
    Status* status;
    i32 columns, layer, layers, vectorRows, captureRows, productRows;
    float epsilon;
    i32 centered;
    const i32* rows;        // [tokens] or null
    const act* added;       // [addedRows, columns]: row -1 - rows[token] is added where rows is negative
    i32 addedRows;
};

// The row of a slot's vector at this junction; negative for none.
inline i32 slot_row(const NormParameters& p, i32 slot, i32 rows, u32 code)
{
    if (slot < 0)
        return -1;
    const i64 row = (i64)slot * p.layers + p.layer - 1;
    if (row < rows)
        return (i32)row;
    report(p.status, code, slot, rows / p.layers, rows);
    return -1;
}

inline float dot(const float* h, const float* v, i32 columns, float* scratch)
{
    float sum = 0;
    for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
        sum = fmaf(h[i], v[i], sum);
    return block_sum(sum, scratch);
}

// Threads keep to their own columns until the sums, so that only block_sum needs barriers.
inline void meet(const NormParameters& p, float* h, float* scratch)
{
    const i32 token = blockIdx.x, columns = p.columns;
    if (p.captureSlot)
    {
        const i32 row = slot_row(p, p.captureSlot[token], p.captureRows, CAPTURE_SLOT);
        if (row >= 0)
            for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
                p.captures[(i64)row * columns + i] = h[i];
    }
    const i32 row = p.steerSlot ? slot_row(p, p.steerSlot[token], p.vectorRows, STEER_SLOT) : -1;
    if (row < 0)
        return;
    const float* v = p.vectors + (i64)row * columns;
    const float scale = p.steerScale[token];
    const i32 product = p.productSlot ? p.productSlot[token] : -1;
    const bool observed = product >= 0 && product < p.productRows;
    float* products = p.products + ((i64)product * p.layers + p.layer - 1) * 2;
    if (observed)
    {
        const float before = dot(h, v, columns, scratch);
        if (threadIdx.x == 0)
            products[0] = before;
    }
    for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
        h[i] -= scale * v[i];
    if (observed)
    {
        const float after = dot(h, v, columns, scratch);
        if (threadIdx.x == 0)
            products[1] = after;
    }
}

// An image's features of a layer (deepstack) onto its tokens.
inline void add_features(const NormParameters& p, float* h)
{
    const i32 row = -1 - p.rows[blockIdx.x];
    if (row >= p.addedRows && threadIdx.x == 0)
        report(p.status, ADDED_ROW, row, p.addedRows);
    if (row < 0 || row >= p.addedRows)
        return;
    for (i32 i = threadIdx.x; i < p.columns; i += blockDim.x)
        h[i] += to_float(p.added[(i64)row * p.columns + i]);
}

KERNEL_EARLY(norm_rows, NormParameters, 256)
{
    if (blockIdx.x == 0 && threadIdx.x == 0)
        prefetch(p.weight, sizeof(float) * p.columns); // since its last use a step's weights went through the cache
    dependency_wait();
    DYNAMIC_SHARED(memory);
    SHARED(float, scratch, 32);
    float* h = (float*)memory; // [columns]
    const i32 columns = p.columns;
    act* x = p.x + (i64)blockIdx.x * columns;
    act* output = p.output + (i64)blockIdx.x * columns;
    if (p.delta)
    {
        const act* delta = p.delta + (i64)blockIdx.x * columns;
        for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
            h[i] = to_float(x[i]) + to_float(delta[i]);
        if (p.layer > 0)
            meet(p, h, scratch);
        if (p.rows)
            add_features(p, h);
        for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
            x[i] = to_act(h[i]);
    }
    else
    {
        for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
            h[i] = to_float(x[i]);
    }
    float mean = 0, square = 0;
    if (p.centered)
    {
        for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
            mean += h[i];
        mean = block_sum(mean, scratch) / columns;
    }
    for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
        square = fmaf(h[i] - mean, h[i] - mean, square);
    const float inverse = 1 / sqrtf(block_sum(square, scratch) / columns + p.epsilon);
    for (i32 i = threadIdx.x; i < columns; i += blockDim.x)
    {
        const float y = (h[i] - mean) * inverse * p.weight[i];
        output[i] = to_act(p.bias ? y + p.bias[i] : y);
    }
}
