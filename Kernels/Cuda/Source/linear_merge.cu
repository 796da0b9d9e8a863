// Sums that several blocks took of a row's columns, added in the columns' order. A thread an output.
#include "common.cuh"
#include "linear.cuh"

KERNEL(linear_merge, LinearParameters, 256)
{
    const i32 row = blockIdx.x * blockDim.x + threadIdx.x, token = blockIdx.y;
    if (row >= p.rows - p.gate) // gated: the second half of the rows are values
        return;
    float sum = 0, value = 0;
    for (i32 s = 0; s < p.splits; s++)
    {
        const float* partial = p.partial + ((i64)s * p.tokens + token) * p.rows + row;
        sum += partial[0];
        if (p.gate)
            value += partial[p.gate];
    }
    store_output(p, token, row, sum, value);
}
