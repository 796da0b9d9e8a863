using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Trimtab.Kernels.Cpu;

internal sealed unsafe partial class EmittedDot
{
    /// <summary>Sums that a peak kernel has: more than four to five cycles of latency on two ports can hide.</summary>
    public const int PeakSums = 14;

    private readonly nint[] _peak = new nint[2];

    /// <summary>Dot products of registers alone, as fast as the processor goes: <see cref="PeakSums"/> a round, vdpbf16ps or vpdpbusd.</summary>
    public void Peak(bool bf16, nint rounds)
    {
        ref var code = ref _peak[bf16 ? 1 : 0];
        if (code == 0)
            lock (_peak)
                if (code == 0)
                    code = Place(c => EmitPeak(c, bf16)) ?? throw new OutOfMemoryException("there is no room for a kernel's code");
        ((delegate* unmanaged<nint, void>)code)(rounds);
    }

    private static void EmitPeak(Assembler c, bool bf16)
    {
        // The upper sixteen registers are the callee's on every system.
        ReadOnlySpan<AssemblerRegisterZMM> register = [zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31];
        c.mov(rax, OperatingSystem.IsWindows() ? rcx : rdi);
        foreach (var r in register)
            c.vpxord(r, r, r);
        var loop = c.CreateLabel();
        c.Label(ref loop);
        foreach (var sum in register[..PeakSums])
            if (bf16)
                c.vdpbf16ps(sum, zmm30, zmm31);
            else
                c.vpdpbusd(sum, zmm30, zmm31);
        c.dec(rax);
        c.jne(loop);
        c.vzeroupper();
        c.ret();
    }
}
