// How weight rows lie in device memory, by the macro FORM. A row's elements are read CHUNK at a time by one lane: as many as it takes to
// fill a 128-bit load. Scales lie apart from the elements, so that both are aligned.

#define FORM_F32 0
#define FORM_F16 1
#define FORM_BF16 2
#define FORM_Q8_0 3
#define FORM_Q4_0 4
#define FORM_Q4_1 5
#define FORM_Q4_K 6
#define FORM_F8E4M3 7
#define FORM_Q6_K 8
#define FORM_I4 9

#if FORM == FORM_Q8_0 || FORM == FORM_F8E4M3
#define CHUNK 16
#elif FORM >= FORM_Q4_0
#define CHUNK 32
#else
#define CHUNK 8
#endif

// elements: rows of elementStride bytes, each padded with zeros to 16 bytes; scales: rows of scaleStride bytes.
struct Matrix { const u8* elements; const u8* scales; i32 elementStride, scaleStride; };

inline f16 scale_at(const u8* scales, i32 i) { return ((const f16*)scales)[i]; }

// What lies in memory of elements [k, k + CHUNK) of a row, k a multiple of CHUNK; zeros beyond its end. Apart from what they stand for, so that the next
// ones can be on their way meanwhile.
struct Stored
{
    uint4 a;
#if FORM == FORM_F32
    uint4 b;
#elif FORM == FORM_Q6_K
    uint2 b;
    f16 d;
    i8 first, second;
#elif FORM == FORM_Q4_K
    uint4 header; // scale and minimum as f16, then eight pairs of six bits that multiply them
#elif FORM == FORM_F8E4M3
    float scale;
#elif FORM == FORM_I4
    u32 group;
#elif FORM == FORM_Q8_0 || FORM == FORM_Q4_0
    f16 scale;
#elif FORM == FORM_Q4_1
    f16 scale, offset;
#endif
};

inline Stored fetch_weights(const Matrix& m, i32 row, i32 k)
{
    const u8* elements = m.elements + (i64)row * m.elementStride;
#if FORM >= FORM_Q8_0
    const u8* scales = m.scales + (i64)row * m.scaleStride;
#endif
    Stored s;
#if FORM == FORM_F32
    s.a = load16(elements + 4 * k), s.b = load16(elements + 4 * k + 16);
#elif FORM == FORM_F16 || FORM == FORM_BF16
    s.a = load16(elements + 2 * k);
#elif FORM == FORM_Q8_0
    s.a = load16(elements + k);
    s.scale = scale_at(scales, k / 32);
#elif FORM == FORM_F8E4M3
    s.a = load16(elements + k);
    s.scale = *(const float*)scales; // a row's one
#elif FORM == FORM_Q6_K
    // Of a row first the low four bits of all, as those of Q4_0 lie, then the high two; of its scales first the sixteen of each 256, then
    // what multiplies them.
    const i32 length = m.elementStride / 3 * 4;
    s.a = load16(elements + k / 2);
    s.b = load8(elements + length / 2 + k / 4);
    s.d = scale_at(scales + length / 16, k / 256);
    s.first = (i8)scales[k / 16], s.second = (i8)scales[k / 16 + 1];
#else
    s.a = load16(elements + k / 2);
#if FORM == FORM_Q4_0
    s.scale = scale_at(scales, k / 32);
#elif FORM == FORM_Q4_1
    s.scale = scale_at(scales, k / 16), s.offset = scale_at(scales, k / 16 + 1);
#elif FORM == FORM_I4
    // A group's scale and zero point in a word. Groups are a power of two, which the strides tell: half a byte an element, four bytes a group.
    s.group = ((const u32*)scales)[k >> (3 + __clz(m.scaleStride) - __clz(m.elementStride))];
#else
    s.header = load16(scales + k / 256 * 16);
#endif
#endif
    return s;
}

