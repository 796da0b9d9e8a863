// What the emulated driver and the kernels that it runs know of each other.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

// Of each thread that runs blocks; its functions are told which.
struct Emulator
{
    uint3 thread; // of the fiber that runs
    dim3 threads;
    uint3 block;
    dim3 blocks;
    uint8_t* dynamic_shared;
    void (*barrier)(Emulator* e, int line);
    // Deposits a lane's operands, waits for the warp, and gives all lanes' operands, 64 bytes each.
    const uint8_t* (*exchange)(Emulator* e, unsigned mask, int site, const void* operands, size_t bytes);
    void* (*shared)(Emulator* e, int line, size_t bytes);
    void (*fail)(Emulator* e, const char* what, const void* address);
    void (*copy)(Emulator* e, void* shared, const void* global); // cp.async of 16 bytes
    void (*commit)(Emulator* e);
    void (*wait)(Emulator* e, int pending);
    void (*dependency_wait)(Emulator* e);
    void (*prefetch)(Emulator* e, const void* p, int bytes);
};

// Beside each kernel, as NAME_info.
struct KernelInfo { unsigned parameters, threads, architecture, early; };
