using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>Pages with machine code, for the life of the process: written while they are not executable, executable once they are not writable.</summary>
internal static unsafe partial class ExecutableMemory
{
    private const int Read = 1, Write = 2, Execute = 4;       // PROT_*, the same on Linux and macOS
    private const uint Commit = 0x3000, ReadWrite = 4, ExecuteRead = 0x20; // MEM_COMMIT | MEM_RESERVE, PAGE_*

    /// <summary>Address of a copy that can be called, or null where the system grants none.</summary>
    public static byte* Create(ReadOnlySpan<byte> code)
    {
        try
        {
            return OperatingSystem.IsWindows() ? Windows(code) : OperatingSystem.IsLinux() || OperatingSystem.IsMacOS() ? Unix(code) : null;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return null;
        }
    }

    private static byte* Unix(ReadOnlySpan<byte> code)
    {
        // MAP_PRIVATE | MAP_ANONYMOUS
        var memory = MemoryMap(null, (nuint)code.Length, Read | Write, OperatingSystem.IsMacOS() ? 0x1002 : 0x22, -1, 0);
        if ((nint)memory == -1)
            return null;
        code.CopyTo(new Span<byte>(memory, code.Length));
        if (Protect(memory, (nuint)code.Length, Read | Execute) == 0)
            return memory;
        _ = Unmap(memory, (nuint)code.Length);
        return null;
    }

    private static byte* Windows(ReadOnlySpan<byte> code)
    {
        var memory = VirtualAlloc(null, (nuint)code.Length, Commit, ReadWrite);
        if (memory is null)
            return null;
        code.CopyTo(new Span<byte>(memory, code.Length));
        uint before;
        if (VirtualProtect(memory, (nuint)code.Length, ExecuteRead, &before) != 0)
            return memory;
        _ = VirtualFree(memory, 0, 0x8000); // MEM_RELEASE
        return null;
    }

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial byte* MemoryMap(byte* address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "mprotect")]
    private static partial int Protect(byte* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap")]
    private static partial int Unmap(byte* address, nuint length);

    [LibraryImport("kernel32")]
    private static partial byte* VirtualAlloc(byte* address, nuint size, uint type, uint protection);

    [LibraryImport("kernel32")]
    private static partial int VirtualProtect(byte* address, nuint size, uint protection, uint* before);

    [LibraryImport("kernel32")]
    private static partial int VirtualFree(byte* address, nuint size, uint type);
}
