// The parts of the emulated driver.
#pragma once
#include "shared.h"
#include <cstdio>
#include <functional>

Emulator* emulator_first(); // of the thread that runs blocks where there is but one

// Runs a kernel to its end; null, or what it did wrong. Of one that waits for the kernel before it, every block is first run as far as its wait with
// device memory out of reach: whatever it touches before, it might touch while that one still runs.
const char* run_grid(const char* name, void (*kernel)(const void*), const void* parameters, size_t parameter_bytes, dim3 blocks, dim3 threads, size_t dynamic_bytes, bool waits);

// The compute capability that the device says it has.
extern int emulated_capability;

// Device memory: allocations that end where a page begins that nobody may touch.
void* memory_allocate(size_t bytes, int device);
void memory_select(int device); // from here on only this device's memory may be touched; -1: any
const char* memory_free(void* p); // null, or what was written outside it
bool memory_holds(const void* p, size_t bytes);
bool memory_knows(const void* p); // whether it lies in an allocation or on the pages around one
const char* memory_at(const void* p, char* text, size_t size); // what lies there, for people

// Queues the work of a library's call, which gives null or what was wrong; CUresult. `what` tells whose it is; a library that
// changes to a device for its call names it.
int emulator_enqueue(void* stream, void* what, std::function<const char*()> run, int device = -1);

int emulator_device_of(void* stream);

// Runs a stream's work up to the first call of `what`, and that; whether there was one and nothing failed.
bool emulator_meet(void* stream, void* what);
