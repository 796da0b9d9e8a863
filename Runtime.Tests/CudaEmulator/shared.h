// What the emulated driver and the kernels that it runs know of each other.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

// One struct for all modules; the driver fills it in before a module's kernels run.
struct Emulator
{
    uint3 thread; // of the fiber that runs
    dim3 threads;
    uint3 block;
    dim3 blocks;
    uint8_t* dynamic_shared;
    void (*barrier)(int line);
    // Deposits a lane's operands, waits for the warp, and gives all lanes' operands, 64 bytes each.
    const uint8_t* (*exchange)(unsigned mask, int site, const void* operands, size_t bytes);
    void* (*shared)(int line, size_t bytes);
    void (*fail)(const char* what, const void* address);
    void (*copy)(void* shared, const void* global); // cp.async of 16 bytes
    void (*commit)();
    void (*wait)(int pending);
    void (*dependency_wait)();
    void (*prefetch)(const void* p, int bytes);
};

// Beside each kernel, as NAME_info.
struct KernelInfo { unsigned parameters, threads, architecture; };
