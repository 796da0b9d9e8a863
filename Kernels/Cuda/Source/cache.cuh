// Keys and values as the cache holds them.

enum { CACHE_ACT, CACHE_BF16, CACHE_U8 };

struct Cache
{
    u8* keys;      // [rows, keyValue dimension]
    u8* values;
    float* scales; // of bytes: [rows, 2 keyValue], or null
    i32 kind, rows, keyValue, dimension;
};

inline float cached(const u8* base, i32 kind, i64 i, float scale)
{
    if (kind == CACHE_ACT)
        return to_float(((const act*)base)[i]);
    if (kind == CACHE_BF16)
        return to_float(((const bf16*)base)[i]);
    return ((i32)base[i] - 128) * scale;
}
