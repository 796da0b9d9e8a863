using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

// The kernels' parameter structs, field by field as in Source/*.cu: the same names but for the first letter, and every pointer a number.
// A test has the compiler compare sizes and offsets.
#pragma warning disable CS1591

[StructLayout(LayoutKind.Sequential)]
internal struct LinearParameters
{
    public nint Output, Input, Elements, Scales, Bias, Partial, Tiles, Experts;
    public int ElementStride, ScaleStride, Tokens, Columns, Rows, FirstRow, OutputColumns, Gate, Epilogue, Depth, Splits;
}

[StructLayout(LayoutKind.Sequential)]
internal struct ExpandParameters
{
    public nint Output, Elements, Scales;
    public int ElementStride, ScaleStride, Columns, OutputColumns;
}

[StructLayout(LayoutKind.Sequential)]
internal struct NormParameters
{
    public nint Output, X, Delta, Weight, Bias, SteerSlot, SteerScale, Vectors, CaptureSlot, Captures, ProductSlot, Products, Status;
    public int Columns, Layer, Layers, VectorRows, CaptureRows, ProductRows;
    public float Epsilon;
    public int Centered;
    public nint Rows, Added;
    public int AddedRows;
}

[StructLayout(LayoutKind.Sequential)]
internal struct EmbedParameters
{
    public nint Output, Features, Rows, Elements, Scales, Status;
    public int ElementStride, ScaleStride, Columns, FirstRow, TableRows, AllRows, FeatureRows;
    public float Scale;
}

[StructLayout(LayoutKind.Sequential)]
internal struct TakeParameters
{
    public nint Output, Input, Rows, Status;
    public int Columns, InputRows;
}

[StructLayout(LayoutKind.Sequential)]
internal struct BlendParameters
{
    public nint Output, Input, Rows, Weights, Status;
    public int Columns, InputRows, Terms, Count;
}

[StructLayout(LayoutKind.Sequential)]
internal struct CapParameters
{
    public nint X;
    public long Count;
    public float Cap;
}

[StructLayout(LayoutKind.Sequential)]
internal struct ExpertsParameters
{
    public nint Output, Input, Scores, Gathered, Results, Share, Expert, Place, Tiles, Status;
    public int Tokens, Columns, Experts, Used, Normalised, TileTokens, TileCount;
}

[StructLayout(LayoutKind.Sequential)]
internal struct Tile
{
    public int Expert, First, End, Unused;
}

[StructLayout(LayoutKind.Sequential)]
internal struct ExpertRows
{
    public nint Elements, Scales;
}

[StructLayout(LayoutKind.Sequential)]
internal struct PatchParameters
{
    public nint Output, Pixels, Projected, ClassToken, Positions;
    public int Size, Patch, Side, Channels, Width, Length;
}

[StructLayout(LayoutKind.Sequential)]
internal struct GateParameters
{
    public nint Output, Sums;
    public int Columns, Epilogue;
}

[StructLayout(LayoutKind.Sequential)]
internal struct DrawParameters
{
    public nint Tokens, Logits, Numbers, Settings, Edits, Scores, Weights, Highest, Status;
    public int Vocabulary, EditRows, Shift;
}

[StructLayout(LayoutKind.Sequential)]
internal struct Cache
{
    public nint Keys, Values, Scales;
    public int Kind, Rows, KeyValue, Dimension;
}

[StructLayout(LayoutKind.Sequential)]
internal struct RopeParameters
{
    public nint Qkv, Rotary, StoreRow, Status;
    public Cache Cache;
    public int Query, Rotated;
    public nint QueryNorm, KeyNorm;
    public float NormEpsilon;
}

[StructLayout(LayoutKind.Sequential)]
internal struct AttendParameters
{
    public nint Output, Qkv, Sequence, Position, Pages, SpanFirst, SpanLast, Partial, Status;
    public Cache Cache;
    public int Tokens, Query, Sequences, PageColumns, PageSize, Window, Splits, Length;
    public float Scale, SoftCap;
}

/// <summary>What a kernel says went wrong; see common.cuh.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Status
{
    public uint Code;
    public int Value, Count, Extra;

    public readonly string Message => Code switch
    {
        1 => $"Embed: row {Value} of {Count}",
        2 => $"Embed: feature {Value} of {Count}",
        3 => $"TakeRows: row {Value} of {Count}",
        4 => $"RopeStore: store row {Value} of {Count}",
        5 => $"ResidualNorm: steer slot {Value} of {Count} ({Extra} rows)",
        6 => $"ResidualNorm: capture slot {Value} of {Count} ({Extra} rows)",
        7 => $"AttendPaged: sequence {Value} of {Count}",
        8 => $"AttendPaged: position {Value} of {Count}",
        9 => $"AttendPaged: position {Value} of sequence {Extra} is in no page of the cache, which has {Count} pages",
        10 => $"AttendPaged: a span of positions {Count} to {Extra} around position {Value}",
        11 => $"ResidualNorm: feature {Value} of {Count}",
        12 => $"BlendRows: row {Value} of {Count}",
        13 => $"Experts: a router's score of token {Value} of {Count} is no number",
        14 => $"Draw: edit {Value} of {Count}, of row {Extra}, or its token is not there",
        _ => $"a kernel reported {Code}: {Value}, {Count}, {Extra}",
    };
}
