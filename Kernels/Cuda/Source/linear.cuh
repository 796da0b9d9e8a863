// What the matrix kernels share: parameters, which tokens and weights a block multiplies, and epilogues.

// Of a mixture of experts: tokens [first, end) of one expert; none where they are equal.
struct Tile { i32 expert, first, end, unused; };

// Where an expert's rows lie; see forms.cuh. Null where the expert has none in this form.
struct ExpertRows { const u8* elements; const u8* scales; };

struct LinearParameters
{
    act* output;          // [tokens, outputColumns]
    const act* input;     // [tokens, columns]
    const u8* elements;   // the part's rows; see forms.cuh
    const u8* scales;
    const float* bias;    // of the whole weight's rows, or null
    float* partial;       // [splits, tokens, rows]: sums of a part of the columns each, or null
    const Tile* tiles;    // null, or what each block of tokens is in a mixture of experts
    const ExpertRows* experts;
    i32 elementStride, scaleStride;
    i32 tokens, columns;
    i32 rows;             // outputs of this launch
    i32 firstRow;         // bias and output column of the first
    i32 outputColumns;
    i32 gate;             // 0, or how many rows after a gate's row its value's lies
    i32 epilogue;
    i32 depth, splits;    // columns a split, and how many: of linear_mma and linear_merge
};

// What a block multiplies: tokens [first, end).
struct Share { const u8* elements; const u8* scales; i32 first, end; };

inline Share share_of(const LinearParameters& p, i32 tile, i32 tokens)
{
    if (!p.tiles)
        return { p.elements, p.scales, tile * tokens, least((tile + 1) * tokens, p.tokens) };
    const Tile t = p.tiles[tile];
    const ExpertRows rows = p.experts[t.expert];
    return { rows.elements, rows.scales, t.first, rows.elements ? t.end : t.first };
}

// Kernels/Device.cs, Epilogue.
enum { NONE, GELU, GELU_TANH, QUICK_GELU, SILU_GATE, GELU_TANH_GATE, SILU };

inline float activate(i32 epilogue, float x)
{
    switch (epilogue)
    {
        case GELU: return x * 0.5f * (1 + erff(x * 0.70710678118654752f));
        case GELU_TANH:
        case GELU_TANH_GATE: return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
        case QUICK_GELU: return x / (1 + expf(-1.702f * x));
        case SILU_GATE:
        case SILU: return x / (1 + expf(-x));
        default: return x;
    }
}

// Sums of a row (and, gated, of its value's row) to the output.
inline void store_output(const LinearParameters& p, i32 token, i32 row, float sum, float value)
{
    const i32 column = p.firstRow + row;
    if (p.bias)
        sum += p.bias[column];
    float y = activate(p.epilogue, sum);
    if (p.gate)
        y *= p.bias ? value + p.bias[column + p.gate] : value;
    p.output[(i64)token * p.outputColumns + column] = to_act(y);
}