// What they stand for.
inline void unpack_weights(const Stored& s, i32 k, float* w)
{
#if FORM != FORM_F32
    const u32 v[4] = { s.a.x, s.a.y, s.a.z, s.a.w };
#endif
#if FORM == FORM_F32
    w[0] = __uint_as_float(s.a.x), w[1] = __uint_as_float(s.a.y), w[2] = __uint_as_float(s.a.z), w[3] = __uint_as_float(s.a.w);
    w[4] = __uint_as_float(s.b.x), w[5] = __uint_as_float(s.b.y), w[6] = __uint_as_float(s.b.z), w[7] = __uint_as_float(s.b.w);
#elif FORM == FORM_F16 || FORM == FORM_BF16
#pragma unroll
    for (i32 i = 0; i < 4; i++)
    {
#if FORM == FORM_BF16
        w[2 * i] = __uint_as_float(v[i] << 16);
        w[2 * i + 1] = __uint_as_float(v[i] & 0xffff0000u);
#else
        w[2 * i] = to_float(f16{ (u16)v[i] });
        w[2 * i + 1] = to_float(f16{ (u16)(v[i] >> 16) });
#endif
    }
#elif FORM == FORM_Q8_0
    const float scale = to_float(s.scale);
#pragma unroll
    for (i32 i = 0; i < 16; i++)
        w[i] = scale * (float)(i8)(v[i / 4] >> (8 * (i % 4)));
#elif FORM == FORM_F8E4M3
    const float scale = 256 * s.scale; // NaN was refused
#pragma unroll
    for (i32 i = 0; i < 16; i++)
        w[i] = scale * e4m3_over_256(v[i / 4] >> (8 * (i % 4)));
#elif FORM == FORM_Q6_K
    const float d = to_float(s.d), first = d * (float)s.first, second = d * (float)s.second;
#pragma unroll
    for (i32 i = 0; i < 16; i++)
    {
        const u32 byte = v[i / 4] >> (8 * (i % 4));
        w[i] = first * (float)((i32)((byte & 15) | (s.b.x >> (2 * i) & 3) << 4) - 32);
        w[i + 16] = second * (float)((i32)((byte >> 4 & 15) | (s.b.y >> (2 * i) & 3) << 4) - 32);
    }
#else
#if FORM == FORM_Q4_0
    const float scale = to_float(s.scale), offset = -8 * scale;
#elif FORM == FORM_Q4_1
    const float scale = to_float(s.scale), offset = to_float(s.offset);
#elif FORM == FORM_I4
    // Neither the product nor the sum below is rounded: zero point and element are integers below 32, a scale has 11 bits.
    const float scale = to_float(f16{ (u16)s.group }), offset = -(to_float(f16{ (u16)(s.group >> 16) }) * scale);
#else
    const u32 low = s.header.y, middle = s.header.z, high = s.header.w;
    const i32 j = k / 32 % 8, at = 8 * (j & 3);
    u32 factor, minimum;
    if (j < 4)
        factor = low >> at & 63, minimum = middle >> at & 63;
    else
        factor = (high >> at & 15) | (low >> at & 0xc0) >> 2, minimum = (high >> at >> 4 & 15) | (middle >> at & 0xc0) >> 2;
    const float scale = to_float(f16{ (u16)s.header.x }) * (float)factor, offset = -(to_float(f16{ (u16)(s.header.x >> 16) }) * (float)minimum);
#endif
    // A block's first half lies in the low nibbles, its second half in the high ones.
#pragma unroll
    for (i32 i = 0; i < 16; i++)
    {
        const u32 byte = v[i / 4] >> (8 * (i % 4));
        w[i] = fmaf(scale, (float)(byte & 15), offset);
        w[i + 16] = fmaf(scale, (float)(byte >> 4 & 15), offset);
    }
#endif
}

inline void load_weights(const Matrix& m, i32 row, i32 k, float* w) { unpack_weights(fetch_weights(m, row, k), k, w); }
