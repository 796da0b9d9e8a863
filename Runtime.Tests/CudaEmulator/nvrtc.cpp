// NVRTC's entry points: a program is compiled by g++ against kernel.h, and its machine code is a shared library.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

#ifndef EMULATOR_FOLDER
#error EMULATOR_FOLDER names the folder of kernel.h, EMULATOR_VERSION a number that changes with it
#endif

namespace
{
struct Program { std::string source, name, log; std::vector<char> image; };

std::string read(const std::string& path)
{
    std::string text;
    if (FILE* f = fopen(path.c_str(), "rb"))
    {
        char buffer[1 << 16];
        while (size_t n = fread(buffer, 1, sizeof buffer, f))
            text.append(buffer, n);
        fclose(f);
    }
    return text;
}
}

API nvrtcVersion(int* major, int* minor) { *major = 12; *minor = EMULATOR_VERSION; return 0; }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int result) { return result == 6 ? "NVRTC_ERROR_COMPILATION" : result ? "NVRTC_ERROR" : "NVRTC_SUCCESS"; }
API nvrtcGetNumSupportedArchs(int* count) { *count = 2; return 0; }
API nvrtcGetSupportedArchs(int* known) { known[0] = 80; known[1] = 90; return 0; }

API nvrtcCreateProgram(Program** p, const char* source, const char* name, int, const char**, const char**)
{
    *p = new Program { source, name ? name : "kernel", {}, {} };
    return 0;
}

API nvrtcDestroyProgram(Program** p) { delete *p; *p = nullptr; return 0; }

API nvrtcCompileProgram(Program* p, int count, const char** options)
{
    char folder[] = "/tmp/trimtab-nvrtc-XXXXXX";
    if (!mkdtemp(folder))
        return 1;
    const std::string at = folder, source = at + "/kernel.cpp", image = at + "/kernel.so", log = at + "/log";
    FILE* f = fopen(source.c_str(), "wb");
    fwrite(p->source.data(), 1, p->source.size(), f);
    fclose(f);
#if defined(__x86_64__)
    const char* machine = "-march=native ";
#else
    const char* machine = "";
#endif
    // -O2 and no contraction: sums round as --fmad=false says; fmaf is the processor's own.
    std::string command = std::string("g++ -std=c++17 -O2 -w -ffp-contract=off -fno-math-errno -shared -fPIC -fvisibility=hidden -fno-strict-aliasing ")
        + machine + "-include " EMULATOR_FOLDER "/kernel.h ";
    for (int i = 0; i < count; i++)
        if (strncmp(options[i], "-D", 2) == 0)
            command += std::string("'") + options[i] + "' ";
        else if (const char* sm = strstr(options[i], "architecture=sm_"))
            command += "-D__CUDA_ARCH__=" + std::to_string(10 * atoi(sm + 16)) + " ";
    command += source + " -o " + image + " 2> " + log;
    const int failed = system(command.c_str());
    p->log = read(log);
    if (!failed)
    {
        const std::string bytes = read(image);
        p->image.assign(bytes.begin(), bytes.end());
    }
    for (const std::string& path : { source, image, log })
        unlink(path.c_str());
    rmdir(folder);
    return failed ? 6 : 0;
}

API nvrtcGetCUBINSize(Program* p, size_t* bytes) { *bytes = p->image.size(); return 0; }
API nvrtcGetCUBIN(Program* p, char* image) { memcpy(image, p->image.data(), p->image.size()); return 0; }
API nvrtcGetPTXSize(Program* p, size_t* bytes) { return nvrtcGetCUBINSize(p, bytes); }
API nvrtcGetPTX(Program* p, char* image) { return nvrtcGetCUBIN(p, image); }
API nvrtcGetProgramLogSize(Program* p, size_t* bytes) { *bytes = p->log.size() + 1; return 0; }
API nvrtcGetProgramLog(Program* p, char* log) { strcpy(log, p->log.c_str()); return 0; }
