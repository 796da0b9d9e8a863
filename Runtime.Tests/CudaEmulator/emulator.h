// The parts of the emulated driver.
#pragma once
#include "shared.h"
#include <cstdio>
#include <functional>

extern Emulator emulator_state;

// Runs a kernel to its end; null, or what it did wrong.
const char* run_grid(const char* name, void (*kernel)(const void*), const void* parameters, dim3 blocks, dim3 threads, size_t dynamic_bytes);

// Device memory: allocations that end where a page begins that nobody may touch.
void* memory_allocate(size_t bytes, int device);
void memory_select(int device); // from here on only this device's memory may be touched; -1: any
const char* memory_free(void* p); // null, or what was written outside it
bool memory_holds(const void* p, size_t bytes);
const char* memory_at(const void* p, char* text, size_t size); // what lies there, for people

// Queues the work of a library's call, which gives null or what was wrong; CUresult. `what` tells whose it is; a library that
// changes to a device for its call names it.
int emulator_enqueue(void* stream, void* what, std::function<const char*()> run, int device = -1);

int emulator_device_of(void* stream);

// Runs a stream's work up to the first call of `what`, and that; whether there was one and nothing failed.
bool emulator_meet(void* stream, void* what);
