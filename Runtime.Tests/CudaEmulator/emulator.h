// The parts of the emulated driver.
#pragma once
#include "shared.h"
#include <cstdio>
#include <functional>

extern Emulator emulator_state;

// Runs a kernel to its end; null, or what it did wrong.
const char* run_grid(const char* name, void (*kernel)(const void*), const void* parameters, dim3 blocks, dim3 threads, size_t dynamic_bytes);

// Device memory: allocations that end where a page begins that nobody may touch.
void* memory_allocate(size_t bytes);
const char* memory_free(void* p); // null, or what was written outside it
bool memory_holds(const void* p, size_t bytes);
const char* memory_at(const void* p, char* text, size_t size); // what lies there, for people

// Queues the work of a library's call, which gives null or what was wrong; CUresult.
int emulator_enqueue(void* stream, void* what, std::function<const char*()> run);
