// cuBLASLt's entry points: d = alpha . op(a) . op(b) + beta . c, column-major, summed in double and rounded once. What is not used is refused.
#include "emulator.h"
#include <cmath>
#include <cstring>
#include <memory>

#define API extern "C" __attribute__((visibility("default"))) int

namespace
{
enum { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { FLOAT = 0, BFLOAT16 = 14, COMPUTE_FLOAT = 68 };

struct Desc { int transposed_a = 0, transposed_b = 0; };
struct Layout { int type; uint64_t rows, columns; int64_t stride; };
struct Preference { uint64_t workspace = 0; uint32_t alignment[4] = { 256, 256, 256, 256 }; };
struct Algorithm { uint64_t mark, alignment, rows, columns, depth, rest[3]; };
struct Result { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };

size_t size_of(int type) { return type == FLOAT ? 4 : 2; }
size_t bytes_of(const Layout& l) { return ((l.columns - 1) * l.stride + l.rows) * size_of(l.type); }

float at(const void* p, const Layout& l, uint64_t row, uint64_t column)
{
    const uint64_t i = column * l.stride + row;
    if (l.type == FLOAT)
        return ((const float*)p)[i];
    const uint32_t bits = (uint32_t)((const uint16_t*)p)[i] << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

void put(void* p, const Layout& l, uint64_t row, uint64_t column, float v)
{
    const uint64_t i = column * l.stride + row;
    if (l.type == FLOAT)
    {
        ((float*)p)[i] = v;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &v, 4);
    ((uint16_t*)p)[i] = std::isnan(v) ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// op(a) is [m, k], op(b) [k, n], d [m, n].
bool fit(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d, uint64_t* m, uint64_t* n, uint64_t* k)
{
    *m = d.rows, *n = d.columns, *k = desc.transposed_a ? a.rows : a.columns;
    return (desc.transposed_a ? a.columns : a.rows) == *m && (desc.transposed_b ? b.columns : b.rows) == *k && (desc.transposed_b ? b.rows : b.columns) == *n
        && c.rows == d.rows && c.columns == d.columns && c.type == d.type && a.type == b.type && (d.type == a.type || d.type == FLOAT);
}
}

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 120402; }

extern "C" __attribute__((visibility("default"))) const char* cublasLtGetStatusName(int status)
{
    return status == SUCCESS ? "CUBLAS_STATUS_SUCCESS" : status == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : status == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_EXECUTION_FAILED";
}

API cublasLtCreate(void** handle) { *handle = malloc(1); return SUCCESS; }
API cublasLtDestroy(void* handle) { free(handle); return SUCCESS; }

API cublasLtMatmulDescCreate(Desc** desc, int compute, int scale)
{
    if (compute != COMPUTE_FLOAT || scale != FLOAT)
        return NOT_SUPPORTED;
    *desc = new Desc;
    return SUCCESS;
}

API cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const int* value, size_t bytes)
{
    if (bytes != 4 || (*value != 0 && *value != 1))
        return INVALID_VALUE;
    if (attribute == 3)
        desc->transposed_a = *value;
    else if (attribute == 4)
        desc->transposed_b = *value;
    else
        return NOT_SUPPORTED;
    return SUCCESS;
}

API cublasLtMatmulDescDestroy(Desc* desc) { delete desc; return SUCCESS; }

API cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride)
{
    if (type != FLOAT && type != BFLOAT16)
        return NOT_SUPPORTED;
    if (rows == 0 || columns == 0 || stride < (int64_t)rows)
        return INVALID_VALUE;
    *layout = new Layout { type, rows, columns, stride };
    return SUCCESS;
}

API cublasLtMatrixLayoutDestroy(Layout* layout) { delete layout; return SUCCESS; }
API cublasLtMatmulPreferenceCreate(Preference** preference) { *preference = new Preference; return SUCCESS; }

API cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t bytes)
{
    if (attribute == 1 && bytes == 8)
        memcpy(&preference->workspace, value, 8);
    else if (attribute >= 5 && attribute <= 8 && bytes == 4)
        memcpy(&preference->alignment[attribute - 5], value, 4);
    else
        return INVALID_VALUE;
    return SUCCESS;
}

API cublasLtMatmulPreferenceDestroy(Preference* preference) { delete preference; return SUCCESS; }

// One algorithm for every shape but those whose 16-bit columns do not lie on 4 bytes, of which a GPU has none either.
API cublasLtMatmulAlgoGetHeuristic(void*, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d, Preference* preference, int requested, Result* results, int* returned)
{
    uint64_t m, n, k;
    *returned = 0;
    if (requested < 1 || !fit(*desc, *a, *b, *c, *d, &m, &n, &k))
        return INVALID_VALUE;
    for (const Layout* l : { a, b, d })
        if (size_of(l->type) == 2 && l->stride % 2)
            return NOT_SUPPORTED;
    uint32_t alignment = 256;
    for (uint32_t one : preference->alignment)
        alignment = one < alignment ? one : alignment;
    *results = { { 0x7461656c, alignment, m, n, k, {} }, preference->workspace < 64 ? 0 : (size_t)64, 0, 1, {} };
    *returned = 1;
    return SUCCESS;
}

API cublasLtMatmul(void* handle, Desc* desc, const float* alpha, const void* a, Layout* la, const void* b, Layout* lb, const float* beta, const void* c, Layout* lc,
    void* d, Layout* ld, const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream)
{
    uint64_t m, n, k;
    if (!handle || !fit(*desc, *la, *lb, *lc, *ld, &m, &n, &k) || !algorithm || algorithm->mark != 0x7461656c || algorithm->rows != m || algorithm->columns != n || algorithm->depth != k)
        return INVALID_VALUE;
    for (const void* p : { a, b, c, (const void*)d })
        if ((uintptr_t)p % algorithm->alignment)
            return INVALID_VALUE; // a GPU would read beside it
    const Desc t = *desc;
    const Layout A = *la, B = *lb, C = *lc, D = *ld;
    const float scale = *alpha, kept = *beta;
    const int error = emulator_enqueue(stream, handle, [=]() -> const char*
    {
        if (!memory_holds(a, bytes_of(A)) || !memory_holds(b, bytes_of(B)) || !memory_holds(d, bytes_of(D)) || (kept != 0 && !memory_holds(c, bytes_of(C))))
            return "cublasLtMatmul of a matrix that is not within an allocation";
        if (workspace_bytes && !memory_holds(workspace, workspace_bytes))
            return "cublasLtMatmul with a workspace that is not within an allocation";
        memset(workspace, 0xff, workspace_bytes);
        std::unique_ptr<float[]> column(new float[k]);
        for (uint64_t j = 0; j < n; j++)
        {
            for (uint64_t i = 0; i < k; i++)
                column[i] = t.transposed_b ? at(b, B, j, i) : at(b, B, i, j);
            for (uint64_t i = 0; i < m; i++)
            {
                double sum = 0;
                for (uint64_t l = 0; l < k; l++)
                    sum += (double)(t.transposed_a ? at(a, A, l, i) : at(a, A, i, l)) * column[l];
                put(d, D, i, j, (float)(scale * sum + (kept != 0 ? kept * at(c, C, i, j) : 0)));
            }
        }
        return nullptr;
    });
    return error ? EXECUTION_FAILED : SUCCESS;
}
