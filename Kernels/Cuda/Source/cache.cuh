// Keys and values as the cache holds them.

enum { CACHE_ACT, CACHE_BF16, CACHE_U8, CACHE_F8E4M3 };

struct Cache
{
    u8* keys;      // [rows, keyValue dimension]
    u8* values;
    float* scales; // of bytes: [rows, 2 keyValue], or null
    i32 kind, rows, keyValue, dimension;
};

inline bool is_bytes(i32 kind) { return kind >= CACHE_U8; }

// A byte as a number that byte_scale multiplies.
inline float from_byte(i32 kind, u32 byte) { return kind == CACHE_U8 ? (float)((i32)byte - 128) : e4m3_over_256(byte); }

// Of eight bytes the one at i.
inline float from_bytes(i32 kind, uint2 v, i32 i) { return from_byte(kind, (i < 4 ? v.x : v.y) >> 8 * (i % 4) & 0xff); }

inline float byte_scale(i32 kind, const float* scales, i64 i) { return kind == CACHE_U8 ? scales[i] : 256 * scales[i]; }

inline float cached(const u8* base, i32 kind, i64 i, float scale)
{
    if (kind == CACHE_ACT)
        return to_float(((const act*)base)[i]);
    if (kind == CACHE_BF16)
        return to_float(((const bf16*)base)[i]);
    return from_byte(kind, base[i]) * scale;
}

// The nearest E4M3, of two equally near ones the even; 448 for all beyond it, NaN included. Below 2^-6 its steps are 2^-9.
inline u8 to_e4m3(float x)
{
    const float a = fminf(fabsf(x), 448);
    const u32 bits = __float_as_uint(a), code = a < 0.015625f ? (u32)rintf(a * 512) : (bits + 0x7ffff + (bits >> 20 & 1) >> 20) - (120 << 3);
    return (u8)(code | (__float_as_uint(x) >> 24 & 0x80));
}
