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

// Elements [k, k + CHUNK) of a row, k a multiple of CHUNK; zeros beyond its end.
inline void load_weights(const Matrix& m, i32 row, i32 k, float* w)
{
    const u8* elements = m.elements + (i64)row * m.elementStride;
#if FORM == FORM_F32
    const uint4 a = load16(elements + 4 * k), b = load16(elements + 4 * k + 16);
    w[0] = __uint_as_float(a.x), w[1] = __uint_as_float(a.y), w[2] = __uint_as_float(a.z), w[3] = __uint_as_float(a.w);
    w[4] = __uint_as_float(b.x), w[5] = __uint_as_float(b.y), w[6] = __uint_as_float(b.z), w[7] = __uint_as_float(b.w);
#elif FORM == FORM_F16 || FORM == FORM_BF16
    const uint4 a = load16(elements + 2 * k);
    const u32 v[4] = { a.x, a.y, a.z, a.w };
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
    const u8* scales = m.scales + (i64)row * m.scaleStride;
    const uint4 a = load16(elements + k);
    const u32 v[4] = { a.x, a.y, a.z, a.w };
    const float scale = to_float(scale_at(scales, k / 32));
#pragma unroll
    for (i32 i = 0; i < 16; i++)
        w[i] = scale * (float)(i8)(v[i / 4] >> (8 * (i % 4)));
#elif FORM == FORM_F8E4M3
    // Its bits, moved by one, are those of a binary16 that is 256 times smaller; NaN was refused. A row has one scale.
    const uint4 a = load16(elements + k);
    const u32 v[4] = { a.x, a.y, a.z, a.w };
    const float scale = 256 * *(const float*)(m.scales + (i64)row * m.scaleStride);
#pragma unroll
    for (i32 i = 0; i < 16; i++)
    {
        const u32 byte = v[i / 4] >> (8 * (i % 4));
        w[i] = scale * to_float(f16{ (u16)((byte & 0x80) << 8 | (byte & 0x7f) << 7) });
    }
#elif FORM == FORM_Q6_K
    // Of a row first the low four bits of all, as those of Q4_0 lie, then the high two; of its scales first the sixteen of each 256, then
    // what multiplies them.
    const u8* scales = m.scales + (i64)row * m.scaleStride;
    const i32 length = m.elementStride / 3 * 4;
    const uint4 a = load16(elements + k / 2);
    const uint2 b = load8(elements + length / 2 + k / 4);
    const u32 v[4] = { a.x, a.y, a.z, a.w };
    const float d = to_float(scale_at(scales + length / 16, k / 256));
    const float first = d * (float)(i8)scales[k / 16], second = d * (float)(i8)scales[k / 16 + 1];
#pragma unroll
    for (i32 i = 0; i < 16; i++)
    {
        const u32 byte = v[i / 4] >> (8 * (i % 4));
        w[i] = first * (float)((i32)((byte & 15) | (b.x >> (2 * i) & 3) << 4) - 32);
        w[i + 16] = second * (float)((i32)((byte >> 4 & 15) | (b.y >> (2 * i) & 3) << 4) - 32);
    }
#else
    const u8* scales = m.scales + (i64)row * m.scaleStride;
    const uint4 a = load16(elements + k / 2);
    const u32 v[4] = { a.x, a.y, a.z, a.w };
#if FORM == FORM_Q4_0
    const float scale = to_float(scale_at(scales, k / 32)), offset = -8 * scale;
#elif FORM == FORM_Q4_1
    const float scale = to_float(scale_at(scales, k / 16)), offset = to_float(scale_at(scales, k / 16 + 1));
#elif FORM == FORM_I4
    // A group's scale and zero point in a word. Groups are a power of two, which the strides tell: half a byte an element, four bytes a group.
    // Neither the product nor the sum below is rounded: zero point and element are integers below 32, a scale has 11 bits.
    const u32 h = ((const u32*)scales)[k >> (3 + __clz(m.scaleStride) - __clz(m.elementStride))];
    const float scale = to_float(f16{ (u16)h }), offset = -(to_float(f16{ (u16)(h >> 16) }) * scale);
#else
    // The header of 256 elements: scale and minimum as f16, then eight pairs of six bits that multiply them.
    const uint4 h = load16(scales + k / 256 * 16);
    const u32 low = h.y, middle = h.z, high = h.w;
    const i32 j = k / 32 % 8, at = 8 * (j & 3);
    u32 s, n;
    if (j < 4)
        s = low >> at & 63, n = middle >> at & 63;
    else
        s = (high >> at & 15) | (low >> at & 0xc0) >> 2, n = (high >> at >> 4 & 15) | (middle >> at & 0xc0) >> 2;
    const float scale = to_float(f16{ (u16)h.x }) * (float)s, offset = -(to_float(f16{ (u16)(h.x >> 16) }) * (float)n);
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
